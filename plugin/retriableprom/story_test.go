package retriableprom_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/retriable-kafka/retriable-go/plugin/retriableprom"
	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

var errDown = errors.New("connection refused by 10.1.2.3, card 4111")

// story has everything happen once that is measured, and calls then in the end, with a record in its handler.
func story(t *testing.T, then func(reg *prometheus.Registry)) {
	t.Helper()
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		metrics, err := retriableprom.New("billing")
		if err != nil {
			t.Fatal(err)
		}
		reg := prometheus.NewPedanticRegistry()
		reg.MustRegister(metrics)
		k.Topic("orders", 1)
		release := make(chan struct{})
		handler := retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
			switch string(m.Value) {
			case "fails once":
				if m.Attempt == 1 {
					time.Sleep(2 * time.Second)
					return errDown
				}
			case "fails":
				return errDown
			case "drop":
				return retriable.Drop(errDown)
			case "waits":
				return retriable.Postpone(time.Hour)
			case "runs":
				<-release
			}
			return nil
		})
		start := func() *retriabletest.Member {
			m := k.Start("billing", retriable.Hooks(metrics), retriable.MaxPending(5), retriable.StuckAfter(30*time.Second),
				retriable.Topic("orders", handler, retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"),
					retriable.MaxAttempts(2), retriable.Backoff(retriable.Constant(time.Minute))))
			metrics.Observe(m.Consumer)
			return m
		}
		m := start()
		fault := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: 1})
		k.Produce("orders", "", "waits", "fails once", "fails", "drop", "1", "2", "3", "4", "5", "6", "7", "8")
		m.Await(retriabletest.Handled(9), retriabletest.DeadLettered(1), retriabletest.Dropped(1))
		fault.Remove()
		m.Pause("orders")
		m.Resume("orders")
		time.Sleep(2 * time.Second)
		if err := m.Stop(); err != nil { // only what waits is delivered again
			t.Fatal(err)
		}
		start()
		k.Produce("orders", "", "runs")
		time.Sleep(2 * time.Minute)
		then(reg)
		close(release)
	})
}
