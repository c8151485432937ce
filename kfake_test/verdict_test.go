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

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

var errNo = errors.New("no")

// all has a topic with everything: a retry topic that waits an hour, and a dead-letter topic.
func all(h retriable.Handler, more ...retriable.TopicOption) retriable.Option {
	return retriable.Topic("orders", h, append([]retriable.TopicOption{
		retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(time.Hour)),
	}, more...)...)
}

const allTopics = "orders orders.retry orders.dead"

// values are those of all records of a topic.
func (b *bed) values(topic string) (vs []string) {
	b.Helper()
	for _, r := range b.read(topic) {
		vs = append(vs, string(r.Value))
	}
	return vs
}

func TestTheVerdictsThatWin(t *testing.T) {
	// What becomes of a record, in the order of the verdicts. Abort has a story of its own.
	const dead, dropped, postponed, retried = "dead-lettered", "dropped", "postponed", "retried"
	after := func(err error) error { return retriable.RetryAfter(err, 2*time.Hour) }
	rows := []struct {
		name string
		err  error
		want string
	}{
		{"an ordinary error", errNo, retried},
		{"Permanent", retriable.Permanent(errNo), dead},
		{"Permanent, wrapped", fmt.Errorf("charging: %w", retriable.Permanent(errNo)), dead},
		{"Permanent, joined behind another", errors.Join(errNo, retriable.Permanent(errNo)), dead},
		{"Permanent beats Drop around it", retriable.Drop(retriable.Permanent(errNo)), dead},
		{"Permanent beats Drop inside it", retriable.Permanent(retriable.Drop(errNo)), dead},
		{"Permanent beats RetryAfter around it", after(fmt.Errorf("x: %w", retriable.Permanent(errNo))), dead},
		{"Permanent beats Postpone beside it", errors.Join(retriable.Postpone(time.Minute), retriable.Permanent(errNo)), dead},
		{"Permanent deep in a tree", fmt.Errorf("%w, %w", after(errNo), errors.Join(errNo, fmt.Errorf("y: %w", errors.Join(errNo, retriable.Permanent(errNo))))), dead},
		{"Drop", retriable.Drop(errNo), dropped},
		{"Drop beats Postpone", errors.Join(retriable.Postpone(time.Minute), retriable.Drop(errNo)), dropped},
		{"Drop beats RetryAfter", after(retriable.Drop(errNo)), dropped},
		{"Postpone", retriable.Postpone(time.Minute), postponed},
		{"Postpone, wrapped", fmt.Errorf("busy: %w", retriable.Postpone(time.Minute)), postponed},
		{"Postpone beats RetryAfter", errors.Join(after(errNo), retriable.Postpone(time.Minute)), postponed},
		{"Postpone beats an ordinary error", errors.Join(errNo, retriable.Postpone(time.Minute)), postponed},
		{"RetryAfter", after(errNo), retried},
	}
	bubble(t, allTopics, func(b *bed) {
		var l ledger
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error {
			l.note(m)
			if len(l.of(string(m.Value))) > 1 {
				return nil
			}
			for _, row := range rows {
				if row.name == string(m.Value) {
					return row.err
				}
			}
			return nil
		})))
		for _, row := range rows {
			b.produce("orders", 0, row.name)
		}
		time.Sleep(5 * time.Hour)
		letters, copies := b.values("orders.dead"), b.values("orders.retry")
		wants := map[string]int{}
		for _, row := range rows {
			wants[row.want]++
			ds := l.of(row.name)
			got := dropped
			switch {
			case slices.Contains(letters, row.name):
				got = dead
			case slices.Contains(copies, row.name):
				got = retried
			case len(ds) == 2 && ds[1].attempt == 1 && ds[1].at.Sub(ds[0].at) == time.Minute:
				got = postponed
			}
			wantEqual(t, row.name, got, row.want)
			if n := map[string]int{dead: 1, dropped: 1, postponed: 2, retried: 2}[row.want]; len(ds) != n {
				t.Errorf("%s: %d deliveries, want %d", row.name, len(ds), n)
			}
		}
		st := r.Stats()
		wantEqual(t, "dropped", st.Dropped, wants[dropped])
		wantEqual(t, "dead-lettered", st.DeadLettered, wants[dead])
		wantEqual(t, "retried", st.Retried, wants[retried])
		wantEqual(t, "failed", st.Failed, wants[dropped]+wants[dead]+wants[retried])
		wantEqual(t, "committed", b.committed("g", "orders", 0), len(rows))
		r.clean()
	})
}

