package kfake_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// What the plugins measure beside the rest: how late, what was skipped, what was paused and why.

// late notes when attempts were due and how late they began.
type late struct {
	mu   sync.Mutex
	told []string
}

func (l *late) OnHandled(e retriable.Handled) {
	l.mu.Lock()
	defer l.mu.Unlock()
	after := "no time"
	if !e.Due.IsZero() {
		after = e.Began.Sub(e.Due).String()
	}
	l.told = append(l.told, fmt.Sprintf("%s %d: late %s, waited %v", e.Message.Value, e.Message.Attempt, after, e.Waited))
}

func (l *late) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.told)
}

func TestHandledTellsHowLateAnAttemptBegan(t *testing.T) { // I7
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			bubble(t, allTopics, func(b *bed) {
				var l late
				var postponed atomic.Bool
				service := []retriable.Option{
					patient(), retriable.Concurrency(1), retriable.Hooks(&l), all(handles(func(m *retriable.Message) error {
						switch {
						case string(m.Value) == "again" && m.Attempt == 1:
							return errNo
						case string(m.Value) == "quick" && m.Attempt == 1:
							return errNo
						case string(m.Value) == "later" && !postponed.Swap(true):
							return retriable.Postpone(time.Minute)
						}
						return nil
					}), retriable.Ordering(order), retriable.Scheduled(time.Hour)),
				}
				r := b.begin("g", service...)
				b.produce("orders", 0, "plain", "again", "later")
				b.send(&kgo.Record{Topic: "orders", Value: []byte("scheduled"), Headers: []kgo.RecordHeader{due(time.Now().Add(2 * time.Minute))}})
				time.Sleep(30 * time.Minute)
				r.clean()
				wantEqual(t, "before the stop", strings.Join(l.all(), "\n"), strings.Join([]string{
					"plain 1: late no time, waited 0s",
					"again 1: late no time, waited 0s",
					"later 1: late no time, waited 0s",
					"later 1: late 0s, waited 0s",
					"scheduled 1: late 0s, waited 0s",
				}, "\n"))

				// Nobody is there when they come due: late, though they wait for nothing once they are read.
				at := time.Now()
				b.send(&kgo.Record{Topic: "orders", Value: []byte("missed"), Headers: []kgo.RecordHeader{due(at.Add(10 * time.Minute))}})
				time.Sleep(2 * time.Hour)
				l.told = nil
				r = b.begin("g", service...)
				time.Sleep(time.Minute)
				told := l.all()
				slices.Sort(told)
				if len(told) != 2 || !strings.HasPrefix(told[0], "again 2: late 1h30m") || !strings.HasPrefix(told[1], "missed 1: late 1h50m") ||
					!strings.HasSuffix(told[1], "waited 0s") {
					t.Errorf("after the start: %q", told)
				}
				r.clean()
			})
		})
	}
}

type skips struct{ n atomic.Int64 }

func (s *skips) OnSkipped(e retriable.Skipped) {
	if e.Topic == "orders" && e.Partition == 0 {
		s.n.Add(int64(e.Records))
	}
}

func TestHookSkippedTellsWhatTheMapSaves(t *testing.T) { // I5
	bubble(t, "orders", func(b *bed) {
		var s skips
		first := retriable.Topic("orders", handles(func(m *retriable.Message) error {
			if string(m.Value) == "0" {
				return retriable.Postpone(time.Hour)
			}
			return nil
		}), none())
		r := b.begin("g", first, retriable.Hooks(&s))
		b.produce("orders", 0, seq(300)...)
		b.until("all but one are handled", time.Minute, func() bool { return r.Stats().Handled == 299 })
		r.clean()
		wantEqual(t, "skipped by the first", s.n.Load(), 0)
		r = b.begin("g", first, retriable.Hooks(&s))
		time.Sleep(5 * time.Second)
		wantEqual(t, "skipped", s.n.Load(), 299)
		wantEqual(t, "counted", r.Stats().Skipped, 299)
		r.clean()
	})
}

type pausing struct {
	mu   sync.Mutex
	told []string
}

func (p *pausing) OnPaused(e retriable.Paused) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, fmt.Sprintf("%s/%d %v %v", e.Topic, e.Partition, e.Paused, e.Reasons))
}

func (p *pausing) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.told)
}

func TestHookPausedTellsOfBoundsAndOfPause(t *testing.T) { // I10
	bubble(t, "orders", func(b *bed) {
		var p pausing
		g := b.gate()
		r := b.begin("g", retriable.MaxPending(10), retriable.Hooks(&p), retriable.Topic("orders", handles(func(*retriable.Message) error {
			g.wait()
			return nil
		}), none()))
		b.produce("orders", 0, seq(100)...)
		time.Sleep(10 * time.Second)
		wantEqual(t, "at the bound", p.all(), []string{"orders/0 true [bound]"})
		g.open()
		b.until("all are handled", time.Minute, func() bool { return r.Stats().Handled == 100 })
		time.Sleep(10 * time.Second)
		wantEqual(t, "relieved", p.all(), []string{"orders/0 true [bound]", "orders/0 false []"})
		r.Pause()
		wantEqual(t, "by the user", p.all()[2:], []string{"orders/0 true [user]"})
		r.Pause("orders")
		r.Resume()
		wantEqual(t, "and resumed", p.all()[3:], []string{"orders/0 false []"})
		r.Pause()
		r.clean() // that it is given up is another hook's to tell
		wantEqual(t, "in the end", p.all()[4:], []string{"orders/0 true [user]"})
	})
}

func TestDoneIsClosedWhenRunReturns(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		topic := retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), none())
		r := b.start("g", topic)
		select {
		case <-r.Done():
			t.Error("Done is closed while Run runs")
		default:
		}
		r.clean()
		<-r.Done()
		if err := r.Run(b.Context()); err == nil {
			t.Error("Run twice")
		}
		missing := b.launch("g", retriable.Topic("payments", handles(func(*retriable.Message) error { return nil }), none()))
		<-missing.Done()
		if missing.end() == nil {
			t.Error("a missing topic is no error")
		}
	})
}

func TestBatchGivesMiddlewareTheWholeBatch(t *testing.T) {
	bubble(t, "orders payments", func(b *bed) {
		var j journal
		look := func(next retriable.Handler) retriable.Handler {
			return retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
				var vs []string
				for _, m := range retriable.Batch(ctx) {
					vs = append(vs, string(m.Value))
				}
				j.note("%s %v", m.Topic, vs)
				return next.Handle(ctx, m)
			})
		}
		r := b.begin("billing", retriable.Use(look), retriable.BatchTopic("orders", func(context.Context, []*retriable.Message) error { return nil }, none(), retriable.BatchSize(3)),
			retriable.Topic("payments", handles(func(*retriable.Message) error { return nil }), none()))
		b.produce("orders", 0, "1", "2", "3")
		b.produce("payments", 0, "4")
		b.until("they are handled", 10*time.Second, func() bool { return r.Stats().Handled == 4 })
		told := j.all()
		slices.Sort(told)
		wantEqual(t, "what it sees", strings.Join(told, ", "), "orders [1 2 3], payments []")
		r.clean()
	})
}
