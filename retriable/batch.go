package retriable

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// BatchFunc handles several messages of one topic-partition at once. nil: all are done. A [*BatchError] says which failed, each with a verdict
// of its own; the rest is done. Abort and Postpone are for all of them. Any other error, Permanent included, a panic and a timeout spend no
// attempt: each message is then handed over once more, in a batch of one, and what is returned for that is the verdict on it. Nothing
// is dead-lettered for what was wrong with another.
//
// Batches respect the order (see [Ordering]): by key, messages of one key come in turn within a batch, and never in two that run at once;
// by partition a batch is a stretch of the log, and the only one that runs.
type BatchFunc func(ctx context.Context, batch []*Message) error

// BatchError is what a BatchFunc returns when some of its messages failed: Errs holds, by index in the batch, what a [Handler] would have returned
// for that message. The others are done. An index that is none counts as any other error: nothing is believed done then.
type BatchError struct{ Errs map[int]error }

// Error implements error.
func (e *BatchError) Error() string {
	return fmt.Sprintf("retriable: %d messages of a batch failed", len(e.failed()))
}

// Unwrap returns the errors of the messages that failed, in the batch's order.
func (e *BatchError) Unwrap() (errs []error) {
	for _, i := range e.failed() {
		errs = append(errs, e.Errs[i])
	}
	return errs
}

func (e *BatchError) failed() (is []int) {
	for i, err := range e.Errs {
		if err != nil {
			is = append(is, i)
		}
	}
	slices.Sort(is)
	return is
}

// BatchTopic consumes the named topic, and its retry topic, in batches. All topic options are good for it but BlockingRetries, for a batch has no
// place to wait in. Middleware sees a batch as one call, with its first message.
func BatchTopic(name string, fn BatchFunc, opts ...TopicOption) Option {
	return option(func(c *config) {
		t := &topicConfig{name: name, batch: true}
		if fn != nil {
			t.handler = batchHandler{fn}
		}
		t.apply(opts)
		c.topics = append(c.topics, t)
	})
}

// BatchSize bounds the messages of one batch of a [BatchTopic]. The default is 100.
func BatchSize(n int) TopicOption { return topicOption(func(t *topicConfig) { t.size = set(n) }) }

// BatchWait is how long a batch of a [BatchTopic] that is not full waits for more, counted from when its first message was read. The default is
// 100 ms; with 0 a batch is what there is. A batch is of one partition: with many partitions and few records they stay small. What waits by key
// behind a batch that runs joins the next, and does not count toward its being full.
func BatchWait(d time.Duration) TopicOption {
	return topicOption(func(t *topicConfig) { t.wait = set(d) })
}

// batching is how a BatchTopic is consumed.
type batching struct {
	size int
	wait time.Duration
}

// batchHandler is what the middleware of a BatchTopic wraps. The batch travels in the context.
type batchHandler struct{ fn BatchFunc }

type batchKey struct{}

// batch is one call of a BatchFunc.
type batchCall struct {
	p        *partition
	attempts []*attempt
	messages []*Message
	ctx      context.Context
	timedOut bool
	lost     []error // of each message, what it produced and nobody waited for
	called   bool    // with all of them, not only decided by a middleware that saw the first
}

// Handle implements Handler.
func (h batchHandler) Handle(ctx context.Context, m *Message) error {
	b, ok := ctx.Value(batchKey{}).(*batchCall)
	if !ok {
		return verdictOfOne(h.fn(ctx, []*Message{m})) // a middleware made a context of its own, or one record at a time runs (see crash.go)
	}
	b.called = true
	messages := slices.Clone(b.messages)
	messages[0] = m // as the middleware made it
	return h.fn(ctx, messages)
}

// Batch returns the messages of the batch that a middleware's handler is called with, in the batch's order, nil where it is called with one message
// of a [Topic]. They are those that the BatchFunc gets.
func Batch(ctx context.Context) []*Message {
	b, ok := ctx.Value(batchKey{}).(*batchCall)
	if !ok {
		return nil
	}
	return slices.Clone(b.messages)
}