func TestRetryAfterSetsTheWait(t *testing.T) {
	waits := []struct {
		name string
		err  error
		want time.Duration
	}{
		{"an hour", retriable.RetryAfter(errNo, time.Hour), time.Hour},
		{"at once", retriable.RetryAfter(errNo, 0), 0},
		{"a negative wait is none", retriable.RetryAfter(errNo, -time.Hour), 0},
		{"the outer one of two", retriable.RetryAfter(retriable.RetryAfter(errNo, 3*time.Hour), 2*time.Hour), 2 * time.Hour},
		{"cut to MaxDelay", retriable.RetryAfter(errNo, 100*time.Hour), 5 * time.Hour},
		{"fractions of a millisecond, rounded up", retriable.RetryAfter(errNo, 1500*time.Microsecond), 2 * time.Millisecond},
	}
	bubble(t, allTopics, func(b *bed) {
		var l ledger
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error {
			l.note(m)
			for _, w := range waits {
				if m.Attempt == 1 && w.name == string(m.Value) {
					return w.err
				}
			}
			return nil
		}), retriable.MaxDelay(5*time.Hour)))
		for _, w := range waits {
			b.produce("orders", 0, w.name)
		}
		time.Sleep(10 * time.Hour)
		for _, w := range waits {
			ds := l.of(w.name)
			if len(ds) != 2 {
				t.Fatalf("%s: %d deliveries, want 2", w.name, len(ds))
			}
			wantEqual(t, w.name, ds[1].at.Sub(ds[0].at), w.want)
		}
		for _, c := range b.read("orders.retry") {
			if due, _ := header(c, "retriable_due"); string(c.Value) == "cut to MaxDelay" {
				wantEqual(t, "due, as it is written", due, l.of("cut to MaxDelay")[0].at.Add(5*time.Hour).UnixMilli())
			}
		}
		if n := len(b.log.lines("longer than MaxDelay", "wait=100h", "max=5h")); n != 1 {
			t.Errorf("the cut was logged %d times, want once", n)
		}
		r.clean()
	})
}

func TestPostponeSpendsNoAttemptAndWritesNothing(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		var l ledger
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error {
			l.note(m)
			switch n := len(l.of(string(m.Value))); {
			case string(m.Value) == "first" && n <= 3:
				return retriable.Postpone(7 * time.Minute)
			case string(m.Value) == "failed" && n == 1:
				return errNo
			case string(m.Value) == "failed" && n == 2:
				return retriable.Postpone(time.Minute)
			}
			return nil
		}), retriable.MaxAttempts(2)))
		b.produce("orders", 0, "k=first", "k=behind", "failed")
		b.until("what is behind it passes", time.Second, func() bool { return len(l.of("behind")) == 1 && r.Stats().Retried == 1 })
		p := r.partition("orders", 0)
		wantEqual(t, "watermark, held, pending", fmt.Sprint(p.Watermark, p.Held, p.Pending), "0 1 0")
		time.Sleep(2 * time.Hour)
		ds := l.of("first")
		if len(ds) != 4 {
			t.Fatalf("%d deliveries of the postponed record, want 4", len(ds))
		}
		for i, d := range ds {
			wantEqual(t, "attempt", d.attempt, 1)
			wantEqual(t, "source", d.source, "orders/0/0")
			if i > 0 {
				wantEqual(t, "wait", d.at.Sub(ds[i-1].at), 7*time.Minute)
			}
		}
		// The same on the retry topic, in the last attempt: it is still that.
		fs := l.of("failed")
		if len(fs) != 3 {
			t.Fatalf("%d deliveries of the one that failed first, want 3", len(fs))
		}
		wantEqual(t, "attempts", fmt.Sprint(fs[0].attempt, fs[1].attempt, fs[2].attempt), "1 2 2")
		wantEqual(t, "wait", fs[2].at.Sub(fs[1].at), time.Minute)
		wantEqual(t, "copies", b.values("orders.retry"), []string{"failed"})
		wantEqual(t, "letters", len(b.read("orders.dead")), 0)
		wantEqual(t, "committed", b.committed("g", "orders", 0), 3)
		wantEqual(t, "failed attempts", r.Stats().Failed, 1)
		r.clean()
	})
}

func TestAPostponedRecordIsDeliveredAgainAfterARestart(t *testing.T) { // I1
	bubble(t, "orders", func(b *bed) {
		var l ledger
		later := handles(func(m *retriable.Message) error { l.note(m); return retriable.Postpone(time.Hour) })
		r := b.begin("g", retriable.Topic("orders", later, none()))
		b.produce("orders", 0, "a")
		time.Sleep(10 * time.Second)
		r.clean()
		wantEqual(t, "committed", b.committed("g", "orders", 0), 0)
		r = b.begin("g", retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return nil }), none()))
		time.Sleep(2 * time.Second)
		wantEqual(t, "deliveries", l.values(), []string{"a", "a"})
		wantEqual(t, "committed", b.committed("g", "orders", 0), 1)
		r.clean()
	})
}

// dropped collects what is dropped.
type dropped struct {
	mu sync.Mutex
	ds []retriable.Dropped
}

func (d *dropped) OnDropped(e retriable.Dropped) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ds = append(d.ds, e)
}

func (d *dropped) all() []retriable.Dropped {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.ds)
}

