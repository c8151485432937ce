package retriable_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/internal/clock"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

// wrong is a hook of a consumer whose clock is wrong by so much.
type wrong time.Duration

func (w wrong) Skew() clock.Skew            { return clock.Skew(w) }
func (wrong) OnStuck(retriable.Stuck)       {}
func (wrong) OnAssigned(retriable.Assigned) {}

// However wrong a member's clock is, what lasts some time by it lasts as long by any other.
func TestAWrongClockChangesNoDurations(t *testing.T) {
	for _, skew := range []time.Duration{-3 * time.Hour, 3 * time.Hour} {
		t.Run(fmt.Sprint("a batch that waits for company, by ", skew), func(t *testing.T) {
			retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
				k.Topic("orders", 1)
				var got atomic.Int64
				k.Start("billing", retriable.Hooks(wrong(skew)), retriable.BatchTopic("orders", func(_ context.Context, ms []*retriable.Message) error {
					got.Store(time.Now().UnixNano())
					return nil
				}, retriable.BatchWait(2*time.Second), retriable.NoDeadLetters()))
				k.Produce("orders", "k", "one")
				began := time.Now()
				time.Sleep(time.Minute)
				if took := time.Unix(0, got.Load()).Sub(began); took < 1900*time.Millisecond || took > 3*time.Second {
					t.Errorf("it came after %v", took)
				}
			})
		})
		t.Run(fmt.Sprint("a message that stays incomplete, by ", skew), func(t *testing.T) {
			retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
				k.Topic("orders", 1)
				k.Start("billing", retriable.Hooks(wrong(skew)), retriable.Topic("orders", retriable.HandlerFunc(func(context.Context, *retriable.Message) error {
					return nil
				}), retriable.DeadLetterTopic("orders.dead")))
				number := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
				k.ProduceRecords(&kgo.Record{Topic: "orders", Value: []byte("half"), Headers: []kgo.RecordHeader{
					{Key: "retriable_kafka_chunk_group", Value: []byte("g")}, {Key: "retriable_kafka_number_of_chunks", Value: number(2)}, {Key: "retriable_kafka_chunk_id", Value: number(0)},
				}})
				time.Sleep(14 * time.Minute)
				if n := len(k.Records("orders.dead")); n != 0 {
					t.Errorf("%d letters before its time", n)
				}
				time.Sleep(2 * time.Minute)
				if n := len(k.Records("orders.dead")); n != 1 {
					t.Errorf("%d letters after its time", n)
				}
			})
		})
	}
}
