package retriable

import "time"

// Hook is anything that implements one or more of the Hook interfaces below; [Hooks] refuses what implements none. Hooks are called
// from the library's goroutines, many at once, with no lock held: they must be quick and must not call Run or wait for the consumer.
// A panic in a hook is logged and otherwise ignored. Without HookHandled no clock is read for each record.
type Hook any

// HookHandled is called after every attempt, but for one that outlives its drain.
type HookHandled interface{ OnHandled(Handled) }

// HookRetried is called when a failed record's copy has been acked by its retry topic.
type HookRetried interface{ OnRetried(Retried) }

// HookDeadLettered is called when a record has been acked by its dead-letter topic.
type HookDeadLettered interface{ OnDeadLettered(DeadLettered) }

// HookDropped is called when a record ends without success and is kept nowhere.
type HookDropped interface{ OnDropped(Dropped) }

// HookHeld is called when a record was read that is not yet due, and when one is postponed.
type HookHeld interface{ OnHeld(Held) }

// HookRewritten is called when a record that waits has been written again: to the tail of its retry topic, so as not to hold up the committed
// offset for long, or from one [RetryTier] to the next. No attempt was made.
type HookRewritten interface{ OnRewritten(Rewritten) }

// HookSkipped is called when records were read that the committed map says are finished: they are not delivered again.
type HookSkipped interface{ OnSkipped(Skipped) }

// HookPaused is called when a partition is no longer fetched, and when it is again. That it is given up meanwhile is told by HookDrained alone.
type HookPaused interface{ OnPaused(Paused) }

// HookCommitted is called after each commit of a partition, accepted or refused.
type HookCommitted interface{ OnCommitted(Committed) }

// HookAssigned is called when partitions were assigned, before their first record.
type HookAssigned interface{ OnAssigned(Assigned) }

// HookDrained is called when a partition was given up: in a revoke, when it is lost, and at a stop.
type HookDrained interface{ OnDrained(Drained) }

// HookStuck is called once per incident, when a partition's watermark has not moved for StuckAfter although records wait.
type HookStuck interface{ OnStuck(Stuck) }

// HookProduceFailed is called when a write to a retry or dead-letter topic was refused. It will be tried again.
type HookProduceFailed interface{ OnProduceFailed(ProduceFailed) }

// Handled is one attempt that ended.
type Handled struct {
	Message *Message      // until the hook returns, where its topic has Recycle
	Began   time.Time     // when the handler was called
	Took    time.Duration // from there to its return; of a batch, for all of it
	Waited  time.Duration // since it could have started: it was read, or came due
	Due     time.Time     // when it was to be handled; zero for a record that waited for no time. Began less Due is how late it was
	Verdict Verdict
	Err     error // nil for VerdictDone; a *PanicError for a panic; wraps ErrTimeout where the time had passed
}

// Verdict is what became of an attempt.
type Verdict string

// The verdicts.
const (
	VerdictDone       Verdict = "done"
	VerdictRetry      Verdict = "retry"
	VerdictDeadLetter Verdict = "dead-letter"
	VerdictDrop       Verdict = "drop"
	VerdictPostpone   Verdict = "postpone"
	VerdictAbort      Verdict = "abort"
)

// VerdictOf returns the verdict that a handler's error stands for, as tests of handlers ask it: VerdictDone for nil and VerdictRetry for
// any error without a verdict in its tree. Whether a retry has become a dead letter depends on the topic's options and the attempt.
func VerdictOf(err error) Verdict {
	if err == nil {
		return VerdictDone
	}
	v := verdictOf(err)
	if v == nil {
		return VerdictRetry
	}
	return [...]Verdict{
		kindAbort: VerdictAbort, kindPermanent: VerdictDeadLetter, kindDrop: VerdictDrop, kindPostpone: VerdictPostpone, kindRetryAfter: VerdictRetry,
	}[v.kind]
}

