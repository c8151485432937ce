package retriable

import (
	"errors"
	"fmt"
	"time"
)

// Sentinels. ErrInvalidOption is what every complaint of [New] wraps. The others are the causes with which the context of
// a handler ends, found with [context.Cause].
var (
	// ErrInvalidOption is wrapped by each of the errors that New joins, one for each option that is wrong.
	ErrInvalidOption = errors.New("retriable: invalid option")

	// ErrTimeout ends the context of a handler that ran for longer than its topic's HandlerTimeout. What the handler
	// then returns is one failed attempt, whatever it is; only Permanent and Drop are still honoured.
	ErrTimeout = errors.New("retriable: the handler's timeout passed")

	// ErrRevoked ends the context of a handler whose partition was given to another member and whose drain is over.
	// Its record counts as unresolved: whoever owns the partition now delivers it again.
	ErrRevoked = errors.New("retriable: the partition was taken away")

	// ErrShutdown ends the context of a handler that did not end within the drain of a stop. Its record counts as
	// unresolved and is delivered again after the next start.
	ErrShutdown = errors.New("retriable: the consumer is stopping")
)

// PanicError is what a handler's panic becomes: an ordinary failed attempt. Its text is that of the panic's value; the
// log names only the value's type and the stack's functions, for a value may hold a payload. A handler that ends its goroutine
// with runtime.Goexit gives one whose Value is nil.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // as debug.Stack gives it, of the goroutine that panicked
}

// Error implements error.
func (e *PanicError) Error() string {
	if e.Value == nil {
		return "retriable: the handler ended its goroutine"
	}
	return fmt.Sprintf("retriable: the handler panicked: %v", e.Value)
}

// Unwrap returns the panic's value if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// AbandonedError is returned by Run when records had to be given up unresolved because their handlers, or the writes of
// their copies, did not end within the drain. They are delivered again, after the next start or by another member.
type AbandonedError struct {
	Records []Position // where they were read from
	Running int        // handlers that still run: they ignore their context
}

// Error implements error.
func (e *AbandonedError) Error() string {
	s := fmt.Sprintf("retriable: %d records abandoned unresolved at the end of the drain", len(e.Records))
	if len(e.Records) > 0 {
		s += fmt.Sprintf(", the first at %v", e.Records[0])
	}
	if e.Running > 0 {
		s += fmt.Sprintf("; %d of their handlers ignore their context and still run", e.Running)
	}
	return s
}

// CommitError says that the offsets of one partition could not be committed: what was finished there since the last
// accepted commit is delivered again.
type CommitError struct {
	Topic     string
	Partition int32
	Offset    int64 // what was to be committed
	Err       error // the broker's answer
	mark      bool  // all but its clean mark had been committed before
}

// Error implements error.
func (e *CommitError) Error() string {
	return fmt.Sprintf("retriable: committing %s/%d at offset %d: %v", e.Topic, e.Partition, e.Offset, e.Err)
}

// Unwrap returns the broker's answer.
func (e *CommitError) Unwrap() error { return e.Err }

// TopicError says what is wrong with a topic, as found by Run at its start or by Health.
type TopicError struct {
	Topic string
	Err   error
}

// Error implements error.
func (e *TopicError) Error() string { return fmt.Sprintf("retriable: topic %s: %v", e.Topic, e.Err) }

// Unwrap returns what is wrong with the topic.
func (e *TopicError) Unwrap() error { return e.Err }

// BrokerError says that no broker gave an answer: none is reachable, or the credentials are wrong.
type BrokerError struct {
	Brokers []string
	Err     error
}

// Error implements error.
func (e *BrokerError) Error() string {
	return fmt.Sprintf("retriable: no answer from the brokers %v: %v", e.Brokers, e.Err)
}

// Unwrap returns why there was no answer.
func (e *BrokerError) Unwrap() error { return e.Err }

// GroupError is a reason of Health, and of Run at its start: something is wrong with the consumer group.
type GroupError struct {
	Group string
	Err   error
}

// Error implements error.
func (e *GroupError) Error() string { return fmt.Sprintf("retriable: group %s: %v", e.Group, e.Err) }

// Unwrap returns what is wrong with the group.
func (e *GroupError) Unwrap() error { return e.Err }

// StuckError is a reason of Health: a partition's watermark has not moved for longer than StuckAfter although records wait.
type StuckError struct {
	Topic     string
	Partition int32
	Oldest    Oldest // the record that holds it
}

