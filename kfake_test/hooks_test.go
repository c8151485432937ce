package kfake_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
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

// hooked implements every hook. It notes what it is told, as text without what nobody could foretell, and then calls then.
type hooked struct {
	mu    sync.Mutex
	told  map[string][]string
	began atomic.Int64 // in ms
	then  func(hook string)
}

func (h *hooked) note(hook, format string, args ...any) {
	h.mu.Lock()
	if h.told == nil {
		h.told = map[string][]string{}
	}
	h.told[hook] = append(h.told[hook], fmt.Sprintf(format, args...))
	h.mu.Unlock()
	if h.then != nil {
		h.then(hook)
	}
}

// of returns what one hook was told.
func (h *hooked) of(hook string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.told[hook])
}

// from is of without the first n.
func (h *hooked) from(hook string, n int) []string {
	told := h.of(hook)
	return told[min(n, len(told)):]
}

// after is how long after the beginning a time is.
func (h *hooked) after(t time.Time) time.Duration { return t.Sub(time.UnixMilli(h.began.Load())) }

func (h *hooked) OnHandled(e retriable.Handled) {
	h.note("handled", "%s %d: %s after %v, waited %v, %v", e.Message.Value, e.Message.Attempt, e.Verdict, e.Took, e.Waited, e.Err)
}

func (h *hooked) OnRetried(e retriable.Retried) {
	h.note("retried", "%s %d to %s as %d, due at %v: %v", e.Message.Value, e.Message.Attempt, e.Topic, e.Attempt, h.after(e.Due), e.Err)
}

func (h *hooked) OnDeadLettered(e retriable.DeadLettered) {
	h.note("dead-lettered", "%s %d to %s at %d: %v", e.Message.Value, e.Message.Attempt, e.Topic, e.Offset, e.Err)
}

func (h *hooked) OnDropped(e retriable.Dropped) {
	h.note("dropped", "%v %d %s %d: %v", e.Source, e.Records, e.Message.Value, e.Message.Attempt, e.Err)
}

func (h *hooked) OnHeld(e retriable.Held) {
	h.note("held", "%v %d until %v, postponed %v", e.Source, e.Attempt, h.after(e.Due), e.Postponed)
}

func (h *hooked) OnCommitted(e retriable.Committed) {
	h.note("committed", "%s/%d at %d: %v", e.Topic, e.Partition, e.Offset, e.Err)
}

func (h *hooked) OnAssigned(e retriable.Assigned) {
	h.note("assigned", "%s/%d at %d", e.Topic, e.Partition, e.Offset)
}

func (h *hooked) OnDrained(e retriable.Drained) {
	h.note("drained", "%s/%d: lost %v, abandoned %d, dropped %d, took %v", e.Topic, e.Partition, e.Lost, e.Abandoned, e.Dropped, e.Took.Round(time.Second))
}

func (h *hooked) OnStuck(e retriable.Stuck) {
	h.note("stuck", "%s/%d: %s at %d, attempt %d, since %v", e.Topic, e.Partition, e.Oldest.Reason, e.Oldest.Offset, e.Oldest.Attempt, h.after(e.Oldest.Since))
}

func (h *hooked) OnProduceFailed(e retriable.ProduceFailed) {
	h.note("produce failed", "%v to %s: try %d, %v, next in %v", e.Source, e.Topic, e.Try, e.Err, e.NextTry)
}

// sendAt is produce, and the time from which h counts: the records are there and handled at that time.
func (b *bed) sendAt(h *hooked, topic string, values ...string) {
	b.Helper()
	b.produce(topic, 0, values...)
	h.began.Store(time.Now().UnixMilli())
}

