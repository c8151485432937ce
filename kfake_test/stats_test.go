package kfake_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

func TestTheCountersOfAMixedRunAreExact(t *testing.T) {
	const each = 12
	kinds := []string{"done", "filtered", "twice", "exhausted", "permanent", "dropped", "postponed", "panic", "late", "abandon"}
	bubble(t, "orders:3 orders.retry:2 orders.dead", func(b *bed) {
		fault := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.dead", Err: kerr.PolicyViolation, Count: 3})
		defer fault.Remove()
		var l ledger
		r := b.begin("g", patient(), retriable.Concurrency(7), all(retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			l.note(m)
			var kind string
			var n int
			_, _ = fmt.Sscanf(string(m.Value), "%s %d", &kind, &n)
			switch kind {
			case "twice":
				if m.Attempt < 3 {
					return errNo
				}
			case "exhausted":
				return errNo
			case "permanent":
				return retriable.Permanent(errNo)
			case "dropped":
				return retriable.Drop(errNo)
			case "postponed":
				if len(l.of(string(m.Value))) <= 2 {
					return retriable.Postpone(time.Minute)
				}
			case "panic":
				if m.Attempt == 1 {
					panic(errNo)
				}
			case "late":
				if m.Attempt == 1 {
					<-ctx.Done()
				}
			}
			return nil
		}), retriable.MaxAttempts(3), retriable.HandlerTimeout(time.Second), retriable.Filter(func(r *kgo.Record) bool { return string(r.Value[:3]) != "fil" })))
		for i := range each {
			for _, kind := range kinds {
				b.produce("orders", int32(i%3), fmt.Sprintf("%s=%s %d", kind, kind, i))
			}
		}
		time.Sleep(6 * time.Hour)
		st := r.Stats()
		for name, pair := range map[string][2]uint64{
			"handled":       {st.Handled, each * (1 + 1 + 1 + 1 + 1 + 1)}, // done, twice, postponed, panic, late and abandon end well
			"failed":        {st.Failed, each * (2 + 3 + 1 + 1 + 1 + 1)},
			"retried":       {st.Retried, each * (2 + 2 + 1 + 1)},
			"dead-lettered": {st.DeadLettered, each * 2},
			"dropped":       {st.Dropped, each},
			"filtered":      {st.Filtered, each},
			"skipped":       {st.Skipped, 0},
			"rewritten":     {st.Rewritten, 0},
		} {
			wantEqual(t, name, pair[0], pair[1])
		}
		if st.ProduceFailures < 3 {
			t.Errorf("%d refused writes, want at least 3", st.ProduceFailures)
		}
		wantEqual(t, "running, bytes, workers", fmt.Sprint(st.Running, st.PendingBytes, st.Workers), "0 0 7")
		wantEqual(t, "letters", len(b.read("orders.dead")), each*2)
		wantEqual(t, "copies", len(b.read("orders.retry")), each*6)

		var names []string
		for _, p := range st.Partitions {
			names = append(names, fmt.Sprintf("%s/%d", p.Topic, p.Partition))
			wantEqual(t, names[len(names)-1], fmt.Sprint(p.Pending, p.Running, p.Held, p.Lag, p.Paused, p.NextDue.IsZero(), p.Oldest.Since.IsZero(), p.Committed == p.End, p.Watermark == p.End),
				"0 0 0 0 false true true true true")
			wantEqual(t, "committed", b.committed("g", p.Topic, p.Partition), p.Committed)
		}
		wantEqual(t, "partitions, sorted", names, []string{"orders/0", "orders/1", "orders/2", "orders.retry/0", "orders.retry/1"})
		r.clean()
		after := r.Stats()
		wantEqual(t, "counters after the end", fmt.Sprint(after.Handled, after.Failed, after.Retried, len(after.Partitions)), fmt.Sprint(st.Handled, st.Failed, st.Retried, 0))
	})
}

func TestBeforeRunThereIsNothingToCount(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		c, err := retriable.New("g", b.options(retriable.Concurrency(3), retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), none()))...)
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "Stats", fmt.Sprintf("%+v", c.Stats()), fmt.Sprintf("%+v", retriable.Stats{Workers: 3}))
	})
}

func TestAPartitionsNumbersAreItsOwn(t *testing.T) {
	bubble(t, "orders:2 orders.retry", func(b *bed) {
		blocked := b.gate()
		r := b.begin("g", retriable.Topic("orders", handles(func(m *retriable.Message) error {
			switch {
			case m.Attempt == 1 && string(m.Value) == "fails":
				return errNo
			case string(m.Value) == "blocked":
				blocked.wait()
			}
			return nil
		}), none(), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(time.Hour))))
		ps := r.partition("orders", 0)
		wantEqual(t, "at the start", fmt.Sprint(ps.Committed, ps.Watermark, ps.End, ps.Lag, ps.Oldest.Since.IsZero()), "0 0 0 0 true")
		b.produce("orders", 0, "k=a", "k=b", "k=blocked", "k=c", "j=d", "j=fails", "l=e")
		b.produce("orders", 1, "a")
		began := time.Now()
		time.Sleep(3 * time.Second)
		ps = r.partition("orders", 0)
		wantEqual(t, "committed, watermark, end, lag, pending, running, held", fmt.Sprint(ps.Committed, ps.Watermark, ps.End, ps.Lag, ps.Pending, ps.Running, ps.Held), "2 2 7 5 2 1 0")
		ps = r.partition("orders", 1)
		wantEqual(t, "the other", fmt.Sprint(ps.Committed, ps.Watermark, ps.End, ps.Lag, ps.Pending), "1 1 1 0 0")
		ps = r.partition("orders.retry", 0)
		wantEqual(t, "the retry topic", fmt.Sprint(ps.Committed, ps.Watermark, ps.End, ps.Lag, ps.Pending, ps.Held, ps.NextDue.Sub(began).Round(time.Second)), "0 0 1 1 0 1 1h0m0s")
		wantEqual(t, "running in all", r.Stats().Running, 1)
		blocked.open()
		r.clean()
	})
}

