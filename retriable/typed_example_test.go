package retriable_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// A handler of JSON. What is no JSON, or not of that type, never gets to it.
func ExampleJSON() {
	handler := retriable.JSON(func(_ context.Context, o order, m *retriable.Message) error {
		fmt.Printf("attempt %d: order %s, %d cents\n", m.Attempt, o.ID, o.Cents)
		return nil
	})
	for _, value := range []string{`{"id":"17","cents":250}`, `{"id":"18","cents":"a lot"}`, `cents`} {
		err := handler.Handle(context.Background(), retriable.NewMessage(&kgo.Record{Topic: "orders", Value: []byte(value)}))
		if err != nil {
			fmt.Println(retriable.VerdictOf(err), err)
		}
	}
	// Output:
	// attempt 1: order 17, 250 cents
	// dead-letter retriable: orders/0/0 cannot be decoded as retriable_test.order: *json.UnmarshalTypeError at byte 26, which is no int
	// dead-letter retriable: orders/0/0 cannot be decoded as retriable_test.order: *json.SyntaxError at byte 1
}

// With a pointer type a tombstone, a record without a value, is nil.
func ExampleJSON_tombstone() {
	handler := retriable.JSON(func(_ context.Context, o *order, m *retriable.Message) error {
		if o == nil {
			fmt.Printf("order %s is deleted\n", m.Key)
		}
		return nil
	})
	err := handler.Handle(context.Background(), retriable.NewMessage(&kgo.Record{Topic: "orders", Key: []byte("17")}))
	fmt.Println(err)
	// Output:
	// order 17 is deleted
	// <nil>
}

// Any other encoding is a function from the record.
func ExampleTyped() {
	cents := func(r *kgo.Record) (uint32, error) {
		if len(r.Value) != 4 {
			return 0, errors.New("not four bytes")
		}
		return binary.BigEndian.Uint32(r.Value), nil
	}
	handler := retriable.Typed(cents, func(_ context.Context, n uint32, _ *retriable.Message) error {
		fmt.Println(n, "cents")
		return nil
	})
	for _, value := range [][]byte{{0, 0, 1, 2}, {7}} {
		err := handler.Handle(context.Background(), retriable.NewMessage(&kgo.Record{Topic: "orders", Value: value}))
		var unreadable *retriable.DecodeError
		fmt.Println(retriable.VerdictOf(err), errors.As(err, &unreadable))
	}
	// Output:
	// 258 cents
	// done false
	// dead-letter true
}
