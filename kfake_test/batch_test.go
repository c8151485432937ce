package kfake_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// batches notes what a BatchFunc is given, and whether it kept the order.
type batches struct {
	*testing.T
	order retriable.Order

	mu      sync.Mutex
	sizes   []int
	seen    map[string]int // successes by value
	tries   map[string][]int
	inside  map[string]bool // keys, or the partition, of batches that run
	last    map[string]int64
	breadth int // most at once
	running int
}

func newBatches(t *testing.T, order retriable.Order) *batches {
	return &batches{T: t, order: order, seen: map[string]int{}, tries: map[string][]int{}, inside: map[string]bool{}, last: map[string]int64{}}
}

// lane is what runs one after the other.
func (b *batches) lane(m *retriable.Message) string {
	at := fmt.Sprintf("%s/%d", m.Source.Topic, m.Source.Partition)
	switch {
	case b.order == retriable.ByPartition:
		return at
	case b.order == retriable.ByKey && m.Key != nil:
		return at + string(m.Key)
	}
	return m.Source.String()
}

// enter checks a batch and returns its way out.
func (b *batches) enter(ms []*retriable.Message) (leave func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sizes = append(b.sizes, len(ms))
	b.running++
	b.breadth = max(b.breadth, b.running)
	mine := map[string]bool{}
	for _, m := range ms {
		lane := b.lane(m)
		if b.inside[lane] && !mine[lane] {
			b.Errorf("%v: its lane is in another batch that runs", m.Source)
		}
		b.inside[lane], mine[lane] = true, true
		if first := len(b.tries[string(m.Value)]) == 0; first && b.order != retriable.Unordered && m.Attempt == 1 {
			if last, ok := b.last[lane]; ok && m.Source.Offset <= last {
				b.Errorf("%v comes after %d", m.Source, last)
			}
			b.last[lane] = m.Source.Offset
		}
		b.tries[string(m.Value)] = append(b.tries[string(m.Value)], m.Attempt)
		if ms[0].Source.Topic != m.Source.Topic || ms[0].Source.Partition != m.Source.Partition {
			b.Errorf("%v and %v in one batch", ms[0].Source, m.Source)
		}
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.running--
		for lane := range mine {
			delete(b.inside, lane)
		}
	}
}

func (b *batches) done(ms ...*retriable.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range ms {
		b.seen[string(m.Value)]++
	}
}

func (b *batches) count() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.seen)
}

var errPoison = errors.New("poison")

// A hundred thousand records, a hundred in a batch, one in a thousand poison.
func TestAHundredThousandInBatches(t *testing.T) {
	for name, order := range orderings {
		for how, fn := range map[string]func(b *batches, ms []*retriable.Message) error{"told": tellPoison, "as a whole": failWhole} {
			t.Run(name+" "+how, func(t *testing.T) {
				n, partitions := 100_000, 4
				if testing.Short() || raceEnabled || order != retriable.ByKey || how != "told" {
					n = 10_000
				}
				bubble(t, "orders:4 orders.retry:2 orders.dead", func(b *bed) {
					bs := newBatches(t, order)
					b.floodBatches("orders", partitions, n)
					r := b.begin("billing", retriable.Concurrency(8), retriable.BatchTopic("orders", func(_ context.Context, ms []*retriable.Message) error {
						defer bs.enter(ms)()
						time.Sleep(5 * time.Millisecond)
						return fn(bs, ms)
					}, retriable.BatchSize(100), retriable.BatchWait(50*time.Millisecond), retriable.Ordering(order), retriable.RetryTopic("orders.retry"),
						retriable.DeadLetterTopic("orders.dead"), retriable.MaxAttempts(3), retriable.Backoff(retriable.Constant(time.Second))))
					b.until("all are settled", 10*time.Minute, func() bool { return bs.count() == n-n/1000 && int(r.Stats().DeadLettered) == n/1000 })
					s := r.Stats()
					r.clean()
					for p := range int32(partitions) {
						wantEqual(t, "committed", b.committed("billing", "orders", p), n/partitions)
					}
					for i := range n {
						v := strconv.Itoa(i)
						if bad := i%1000 == 999; bs.seen[v] != map[bool]int{false: 1, true: 0}[bad] {
							t.Fatalf("%s succeeded %d times", v, bs.seen[v])
						} else if bad && slices.Max(bs.tries[v]) != 3 {
							t.Errorf("%s: attempts %v", v, bs.tries[v])
						} else if !bad && slices.Max(bs.tries[v]) != 1 {
							t.Errorf("%s spent an attempt on another's failure: %v", v, bs.tries[v])
						}
					}
					for _, l := range b.read("orders.dead") {
						if c, _ := header(l, "__dlq.errors.delivery.count"); c != "3" {
							t.Errorf("a letter of %s attempts", c)
						}
					}
					wantEqual(t, "failed, handled", []uint64{s.Failed, s.Handled}, []int{3 * n / 1000, n - n/1000})
					if full := len(slices.DeleteFunc(slices.Clone(bs.sizes), func(k int) bool { return k < 100 })); full < n/100*8/10 {
						t.Errorf("only %d of %d batches are full", full, len(bs.sizes))
					}
					if order != retriable.ByPartition && bs.breadth < 5 {
						t.Errorf("%d batches at once", bs.breadth)
					}
				})
			})
		}
	}
}

