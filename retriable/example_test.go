package retriable_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// A service: it runs until it is told to stop, then it drains. The README shows the same lines.
func Example() { //nolint:testableexamples // it needs a Kafka, and runs until it is interrupted
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills
	c, err := retriable.New("billing", retriable.Brokers("localhost:9092"),
		retriable.Topic("orders", retriable.JSON(charge),
			retriable.RetryTopic("orders.retry"),
			retriable.DeadLetterTopic("orders.dead")))
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

type order struct {
	ID    string `json:"id"`
	Cents int    `json:"cents"`
}

func charge(ctx context.Context, o order, m *retriable.Message) error {
	if o.Cents < 0 {
		return retriable.Permanent(errNegative) // no further attempt can help: to the dead letters
	}
	return pay(ctx, o) // nil: done. Any other error: again later, through the retry topic
}

var errNegative = errors.New("a negative amount")

func pay(context.Context, order) error { return nil }

// The first attempt at "tea" fails. Its copy waits in the retry topic; what comes behind it does not wait.
func ExampleConsumer_Run() {
	brokers, done := broker("orders=coffee,tea,cake", "orders.retry", "orders.dead")
	defer done()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	handled := 0
	c, err := retriable.New("billing", retriable.Brokers(brokers...),
		retriable.Concurrency(1),
		retriable.Topic("orders", retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
			if string(m.Value) == "tea" && m.Attempt == 1 {
				fmt.Println("attempt 1 at tea: no hot water")
				return errors.New("no hot water")
			}
			fmt.Printf("attempt %d at %s: done\n", m.Attempt, m.Value)
			if handled++; handled == 3 {
				stop()
			}
			return nil
		}),
			retriable.RetryTopic("orders.retry"),
			retriable.DeadLetterTopic("orders.dead"),
			retriable.Backoff(retriable.Constant(200*time.Millisecond))))
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// attempt 1 at coffee: done
	// attempt 1 at tea: no hot water
	// attempt 1 at cake: done
	// attempt 2 at tea: done
}

// A handler is a function: call it with a message of the record it is to get.
func ExampleNewMessage() {
	m := retriable.NewMessage(&kgo.Record{Topic: "orders", Value: []byte(`{"id": 17}`)})
	err := retriable.JSON(charge).Handle(context.Background(), m)
	fmt.Println(m.Attempt, retriable.VerdictOf(err))
	// Output: 1 dead-letter
}

// New reports everything that is wrong with its options at once.
func ExampleNew() {
	_, err := retriable.New("billing",
		retriable.Topic("orders", retriable.JSON(charge), retriable.MaxAttempts(3)))
	fmt.Println(err)
	fmt.Println(errors.Is(err, retriable.ErrInvalidOption))
	// Output:
	// retriable: invalid option: Topic("orders"): MaxAttempts(3) without a RetryTopic
	// retriable: invalid option: Topic("orders"): neither DeadLetterTopic nor NoDeadLetters
	// retriable: invalid option: Brokers: none given
	// true
}

// A downstream that says when to come back knows better than a backoff.
func ExampleRetryAfter() {
	busy := errors.New("429 Too Many Requests")
	handler := retriable.HandlerFunc(func(context.Context, *retriable.Message) error {
		return retriable.RetryAfter(busy, 30*time.Second)
	})
	err := handler(context.Background(), retriable.NewMessage(&kgo.Record{}))
	fmt.Println(err, errors.Is(err, busy))
	// Output: 429 Too Many Requests true
}

// broker starts a Kafka broker inside the process, with topics of one partition: name or name=value,value.
func broker(topics ...string) (brokers []string, done func()) {
	opts := []kfake.Opt{kfake.NumBrokers(1)}
	var records []*kgo.Record
	for _, topic := range topics {
		name, values, _ := strings.Cut(topic, "=")
		opts = append(opts, kfake.SeedTopics(1, name))
		for value := range strings.SplitSeq(values, ",") {
			if value != "" {
				records = append(records, &kgo.Record{Topic: name, Key: []byte(value), Value: []byte(value)})
			}
		}
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		log.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		log.Fatal(err)
	}
	return cluster.ListenAddrs(), cluster.Close
}

// What the README shows as the service is the Example above, line by line.
func TestReadmeShowsTheExample(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(source), "func Example() {")
	_, body, _ = strings.Cut(body, "\n")
	body, _, _ = strings.Cut(body, "\n}\n")
	body = strings.ReplaceAll("\n"+body, "\n\t", "\n") + "\n"
	_, handler, _ := strings.Cut(string(source), "\nfunc charge(")
	handler, _, _ = strings.Cut(handler, "\n}\n")
	for _, code := range []string{body, "\nfunc charge(" + handler + "\n}\n"} {
		if !strings.Contains(string(readme), code) {
			t.Errorf("README.md does not hold this code:\n%s", code)
		}
	}
}

// A message of any size, to be handled tomorrow by consumers whose topic has Scheduled.
func ExampleProducer() { //nolint:testableexamples // it needs a Kafka
	p, err := retriable.NewProducer(retriable.Brokers("localhost:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	invoice := &kgo.Record{Topic: "invoices", Key: []byte("customer-7"), Value: make([]byte, 3<<20)}
	if err := p.Produce(context.Background(), invoice, retriable.DeliverAt(time.Now().Add(24*time.Hour))); err != nil {
		log.Print(err) // it is not known to be written
	}
}
