package retriable_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// consume runs a consumer of a broker inside the process until so many records of orders are settled, and returns when it has stopped.
func consume(values string, n int64, h retriable.Handler, opts ...retriable.TopicOption) {
	brokers, done := broker("orders="+values, "invoices", "orders.dead")
	defer done()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	c, err := retriable.New("billing", retriable.Brokers(brokers...), retriable.Concurrency(1), retriable.Hooks(&settled{left: n, then: stop}),
		retriable.Topic("orders", h, append(opts, retriable.DeadLetterTopic("orders.dead"))...))
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// settled counts what has ended.
type settled struct {
	left int64
	then func()
}

func (s *settled) OnHandled(e retriable.Handled) {
	if (e.Verdict == retriable.VerdictDone || e.Verdict == retriable.VerdictDeadLetter) && atomic.AddInt64(&s.left, -1) == 0 {
		s.then()
	}
}

// With the order of a partition and no retry topic, nothing passes a record that fails; by ByKey nothing of its key would.
func ExampleBlockingRetries() {
	handler := func(_ context.Context, m *retriable.Message) error {
		if string(m.Value) == "tea" && m.Attempt < 3 {
			fmt.Printf("attempt %d at tea: no hot water\n", m.Attempt)
			return errors.New("no hot water")
		}
		fmt.Printf("attempt %d at %s: done\n", m.Attempt, m.Value)
		return nil
	}
	consume("coffee,tea,cake", 3, retriable.HandlerFunc(handler),
		retriable.Ordering(retriable.ByPartition),
		retriable.BlockingRetries(3, retriable.Constant(20*time.Millisecond)))
	// Output:
	// attempt 1 at coffee: done
	// attempt 1 at tea: no hot water
	// attempt 2 at tea: no hot water
	// attempt 3 at tea: done
	// attempt 1 at cake: done
}

// Middleware is as for http.Handler.
func ExampleWith() {
	named := func(name string) retriable.Middleware {
		return func(next retriable.Handler) retriable.Handler {
			return retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
				fmt.Println("into", name)
				defer fmt.Println("out of", name)
				return next.Handle(ctx, m)
			})
		}
	}
	consume("coffee", 1, retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
		fmt.Println(string(m.Value))
		return nil
	}), retriable.With(named("the first"), named("the second")))
	// Output:
	// into the first
	// into the second
	// coffee
	// out of the second
	// out of the first
}

// A line for each attempt.
func ExampleLogging() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "took" {
				return slog.Attr{}
			}
			return a
		},
	}))
	handler := retriable.Logging(logger)(retriable.HandlerFunc(func(context.Context, *retriable.Message) error {
		return retriable.Permanent(errors.New("card 4711 has expired"))
	}))
	_ = handler.Handle(context.Background(), retriable.NewMessage(&kgo.Record{Topic: "orders", Offset: 17}))
	// Output: level=INFO msg="retriable: an attempt" record=orders/0/17 attempt=1 verdict=dead-letter error=*errors.errorString
}

// An outbox: the order is done once its invoice is acked.
func ExampleMessage_Produce() {
	handler := func(ctx context.Context, m *retriable.Message) error {
		invoice := &kgo.Record{Topic: "invoices", Key: m.Key, Value: []byte("invoice for " + string(m.Value))}
		if err := m.Produce(ctx, invoice); err != nil {
			return err
		}
		fmt.Println(invoice.Topic, invoice.Partition, invoice.Offset)
		return nil
	}
	consume("coffee,tea", 2, retriable.HandlerFunc(handler))

	// In a test of the handler nothing is written.
	m := retriable.NewMessage(&kgo.Record{Topic: "orders", Value: []byte("cake")})
	err := handler(context.Background(), m)
	fmt.Println(err, string(m.Produced()[0].Value))
	// Output:
	// invoices 0 0
	// invoices 0 1
	// invoices 0 0
	// <nil> invoice for cake
}

// Five at once, then one each 20 ms.
func ExampleRateLimit() {
	began := time.Now()
	consume("1,2,3,4,5,6,7,8,9,10", 10, retriable.HandlerFunc(func(context.Context, *retriable.Message) error { return nil }),
		retriable.RateLimit(50, 5))
	fmt.Println(time.Since(began) >= 100*time.Millisecond)
	// Output: true
}

