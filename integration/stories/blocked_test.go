package stories_test

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Isolation: every handler of partition 0 blocks for ever and ignores its context, with more keys there than workers. The
// other partitions finish and commit 50,000 records, memory stays within its bound, and a stop ends in time and names what it left.
func TestABlockedPartitionStopsNoOther(t *testing.T) {
	const (
		others  = 7
		each    = 50_000 / others
		workers = 16
		bound   = 16 << 20
		drain   = 3 * time.Second
	)
	b := story(t, 3*time.Minute)
	topic, group := b.topic("orders", others+1), b.name("group")
	b.fill(topic, 0, 40_000, 1_000) // 40 MB: more than there is room for
	for p := range int32(others) {
		b.fill(topic, p+1, each, 200)
	}

	release := make(chan struct{})
	blocked, handled := atomic.Int64{}, atomic.Int64{}
	before := heap()
	c := b.start(group, retriable.Concurrency(workers), retriable.MaxPendingBytes(bound), retriable.DrainTimeout(drain), retriable.StuckAfter(time.Second),
		retriable.Topic(topic, handles(func(m *retriable.Message) error {
			if m.Partition == 0 {
				blocked.Add(1)
				<-release
			} else {
				handled.Add(1)
			}
			return nil
		}), retriable.NoDeadLetters()))
	t.Cleanup(func() { // before the consumer is stopped
		select {
		case <-release:
		default:
			close(release)
		}
	})

	most := int64(0)
	began := time.Now()
	b.await("the other partitions are handled and committed", time.Minute, func() bool {
		s := c.Stats()
		most = max(most, s.PendingBytes)
		committed := int64(0)
		for _, p := range s.Partitions {
			if p.Partition != 0 {
				committed += max(p.Committed, 0)
			}
		}
		return committed == others*each
	})
	took := time.Since(began)
	b.wantEqual("handled", handled.Load(), others*each)
	// At rest, for as long as fetches and the watch take to settle.
	b.await("the watch names partition 0", 10*time.Second, func() bool {
		most = max(most, c.Stats().PendingBytes)
		e, ok := is[*retriable.StuckError](c.health())
		return ok && e.Partition == 0 && e.Oldest.Reason == retriable.ReasonRunning
	})
	rest := heap() - before
	t.Logf("%d records of the others in %v beside %d blocked handlers; pending at most %.1f of %d MiB; the heap grew by %.1f MiB",
		others*each, took.Round(time.Millisecond), blocked.Load(), mib(most), bound>>20, mib(rest))
	if blocked.Load() < 1 || blocked.Load() > workers*3/4 {
		t.Errorf("%d handlers of partition 0 run, want at most three quarters of %d", blocked.Load(), workers)
	}
	if most > bound+bound/16 { // how much a poll brings is an estimate
		t.Errorf("PendingBytes was %d, over its bound %d", most, int64(bound))
	}
	if limit := int64(bound + 32<<20); rest > limit {
		t.Errorf("the heap grew by %d bytes, more than %d", rest, limit)
	}
	p, _ := c.part(topic, 0)
	b.wantEqual("partition 0: watermark and running", fmt.Sprint(p.Watermark, p.Running), fmt.Sprint(0, blocked.Load()))

	began = time.Now()
	err := c.end()
	took = time.Since(began)
	t.Logf("the stop took %v and says: %v", took.Round(time.Millisecond), err)
	if took > drain+2*time.Second {
		t.Errorf("the stop took %v, more than DrainTimeout and 2s", took)
	}
	abandoned, ok := is[*retriable.AbandonedError](err)
	if !ok {
		t.Fatalf("Run: %v, want an AbandonedError", err)
	}
	b.wantEqual("abandoned records, and handlers that still run", fmt.Sprint(len(abandoned.Records), abandoned.Running), fmt.Sprint(blocked.Load(), blocked.Load()))
	for _, at := range abandoned.Records {
		if at.Topic != topic || at.Partition != 0 {
			t.Errorf("%v is abandoned, which is not of partition 0", at)
		}
	}
	want := b.ends(topic)
	want[0] = 0
	b.wantEqual("committed", b.committed(group, topic), want)
	close(release) // the look for goroutines comes next
}

// fill writes n records of so many bytes to a partition, each with a key of its own.
func (b *bed) fill(topic string, partition int32, n, size int) {
	b.Helper()
	value := make([]byte, size)
	for i := range value {
		value[i] = byte(i * 7)
	}
	rs := make([]*kgo.Record, n)
	for i := range rs {
		rs[i] = &kgo.Record{Topic: topic, Partition: partition, Key: fmt.Appendf(nil, "%d-%d", partition, i), Value: value}
	}
	b.produce(rs...)
}

// heap returns the bytes in use, without garbage.
func heap() int64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
