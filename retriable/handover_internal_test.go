//go:build unix

package retriable

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// fetched is what a poll brings of one partition: records in slabs, as kgo makes them.
func fetched(topic string, partition int32, offset int64, n int, keys [][]byte, value []byte) []*kgo.Record {
	slab := make([]kgo.Record, n)
	recs := make([]*kgo.Record, n)
	for i := range slab {
		slab[i] = kgo.Record{
			Topic: topic, Partition: partition, Offset: offset + int64(i), Key: keys[(int(offset)+i)%len(keys)], Value: value,
			Timestamp: time.UnixMilli(1), LeaderEpoch: 1,
		}
		recs[i] = &slab[i]
	}
	return recs
}

// BenchmarkHandOver is the way of a record from the poll through a handler that does nothing to its end, without a broker. "none" is what
// making the records costs by itself: subtract it.
func BenchmarkHandOver(b *testing.B) {
	const partitions, batch = 12, 4096
	value := make([]byte, 100)
	keys := make([][]byte, 1000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "%08d", i)
	}
	b.Run("none", func(b *testing.B) {
		b.ReportAllocs()
		n, cpu := 0, cpuTime()
		for i := 0; i < b.N; i += batch {
			for _, r := range fetched("t", 0, int64(i), batch, keys, value) {
				n += len(r.Value)
			}
		}
		b.ReportMetric((cpuTime()-cpu).Seconds()*1e9/float64(b.N), "cpu-ns/op")
	})
	for order, name := range []string{ByKey: "ByKey", ByPartition: "ByPartition", Unordered: "Unordered"} {
		b.Run(name, func(b *testing.B) {
			h := HandlerFunc(func(_ context.Context, m *Message) error {
				_ = len(m.Value)
				return nil
			})
			c, err := New("g", Brokers("localhost:1"), Topic("t", h, NoDeadLetters(), Ordering(Order(order))), MaxPending(1<<20), MaxPendingBytes(1<<40))
			if err != nil {
				b.Fatal(err)
			}
			c.base = b.Context()
			parts := make([]*partition, partitions)
			for i := range parts {
				name := topicPartition{"t", int32(i)}
				parts[i] = newPartition(c, name, c.set.topics[0], false, kgo.EpochOffset{Epoch: -1})
				c.setParts(func(m map[topicPartition]*partition) { m[name] = parts[i] })
				c.pool.add(parts[i])
			}
			c.pool.start()
			b.ReportAllocs()
			b.ResetTimer()
			cpu := cpuTime()
			for i := 0; i < b.N; i += batch {
				p := parts[i/batch%partitions]
				off := int64(i / batch / partitions * batch)
				p.accept(fetched("t", p.partition, off, batch, keys, value), off+batch, time.Now())
				for p.look().pending > 4*batch {
					time.Sleep(10 * time.Microsecond)
				}
			}
			for _, p := range parts {
				for p.look().pending > 0 {
					time.Sleep(10 * time.Microsecond)
				}
			}
			b.StopTimer()
			b.ReportMetric((cpuTime()-cpu).Seconds()*1e9/float64(b.N), "cpu-ns/op")
			c.pool.stop(c)
		})
	}
}

func cpuTime() time.Duration {
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
