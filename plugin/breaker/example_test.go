package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/plugin/breaker"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// The third failure in a row opens the breaker. From then on nothing of the topic starts but a probe every second.
func Example() {
	b, err := breaker.New(breaker.ConsecutiveFailures(3))
	if err != nil {
		log.Fatal(err)
	}
	charge := retriable.HandlerFunc(func(context.Context, *retriable.Message) error { return errors.New("connection refused") })
	_, err = retriable.New("billing", retriable.Brokers("localhost:9092"),
		retriable.Topic("orders", charge,
			retriable.RetryTopic("orders.retry"),
			retriable.DeadLetterTopic("orders.dead"),
			retriable.With(b.Middleware), retriable.Gate(b.Gate))) // both
	if err != nil {
		log.Fatal(err)
	}

	// What the consumer would do with failing orders:
	for range 3 {
		err := b.Middleware(charge).Handle(context.Background(), retriable.NewMessage(&kgo.Record{Topic: "orders"}))
		fmt.Println(b.State(), retriable.VerdictOf(err))
	}
	// Output:
	// closed retry
	// closed retry
	// open postpone
}
