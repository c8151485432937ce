package retriableprom

import (
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// OnHandled implements [retriable.HookHandled].
func (c *Collector) OnHandled(h retriable.Handled) {
	t := c.events.of(h.Message.Source.Topic)
	t.attempts[h.Verdict].Observe(1)
	t.handler[h.Verdict].Observe(h.Took.Seconds())
	t.queue.Observe(h.Waited.Seconds())
	if !h.Due.IsZero() {
		t.lateness.Observe(max(h.Began.Sub(h.Due).Seconds(), 0))
	}
	if h.Verdict == retriable.VerdictDone {
		t.ended(retriable.VerdictDone, h.Message)
	}
}

// ended tells how old a record was in the end. One that says nothing of its time has no age.
func (t *topic) ended(v retriable.Verdict, m *retriable.Message) {
	if m != nil && m.Record != nil && m.Timestamp.UnixMilli() > 0 {
		t.age[v].Observe(max(time.Since(m.Timestamp).Seconds(), 0))
	}
}

// OnRetried implements [retriable.HookRetried].
func (c *Collector) OnRetried(r retriable.Retried) {
	c.events.retried.WithLabelValues(r.Message.Source.Topic).Inc()
}

// OnDeadLettered implements [retriable.HookDeadLettered].
func (c *Collector) OnDeadLettered(d retriable.DeadLettered) {
	name := d.Message.Source.Topic
	c.events.deadLettered.WithLabelValues(name).Inc()
	c.events.of(name).ended(retriable.VerdictDeadLetter, d.Message)
}

// OnDropped implements [retriable.HookDropped].
func (c *Collector) OnDropped(d retriable.Dropped) {
	c.events.dropped.WithLabelValues(d.Source.Topic).Add(float64(d.Records))
	c.events.of(d.Source.Topic).ended(retriable.VerdictDrop, d.Message)
}

// OnRewritten implements [retriable.HookRewritten].
func (c *Collector) OnRewritten(r retriable.Rewritten) {
	c.events.rewritten.WithLabelValues(r.Source.Topic).Inc()
}

// OnSkipped implements [retriable.HookSkipped].
func (c *Collector) OnSkipped(s retriable.Skipped) {
	c.events.skipped.WithLabelValues(s.Topic).Add(float64(s.Records))
}

// OnPaused implements [retriable.HookPaused].
func (c *Collector) OnPaused(p retriable.Paused) {
	for _, why := range p.Reasons {
		c.events.paused.WithLabelValues(p.Topic, string(why)).Inc()
	}
}

// OnStuck implements [retriable.HookStuck].
func (c *Collector) OnStuck(s retriable.Stuck) {
	c.events.stuck.WithLabelValues(s.Topic, string(s.Oldest.Reason)).Inc()
}

// OnProduceFailed implements [retriable.HookProduceFailed].
func (c *Collector) OnProduceFailed(p retriable.ProduceFailed) {
	c.events.produceFailures.WithLabelValues(p.Topic).Inc()
}

// OnCommitted implements [retriable.HookCommitted].
func (c *Collector) OnCommitted(e retriable.Committed) {
	if e.Err != nil {
		c.events.commitFailures.WithLabelValues(e.Topic).Inc()
	}
}

// OnAssigned implements [retriable.HookAssigned].
func (c *Collector) OnAssigned(a retriable.Assigned) { c.events.of(a.Topic) }

// OnDrained implements [retriable.HookDrained].
func (c *Collector) OnDrained(d retriable.Drained) {
	c.events.drainSeconds.WithLabelValues(d.Topic).Observe(d.Took.Seconds())
	c.events.abandoned.WithLabelValues(d.Topic).Add(float64(d.Abandoned))
}
