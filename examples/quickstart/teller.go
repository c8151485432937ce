package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// teller is the hooks of one member: it enters what happens in the books, and tells it.
type teller struct {
	name  string
	books *books

	mu    sync.Mutex
	taken []string // partitions assigned just now
	given []string // partitions given up just now
}

func newTeller(name string, b *books) *teller { return &teller{name: name, books: b} }

// OnAssigned implements retriable.HookAssigned.
func (t *teller) OnAssigned(e retriable.Assigned) {
	t.books.owns(t.name, 1)
	t.gather(&t.taken, e.Topic, e.Partition)
}

// OnDrained implements retriable.HookDrained.
func (t *teller) OnDrained(e retriable.Drained) {
	t.books.owns(t.name, -1)
	t.gather(&t.given, e.Topic, e.Partition)
}

// OnHandled implements retriable.HookHandled.
func (t *teller) OnHandled(e retriable.Handled) {
	n := t.books.handled(e.Message, e.Err)
	if e.Err == nil {
		t.sample("handled", n, "%v on attempt %d, in %v", origin(e.Message), e.Message.Attempt, e.Took.Round(time.Millisecond))
	}
}

// OnRetried implements retriable.HookRetried.
func (t *teller) OnRetried(e retriable.Retried) {
	t.sample("failed", t.books.count("failed"), "%v, attempt %d: %v; attempt %d in %v",
		origin(e.Message), e.Message.Attempt, e.Err, e.Attempt, time.Until(e.Due).Round(time.Millisecond))
}

// OnHeld implements retriable.HookHeld.
func (t *teller) OnHeld(e retriable.Held) {
	t.sample("held", t.books.count("held"), "%v until it is due in %v; others pass it", e.Source, time.Until(e.Due).Round(time.Millisecond))
}

// OnDeadLettered implements retriable.HookDeadLettered.
func (t *teller) OnDeadLettered(e retriable.DeadLettered) {
	t.books.deadLettered(e.Message)
	t.tell("dead", "%v after attempt %d: %v; kept in %s", origin(e.Message), e.Message.Attempt, e.Err, e.Topic)
}

// OnCommitted implements retriable.HookCommitted.
func (t *teller) OnCommitted(e retriable.Committed) {
	if e.Offset > 0 {
		t.sample("committed", t.books.count("committed"), "%s/%d: all below offset %d is finished", e.Topic, e.Partition, e.Offset)
	}
}

// OnProduceFailed implements retriable.HookProduceFailed.
func (t *teller) OnProduceFailed(e retriable.ProduceFailed) {
	t.tell("refused", "a write to %s: %v; again in %v", e.Topic, e.Err, e.NextTry)
}

// tell prints a line.
func (t *teller) tell(what, format string, args ...any) {
	fmt.Printf("%5.1fs  %s  %-10s%s\n", time.Since(t.books.began).Seconds(), t.name, what, fmt.Sprintf(format, args...))
}

// sample tells of the 1st, 2nd, 4th, 8th … of a kind.
func (t *teller) sample(what string, n int, format string, args ...any) {
	if n&(n-1) == 0 {
		t.tell(what, "%s  (no. %d)", fmt.Sprintf(format, args...), n)
	}
}

// gather keeps a partition for a moment, so that those that move together are told in one line.
func (t *teller) gather(to *[]string, topic string, partition int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*to = append(*to, fmt.Sprintf("%s/%d", topic, partition))
	time.AfterFunc(3*time.Millisecond, t.flush)
}

func (t *teller) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.taken) > 0 {
		slices.Sort(t.taken)
		t.tell("took over", "%s", strings.Join(t.taken, " "))
	}
	if len(t.given) > 0 {
		slices.Sort(t.given)
		t.tell("gave up", "%s, drained and committed", strings.Join(t.given, " "))
	}
	t.taken, t.given = nil, nil
}

// stopped tells that Run has returned.
func (t *teller) stopped(err error) {
	t.flush()
	if err != nil {
		t.tell("stopped", "Run returned: %v", err)
		return
	}
	t.tell("stopped", "cleanly")
}

// origin is where a record was first produced: the same on each of its attempts.
func origin(m *retriable.Message) retriable.Position {
	return retriable.Position{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset}
}
