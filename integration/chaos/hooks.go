package chaos

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// A worker's hooks write what they are told into the ledger; then they are points at which it may die.

func (w *worker) about(kind Kind, m *retriable.Message) Event {
	e := Event{Kind: kind, Attempt: m.Attempt, At: m.Source}
	e.ID, _ = idOf(m.Record)
	return e
}

// OnHandled implements retriable.HookHandled.
func (w *worker) OnHandled(h retriable.Handled) {
	e := w.about(Handled, h.Message)
	e.N, e.Text = int64(h.Waited), string(h.Verdict)
	w.ledger.Write(e)
	w.points.pass("handled")
}

// OnRetried implements retriable.HookRetried.
func (w *worker) OnRetried(r retriable.Retried) {
	e := w.about(Retried, r.Message)
	e.Attempt, e.N = r.Attempt, r.Due.UnixMilli()
	w.ledger.Write(e)
	w.points.pass("acked")
}

// OnDeadLettered implements retriable.HookDeadLettered.
func (w *worker) OnDeadLettered(d retriable.DeadLettered) {
	e := w.about(Letter, d.Message)
	e.N = d.Offset
	w.ledger.Write(e)
	w.points.pass("buried")
}

// OnProduceFailed implements retriable.HookProduceFailed. It does not tell the record, only where it was read from.
func (w *worker) OnProduceFailed(f retriable.ProduceFailed) {
	w.ledger.Write(Event{Kind: Refused, ID: -1, Attempt: f.Try, At: f.Source, Text: f.Err.Error()})
}

// OnCommitted implements retriable.HookCommitted.
func (w *worker) OnCommitted(c retriable.Committed) {
	e := Event{Kind: Committed, At: retriable.Position{Topic: c.Topic, Partition: c.Partition, Offset: c.Offset}, N: int64(c.Took)}
	if c.Cut {
		e.Kind = Cut
	}
	if c.Err != nil {
		e.Kind, e.Text = Uncommit, c.Err.Error()
	}
	w.ledger.Write(e)
	w.points.pass("committed")
}

// OnAssigned implements retriable.HookAssigned.
func (w *worker) OnAssigned(a retriable.Assigned) {
	w.ledger.Write(Event{Kind: Assigned, At: retriable.Position(a)})
	w.points.pass("assigned")
}

// OnDrained implements retriable.HookDrained.
func (w *worker) OnDrained(d retriable.Drained) {
	e := Event{Kind: Drained, Attempt: d.Dropped, At: retriable.Position{Topic: d.Topic, Partition: d.Partition}, N: int64(d.Abandoned), Text: d.Took.String()}
	if d.Lost {
		e.Kind = Lost
	}
	w.ledger.Write(e)
	w.points.pass("drained")
}

// OnBrokerWrite implements kgo.HookBrokerWrite: a request has gone out and is not answered yet.
func (w *worker) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if err != nil {
		return
	}
	switch kmsg.Key(key) {
	case kmsg.OffsetFetch:
		w.ledger.Write(Event{Kind: Asks})
	case kmsg.OffsetCommit:
		w.points.pass("committing")
	case kmsg.Produce:
		w.points.pass("producing")
	case kmsg.JoinGroup, kmsg.ConsumerGroupHeartbeat:
		w.points.pass("joining")
	default:
	}
}

// OnBrokerRead implements kgo.HookBrokerRead: an answer has come.
func (w *worker) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if err != nil {
		return
	}
	switch kmsg.Key(key) {
	case kmsg.SyncGroup, kmsg.ConsumerGroupHeartbeat:
		w.points.pass("synced")
		w.points.soon("revoking") // what it takes away is being drained next
	case kmsg.OffsetFetch:
		w.points.pass("fetched")
	default:
	}
}
