package retriable

import (
	"errors"
	"fmt"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// settle does what an attempt that did not succeed asks for. It returns the verdict, and the next of the record's lane if that is to run
// now. Once the record is handed on it is not touched any more, for others may have it.
func (w *worker) settle(a *attempt, err error) (v Verdict, next *item) {
	w.spare(a)
	a.it, a.run = w.lasting(a.it)
	a.index = w.index
	p, c, it := a.p, a.p.c, a.it
	n := c.counts(w)
	k, after := a.inspect(err)
	switch k {
	case kindAbort:
		c.abort(a.cause)
		it.Set(watermark.Queued) // unresolved, and nothing of its key may pass it
		return VerdictAbort, nil
	case kindPostpone:
		n.postponed.Add(1)
		next = it.leave() // before it may come back
		p.postpone(a, after)
		return VerdictPostpone, next
	case kindDrop:
		n.failed.Add(1)
		c.log.Warn("retriable: a record is dropped by its handler", "record", p.name(it), "attempt", a.number)
		p.drop(a, err)
		return VerdictDrop, it.leave()
	case kindPermanent, kindRetryAfter, kindFailed: // a failed attempt
	}
	n.failed.Add(1)
	if a.panicked != nil {
		c.log.Warn("retriable: a handler panicked", "record", p.name(it), "attempt", a.number,
			"panic", fmt.Sprintf("%T", a.panicked.Value), "frames", a.panicked.frames())
	}
	if due, ok := p.blockingRetry(a, k, after); ok {
		p.waitInPlace(a, due)
		return VerdictRetry, nil
	}
	if due, ok := p.nextAttempt(a, k, after); ok {
		p.sendRetry(a, err, due)
		return VerdictRetry, it.leave()
	}
	if p.t.dead == "" {
		c.log.Warn("retriable: a record is dropped for want of a dead-letter topic", "record", p.name(it), "attempt", a.number)
		p.drop(a, err)
		return VerdictDrop, it.leave()
	}
	p.deadLetter(a, err, k == kindPermanent)
	return VerdictDeadLetter, it.leave()
}

// honoured reports whether a verdict counts although the handler's time had passed.
func (a *attempt) honoured(err error) bool {
	if err == nil {
		return false
	}
	k, _ := a.inspect(err)
	return k == kindPermanent || k == kindDrop
}

// late is the failure of an attempt whose time had passed, whatever the handler made of it: no verdict of its counts.
func (a *attempt) late(err error) error {
	if err == nil {
		return ErrTimeout
	}
	return fmt.Errorf("%w: %s", ErrTimeout, a.text)
}

// inspect takes out of a handler's error all that is ever asked of it: the verdict, the text, and whether it was a panic. The methods of the
// error are the user's and may panic themselves: such a one is an ordinary failure.
func (a *attempt) inspect(err error) (k kind, after time.Duration) {
	defer func() {
		if v := recover(); v != nil {
			k, after = kindFailed, 0
			a.text = fmt.Sprintf("retriable: an error of type %T that panics", err)
		}
	}()
	a.text = ""
	if p, ok := errors.AsType[*PanicError](err); ok {
		a.panicked = p
	}
	v := verdictOf(err)
	a.text = err.Error()
	if v == nil {
		return kindFailed, 0
	}
	a.cause = v.err
	return v.kind, v.after
}

// nextAttempt says when a failed record is due again; false if it has had its last attempt.
func (p *partition) nextAttempt(a *attempt, k kind, after time.Duration) (due time.Time, ok bool) {
	t := p.t
	if k == kindPermanent || t.retry == "" || a.number >= t.maxAttempts {
		return due, false // I8: never past MaxAttempts
	}
	if k != kindRetryAfter {
		after = p.c.backoff(t, t.backoff, a.number)
	}
	return p.dueIn(a, after)
}

// dueIn is when a failed record is due after a wait; false if that is later than MaxElapsed allows.
func (p *partition) dueIn(a *attempt, after time.Duration) (due time.Time, ok bool) {
	t := p.t
	if after > t.maxDelay {
		p.c.log.Warn("retriable: a wait longer than MaxDelay is cut", "record", p.name(a.it), "wait", after, "max", t.maxDelay)
		after = t.maxDelay
	}
	now := a.now()
	due = ceilMilli(now.Add(after))
	first := a.first
	if first.IsZero() {
		first = now
	}
	if t.maxElapsed > 0 && due.Sub(first) > t.maxElapsed {
		return due, false
	}
	return due, true
}

// backoff asks the user's function, which may panic or be negative.
func (c *Consumer) backoff(t *topic, f BackoffFunc, attempt int) (d time.Duration) {
	defer func() {
		if v := recover(); v != nil {
			d = time.Second
			c.log.Error("retriable: the Backoff function panicked, waiting 1s", "topic", t.name, "panic", fmt.Sprintf("%T", v))
		}
	}()
	return max(f(attempt), 0)
}

// ceilMilli rounds up to whole milliseconds, in which due times are written (I7).
func ceilMilli(t time.Time) time.Time {
	return time.UnixMilli(t.Add(time.Millisecond - 1).UnixMilli())
}

// resolve ends a record for good.
func (p *partition) resolve(it *item) {
	if it.assembly() != nil {
		p.mu.Lock() // all chunks of a message at once
		defer p.mu.Unlock()
	}
	it.end()
}

func (p *partition) drop(a *attempt, err error) {
	c := p.c
	c.total.dropped.Add(1)
	d := Dropped{Source: p.name(a.it), Records: 1, Message: a.m, Err: err}
	p.resolve(a.it)
	call(c, c.hook.dropped, func(h HookDropped) { h.OnDropped(d) })
}

// origin is where the record was first produced.
func (a *attempt) origin() wire.Origin {
	return wire.Origin{Topic: a.was.topic, Partition: a.was.partition, Offset: a.was.offset, Time: a.was.time}
}

// now is when the attempt ended, as far as its settling is concerned.
func (a *attempt) now() time.Time {
	if a.ended.IsZero() {
		a.ended = a.p.c.now()
	}
	return a.ended
}

// firstFailure is this attempt's end unless one before it failed.
func (a *attempt) firstFailure() int64 {
	if a.first.IsZero() {
		return a.now().UnixMilli()
	}
	return a.first.UnixMilli()
}

// sendRetry writes the record to its retry topic. It completes when that is acked (I1), and leaves its key's order now.
func (p *partition) sendRetry(a *attempt, err error, due time.Time) {
	r := wire.Retry{
		Origin: a.origin(), Attempt: a.number + 1, Due: due.UnixMilli(), Group: p.c.set.group,
		FirstFailure: a.firstFailure(), Error: a.text,
	}
	w := p.newWrite(a, err)
	w.due, w.attempt = due, r.Attempt
	w.rec.Topic = p.t.retryFor(due.Sub(a.now()) + 50*time.Millisecond) // that a moment has passed makes no difference
	w.rec.Headers = wire.AppendRetry(wire.User(w.rec.Headers), r)
	p.write(w)
}

// deadLetter gives the record up, to the dead-letter topic.
func (p *partition) deadLetter(a *attempt, err error, permanent bool) {
	d := wire.DeadLetter{
		Origin: a.origin(), Group: p.c.set.group, Deliveries: a.number,
		Message: p.reason(a, permanent), FirstFailure: a.firstFailure(), Error: a.text,
	}
	w := p.newWrite(a, err)
	w.dead = true
	w.rec.Topic = p.t.dead
	w.rec.Headers = wire.AppendDeadLetter(wire.Bare(w.rec.Headers), d)
	w.rec.Partition = a.was.partition // mod the topic's partitions: see copyPartitioner
	if a.was.partition < 0 {
		w.rec.Partition = p.partition
	}
	p.write(w)
}

// reason is why a record is dead-lettered, in the words of Kafka's own header.
func (p *partition) reason(a *attempt, permanent bool) string {
	crashed, _ := a.cause.(*CrashError) //nolint:errorlint // our own, from condemn
	switch {
	case crashed != nil:
		return crashed.Error()
	case permanent:
		return "permanent failure"
	case p.t.retry == "" && a.number == 1:
		return "no retry topic"
	case p.t.retry == "":
		return fmt.Sprintf("all %d attempts failed", a.number)
	case a.number >= p.t.maxAttempts:
		return fmt.Sprintf("all %d attempts failed", a.number)
	}
	return "its time was over (MaxElapsed)"
}

// remember is the attempt's message as it was, copied out of the fetched batch.
func (a *attempt) remember() Message {
	r := *a.rec
	r.Key, r.Value, r.Headers, r.Timestamp = a.was.key, a.was.value, a.was.headers, a.was.time
	r.Topic, r.Partition, r.Offset = a.was.topic, a.was.partition, a.was.offset
	return Message{Record: cloneRecord(&r), Attempt: a.number, Source: a.p.name(a.it), FirstFailure: a.first, LastError: a.last}
}

// aside has the attempt's item wait in memory with a message of its own. The partition's lock is held.
func (a *attempt) aside(m Message, due int64, state watermark.State) {
	a.it.keep(m)
	a.it.in, a.it.ready = inHeap, due
	a.it.own.Load().due = due
	if a.run != nil {
		a.run.remember(a.index, a.it)
	}
	a.it.Set(state)
}

// postpone puts the record back in memory for a while, without spending an attempt (Postpone).
func (p *partition) postpone(a *attempt, d time.Duration) {
	d = min(d, p.t.maxDelay)
	it, due, m := a.it, ceilMilli(p.c.now().Add(d)).UnixMilli(), a.remember()
	p.mu.Lock()
	a.aside(m, due, watermark.Postponed)
	if p.stage.Load() == live {
		p.heap.push(entry{due: due, offset: it.offset, it: it})
		p.heldBytes += it.bytes()
		p.alarm()
	}
	p.mu.Unlock()
	p.c.heldHook(Held{Source: p.name(it), Attempt: a.number, Due: time.UnixMilli(due), Postponed: true})
	p.c.waker.wake(due)
}
