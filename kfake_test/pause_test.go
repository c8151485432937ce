package kfake_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

func TestPauseStopsWhatIsFetchedAndHeld(t *testing.T) {
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders:2 orders.retry other", func(b *bed) {
				var l ledger
				g := b.gate()
				h := handles(func(m *retriable.Message) error {
					l.note(m)
					switch {
					case string(m.Value) == "runs":
						g.wait()
					case m.Attempt == 1 && string(m.Value) == "again":
						return errors.New("not yet")
					}
					return nil
				})
				r := b.begin("billing", retriable.StuckAfter(5*time.Second), retriable.Defaults(retriable.NoDeadLetters(), retriable.Ordering(order)),
					retriable.Topic("orders", h, retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(10*time.Second))),
					retriable.Topic("other", h))
				b.produce("orders", 1, "k=again")
				pass(time.Second)
				b.produce("orders", 0, "k=runs", "k=queued")
				pass(time.Second)
				r.Pause("orders")
				b.produce("orders", 0, "j=later")
				b.produce("orders", 1, "i=later too")
				b.produce("other", 0, "free")
				pass(30 * time.Second) // "again" is long due
				g.open()               // what runs ends
				pass(30 * time.Second)
				free := []string{"again", "runs", "free"}
				if order == retriable.Unordered {
					free = []string{"again", "runs", "queued", "free"} // nothing held it back
				}
				wantEqual(t, "while it is paused", l.values(), free)
				wantEqual(t, "committed", b.committed("billing", "orders", 0), len(free)-2)
				var shown []string
				for _, p := range r.Stats().Partitions {
					shown = append(shown, fmt.Sprintf("%s/%d %v", p.Topic, p.Partition, p.Paused))
				}
				wantEqual(t, "shown", shown, []string{"orders/0 true", "orders/1 true", "orders.retry/0 true", "other/0 false"})
				if err := r.Health(b.Context()); err != nil {
					t.Errorf("Health: %v", err)
				}
				if found := b.log.lines("committed offset does not move", "queued"); found != nil {
					t.Errorf("a paused partition is called stuck: %v", found)
				}
				r.Resume("orders")
				b.until("the rest is handled", 10*time.Second, func() bool { return len(l.all()) == 7 })
				wantEqual(t, "attempts", attempts(l.of("again")), []int{1, 2})
				r.clean()
			})
		})
	}
}

func TestPauseSurvivesRebalancesAndStarts(t *testing.T) {
	bubble(t, "orders:4 orders.retry", func(b *bed) {
		var l ledger
		options := []retriable.Option{retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return nil }),
			retriable.RetryTopic("orders.retry"), none())}
		c, err := retriable.New("billing", b.options(options...)...)
		if err != nil {
			t.Fatal(err)
		}
		c.Pause() // before Run
		one := b.run(c)
		<-one.Ready()
		for p := range int32(4) {
			b.produce("orders", p, seq(5)...)
		}
		pass(10 * time.Second)
		wantEqual(t, "handled", len(l.all()), 0)
		two := b.start("billing", append(options, retriable.Logger(quiet()))...)
		two.Pause("orders")
		b.until("both own some", time.Minute, func() bool { return len(one.Stats().Partitions) > 0 && len(two.Stats().Partitions) > 0 })
		pass(10 * time.Second)
		before := len(l.all()) // what the second handled before it was paused
		two.clean()
		b.until("one owns all again", time.Minute, func() bool { return len(one.Stats().Partitions) == 5 })
		pass(10 * time.Second)
		wantEqual(t, "handled by the paused", len(l.all())-before, 0)
		if ps := one.Stats().Partitions; slices.ContainsFunc(ps, func(p retriable.PartitionStats) bool { return !p.Paused }) {
			t.Errorf("not all are paused: %v", ps)
		}
		one.Resume("orders")
		b.until("all are handled", 10*time.Second, func() bool { return len(l.all()) == 20 })
		wantEqual(t, "the retry topic came along", one.partition("orders.retry", 0).Paused, false)
		one.Pause("orders.retry")
		wantEqual(t, "it can be paused alone", []bool{one.partition("orders.retry", 0).Paused, one.partition("orders", 0).Paused}, []bool{true, false})
		one.Resume()
		wantEqual(t, "all resumed", one.partition("orders.retry", 0).Paused, false)
		one.clean() // a clean stop, and nothing twice
		wantEqual(t, "committed", b.committed("billing", "orders", 3), 5)
	})
}

