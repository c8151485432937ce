package kfake_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

type order struct {
	ID   int    `json:"id"`
	Note string `json:"note"`
}

func TestAnUndecodableRecordIsADeadLetterWithItsBytes(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var got []int
		h := retriable.JSON(func(_ context.Context, o order, _ *retriable.Message) error {
			got = append(got, o.ID)
			return nil
		})
		r := b.begin("billing", retriable.Concurrency(1), retriable.Topic("orders", h,
			retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
		bad := []*kgo.Record{
			{Topic: "orders", Key: []byte("a"), Value: []byte(`{"id":1,"note":secret}`), Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte("t1")}}},
			{Topic: "orders", Key: []byte("b"), Value: []byte(`{"id":"hidden"}`)},
			{Topic: "orders", Key: []byte("c"), Value: []byte(`{"id":1e400}`)},
			{Topic: "orders", Key: []byte("d")},
			{Topic: "orders", Key: []byte("e"), Value: []byte{}},
		}
		b.send(bad...)
		b.produce("orders", 0, `f={"id":7}`)
		b.until("all are handled", 10*time.Second, func() bool { return len(got) == 1 && r.Stats().DeadLettered == 5 })
		r.clean()
		wantEqual(t, "decoded", got, []int{7})
		letters := map[string]*kgo.Record{}
		for _, l := range b.read("orders.dead") {
			letters[string(l.Key)] = l
		}
		for _, was := range bad {
			l := letters[string(was.Key)]
			if l == nil {
				t.Fatalf("no letter of %s", was.Key)
			}
			if !bytes.Equal(l.Value, was.Value) || (l.Value == nil) != (was.Value == nil) {
				t.Errorf("the letter of %s holds %q, want %q", was.Key, l.Value, was.Value)
			}
			text, _ := header(l, "retriable_error")
			if !strings.Contains(text, "orders/0/") || !strings.Contains(text, "kfake_test.order") {
				t.Errorf("%s: the reason does not name the record and the type: %s", was.Key, text)
			}
			for _, secret := range []string{"secret", "hidden", "1e400", "'s'"} {
				if strings.Contains(text, secret) {
					t.Errorf("%s: the reason shows what the value holds: %s", was.Key, text)
				}
			}
			if n, _ := header(l, "__dlq.errors.delivery.count"); n != "1" {
				t.Errorf("%s: %s deliveries, want 1", was.Key, n)
			}
		}
		wantEqual(t, "retries", len(b.read("orders.retry")), 0)
	})
}

func TestADecoderMayHaveAVerdictOfItsOwn(t *testing.T) {
	bubble(t, "orders orders.dead", func(b *bed) {
		calls, handled := 0, 0
		registry := func(r *kgo.Record) (o order, err error) {
			if calls++; calls <= 3 {
				return o, errors.Join(errors.New("the registry does not answer"), retriable.Postpone(time.Minute))
			}
			return o, json.Unmarshal(r.Value, &o)
		}
		r := b.begin("billing", retriable.Topic("orders", retriable.Typed(registry, func(_ context.Context, _ order, m *retriable.Message) error {
			handled++
			wantEqual(t, "attempt", m.Attempt, 1)
			return nil
		}), retriable.DeadLetterTopic("orders.dead")))
		b.produce("orders", 0, `{"id":7}`)
		pass(3*time.Minute + time.Second)
		wantEqual(t, "calls, handled, dead", []any{calls, handled, r.Stats().DeadLettered}, []any{4, 1, 0})
	})
}