func isPoison(m *retriable.Message) bool {
	i, _ := strconv.Atoi(string(m.Value))
	return i%1000 == 999
}

// tellPoison says which failed.
func tellPoison(b *batches, ms []*retriable.Message) error {
	errs := map[int]error{}
	for i, m := range ms {
		if isPoison(m) {
			errs[i] = errPoison
		} else {
			b.done(m)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("some failed: %w", &retriable.BatchError{Errs: errs})
	}
	return nil
}

// failWhole does not, as a transaction would: then nothing of the batch is done.
func failWhole(b *batches, ms []*retriable.Message) error {
	if slices.ContainsFunc(ms, isPoison) {
		if len(ms) > 1 {
			return retriable.Permanent(errPoison) // does not count
		}
		return errPoison
	}
	b.done(ms...)
	return nil
}

// floodBatches produces n records by 500 keys, each key on one partition, a third without a key.
func (b *bed) floodBatches(topic string, partitions, n int) {
	b.Helper()
	rs := make([]*kgo.Record, n)
	for i := range rs {
		rs[i] = &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: strconv.AppendInt(nil, int64(i), 10)}
		if i%3 > 0 {
			rs[i].Key = fmt.Appendf(nil, "k%d", i%500)
		}
	}
	b.send(rs...)
}

func TestABatchWaitsForCompany(t *testing.T) {
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders", func(b *bed) {
				var j journal
				began := time.Now()
				r := b.begin("billing", retriable.BatchTopic("orders", func(_ context.Context, ms []*retriable.Message) error {
					j.note("%d after %v", len(ms), time.Since(began).Round(100*time.Millisecond))
					return nil
				}, retriable.BatchSize(5), retriable.BatchWait(2*time.Second), retriable.Ordering(order), none()))
				began = time.Now()
				b.produce("orders", 0, "k=1")
				pass(500 * time.Millisecond)
				b.produce("orders", 0, "k=2", "j=3")
				pass(5 * time.Second)
				began = time.Now()
				b.produce("orders", 0, "k=1", "k=2", "k=3", "k=4", "k=5", "k=6", "j=7", "k=8", "j=9", "k=10", "k=11")
				pass(5 * time.Second)
				r.clean()
				want := []string{"3 after 2s", "5 after 0s", "5 after 0s", "1 after 2s"}
				if order == retriable.ByKey { // what waits behind its key does not count toward a full batch
					want[2] = "5 after 2s"
				}
				wantEqual(t, "batches", j.all(), want)
			})
		})
	}
}

