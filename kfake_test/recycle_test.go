package kfake_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// watched checks that a message is that of its offset, whoever shows it, and notes where its record lies.
type watched struct {
	mu      sync.Mutex
	wrong   []string
	structs map[uintptr]int
	told    map[string]int // by hook
}

func (w *watched) look(who string, m *retriable.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	want := fmt.Sprintf("k%d:%d", m.Offset%7, m.Offset)
	if string(m.Value) != want || string(m.Key) != fmt.Sprintf("k%d", m.Offset%7) || m.Topic != "orders" || len(m.Headers) != 1 || string(m.Headers[0].Value) != want {
		w.wrong = append(w.wrong, fmt.Sprintf("%s: %s/%d holds %q=%q, headers %v", who, m.Topic, m.Offset, m.Key, m.Value, m.Headers))
	}
	if who == "handler" && m.Source.Topic == "orders" {
		w.structs[uintptr(unsafe.Pointer(m.Record))]++ // as a number: it keeps nothing
	}
	w.told[who]++ // at the end: a message that is emptied panics above
}

// numbered makes n records that say at which offset they are to lie.
func numbered(from, n int) (rs []*kgo.Record) {
	for i := from; i < from+n; i++ {
		v := fmt.Appendf(nil, "k%d:%d", i%7, i)
		rs = append(rs, &kgo.Record{Topic: "orders", Key: v[:2], Value: v, Headers: []kgo.RecordHeader{{Key: "h", Value: v}}})
	}
	return rs
}

// Hooks take long now and then: whatever is used again too soon has been by then.
func (w *watched) OnHandled(e retriable.Handled) {
	if e.Message.Offset%60 == 59 {
		time.Sleep(3 * time.Second)
	}
	w.look("handled", e.Message)
}

func (w *watched) OnRetried(e retriable.Retried) {
	time.Sleep(10 * time.Second)
	w.look("retried", e.Message)
}

func (w *watched) OnDeadLettered(e retriable.DeadLettered) {
	time.Sleep(10 * time.Second)
	w.look("dead-lettered", e.Message)
}

// What is used again is never another record's too soon: not while a handler or a hook looks, and not while a copy is on its way.
func TestWhatIsRecycledIsDone(t *testing.T) {
	const n, round = 6_000, 300
	for _, hooked := range []bool{false, true} {
		for order, name := range map[retriable.Order]string{retriable.ByKey: "by key", retriable.ByPartition: "by partition", retriable.Unordered: "unordered"} {
			t.Run(fmt.Sprintf("%s, hooks %t", name, hooked), func(t *testing.T) {
				bubble(t, allTopics, func(b *bed) {
					w := &watched{structs: map[uintptr]int{}, told: map[string]int{}}
					var l ledger
					opts := []retriable.Option{retriable.Concurrency(4), retriable.Topic("orders", handles(func(m *retriable.Message) error {
						w.look("handler", m)
						l.note(m)
						time.Sleep(time.Duration(m.Offset%3) * time.Millisecond)
						runtime.Gosched()
						w.look("handler", m)
						switch {
						case m.Offset%3000 == 500:
							return retriable.Permanent(errors.New("never"))
						case m.Offset%3000 == 250 && m.Attempt == 1:
							return errors.New("not yet")
						}
						return nil
					}), retriable.Ordering(order), retriable.Recycle(), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"),
						retriable.Backoff(retriable.Constant(time.Minute)))}
					if hooked {
						opts = append(opts, retriable.Hooks(w))
					}
					r := b.begin("g", opts...)
					for i := 0; i < n; i += round {
						b.send(numbered(i, round)...)
						time.Sleep(30 * time.Second)
					}
					time.Sleep(5 * time.Minute)
					if len(w.wrong) > 0 {
						t.Errorf("%d times another record was seen, as %s", len(w.wrong), w.wrong[0])
					}
					wantEqual(t, "deliveries", len(l.all()), n+n/3000)
					wantEqual(t, "dead letters", len(b.read("orders.dead")), n/3000)
					for _, d := range b.read("orders.dead") {
						if !slices.Contains([]string{"500", "3500"}, string(d.Value[3:])) {
							t.Errorf("%q is dead-lettered", d.Value)
						}
					}
					wantEqual(t, "committed", b.committed("g", "orders", 0), n)
					if len(w.structs) > n/2 {
						t.Errorf("%d records lay in %d places: nothing is used again", n, len(w.structs))
					}
					if hooked {
						wantEqual(t, "hooks", fmt.Sprint(w.told["handled"], w.told["retried"], w.told["dead-lettered"]), fmt.Sprint(n+n/3000, n/3000, n/3000))
					}
					r.clean()
				})
			})
		}
	}
}

// What waits in memory is copied out before its batch is used again.
func TestWhatWaitsIsNotRecycled(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		w := &watched{structs: map[uintptr]int{}, told: map[string]int{}}
		put := map[int64]bool{}
		var mu sync.Mutex
		r := b.begin("g", patient(), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			w.look("handler", m)
			mu.Lock()
			defer mu.Unlock()
			if m.Offset%50 == 7 && !put[m.Offset] {
				put[m.Offset] = true
				return retriable.Postpone(time.Hour)
			}
			return nil
		}), retriable.Recycle(), retriable.NoDeadLetters()))
		for i := range 10 {
			b.send(numbered(i*100, 100)...)
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Hour)
		if len(w.wrong) > 0 {
			t.Errorf("%d times another record was seen, as %s", len(w.wrong), w.wrong[0])
		}
		wantEqual(t, "handled", r.Stats().Handled, 1000)
		wantEqual(t, "committed", b.committed("g", "orders", 0), 1000)
		r.clean()
	})
}

// A handler that puts another record in the place of its own breaks the promise it made, and nothing else.
func TestARecordThatIsOverwrittenIsLeftAlone(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var l ledger
		var last kgo.Record
		r := b.begin("g", retriable.Concurrency(1), retriable.Topic("orders", retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
			l.note(m)
			m.Record.Context, last = last.Context, *m.Record
			return nil
		}), retriable.Ordering(retriable.ByPartition), retriable.Recycle(), none()))
		for range 5 {
			b.produce("orders", 0, seq(40)...)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		wantEqual(t, "deliveries", len(l.all()), 200)
		r.clean()
	})
}