func TestDropKeepsNothing(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		var d dropped
		r := b.begin("g", retriable.Hooks(&d), all(handles(func(*retriable.Message) error { return retriable.Drop(errors.New("secret")) })))
		b.produce("orders", 0, "k=v", "k=w")
		time.Sleep(3 * time.Second)
		wantEqual(t, "dropped", r.Stats().Dropped, 2)
		wantEqual(t, "committed", b.committed("g", "orders", 0), 2)
		wantEqual(t, "written", len(b.read("orders.retry"))+len(b.read("orders.dead")), 0)
		ds := d.all()
		if len(ds) != 2 {
			t.Fatalf("%d hooks, want 2", len(ds))
		}
		wantEqual(t, "hook", fmt.Sprintf("%v %d %s %v", ds[0].Source, ds[0].Records, ds[0].Message.Value, ds[0].Err), "orders/0/0 1 v secret")
		if n := len(b.log.lines("dropped", "orders/0/1")); n != 1 {
			t.Errorf("the second drop was logged %d times", n)
		}
		if strings.Contains(b.log.String(), "secret") {
			t.Error("the text of the error is in the log")
		}
		r.clean()
	})
}

func TestAbortEndsRunAndTheRecordComesFirstAgain(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		var l ledger
		cause := errors.New("the disk is full")
		slow := b.gate()
		r := b.begin("g", retriable.Concurrency(4), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			switch string(m.Value) {
			case "k1:5":
				return fmt.Errorf("handling: %w", errors.Join(retriable.Permanent(errNo), retriable.Abort(cause))) // Abort beats all
			case "slow":
				slow.wait() // runs when it happens, and ends in the drain
			}
			return nil
		}), none()))
		b.produce("orders", 1, seq(20)...)
		b.produce("orders", 0, "s=slow")
		time.Sleep(5 * time.Second)
		b.produce("orders", 0, keyed(10, 2)...) // k0:0, k1:1, … k1:9
		time.Sleep(time.Second)
		if r.ended() {
			t.Error("Run ended before the drain did")
		}
		before := len(l.all())
		b.produce("orders", 1, "late")
		time.Sleep(time.Second)
		wantEqual(t, "started in the drain", len(l.all())-before, 0)
		slow.open()
		<-r.done
		if !errors.Is(r.err, cause) || errors.Is(r.err, errNo) {
			t.Errorf("Run returned %v, want what was passed to Abort", r.err)
		}
		var abandoned *retriable.AbandonedError
		if errors.As(r.err, &abandoned) {
			t.Errorf("the aborted record counts as abandoned: %v", r.err)
		}
		if len(l.of("k1:7"))+len(l.of("k1:9")) > 0 {
			t.Error("a record of the aborted one's key passed it")
		}
		wantEqual(t, "committed in its partition", b.committed("g", "orders", 0), 6) // slow and 0 to 4
		wantEqual(t, "committed in the other", b.committed("g", "orders", 1), 20)

		var again ledger
		r = b.begin("g", retriable.Concurrency(1), retriable.Topic("orders", handles(func(m *retriable.Message) error { again.note(m); return nil }), none()))
		time.Sleep(2 * time.Second)
		r.clean()
		for _, d := range again.all() {
			if d.source.Partition == 0 {
				wantEqual(t, "the first to be delivered again", d.value, "k1:5")
				break
			}
		}
		for _, v := range append(keyed(10, 2), "=late") {
			v = v[strings.IndexByte(v, '=')+1:]
			if len(l.of(v))+len(again.of(v)) == 0 {
				t.Errorf("%s was never delivered", v)
			}
		}
	})
}

// secret is a panic's value that must not be told.
type secret struct{ card string }

func (s secret) explode() error { panic(s) }

type secretError struct{}

func (*secretError) Error() string { return "4111-1111 in an error" }

func TestAPanicIsAFailedAttemptAndItsValueStaysOutOfTheLog(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		var mu sync.Mutex
		var panics []*retriable.PanicError
		h := handledFunc(func(e retriable.Handled) {
			var p *retriable.PanicError
			if errors.As(e.Err, &p) {
				mu.Lock()
				panics = append(panics, p)
				mu.Unlock()
			}
		})
		var l ledger
		r := b.begin("g", patient(), retriable.Concurrency(1), retriable.Hooks(h), all(handles(func(m *retriable.Message) error {
			l.note(m)
			if m.Attempt > 1 {
				wantEqual(t, "its panic is told to the next attempt", strings.Contains(m.LastError, "4111"), string(m.Value) != "nil")
				return nil
			}
			switch string(m.Value) {
			case "text":
				panic("4111-1111 in a text")
			case "error":
				panic(&secretError{})
			case "struct":
				return secret{"4111-1111"}.explode()
			case "nil":
				var p *retriable.Message
				_ = p.Attempt
			}
			return nil
		})))
		b.produce("orders", 0, "k=text", "k=error", "k=struct", "k=nil", "k=fine")
		pass(2 * time.Hour)
		wantEqual(t, "deliveries", len(l.all()), 9)
		wantEqual(t, "failed", r.Stats().Failed, 4)
		wantEqual(t, "panics told to the hook", len(panics), 4)
		for _, p := range panics {
			if len(p.Stack) == 0 {
				t.Errorf("%T: no stack", p.Value)
			}
		}
		if strings.Contains(b.log.String(), "4111") {
			t.Error("the value of a panic is in the log")
		}
		for typ, offset := range map[string]int{"panic=string": 0, "secretError": 1, "kfake_test_test.secret ": 2, "runtime.errorString": 3} {
			if n := len(b.log.lines("panicked", fmt.Sprintf("record=orders/0/%d", offset))); n != 1 {
				t.Errorf("the panic of offset %d was logged %d times", offset, n)
			}
			_ = typ
		}
		for _, words := range [][]string{{"orders/0/0", "string"}, {"orders/0/1", "secretError"}, {"orders/0/2", ".secret", ".explode"}, {"orders/0/3", "runtime."}} {
			if n := len(b.log.lines(append(words, "panicked", "TestAPanicIsAFailedAttempt")...)); n != 1 {
				t.Errorf("%d lines with %q and the handler's name, want 1", n, words)
			}
		}
		r.clean()
	})
}

