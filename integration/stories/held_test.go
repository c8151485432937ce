package stories_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// retryHeaders are those of a copy in a retry topic: the number of the coming retry and, in whole seconds, when it is due, as any member
// of the group may write them; and the due time in milliseconds as ours do.
func retryHeaders(retry int, due time.Time) []kgo.RecordHeader {
	seconds := (due.UnixMilli() + 999) / 1000
	return []kgo.RecordHeader{
		{Key: "retriable_kafka_attempt", Value: binary.BigEndian.AppendUint64(nil, uint64(retry))},
		{Key: "retriable_kafka_timestamp", Value: binary.BigEndian.AppendUint64(nil, uint64(seconds))},
		{Key: "retriable_due", Value: strconv.AppendInt(nil, due.UnixMilli(), 10)},
	}
}

// Waiting: a record far from due at the head of its retry partition delays no record due before it, and each of 2,000 due at
// random within ten seconds starts within milliseconds of its time, never before.
func TestHeldRecordsStartOnTime(t *testing.T) {
	const n, spread, far = 2_000, 10 * time.Second, 15 * time.Second
	b := story(t, time.Minute)
	base, retry, group := b.topic("orders", 1), b.topic("retry", 1), b.name("group")

	start := time.Now().Add(2 * time.Second) // what it takes to write and to join
	dues := []time.Time{start.Add(far).Truncate(time.Millisecond)}
	for range n {
		dues = append(dues, start.Add(rand.N(spread)).Truncate(time.Millisecond))
	}
	var rs []*kgo.Record
	for i, due := range dues {
		h := append(retryHeaders(i%3+1, due), kgo.RecordHeader{Key: "retriable_group", Value: []byte(group)})
		rs = append(rs, &kgo.Record{Topic: retry, Key: fmt.Appendf(nil, "key-%d", i), Value: strconv.AppendInt(nil, int64(i), 10), Headers: h})
	}
	b.produce(rs...)

	var mu sync.Mutex
	late := make([]time.Duration, n+1)
	began := 0
	done := make(chan struct{})
	c := b.start(group, retriable.Concurrency(32), retriable.Topic(base, handles(func(m *retriable.Message) error {
		now := time.Now()
		i, _ := strconv.Atoi(string(m.Value))
		if m.Attempt != i%3+2 || m.Topic != base || len(m.Headers) != 0 {
			t.Errorf("record %d is attempt %d of topic %s with headers %v", i, m.Attempt, m.Topic, m.Headers)
		}
		mu.Lock()
		defer mu.Unlock()
		late[i] = now.Sub(dues[i])
		if began++; began == n+1 {
			close(done)
		}
		return nil
	}), retriable.RetryTopic(retry), retriable.NoDeadLetters()))
	noise := b.timers(dues[1:])
	left := time.Until(start)
	t.Logf("ready %v before the first are due", left.Round(time.Millisecond))
	if left < 0 {
		t.Fatal("this shows nothing")
	}
	// All but the first have run, and still the first keeps the commit back.
	b.await("2,000 have run while the first waits", 2*time.Second+spread+time.Second, func() bool {
		p, _ := c.part(retry, 0)
		return c.Stats().Handled == n && p.Held == 1 && p.Watermark == 0 && p.Oldest.Reason == retriable.ReasonHeld
	})
	select {
	case <-done:
	case <-b.limit.Done():
		t.Fatal("the first record does not start")
	}
	c.clean()
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(late[1:])
	plain := noise()
	t.Logf("late: p50 %v, p99 %v, max %v, the far one %v, least %v; plain timers: p50 %v, p99 %v, max %v",
		late[1+n/2], late[1+n*99/100], late[n], late[0], late[1], plain[n/2], plain[n*99/100], plain[n-1])
	if late[0] < 0 || late[1] < 0 {
		t.Errorf("one started %v, one %v before it was due", -late[0], -late[1])
	}
	if p99 := late[1+n*99/100]; p99 >= 50*time.Millisecond+plain[n*99/100] {
		t.Errorf("p99 of the lateness is %v, want less than 50ms beyond that of plain timers", p99)
	}
	if late[0] >= 250*time.Millisecond+plain[n-1] {
		t.Errorf("the far record was %v late", late[0])
	}
	b.wantAllCommitted(group, retry)
}

// timers waits for each of the times as well, by itself, and at the end says how late it was, sorted: what of a lateness is the machine's.
func (b *bed) timers(dues []time.Time) (late func() []time.Duration) {
	dues = slices.SortedFunc(slices.Values(dues), time.Time.Compare)
	all := make(chan []time.Duration, 1)
	go func() {
		var ds []time.Duration
		for _, due := range dues {
			select {
			case <-time.After(time.Until(due)):
			case <-b.limit.Done():
			}
			ds = append(ds, time.Since(due))
		}
		slices.Sort(ds)
		all <- ds
	}()
	return func() []time.Duration { return <-all }
}
