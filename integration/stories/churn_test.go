package stories_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// protocols are the three ways in which a group shares out its partitions.
var protocols = []struct {
	name string
	opts []kgo.Opt
}{
	{"cooperative-sticky", []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer())}},
	{"eager", []kgo.Opt{kgo.Balancers(kgo.RangeBalancer())}},
	{"KIP-848", []kgo.Opt{kgo.ServerSideBalancer()}},
}

// churnFor is how long members come and go: a minute, a quarter of it with -short, RETRIABLE_CHURN if that is set.
func churnFor(t *testing.T) time.Duration {
	t.Helper()
	if s := os.Getenv("RETRIABLE_CHURN"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatalf("RETRIABLE_CHURN: %v", err)
		}
		return d
	}
	if testing.Short() {
		return 15 * time.Second
	}
	return time.Minute
}

// Hand-overs: three members come and go every two seconds under running handlers, and no record is lost, delivered again,
// or run beside or before another of its key. A run in which fewer than twenty hand-overs met a running handler shows nothing.
func TestRebalancesLoseAndRepeatNothing(t *testing.T) {
	const (
		partitions = 24
		keys       = 120
		fewest     = 20
		every      = 2 * time.Second
	)
	cluster := quickGroups(t)
	leavesNothing(t)
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, cluster, churnFor(t)+90*time.Second)
			topic, group := b.topic("orders", partitions), b.name("group")
			d := newDiary()
			join := func(name string) *running {
				return b.launch(group, retriable.Kafka(p.opts...), retriable.Hooks(d.member(name)), retriable.Topic(topic,
					handles(func(m *retriable.Message) error {
						defer d.visit(name, m)()
						b.pass(20 * time.Millisecond)
						return nil
					}), retriable.NoDeadLetters()))
			}

			sent := b.steadily(topic, keys)
			members := map[string]*running{}
			for _, name := range []string{"a", "b", "c"} {
				members[name] = join(name)
			}
			began, turns := time.Now(), 0
			for ; time.Since(began) < churnFor(t); turns++ {
				b.pass(every)
				// One leaves, comes back, the next leaves.
				name := string(rune('a' + turns/2%3))
				if turns%2 == 0 {
					members[name].clean()
				} else {
					members[name] = join(name)
				}
			}
			n := sent.stop()
			lost := !b.comesTrue(30*time.Second, func() bool { return d.records.Load() >= n })
			for _, m := range members {
				m.clean()
			}

			d.mu.Lock()
			defer d.mu.Unlock()
			met, handedOver, early := d.handOvers()
			t.Logf("%d records in %d turns; %d hand-overs, %d of them met a running handler; %d not begun and given back; %d partitions lost, %d records abandoned, %d commits refused; %d delivered again, %d beside or before another of their key",
				n, turns, handedOver, met, early, d.lost, d.abandoned, d.refused, d.again, d.disorder)
			if lost || d.records.Load() != n {
				t.Errorf("%d of %d records were delivered", d.records.Load(), n)
			}
			if d.again > 0 || d.disorder > 0 {
				t.Errorf("%d second deliveries, %d records beside or before another of their key:\n%s", d.again, d.disorder, strings.Join(d.wrong, "\n"))
			}
			if met < fewest {
				t.Errorf("%d hand-overs met a running handler; it takes %d to show anything", met, fewest)
			}
			b.wantAllCommitted(group, topic)
		})
	}
}

// stream is a steady produce.
type stream struct {
	b     *bed
	end   chan struct{}
	ended chan struct{}
	acked atomic.Int64
	bad   atomic.Pointer[error]
}

// steadily produces some 1,000 records a second, over so many keys at random, numbered by key, until it is stopped.
func (b *bed) steadily(topic string, keys int) *stream {
	b.Helper()
	s := &stream{b: b, end: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		number := make([]int64, keys)
		for {
			select {
			case <-s.end:
				return
			case <-b.limit.Done():
				return
			case <-tick.C:
			}
			for range 10 {
				k := rand.IntN(keys)
				r := &kgo.Record{Topic: topic, Partition: -1, Key: fmt.Appendf(nil, "key-%d", k), Value: strconv.AppendInt(nil, number[k], 10)}
				number[k]++
				b.cl.Produce(b.limit, r, func(_ *kgo.Record, err error) {
					if err != nil {
						s.bad.Store(&err)
						return
					}
					s.acked.Add(1)
				})
			}
		}
	}()
	return s
}

