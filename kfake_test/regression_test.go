package kfake_test

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// What went wrong in other libraries and is no other story's subject. docs/testing.md lists all of them.

// A record is dead-lettered while those around it run: nothing of them is committed for it, and a crash brings them again, but not it.
func TestADeadLetterCommitsNoneOfItsNeighbours(t *testing.T) {
	bubble(t, "orders orders.dead", func(b *bed) {
		var l ledger
		work := b.gate()
		topic := func(wait bool) retriable.Option {
			return retriable.Topic("orders", handles(func(m *retriable.Message) error {
				l.note(m)
				if string(m.Value) == "3" {
					return retriable.Permanent(errors.New("never"))
				}
				if wait {
					work.wait()
				}
				return nil
			}), retriable.DeadLetterTopic("orders.dead"))
		}
		first := b.start("g", retriable.DrainTimeout(time.Second), topic(true))
		b.produce("orders", 0, seq(7)...)
		pass(5 * time.Second)
		wantEqual(t, "dead letters", values(b.read("orders.dead")), []string{"3"})
		wantEqual(t, "committed while the others run", b.committed("g", "orders", 0), 0)
		if err := first.end(); err == nil {
			t.Error("a stop with records at work was clean")
		}
		work.open()
		pass(10 * time.Second)
		before := len(l.all())
		second := b.begin("g", topic(false))
		pass(5 * time.Second)
		wantEqual(t, "deliveries afterwards", len(l.all())-before, 6)
		wantEqual(t, "of the dead-lettered", len(l.of("3")), 1)
		wantEqual(t, "committed", b.committed("g", "orders", 0), 7)
		second.clean()
	})
}

// Failures seek nothing back: a hundred in a row are delivered as often as they have attempts, and their neighbours once.
func TestFailuresRepeatNoOtherRecord(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var l ledger
		r := b.begin("g", retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			if string(m.Key) == "fails" && m.Attempt < 3 {
				return errors.New("not yet")
			}
			return nil
		}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.MaxAttempts(3), retriable.Backoff(retriable.Constant(time.Second))))
		for i := range 200 {
			key := "fails"
			if i%2 == 1 {
				key = "does not"
			}
			b.send(&kgo.Record{Topic: "orders", Key: []byte(key), Value: []byte(seq(200)[i])})
		}
		pass(time.Minute)
		for i, v := range seq(200) {
			want := 3
			if i%2 == 1 {
				want = 1
			}
			if n := len(l.of(v)); n != want {
				t.Errorf("record %d was delivered %d times, want %d", i, n, want)
			}
		}
		r.clean()
	})
}

// What is paused for its bound goes on at the very record at which it stopped.
func TestAResumeSkipsNoRecord(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var l ledger
		r := b.begin("g", retriable.MaxPending(3), retriable.Concurrency(1), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			time.Sleep(100 * time.Millisecond) // longer than the patience before a pause
			return nil
		}), retriable.NoDeadLetters(), retriable.Ordering(retriable.ByPartition)))
		paused := false
		for i := range 50 {
			b.produce("orders", 0, seq(50)[i])
			time.Sleep(20 * time.Millisecond)
			paused = paused || r.partition("orders", 0).Paused
		}
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			paused = paused || r.partition("orders", 0).Paused
		}
		if !paused {
			t.Error("it was never paused: the story shows nothing")
		}
		wantEqual(t, "deliveries", l.values(), seq(50))
		r.clean()
	})
}

// kgo tells by a fetch that the group cannot be joined. No partition is to blame for that, and Health says which group it is.
func TestAGroupThatCannotBeJoinedIsNoPartitionThatCannotBeRead(t *testing.T) {
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			bubble(t, "orders", func(b *bed) {
				var d diary
				r := b.begin("g", retriable.Kafka(p.opts...), retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
				b.produce("orders", 0, "0")
				pass(3 * time.Second)
				refused := b.cluster.Fault(kfake.Fault{
					Keys: []kmsg.Key{kmsg.JoinGroup, kmsg.Heartbeat, kmsg.SyncGroup, kmsg.ConsumerGroupHeartbeat}, Group: "g", TopLevel: true,
					Err: kerr.GroupAuthorizationFailed, Count: -1,
				})
				pass(20 * time.Second)
				err := r.Health(b.Context())
				var group *retriable.GroupError
				var fetch *retriable.FetchError
				if !errors.As(err, &group) || group.Group != "g" || errors.As(err, &fetch) {
					t.Errorf("Health: %v", err)
				}
				refused.Remove()
				pass(time.Minute)
				if err := r.Health(b.Context()); err != nil {
					t.Errorf("Health, once it can join: %v", err)
				}
				b.produce("orders", 0, "1")
				pass(3 * time.Second)
				d.once(t, 2)
				r.clean()
			})
		})
	}
}
