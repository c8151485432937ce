package retriableotel

import (
	"context"

	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// hooks are retriable's: they count and time what happens.
type hooks struct{ t *Telemetry }

// OnHandled implements retriable.HookHandled.
func (h hooks) OnHandled(e retriable.Handled) {
	ctx, ev, name := context.Background(), h.t.events, e.Message.Source.Topic
	t := ev.of(name)
	ev.attempts.Add(ctx, 1, t.verdict[e.Verdict])
	ev.consumed.Add(ctx, 1, t.consumed)
	took := t.done
	if e.Verdict != retriable.VerdictDone {
		took = labels(ev.group, name, process, verdictIs(e.Verdict), semconv.ErrorTypeKey.String(errorType(e.Err)))
	}
	if e.Verdict == retriable.VerdictPostpone { // no failure
		took = labels(ev.group, name, process, verdictIs(e.Verdict))
	}
	ev.handlerTime.Record(ctx, e.Took.Seconds(), took)
	ev.queueTime.Record(ctx, e.Waited.Seconds(), t.plain)
	if !e.Due.IsZero() {
		ev.lateness.Record(ctx, max(e.Began.Sub(e.Due).Seconds(), 0), t.plain)
	}
	if e.Verdict == retriable.VerdictDone {
		ev.ended(t, e.Verdict, e.Message)
	}
}

// OnRetried implements retriable.HookRetried.
func (h hooks) OnRetried(e retriable.Retried) {
	h.add(h.t.events.retried, e.Message.Source.Topic, 1)
	h.sent(e.Topic, nil)
}

// OnDeadLettered implements retriable.HookDeadLettered.
func (h hooks) OnDeadLettered(e retriable.DeadLettered) {
	h.add(h.t.events.deadLettered, e.Message.Source.Topic, 1)
	h.t.events.ended(h.t.events.of(e.Message.Source.Topic), retriable.VerdictDeadLetter, e.Message)
	h.sent(e.Topic, nil)
}

// OnDropped implements retriable.HookDropped.
func (h hooks) OnDropped(e retriable.Dropped) {
	h.add(h.t.events.dropped, e.Source.Topic, e.Records)
	h.t.events.ended(h.t.events.of(e.Source.Topic), retriable.VerdictDrop, e.Message)
}

// OnRewritten implements retriable.HookRewritten.
func (h hooks) OnRewritten(e retriable.Rewritten) {
	h.add(h.t.events.rewritten, e.Source.Topic, 1)
	h.sent(e.Topic, nil)
}

// OnSkipped implements retriable.HookSkipped.
func (h hooks) OnSkipped(e retriable.Skipped) {
	h.add(h.t.events.skipped, e.Topic, int64(e.Records))
}

// OnPaused implements retriable.HookPaused.
func (h hooks) OnPaused(e retriable.Paused) {
	for _, why := range e.Reasons {
		h.t.events.pauses.Add(context.Background(), 1, labels(h.t.group, e.Topic, reasonIs(string(why))))
	}
}

// OnStuck implements retriable.HookStuck.
func (h hooks) OnStuck(e retriable.Stuck) {
	h.t.events.stuck.Add(context.Background(), 1, labels(h.t.group, e.Topic, reasonIs(string(e.Oldest.Reason))))
}

// OnProduceFailed implements retriable.HookProduceFailed.
func (h hooks) OnProduceFailed(e retriable.ProduceFailed) {
	h.t.events.produceFailures.Add(context.Background(), 1, labels(h.t.group, e.Topic))
	h.sent(e.Topic, e.Err)
}

// OnCommitted implements retriable.HookCommitted.
func (h hooks) OnCommitted(e retriable.Committed) {
	if e.Err != nil {
		h.add(h.t.events.commitFailures, e.Topic, 1)
	}
}

// OnAssigned implements retriable.HookAssigned.
func (h hooks) OnAssigned(e retriable.Assigned) { h.t.events.of(e.Topic) }

// OnDrained implements retriable.HookDrained.
func (h hooks) OnDrained(e retriable.Drained) {
	h.t.events.drainTime.Record(context.Background(), e.Took.Seconds(), h.t.events.of(e.Topic).plain)
	h.add(h.t.events.abandoned, e.Topic, int64(e.Abandoned))
}

func (h hooks) add(c metric.Int64Counter, topic string, n int64) {
	c.Add(context.Background(), n, h.t.events.of(topic).plain)
}

// sent counts a copy that was acked or refused.
func (h hooks) sent(topic string, err error) {
	with := labels(h.t.group, topic, send)
	if err != nil {
		with = labels(h.t.group, topic, send, semconv.ErrorTypeKey.String(kafkaError(err)))
	}
	h.t.events.sent.Add(context.Background(), 1, with)
}
