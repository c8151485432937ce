package retriable

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// attempt is one call of a handler: which record it has, and what that was before anyone outside saw it.
type attempt struct {
	p        *partition
	it       *item
	run      *run // where its item is to be remembered, if it was made for the moment, and as which
	index    int
	m        *Message // the handler's
	ctx      context.Context
	began    time.Time // zero if nobody wants to know
	waited   time.Duration
	due      int64     // in ms, 0 for none or if nobody wants to know
	ended    time.Time // see now
	timedOut bool      // the handler's time had passed when it returned
	deferred bool      // its first, of a scheduled record that was written again

	// What its error said; see inspect.
	text     string
	cause    error // that a verdict wraps
	panicked *PanicError

	// What the message was: handlers and middleware may have changed it.
	number int
	first  time.Time
	last   string
	rec    *kgo.Record
	was    was
}

// was is what a copy of the record needs of it. Only that is noted before the handler has it, for a record is large and nearly all are handled
// well.
type was struct {
	key, value []byte
	headers    []kgo.RecordHeader
	time       time.Time
	topic      string
	partition  int32
	offset     int64
	context    context.Context //nolint:containedctx // the record's own, nil without hooks that could have set one
}

// chain wraps a handler so that its panics are errors already to the middleware around it; what those panic with is
// caught around the whole.
func chain(h Handler, mw []Middleware) Handler {
	if len(mw) == 0 {
		return h
	}
	inner := h
	h = HandlerFunc(func(ctx context.Context, m *Message) (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = &PanicError{Value: v, Stack: debug.Stack()}
			}
		}()
		return inner.Handle(ctx, m)
	})
	for i := len(mw) - 1; i >= 0 && h != nil; i-- {
		h = mw[i](h)
	}
	return h
}

// bare is a record of a base topic without the library's headers: whoever may write there could have put them there (I12).
func bare(r *kgo.Record) *kgo.Record {
	if len(r.Headers) == 0 {
		return r
	}
	user := wire.User(r.Headers)
	if len(user) == len(r.Headers) {
		return r
	}
	c := *r
	c.Headers = user
	return &c
}

// message is what the handler of an item gets.
func (p *partition) message(it *item) Message {
	if o := it.own.Load(); o != nil {
		return o.Message
	}
	return Message{Record: bare(it.rec), Attempt: 1, Source: p.name(it)}
}

// maxMessages is how many messages a worker makes room for at once: as many as it needed of late, but not so many that one which is kept keeps
// much in memory.
const maxMessages = 64

// message is the same, in room that the worker made for several at once.
func (w *worker) message(p *partition, it *item) (m *Message) {
	switch o := it.own.Load(); {
	case o != nil:
		m = &o.Message
	case p.t.recycle:
		if w.again == nil {
			w.again = new(Message)
		}
		m = w.again
		*m = Message{Record: bare(it.rec), Attempt: 1, Source: p.name(it)}
	default:
		if w.used == len(w.messages) {
			w.room = min(max(2*w.room, 1), maxMessages)
			w.messages, w.used = make([]Message, w.room), 0
		}
		m = &w.messages[w.used]
		w.used++
		m.Record, m.Attempt, m.Source = bare(it.rec), 1, p.name(it)
	}
	m.out, m.at = &p.out, it.offset
	return m
}

// lasting gives an item that was made for the moment a place of its own, for it is going to be spoken of after that. It returns the run where it
// is to be remembered, nil for any other item.
func (w *worker) lasting(it *item) (*item, *run) {
	if it != &w.item {
		return it, nil
	}
	return &item{Slot: it.Slot, offset: it.offset, rec: it.rec, marks: it.marks, ready: it.ready}, w.from
}

// handle runs the handler for an item that has started, and returns the next of its lane if that is to run now.
func (w *worker) handle(p *partition, it *item) *item {
	a := attemptOf(p, it, w.message(p, it))
	if p.extra || len(a.was.headers) > 0 {
		w.note(&a)
	}
	return w.finish(&a, w.call(&a))
}

// attemptOf is the attempt of an item that has started. It is small enough to be made in its caller's frame, where no write barriers are.
func attemptOf(p *partition, it *item, m *Message) attempt {
	r := m.Record
	return attempt{p: p, it: it, m: m, ctx: p.ctx, number: m.Attempt, first: m.FirstFailure, last: m.LastError, rec: r, was: was{
		key: r.Key, value: r.Value, headers: r.Headers, time: r.Timestamp,
		topic: m.Source.Topic, partition: m.Source.Partition, offset: m.Source.Offset,
	}}
}