// Middleware of all topics: the handler has a second at most, by its own context.
func ExampleUse() {
	brokers, done := broker("orders=coffee", "parcels=cup")
	defer done()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	within := func(next retriable.Handler) retriable.Handler {
		return retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return next.Handle(ctx, m)
		})
	}
	handler := func(ctx context.Context, m *retriable.Message) error {
		_, hurries := ctx.Deadline()
		fmt.Println(m.Topic, hurries)
		return nil
	}
	c, err := retriable.New("billing", retriable.Brokers(brokers...), retriable.Concurrency(1), retriable.Hooks(&settled{left: 2, then: stop}),
		retriable.Use(within), retriable.Defaults(retriable.NoDeadLetters()),
		retriable.Topic("orders", retriable.HandlerFunc(handler)), retriable.Topic("parcels", retriable.HandlerFunc(handler)))
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// Unordered output:
	// orders true
	// parcels true
}

// Sixteen handlers at once, but two of this topic, which is all that its downstream takes.
func ExampleTopicConcurrency() {
	brokers, done := broker("orders=1,2,3,4,5,6,7,8")
	defer done()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var now, most atomic.Int64
	handler := func(context.Context, *retriable.Message) error {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(10 * time.Millisecond)
		return nil
	}
	c, err := retriable.New("billing", retriable.Brokers(brokers...), retriable.Concurrency(16), retriable.Hooks(&settled{left: 8, then: stop}),
		retriable.Topic("orders", retriable.HandlerFunc(handler), retriable.Ordering(retriable.Unordered),
			retriable.TopicConcurrency(2), retriable.NoDeadLetters()))
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Run(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("at once:", most.Load())
	// Output: at once: 2
}

// Nothing starts while the downstream is in maintenance.
func ExampleGate() {
	var maintenance atomic.Bool
	maintenance.Store(true)
	time.AfterFunc(50*time.Millisecond, func() {
		fmt.Println("open")
		maintenance.Store(false)
	})
	consume("coffee", 1, retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
		fmt.Printf("attempt %d at %s\n", m.Attempt, m.Value)
		return nil
	}), retriable.Gate(func() time.Duration {
		if maintenance.Load() {
			return 10 * time.Millisecond // ask again then
		}
		return 0
	}))
	// Output:
	// open
	// attempt 1 at coffee
}

// A topic is paused before the consumer runs, and resumed later.
func ExampleConsumer_Pause() {
	brokers, done := broker("orders=coffee")
	defer done()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	c, err := retriable.New("billing", retriable.Brokers(brokers...), retriable.Topic("orders", retriable.HandlerFunc(
		func(_ context.Context, m *retriable.Message) error {
			fmt.Println(string(m.Value))
			stop()
			return nil
		}), retriable.NoDeadLetters(), retriable.TopicConcurrency(4)))
	if err != nil {
		log.Fatal(err)
	}
	c.Pause("orders")
	time.AfterFunc(100*time.Millisecond, func() {
		fmt.Println("resumed")
		c.Resume("orders")
	})
	if err := c.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// resumed
	// coffee
}

// A batch of which one message failed: the others are done. A batch that fails as a whole comes again, one by one.
func ExampleBatchTopic() {
	brokers, done := broker("orders=coffee,tea,cake", "orders.dead")
	defer done()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	insert := func(_ context.Context, batch []*retriable.Message) error {
		failed := map[int]error{}
		for i, m := range batch {
			if string(m.Value) == "tea" {
				failed[i] = retriable.Permanent(errors.New("we have no tea"))
			}
		}
		fmt.Printf("%d messages, %d failed\n", len(batch), len(failed))
		if len(failed) > 0 {
			return &retriable.BatchError{Errs: failed}
		}
		return nil
	}
	c, err := retriable.New("billing", retriable.Brokers(brokers...), retriable.Hooks(&settled{left: 3, then: stop}),
		retriable.BatchTopic("orders", insert, retriable.BatchSize(3), retriable.BatchWait(time.Second), retriable.DeadLetterTopic("orders.dead")))
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Run(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Stats().Handled, "done,", c.Stats().DeadLettered, "dead letter")
	// Output:
	// 3 messages, 1 failed
	// 2 done, 1 dead letter
}

// Two consumers with groups of their own run four handlers at once, together.
func ExampleSharedWorkers() {
	workers := retriable.NewWorkers(4)
	handler := retriable.HandlerFunc(func(context.Context, *retriable.Message) error { return nil })
	for _, group := range []string{"billing", "shipping"} {
		c, err := retriable.New(group, retriable.Brokers("localhost:9092"), retriable.SharedWorkers(workers),
			retriable.Topic("orders", handler, retriable.DeadLetterTopic("orders.dead")))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(group, c.Stats().Workers)
	}
	// Output:
	// billing 4
	// shipping 4
}