func TestOldestNamesTheRecordThatHoldsTheCommit(t *testing.T) {
	bubble(t, "orders:5 orders.retry", func(b *bed) {
		blocked := b.gate()
		topic := retriable.Topic("orders", handles(func(m *retriable.Message) error {
			switch string(m.Value) {
			case "blocked":
				blocked.wait()
			case "later":
				return retriable.Postpone(time.Hour)
			case "fails":
				return errNo
			}
			return nil
		}), none(), retriable.RetryTopic("orders.retry"), retriable.MaxAttempts(9), retriable.Backoff(retriable.Constant(time.Hour)))
		r := b.begin("g", retriable.Concurrency(8), retriable.MaxPending(100), topic)
		oldest := func(topic string, p int32) string {
			o := r.partition(topic, p).Oldest
			if o.Since.IsZero() {
				return "none"
			}
			return fmt.Sprintf("%s at %d, attempt %d, for %v", o.Reason, o.Offset, o.Attempt, time.Since(o.Since).Round(time.Second))
		}
		wantEqual(t, "nothing read", oldest("orders", 0), "none")

		// Running, and for seven workers more: then another partition's is queued, for one partition has no more than three quarters.
		b.produce("orders", 0, "a", "b", "blocked", "c")
		time.Sleep(20 * time.Second)
		wantEqual(t, "running", oldest("orders", 0), "running at 2, attempt 1, for 20s")

		// Postponed.
		b.produce("orders", 1, "later", "a", "b")
		time.Sleep(5 * time.Second)
		wantEqual(t, "postponed", oldest("orders", 1), "postponed at 0, attempt 1, for 5s")
		wantEqual(t, "next due", time.Until(r.partition("orders", 1).NextDue), time.Hour-5*time.Second)

		// Producing: the copy is refused.
		fault := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: -1})
		b.produce("orders", 2, "a", "fails", "b")
		time.Sleep(30 * time.Second)
		wantEqual(t, "producing", oldest("orders", 2), "producing at 1, attempt 1, for 30s")
		ps := r.partition("orders", 2)
		wantEqual(t, "pending, held, next due", fmt.Sprint(ps.Pending, ps.Held, ps.NextDue.IsZero()), "1 0 true")
		fault.Remove()
		b.until("the copy is written", 10*time.Second, func() bool { return r.Stats().Retried == 1 })
		wantEqual(t, "done", oldest("orders", 2), "none")

		// Held, as the attempt that is coming.
		time.Sleep(7 * time.Second)
		wantEqual(t, "held", oldest("orders.retry", 0), "held at 0, attempt 2, for 7s")

		// Queued: behind a blocked one of its key, once that one's offset is above; here behind all workers.
		b.produce("orders", 3, slices.Repeat([]string{"blocked"}, 6)...)
		time.Sleep(time.Second)
		b.produce("orders", 4, "blocked", "blocked", "blocked")
		time.Sleep(3 * time.Second)
		wantEqual(t, "one that got the last worker", oldest("orders", 4), "running at 0, attempt 1, for 3s")
		b.produce("orders", 2, "waits")
		time.Sleep(2 * time.Second)
		wantEqual(t, "queued", oldest("orders", 2), "queued at 3, attempt 1, for 2s")
		blocked.open()
		time.Sleep(3 * time.Second)
		for p := range int32(5) {
			if want := "none"; p != 1 {
				wantEqual(t, "in the end", oldest("orders", p), want)
			}
		}
		r.clean()
	})
}

// A retry record's attempt is the one that is coming, and while it runs the one that runs.
func TestOldestTellsTheAttemptOfARetry(t *testing.T) {
	bubble(t, "orders orders.retry", func(b *bed) {
		blocked := b.gate()
		r := b.begin("g", patient(), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			if m.Attempt == 3 {
				blocked.wait()
				return nil
			}
			return errNo
		}), none(), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(time.Minute))))
		b.produce("orders", 0, "a")
		time.Sleep(90 * time.Second)
		o := r.partition("orders.retry", 0).Oldest
		wantEqual(t, "held", fmt.Sprint(o.Reason, " ", o.Offset, " ", o.Attempt), "held 1 3")
		time.Sleep(time.Minute)
		o = r.partition("orders.retry", 0).Oldest
		wantEqual(t, "running", fmt.Sprint(o.Reason, " ", o.Offset, " ", o.Attempt), "running 1 3")
		blocked.open()
		r.clean()
	})
}
