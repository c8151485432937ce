package retriabletest_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

type order struct {
	ID    string `json:"id"`
	Cents int    `json:"cents"`
}

// bank is what the handler under test talks to: a stand-in, which charges an order once however often it is asked to.
type bank struct {
	mu      sync.Mutex
	asked   int
	charged map[string]int
}

func (b *bank) charge(_ context.Context, o order, _ *retriable.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	if o.Cents < 0 {
		return retriable.Permanent(errors.New("less than nothing"))
	}
	if b.charged == nil {
		b.charged = map[string]int{}
	}
	b.charged[o.ID] = o.Cents
	return nil
}

// want fails the test unless the bank was asked so many times, and charged that.
func (b *bank) want(t *testing.T, asked int, charged map[string]int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked != asked || !maps.Equal(b.charged, charged) {
		t.Errorf("asked %d times, charged %v; want %d times, %v", b.asked, b.charged, asked, charged)
	}
}

// docs/testing.md shows the next lines; TestTheDocumentationShowsThisTest compares them.
func TestAnOrderIsChargedOnceThoughTheServiceCrashes(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		var b bank
		k.Topic("orders", 1)
		service := k.Start("billing", retriable.Topic("orders", retriable.JSON(b.charge), retriable.DeadLetterTopic("orders.dead")))
		k.Produce("orders", "customer-7", `{"id": "17", "cents": 100}`)
		service.Await(retriabletest.Handled(1))
		service.Crash() // before that is committed, so that the order comes again
		service.Restart()
		service.Await(retriabletest.Committed()) // nothing is left to do
		b.want(t, 2, map[string]int{"17": 100})
	})
}

// t is the test's; the examples below are run by TestExamples.
var t *testing.T

func TestExamples(outer *testing.T) {
	for name, example := range map[string]func(){"Example": Example, "Await": ExampleMember_Await, "Fault": ExampleKafka_Fault} {
		outer.Run(name, func(inner *testing.T) {
			t = inner
			example()
		})
	}
}

// What cannot be paid is given up, and kept. (In a test file this is the body of a test function.)
func Example() { //nolint:testableexamples // TestExamples runs it
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		k.Topic("orders", 1)
		service := k.Start("billing", retriable.Topic("orders", retriable.JSON(new(bank).charge), retriable.DeadLetterTopic("orders.dead")))
		k.Produce("orders", "customer-7", `{"id": "17", "cents": -1}`)
		service.Await(retriabletest.DeadLettered(1), retriabletest.Committed())
		for _, letter := range k.DeadLetters("orders.dead") {
			if letter.Attempts != 1 || letter.Reason != "permanent failure" || letter.LastError != "less than nothing" {
				t.Errorf("%s: %+v", letter.Value, letter)
			}
		}
	})
}

// Time is the bubble's: hours of waiting are over in a moment.
func ExampleMember_Await() { //nolint:testableexamples // TestExamples runs it
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		began := time.Now()
		handler := func(_ context.Context, m *retriable.Message) error {
			if m.Attempt < 3 {
				return errors.New("not now")
			}
			return nil
		}
		k.Topic("orders", 1)
		service := k.Start("billing", retriable.Topic("orders", retriable.HandlerFunc(handler), retriable.RetryTopic("orders.retry"),
			retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(time.Hour))))
		k.Produce("orders", "", "coffee")
		service.Await(retriabletest.Handled(1))
		if took := time.Since(began).Round(time.Minute); took != 2*time.Hour {
			t.Errorf("the third attempt came after %v", took)
		}
	})
}

// A retry topic that takes no writes for a while costs time and nothing else.
func ExampleKafka_Fault() { //nolint:testableexamples // TestExamples runs it
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		handler := func(_ context.Context, m *retriable.Message) error {
			if m.Attempt == 1 {
				return errors.New("not now")
			}
			return nil
		}
		k.Topic("orders", 1)
		service := k.Start("billing", retriable.Topic("orders", retriable.HandlerFunc(handler), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
		fault := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: -1})
		k.Produce("orders", "", "coffee")
		service.Await(retriabletest.Failed(1))
		time.Sleep(time.Minute)
		if err := service.Health(t.Context()); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("Health: %v", err)
		}
		if at := k.Committed("billing", "orders", 0); at != 0 {
			t.Errorf("committed before the copy is written: %d", at)
		}
		fault.Remove()
		service.Await(retriabletest.Handled(1), retriabletest.Committed())
	})
}
