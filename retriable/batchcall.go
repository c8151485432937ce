package retriable

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// handleBatch runs the BatchFunc, and returns what may start now that the lanes have moved on.
func (w *worker) handleBatch(p *partition, items []*item) (next []*item) {
	b := &batchCall{p: p}
	for _, it := range items {
		one := attemptOf(p, it, w.message(p, it))
		a := &one
		w.note(a)
		a.was.headers = slices.Clone(a.was.headers)
		if err := w.keeps(a); err != nil {
			next = w.endOf(a, err, next)
			continue
		}
		b.attempts, b.messages = append(b.attempts, a), append(b.messages, a.m)
	}
	if len(b.attempts) == 0 {
		return next
	}
	return append(next, w.finishBatch(b, w.callBatch(b))...)
}

// keeps asks the filter: errFiltered if it rejects the record, a *PanicError if it panics.
func (w *worker) keeps(a *attempt) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return a.filter()
}

// endOf finishes one attempt of a batch.
func (w *worker) endOf(a *attempt, err error, next []*item) []*item {
	it := a.it
	if it.is(chained) && it.gate.Load() < 2 { // the one before it was aborted: nothing may pass that
		it.keyed = false
	}
	it.marks &^= chained
	if n := w.finish(a, err); n != nil {
		next = append(next, n)
	}
	return next
}

// callBatch calls the handler once for all, with whatever middleware is around it, as call does for one.
func (w *worker) callBatch(b *batchCall) (err error) {
	returned := false
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		} else if !returned {
			w.handBack(b.p, w.finishBatch(b, &PanicError{Stack: debug.Stack()}))
		}
	}()
	t := b.p.t
	b.ctx = b.p.ctx
	if t.timeout > 0 {
		ctx, cancel := context.WithTimeoutCause(b.ctx, t.timeout, ErrTimeout)
		defer cancel()
		b.ctx = ctx
		defer func() { b.timedOut = errors.Is(context.Cause(ctx), ErrTimeout) }()
	}
	err = t.handler.Handle(context.WithValue(b.ctx, batchKey{}, b), b.messages[0])
	for _, a := range b.attempts {
		b.lost = append(b.lost, b.p.out.flush(b.ctx, a.it.offset, nil))
	}
	returned = true
	return err
}

// finishBatch takes the verdicts.
func (w *worker) finishBatch(b *batchCall, err error) (next []*item) {
	p := b.p
	if p.stage.Load() >= cancelled {
		return nil // I4
	}
	verdicts, ok := b.verdicts(err)
	if !ok {
		return w.oneByOne(b, err)
	}
	for i, a := range b.attempts {
		a.timedOut = b.timedOut
		if i < len(b.lost) && b.lost[i] != nil {
			verdicts[i] = errors.Join(verdicts[i], b.lost[i])
		}
		next = w.endOf(a, verdicts[i], next)
	}
	return next
}

// verdicts is what the batch's error says of each message; false if it says nothing of them.
func (b *batchCall) verdicts(err error) (errs []error, ok bool) {
	n := len(b.attempts)
	errs = make([]error, n)
	fill := func(err error) ([]error, bool) {
		for i := range errs {
			errs[i] = err
		}
		return errs, true
	}
	if n == 1 {
		return []error{verdictOfOne(err)}, true
	}
	if b.timedOut {
		return nil, false
	}
	k, each := inspectBatch(err)
	switch {
	case err == nil:
		return errs, b.called // a middleware that did not call the handler has not seen the rest
	case each == nil && (k == kindAbort || k == kindPostpone):
		return fill(err)
	case each == nil || !b.called:
		return nil, false
	}
	for i, e := range each.Errs {
		if i < 0 || i >= n {
			return nil, false
		}
		if e != nil && k == kindPostpone {
			e = errors.Join(e, err) // a middleware postpones what failed
		}
		errs[i] = e
	}
	return errs, true
}

// verdictOfOne is of a batch of one: its error is the message's.
func verdictOfOne(err error) error {
	k, each := inspectBatch(err)
	if each == nil || len(each.Errs) > 1 {
		return err
	}
	e, ok := each.Errs[0]
	if !ok && len(each.Errs) > 0 {
		return err
	}
	if e != nil && k == kindPostpone {
		return errors.Join(e, err)
	}
	return e
}

// inspectBatch finds a BatchError in a batch's error, and the verdict that was put around it or stands alone. The methods of the error are the
// user's and may panic: such a one is an ordinary error.
func inspectBatch(err error) (k kind, each *BatchError) {
	defer func() {
		if recover() != nil {
			k, each = kindFailed, nil
		}
	}()
	k = kindFailed
	errors.As(err, &each)
	inside := map[*verdict]bool{}
	if each != nil {
		for _, e := range each.Errs {
			walk(e, func(v *verdict) { inside[v] = true })
		}
	}
	walk(err, func(v *verdict) {
		if !inside[v] {
			k = min(k, v.kind)
		}
	})
	return k, each
}

// oneByOne has each message of a batch tried again by itself. No attempt is spent. They go on as they were: what was chained waits in its lane.
func (w *worker) oneByOne(b *batchCall, err error) (next []*item) {
	p := b.p
	p.c.sometimes(&p.c.batchLogged, func() {
		p.c.log.Warn("retriable: a batch failed as a whole and is tried again one by one; a BatchError would say which message failed",
			"topic", p.topic, "partition", p.partition, "messages", len(b.attempts), "error", errorType(err))
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range b.attempts {
		it := a.it
		it.keep(a.remember()) // whatever the handler did to its message
		it.own.Load().due = a.due
		it.marks |= alone
		if it.is(chained) {
			it.marks &^= chained
			it.Set(watermark.Queued) // it was claimed: whoever ends the one before it starts it
		} else {
			next = append(next, it)
		}
	}
	return next
}
