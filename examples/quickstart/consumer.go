package main

// What a program of your own would have: the consumer and its handler.

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

const (
	group       = "billing"
	maxAttempts = 3
)

func newConsumer(brokers []string, hook retriable.Hook) (*retriable.Consumer, error) {
	return retriable.New(group,
		retriable.Brokers(brokers...),
		retriable.Topic("orders", retriable.JSON(charge),
			retriable.RetryTopic("orders.retry"),
			retriable.DeadLetterTopic("orders.dead"),
			retriable.MaxAttempts(maxAttempts),
			retriable.Backoff(retriable.Exponential(time.Second, time.Minute)),
		),
		retriable.CreateTopics(3, 1), // where they are missing: 3 partitions, 1 replica
		retriable.Hooks(hook),
		// For a short show only: members notice a change of the group at their next heartbeat.
		retriable.Kafka(kgo.HeartbeatInterval(250*time.Millisecond)),
	)
}

// charge handles one order. Orders of one customer (their key) come one at a time and in order, others in parallel.
func charge(ctx context.Context, o order, m *retriable.Message) error {
	err := pay(ctx, o, m.Attempt)
	if errors.Is(err, errExpired) {
		return retriable.Permanent(err) // no further attempt can help: to the dead letters, now
	}
	return err // nil: done. Anything else: another attempt later, through the retry topic
}
