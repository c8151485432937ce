package kfake_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

var orderings = map[string]retriable.Order{"ByKey": retriable.ByKey, "ByPartition": retriable.ByPartition, "Unordered": retriable.Unordered}

// journal notes what handlers did, in turn.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// of returns the lines that begin so.
func (j *journal) of(prefix string) (found []string) {
	for _, l := range j.all() {
		if strings.HasPrefix(l, prefix) {
			found = append(found, l)
		}
	}
	return found
}

func TestBlockingRetriesKeepTheOrder(t *testing.T) {
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders orders.dead", func(b *bed) {
				var j journal
				h := handles(func(m *retriable.Message) error {
					j.note("%s %s#%d", m.Key, m.Value, m.Attempt)
					if m.Value[0] == '!' {
						return errors.New("never")
					}
					if n, _ := strconv.Atoi(string(m.Value)); m.Attempt <= n%3 {
						return errors.New("not yet")
					}
					return nil
				})
				r := b.begin("billing", retriable.Concurrency(8), retriable.Topic("orders", h, retriable.Ordering(order),
					retriable.DeadLetterTopic("orders.dead"), retriable.BlockingRetries(2, retriable.Constant(time.Second))))
				b.produce("orders", 0, "a=1", "b=3", "a=2", "b=6", "a=!", "a=3", "b=9", "a=5")
				b.until("all are settled", time.Minute, func() bool { s := r.Stats(); return s.Handled == 7 && s.DeadLettered == 1 })
				a := []string{"a 1#1", "a 1#2", "a 2#1", "a 2#2", "a 2#3", "a !#1", "a !#2", "a !#3", "a 3#1", "a 5#1", "a 5#2", "a 5#3"}
				bs := []string{"b 3#1", "b 6#1", "b 9#1"}
				switch order {
				case retriable.ByKey:
					wantEqual(t, "of a", j.of("a"), a)
					wantEqual(t, "of b", j.of("b"), bs)
					wantEqual(t, "b waits for nobody", slices.Index(j.all(), "b 9#1") < slices.Index(j.all(), "a 1#2"), true)
				case retriable.ByPartition:
					wantEqual(t, "all", j.all(), []string{
						"a 1#1", "a 1#2", "b 3#1", "a 2#1", "a 2#2", "a 2#3", "b 6#1", "a !#1", "a !#2", "a !#3", "a 3#1", "b 9#1", "a 5#1", "a 5#2", "a 5#3",
					})
				case retriable.Unordered:
					got := slices.Sorted(slices.Values(j.all()))
					wantEqual(t, "all", got, slices.Sorted(slices.Values(slices.Concat(a, bs))))
					wantEqual(t, "nobody waits", slices.Index(j.all(), "a 5#1") < slices.Index(j.all(), "a 1#2"), true)
				}
				r.clean()
				letters := b.read("orders.dead")
				wantEqual(t, "letters", len(letters), 1)
				n, _ := header(letters[0], "__dlq.errors.delivery.count")
				why, _ := header(letters[0], "__dlq.errors.message")
				wantEqual(t, "the letter", n+" "+why, "3 all 3 attempts failed")
				wantEqual(t, "committed", b.committed("billing", "orders", 0), 8)
			})
		})
	}
}

func TestABlockingRetryHoldsNoWorker(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var l ledger
		h := handles(func(m *retriable.Message) error {
			l.note(m)
			if m.Attempt == 1 && string(m.Key) == "slow" {
				return errors.New("not yet")
			}
			return nil
		})
		r := b.begin("billing", patient(), retriable.Concurrency(1), retriable.MaxPending(50), retriable.StuckAfter(10*time.Second), retriable.Topic("orders", h, none(),
			retriable.BlockingRetries(3, retriable.Constant(time.Minute))))
		b.produce("orders", 0, "slow=first")
		pass(time.Second)
		for i := range 49 { // as many as there is room for: they wait behind it
			b.produce("orders", 0, fmt.Sprintf("slow=%d", i))
		}
		b.produce("orders", 0, "quick=by")
		pass(time.Second)
		wantEqual(t, "handled while one waits", l.values(), []string{"first", "by"})
		s := r.partition("orders", 0)
		wantEqual(t, "held, pending, running", []int{s.Held, s.Pending, s.Running}, []int{1, 49, 0})
		wantEqual(t, "oldest", fmt.Sprint(s.Oldest.Reason, s.Oldest.Attempt), "held2")
		b.produce("orders", 0, "slow=more", "slow=still more")
		pass(20 * time.Second)
		if err := r.Health(b.Context()); err != nil {
			t.Errorf("Health: %v", err)
		}
		pass(time.Minute) // what waits behind it fills MaxPending and must not keep it from its turn
		first := l.of("first")
		if len(first) != 2 || first[1].attempt != 2 {
			t.Fatalf("first was delivered %v", first)
		}
		if late := first[1].at.Sub(first[0].at) - time.Minute; late < 0 || late > 2*time.Millisecond {
			t.Errorf("it was %v late", late)
		}
		// The rest of the key fails once too, one after the other.
		pass(60 * time.Minute)
		wantEqual(t, "deliveries", len(l.all()), 1+2*52)
		r.clean()
	})
}