func TestHooksTellWhatBecomesOfEveryAttempt(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		h := &hooked{}
		var postponed atomic.Bool
		r := b.begin("g", patient(), retriable.Concurrency(1), retriable.Hooks(h), all(retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			time.Sleep(time.Second)
			switch string(m.Value) {
			case "fails":
				if m.Attempt == 1 {
					return errNo
				}
			case "never":
				return fmt.Errorf("never %d", m.Attempt)
			case "permanent":
				return retriable.Permanent(errNo)
			case "dropped":
				return retriable.Drop(errNo)
			case "later":
				if !postponed.Swap(true) {
					return retriable.Postpone(time.Minute)
				}
			case "late":
				if m.Attempt == 1 {
					<-ctx.Done()
				}
			}
			return nil
		}), retriable.MaxAttempts(2), retriable.HandlerTimeout(5*time.Second), retriable.Filter(func(r *kgo.Record) bool { return string(r.Value) != "filtered" })))
		b.sendAt(h, "orders", "done", "filtered", "fails", "never", "permanent", "dropped", "later", "late")
		time.Sleep(3 * time.Hour)
		r.clean()

		// One worker: what is behind waits. The filtered one is no attempt. The retries: 3 is due at 1:00:02, 4 at 1:00:03, 8 at 1:00:11.
		wantEqual(t, "handled", strings.Join(h.of("handled"), "\n"), strings.Join([]string{
			"done 1: done after 1s, waited 0s, <nil>",
			"fails 1: retry after 1s, waited 1s, no",
			"never 1: retry after 1s, waited 2s, never 1",
			"permanent 1: dead-letter after 1s, waited 3s, no",
			"dropped 1: drop after 1s, waited 4s, no",
			"later 1: postpone after 1s, waited 5s, retriable: postponed for 1m0s",
			"late 1: retry after 5s, waited 6s, " + retriable.ErrTimeout.Error(),
			"later 1: done after 1s, waited 0s, <nil>",
			"fails 2: done after 1s, waited 0s, <nil>",
			"never 2: dead-letter after 1s, waited 0s, never 2",
			"late 2: done after 1s, waited 0s, <nil>",
		}, "\n"))
		wantEqual(t, "retried", strings.Join(h.of("retried"), "\n"), strings.Join([]string{
			"fails 1 to orders.retry as 2, due at 1h0m2s: no",
			"never 1 to orders.retry as 2, due at 1h0m3s: never 1",
			"late 1 to orders.retry as 2, due at 1h0m11s: " + retriable.ErrTimeout.Error(),
		}, "\n"))
		wantEqual(t, "dead-lettered", strings.Join(h.of("dead-lettered"), "\n"), strings.Join([]string{
			"permanent 1 to orders.dead at 0: no",
			"never 2 to orders.dead at 1: never 2",
		}, "\n"))
		wantEqual(t, "dropped", h.of("dropped"), []string{"orders/0/5 1 dropped 1: no"})
		wantEqual(t, "held", strings.Join(h.of("held"), "\n"), strings.Join([]string{
			"orders.retry/0/0 2 until 1h0m2s, postponed false",
			"orders.retry/0/1 2 until 1h0m3s, postponed false",
			"orders/0/6 1 until 1m6s, postponed true",
			"orders.retry/0/2 2 until 1h0m11s, postponed false",
		}, "\n"))
		wantEqual(t, "stuck, produce failed", len(h.of("produce failed")), 0)
	})
}

func TestHooksTellOfAssignmentsCommitsAndDrains(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		h := &hooked{}
		stuck := b.gate()
		topic := retriable.Topic("orders", handles(func(m *retriable.Message) error {
			if string(m.Value) == "stuck" {
				stuck.wait()
			}
			return nil
		}), none())
		r := b.begin("g", retriable.Hooks(h), retriable.DrainTimeout(2*time.Second), topic)
		assigned := h.of("assigned")
		slices.Sort(assigned)
		wantEqual(t, "assigned by the time it is ready", assigned, []string{"orders/0 at 0", "orders/1 at 0"})
		committed := h.of("committed")
		slices.Sort(committed)
		wantEqual(t, "committed with the assignment", committed, []string{"orders/0 at 0: <nil>", "orders/1 at 0: <nil>"})
		b.produce("orders", 0, "k=a", "k=b", "k=stuck", "k=c", "k=d")
		time.Sleep(3 * time.Second)
		wantEqual(t, "committed", h.from("committed", 2), []string{"orders/0 at 2: <nil>"})

		// A refused commit is told too, and the next carries it.
		fault := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.InvalidCommitOffsetSize, Count: 1})
		b.produce("orders", 1, "x")
		time.Sleep(3 * time.Second)
		fault.Remove()
		told := h.from("committed", 3)
		wantEqual(t, "committed", len(told) == 2 && strings.HasPrefix(told[0], "orders/1 at 1: retriable: committing orders/1 at offset 1: INVALID_COMMIT_OFFSET_SIZE") && told[1] == "orders/1 at 1: <nil>", true)

		err := r.end()
		var abandoned *retriable.AbandonedError
		if !errors.As(err, &abandoned) {
			t.Errorf("Run: %v", err)
		}
		drained := h.of("drained")
		slices.Sort(drained)
		for i := range drained { // how long all took together
			drained[i], _, _ = strings.Cut(drained[i], ", took")
		}
		wantEqual(t, "drained", strings.Join(drained, "\n"), "orders/0: lost false, abandoned 1, dropped 2\norders/1: lost false, abandoned 0, dropped 0")
		stuck.open()

		h = &hooked{}
		r = b.begin("g", retriable.Hooks(h), topic)
		assigned = h.of("assigned")
		slices.Sort(assigned)
		wantEqual(t, "assigned again", assigned, []string{"orders/0 at 2", "orders/1 at 1"})
		committed = h.of("committed") // that they are taken over
		slices.Sort(committed)
		wantEqual(t, "committed with the assignment", committed, []string{"orders/0 at 2: <nil>", "orders/1 at 1: <nil>"})
		time.Sleep(3 * time.Second)
		r.clean()
		drained = h.of("drained")
		slices.Sort(drained)
		wantEqual(t, "drained", strings.Join(drained, "\n"), "orders/0: lost false, abandoned 0, dropped 0, took 0s\norders/1: lost false, abandoned 0, dropped 0, took 0s")
	})
}

