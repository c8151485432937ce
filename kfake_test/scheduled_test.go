package kfake_test

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// due is a header that asks for a delivery at t.
func due(t time.Time) kgo.RecordHeader {
	return kv("retriable_due", strconv.AppendInt(nil, t.UnixMilli(), 10))
}

func TestScheduledRecordsAreHandledWhenTheirProducerWants(t *testing.T) { // I7
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var l ledger
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error { l.note(m); return nil }), retriable.Scheduled(time.Hour)))
		p := b.producer()
		defer p.Close()
		began := time.Now()
		send := func(key, value string, opts ...retriable.SendOption) {
			if err := p.Produce(b.Context(), &kgo.Record{Topic: "orders", Key: []byte(key), Value: []byte(value)}, opts...); err != nil {
				b.Fatal(err)
			}
		}
		at := func(d time.Duration) retriable.SendOption { return retriable.DeliverAt(began.Add(d)) }
		send("k", "late", at(30*time.Minute+300*time.Millisecond))
		send("k", "soon", at(10*time.Minute))
		send("k", "now")
		send("k", "past", at(-time.Hour))
		send("k", "beyond", at(5*time.Hour)) // cut to the limit
		pass(time.Minute)
		s := r.partition("orders", 0)
		if s.Held != 3 || s.Watermark != 0 || s.Lag != 5 || s.Oldest.Reason != retriable.ReasonHeld || !s.NextDue.Equal(began.Add(10*time.Minute)) {
			b.Errorf("Stats: %+v", s)
		}
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 0)
		// Another member takes over: what is done is not done again, what waits waits on.
		r.clean()
		r = b.begin("g", patient(), all(handles(func(m *retriable.Message) error { l.note(m); return nil }), retriable.Scheduled(time.Hour)))
		pass(2 * time.Hour)
		l.once(b.T, 5)
		for value, after := range map[string]time.Duration{"late": 30*time.Minute + 300*time.Millisecond, "soon": 10 * time.Minute, "beyond": time.Hour} {
			d := l.of(value)[0]
			if got := d.at.Sub(began); got < after || got > after+time.Second || d.attempt != 1 {
				b.Errorf("%s: after %v, attempt %d, want %v", value, got, d.attempt, after)
			}
		}
		wantEqual(b.T, "those that are not held", l.values()[:2], []string{"now", "past"})
		wantEqual(b.T, "skipped, thanks to the map", r.Stats().Skipped, 2)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 5)
		r.clean()
	})
}

func TestWithoutScheduledADueTimeOnABaseTopicIsIgnored(t *testing.T) { // I12
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var l ledger
		r := b.begin("g", all(handles(func(m *retriable.Message) error { l.note(m); return nil })))
		b.send(&kgo.Record{Topic: "orders", Value: []byte("0"), Headers: []kgo.RecordHeader{due(time.Now().Add(time.Hour)), kv("retriable_kafka_timestamp", be64(1<<40))}})
		pass(5 * time.Second)
		l.once(b.T, 1)
		wantEqual(b.T, "warnings", len(b.log.lines("level=WARN")), 0)
		r.clean()
	})
}

func TestHostileDueTimesWaitNoLongerThanTheLimit(t *testing.T) { // I12
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var l ledger
		r := b.begin("g", all(handles(func(m *retriable.Message) error { l.note(m); return nil }), retriable.Scheduled(time.Minute)))
		began := time.Now()
		for i, c := range []struct {
			h    kgo.RecordHeader
			time time.Time
		}{
			{kv("retriable_kafka_timestamp", be64(1<<64-1)), began},
			{kv("retriable_kafka_timestamp", be64(1<<63)), began.Add(100 * time.Hour)}, // from a clock that is ahead
			{kv("retriable_due", []byte("99999999999999999999")), began},
			{kv("retriable_due", []byte("soon")), began},
			{kv("retriable_kafka_timestamp", []byte("1700000000")), began},
			{kv("retriable_kafka_timestamp", nil), began},
			{due(began.Add(time.Hour)), began.Add(-30 * time.Second)}, // from its own time, however late it is read
			{due(began.Add(time.Hour)), began.Add(-time.Hour)},
		} {
			b.send(&kgo.Record{Topic: "orders", Value: fmt.Append(nil, i), Headers: []kgo.RecordHeader{c.h}, Timestamp: c.time})
		}
		pass(5 * time.Second)
		wantEqual(b.T, "at once", len(l.all()), 4)
		pass(27 * time.Second)
		wantEqual(b.T, "after half a minute", len(l.all()), 5)
		pass(32 * time.Second)
		l.once(b.T, 8)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 8)
		wantEqual(b.T, "warnings", len(b.log.lines("level=WARN", "malformed")), 1)
		r.clean()
	})
}

