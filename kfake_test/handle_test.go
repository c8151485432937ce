package kfake_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
)

func TestRecordsAreHandledOnceAndCommitted(t *testing.T) {
	bubble(t, "orders:3", func(b *bed) {
		var l ledger
		b.produce("orders", 0, seq(50)...)
		c := b.start("g", retriable.Topic("orders", retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
			l.note(m)
			return nil
		}), retriable.NoDeadLetters()))
		synctest.Wait()
		time.Sleep(3 * time.Second)
		l.once(t, 50)
		wantEqual(t, "committed", b.committed("g", "orders", 0), 50)
		wantEqual(t, "handled", c.Stats().Handled, 50)
		c.clean()
	})
}

func TestAFailureIsRetriedThroughTheRetryTopic(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var l ledger
		c := b.start("g", patient(), retriable.Topic("orders", retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
			l.note(m)
			if m.Attempt < 3 || string(m.Value) == "never" {
				return errors.New("not yet")
			}
			return nil
		}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"),
			retriable.Backoff(retriable.Constant(time.Hour)), retriable.MaxAttempts(4)))
		b.produce("orders", 0, "k=a", "k=never", "b")
		time.Sleep(10 * time.Hour)
		for _, v := range []string{"a", "b"} {
			ds := l.of(v)
			if len(ds) != 3 {
				t.Fatalf("%s was delivered %d times, want 3", v, len(ds))
			}
			for i, d := range ds {
				wantEqual(t, "attempt", d.attempt, i+1)
			}
		}
		wantEqual(t, "deliveries of never", len(l.of("never")), 4)
		dead := b.read("orders.dead")
		wantEqual(t, "dead letters", len(dead), 1)
		wantEqual(t, "committed", b.committed("g", "orders", 0), 3)
		wantEqual(t, "retry committed", b.committed("g", "orders.retry", 0), 7)
		c.clean()
	})
}
