package retriable

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Handler handles the messages of a topic. Handle is called from many goroutines at once, but never twice at once for
// one record, nor for two records of one lane (see [Ordering]). What it returns is the verdict on the record: nil, it is
// done; one of [Permanent], [RetryAfter], [Postpone], [Drop] and [Abort], wherever in the error's tree; any other error,
// the attempt failed. A panic is a failed attempt.
//
// The context keeps the values of Run's context, and of the record's own if a kgo hook gave it one. It is not cancelled when
// Run's is: it ends when the record's time is over, and context.Cause then says which: [ErrTimeout], [ErrRevoked] or [ErrShutdown].
// After that, what Handle returns no longer counts as success. A handler that ignores its context keeps its worker and its
// lane until it returns.
type Handler interface {
	Handle(ctx context.Context, m *Message) error
}

// HandlerFunc makes a Handler of a function.
type HandlerFunc func(ctx context.Context, m *Message) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, m *Message) error { return f(ctx, m) }

// Middleware wraps a Handler, to see or change what goes in and what comes out. What it changes in the message is for the
// handlers inside; copies written to retry and dead-letter topics are always of the record as it was first produced.
type Middleware func(Handler) Handler

// Message is one delivery of a record. It is read-only. Unless its topic has [Recycle] it may be kept after Handle returns, which keeps the
// fetched batch that it came from in memory: clone what is to be kept for long.
type Message struct {
	// Record is the record as it was first produced: same key, value, headers, topic, partition, offset and timestamp
	// on every attempt. Where the origin is not known (a Python member wrote the copy), Topic is the base topic and
	// Partition and Offset are -1.
	*kgo.Record

	// Attempt counts the deliveries of the record, this one included: 1 on the first.
	Attempt int

	// Source is where this attempt was read from: the base topic, or its retry topic.
	Source Position

	// FirstFailure is when the first attempt failed; zero on the first attempt.
	FirstFailure time.Time

	// LastError is why the attempt before this one failed, at most 1 KiB of it; empty on the first attempt.
	LastError string

	out *outlet
	at  int64 // the offset that is tracked: of a joined message not that of Source
}

// NewMessage makes the message of a first delivery of r, for tests of handlers.
func NewMessage(r *kgo.Record) *Message {
	return &Message{
		Record: r, Attempt: 1, Source: Position{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset},
		out: &outlet{mu: new(sync.Mutex)},
	}
}

// Position names one record.
type Position struct {
	Topic     string
	Partition int32
	Offset    int64
}

// String gives topic/partition/offset, the form in which logs and errors name records.
func (p Position) String() string { return fmt.Sprintf("%s/%d/%d", p.Topic, p.Partition, p.Offset) }

// LogValue implements slog.LogValuer.
func (p Position) LogValue() slog.Value { return slog.StringValue(p.String()) }