func TestAStopWhilePaused(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var l ledger
		options := []retriable.Option{retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return nil }), none())}
		r := b.start("billing", options...)
		r.Pause("orders")
		b.produce("orders", 0, seq(10)...)
		pass(5 * time.Second)
		r.clean()
		wantEqual(t, "handled", len(l.all()), 0)
		r = b.start("billing", options...)
		b.until("all are handled", 10*time.Second, func() bool { return len(l.all()) == 10 })
		r.clean()
	})
}

func TestPauseOfAPattern(t *testing.T) {
	bubble(t, "eu.orders us.orders orders.retry", func(b *bed) {
		var l ledger
		r := b.begin("billing", retriable.TopicRegexp(`.*\.orders`, handles(func(m *retriable.Message) error { l.note(m); return nil }),
			retriable.RetryTopic("orders.retry"), none()))
		r.Pause(`.*\.orders`)
		b.produce("eu.orders", 0, "eu")
		b.produce("us.orders", 0, "us")
		pass(5 * time.Second)
		wantEqual(t, "paused by the pattern", l.values(), []string(nil))
		r.Resume("us.orders")
		b.until("one is resumed", 10*time.Second, func() bool { return len(l.all()) == 1 })
		pass(5 * time.Second)
		wantEqual(t, "resumed by name", l.values(), []string{"us"})
		r.Resume()
		b.until("all are", 10*time.Second, func() bool { return len(l.all()) == 2 })
		r.Pause("nobody")
		wantEqual(t, "told", len(b.log.lines("not consumed", "nobody")), 1)
		r.clean()
	})
}

func TestPausedReadsNoMore(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var l ledger
		r := b.begin("billing", retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return nil }), none()))
		r.Pause()
		pass(2 * time.Second)
		var rs []*kgo.Record
		for range 500 {
			rs = append(rs, &kgo.Record{Topic: "orders", Value: []byte("x")})
		}
		b.send(rs...)
		pass(5 * time.Second)
		wantEqual(t, "in memory", r.partition("orders", 0).Pending, 0)
		r.Resume()
		b.until("all are handled", 10*time.Second, func() bool { return len(l.all()) == 500 })
		r.clean()
	})
}

// The tiers of a topic are part of it: what is due there does not start either.
func TestPauseTakesTiersAlong(t *testing.T) {
	bubble(t, "orders orders.retry orders.10s", func(b *bed) {
		var l ledger
		h := handles(func(m *retriable.Message) error {
			if l.note(m); m.Attempt == 1 {
				return errors.New("not yet")
			}
			return nil
		})
		r := b.begin("billing", retriable.Topic("orders", h, retriable.NoDeadLetters(), retriable.RetryTopic("orders.retry"),
			retriable.RetryTier("orders.10s", 10*time.Second), retriable.Backoff(retriable.Constant(10*time.Second))))
		b.produce("orders", 0, "again")
		pass(5 * time.Second)
		r.Pause("orders")
		pass(time.Minute)
		wantEqual(t, "calls while it is paused", len(l.all()), 1)
		r.Resume("orders")
		b.until("it is tried again", 10*time.Second, func() bool { return len(l.all()) == 2 })
		wantEqual(t, "where from", l.all()[1].source.Topic, "orders.10s")
		r.clean()
	})
}
