package retriable

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// BatchFunc handles several messages of one topic-partition at once. nil: all are done. A [*BatchError] says which failed, each with a verdict
// of its own; the rest is done. Abort and Postpone are for all of them. Any other error, Permanent included, a panic and a timeout spend no
// attempt: each message is then handed over once more, in a batch of one, and what is returned for that is the verdict on it. Nothing
// is dead-lettered for what was wrong with another.
//
// Batches respect the order (see [Ordering]): by key, messages of one key come in turn within a batch, and never in two that run at once;
// by partition a batch is a stretch of the log, and the only one that runs.
type BatchFunc func(ctx context.Context, batch []*Message) error

// BatchError is what a BatchFunc returns when some of its messages failed: Errs holds, by index in the batch, what a [Handler] would have returned
// for that message. The others are done. An index that is none counts as any other error: nothing is believed done then.
type BatchError struct{ Errs map[int]error }

// Error implements error.
func (e *BatchError) Error() string {
	return fmt.Sprintf("retriable: %d messages of a batch failed", len(e.failed()))
}

// Unwrap returns the errors of the messages that failed, in the batch's order.
func (e *BatchError) Unwrap() (errs []error) {
	for _, i := range e.failed() {
		errs = append(errs, e.Errs[i])
	}
	return errs
}

func (e *BatchError) failed() (is []int) {
	for i, err := range e.Errs {
		if err != nil {
			is = append(is, i)
		}
	}
	slices.Sort(is)
	return is
}

// BatchTopic consumes the named topic, and its retry topic, in batches. All topic options are good for it but BlockingRetries, for a batch has no
// place to wait in. Middleware sees a batch as one call, with its first message.
func BatchTopic(name string, fn BatchFunc, opts ...TopicOption) Option {
	return option(func(c *config) {
		t := &topicConfig{name: name, batch: true}
		if fn != nil {
			t.handler = batchHandler{fn}
		}
		t.apply(opts)
		c.topics = append(c.topics, t)
	})
}

// BatchSize bounds the messages of one batch of a [BatchTopic]. The default is 100.
func BatchSize(n int) TopicOption { return topicOption(func(t *topicConfig) { t.size = set(n) }) }

// BatchWait is how long a batch of a [BatchTopic] that is not full waits for more, counted from when its first message was read. The default is
// 100 ms; with 0 a batch is what there is. A batch is of one partition: with many partitions and few records they stay small. What waits by key
// behind a batch that runs joins the next, and does not count toward its being full.
func BatchWait(d time.Duration) TopicOption {
	return topicOption(func(t *topicConfig) { t.wait = set(d) })
}

// batching is how a BatchTopic is consumed.
type batching struct {
	size int
	wait time.Duration
}

// batchHandler is what the middleware of a BatchTopic wraps. The batch travels in the context.
type batchHandler struct{ fn BatchFunc }

type batchKey struct{}

// batch is one call of a BatchFunc.
type batchCall struct {
	p        *partition
	attempts []*attempt
	messages []*Message
	ctx      context.Context
	timedOut bool
	lost     []error // of each message, what it produced and nobody waited for
	called   bool    // with all of them, not only decided by a middleware that saw the first
}

// Handle implements Handler.
func (h batchHandler) Handle(ctx context.Context, m *Message) error {
	b, ok := ctx.Value(batchKey{}).(*batchCall)
	if !ok {
		return verdictOfOne(h.fn(ctx, []*Message{m})) // a middleware made a context of its own, or one record at a time runs (see crash.go)
	}
	b.called = true
	messages := slices.Clone(b.messages)
	messages[0] = m // as the middleware made it
	return h.fn(ctx, messages)
}

// Batch returns the messages of the batch that a middleware's handler is called with, in the batch's order, nil where it is called with one message
// of a [Topic]. They are those that the BatchFunc gets.
func Batch(ctx context.Context) []*Message {
	b, ok := ctx.Value(batchKey{}).(*batchCall)
	if !ok {
		return nil
	}
	return slices.Clone(b.messages)
}

// ripe reports whether there is a batch to run: a full one, or one that has waited. Otherwise it says when. p.mu is held.
func (p *partition) ripe() bool {
	n, oldest := 0, int64(maxDue)
	for r := p.claimable(); r != nil && n < p.t.batch.size; r = r.next {
		if i := int(r.cursor.Load()); i < r.len() {
			n += r.len() - i
			oldest = min(oldest, r.ready(i))
		}
	}
	p.ripens = maxDue
	if n == 0 {
		return false
	}
	due := oldest + p.t.batch.wait.Milliseconds()
	if n >= p.t.batch.size || due <= p.c.now().UnixMilli() {
		return true
	}
	p.ripens = due
	p.alarm()
	p.c.waker.wake(due)
	return false
}

// batchTurn is a turn at a partition that is handled in batches.
func (w *worker) batchTurn(p *partition) {
	var began time.Time
	n := 1
	for p.barred.Load() == 0 {
		items := w.collect(p)
		if len(items) == 0 {
			break
		}
		w.handBack(p, w.handleBatch(p, items))
		n += len(items)
		if (p.t.atOnce > 0 || w.pool.contended.Load()) && timeUp(max(n, 16)&^15, &began) {
			break
		}
	}
	w.refused, w.from, w.messages, w.room = n == 1, nil, nil, min(n, maxMessages)/2
}

// collect claims the items of a batch. What is to be tried alone comes alone.
func (w *worker) collect(p *partition) (items []*item) {
	p.mu.Lock()
	ripe := p.ripe()
	p.mu.Unlock()
	if !ripe {
		return nil
	}
	gated := len(p.t.bar.gates) > 0
	var places []place
	defer func() { p.rememberAll(places) }()
	w.from = nil // what was given back comes first
	for len(items) < p.t.batch.size {
		it := p.take(w)
		if it == nil {
			break
		}
		if it.is(alone) && len(items) > 0 || gated && !p.admits() {
			w.handOn(p, it)
			return items
		}
		it, from := w.lasting(it)
		if from != nil {
			places = append(places, place{from, w.index, it})
		}
		items = append(items, it)
		if it.is(alone) {
			return items
		}
	}
	return p.chain(items, gated)
}

// place is where an item that was made for the moment is to be remembered.
type place struct {
	run   *run
	index int
	it    *item
}

func (p *partition) rememberAll(places []place) {
	if len(places) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range places {
		at.run.remember(at.index, at.it)
	}
}

// chain adds what waits behind the items of a batch in their lanes, if it was claimed: it waits for nobody but the batch.
func (p *partition) chain(items []*item, gated bool) []*item {
	for i := 0; i < len(items) && len(items) < p.t.batch.size; i++ {
		if !items[i].keyed {
			continue
		}
		next := items[i].next.Load()
		if next == nil || next.is(alone) || next.gate.Load() != 1 || gated && !p.admits() || !begin(next.Slot) {
			continue
		}
		next.marks |= chained
		items = append(items, next)
	}
	return items
}

// handBack gives started items back to the workers, before all else.
func (w *worker) handBack(p *partition, items []*item) {
	if len(items) == 0 {
		return
	}
	for _, it := range items {
		it.Set(watermark.Queued)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pushFirst(&run{list: items, taken: true})
}

// handleBatch runs the BatchFunc, and returns what may start now that the lanes have moved on.
func (w *worker) handleBatch(p *partition, items []*item) (next []*item) {
	b := &batchCall{p: p}
	for _, it := range items {
		a := &attempt{ctx: p.ctx}
		w.begin(a, p, it)
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
