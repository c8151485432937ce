package kfake_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// retry is a record of orders.retry that is due in a while.
func retry(value string, in time.Duration) *kgo.Record {
	r := &kgo.Record{Topic: "orders.retry", Headers: []kgo.RecordHeader{
		kv("retriable_kafka_attempt", be64(1)),
		kv("retriable_due", strconv.AppendInt(nil, time.Now().Add(in).UnixMilli(), 10)),
	}}
	if key, v, ok := strings.Cut(value, "="); ok {
		r.Key, value = []byte(key), v
	}
	r.Value = []byte(value)
	return r
}

// dues is a HookRetried that notes when each record is due.
type dues struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (d *dues) OnRetried(e retriable.Retried) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at == nil {
		d.at = map[string]time.Time{}
	}
	d.at[string(e.Message.Value)+strconv.Itoa(e.Attempt)] = e.Due
}

func (d *dues) of(value string, attempt int) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at[value+strconv.Itoa(attempt)]
}

func TestAttemptsStartOnTheMillisecondTheyAreDue(t *testing.T) { // I7
	const n = 400
	bubble(t, "orders:2 orders.retry:3", func(b *bed) {
		var l ledger
		var d dues
		wait := func(m *retriable.Message) time.Duration {
			seed, _ := strconv.Atoi(string(m.Value))
			return 100*time.Millisecond + time.Duration(rand.New(rand.NewPCG(uint64(seed), uint64(m.Attempt))).Int64N(int64(20*time.Minute)))
		}
		r := b.begin("g", patient(), retriable.Concurrency(64), retriable.Hooks(&d), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			if m.Attempt == 4 {
				return nil
			}
			return retriable.RetryAfter(errNo, wait(m))
		}), none(), retriable.RetryTopic("orders.retry")))
		b.produce("orders", 0, seq(n)[:n/2]...)
		b.produce("orders", 1, seq(n)[n/2:]...)
		time.Sleep(90 * time.Minute)
		ends := map[string]time.Time{}
		for _, m := range l.all() {
			if m.attempt > 1 {
				// In fake time nothing takes time, so what starts late at all starts late for a reason.
				due := d.of(m.value, m.attempt)
				if late := m.at.Sub(due); late != 0 {
					t.Fatalf("attempt %d of %s started %v after it was due", m.attempt, m.value, late)
				}
				m := &retriable.Message{Record: &kgo.Record{Value: []byte(m.value)}, Attempt: m.attempt - 1}
				if early := ends[string(m.Value)].Add(wait(m)).Sub(due); early > 0 || early <= -time.Millisecond {
					t.Fatalf("%s was due %v before its wait was over, rounded up", m.Value, early)
				}
			}
			ends[m.value] = m.at
		}
		wantEqual(t, "deliveries", len(l.all()), 4*n)
		r.clean()
	})
}

func TestAHeldRecordStopsNothing(t *testing.T) { // I7, I11
	bubble(t, "orders orders.retry", func(b *bed) {
		var l ledger
		r := b.begin("g", retriable.Concurrency(2), retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return nil }), none(), retriable.RetryTopic("orders.retry")))
		began := time.Now()
		b.send(retry("k=30", 30*time.Second), retry("k=20", 20*time.Second), retry("k=0", 0), retry("k=10", 10*time.Second), retry("40", 40*time.Second), retry("0", -time.Hour))
		b.produce("orders", 0, "k=base")
		b.send(retry("k=10", 10*time.Second))
		time.Sleep(time.Second)
		p := r.partition("orders.retry", 0)
		wantEqual(t, "held, pending, next due, watermark, paused", fmt.Sprint(p.Held, p.Pending, p.NextDue.Sub(began), p.Watermark, p.Paused), "5 0 10s 0 false")
		time.Sleep(time.Minute)
		wantEqual(t, "deliveries", len(l.all()), 8)
		for _, d := range l.all() {
			if d.source.Topic == "orders.retry" {
				wantEqual(t, "second of "+d.value, d.at.Sub(began).Round(time.Second), d.value+"s")
			}
		}
		p = r.partition("orders.retry", 0)
		wantEqual(t, "held, watermark, next due", fmt.Sprint(p.Held, p.Watermark, p.NextDue.IsZero()), "0 7 true")
		r.clean()
	})
}