func TestAStopDoesNotWaitForABlockingRetry(t *testing.T) {
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders", func(b *bed) {
				var l ledger
				h := handles(func(m *retriable.Message) error {
					l.note(m)
					if string(m.Value) == "x" && len(l.of("x")) < 3 {
						return errors.New("not yet")
					}
					return nil
				})
				options := []retriable.Option{retriable.Topic("orders", h, none(), retriable.Ordering(order), retriable.BlockingRetries(5, retriable.Constant(time.Minute)))}
				r := b.start("billing", options...)
				b.produce("orders", 0, "k=x", "k=y", "j=z")
				pass(90 * time.Second) // it waits for its third attempt
				began := time.Now()
				r.clean()
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("the stop took %v", took)
				}
				wantEqual(t, "attempts before", []int{l.of("x")[0].attempt, l.of("x")[1].attempt}, []int{1, 2})
				r = b.start("billing", options...)
				b.until("all are done", time.Minute, func() bool {
					return len(l.of("x")) == 3 && r.Stats().Running == 0 && r.partition("orders", 0).Pending == 0
				})
				r.clean()
				wantEqual(t, "committed", b.committed("billing", "orders", 0), 3)
				x := l.of("x")
				wantEqual(t, "its last attempt, and their number", []int{x[len(x)-1].attempt, len(x)}, []int{1, 3})
				wantEqual(t, "of y and z", []int{len(l.of("y")), len(l.of("z"))}, []int{1, 1})
			})
		})
	}
}

func TestBlockingRetriesThenTheRetryTopic(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var l ledger
		var said []string
		h := handles(func(m *retriable.Message) error {
			l.note(m)
			said = append(said, fmt.Sprintf("%d %s %s", m.Attempt, m.Source.Topic, m.LastError))
			return fmt.Errorf("no. %d", m.Attempt)
		})
		r := b.begin("billing", retriable.Topic("orders", h, retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"),
			retriable.MaxAttempts(5), retriable.Backoff(retriable.Constant(time.Minute)), retriable.BlockingRetries(2, retriable.Constant(100*time.Millisecond))))
		b.produce("orders", 0, "k=x")
		b.until("it is dead", time.Hour, func() bool { return r.Stats().DeadLettered == 1 })
		wantEqual(t, "attempts", said, []string{
			"1 orders ", "2 orders no. 1", "3 orders no. 2", "4 orders.retry no. 3", "5 orders.retry no. 4",
		})
		ds := l.all()
		wantEqual(t, "quick", ds[2].at.Sub(ds[0].at) < time.Second, true)
		wantEqual(t, "slow", ds[3].at.Sub(ds[2].at) >= time.Minute, true)
		r.clean()
		n, _ := header(b.read("orders.dead")[0], "__dlq.errors.delivery.count")
		wantEqual(t, "deliveries", n, "5")
	})
}

func TestARevokeDoesNotWaitForABlockingRetry(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		var l ledger
		fail := true
		h := handles(func(m *retriable.Message) error {
			l.note(m)
			if fail && string(m.Value) != "fine" {
				return errors.New("not yet")
			}
			return nil
		})
		options := []retriable.Option{retriable.Topic("orders", h, none(), retriable.BlockingRetries(9, retriable.Constant(time.Minute)))}
		one := b.start("billing", options...)
		b.send(&kgo.Record{Topic: "orders", Partition: 0, Key: []byte("a"), Value: []byte("p0")},
			&kgo.Record{Topic: "orders", Partition: 1, Key: []byte("b"), Value: []byte("p1")})
		pass(30 * time.Second)
		fail = false
		began := time.Now()
		two := b.start("billing", options...)
		b.until("both own one", time.Minute, func() bool { return len(one.Stats().Partitions) == 1 && len(two.Stats().Partitions) == 1 })
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("the rebalance took %v", took)
		}
		pass(2 * time.Minute)
		moved := two.Stats().Partitions[0].Partition
		stayed := 1 - moved
		wantEqual(t, "the one that moved", attempts(l.of(fmt.Sprintf("p%d", moved))), []int{1, 1})
		wantEqual(t, "the one that stayed", attempts(l.of(fmt.Sprintf("p%d", stayed))), []int{1, 2})
		one.clean()
		two.clean()
		wantEqual(t, "committed", []int64{b.committed("billing", "orders", 0), b.committed("billing", "orders", 1)}, []int64{1, 1})
	})
}

func attempts(ds []delivery) (ns []int) {
	for _, d := range ds {
		ns = append(ns, d.attempt)
	}
	return ns
}
