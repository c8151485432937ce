package kfake_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// kept counts the records that are still in memory, each of which keeps its whole fetch there.
type kept struct {
	mu   sync.Mutex
	recs []weak.Pointer[kgo.Record]
}

func (k *kept) note(m *retriable.Message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.recs = append(k.recs, weak.Make(m.Record))
}

func (k *kept) now() (n int) {
	runtime.GC()
	runtime.GC() // what only the first one's finalizers kept
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.recs {
		if p.Value() != nil {
			n++
		}
	}
	return n
}

// Nothing of a record stays behind, neither with idle workers nor with the last of a key, though nothing more is fetched.
func TestWhatIsHandledIsNotKeptInMemory(t *testing.T) { // I10
	const n = 300
	for _, order := range []retriable.Order{retriable.ByKey, retriable.ByPartition, retriable.Unordered} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			bubble(t, "orders:2 orders.retry", func(b *bed) {
				var k kept
				r := b.begin("g", retriable.Topic("orders", handles(func(m *retriable.Message) error {
					k.note(m)
					if m.Attempt == 1 && m.Offset%10 == 0 {
						return errNo
					}
					return nil
				}), none(), retriable.Ordering(order), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(time.Second))))
				for p := range int32(2) {
					var rs []*kgo.Record
					for i := range n {
						rs = append(rs, &kgo.Record{
							Topic: "orders", Partition: p, Key: []byte(fmt.Sprint("k", i)), Value: []byte(fmt.Sprint(i)), Headers: []kgo.RecordHeader{kv("a", []byte("1")), kv("b", []byte("2"))}[:i%3],
						})
					}
					b.send(rs...)
				}
				b.until("all handled", time.Minute, func() bool { return r.Stats().Handled == 2*n })
				time.Sleep(time.Second)
				wantEqual(t, "records in memory", k.now(), 0)
				r.clean()
			})
		})
	}
}
