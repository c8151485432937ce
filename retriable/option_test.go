package retriable_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/retriable-kafka/retriable-go/retriable"
)

func TestOptionsAreAppliedAsIfGivenOneByOne(t *testing.T) {
	done := retriable.HandlerFunc(func(context.Context, *retriable.Message) error { return nil })
	both := retriable.Options(
		retriable.Brokers("localhost:9092"),
		retriable.Options(retriable.Concurrency(3), retriable.Topic("orders", done, retriable.NoDeadLetters())),
	)
	c, err := retriable.New("billing", retriable.Concurrency(7), both)
	if err != nil {
		t.Fatal(err)
	}
	if n := c.Stats().Workers; n != 3 {
		t.Errorf("%d workers, want those of the later option, 3", n)
	}
	_, err = retriable.New("billing", both, retriable.Options(nil, retriable.MaxPending(-1)))
	if !errors.Is(err, retriable.ErrInvalidOption) || !strings.Contains(err.Error(), "MaxPending(-1)") || !strings.Contains(err.Error(), "nil") {
		t.Errorf("New: %v", err)
	}
}