// note is for what only some records have.
func (w *worker) note(a *attempt) {
	p, r := a.p, a.rec
	if len(r.Headers) > 0 {
		w.headers = append(w.headers[:0], r.Headers...)
		a.was.headers = w.headers
	}
	if p.retry {
		a.deferred = a.number == 1 && p.t.scheduled > 0
		a.was.topic, a.was.partition, a.was.offset = r.Topic, r.Partition, r.Offset
	}
	if p.c.set.client.hooked {
		a.was.context = r.Context //nolint:fatcontext // it is noted, not wrapped
	}
	if p.c.timed {
		a.began = a.p.c.now()
		a.waited = max(a.began.Sub(time.UnixMilli(a.it.ready)), 0)
		if o := a.it.own.Load(); o != nil {
			a.due = o.due
		}
	}
}

// call asks the filter and then the handler. A panic of either is its error. A handler that ends its goroutine fails like one that
// panics; the worker goes on in another (see worker.run).
func (w *worker) call(a *attempt) (err error) {
	returned := false
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		} else if !returned {
			if next := w.finish(a, &PanicError{Stack: debug.Stack()}); next != nil {
				w.handOn(a.p, next)
			}
		}
	}()
	err = w.ask(a)
	returned = true
	return err
}

func (w *worker) ask(a *attempt) error {
	t := a.p.t
	if a.was.context != nil {
		a.ctx = a.p.c.withValues(a.p.ctx, a.was.context)
	}
	if t.filter != nil {
		if err := a.filter(); err != nil {
			return err
		}
	}
	if t.timeout > 0 {
		return callTimed(a, t)
	}
	return a.p.out.flush(a.ctx, a.it.offset, t.handler.Handle(a.ctx, a.m))
}

// filter asks the topic's filter, once for each record of the base topic.
func (a *attempt) filter() error {
	t := a.p.t
	if t.filter == nil || a.it.is(asked) || a.p.retry && !a.deferred {
		return nil
	}
	if !t.filter(a.m.Record) {
		return errFiltered
	}
	a.it.marks |= asked
	return nil
}

func callTimed(a *attempt, t *topic) error {
	ctx, cancel := context.WithTimeoutCause(a.ctx, t.timeout, ErrTimeout)
	defer cancel()
	a.ctx = ctx
	defer func() { a.timedOut = errors.Is(context.Cause(ctx), ErrTimeout) }()
	return a.p.out.flush(ctx, a.it.offset, t.handler.Handle(ctx, a.m))
}

// errFiltered is how call says that the filter rejected the record.
var errFiltered = errors.New("retriable: filtered")

// withValues is ctx with the values of the record's own context, if a hook of kgo gave it one.
func (c *Consumer) withValues(ctx, record context.Context) context.Context {
	if record == nil || record == c.clientContext {
		return ctx
	}
	return valuesOf{ctx, record}
}

// valuesOf ends as the Context does and has the values of both.
type valuesOf struct {
	context.Context
	values context.Context //nolint:containedctx // that is its purpose
}

func (c valuesOf) Value(key any) any {
	if v := c.values.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}

// finish takes the verdict when the handler has returned, and returns the next of the lane if that is to run now.
func (w *worker) finish(a *attempt, err error) (next *item) {
	p, it := a.p, a.it
	if p.stage.Load() >= cancelled {
		return nil // I4: what it returned does not count, and its lane is not free
	}
	v := VerdictDone
	switch {
	case a.timedOut && !a.honoured(err):
		err = a.late(err) // I4: one failed attempt, whatever it returned
		v, next = w.settle(a, err)
	case err == nil:
		p.c.counts(w).handled.Add(1)
		next = it.leave()
		it.plainly()
		if p.t.recycle && !a.began.IsZero() {
			p.tellThenResolve(a)
			v = "" // it is told
		} else {
			p.resolve(it)
		}
	case err == errFiltered: //nolint:errorlint // our own, from call
		p.c.counts(w).filtered.Add(1)
		p.resolve(it)
		next, v = it.leave(), ""
	default:
		v, next = w.settle(a, err)
	}
	if !a.began.IsZero() && v != "" {
		p.c.handledHook(a, v, err)
	}
	if p.crowded.Load() {
		p.c.relieve()
	}
	return next
}

// handOn gives an item of a lane, started, back to the workers.
func (w *worker) handOn(p *partition, it *item) {
	it, from := w.lasting(it)
	it.marks |= listed
	it.Set(watermark.Queued)
	p.mu.Lock()
	defer p.mu.Unlock()
	if from != nil {
		from.remember(w.index, it)
	}
	p.pushFirst(&run{list: []*item{it}, taken: true})
}

// frames names the functions of a panic's stack, innermost first, without their arguments, which may be payloads.
func (e *PanicError) frames() (names []string) {
	for line := range strings.Lines(string(e.Stack)) {
		if i := strings.LastIndexByte(line, '('); i > 0 && line[0] != '\t' && len(names) < 12 {
			names = append(names, line[:i])
		}
	}
	return names
}
