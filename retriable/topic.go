package retriable

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TopicOption configures one topic, or with [Defaults] all of them.
type TopicOption interface{ topic(*topicConfig) }

type topicOption func(*topicConfig)

func (o topicOption) topic(t *topicConfig) { o(t) }

// setting is a value that knows whether somebody set it.
type setting[T any] struct {
	v   T
	set bool
}

func set[T any](v T) setting[T] { return setting[T]{v, true} }

// or returns the first that is set, else the built-in default.
func (s setting[T]) or(defaults setting[T], builtin T) T {
	if s.set {
		return s.v
	}
	if defaults.set {
		return defaults.v
	}
	return builtin
}

// topicConfig is what the options of one topic say, before they are checked and merged with the defaults.
type topicConfig struct {
	name       string
	pattern    bool
	handler    Handler
	retry      setting[string]
	tiers      []tier
	attempts   setting[int]
	backoff    setting[BackoffFunc]
	maxDelay   setting[time.Duration]
	maxElapsed setting[time.Duration]
	dead       setting[string]
	noDead     setting[bool]
	order      setting[Order]
	timeout    setting[time.Duration]
	filter     setting[func(*kgo.Record) bool]
	scheduled  setting[time.Duration]
	recycle    setting[bool]
	startAt    setting[kgo.Offset]
	blocking   setting[blockingRetries]
	atOnce     setting[int]
	rate       setting[rateLimit]
	gates      []func() time.Duration
	middleware []Middleware
	batch      bool
	size       setting[int]
	wait       setting[time.Duration]
	nilOptions int
}

func (t *topicConfig) apply(opts []TopicOption) {
	for _, o := range opts {
		if o == nil {
			t.nilOptions++
			continue
		}
		o.topic(t)
	}
}

// Topic consumes the named topic with h.
func Topic(name string, h Handler, opts ...TopicOption) Option {
	return addTopic(name, false, h, opts)
}

// TopicRegexp consumes every topic whose whole name matches the pattern (Go's syntax) with h: those that exist and those that
// come. A Topic of the same name beats it, and this consumer's own retry and dead-letter topics are never matched. Its topics share one retry
// topic and one dead-letter topic. A pattern that matches nothing yet is no failure.
func TopicRegexp(pattern string, h Handler, opts ...TopicOption) Option {
	return addTopic(pattern, true, h, opts)
}

func addTopic(name string, pattern bool, h Handler, opts []TopicOption) Option {
	return option(func(c *config) {
		t := &topicConfig{name: name, pattern: pattern, handler: h}
		t.apply(opts)
		c.topics = append(c.topics, t)
	})
}

// RetryTopic names the topic to which records whose attempt failed are written, to be tried again when they are due. The same
// consumer reads it alongside. Give every base topic, and every group, a retry topic of its own. Without one a failure ends in the
// dead-letter topic, and MaxAttempts, Backoff and MaxElapsed are refused.
func RetryTopic(name string) TopicOption {
	return topicOption(func(t *topicConfig) { t.retry = set(name) })
}

// MaxAttempts bounds the deliveries of a record, counting the first. The default is 5. After the last failed one the record
// is dead-lettered.
func MaxAttempts(n int) TopicOption {
	return topicOption(func(t *topicConfig) { t.attempts = set(n) })
}

// Backoff sets how long a failed record waits. The default is Exponential(time.Second, time.Minute).
func Backoff(f BackoffFunc) TopicOption {
	return topicOption(func(t *topicConfig) { t.backoff = set(f) })
}

// MaxDelay is the longest that a record may wait for its next attempt. The default is 7 days. Longer waits are cut to it when
// they are written, and logged. The retention of the retry topic must be longer.
func MaxDelay(d time.Duration) TopicOption {
	return topicOption(func(t *topicConfig) { t.maxDelay = set(d) })
}

// MaxElapsed dead-letters a record whose next attempt would come later than d after its first failure. There is no default.
func MaxElapsed(d time.Duration) TopicOption {
	return topicOption(func(t *topicConfig) { t.maxElapsed = set(d) })
}

// DeadLetterTopic names the topic to which records go that cannot be handled: the last attempt failed, or a handler said
// [Permanent]. They keep key, value and headers, with the reason and the origin in further headers.
func DeadLetterTopic(name string) TopicOption {
	return topicOption(func(t *topicConfig) { t.dead = set(name) })
}

// NoDeadLetters drops what would be dead-lettered: it is counted and logged, and gone. New refuses a topic with neither this
// nor a DeadLetterTopic, or with both.
func NoDeadLetters() TopicOption {
	return topicOption(func(t *topicConfig) { t.noDead = set(true) })
}

// With wraps the topic's handler; the first middleware is the outermost, and all are inside those of [Use]. It adds up; those of
// [Defaults] are outside the topic's own.
func With(mw ...Middleware) TopicOption {
	return topicOption(func(t *topicConfig) { t.middleware = append(t.middleware, mw...) })
}

// TopicConcurrency bounds how many handlers of the topic and its retry topic run at once in this member, beneath [Concurrency]. There is no
// default. Set it for a topic whose downstream bears less than the others'.
func TopicConcurrency(n int) TopicOption {
	return topicOption(func(t *topicConfig) { t.atOnce = set(n) })
}

// Order says which records of a topic-partition run in turn.
type Order int

// The orders. In all of them a record that waits (for its next attempt, or postponed) holds up nothing.
const (
	ByKey       Order = iota // records of one key in offset order, one at a time; those without a key as they come
	ByPartition              // all records of a partition in offset order, one at a time
	Unordered                // as they come, all at once
)

// Ordering sets the order of a topic and of its retry topic. The default is ByKey.
func Ordering(o Order) TopicOption { return topicOption(func(t *topicConfig) { t.order = set(o) }) }

// HandlerTimeout ends a handler's context with [ErrTimeout] after d; the attempt has then failed whatever the handler returns,
// except Permanent and Drop. There is no default. The handler keeps its worker and lane until it does return.
func HandlerTimeout(d time.Duration) TopicOption {
	return topicOption(func(t *topicConfig) { t.timeout = set(d) })
}

// Filter is asked once for each message of the base topic, joined if it came in chunks, on a worker, before its handler: what it
// rejects is done. Workers ask at the same time, so what it shares it must guard. A panic in it is a failed attempt.
func Filter(keep func(*kgo.Record) bool) TopicOption {
	return topicOption(func(t *topicConfig) { t.filter = set(keep) })
}

// Scheduled honours a due time that a producer asks for on the base topic ([DeliverAt], or the Python client's): the record is held
// until then, at most for limit from its timestamp, and later ones are cut to that. Without it such a header is ignored, and the
// record handled at once: whoever may write to the topic could have set it. There is no default. What is held waits in memory, and holds up
// neither its key nor anything else, until MaxHeld; it holds the partition's committed offset. Keep limit as short as will do. On the
// topic's retry topic waits up to the longer of MaxDelay and limit are honoured.
func Scheduled(limit time.Duration) TopicOption {
	return topicOption(func(t *topicConfig) { t.scheduled = set(limit) })
}

// StartAt sets where a base topic's partition without a commit is begun. The default is its earliest record. It is resolved to
// an offset and committed when the partition is assigned, so that a restart begins there too. A retry topic always begins at its start.
func StartAt(o kgo.Offset) TopicOption {
	return topicOption(func(t *topicConfig) { t.startAt = set(o) })
}
