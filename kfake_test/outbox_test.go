package kfake_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

func values(rs []*kgo.Record) (vs []string) {
	for _, r := range rs {
		vs = append(vs, string(r.Value))
	}
	return vs
}

func TestWhatAHandlerProducesIsAckedBeforeItCompletes(t *testing.T) {
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders invoices:2", func(b *bed) {
				h := retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
					invoice := &kgo.Record{Topic: "invoices", Key: m.Key, Value: append([]byte("for "), m.Value...)}
					if err := m.Produce(ctx, invoice); err != nil {
						return err
					}
					if invoice.Offset < 0 || invoice.Context != nil {
						t.Errorf("offset %d, context %v", invoice.Offset, invoice.Context)
					}
					return nil
				})
				r := b.begin("billing", retriable.Topic("orders", h, none(), retriable.Ordering(order)))
				b.produce("orders", 0, "a=1", "a=2", "b=3")
				b.until("all are done", 10*time.Second, func() bool { return r.Stats().Handled == 3 })
				r.clean()
				wantEqual(t, "committed", b.committed("billing", "orders", 0), 3)
				wantEqual(t, "invoices", len(b.read("invoices")), 3)
			})
		})
	}
}

func TestAProduceThatTheHandlerDidNotWaitForIsAwaited(t *testing.T) {
	bubble(t, "orders invoices", func(b *bed) {
		var l ledger
		begun := make(chan struct{}, 1)
		h := retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			l.note(m)
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			go func() {
				begun <- struct{}{}
				_ = m.Produce(short, &kgo.Record{Topic: "invoices", Value: m.Value})
			}()
			<-begun
			if err := m.Produce(short, &kgo.Record{Topic: "invoices", Value: []byte("gave up waiting")}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Produce: %v", err)
			}
			return nil
		})
		r := b.begin("billing", retriable.Kafka(kgo.ProducerLinger(time.Second)), retriable.Topic("orders", h, none()))
		b.produce("orders", 0, "k=1", "k=2")
		pass(500 * time.Millisecond)
		wantEqual(t, "begun while the first is not acked", len(l.all()), 1)
		wantEqual(t, "and done", r.Stats().Handled, 0)
		b.until("all are done", time.Minute, func() bool { return r.Stats().Handled == 2 })
		r.clean()
		wantEqual(t, "committed", b.committed("billing", "orders", 0), 2)
		wantEqual(t, "invoices", len(b.read("invoices")), 4)
		l.once(t, 2)
	})
}

func TestAProduceThatFailsUnawaitedFailsTheAttempt(t *testing.T) {
	bubble(t, "orders orders.dead invoices", func(b *bed) {
		var mine atomic.Value
		h := retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			short, cancel := context.WithTimeout(ctx, time.Microsecond)
			defer cancel()
			switch string(m.Value) {
			case "unawaited":
				_ = m.Produce(short, &kgo.Record{Topic: "invoices", Value: m.Value})
			case "judged":
				mine.Store(m.Produce(ctx, &kgo.Record{Topic: "invoices", Value: m.Value}))
			}
			return nil
		})
		r := b.begin("billing", retriable.Kafka(kgo.ProducerLinger(10*time.Millisecond)), retriable.Topic("orders", h, retriable.DeadLetterTopic("orders.dead")))
		f := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "invoices", Err: kerr.TopicAuthorizationFailed, Count: -1})
		b.produce("orders", 0, "a=unawaited", "b=judged")
		b.until("both are settled", 10*time.Second, func() bool { s := r.Stats(); return s.Handled == 1 && s.DeadLettered == 1 })
		f.Remove()
		r.clean()
		letter := b.read("orders.dead")[0]
		wantEqual(t, "the letter", string(letter.Value), "unawaited")
		if text, _ := header(letter, "retriable_error"); !strings.Contains(text, "invoices") {
			t.Errorf("its reason: %s", text)
		}
		if err, _ := mine.Load().(error); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("what the handler saw: %v", err)
		}
	})
}

