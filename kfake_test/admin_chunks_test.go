package kfake_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

// The whole way of messages in chunks: one whose last chunk came too late is dead-lettered chunk by chunk, one that fails is dead-lettered in chunks,
// since the topic takes no larger records. Both come back as one message each, to a handler that finds them as they were first produced.
func TestMessagesInChunksGoBack(t *testing.T) {
	bubble(t, "", func(b *bed) {
		small := map[string]string{"max.message.bytes": "20000"}
		b.createTopic("orders", 2, small)
		b.createTopic("orders.retry", 3, small)
		b.createTopic("orders.dead", 2, small)
		var l ledger
		var mended atomic.Bool
		c := b.begin("billing", retriable.JoinTimeout(10*time.Second), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			if !mended.Load() {
				return retriable.Permanent(errors.New("the bank said no"))
			}
			l.note(m)
			if m.Attempt != 1 || m.Topic != "orders" || len(m.Headers) != 1 || m.Headers[0].Key != "tenant" {
				t.Errorf("attempt %d of %s with headers %v", m.Attempt, m.Topic, m.Headers)
			}
			if len(m.Value) > 10_000 && (m.Key != nil || m.Partition < 0) {
				t.Errorf("the large one came back with key %q from %s/%d/%d", m.Key, m.Topic, m.Partition, m.Offset)
			}
			return nil
		}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.MaxAttempts(2)))

		tenant := []kgo.RecordHeader{textHeader("tenant", "x")}
		large := &kgo.Record{Topic: "orders", Value: []byte(strings.Repeat("0123456789", 6000)), Headers: tenant}
		for _, r := range retriable.Split(large, 20_000) {
			r.Topic, r.Partition = "orders", 1
			b.send(r)
		}
		chunk := func(id uint64, value string) *kgo.Record {
			return &kgo.Record{Topic: "orders", Key: []byte("late"), Value: []byte(value), Headers: append([]kgo.RecordHeader{tenant[0]},
				textHeader("retriable_kafka_chunk_group", "AAAAAAAAAAAAAAAA"), numberHeader("retriable_kafka_number_of_chunks", 3), numberHeader("retriable_kafka_chunk_id", id))}
		}
		b.send(chunk(0, "one "), chunk(1, "two "))
		pass(30 * time.Second)
		a, done := b.outside()
		defer done()
		s, err := a.Summary(b.Context(), "orders.dead", admin.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "letters and parts", spaced(s.Letters, s.Incomplete), "1 2")
		mended.Store(true)
		res := b.replay(a, sendBack())
		wantEqual(t, "sent, and parts left alone", spaced(res.Sent, res.Incomplete), "1 2")
		b.send(chunk(2, "three")) // too late: it is a dead letter of its own
		pass(30 * time.Second)
		wantEqual(t, "delivered", l.values(), []string{string(large.Value)})
		res = b.replay(a, sendBack())
		wantEqual(t, "sent then", spaced(res.Sent, res.Incomplete), "1 0")
		pass(30 * time.Second)
		wantEqual(t, "delivered then", l.values(), []string{string(large.Value), "one two three"})
		wantEqual(t, "sent at last", b.replay(a, sendBack()).Sent, 0)

		// And once more the same, which is no repeat to whoever joins.
		r := sendBack()
		r.Again = true
		wantEqual(t, "sent again", b.replay(a, r).Sent, 2)
		pass(30 * time.Second)
		wantEqual(t, "delivered in all", spaced(len(l.all()), c.Stats().DeadLettered), "4 4")
		c.clean()
	})
}
