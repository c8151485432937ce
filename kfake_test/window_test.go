package kfake_test

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// inWindow is a HookHeld that knows which records are in memory, and until when.
type inWindow struct {
	mu  sync.Mutex
	due map[retriable.Position]time.Time
}

func (w *inWindow) OnHeld(h retriable.Held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due[h.Source] = h.Due
}

// late says how late a record starts now; false if it was not in memory before it was due.
func (w *inWindow) late(p retriable.Position) (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	due, ok := w.due[p]
	delete(w.due, p)
	return time.Since(due), ok
}

// A hundred thousand records wait for an hour, in one retry topic, while others fail and are tried again after a second. With each of the bounds
// in turn the one that binds: what is in the window starts in time, memory keeps to its bound, the committed offsets move on, and a
// clean restart in the middle loses and repeats nothing. By default there are few, and smaller bounds; RETRIABLE_FULL=1 has them all.
func TestAHundredThousandWaitWhileOthersPass(t *testing.T) { // I5, I7, I10
	const short, within = 160, 80 * time.Minute
	long, scale := 4_000, 25
	if os.Getenv("RETRIABLE_FULL") != "" { // minutes
		long, scale = 100_000, 1
	}
	for _, c := range []struct {
		name string
		opt  retriable.Option

		partitions int
		held       int // at most, of a partition
		inTime     int // at least so many were in the window when they were due
	}{
		{"the map", retriable.MaxPending(10_000), 6, 24_100, long},
		{"MaxPending", retriable.MaxPending(20), 6, 24_100, long},
		{"MaxHeld", retriable.MaxHeld(6_000 / scale), 12, 6_000 / scale, long / 2},
		{"MaxWindow", retriable.MaxWindow(int64(7_000 / scale)), 12, 7_000 / scale, long / 2},
	} {
		if scale > 1 && c.partitions < 12 {
			continue // fewer do not fill a map
		}
		t.Run(c.name, func(t *testing.T) {
			bubble(t, fmt.Sprintf("orders orders.retry:%d orders.dead", c.partitions), func(b *bed) {
				began := time.Now()
				var rs []*kgo.Record
				for i := range long {
					r := retry(strconv.Itoa(i), 45*time.Minute+time.Duration(i%5000)*(30*time.Minute/5000))
					r.Partition = int32(i % c.partitions)
					if rs = append(rs, r); len(rs) == 2_000 {
						b.send(rs...)
						rs = nil
					}
				}
				w := &inWindow{due: map[retriable.Position]time.Time{}}
				var mu sync.Mutex
				times := map[string]int{}
				var latest time.Duration
				inTime := 0
				handler := handles(func(m *retriable.Message) error {
					late, held := w.late(m.Source)
					mu.Lock()
					defer mu.Unlock()
					times[string(m.Value)+" "+strconv.Itoa(m.Attempt)]++
					if held {
						inTime++
						latest = max(latest, late)
					}
					if m.Attempt == 1 {
						return retriable.RetryAfter(errNo, time.Second)
					}
					return nil
				})
				start := func() *running {
					w.mu.Lock()
					clear(w.due)
					w.mu.Unlock()
					return b.begin("g", c.opt, retriable.Hooks(w), retriable.CommitInterval(20*time.Second),
						retriable.Kafka(kgo.HeartbeatInterval(20*time.Second), kgo.SessionTimeout(2*time.Minute)),
						retriable.Topic("orders", handler, retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
				}
				r := start()
				sent, last := 0, int64(0)
				next := 10 * time.Minute
				for time.Since(began) < within {
					if since := time.Since(began); sent < short && since < 70*time.Minute {
						b.produce("orders", 0, fmt.Sprintf("k%d=short %d", sent, sent))
						sent++
					}
					time.Sleep(25 * time.Second)
					if sent == short/2 && r.Stats().Handled < uint64(long) { // in the middle
						r.clean()
						time.Sleep(2 * time.Second)
						r = start()
						time.Sleep(10 * time.Second)
					}
					st := r.Stats()
					committed := int64(0)
					for _, p := range st.Partitions {
						if p.Held > c.held {
							t.Fatalf("%d are held", p.Held)
						}
						if p.Topic == "orders.retry" {
							committed += p.Committed
						}
					}
					if st.PendingBytes > 256<<20 {
						t.Fatalf("%d bytes", st.PendingBytes)
					}
					if time.Since(began) > next && next < 70*time.Minute {
						if committed <= last {
							t.Errorf("after %v the committed offsets stay at %d", next, committed)
						}
						last, next = committed, next+10*time.Minute
					}
				}
				time.Sleep(2 * time.Minute)
				t.Logf("%d written again, %d in time, the latest after %v", r.Stats().Rewritten, inTime, latest)
				r.clean()
				if latest > 50*time.Millisecond || inTime < c.inTime {
					t.Errorf("of %d in the window one started %v after it was due", inTime, latest)
				}
				for i := range long {
					if n := times[strconv.Itoa(i)+" 2"]; n != 1 {
						t.Fatalf("%d was delivered %d times", i, n)
					}
				}
				for i := range sent {
					for attempt := 1; attempt <= 2; attempt++ {
						if n := times[fmt.Sprintf("short %d %d", i, attempt)]; n != 1 {
							t.Fatalf("attempt %d of short %d was delivered %d times", attempt, i, n)
						}
					}
				}
				for p := range int32(c.partitions) {
					wantEqual(t, "committed", b.committed("g", "orders.retry", p), b.cluster.PartitionInfo("orders.retry", p).HighWatermark)
				}
			})
		})
	}
}