func TestALargeRecordIsScheduledAsAWhole(t *testing.T) {
	bubble(t, "orders.retry orders.dead", func(b *bed) {
		b.small("orders", 3, "1000")
		var l ledger
		var asked atomic.Int32
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error {
			l.note(m)
			if m.Attempt == 1 {
				return errNo
			}
			return nil
		}), retriable.Scheduled(time.Hour), retriable.Filter(func(*kgo.Record) bool { asked.Add(1); return true })))
		p := b.producer()
		defer p.Close()
		began := time.Now()
		rec := &kgo.Record{Topic: "orders", Value: text(20_000)}
		if err := p.Produce(b.Context(), rec, retriable.DeliverAt(began.Add(10*time.Minute))); err != nil {
			b.Fatal(err)
		}
		pass(9 * time.Minute)
		s := r.partition("orders", rec.Partition)
		if s.Held != 1 || s.Oldest.Reason != retriable.ReasonHeld || s.Oldest.Offset != 0 || asked.Load() != 0 {
			b.Errorf("Stats: %+v", s)
		}
		pass(2 * time.Hour)
		ds := l.of(string(rec.Value))
		if len(ds) != 2 || ds[0].at.Before(began.Add(10*time.Minute)) || ds[0].at.After(began.Add(10*time.Minute+time.Second)) || asked.Load() != 1 {
			b.Errorf("deliveries: %d, asked %d times", len(ds), asked.Load())
		}
		wantEqual(b.T, "committed", b.committed("g", "orders", rec.Partition), b.cluster.PartitionInfo("orders", rec.Partition).HighWatermark)
		r.clean()
	})
}

func TestNewWarnsOfScheduledWithoutARetryTopic(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		for i, opts := range [][]retriable.TopicOption{{none(), retriable.Scheduled(time.Hour)}, {none(), retriable.Scheduled(time.Hour), retriable.RetryTopic("r")}, {none()}} {
			before := len(b.log.lines("level=WARN", "Scheduled"))
			if _, err := retriable.New("g", b.options(retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), opts...))...); err != nil {
				b.Fatal(err)
			}
			if got := len(b.log.lines("level=WARN", "Scheduled")) - before; (got == 1) != (i == 0) {
				b.Errorf("case %d: %d warnings", i, got)
			}
		}
	})
}

func TestScheduledRecordsMoveToTheRetryTopicWhereTheyWouldPinTheirPartition(t *testing.T) {
	bubble(t, "orders.retry orders.dead", func(b *bed) {
		b.small("orders", 1, "1000")
		var seen messages
		asked := map[string]int{}
		var mu sync.Mutex
		r := b.begin("g", patient(), retriable.MaxHeld(4), all(handles(func(m *retriable.Message) error { seen.keep(m); return nil }),
			retriable.Scheduled(24*time.Hour), retriable.Filter(func(r *kgo.Record) bool {
				mu.Lock()
				defer mu.Unlock()
				asked[string(r.Value)]++
				return true
			})))
		p := b.producer()
		defer p.Close()
		at := time.Now().Add(10 * time.Hour)
		values := []string{"0", string(text(5000)), "2", "3", "4", "5"}
		for _, v := range values {
			if err := p.Produce(b.Context(), &kgo.Record{Topic: "orders", Key: []byte("k"), Value: []byte(v)}, retriable.DeliverAt(at)); err != nil {
				b.Fatal(err)
			}
		}
		pass(9 * time.Hour)
		wantEqual(b.T, "handled too early", len(seen.all()), 0)
		if n := r.Stats().Rewritten; n < 3 {
			b.Errorf("%d were written again", n)
		}
		if c := b.committed("g", "orders", 0); c == 0 {
			b.Error("the base topic's offset is pinned")
		}
		pass(3 * time.Hour)
		for _, v := range values {
			ms := seen.of(v)
			if len(ms) != 1 || ms[0].Attempt != 1 || ms[0].Topic != "orders" || asked[v] != 1 {
				b.Errorf("%.5q: %d deliveries, the filter was asked %d times", v, len(ms), asked[v])
			}
		}
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), b.cluster.PartitionInfo("orders", 0).HighWatermark)
		wantEqual(b.T, "dead letters", len(b.read("orders.dead")), 0)
		r.clean()
	})
}
