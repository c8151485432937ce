package retriable

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// settle does what an attempt that did not succeed asks for: done, retry, dead-letter, drop, postpone or abort. It returns the next of the
// record's lane if that is to run now. Once the record is handed on it is not touched any more, for others may have it.
func (w *worker) settle(a *attempt, err error) (next *item) {
	p, c, it := a.p, a.p.c, a.it
	n := c.counts(w)
	if errors.Is(err, errFiltered) {
		n.filtered.Add(1)
		p.resolve(it)
		return it.leave()
	}
	k, after := classify(err)
	if a.ctx != nil && errors.Is(context.Cause(a.ctx), ErrTimeout) && k != kindPermanent && k != kindDrop {
		k, err = kindFailed, timedOut(err) // I4
	}
	switch k {
	case kindAbort:
		c.abort(errors.Unwrap(verdictOf(err)))
		it.slot.Set(watermark.Queued) // unresolved, and nothing of its key may pass it
		return nil
	case kindPostpone:
		n.postponed.Add(1)
		next = it.leave() // before it may come back
		p.postpone(a, after)
		return next
	case kindDrop:
		n.failed.Add(1)
		c.log.Warn("retriable: a record is dropped by its handler", "record", p.position(it), "attempt", a.msg.Attempt)
		p.drop(a, err)
		return it.leave()
	}
	n.failed.Add(1)
	if text := panicText(err); text != "" {
		c.log.Warn("retriable: a handler panicked", "record", p.position(a.it), "attempt", a.msg.Attempt, "panic", text, "frames", frames(err))
	}
	if due, ok := p.nextAttempt(a, k, after); ok {
		p.sendRetry(a, err, due)
	} else {
		p.deadLetter(a, err, k == kindPermanent)
	}
	return it.leave()
}

// timedOut is the failure of an attempt whose time had passed, whatever the handler made of it.
func timedOut(err error) error {
	if err == nil {
		return ErrTimeout
	}
	return errors.Join(ErrTimeout, err)
}

// verdictOf returns the winning verdict in err's tree.
func verdictOf(err error) (best *verdict) {
	walk(err, func(v *verdict) {
		if best == nil || v.kind < best.kind {
			best = v
		}
	})
	return best
}

// nextAttempt says when a failed record is due again; false if it has had its last attempt.
func (p *partition) nextAttempt(a *attempt, k kind, after time.Duration) (due time.Time, ok bool) {
	t := p.t
	if k == kindPermanent || t.retry == "" || a.msg.Attempt >= t.maxAttempts {
		return due, false // I8: never past MaxAttempts
	}
	if k != kindRetryAfter {
		after = p.c.backoff(t, a.msg.Attempt)
	}
	if after > t.maxDelay {
		p.c.log.Warn("retriable: a wait longer than MaxDelay is cut", "record", p.position(a.it), "wait", after, "max", t.maxDelay)
		after = t.maxDelay
	}
	now := time.Now()
	due = ceilMilli(now.Add(after))
	first := a.msg.FirstFailure
	if first.IsZero() {
		first = now
	}
	if t.maxElapsed > 0 && due.Sub(first) > t.maxElapsed {
		return due, false
	}
	return due, true
}

// backoff asks the user's function, which may panic or be negative.
func (c *Consumer) backoff(t *topic, attempt int) (d time.Duration) {
	defer func() {
		if v := recover(); v != nil {
			d = time.Second
			c.log.Error("retriable: the Backoff function panicked, waiting 1s", "topic", t.name, "panic", fmt.Sprintf("%T", v))
		}
	}()
	return max(t.backoff(attempt), 0)
}

// ceilMilli rounds up to whole milliseconds, in which due times are written (I7).
func ceilMilli(t time.Time) time.Time {
	return time.UnixMilli(t.Add(time.Millisecond - 1).UnixMilli())
}

// resolve ends a record for good.
func (p *partition) resolve(it *item) {
	it.msg = nil
	it.slot.Done()
}