func TestWhatComesDueTogetherRunsByDueTimeAndOffset(t *testing.T) { // I6
	for _, order := range []retriable.Order{retriable.ByKey, retriable.ByPartition} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			bubble(t, "orders orders.retry", func(b *bed) {
				var l ledger
				first := b.gate()
				r := b.begin("g", retriable.Topic("orders", handles(func(m *retriable.Message) error {
					l.note(m)
					if string(m.Value) == "first" {
						first.wait()
					}
					return nil
				}), none(), retriable.RetryTopic("orders.retry"), retriable.Ordering(order)))
				b.send(retry("k=first", 0))
				b.send(retry("k=e", 50*time.Second), retry("k=b", 30*time.Second), retry("k=c", 30*time.Second), retry("k=a", 10*time.Second))
				b.send(retry("k=d", 30*time.Second))
				time.Sleep(time.Minute)
				if order == retriable.ByKey { // a record that needed no hold is before them, and another key is not concerned
					b.send(retry("j=other", 0))
					time.Sleep(time.Second)
					wantEqual(t, "deliveries", l.values(), []string{"first", "other"})
				}
				first.open()
				time.Sleep(time.Second)
				got := slices.DeleteFunc(l.values(), func(v string) bool { return v == "other" })
				wantEqual(t, "deliveries", got, []string{"first", "a", "b", "c", "d", "e"})
				r.clean()
			})
		})
	}
}

func TestTheSameDueTimeMeansOffsetOrder(t *testing.T) { // I6
	const n = 500
	bubble(t, "orders orders.retry", func(b *bed) {
		var s starts
		var c crowd
		r := b.begin("g", retriable.Topic("orders", handles(func(m *retriable.Message) error {
			lane := string(m.Key)
			defer c.enter(lane)()
			s.note(lane, m.Source.Offset)
			time.Sleep(rand.N(3 * time.Millisecond))
			return nil
		}), none(), retriable.RetryTopic("orders.retry")))
		var rs []*kgo.Record
		for i := range n {
			rs = append(rs, retry(fmt.Sprintf("k%d=%d", i%13, i), time.Minute))
		}
		for len(rs) > 0 { // in several fetches
			b.send(rs[:100]...)
			rs = rs[100:]
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Minute)
		s.check(t, n)
		for lane, most := range c.most {
			wantEqual(t, "of "+lane+" at once", most, 1)
		}
		r.clean()
	})
}

func TestBeyondMaxHeldARetryPartitionIsReadLaterAndNothingIsLost(t *testing.T) { // I10
	const n, most = 300, 20
	bubble(t, "orders orders.retry:2", func(b *bed) {
		var l ledger
		r := b.begin("g", patient(), retriable.MaxHeld(most), retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return nil }), none(), retriable.RetryTopic("orders.retry")))
		began := time.Now()
		wait := func(i int) time.Duration { return time.Minute + time.Duration(i*37%n)*time.Second }
		var rs []*kgo.Record
		for i := range n {
			rs = append(rs, retry(strconv.Itoa(i), wait(i)))
		}
		other := retry("other", 2*time.Minute)
		other.Partition = 1
		b.send(append(rs, other)...)
		paused, resumed := 0, 0
		was := false
		for time.Since(began) < time.Hour {
			time.Sleep(time.Second)
			p := r.partition("orders.retry", 0)
			if p.Held > most {
				t.Fatalf("%d records held, want at most %d", p.Held, most)
			}
			if p.Paused && !was {
				paused++
			}
			if !p.Paused && was {
				resumed++
			}
			was = p.Paused
		}
		if paused == 0 || resumed != paused {
			t.Errorf("paused %d times, resumed %d times", paused, resumed)
		}
		l.once(t, n+1)
		late := 0
		for _, d := range l.all() {
			want := 2 * time.Minute
			if i, err := strconv.Atoi(d.value); err == nil {
				want = wait(i)
			}
			switch lateness := d.at.Sub(began) - want; {
			case lateness < 0:
				t.Errorf("%s started %v early", d.value, -lateness)
			case lateness > 0:
				late++
				if d.value == "other" {
					t.Errorf("another partition's record started %v late", lateness)
				}
			}
		}
		if late == 0 {
			t.Error("none was late: the story does not reach the bound")
		}
		wantEqual(t, "committed", fmt.Sprint(b.committed("g", "orders.retry", 0), b.committed("g", "orders.retry", 1)), fmt.Sprint(n, 1))
		r.clean()
	})
}

// Records that have come due by the time they are read are not held: the bound does not concern them.
func TestMaxHeldDoesNotBoundWhatIsDue(t *testing.T) {
	bubble(t, "orders orders.retry", func(b *bed) {
		var l ledger
		r := b.begin("g", retriable.MaxHeld(1), retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return nil }), none(), retriable.RetryTopic("orders.retry")))
		var rs []*kgo.Record
		for i := range 200 {
			rs = append(rs, retry(strconv.Itoa(i), -time.Second))
		}
		b.send(rs...)
		time.Sleep(3 * time.Second)
		l.once(t, 200)
		r.clean()
	})
}

