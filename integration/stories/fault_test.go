package stories_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/broker"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// The only broker is killed, twice (once with -short), and comes back with its data, under a load of which a part fails. Nothing is lost; what had no
// accepted commit may be delivered again, nothing else.
func TestABrokerIsKilledUnderLoad(t *testing.T) {
	leavesNothing(t)
	cluster := broker.For(t, broker.Config{Source: broker.Local})
	b := newBed(t, cluster, 3*time.Minute)
	base, retry, dead, group := b.topic("orders", 6), b.topic("retry", 3), b.topic("dead", 1), b.name("group")
	d := newDiary()
	d.commits = map[retriable.Position]int64{}
	succeeded := newSet()
	c := b.start(group, retriable.Hooks(d.member("a")), retriable.Topic(base, handles(func(m *retriable.Message) error {
		fails := strings.HasSuffix(string(m.Value), "7")
		if m.Attempt == 1 {
			defer d.visit("a", m)()
		}
		b.pass(5 * time.Millisecond)
		if fails && m.Attempt == 1 {
			return errors.New("not yet")
		}
		succeeded.add(string(m.Key) + ":" + string(m.Value))
		return nil
	}), retriable.RetryTopic(retry), retriable.DeadLetterTopic(dead), retriable.Backoff(retriable.Constant(500*time.Millisecond))))

	sent := b.steadily(base, 120)
	kills := 2
	if testing.Short() {
		kills = 1
	}
	for range kills {
		b.pass(3 * time.Second)
		if err := cluster.Kill(1); err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		b.pass(2 * time.Second)
		if err := c.health(); err == nil {
			t.Error("Health is nil while there is no broker")
		} else {
			t.Logf("while it is down: %v", err)
		}
		if err := cluster.StartNode(b.limit, 1); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		n := succeeded.len()
		b.await("records are handled again", 60*time.Second, func() bool { return succeeded.len() > n+100 })
		t.Logf("killed for %v; handled again %v after that", back.Sub(killed).Round(time.Millisecond), time.Since(back).Round(time.Millisecond))
	}
	b.pass(3 * time.Second)
	n := sent.stop()
	b.await("all are handled and nothing is left to do", 60*time.Second, func() bool {
		for _, p := range c.Stats().Partitions {
			if p.Pending+p.Held > 0 || p.Watermark != p.End {
				return false
			}
		}
		return succeeded.len() >= n
	})
	b.await("Health is nil again", 20*time.Second, func() bool { return c.health() == nil })
	c.clean()
	d.mu.Lock()
	defer d.mu.Unlock()
	t.Logf("%d records; %d delivered again, %d of them although committed; %d beside or before another of their key", n, d.again, d.past, d.disorder)
	if d.records.Load() != n || succeeded.len() != n {
		t.Errorf("%d of %d records were delivered, %d handled", d.records.Load(), n, succeeded.len())
	}
	if d.past > 0 || d.disorder > 0 {
		t.Error(strings.Join(d.wrong, "\n"))
	}
	b.wantAllCommitted(group, base)
	b.wantAllCommitted(group, retry)
	b.wantEqual("dead letters", b.ends(dead)[0], 0)
}

// set is names, each counted once.
type set struct {
	mu sync.Mutex
	m  map[string]bool
}

func newSet() *set { return &set{m: map[string]bool{}} }

func (s *set) add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[name] = true
}

func (s *set) len() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.m))
}

// A log with the holes that compaction makes: what is left is handled once, also when a commit lies in a hole.
func TestACompactedTopicIsRead(t *testing.T) {
	leavesNothing(t)
	cluster := broker.For(t, broker.Config{Properties: map[string]string{"log.cleaner.backoff.ms": "100"}})
	b := newBed(t, cluster, 2*time.Minute)
	topic, group := b.topic("orders", 1, "cleanup.policy=compact", "segment.ms=200", "segment.bytes=1048576", "min.cleanable.dirty.ratio=0.01"), b.name("group")
	var l tally
	handler := handles(func(m *retriable.Message) error {
		l.note(m)
		return nil
	})
	opts := []retriable.Option{retriable.Topic(topic, handler, retriable.NoDeadLetters())}

	send := func(round, n int) {
		t.Helper()
		var rs []*kgo.Record
		for i := range n {
			rs = append(rs, &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "key-%d", i*7%n), Value: fmt.Appendf(nil, "%d-%d", round, i*7%n)})
		}
		b.produce(rs...)
	}
	send(0, 100)
	c := b.start(group, opts...)
	b.await("the first are handled", 20*time.Second, func() bool { return l.len() == 100 })
	c.clean()
	b.wantEqual("committed", b.committed(group, topic)[0], 100)

	// Of rounds 1 to 9 only a half has the keys of the last one.
	for round := 1; round <= 9; round++ {
		send(round, 100)
		b.pass(220 * time.Millisecond) // a segment is closed by time
	}
	send(10, 50)
	b.pass(220 * time.Millisecond)
	send(11, 3)
	b.await("the log is compacted", 60*time.Second, func() bool { return len(b.readUntilEnd(topic)) < 400 })

	before := l.len()
	c = b.start(group, opts...)
	b.await("what is left is handled", 20*time.Second, func() bool {
		p, ok := c.part(topic, 0)
		return ok && p.Pending == 0 && p.Watermark == 1053
	})
	c.clean()
	t.Logf("%d of them were handled", l.len()-before)
	l.mu.Lock()
	defer l.mu.Unlock()
	for v, n := range l.n {
		if n != 1 {
			t.Errorf("%s was delivered %d times", v, n)
		}
	}
	for _, r := range b.readUntilEnd(topic) { // that may be fewer by now
		if l.n[string(r.Value)] == 0 {
			t.Errorf("%s was not delivered", r.Value)
		}
	}
	b.wantAllCommitted(group, topic)
}

// readUntilEnd returns all records of a topic with one partition, which may have holes but not at its end.
func (b *bed) readUntilEnd(topic string) (rs []*kgo.Record) {
	b.Helper()
	end := b.ends(topic)[0]
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.cluster.Addrs()...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		b.Fatal(err)
	}
	defer cl.Close()
	for len(rs) == 0 || rs[len(rs)-1].Offset < end-1 {
		fs := cl.PollFetches(b.limit)
		if err := fs.Err(); err != nil {
			b.Fatalf("reading %s: %v", topic, err)
		}
		rs = append(rs, fs.Records()...)
	}
	return rs
}
