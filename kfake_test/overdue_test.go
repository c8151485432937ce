package kfake_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Stories of what waits while a partition is at a bound. The simulation found nearly all of them broken.

// postponing has the records named wait once, for so long, and the others take so long.
func postponing(l *ledger, waits, takes map[string]time.Duration) retriable.HandlerFunc {
	var again sync.Map
	return handles(func(m *retriable.Message) error {
		v := string(m.Value)
		if _, seen := again.LoadOrStore(v, true); !seen && waits[v] > 0 {
			return retriable.Postpone(waits[v])
		}
		time.Sleep(takes[v])
		l.note(m)
		return nil
	})
}

func TestWhatIsDueBehindAnOverdueRecordIsNotOverslept(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var l ledger
		h := postponing(&l, map[string]time.Duration{"a": time.Second, "b": 3 * time.Second}, map[string]time.Duration{"c": 2 * time.Second})
		c := b.begin("g", retriable.MaxPending(1), retriable.Topic("orders", h, none()))
		began := time.Now()
		b.produce("orders", 0, "a", "b", "c")
		time.Sleep(10 * time.Second)
		l.once(b.T, 3)
		if bs := l.of("b"); len(bs) == 1 && bs[0].at.Sub(began) > 3200*time.Millisecond {
			b.Errorf("I7: b was late by %v", bs[0].at.Sub(began)-3*time.Second)
		}
		c.clean()
	})
}

func TestADrainWithOverdueRecordsIsQuiet(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var l ledger
		h := postponing(&l, map[string]time.Duration{"a": time.Second}, map[string]time.Duration{"c": 10 * time.Second})
		c := b.begin("g", retriable.MaxPending(1), retriable.Topic("orders", h, none()))
		b.produce("orders", 0, "a", "c")
		time.Sleep(2 * time.Second)
		c.clean() // in a loop without a pause the bubble's time would stand still
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 0)
		l.once(b.T, 1)
	})
}

func TestRefusedCopiesDoNotWaitForTheRoomThatTheyTake(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var once sync.Once
		refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.InvalidRecord, Count: -1})
		c := b.begin("g", retriable.MaxPending(2), retriable.Topic("orders", handles(func(m *retriable.Message) (err error) {
			if string(m.Value) == "p" {
				once.Do(func() { err = retriable.Postpone(time.Second) })
				return err
			}
			if m.Attempt == 1 {
				time.Sleep(950 * time.Millisecond)
				return errors.New("not now")
			}
			return nil
		}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(0))))
		b.produce("orders", 0, "p", "f", "g")
		time.Sleep(5 * time.Second)
		refused.Remove()
		time.Sleep(time.Minute)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 3)
		wantEqual(b.T, "copies handled", b.committed("g", "orders.retry", 0), 2)
		c.clean()
	})
}

func TestABatchTooLargeToUnpackIsNamedThoughItCameWhileThePartitionWasPaused(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		g := b.gate()
		c := b.begin("g", retriable.MaxPending(3), retriable.Kafka(kgo.MaxDecompressBatchBytes(100_000)),
			retriable.Topic("orders", handles(func(*retriable.Message) error { g.wait(); return nil }), none()))
		b.produce("orders", 0, seq(8)...)
		time.Sleep(100 * time.Millisecond)
		if !c.partition("orders", 0).Paused {
			b.Fatal("not paused: the story shows nothing")
		}
		b.renew(kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerLinger(100*time.Millisecond))
		zeros := strings.Repeat("0", 50_000)
		b.produce("orders", 0, zeros, zeros, zeros, zeros) // a batch, of offsets 8 to 11, on a fetch that was under way
		b.renew()
		b.produce("orders", 0, "behind")
		time.Sleep(2 * time.Second)
		g.open()
		time.Sleep(30 * time.Second)
		var blocked *retriable.FetchError
		if err := c.Health(b.Context()); !errors.As(err, &blocked) || blocked.Past.Offset != 11 {
			b.Fatalf("Health: %v", err)
		}
		if err := c.Skip(b.Context(), blocked.Past); err != nil {
			b.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 13)
		c.clean()
	})
}

func TestASkipPassesNothingThatWaitsBelowIt(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		b.produce("orders", 0, seq(8)...)
		b.renew(kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerLinger(100*time.Millisecond))
		zeros := strings.Repeat("0", 50_000)
		b.produce("orders", 0, zeros, zeros, zeros, zeros) // a batch, of offsets 8 to 11
		b.renew()
		b.produce("orders", 0, "behind")
		g := b.gate()
		var d diary
		c := b.begin("g", retriable.MaxPending(3), retriable.Kafka(kgo.MaxDecompressBatchBytes(100_000)),
			retriable.Topic("orders", d.handler("", func(context.Context, *retriable.Message) error { g.wait(); return nil }), none(), retriable.StartAt(kgo.NewOffset().AtStart())))
		time.Sleep(time.Second)
		if s := c.partition("orders", 0); s.Pending != 3 {
			b.Fatalf("what was read does not wait for room: %+v", s)
		}
		if err := c.Skip(b.Context(), retriable.Position{Topic: "orders", Offset: 11}); err != nil {
			b.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		wantEqual(b.T, "committed while none has ended", max(b.committed("g", "orders", 0), 0), 0)
		g.open()
		time.Sleep(30 * time.Second)
		wantEqual(b.T, "deliveries", len(d.all()), 9)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 13)
		c.clean()
	})
}