// Error implements error.
func (e *StuckError) Error() string {
	return fmt.Sprintf("retriable: %s/%d is stuck at offset %d: %s since %s (attempt %d)",
		e.Topic, e.Partition, e.Oldest.Offset, e.Oldest.Reason, e.Oldest.Since.Format(time.RFC3339), e.Oldest.Attempt)
}

// ProduceError is a reason of Health, and of HookProduceFailed: writes to a retry or dead-letter topic are refused. Their
// records stay pending and the writes are tried again for as long as it takes.
type ProduceError struct {
	Topic string
	Since time.Time // of the first refusal
	Err   error     // the last answer
}

// Error implements error.
func (e *ProduceError) Error() string {
	return fmt.Sprintf("retriable: writes to %s fail since %s, their records stay pending: %v", e.Topic, e.Since.Format(time.RFC3339), e.Err)
}

// Unwrap returns the last answer.
func (e *ProduceError) Unwrap() error { return e.Err }

// FetchError is a reason of Health: a partition cannot be read on from Offset. Where the cause is a batch past the bound
// (kgo.MaxDecompressBatchBytes), Skip with Past gives the batch up and goes on behind it.
type FetchError struct {
	Topic     string
	Partition int32
	Offset    int64    // where reading stands
	Past      Position // what to pass to Skip, if that is the way out; else its Topic is empty
	Err       error
}

// Error implements error.
func (e *FetchError) Error() string {
	s := fmt.Sprintf("retriable: %s/%d cannot be fetched from offset %d: %v", e.Topic, e.Partition, e.Offset, e.Err)
	if e.Past.Topic != "" {
		s += fmt.Sprintf("; raise kgo.MaxDecompressBatchBytes, or give it up with Skip past %v", e.Past)
	}
	return s
}

// Unwrap returns why it cannot be fetched.
func (e *FetchError) Unwrap() error { return e.Err }

// verdict is an error by which a handler says what becomes of its record. Its text and its tree are those of the error
// it wraps.
type verdict struct {
	kind  kind
	err   error
	after time.Duration
}

// kind orders the verdicts: where an error holds several the lowest wins.
type kind int

const (
	kindAbort kind = iota
	kindPermanent
	kindDrop
	kindPostpone
	kindRetryAfter
	kindFailed // an ordinary error
)

func (v *verdict) Error() string {
	if v.err == nil {
		return fmt.Sprintf("retriable: postponed for %v", v.after)
	}
	return v.err.Error()
}

func (v *verdict) Unwrap() error { return v.err }

// Permanent says that no further attempt can help: the record is dead-lettered now. It returns nil for a nil err.
func Permanent(err error) error { return wrap(kindPermanent, err, 0) }

// RetryAfter fails the attempt and sets the wait before the next one to d instead of the backoff's, as when a downstream
// answers with Retry-After. It is cut to MaxDelay. It returns nil for a nil err.
func RetryAfter(err error, d time.Duration) error { return wrap(kindRetryAfter, err, max(d, 0)) }

// Postpone asks for the same record again in d. No attempt is spent and nothing is written: the record waits in memory,
// as a held one does, and holds the partition's watermark meanwhile. Records of the same key behind it may pass.
func Postpone(d time.Duration) error { return &verdict{kind: kindPostpone, after: max(d, 0)} }

// Drop finishes the record without success: it is counted and logged (without err's text) and kept nowhere.
// It returns nil for a nil err.
func Drop(err error) error { return wrap(kindDrop, err, 0) }

// Abort leaves the record unresolved and stops the consumer: Run drains, commits and returns err. The record is the
// first to be delivered again. It returns nil for a nil err.
func Abort(err error) error { return wrap(kindAbort, err, 0) }

func wrap(k kind, err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &verdict{kind: k, err: err, after: d}
}

// verdictOf walks the whole tree of wrapped and joined errors and returns the verdict that wins in it, nil if there is none.
func verdictOf(err error) (best *verdict) {
	walk(err, func(v *verdict) {
		if best == nil || v.kind < best.kind {
			best = v
		}
	})
	return best
}

func walk(err error, visit func(*verdict)) {
	for err != nil {
		if v, ok := err.(*verdict); ok { //nolint:errorlint // the walk is what errors.As would do, for all of them
			visit(v)
		}
		switch u := err.(type) { //nolint:errorlint // as above
		case interface{ Unwrap() error }:
			err = u.Unwrap()
		case interface{ Unwrap() []error }:
			for _, e := range u.Unwrap() {
				walk(e, visit)
			}
			return
		default:
			return
		}
	}
}