func TestHooksTellOfEveryRefusedWrite(t *testing.T) { // I9
	bubble(t, allTopics, func(b *bed) {
		const refusals = 8
		fault := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: refusals})
		defer fault.Remove()
		h := &hooked{}
		r := b.begin("g", patient(), retriable.Hooks(h), all(handles(func(m *retriable.Message) error {
			if m.Attempt == 1 {
				return errNo
			}
			return nil
		})))
		b.sendAt(h, "orders", "a")
		time.Sleep(2 * time.Hour)
		var want []string
		for i, wait := range []string{"100ms", "200ms", "400ms", "800ms", "1.6s", "3.2s", "5s", "5s"} {
			want = append(want, fmt.Sprintf("orders/0/0 to orders.retry: try %d, %v, next in %s", i+1, kerr.TopicAuthorizationFailed, wait))
		}
		wantEqual(t, "produce failed", strings.Join(h.of("produce failed"), "\n"), strings.Join(want, "\n"))
		wantEqual(t, "counted", r.Stats().ProduceFailures, refusals)
		wantEqual(t, "retried", h.of("retried"), []string{"a 1 to orders.retry as 2, due at 1h0m0s: no"})
		r.clean()
	})
}

func TestHookStuckIsCalledOncePerIncident(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		h := &hooked{}
		gates := map[string]*gate{"a": b.gate(), "b": b.gate()}
		r := b.begin("g", retriable.Hooks(h), retriable.StuckAfter(30*time.Second), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			if g := gates[string(m.Value)]; g != nil {
				g.wait()
			}
			return nil
		}), none()))
		b.sendAt(h, "orders", "x", "a", "y", "b")
		time.Sleep(25 * time.Second)
		wantEqual(t, "before its time", len(h.of("stuck")), 0)
		if err := r.Health(b.Context()); err != nil {
			t.Errorf("Health before: %v", err)
		}
		time.Sleep(20 * time.Second)
		wantEqual(t, "after StuckAfter", h.of("stuck"), []string{"orders/0: running at 1, attempt 1, since 0s"})
		var stuck *retriable.StuckError
		if err := r.Health(b.Context()); !errors.As(err, &stuck) || stuck.Topic != "orders" || stuck.Partition != 0 || stuck.Oldest.Offset != 1 {
			t.Errorf("Health: %v", err)
		}
		for range 20 { // the partition goes on reading; its watermark stands
			b.produce("orders", 0, "z")
			b.produce("orders", 1, "z")
			time.Sleep(30 * time.Second)
		}
		wantEqual(t, "told once", len(h.of("stuck")), 1)
		wantEqual(t, "logged once", len(b.log.lines("does not move", "orders/0/1")), 1)
		gates["a"].open()
		time.Sleep(25 * time.Second)
		if err := r.Health(b.Context()); err != nil {
			t.Errorf("Health in between: %v", err)
		}
		time.Sleep(20 * time.Second)
		wantEqual(t, "the next incident", h.from("stuck", 1), []string{"orders/0: running at 3, attempt 1, since 0s"})
		gates["b"].open()
		time.Sleep(10 * time.Minute)
		wantEqual(t, "no more", len(h.of("stuck")), 2)
		if err := r.Health(b.Context()); err != nil {
			t.Errorf("Health in the end: %v", err)
		}
		r.clean()
	})
}