// handledFunc is a HookHandled.
type handledFunc func(retriable.Handled)

func (f handledFunc) OnHandled(e retriable.Handled) { f(e) }

func TestAWorkerSurvivesAHandlerThatEndsItsGoroutine(t *testing.T) {
	for _, timeout := range []time.Duration{time.Minute, 0} {
		t.Run(fmt.Sprint("timeout ", timeout), func(t *testing.T) {
			bubble(t, allTopics, func(b *bed) {
				var l ledger
				var mu sync.Mutex
				var errs []error
				opts := []retriable.TopicOption{retriable.MaxAttempts(2)}
				if timeout > 0 {
					opts = append(opts, retriable.HandlerTimeout(timeout))
				}
				r := b.begin("g", patient(), retriable.Concurrency(1), retriable.Hooks(handledFunc(func(e retriable.Handled) {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, e.Err)
				})), all(handles(func(m *retriable.Message) error {
					l.note(m)
					if string(m.Value) != "fine" {
						runtime.Goexit() // what t.FailNow does in a test of a handler
					}
					return nil
				}), opts...))
				b.produce("orders", 0, "k=a", "k=fine", "fine", "k=b")
				pass(3 * time.Hour)
				wantEqual(t, "deliveries of a", len(l.of("a")), 2)
				wantEqual(t, "deliveries of b", len(l.of("b")), 2)
				wantEqual(t, "deliveries of the others", len(l.of("fine")), 2)
				wantEqual(t, "letters", b.values("orders.dead"), []string{"a", "b"})
				wantEqual(t, "failed", r.Stats().Failed, 4)
				n := 0
				for _, err := range errs {
					var p *retriable.PanicError
					if errors.As(err, &p) && p.Value == nil {
						n++
					}
				}
				wantEqual(t, "attempts that ended their goroutine, as told to the hook", fmt.Sprint(n, " of ", len(errs)), "4 of 6")
				wantEqual(t, "committed", b.committed("g", "orders", 0), 4)
				r.clean()
			})
		})
	}
}

// nilError is what a careless handler returns: a nil pointer that is not a nil error. Its text panics.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

func TestAnErrorWhoseTextPanicsIsAFailedAttempt(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		r := b.begin("g", patient(), all(handles(func(*retriable.Message) error {
			var e *nilError
			return e
		}), retriable.MaxAttempts(2)))
		b.produce("orders", 0, "a")
		time.Sleep(3 * time.Hour)
		wantEqual(t, "letters", b.values("orders.dead"), []string{"a"})
		r.clean()
	})
}

func TestWithinItsTimeAHandlerSucceeds(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		r := b.begin("g", all(handles(func(*retriable.Message) error { return nil }), retriable.HandlerTimeout(time.Minute)))
		b.produce("orders", 0, "a")
		time.Sleep(3 * time.Second)
		st := r.Stats()
		wantEqual(t, "handled, failed, retried", fmt.Sprint(st.Handled, st.Failed, st.Retried), "1 0 0")
		wantEqual(t, "committed", b.committed("g", "orders", 0), 1)
		r.clean()
	})
}