func TestHeldRecordsSurviveARestart(t *testing.T) { // I1, I7, I8
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var l ledger
		topic := all(handles(func(m *retriable.Message) error {
			l.note(m)
			if m.Attempt < 3 {
				return errNo
			}
			return nil
		}))
		r := b.begin("g", patient(), topic)
		b.produce("orders", 0, "k=a", "k=b")
		time.Sleep(20 * time.Minute)
		r.clean()
		wantEqual(t, "committed", fmt.Sprint(b.committed("g", "orders", 0), b.committed("g", "orders.retry", 0)), "2 0")
		time.Sleep(20 * time.Minute)
		r = b.begin("g", patient(), topic)
		wantEqual(t, "after the restart", len(l.all()), 2)
		time.Sleep(19*time.Minute + 59*time.Second)
		wantEqual(t, "a second before they are due", len(l.all()), 2)
		time.Sleep(2 * time.Second)
		r.clean()
		time.Sleep(2 * time.Hour) // due meanwhile: they run as soon as somebody is there
		r = b.begin("g", patient(), topic)
		up := time.Now()
		time.Sleep(10 * time.Minute)
		for _, v := range []string{"a", "b"} {
			ds := l.of(v)
			if len(ds) != 3 {
				t.Fatalf("%s: %d deliveries, want 3", v, len(ds))
			}
			for i, d := range ds {
				wantEqual(t, "attempt", d.attempt, i+1)
			}
			wantEqual(t, "the second", ds[1].at.Sub(ds[0].at), time.Hour)
			if ds[2].at.Before(up) || ds[2].at.Sub(up) > time.Second {
				t.Errorf("the third came %v after the start", ds[2].at.Sub(up))
			}
		}
		wantEqual(t, "committed", b.committed("g", "orders.retry", 0), 4)
		r.clean()
	})
}

// What is held is a copy: what the batch around it does is no matter, and what handlers get is what was produced.
func TestAHeldRecordIsWhatWasProduced(t *testing.T) {
	bubble(t, "orders orders.retry", func(b *bed) {
		var seen messages
		r := b.begin("g", retriable.Topic("orders", handles(func(m *retriable.Message) error { seen.keep(m); return nil }), none(), retriable.RetryTopic("orders.retry")))
		var rs []*kgo.Record
		for i := range 100 {
			c := retry(fmt.Sprintf("k%d=%s", i, strings.Repeat(strconv.Itoa(i), 50)), time.Duration(i%3)*time.Minute)
			if i%2 == 0 {
				c.Headers = append(c.Headers, users...)
			}
			if i%10 == 0 {
				c.Key = nil
			}
			rs = append(rs, c)
		}
		b.send(rs...)
		time.Sleep(5 * time.Minute)
		for i := range 100 {
			ms := seen.of(strings.Repeat(strconv.Itoa(i), 50))
			if len(ms) != 1 {
				t.Fatalf("%d: %d deliveries", i, len(ms))
			}
			key, hs := fmt.Sprintf("k%d", i), []string(nil)
			if i%2 == 0 {
				hs = usersPrinted
			}
			if i%10 == 0 {
				key = ""
				if ms[0].Key != nil {
					t.Errorf("%d: a null key became %q", i, ms[0].Key)
				}
			}
			wantEqual(t, "key, headers", fmt.Sprint(string(ms[0].Key), headers(ms[0].Record)), fmt.Sprint(key, hs))
		}
		r.clean()
	})
}

// Postponed and held records share the heap; a stop with both loses neither, and a handler's context error is no verdict.
func TestAStopWithRecordsThatWaitIsClean(t *testing.T) { // I5
	bubble(t, "orders orders.retry", func(b *bed) {
		var l ledger
		topic := retriable.Topic("orders", retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			l.note(m)
			switch {
			case string(m.Value) == "postponed" && len(l.of("postponed")) == 1:
				return retriable.Postpone(time.Hour)
			case m.Attempt == 1 && string(m.Value) == "failed":
				return errors.New("no")
			}
			return ctx.Err()
		}), none(), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(time.Hour)))
		r := b.begin("g", patient(), topic)
		b.produce("orders", 0, "postponed", "failed", "done")
		time.Sleep(time.Minute)
		began := time.Now()
		r.clean()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the stop took %v although nothing ran", took)
		}
		r = b.begin("g", patient(), topic)
		time.Sleep(2 * time.Hour)
		got := map[string]int{}
		for _, v := range l.values() {
			got[v]++
		}
		wantEqual(t, "deliveries", got, map[string]int{"postponed": 2, "failed": 2, "done": 1})
		wantEqual(t, "committed", fmt.Sprint(b.committed("g", "orders", 0), b.committed("g", "orders.retry", 0)), "3 1")
		r.clean()
	})
}