// A partition that is slow but moves is not stuck, nor one without records.
func TestWhatMovesIsNotStuck(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		h := &hooked{}
		r := b.begin("g", retriable.Hooks(h), retriable.StuckAfter(10*time.Second), retriable.Topic("orders", handles(func(*retriable.Message) error {
			time.Sleep(8 * time.Second)
			return nil
		}), none()))
		b.produce("orders", 0, keyed(20, 1)...)
		time.Sleep(3 * time.Minute)
		wantEqual(t, "handled", r.Stats().Handled, 20)
		time.Sleep(10 * time.Minute)
		b.produce("orders", 0, keyed(2, 1)...)
		time.Sleep(time.Minute)
		wantEqual(t, "stuck", h.of("stuck"), []string{})
		r.clean()
	})
}

func TestHooksAreCalledWithNoLockHeldAndTheirPanicsDoNoHarm(t *testing.T) {
	for _, what := range []string{"asks", "panics"} {
		t.Run(what, func(t *testing.T) {
			bubble(t, allTopics, func(b *bed) {
				fault := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.dead", Err: kerr.TopicAuthorizationFailed, Count: 1})
				defer fault.Remove()
				h := &hooked{}
				var c *retriable.Consumer
				h.then = func(string) {
					if what == "panics" {
						panic("4111")
					}
					_ = c.Stats()
					ctx, cancel := context.WithTimeout(b.Context(), time.Second)
					defer cancel()
					_ = c.Health(ctx)
				}
				var l ledger
				c, err := retriable.New("g", b.options(patient(), retriable.Hooks(h), retriable.StuckAfter(10*time.Second), retriable.DrainTimeout(5*time.Second),
					all(handles(func(m *retriable.Message) error {
						l.note(m)
						switch string(m.Value) {
						case "fails":
							return errNo
						case "dropped":
							return retriable.Drop(errNo)
						case "later":
							if len(l.of("later")) == 1 {
								return retriable.Postpone(time.Minute)
							}
						case "slow":
							time.Sleep(30 * time.Second)
						}
						return nil
					}), retriable.MaxAttempts(2)))...)
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(b.Context())
				b.Cleanup(stop)
				done := make(chan error, 1)
				go func() { done <- c.Run(ctx) }()
				<-c.Ready()
				b.produce("orders", 0, "slow", "fails", "dropped", "later", "k=done", "k=done too")
				time.Sleep(2 * time.Hour)
				wantEqual(t, "deliveries", fmt.Sprint(len(l.of("slow")), len(l.of("fails")), len(l.of("dropped")), len(l.of("later")), len(l.of("done"))), "1 2 1 2 1")
				wantEqual(t, "letters", b.values("orders.dead"), []string{"fails"})
				wantEqual(t, "committed", fmt.Sprint(b.committed("g", "orders", 0), b.committed("g", "orders.retry", 0)), "6 1")
				stop()
				if err := <-done; err != nil {
					t.Errorf("Run: %v", err)
				}
				for _, hook := range []string{"handled", "retried", "dead-lettered", "dropped", "held", "committed", "assigned", "drained", "stuck", "produce failed"} {
					if len(h.of(hook)) == 0 {
						t.Errorf("the story does not call %s", hook)
					}
				}
				if what == "panics" && (len(b.log.lines("hook panicked")) == 0 || strings.Contains(b.log.String(), "4111")) {
					t.Error("the panics are not logged as they should be")
				}
			})
		})
	}
}

// As t.Fatal in a hook of somebody's test does.
func TestAHookThatEndsItsGoroutineDoesNotUndoAnAttempt(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		var l ledger
		r := b.begin("g", patient(), retriable.Concurrency(2), retriable.Hooks(handledFunc(func(retriable.Handled) { runtime.Goexit() })),
			all(handles(func(m *retriable.Message) error { l.note(m); return nil })))
		b.produce("orders", 0, keyed(20, 3)...)
		time.Sleep(2 * time.Hour)
		l.once(t, 20)
		st := r.Stats()
		wantEqual(t, "handled, failed, retried", fmt.Sprint(st.Handled, st.Failed, st.Retried), "20 0 0")
		wantEqual(t, "committed", b.committed("g", "orders", 0), 20)
		r.clean()
	})
}

// Several hooks of a kind are all called, in the order they were given, and one object may be several.
func TestAllHooksAreCalled(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var mu sync.Mutex
		var order []string
		name := func(n string) retriable.Hook {
			return handledFunc(func(retriable.Handled) {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, n)
			})
		}
		r := b.begin("g", retriable.Hooks(name("a"), name("b")), retriable.Hooks(name("c")), retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), none()))
		b.produce("orders", 0, "x")
		synctest.Wait()
		time.Sleep(time.Second)
		wantEqual(t, "order", order, []string{"a", "b", "c"})
		r.clean()
	})
}
