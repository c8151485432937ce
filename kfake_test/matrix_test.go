package kfake_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// tally is what the handlers of a matrix story did, over all members.
type tally struct {
	mu   sync.Mutex
	done map[int]int
	last map[string]int // by key, of what succeeded
	back int            // successes out of the order of their key
}

// handle fails every seventh order once, and otherwise enters it.
func (y *tally) handle(o order, m *retriable.Message) error {
	time.Sleep(2 * time.Millisecond)
	if o.ID%7 == 0 && m.Attempt == 1 {
		return errors.New("not yet")
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.done[o.ID]++
	if last, ok := y.last[string(m.Key)]; ok && o.ID < last {
		y.back++
	}
	y.last[string(m.Key)] = o.ID
	return nil
}

func (y *tally) count() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return len(y.done)
}

// Each feature with each order, through a rebalance, another, and a clean stop: every record succeeds exactly once (I1, I5).
func TestEveryFeatureInEveryOrderThroughRebalancesAndAStop(t *testing.T) {
	type feature struct {
		opts  []retriable.TopicOption
		plain bool // no retry topic
		batch bool
		out   bool // produces
		pause bool
		share bool
	}
	pass := func(next retriable.Handler) retriable.Handler { return next }
	features := map[string]feature{
		"JSON":                           {},
		"With":                           {opts: []retriable.TopicOption{retriable.With(pass, retriable.Logging(quiet()))}},
		"BlockingRetries":                {opts: []retriable.TopicOption{retriable.BlockingRetries(3, retriable.Constant(20*time.Millisecond))}},
		"BlockingRetries alone":          {plain: true, opts: []retriable.TopicOption{retriable.BlockingRetries(3, retriable.Constant(20*time.Millisecond))}},
		"RateLimit":                      {opts: []retriable.TopicOption{retriable.RateLimit(300, 3)}},
		"Gate":                           {opts: []retriable.TopicOption{retriable.Gate(everyThird())}},
		"TopicConcurrency":               {opts: []retriable.TopicOption{retriable.TopicConcurrency(2)}},
		"BatchTopic":                     {batch: true, opts: []retriable.TopicOption{retriable.BatchSize(7), retriable.BatchWait(30 * time.Millisecond)}},
		"BatchTopic with all limits":     {batch: true, opts: []retriable.TopicOption{retriable.BatchSize(7), retriable.RateLimit(500, 9), retriable.TopicConcurrency(2)}},
		"Produce":                        {out: true},
		"Produce in place":               {out: true, plain: true, opts: []retriable.TopicOption{retriable.BlockingRetries(3, retriable.Constant(20*time.Millisecond))}},
		"Pause":                          {pause: true},
		"Pause of batches":               {pause: true, batch: true},
		"Recycle":                        {opts: []retriable.TopicOption{retriable.Recycle()}},
		"Recycle in place":               {out: true, opts: []retriable.TopicOption{retriable.Recycle(), retriable.BlockingRetries(3, retriable.Constant(20*time.Millisecond))}},
		"SharedWorkers":                  {share: true},
		"SharedWorkers, batches, in all": {share: true, batch: true, pause: true, opts: []retriable.TopicOption{retriable.RateLimit(900, 50)}},
	}
	for name, f := range features {
		for kind, ordering := range orderings {
			t.Run(name+" "+kind, func(t *testing.T) {
				bubble(t, "orders:4 orders.retry:2 invoices", func(b *bed) {
					const n = 600
					y := &tally{done: map[int]int{}, last: map[string]int{}}
					shared := retriable.NewWorkers(6)
					opts := append([]retriable.TopicOption{retriable.Ordering(ordering), none()}, f.opts...)
					if !f.plain {
						opts = append(opts, retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(300*time.Millisecond)))
					}
					one := func(ctx context.Context, o order, m *retriable.Message) error {
						if err := y.handle(o, m); err != nil || !f.out {
							return err
						}
						return m.Produce(ctx, &kgo.Record{Topic: "invoices", Key: m.Key, Value: m.Value})
					}
					start := func() *running {
						topic := retriable.Topic("orders", retriable.JSON(one), opts...)
						if f.batch {
							topic = retriable.BatchTopic("orders", inBatches(one), opts...)
						}
						all := []retriable.Option{topic, retriable.Concurrency(6)}
						if f.share {
							all[1] = retriable.SharedWorkers(shared)
						}
						return b.start("billing", all...)
					}
					var rs []*kgo.Record
					for i := range n {
						value, _ := json.Marshal(order{ID: i})
						rs = append(rs, &kgo.Record{Topic: "orders", Partition: int32(i % 40 % 4), Key: fmt.Appendf(nil, "k%d", i%40), Value: value})
					}
					b.send(rs[:n/2]...)
					first := start()
					b.until("it has begun", time.Minute, func() bool { return y.count() > 20 })
					second := start()
					if f.pause {
						first.Pause("orders")
						time.Sleep(500 * time.Millisecond)
						first.Resume()
						second.Pause()
					}
					b.send(rs[n/2:]...)
					b.until("both own some", time.Minute, func() bool { return len(first.Stats().Partitions) > 0 && len(second.Stats().Partitions) > 0 })
					time.Sleep(100 * time.Millisecond)
					first.clean()
					second.Resume("orders")
					b.until("all are done", 5*time.Minute, func() bool { return y.count() == n })
					second.clean()
					for i := range n {
						if y.done[i] != 1 {
							t.Errorf("%d succeeded %d times", i, y.done[i])
						}
					}
					if f.plain && ordering != retriable.Unordered && y.back > 0 {
						t.Errorf("%d successes out of the order of their key", y.back)
					}
					if f.out {
						wantEqual(t, "invoices", len(b.read("invoices")), n)
					}
					for p := range int32(4) {
						wantEqual(t, "committed", b.committed("billing", "orders", p), n/4)
					}
				})
			})
		}
	}
}

// everyThird is a gate that bars a third of the starts.
func everyThird() func() time.Duration {
	var mu sync.Mutex
	n := 0
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if n++; n%3 == 0 {
			return 3 * time.Millisecond
		}
		return 0
	}
}

// inBatches makes a BatchFunc of a handler of orders.
func inBatches(one func(context.Context, order, *retriable.Message) error) retriable.BatchFunc {
	return func(ctx context.Context, ms []*retriable.Message) error {
		errs := map[int]error{}
		for i, m := range ms {
			var o order
			if err := json.Unmarshal(m.Value, &o); err != nil {
				errs[i] = retriable.Permanent(err)
			} else if err := one(ctx, o, m); err != nil {
				errs[i] = err
			}
		}
		if len(errs) > 0 {
			return &retriable.BatchError{Errs: errs}
		}
		return nil
	}
}
