package retriable

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// However long a record takes, what is done above it is kept by nobody: not even until the next commit.
func TestWhatIsDoneBehindARecordThatIsNotTakesNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		addrs, dial, cl := fake(t)
		produce := func(keys ...string) {
			var rs []*kgo.Record
			for _, key := range keys {
				rs = append(rs, kgo.KeyStringRecord(key, "x"))
			}
			if err := cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		end := make(chan struct{})
		var mu sync.Mutex
		runs := map[weak.Pointer[run]]bool{}
		var c *Consumer
		c, stop := running(t, addrs, dial, HandlerFunc(func(_ context.Context, m *Message) error {
			if string(m.Key) == "stuck" {
				<-end
				return nil
			}
			p := c.partition(topicPartition{"orders", 0})
			p.mu.Lock()
			defer p.mu.Unlock()
			mu.Lock()
			defer mu.Unlock()
			for _, r := range p.open {
				runs[weak.Make(r)] = true
			}
			return nil
		}))
		// one behind the other in the workers' list, and later ones
		produce(slices.Concat([]string{"stuck"}, slices.Repeat([]string{"other"}, 10*batchRecords))...)
		time.Sleep(10 * time.Millisecond) // no commit interval
		for range 10 {
			produce("other")
			time.Sleep(time.Millisecond)
		}
		runtime.GC()
		mu.Lock()
		left := 0
		for r := range runs {
			if r.Value() != nil {
				left++
			}
		}
		if len(runs) < 20 || left > 2 { // the one with the record, and the last
			t.Errorf("of %d runs %d are still in memory", len(runs), left)
		}
		mu.Unlock()
		close(end)
		stop()
	})
}

// The last pending record of a batch keeps the room of all its items and states: that counts, copied out or not (I10).
func TestTheLastOfABatchCountsWithTheRoomThatItKeeps(t *testing.T) {
	const n = batchRecords
	r := &run{recs: make([]*kgo.Record, n), items: make([]item, n), own: make([]bool, n), bytes: 1 << 20}
	r.seg = watermark.NewSegment(r, 0, n, func(i int) int64 { return int64(i) })
	r.slots = r.seg.Slots()
	for i := range n {
		r.items[i].Slot = &r.slots[i]
		if i > 0 {
			r.slots[i].Done()
		}
	}
	r.recs[0], r.own[0] = kgo.StringRecord("a copy"), true
	if k, bytes := r.pending(); k != 1 || bytes < 60*n || bytes >= r.bytes {
		t.Errorf("%d pending, %d bytes; want 1, those of %d items at the least and not the batch's", k, bytes, n)
	}
	r.slots[0].Done()
	if k, bytes := r.pending(); k != 0 || bytes != 0 {
		t.Errorf("%d pending, %d bytes, though all are done", k, bytes)
	}
}