// Workers that come at once do not share out what is enough for one batch, however long a gate makes one of them take.
func TestWorkersDoNotShareOutABatch(t *testing.T) {
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders", func(b *bed) {
				var j journal
				r := b.begin("billing", retriable.BatchTopic("orders", func(_ context.Context, ms []*retriable.Message) error {
					j.note("%d", len(ms))
					return nil
				}, retriable.BatchSize(5), retriable.BatchWait(time.Minute), retriable.Ordering(order), none(), retriable.Gate(func() time.Duration {
					time.Sleep(10 * time.Millisecond)
					return 0
				})))
				b.produce("orders", 0, "a=1", "b=2", "c=3", "d=4", "e=5", "f=6", "g=7")
				pass(30 * time.Second)
				wantEqual(t, "batches at once", j.all(), []string{"5"})
				pass(time.Minute)
				wantEqual(t, "batches", j.all(), []string{"5", "2"})
				r.clean()
			})
		})
	}
}

func TestVerdictsOfABatch(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var mu sync.Mutex
		tries := map[string][]int{}
		fn := func(_ context.Context, ms []*retriable.Message) error {
			mu.Lock()
			defer mu.Unlock()
			errs := map[int]error{}
			for i, m := range ms {
				v := string(m.Value)
				tries[v] = append(tries[v], m.Attempt)
				switch {
				case v == "permanent":
					errs[i] = retriable.Permanent(errPoison)
				case v == "drop":
					errs[i] = retriable.Drop(errPoison)
				case v == "postpone" && len(tries[v]) == 1:
					errs[i] = retriable.Postpone(time.Minute)
				case v == "retry" && m.Attempt == 1:
					errs[i] = errPoison
				}
			}
			return &retriable.BatchError{Errs: errs}
		}
		r := b.begin("billing", retriable.BatchTopic("orders", fn, retriable.BatchSize(10), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"),
			retriable.Filter(func(r *kgo.Record) bool { return string(r.Value) != "filtered" })))
		b.produce("orders", 0, "k=fine", "k=permanent", "k=drop", "k=filtered", "k=postpone", "k=retry", "k=fine too")
		pass(2 * time.Minute)
		s := r.Stats()
		wantEqual(t, "handled, failed, retried, dead, dropped, filtered", []uint64{s.Handled, s.Failed, s.Retried, s.DeadLettered, s.Dropped, s.Filtered}, []int{4, 3, 1, 1, 1, 1})
		wantEqual(t, "postponed", tries["postpone"], []int{1, 1})
		wantEqual(t, "retried", tries["retry"], []int{1, 2})
		r.clean()
		wantEqual(t, "committed", b.committed("billing", "orders", 0), 7)
	})
}

func TestWhatFailsAWholeBatchSpendsNoAttempt(t *testing.T) {
	panics := func(context.Context, []*retriable.Message) error { panic("gone") }
	ways := map[string]retriable.BatchFunc{
		"an error": func(context.Context, []*retriable.Message) error { return errPoison },
		"a drop":   func(context.Context, []*retriable.Message) error { return retriable.Drop(errPoison) },
		"a panic":  panics,
		"no such one": func(context.Context, []*retriable.Message) error {
			return &retriable.BatchError{Errs: map[int]error{7: errPoison}}
		},
		"the time": func(ctx context.Context, _ []*retriable.Message) error { <-ctx.Done(); return nil },
		"its messages": func(_ context.Context, ms []*retriable.Message) error {
			ms[0].Record.Value = []byte("changed")
			return errPoison
		},
	}
	for name, way := range ways {
		for kind, order := range orderings {
			t.Run(name+" "+kind, func(t *testing.T) {
				bubble(t, "orders", func(b *bed) {
					var j journal
					fn := func(ctx context.Context, ms []*retriable.Message) error {
						if len(ms) > 1 {
							j.note("%d", len(ms))
							return way(ctx, ms)
						}
						j.note("%s#%d", ms[0].Value, ms[0].Attempt)
						return nil
					}
					r := b.begin("billing", retriable.BatchTopic("orders", fn, none(), retriable.HandlerTimeout(time.Second), retriable.BatchSize(4), retriable.Ordering(order)))
					b.produce("orders", 0, "a=1", "a=2", "b=3", "a=4")
					b.until("all are handled", time.Minute, func() bool { return r.Stats().Handled == 4 })
					wantEqual(t, "failed, dropped", []uint64{r.Stats().Failed, r.Stats().Dropped}, []int{0, 0})
					r.clean()
					got := j.all()
					wantEqual(t, "first", got[0], "4")
					switch order {
					case retriable.ByKey:
						wantEqual(t, "of a", slices.DeleteFunc(slices.Clone(got[1:]), func(s string) bool { return s == "3#1" }), []string{"1#1", "2#1", "4#1"})
					case retriable.ByPartition:
						wantEqual(t, "all", got[1:], []string{"1#1", "2#1", "3#1", "4#1"})
					case retriable.Unordered:
					}
					slices.Sort(got[1:])
					wantEqual(t, "one by one", got[1:], []string{"1#1", "2#1", "3#1", "4#1"})
				})
			})
		}
	}
}

