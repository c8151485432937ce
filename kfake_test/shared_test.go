package kfake_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
)

func TestConsumersShareWorkersFairly(t *testing.T) {
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			bubble(t, "many:8 few:1 slow:4", func(b *bed) {
				var c crowd
				w := retriable.NewWorkers(8)
				handler := func(who string, took time.Duration) retriable.Handler {
					return handles(func(*retriable.Message) error {
						defer c.enter(who)()
						time.Sleep(took)
						return nil
					})
				}
				start := func(topic string, took time.Duration) *running {
					return b.start(topic, retriable.SharedWorkers(w), retriable.Topic(topic, handler(topic, took), none(), retriable.Ordering(order)))
				}
				many, few, slow := start("many", 10*time.Millisecond), start("few", 10*time.Millisecond), start("slow", 30*time.Second)
				b.flood("many", 8, 4000)
				b.flood("slow", 4, 40)
				pass(time.Second)
				b.flood("few", 1, 20)
				began := time.Now()
				b.until("the few have had their turn", 10*time.Second, func() bool { return few.Stats().Handled == 20 })
				if took := time.Since(began); took > time.Second {
					t.Errorf("20 records of 10ms took %v beside the many", took)
				}
				before := many.Stats().Handled
				pass(time.Second)
				if n := many.Stats().Handled - before; n < 150 { // the slow have 6 of 8 workers at most
					t.Errorf("the many had %d turns in a second", n)
				}
				if of, all := c.mostOf("slow"); of > 6 || all > 8 {
					t.Errorf("%d of the slow, %d of all at once", of, all)
				}
				wantEqual(t, "workers", []int{many.Stats().Workers, few.Stats().Workers}, []int{8, 8})
				few.clean()
				many.clean() // while others run on
				b.until("the slow are done", 10*time.Minute, func() bool { return slow.Stats().Handled == 40 })
				slow.clean()
				_, all := c.mostOf("slow")
				wantEqual(t, "at once, of all", all, 8)
			})
		})
	}
}

// With another consumer in the pool one has three quarters of the workers. When the other stops it has all, at once, also at the partitions that no worker
// was let go to.
func TestWhoIsLeftHasAllTheSharedWorkers(t *testing.T) {
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			bubble(t, "many:4 few:4", func(b *bed) {
				var c crowd
				g := b.gate()
				w := retriable.NewWorkers(4)
				start := func(topic string) *running {
					return b.start(topic, retriable.SharedWorkers(w), retriable.Topic(topic, handles(func(*retriable.Message) error {
						defer c.enter(topic)()
						g.wait()
						return nil
					}), none(), retriable.Ordering(order)))
				}
				many, few := start("many"), start("few")
				b.flood("many", 4, 400)
				pass(5 * time.Second)
				of, _ := c.mostOf("many")
				wantEqual(t, "at once, beside another consumer", of, 3)
				few.clean()
				pass(time.Second)
				of, _ = c.mostOf("many")
				wantEqual(t, "at once, alone", of, 4)
				g.open()
				b.until("all are done", 10*time.Second, func() bool { return many.Stats().Handled == 400 })
				many.clean()
			})
		})
	}
}

func TestSharedWorkersAreUsedAgain(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var l ledger
		w := retriable.NewWorkers(2)
		for i := range 3 {
			r := b.start("billing", retriable.SharedWorkers(w), retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return nil }), none()))
			b.produce("orders", 0, fmt.Sprint(i))
			b.until("it is handled", 10*time.Second, func() bool { return len(l.all()) == i+1 })
			r.clean()
		}
	})
}

func TestSharedWorkersThroughARebalanceAndAHandlerThatHangs(t *testing.T) {
	bubble(t, "orders:2 other", func(b *bed) {
		var l ledger
		g := b.gate()
		w := retriable.NewWorkers(4)
		options := []retriable.Option{
			retriable.SharedWorkers(w), retriable.DrainTimeout(time.Second), retriable.StuckAfter(2 * time.Second),
			retriable.Topic("orders", handles(func(m *retriable.Message) error {
				if string(m.Value) == "hang" {
					g.wait()
				}
				l.note(m)
				return nil
			}), none()),
		}
		one := b.start("billing", options...)
		other := b.start("others", retriable.SharedWorkers(w), retriable.Topic("other", handles(func(m *retriable.Message) error { l.note(m); return nil }), none()))
		b.produce("orders", 0, "hang")
		pass(5 * time.Second)
		two := b.start("billing", options...)
		b.until("both own one", time.Minute, func() bool { return len(one.Stats().Partitions) == 1 && len(two.Stats().Partitions) == 1 })
		b.flood("other", 1, 50)
		b.until("the other goes on", 10*time.Second, func() bool { return other.Stats().Handled == 50 })
		two.stop()
		<-two.done
		one.stop()
		<-one.done
		var abandoned *retriable.AbandonedError
		if one.err == nil && two.err == nil || one.err != nil && !errors.As(one.err, &abandoned) {
			t.Errorf("Run: %v, %v", one.err, two.err)
		}
		b.produce("other", 0, "still")
		b.until("the other goes on", 10*time.Second, func() bool { return other.Stats().Handled == 51 })
		g.open()
		other.clean()
	})
}
