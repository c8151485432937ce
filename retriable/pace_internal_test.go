//go:build unix

package retriable

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// brisk runs a consumer of 12 partitions with 10 records each, whose pool believes its handlers to take next to nothing, until all is done.
func brisk(t *testing.T, workers int, h HandlerFunc) {
	t.Helper()
	c, err := New("g", Brokers("localhost:1"), Concurrency(workers), Topic("t", h, NoDeadLetters(), Ordering(Unordered)))
	if err != nil {
		t.Fatal(err)
	}
	c.base = t.Context()
	c.pool.pace.each = time.Nanosecond
	c.pool.start()
	for i := range int32(12) {
		name := topicPartition{"t", i}
		p := newPartition(c, name, c.set.topics[0], false, kgo.EpochOffset{Epoch: -1})
		c.setParts(func(m map[topicPartition]*partition) { m[name] = p })
		c.pool.add(p)
		p.accept(fetched("t", i, 0, 10, [][]byte{nil}, nil), 10, time.Now())
	}
	for _, p := range c.partitions() {
		for p.look().pending > 0 || c.pool.attached(p) > 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if left := c.pool.stop(c); left > 0 {
		t.Errorf("%d handlers are left", left)
	}
}

// awaited waits for what is to happen whoever else is woken, and gives up in the end.
func awaited(t *testing.T, what string, happened <-chan struct{}) {
	select {
	case <-happened:
	case <-time.After(20 * time.Second):
		t.Errorf("%s has not happened", what)
	}
}

// Handlers that took next to nothing do so no longer: all workers come, though no further one was woken before.
func TestAllWorkersComeOnceHandlersTakeTime(t *testing.T) { // I11
	const workers = 16
	var started atomic.Int64
	all := make(chan struct{})
	brisk(t, workers, func(context.Context, *Message) error {
		if started.Add(1) == workers {
			close(all)
		}
		awaited(t, "the start of all workers", all)
		return nil
	})
}

// One handler that does not return is made up for, and no more: the others' records are handled meanwhile.
func TestASlowHandlerIsMadeUpFor(t *testing.T) { // I11
	var left atomic.Int64
	left.Store(119)
	others := make(chan struct{})
	brisk(t, 16, func(_ context.Context, m *Message) error {
		if m.Source == (Position{Topic: "t"}) {
			awaited(t, "the end of the others", others)
		} else if left.Add(-1) == 0 {
			close(others)
		}
		return nil
	})
}

// What is judged is how long records took: one that took time makes the pool slow at once, and a clock that stood still says nothing.
func TestThePaceIsThatOfTheRecordsOfLate(t *testing.T) {
	pl := newPool(16)
	pl.pace.note(stint{}, 100)
	if pl.pace.each != notBrisk || pl.enoughAwake(16) {
		t.Errorf("fake time is taken for brisk: %v", pl.pace.each)
	}
	for range 80 {
		pl.pace.note(stint{busy: 10 * time.Microsecond}, 100)
	}
	if !pl.enoughAwake(16) || pl.enoughAwake(0) {
		t.Errorf("at %v a record there are to be workers, but not all", pl.pace.each)
	}
	pl.pace.note(stint{busy: 5 * time.Millisecond}, 1)
	if pl.enoughAwake(16) {
		t.Errorf("at %v a record no worker is too many", pl.pace.each)
	}
	pl.mu.Lock()
	pl.closed = true
	pl.endPace()
	pl.mu.Unlock()
}