// stop ends the produce and returns how many records there are.
func (s *stream) stop() int64 {
	s.b.Helper()
	close(s.end)
	<-s.ended
	if err := s.b.cl.Flush(s.b.limit); err != nil {
		s.b.Fatalf("producing: %v", err)
	}
	if err := s.bad.Load(); err != nil {
		s.b.Fatalf("producing: %v", *err)
	}
	return s.acked.Load()
}

// diary notes what all members' handlers did and when their partitions were taken away.
type diary struct {
	records atomic.Int64 // that were delivered

	mu                                sync.Mutex
	open                              map[string]string // the record that runs, by key
	last                              map[string]int    // the last that began, by key
	seen                              map[string]bool
	again                             int
	past                              int // delivered again although committed
	disorder                          int
	wrong                             []string
	visits                            map[string][]span // by member and partition
	drains                            map[string][]span
	dropped, lost, abandoned, refused int
	commits                           map[retriable.Position]int64 // accepted, by partition; nil where no second delivery is to be excused
}

type span struct{ began, ended time.Time }

func newDiary() *diary {
	return &diary{
		open: map[string]string{}, last: map[string]int{}, seen: map[string]bool{},
		visits: map[string][]span{}, drains: map[string][]span{},
	}
}

// visit notes a handler's call; what it returns is to be called at its end.
func (d *diary) visit(member string, m *retriable.Message) (leave func()) {
	key, began := string(m.Key), time.Now()
	id := key + ":" + string(m.Value)
	number, _ := strconv.Atoi(string(m.Value))
	where := fmt.Sprintf("%s (%v) at member %s, %s", id, m.Source, member, began.Format("05.000"))
	d.mu.Lock()
	defer d.mu.Unlock()
	last, known := d.last[key]
	if d.seen[id] {
		d.again++
		committed := d.commits[retriable.Position{Topic: m.Source.Topic, Partition: m.Source.Partition}]
		switch {
		case d.commits == nil:
			d.wrongly("%s: a second delivery", where)
		case m.Source.Offset < committed:
			d.past++
			d.wrongly("%s: a second delivery, though %d is committed", where, committed)
		}
	} else {
		d.seen[id] = true
		d.records.Add(1)
		if known && number <= last {
			d.disorder++
			d.wrongly("%s: after number %d", where, last)
		}
	}
	if other, running := d.open[key]; running {
		d.disorder++
		d.wrongly("%s: while %s runs", where, other)
	}
	d.open[key], d.last[key] = where, max(number, last)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.open, key)
		at := fmt.Sprintf("%s/%d", member, m.Source.Partition)
		d.visits[at] = append(d.visits[at], span{began, time.Now()})
	}
}

func (d *diary) wrongly(format string, args ...any) {
	if len(d.wrong) < 20 {
		d.wrong = append(d.wrong, fmt.Sprintf(format, args...))
	}
}

// handOvers returns how many partitions were taken from a member, from how many of them while one of their handlers ran, and how many
// records were given back that had not begun.
func (d *diary) handOvers() (met, all, dropped int) {
	for at, drains := range d.drains {
		for _, drain := range drains {
			all++
			for _, v := range d.visits[at] {
				if v.began.Before(drain.began) && v.ended.After(drain.began) {
					met++
					break
				}
			}
		}
	}
	return met, all, d.dropped
}

// memberHook is one member's hook.
type memberHook struct {
	d    *diary
	name string
}

func (d *diary) member(name string) *memberHook { return &memberHook{d, name} }

// OnDrained implements retriable.HookDrained.
func (h *memberHook) OnDrained(e retriable.Drained) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	now := time.Now()
	at := fmt.Sprintf("%s/%d", h.name, e.Partition)
	h.d.drains[at] = append(h.d.drains[at], span{now.Add(-e.Took), now})
	h.d.dropped += e.Dropped
	h.d.abandoned += e.Abandoned
	if e.Lost {
		h.d.lost++
	}
}

// OnCommitted implements retriable.HookCommitted.
func (h *memberHook) OnCommitted(e retriable.Committed) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if e.Err != nil {
		h.d.refused++
		return
	}
	if h.d.commits != nil {
		h.d.commits[retriable.Position{Topic: e.Topic, Partition: e.Partition}] = e.Offset
	}
}