// Retried is a record that waits in its retry topic.
type Retried struct {
	Message *Message // of the attempt that failed
	Err     error
	Topic   string // the retry topic
	Attempt int    // the coming one
	Due     time.Time
}

// DeadLettered is a record that was given up and kept.
type DeadLettered struct {
	Message *Message
	Err     error
	Topic   string // the dead-letter topic
	Offset  int64
}

// Dropped is a record, or with Skip several, that were given up and not kept.
type Dropped struct {
	Source  Position // the first of them
	Records int64
	Message *Message // nil with Skip
	Err     error
}

// Held is a record that waits in memory.
type Held struct {
	Source    Position
	Attempt   int
	Due       time.Time
	Postponed bool
}

// Rewritten is a record that waits on, further up.
type Rewritten struct {
	Source  Position // where it was
	Topic   string   // where it is now
	Attempt int      // the coming one, still
	Due     time.Time
}

// Skipped is what was not delivered again.
type Skipped struct {
	Topic     string
	Partition int32
	Records   int
}

// Paused is a partition that is not fetched, or is again.
type Paused struct {
	Topic     string
	Partition int32
	Paused    bool
	Reasons   []PauseReason // all that there are now; nil when it is fetched again
}

// PauseReason is why a partition is not fetched.
type PauseReason string

// The reasons for a pause. There may be several at once; a partition is fetched again when none is left.
const (
	PauseBound   PauseReason = "bound"   // MaxPending, MaxHeld, MaxWindow, MaxPendingBytes or its map is full
	PauseStalled PauseReason = "stalled" // it could not be read, and will be tried again
	PauseUser    PauseReason = "user"    // Consumer.Pause
)

// Committed is one partition's part of a commit.
type Committed struct {
	Topic     string
	Partition int32
	Offset    int64
	Took      time.Duration
	Cut       bool // not all finished offsets fit its metadata, for a broker allowed less: the highest may be delivered again after a restart
	Err       error
}

// Assigned is one partition that was assigned, and where reading begins.
type Assigned struct {
	Topic     string
	Partition int32
	Offset    int64
}

// Drained is one partition that was given up.
type Drained struct {
	Topic     string
	Partition int32
	Lost      bool // taken away without notice: nothing was committed
	Took      time.Duration
	Abandoned int // records whose handlers or writes did not end in time
	Dropped   int // records read but not begun
}

// Stuck is a partition whose watermark does not move.
type Stuck struct {
	Topic     string
	Partition int32
	Oldest    Oldest
}

// ProduceFailed is a refused write.
type ProduceFailed struct {
	Source  Position
	Topic   string
	Try     int // 1 for the first
	Err     error
	NextTry time.Duration
}

// hookSet is the hooks by kind, so that what nobody listens to costs nothing.
type hookSet struct {
	handled       []HookHandled
	retried       []HookRetried
	deadLettered  []HookDeadLettered
	dropped       []HookDropped
	held          []HookHeld
	rewritten     []HookRewritten
	skipped       []HookSkipped
	paused        []HookPaused
	committed     []HookCommitted
	assigned      []HookAssigned
	drained       []HookDrained
	stuck         []HookStuck
	produceFailed []HookProduceFailed
}

func isHook(h Hook) bool {
	var s hookSet
	return s.add(h)
}

func addHook[T any](to *[]T, h Hook) bool {
	t, ok := h.(T)
	if ok {
		*to = append(*to, t)
	}
	return ok
}

func (s *hookSet) add(h Hook) (found bool) {
	for _, ok := range []bool{
		addHook(&s.handled, h), addHook(&s.retried, h), addHook(&s.deadLettered, h), addHook(&s.dropped, h), addHook(&s.held, h), addHook(&s.rewritten, h),
		addHook(&s.skipped, h), addHook(&s.paused, h),
		addHook(&s.committed, h), addHook(&s.assigned, h), addHook(&s.drained, h), addHook(&s.stuck, h), addHook(&s.produceFailed, h),
	} {
		found = found || ok
	}
	return found
}
