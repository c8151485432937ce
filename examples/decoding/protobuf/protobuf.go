// Package protobuf shows handlers of Protobuf messages: one function, which works for every generated type. Copy it.
package protobuf

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Handler makes a handler of a function that takes a Protobuf message. T is the generated struct and is found from the function's
// parameter. A tombstone is nil; what cannot be decoded becomes a dead letter as it is.
func Handler[T any, P interface {
	*T
	proto.Message
}](fn func(ctx context.Context, body P, m *retriable.Message) error) retriable.Handler {
	return retriable.Typed(func(r *kgo.Record) (P, error) {
		if r.Value == nil {
			return nil, nil
		}
		body := P(new(T))
		return body, proto.Unmarshal(r.Value, body)
	}, fn)
}