func TestBeyondItsTimeAnAttemptHasFailedWhateverItReturns(t *testing.T) { // I4
	verdicts := []struct {
		name string
		err  error
		want string
	}{
		{"success", nil, "retried"},
		{"error", errNo, "retried"},
		{"its context's error", context.DeadlineExceeded, "retried"},
		{"Postpone", retriable.Postpone(time.Second), "retried"},
		{"RetryAfter", retriable.RetryAfter(errNo, time.Second), "retried"},
		{"Abort", retriable.Abort(errNo), "retried"},
		{"Permanent", retriable.Permanent(errNo), "dead"},
		{"Drop", retriable.Drop(errNo), "dropped"},
		{"panic", nil, "retried"},
		{"in time", nil, "handled"},
	}
	bubble(t, allTopics, func(b *bed) {
		var l ledger
		r := b.begin("g", patient(), retriable.Concurrency(len(verdicts)), all(func() retriable.HandlerFunc {
			return func(ctx context.Context, m *retriable.Message) error {
				l.note(m)
				if m.Attempt > 1 {
					if !strings.Contains(m.LastError, retriable.ErrTimeout.Error()) && string(m.Value) != "panic" {
						t.Errorf("%s: the next attempt is told %q", m.Value, m.LastError)
					}
					return nil
				}
				if string(m.Value) == "in time" {
					time.Sleep(10*time.Second - 1)
					return ctx.Err()
				}
				began := time.Now()
				<-ctx.Done()
				wantEqual(t, "time until its context ended", time.Since(began), 10*time.Second)
				if c := context.Cause(ctx); !errors.Is(c, retriable.ErrTimeout) {
					t.Errorf("%s: cause %v, want ErrTimeout", m.Value, c)
				}
				for _, v := range verdicts {
					if v.name == string(m.Value) && v.name != "panic" {
						return v.err
					}
				}
				panic("late")
			}
		}(), retriable.HandlerTimeout(10*time.Second)))
		for _, v := range verdicts {
			b.produce("orders", 0, v.name)
		}
		time.Sleep(5 * time.Hour)
		letters, copies := b.values("orders.dead"), b.values("orders.retry")
		retried := 0
		for _, v := range verdicts {
			ds := l.of(v.name)
			got := "dropped"
			switch {
			case slices.Contains(letters, v.name):
				got = "dead"
			case slices.Contains(copies, v.name):
				got = "retried"
				retried++
				if len(ds) != 2 || ds[1].attempt != 2 || ds[1].at.Sub(ds[0].at) != time.Hour+10*time.Second {
					t.Errorf("%s: delivered %v, want attempt 2 an hour after the first failed", v.name, ds)
				}
			case v.name == "in time":
				got = "handled"
			}
			wantEqual(t, v.name, got, v.want)
		}
		st := r.Stats()
		wantEqual(t, "failed", st.Failed, len(verdicts)-1)
		wantEqual(t, "handled", st.Handled, retried+1)
		wantEqual(t, "dropped", st.Dropped, 1)
		if r.ended() {
			t.Errorf("Run ended: %v", r.err)
		}
		r.clean()
	})
}

func TestALateHandlerKeepsItsLaneUntilItReturns(t *testing.T) { // I4, I6
	bubble(t, "orders orders.retry", func(b *bed) {
		var l ledger
		late := b.gate()
		r := b.begin("g", retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			if m.Attempt == 1 && string(m.Value) == "late" {
				late.wait() // deaf to its context
			}
			return nil
		}), none(), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(time.Second)), retriable.HandlerTimeout(time.Second)))
		b.produce("orders", 0, "k=late", "k=behind", "j=other")
		time.Sleep(5 * time.Minute)
		wantEqual(t, "deliveries of it, of another key's, of the one behind it", fmt.Sprint(len(l.of("late")), len(l.of("other")), len(l.of("behind"))), "1 1 0")
		st := r.Stats()
		wantEqual(t, "before it returns: failed, retried, running", fmt.Sprint(st.Failed, st.Retried, st.Running), "0 0 1")
		late.open()
		time.Sleep(5 * time.Second)
		wantEqual(t, "the last deliveries", l.values()[2:], []string{"behind", "late"})
		st = r.Stats()
		wantEqual(t, "failed, retried", fmt.Sprint(st.Failed, st.Retried), "1 1")
		r.clean()
	})
}

func TestMaxAttemptsCountsTheFirst(t *testing.T) { // I8
	for _, most := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			bubble(t, allTopics, func(b *bed) {
				var l ledger
				r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error { l.note(m); return errNo }), retriable.MaxAttempts(most)))
				b.produce("orders", 0, "a")
				time.Sleep(6 * time.Hour)
				ds := l.all()
				if len(ds) != most {
					t.Fatalf("%d deliveries, want %d", len(ds), most)
				}
				for i, d := range ds {
					wantEqual(t, "attempt", d.attempt, i+1)
					if i > 0 {
						wantEqual(t, "wait", d.at.Sub(ds[i-1].at), time.Hour)
					}
				}
				wantEqual(t, "copies", len(b.read("orders.retry")), most-1)
				wantEqual(t, "letters", len(b.read("orders.dead")), 1)
				r.clean()
			})
		})
	}
}

func TestTheDefaultsAreFiveAttemptsWithExponentialBackoff(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		var l ledger
		r := b.begin("g", retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return errNo }),
			retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
		b.produce("orders", 0, "a")
		time.Sleep(time.Minute)
		ds := l.all()
		if len(ds) != 5 {
			t.Fatalf("%d deliveries, want 5", len(ds))
		}
		for i, d := range ds[1:] {
			most := time.Second << i
			if w := d.at.Sub(ds[i].at); w <= most/2 || w > most+time.Millisecond {
				t.Errorf("wait %d: %v, want the upper half of %v", i+1, w, most)
			}
		}
		r.clean()
	})
}

