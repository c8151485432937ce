package kfake_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

// What docs/delivery.md promises and no other story is about.

// Whoever takes over an incomplete message gives it its whole time again.
func TestAnIncompleteMessageHasAllItsTimeAfterATakeover(t *testing.T) {
	bubble(t, "orders orders.dead", func(b *bed) {
		topic := retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), retriable.DeadLetterTopic("orders.dead"))
		first := b.start("g", retriable.JoinTimeout(time.Minute), topic)
		b.send(part("a", 2, 0, "a"))
		pass(50 * time.Second)
		first.clean()
		second := b.begin("g", retriable.JoinTimeout(time.Minute), topic)
		pass(50 * time.Second)
		wantEqual(t, "dead letters after 50 s", len(b.read("orders.dead")), 0)
		pass(15 * time.Second)
		wantEqual(t, "dead letters after 65 s", len(b.read("orders.dead")), 1)
		second.clean()
	})
}

// A foreign commit erases what the map said of the first chunks: the rest of the message waits for them, and in the end is kept.
func TestAForeignCommitBetweenChunksLeavesTheRestToTheDeadLetters(t *testing.T) {
	bubble(t, "orders orders.dead", func(b *bed) {
		var l ledger
		topic := retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return nil }), retriable.DeadLetterTopic("orders.dead"))
		first := b.start("g", topic)
		b.send(part("a", 2, 0, "a"), part("a", 2, 1, "b"))
		pass(2 * time.Second)
		first.clean()
		wantEqual(t, "joined", l.values(), []string{"ab"})
		pass(10 * time.Second)
		offsets := kadm.Offsets{}
		offsets.AddOffset("orders", 0, 1, -1)
		if err := kadm.NewClient(b.cl).CommitAllOffsets(b.Context(), "g", offsets); err != nil {
			t.Fatal(err)
		}
		second := b.begin("g", retriable.JoinTimeout(time.Minute), topic)
		pass(50 * time.Second)
		wantEqual(t, "dead letters before the deadline", len(b.read("orders.dead")), 0)
		pass(20 * time.Second)
		wantEqual(t, "dead letters", values(b.read("orders.dead")), []string{"b"})
		wantEqual(t, "committed", b.committed("g", "orders", 0), 2)
		second.clean()
	})
}

// Members die and nothing is there that could have been the cause.
func TestAPartitionWithNothingToHandleCountsNoCrash(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		k.Topic("orders", 2)
		m := k.Start("g", retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), retriable.DeadLetterTopic("orders.dead")))
		for range 6 {
			for _, p := range m.Stats().Partitions {
				if p.Careful {
					t.Errorf("%s/%d is careful", p.Topic, p.Partition)
				}
			}
			pass(3 * time.Second)
			m.Crash()
			m.Restart()
		}
		k.Produce("orders", "k", "0")
		m.Await(retriabletest.Handled(1), retriabletest.Committed())
		if n := len(k.DeadLetters("orders.dead")); n > 0 {
			t.Errorf("%d dead letters", n)
		}
	})
}

// A copy that is acked in the last moment, after the handlers' contexts have ended, still counts.
func TestAWriteThatIsAckedInTheLastMomentCounts(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: -1})
		c := b.start("g", retriable.DrainTimeout(2*time.Second), retriable.Kafka(atOnce),
			retriable.Topic("orders", handles(func(*retriable.Message) error { time.Sleep(2900 * time.Millisecond); return errors.New("no") }),
				retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(time.Hour))))
		b.produce("orders", 0, "0")
		b.until("it runs", time.Second, func() bool { return c.Stats().Running == 1 })
		time.Sleep(time.Second)
		began := time.Now()
		c.stop()
		time.Sleep(2400 * time.Millisecond) // its context has ended, and the copy is tried for the last time but one
		refused.Remove()
		c.clean()
		if took := time.Since(began); took < 2400*time.Millisecond || took > 3*time.Second {
			t.Errorf("the stop took %v", took)
		}
		wantEqual(t, "committed", b.committed("g", "orders", 0), 1)
		wantEqual(t, "retry copies", len(b.read("orders.retry")), 1)
	})
}

// guilty notes why records were given up, and is told with no dead-letter topic too.
type guilty struct{ errs []error }

func (g *guilty) OnDeadLettered(e retriable.DeadLettered) { g.errs = append(g.errs, e.Err) }
func (g *guilty) OnDropped(e retriable.Dropped)           { g.errs = append(g.errs, e.Err) }

// Care is shown where it holds, said once a life, and what comes of it is told by type.
func TestCareIsToldAndWhatEndsItIsACrashError(t *testing.T) {
	for name, topic := range map[string]retriable.TopicOption{"dead letters": retriable.DeadLetterTopic("orders.dead"), "none": retriable.NoDeadLetters()} {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders orders.dead", func(b *bed) {
				var g guilty
				m := &mortals{bed: b, opts: []retriable.Option{retriable.Hooks(&g)}, topic: func(h retriable.Handler) retriable.Option { return retriable.Topic("orders", h, topic) }}
				b.produce("orders", 0, "killer")
				deaths := m.deaths(10, time.Minute, func(ctx context.Context, k *cable, _ *retriable.Message) error { return kills(ctx, k) })
				careful := b.log.lines("level=WARN", "runs one by one")
				wantEqual(t, "deaths, of which with care; warnings", []int{deaths, m.cared, len(careful)}, []int{3, 1, 2})
				var crash *retriable.CrashError
				if len(g.errs) != 1 || !errors.As(g.errs[0], &crash) || crash.Crashes < 3 {
					t.Errorf("told: %v", g.errs)
				}
			})
		})
	}
}
