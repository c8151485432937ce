package kfake_test

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// flood produces n records by 100 keys to the partitions of a topic in turn.
func (b *bed) flood(topic string, partitions, n int) {
	b.Helper()
	rs := make([]*kgo.Record, n)
	for i := range rs {
		rs[i] = &kgo.Record{Topic: topic, Partition: int32(i % partitions), Key: fmt.Appendf(nil, "k%d", i%100), Value: fmt.Appendf(nil, "%d", i)}
	}
	b.send(rs...)
}

func TestARateLimitHoldsWithinOnePercent(t *testing.T) {
	for name, order := range orderings {
		for _, perSecond := range []float64{0.5, 77, 333} {
			t.Run(fmt.Sprintf("%s at %v", name, perSecond), func(t *testing.T) {
				bubble(t, "orders:3", func(b *bed) {
					var n atomic.Int64
					b.flood("orders", 3, int(perSecond*70)+50)
					began := time.Now()
					r := b.begin("billing", retriable.Topic("orders", handles(func(*retriable.Message) error { n.Add(1); return nil }),
						none(), retriable.Ordering(order), retriable.RateLimit(perSecond, 1)))
					b.until("it has begun", 10*time.Second, func() bool { return n.Load() > 0 })
					pass(time.Minute)
					got, want := float64(n.Load()), perSecond*60
					if math.Abs(got-want) > max(want/100, 1) {
						t.Errorf("%v in a minute, want %v", got, want)
					}
					_ = began
					r.clean()
				})
			})
		}
	}
}

func TestARateLimitedTopicSlowsNoOther(t *testing.T) {
	bubble(t, "slow:2 slow.retry fast:2", func(b *bed) {
		var slow, fast ledger
		r := b.begin("billing", retriable.Concurrency(2), retriable.MaxPending(100), retriable.Defaults(none()),
			retriable.Topic("slow", handles(func(m *retriable.Message) error {
				slow.note(m)
				if m.Attempt == 1 && string(m.Value) == "3" {
					return errors.New("not yet")
				}
				return nil
			}), retriable.RateLimit(10, 5), retriable.RetryTopic("slow.retry"), retriable.Backoff(retriable.Constant(time.Second))),
			retriable.Topic("fast", handles(func(m *retriable.Message) error {
				fast.note(m)
				return nil
			})))
		b.flood("slow", 2, 1000)
		pass(10 * time.Second)
		began := time.Now()
		b.flood("fast", 2, 5000)
		b.until("the fast is done", 5*time.Second, func() bool { return len(fast.all()) == 5000 })
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the other topic took %v", took)
		}
		pass(20 * time.Second)
		ds := slow.all()
		for i := range ds {
			if i >= 15 && ds[i].at.Sub(ds[i-15].at) < time.Second-time.Millisecond {
				t.Fatalf("16 starts within %v: more than 5 at once and 10 a second", ds[i].at.Sub(ds[i-15].at))
			}
		}
		by := map[retriable.Position]int{}
		for _, d := range ds {
			by[retriable.Position{Topic: d.source.Topic, Partition: d.source.Partition}]++
		}
		if by[retriable.Position{Topic: "slow"}] < 100 || by[retriable.Position{Topic: "slow", Partition: 1}] < 100 {
			t.Errorf("the partitions do not take turns: %v", by)
		}
		wantEqual(t, "the retry counts and comes", attempts(slow.of("3")), []int{1, 2})
		if err := r.Health(b.Context()); err != nil {
			t.Errorf("Health: %v", err)
		}
		r.clean()
	})
}

func TestAGateBarsItsTopicAlone(t *testing.T) {
	bubble(t, "orders:2 other", func(b *bed) {
		var l, o ledger
		var open atomic.Bool
		var asked atomic.Int64
		r := b.begin("billing", retriable.Defaults(none()),
			retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return nil }), retriable.Gate(func() time.Duration {
				asked.Add(1)
				if open.Load() {
					return 0
				}
				return 100 * time.Millisecond
			})),
			retriable.Topic("other", handles(func(m *retriable.Message) error { o.note(m); return nil })))
		b.flood("orders", 2, 1000)
		b.flood("other", 1, 10)
		pass(10 * time.Second)
		wantEqual(t, "handled", []int{len(l.all()), len(o.all())}, []int{0, 10})
		if n := asked.Load(); n < 90 || n > 1700 { // every 100 ms, by so many workers at most
			t.Errorf("asked %d times", n)
		}
		open.Store(true)
		pass(200 * time.Millisecond)
		l.once(t, 1000)
		wantEqual(t, "attempts", attempts(l.of("7")), []int{1})
		open.Store(false)
		b.flood("orders", 2, 10)
		pass(time.Second)
		r.clean() // does not wait for the gate
		wantEqual(t, "handled", len(l.all()), 1000)
	})
}

func TestAGateThatPanicsIsNotTheEnd(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var l ledger
		var asked atomic.Int64
		r := b.begin("billing", retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return nil }), none(),
			retriable.Gate(func() time.Duration {
				if asked.Add(1) == 1 {
					panic("gone")
				}
				return 0
			})))
		b.produce("orders", 0, "x")
		b.until("it is handled", 3*time.Second, func() bool { return len(l.all()) == 1 })
		wantEqual(t, "told", len(b.log.lines("a Gate panicked")), 1)
		r.clean()
	})
}

func TestTopicConcurrency(t *testing.T) {
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders:4 orders.retry:2 other:4", func(b *bed) {
				var c crowd
				h := func(topic string) retriable.Handler {
					return handles(func(m *retriable.Message) error {
						defer c.enter(topic)()
						time.Sleep(100 * time.Millisecond)
						if m.Attempt == 1 && m.Partition == 0 && topic == "orders" {
							return errors.New("not yet")
						}
						return nil
					})
				}
				r := b.begin("billing", retriable.Concurrency(12), retriable.Defaults(none(), retriable.Ordering(order)),
					retriable.Topic("orders", h("orders"), retriable.TopicConcurrency(3), retriable.RetryTopic("orders.retry"),
						retriable.Backoff(retriable.Constant(time.Second))),
					retriable.Topic("other", h("other")))
				b.flood("orders", 4, 200)
				b.flood("other", 4, 200)
				pass(2 * time.Second)
				for _, p := range r.Stats().Partitions {
					if p.Topic == "orders" && p.Watermark == 0 && p.Pending == 50 {
						t.Errorf("%s/%d has had no turn", p.Topic, p.Partition)
					}
				}
				b.until("all are handled", time.Minute, func() bool { return r.Stats().Handled == 400 })
				of, _ := c.mostOf("orders")
				wantEqual(t, "of orders at once", of, 3)
				if of, _ := c.mostOf("other"); of <= 3 {
					t.Errorf("%d of the other at once", of)
				}
				r.clean()
			})
		})
	}
}