func TestMaxElapsedCountsFromTheFirstFailure(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		var l ledger
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error {
			l.note(m)
			time.Sleep(time.Minute) // so that the first failure is not the first delivery
			return errNo
		}), retriable.MaxAttempts(100), retriable.MaxElapsed(2*time.Hour+2*time.Minute)))
		b.send(&kgo.Record{Topic: "orders", Value: []byte("a"), Timestamp: time.Now().Add(-1000 * time.Hour)})
		time.Sleep(10 * time.Hour)
		// Failures at 0:01, 1:02 and 2:03; the next would be due at 3:03, and 2:02 after the first is 2:03.
		wantEqual(t, "deliveries", len(l.all()), 3)
		letters := b.read("orders.dead")
		if len(letters) != 1 {
			t.Fatalf("%d letters, want 1", len(letters))
		}
		why, _ := header(letters[0], "__dlq.errors.message")
		if !strings.Contains(why, "MaxElapsed") {
			t.Errorf("the letter says %q", why)
		}
		r.clean()
	})
}

func TestABackoffThatMisbehavesHurtsNobody(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		var l ledger
		var asked []int
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error { l.note(m); return errNo }), retriable.MaxDelay(2*time.Hour),
			retriable.MaxAttempts(5), retriable.Backoff(func(attempt int) time.Duration {
				asked = append(asked, attempt)
				switch attempt {
				case 1:
					panic("backoff 4111")
				case 2:
					return -time.Hour
				case 3:
					return 1<<63 - 1
				}
				return time.Minute
			})))
		b.produce("orders", 0, "a")
		pass(5 * time.Hour)
		ds := l.all()
		if len(ds) != 5 {
			t.Fatalf("%d deliveries, want 5", len(ds))
		}
		for i, want := range []time.Duration{time.Second, 0, 2 * time.Hour, time.Minute} {
			wantEqual(t, "wait", ds[i+1].at.Sub(ds[i].at), want)
		}
		wantEqual(t, "asked for", asked, []int{1, 2, 3, 4})
		if len(b.log.lines("Backoff", "panic=string")) != 1 || strings.Contains(b.log.String(), "4111") {
			t.Error("the panic of the Backoff function is not logged as it should be")
		}
		r.clean()
	})
}

func TestWithoutARetryTopicAFailureIsDeadLetteredAtOnce(t *testing.T) {
	bubble(t, "orders orders.dead", func(b *bed) {
		var l ledger
		r := b.begin("g", retriable.Defaults(retriable.MaxAttempts(9), retriable.Backoff(retriable.Constant(time.Hour))), // for others
			retriable.Topic("orders", handles(func(m *retriable.Message) error {
				l.note(m)
				if string(m.Value) == "later" {
					return retriable.RetryAfter(errNo, time.Second)
				}
				return errNo
			}), retriable.DeadLetterTopic("orders.dead")))
		b.produce("orders", 0, "a", "later")
		time.Sleep(5 * time.Second)
		l.once(t, 2)
		letters := b.read("orders.dead")
		wantEqual(t, "letters", len(letters), 2)
		for _, letter := range letters {
			n, _ := header(letter, "__dlq.errors.delivery.count")
			why, _ := header(letter, "__dlq.errors.message")
			wantEqual(t, "deliveries, reason", n+", "+why, "1, no retry topic")
		}
		wantEqual(t, "committed", b.committed("g", "orders", 0), 2)
		r.clean()
	})
}

func TestWithoutADeadLetterTopicWhatIsGivenUpIsDropped(t *testing.T) {
	bubble(t, "orders orders.retry", func(b *bed) {
		var d dropped
		r := b.begin("g", patient(), retriable.Hooks(&d), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			if string(m.Value) == "permanent" {
				return retriable.Permanent(errors.New("4111"))
			}
			return errNo
		}), none(), retriable.RetryTopic("orders.retry"), retriable.MaxAttempts(2), retriable.Backoff(retriable.Constant(time.Hour))))
		b.produce("orders", 0, "permanent", "failing")
		time.Sleep(2 * time.Hour)
		st := r.Stats()
		wantEqual(t, "dropped, failed, dead-lettered", fmt.Sprint(st.Dropped, st.Failed, st.DeadLettered), "2 3 0")
		ds := d.all()
		if len(ds) != 2 {
			t.Fatalf("%d hooks, want 2", len(ds))
		}
		wantEqual(t, "first", fmt.Sprint(ds[0].Source, ds[0].Records, ds[0].Message.Attempt, ds[0].Err), "orders/0/0 1 1 4111")
		wantEqual(t, "second", fmt.Sprint(ds[1].Source, ds[1].Records, ds[1].Message.Attempt, ds[1].Err), "orders.retry/0/0 1 2 no")
		if len(b.log.lines("dropped", "level=WARN", "orders/0/0")) != 1 || strings.Contains(b.log.String(), "4111") {
			t.Error("the drop is not logged as it should be")
		}
		wantEqual(t, "committed", fmt.Sprint(b.committed("g", "orders", 0), b.committed("g", "orders.retry", 0)), "2 1")
		r.clean()
	})
}