func TestNothingIsProducedAfterTheFence(t *testing.T) {
	bubble(t, "orders invoices", func(b *bed) {
		late := make(chan error, 1)
		over := make(chan error, 1)
		h := retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			if string(m.Value) == "quick" {
				go func() {
					time.Sleep(time.Second)
					over <- m.Produce(context.WithoutCancel(ctx), &kgo.Record{Topic: "invoices", Value: []byte("over")})
				}()
				return nil
			}
			<-ctx.Done()
			time.Sleep(5 * time.Second) // it ignores the last moment too
			late <- m.Produce(context.WithoutCancel(ctx), &kgo.Record{Topic: "invoices", Value: []byte("late")})
			return nil
		})
		r := b.start("billing", retriable.DrainTimeout(time.Second), retriable.Topic("orders", h, none()))
		b.produce("orders", 0, "a=quick", "b=slow")
		if err := <-over; err == nil || errors.Is(err, retriable.ErrRevoked) {
			t.Errorf("after the handler returned: %v", err)
		}
		var abandoned *retriable.AbandonedError
		if err := r.end(); !errors.As(err, &abandoned) {
			t.Errorf("Run: %v", err)
		}
		if err := <-late; !errors.Is(err, retriable.ErrRevoked) || !errors.Is(err, retriable.ErrShutdown) {
			t.Errorf("after the fence: %v", err)
		}
		synctest.Wait()
		wantEqual(t, "invoices", values(b.read("invoices")), []string(nil))
	})
}

// The same while the client lives on: only the fence is there to refuse it.
func TestNothingIsProducedAfterARevoke(t *testing.T) {
	bubble(t, "orders:2 invoices", func(b *bed) {
		late := make(chan error, 2)
		stuck := retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			<-ctx.Done()
			time.Sleep(5 * time.Second) // it ignores the last moment too
			late <- m.Produce(context.WithoutCancel(ctx), &kgo.Record{Topic: "invoices", Value: []byte("late")})
			return nil
		})
		r := b.start("billing", retriable.DrainTimeout(time.Second), retriable.Topic("orders", stuck, none()))
		b.produce("orders", 0, "a=slow")
		b.produce("orders", 1, "b=slow")
		pass(time.Second)
		other := b.start("billing", retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), none()))
		if err := <-late; !errors.Is(err, retriable.ErrRevoked) || errors.Is(err, retriable.ErrShutdown) {
			t.Errorf("after the fence: %v", err)
		}
		pass(time.Second)
		wantEqual(t, "invoices", values(b.read("invoices")), []string(nil))
		other.clean()
		var abandoned *retriable.AbandonedError
		if err := r.end(); !errors.As(err, &abandoned) {
			t.Errorf("Run: %v", err)
		}
		pass(10 * time.Second)
	})
}

func TestAHandlerThatIsStoppedWhileItProduces(t *testing.T) {
	bubble(t, "orders invoices", func(b *bed) {
		var l ledger
		h := retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			l.note(m)
			if err := m.Produce(ctx, &kgo.Record{Topic: "invoices", Value: m.Value}); err != nil {
				return retriable.RetryAfter(err, time.Second)
			}
			return nil
		})
		f := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "invoices", Err: kerr.NotEnoughReplicas, Count: -1})
		options := []retriable.Option{retriable.DrainTimeout(2 * time.Second), retriable.Topic("orders", h, none(), retriable.BlockingRetries(100, retriable.Constant(time.Second)), retriable.HandlerTimeout(time.Minute))}
		r := b.start("billing", options...)
		b.produce("orders", 0, "k=1")
		pass(time.Second)
		var abandoned *retriable.AbandonedError
		if err := r.end(); err != nil && !errors.As(err, &abandoned) {
			t.Errorf("Run: %v", err)
		}
		f.Remove()
		r = b.start("billing", options...)
		b.until("it is done", 10*time.Second, func() bool { return r.Stats().Handled == 1 })
		r.clean()
		if vs := fmt.Sprint(values(b.read("invoices"))); vs != "[1]" && vs != "[1 1]" {
			t.Errorf("invoices: %v", vs)
		}
	})
}

func TestTheHandlerOfAJoinedMessageProduces(t *testing.T) {
	bubble(t, "orders invoices", func(b *bed) {
		var errs []error
		h := retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			err := m.Produce(ctx, &kgo.Record{Topic: "invoices", Value: []byte("one")})
			errs = append(errs, err)
			return err
		})
		r := b.begin("billing", retriable.Topic("orders", h, none()))
		b.send(retriable.Split(&kgo.Record{Topic: "orders", Key: []byte("k"), Value: make([]byte, 5000)}, 1500)...)
		b.until("it is settled", 10*time.Second, func() bool { s := r.Stats(); return s.Handled+s.Dropped == 1 })
		r.clean()
		wantEqual(t, "errors", errs, []error{nil})
		wantEqual(t, "invoices", values(b.read("invoices")), []string{"one"})
	})
}
