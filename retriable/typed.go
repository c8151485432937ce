package retriable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// JSON makes a Handler of a function that takes the record's value decoded from JSON, as encoding/json does it, beside the message itself.
// What cannot be decoded is dead-lettered at once, as it is: see [DecodeError]. A tombstone (a record without a value) is nil if T is
// a pointer type; for any other T it cannot be decoded. A nil fn gives a nil Handler, which New refuses.
func JSON[T any](fn func(ctx context.Context, body T, m *Message) error) Handler {
	return Typed(decodeJSON[T], fn)
}

// Typed makes a Handler of a function that takes the record decoded by decode: Protobuf, Avro, what a schema registry says. It is called once
// for each attempt and must only read the record. An error of it becomes a [DecodeError], which is Permanent unless the error holds a
// verdict of its own: a decoder that asks a registry says RetryAfter or Postpone when that does not answer. What decode makes of a
// tombstone (a nil value) is its own affair. If decode or fn is nil so is the Handler, which New refuses.
func Typed[T any](decode func(*kgo.Record) (T, error), fn func(ctx context.Context, body T, m *Message) error) Handler {
	if decode == nil || fn == nil {
		return nil
	}
	return HandlerFunc(func(ctx context.Context, m *Message) error {
		body, err := decode(m.Record)
		if err != nil {
			return undecodable[T](m, err)
		}
		return fn(ctx, body, m)
	})
}

// DecodeError says that a record's value is not what its handler takes. It is a Permanent failure: no further attempt can help, and the
// dead letter holds the bytes as they are. Its text, which the dead letter's headers repeat, names the types and, of JSON, the byte offset, and never
// what the value holds; Err does, so do not log that.
type DecodeError struct {
	Position Position // of the record as it was first produced
	Err      error    // what the decoder said
	into     string   // the type it was to become
}

var errTombstone = errors.New("retriable: the record has no value")

// Error implements error.
func (e *DecodeError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "retriable: %v cannot be decoded", e.Position)
	if e.into != "" {
		s.WriteString(" as " + e.into)
	}
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.Is(e.Err, errTombstone):
		s.WriteString(": it has no value (a tombstone)")
	case errors.As(e.Err, &syntax):
		fmt.Fprintf(&s, ": %T at byte %d", syntax, syntax.Offset)
	case errors.As(e.Err, &mismatch):
		fmt.Fprintf(&s, ": %T at byte %d, which is no %v", mismatch, mismatch.Offset, mismatch.Type)
	case e.Err != nil:
		fmt.Fprintf(&s, ": %T", e.Err)
	}
	return s.String()
}

// Unwrap returns what the decoder said.
func (e *DecodeError) Unwrap() error { return e.Err }

// undecodable is the verdict on a record that could not be decoded.
func undecodable[T any](m *Message, err error) error {
	d := &DecodeError{Position: Position{m.Topic, m.Partition, m.Offset}, Err: err, into: reflect.TypeFor[T]().String()}
	if verdictOf(err) != nil {
		return d // the decoder knows better
	}
	return Permanent(d)
}

func decodeJSON[T any](r *kgo.Record) (body T, err error) {
	if r.Value != nil {
		err = json.Unmarshal(r.Value, &body)
	} else if reflect.TypeFor[T]().Kind() != reflect.Pointer {
		err = errTombstone
	}
	return body, err
}