func TestTheFilterIsAskedOncePerMessage(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		var l ledger
		var mu sync.Mutex
		asked := map[string]int{}
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error {
			l.note(m)
			switch n := len(l.of(string(m.Value))); {
			case string(m.Value) == "postponed" && n == 1:
				return retriable.Postpone(time.Minute)
			case string(m.Value) == "failed" && n < 3:
				return errNo
			}
			return nil
		}), retriable.Filter(func(r *kgo.Record) bool {
			mu.Lock()
			asked[string(r.Value)]++
			mu.Unlock()
			v := string(r.Value)
			r.Value, r.Key = []byte("scribbled over"), nil // nobody's harm but its own
			r.Value = []byte(v)
			if v == "panic" {
				panic("in the filter")
			}
			return v != "rejected"
		})))
		b.produce("orders", 0, "k=rejected", "k=postponed", "failed", "panic", "k=fine", "rejected")
		pass(5 * time.Hour)
		wantEqual(t, "asked", asked, map[string]int{"rejected": 2, "postponed": 1, "failed": 1, "panic": 1, "fine": 1})
		wantEqual(t, "deliveries of what was rejected", len(l.of("rejected")), 0)
		wantEqual(t, "deliveries of the others", fmt.Sprint(len(l.of("postponed")), len(l.of("failed")), len(l.of("fine"))), "2 3 1")
		ds := l.of("panic")
		if len(ds) != 1 || ds[0].attempt != 2 {
			t.Errorf("what the filter panicked at was delivered %v, want once, as attempt 2", ds)
		}
		st := r.Stats()
		wantEqual(t, "filtered, handled, failed", fmt.Sprint(st.Filtered, st.Handled, st.Failed), "2 4 3")
		wantEqual(t, "committed", b.committed("g", "orders", 0), 6)
		r.clean()
	})
}

func TestMiddlewareRunsInItsOrderAroundEveryAttempt(t *testing.T) {
	bubble(t, "orders payments orders.retry", func(b *bed) {
		var mu sync.Mutex
		var steps []string
		step := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			steps = append(steps, s)
		}
		mw := func(name string) retriable.Middleware {
			return func(next retriable.Handler) retriable.Handler {
				return retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
					step(name)
					err := next.Handle(ctx, m)
					var p *retriable.PanicError
					if errors.As(err, &p) {
						step(name + " saw a panic")
					}
					step("/" + name)
					return err
				})
			}
		}
		h := handles(func(m *retriable.Message) error {
			step(fmt.Sprint(m.Topic, m.Attempt))
			if m.Topic == "orders" && m.Attempt == 1 {
				panic("!")
			}
			return nil
		})
		r := b.begin("g", patient(), retriable.Use(mw("a"), mw("b")), retriable.Use(mw("c")),
			retriable.Topic("orders", h, none(), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(time.Hour))),
			retriable.Topic("payments", h, none()))
		b.produce("orders", 0, "x")
		time.Sleep(2 * time.Hour)
		b.produce("payments", 0, "y")
		pass(time.Minute)
		wantEqual(t, "steps", strings.Join(steps, " "), strings.Join([]string{
			"a b c orders1 c saw a panic /c b saw a panic /b a saw a panic /a",
			"a b c orders2 /c /b /a",
			"a b c payments1 /c /b /a",
		}, " "))
		r.clean()
	})
}

func TestMiddlewareMayDecideByItself(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		var handled atomic.Int32
		r := b.begin("g", patient(), retriable.Use(func(next retriable.Handler) retriable.Handler {
			return retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
				switch string(m.Value) {
				case "done":
					return nil
				case "swallowed":
					_ = next.Handle(ctx, m)
					return nil
				case "dead":
					return retriable.Permanent(errNo)
				case "panic":
					panic("in the middleware")
				}
				return next.Handle(ctx, m)
			})
		}), all(handles(func(*retriable.Message) error { handled.Add(1); return errNo }), retriable.MaxAttempts(2)))
		b.produce("orders", 0, "done", "swallowed", "dead", "panic", "failing")
		time.Sleep(3 * time.Hour)
		letters := b.values("orders.dead")
		slices.Sort(letters)
		wantEqual(t, "letters", letters, []string{"dead", "failing", "panic"})
		wantEqual(t, "calls of the handler", handled.Load(), 3)
		r.clean()
	})
}