func (p *partition) drop(a *attempt, err error) {
	c := p.c
	c.total.dropped.Add(1)
	d := Dropped{Source: p.position(a.it), Records: 1, Message: a.m, Err: err}
	p.resolve(a.it)
	call(c, c.hook.dropped, func(h HookDropped) { h.OnDropped(d) })
}

// origin is where the record was first produced.
func (a *attempt) origin() wire.Origin {
	return wire.Origin{Topic: a.rec.Topic, Partition: a.rec.Partition, Offset: a.rec.Offset, Time: a.rec.Timestamp}
}

// firstFailure is this attempt's end unless one before it failed.
func (a *attempt) firstFailure() int64 {
	if a.msg.FirstFailure.IsZero() {
		return time.Now().UnixMilli()
	}
	return a.msg.FirstFailure.UnixMilli()
}

// sendRetry writes the record to its retry topic. It completes when that is acked (I1), and leaves its key's order now.
func (p *partition) sendRetry(a *attempt, err error, due time.Time) {
	r := wire.Retry{
		Origin: a.origin(), Attempt: a.msg.Attempt + 1, Due: due.UnixMilli(), Group: p.c.set.group,
		FirstFailure: a.firstFailure(), Error: err.Error(),
	}
	w := p.newWrite(a, err)
	w.due, w.attempt = due, r.Attempt
	w.rec.Topic = p.t.retry
	w.rec.Headers = wire.AppendRetry(wire.User(w.rec.Headers), r)
	p.write(w)
}

// deadLetter gives the record up: to the dead-letter topic if there is one.
func (p *partition) deadLetter(a *attempt, err error, permanent bool) {
	if p.t.dead == "" {
		p.c.log.Warn("retriable: a record is dropped for want of a dead-letter topic", "record", p.position(a.it), "attempt", a.msg.Attempt)
		p.drop(a, err)
		return
	}
	d := wire.DeadLetter{
		Origin: a.origin(), Group: p.c.set.group, Deliveries: a.msg.Attempt,
		Message: p.reason(a, permanent), FirstFailure: a.firstFailure(), Error: err.Error(),
	}
	w := p.newWrite(a, err)
	w.dead = true
	w.rec.Topic = p.t.dead
	w.rec.Headers = wire.AppendDeadLetter(wire.Bare(w.rec.Headers), d)
	w.rec.Partition = a.rec.Partition // mod the topic's partitions: see deadPartitioner
	if a.rec.Partition < 0 {
		w.rec.Partition = p.partition
	}
	p.write(w)
}

// reason is why a record is dead-lettered, in the words of Kafka's own header.
func (p *partition) reason(a *attempt, permanent bool) string {
	switch {
	case permanent:
		return "permanent failure"
	case p.t.retry == "":
		return "no retry topic"
	case a.msg.Attempt >= p.t.maxAttempts:
		return fmt.Sprintf("all %d attempts failed", a.msg.Attempt)
	}
	return "its time was over (MaxElapsed)"
}

// postpone puts the record back in memory for a while, without spending an attempt (Postpone).
func (p *partition) postpone(a *attempt, d time.Duration) {
	d = min(d, p.t.maxDelay)
	it, due := a.it, ceilMilli(time.Now().Add(d)).UnixMilli()
	m := a.msg
	m.Record = cloneRecord(&a.rec)
	p.mu.Lock()
	it.msg, it.copied, it.in = &m, true, nil
	it.slot.Set(watermark.Postponed)
	if p.stage.Load() == live {
		p.heap.push(entry{due: due, offset: it.slot.Offset(), it: it})
		p.heldBytes += int64(it.size) + itemBytes
		p.nextDue.Store(p.heap.top())
	}
	p.mu.Unlock()
	p.c.heldHook(Held{Source: p.position(it), Attempt: a.msg.Attempt, Due: time.UnixMilli(due), Postponed: true})
	p.c.waker.wake(due)
}
