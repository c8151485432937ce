// Package migration shows a service that moves from the Python library retriable-kafka-client member by member: the consumer below does in the same
// group, on the same topics, what this one did:
//
//	config = ConsumerConfig(
//	    kafka_hosts=["kafka:9093"], username="billing", password=password, group_id="billing", target=charge,
//	    filter_function=lambda r: (b"eu" in dict(r.headers() or []).get("region", b"")),
//	    topics=[ConsumeTopicConfig(base_topic="orders", retry_topic="orders.retry", retries=5, fallback_delay=15.0)],
//	)
//	consume_topics([config], max_workers=16)
//
// docs/migrating.md has every option, what changes, and the way back.
package migration

import (
	"bytes"
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Order is what the Python handler was given as a dict.
type Order struct {
	ID    string `json:"id"`
	Cents int    `json:"cents"`
}

// Options are those that the Python configuration stands for. Credentials come as Kafka(kgo.DialTLS(), kgo.SASL(…)).
func Options(charge func(ctx context.Context, o Order, m *retriable.Message) error) []retriable.Option {
	return []retriable.Option{
		retriable.Concurrency(16), // max_concurrency
		// Members of both kinds agree on how partitions are shared out: both take cooperative-sticky by themselves. Brokers cannot share them
		// out (KIP-848) until the last Python member is gone.
		retriable.Topic("orders", retriable.JSON(charge),
			retriable.RetryTopic("orders.retry"),
			retriable.MaxAttempts(6), // retries=5, and the first
			retriable.Backoff(retriable.Constant(15*time.Second)),
			retriable.Filter(european),
			retriable.Ordering(retriable.Unordered),  // as there; leave it out for order by key
			retriable.DeadLetterTopic("orders.dead"), // new: there, what is exhausted is gone
		),
	}
}

// european is the filter_function. It is asked once, of the base topic's record: a retry copy that a Python member wrote has no headers any more.
func european(r *kgo.Record) bool {
	for _, h := range r.Headers {
		if h.Key == "region" {
			return bytes.Contains(h.Value, []byte("eu"))
		}
	}
	return false
}