func TestWhatMiddlewareAndHandlersChangeIsNotWritten(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		spoil := func(m *retriable.Message) {
			m.Key, m.Value = []byte("wrong"), []byte("wrong")
			if len(m.Headers) > 0 {
				m.Headers[0] = kgo.RecordHeader{Key: "wrong", Value: []byte("wrong")}
			}
			m.Headers = append(m.Headers, kgo.RecordHeader{Key: "traceparent", Value: []byte("wrong")})
			m.Topic, m.Partition, m.Offset = "wrong", 77, 77
			m.Timestamp = time.Unix(1, 0)
			m.Attempt, m.LastError, m.FirstFailure = 77, "wrong", time.Unix(1, 0)
			m.Source = retriable.Position{Topic: "wrong"}
			m.Record = &kgo.Record{Topic: "wrong"}
		}
		var l ledger
		times := map[int]int{}
		r := b.begin("g", patient(), retriable.Concurrency(1), retriable.Use(func(next retriable.Handler) retriable.Handler {
			return retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
				l.note(m)
				first := *m.Record
				wantEqual(t, "what comes in", fmt.Sprintf("%s=%s %v %s %d %d %d", m.Key, m.Value, headers(m.Record), m.Topic, m.Partition, m.Offset, m.Timestamp.UnixMilli()),
					`k=v [a="1" b=null a="2"] orders 0 0 946684800123`)
				attempt := m.Attempt
				times[attempt]++
				spoil(m)
				err := next.Handle(ctx, m)
				spoil(&retriable.Message{Record: &first})
				if attempt == 2 && times[2] == 1 {
					return retriable.Postpone(time.Minute) // and again as it was
				}
				return err
			})
		}), all(handles(func(m *retriable.Message) error { spoil(m); return errNo }), retriable.MaxAttempts(3)))
		b.send(&kgo.Record{Topic: "orders", Key: []byte("k"), Value: []byte("v"), Timestamp: time.UnixMilli(946684800123), Headers: []kgo.RecordHeader{
			{Key: "a", Value: []byte("1")}, {Key: "b"}, {Key: "a", Value: []byte("2")},
		}})
		time.Sleep(5 * time.Hour)
		var attempts []int
		for _, d := range l.all() {
			attempts = append(attempts, d.attempt)
		}
		wantEqual(t, "attempts", attempts, []int{1, 2, 2, 3})
		copies := append(b.read("orders.retry"), b.read("orders.dead")...)
		wantEqual(t, "copies", len(copies), 3)
		for _, c := range copies {
			wantEqual(t, c.Topic, fmt.Sprint(string(c.Key), "=", string(c.Value), headers(c)[:3]), `k=v[a="1" b=null a="2"]`)
			for _, h := range headers(c) {
				if strings.Contains(h, "wrong") || strings.Contains(h, "77") {
					t.Errorf("%s/%d: header %s", c.Topic, c.Offset, h)
				}
			}
		}
		r.clean()
	})
}

// recordContexts is a kgo hook that gives fetched records a context of their own, as tracing does. It is cancelled, which is not the
// handler's business.
type recordContexts struct{}

type ctxKey string

func (recordContexts) OnFetchRecordBuffered(r *kgo.Record) {
	parent := r.Context
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithCancel(context.WithValue(parent, ctxKey("record"), r.Topic))
	cancel()
	r.Context = ctx
}

func (recordContexts) OnFetchRecordUnbuffered(*kgo.Record, bool) {}

func TestTheHandlersContextHasTheValuesOfRunsAndOfTheRecords(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Minute} {
		for _, hooked := range []bool{false, true} {
			t.Run(fmt.Sprintf("timeout %v, record contexts %v", timeout, hooked), func(t *testing.T) {
				bubble(t, allTopics, func(b *bed) {
					var mu sync.Mutex
					var seen []string
					opts := []retriable.TopicOption{retriable.MaxAttempts(2)}
					if timeout > 0 {
						opts = append(opts, retriable.HandlerTimeout(timeout))
					}
					os := []retriable.Option{patient(), retriable.Topic("orders", retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
						mu.Lock()
						defer mu.Unlock()
						seen = append(seen, fmt.Sprint(ctx.Value(ctxKey("run")), " ", ctx.Value(ctxKey("record")), " ", ctx.Err()))
						return errNo
					}), append(opts, retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(time.Hour)))...)}
					want := []string{"R <nil> <nil>", "R <nil> <nil>"}
					if hooked {
						os = append(os, retriable.Kafka(kgo.WithHooks(recordContexts{})))
						want = []string{"R orders <nil>", "R orders.retry <nil>"}
					}
					c, err := retriable.New("g", b.options(os...)...)
					if err != nil {
						t.Fatal(err)
					}
					ctx, stop := context.WithCancel(context.WithValue(b.Context(), ctxKey("run"), "R"))
					done := make(chan error, 1)
					go func() { done <- c.Run(ctx) }()
					b.Cleanup(stop)
					<-c.Ready()
					b.produce("orders", 0, "a")
					pass(2 * time.Hour)
					wantEqual(t, "seen", seen, want)
					wantEqual(t, "letters", b.values("orders.dead"), []string{"a"})
					stop()
					if err := <-done; err != nil {
						t.Errorf("Run: %v", err)
					}
				})
			})
		}
	}
}

func TestAStopDoesNotEndTheContextOfAHandlerThatStillHasTime(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var err error
		r := b.begin("g", retriable.DrainTimeout(10*time.Second), retriable.Topic("orders", retriable.HandlerFunc(func(ctx context.Context, _ *retriable.Message) error {
			time.Sleep(5 * time.Second)
			err = ctx.Err()
			return nil
		}), none()))
		b.produce("orders", 0, "a")
		synctest.Wait()
		time.Sleep(time.Second)
		r.clean()
		wantEqual(t, "its context's error", err, nil)
		wantEqual(t, "committed", b.committed("g", "orders", 0), 1)
	})
}
