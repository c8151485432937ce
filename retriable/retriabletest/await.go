package retriabletest

import (
	"fmt"
	"strings"
	"time"
)

// Condition is something to wait for with [Member.Await]. Counts are of the whole group since its first consumer was started, over crashes and
// restarts: what a record's second delivery did counts once more.
type Condition struct {
	what string
	ok   func(k *Kafka, group string, t *tally) bool
}

func atLeast(what string, n int, of func(*tally) int) Condition {
	return Condition{fmt.Sprintf("%s(%d)", what, n), func(_ *Kafka, _ string, t *tally) bool { return of(t) >= n }}
}

// Handled is: n attempts have succeeded.
func Handled(n int) Condition { return atLeast("Handled", n, func(t *tally) int { return t.handled }) }

// Failed is: n attempts have failed.
func Failed(n int) Condition { return atLeast("Failed", n, func(t *tally) int { return t.failed }) }

// Retried is: n copies have been written to a retry topic.
func Retried(n int) Condition { return atLeast("Retried", n, func(t *tally) int { return t.retried }) }

// DeadLettered is: n records have been written to a dead-letter topic.
func DeadLettered(n int) Condition {
	return atLeast("DeadLettered", n, func(t *tally) int { return t.deadLettered })
}

// Dropped is: n records have been dropped.
func Dropped(n int) Condition { return atLeast("Dropped", n, func(t *tally) int { return t.dropped }) }

// Committed is: everything in the topics that the group consumes is resolved and committed, its retry topics included. What was produced
// is done with, then: nothing waits any more.
func Committed() Condition {
	return Condition{"Committed()", func(k *Kafka, group string, t *tally) bool {
		if len(t.topics) == 0 {
			return false
		}
		info := k.Cluster.GroupInfo(group)
		for topic := range t.topics {
			for _, p := range k.Cluster.PartitionInfos(topic) {
				if p.HighWatermark > p.LogStartOffset && (info == nil || info.Commits[topic][p.Partition].Offset < p.HighWatermark) {
					return false
				}
			}
		}
		return true
	}}
}

// Await waits until all of the conditions hold. It fails the test if the consumer's Run ends first, or if it takes longer than
// [Kafka.Patience], and says what has happened until then. What handlers did before is safe to look at after.
func (m *Member) Await(conditions ...Condition) {
	k := m.k
	k.t.Helper()
	timer := time.NewTimer(k.Patience)
	defer timer.Stop()
	for {
		k.mu.Lock()
		changed := k.changed
		seen := k.groups[m.group].copy()
		k.mu.Unlock()
		var missing []string
		for _, c := range conditions {
			if !c.ok(k, m.group, &seen) {
				missing = append(missing, c.what)
			}
		}
		if len(missing) == 0 {
			return
		}
		over := m.now.done
		if m.now.dying.Err() != nil {
			over = nil // another member of the group may do it
		}
		select {
		case <-changed:
		case <-over:
			k.t.Fatalf("group %s: waiting for %s, but Run has ended: %v (%v)", m.group, strings.Join(missing, ", "), m.now.err, &seen)
		case <-timer.C:
			k.t.Fatalf("group %s: after %v still not %s: %v\n%v", m.group, k.Patience, strings.Join(missing, ", "), &seen, m.Health(k.t.Context()))
		}
	}
}