func TestBatchesThroughARebalanceAndAStop(t *testing.T) {
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders:4 orders.retry:2", func(b *bed) {
				const n = 4000
				bs := newBatches(t, order)
				options := []retriable.Option{retriable.BatchTopic("orders", func(_ context.Context, ms []*retriable.Message) error {
					defer bs.enter(ms)()
					time.Sleep(20 * time.Millisecond)
					return failWhole(bs, ms)
				}, retriable.BatchSize(50), retriable.BatchWait(100*time.Millisecond), retriable.Ordering(order), retriable.RetryTopic("orders.retry"), none(),
					retriable.MaxAttempts(2))}
				one := b.start("billing", options...)
				b.floodBatches("orders", 4, n/2)
				two := b.start("billing", options...)
				b.floodBatches("orders", 4, 0)
				pass(300 * time.Millisecond)
				one.clean()
				three := b.start("billing", options...)
				pass(100 * time.Millisecond)
				two.clean()
				b.until("all are done", time.Minute, func() bool {
					return bs.count() == n/2-n/2/1000 && three.Stats().Dropped+two.Stats().Dropped+one.Stats().Dropped == n/2/1000
				})
				three.clean()
				for v, k := range bs.seen {
					if k != 1 {
						t.Errorf("%s succeeded %d times", v, k)
					}
				}
			})
		})
	}
}

func TestMiddlewareSeesABatchAsOneCall(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var j journal
		skip := func(next retriable.Handler) retriable.Handler {
			return retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
				if string(m.Value) == "skip" {
					return nil // done, without asking the handler: of a batch it has seen the first alone
				}
				err := next.Handle(ctx, m)
				j.note("%s: %v", m.Value, err)
				return err
			})
		}
		r := b.begin("billing", retriable.BatchTopic("orders", func(_ context.Context, ms []*retriable.Message) error {
			j.note("%d", len(ms))
			return nil
		}, none(), retriable.With(skip), retriable.BatchSize(3)))
		b.produce("orders", 0, "1", "2", "3")
		b.until("they are handled", 10*time.Second, func() bool { return r.Stats().Handled == 3 })
		b.produce("orders", 0, "skip", "5", "6")
		b.until("they are handled", 10*time.Second, func() bool { return r.Stats().Handled == 6 })
		got := j.all()
		wantEqual(t, "as one", got[:2], []string{"3", "1: <nil>"})
		slices.Sort(got[2:])
		wantEqual(t, "one by one", got[2:], []string{"1", "1", "5: <nil>", "6: <nil>"})
		r.clean()
	})
}

func TestAbortAndPostponeAreForTheWholeBatch(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var j journal
		r := b.start("billing", retriable.BatchTopic("orders", func(_ context.Context, ms []*retriable.Message) error {
			j.note("%d", len(ms))
			if len(j.all()) == 1 {
				return retriable.Postpone(time.Minute)
			}
			return retriable.Abort(errPoison)
		}, none(), retriable.BatchSize(3)))
		b.produce("orders", 0, "k=1", "k=2", "j=3")
		<-r.done
		if !errors.Is(r.err, errPoison) {
			t.Errorf("Run: %v", r.err)
		}
		wantEqual(t, "calls", j.all(), []string{"3", "3"})
		if at := b.committed("billing", "orders", 0); at > 0 {
			t.Errorf("committed %d", at)
		}
	})
}
