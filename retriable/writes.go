package retriable

import (
	"iter"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// writes are a partition's copies that are not acked. They are a list through the copies themselves, for each record that fails comes and goes.
type writes struct{ first *write }

// add puts a copy into the list.
func (l *writes) add(w *write) {
	w.next, w.listed = l.first, true
	if l.first != nil {
		l.first.prev = w
	}
	l.first = w
}

// remove takes a copy out, and reports whether it was there: at the fence all are given up.
func (l *writes) remove(w *write) bool {
	if !w.listed {
		return false
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.listed = nil, nil, false
	return true
}

// clear takes all out.
func (l *writes) clear() {
	for l.first != nil {
		l.remove(l.first)
	}
}

// all returns them, the newest first.
func (l *writes) all() iter.Seq[*write] {
	return func(yield func(*write) bool) {
		for w := l.first; w != nil; w = w.next {
			if !yield(w) {
				return
			}
		}
	}
}

// writeFailed tells of a refusal, and once per incident logs it.
func (c *Consumer) writeFailed(w *write, topic string, err error, wait time.Duration) {
	c.total.produceFailures.Add(1)
	c.failMu.Lock()
	f := c.failing[topic]
	first := f == nil
	if first {
		f = &ProduceError{Topic: topic, Since: time.Now()}
		c.failing[topic] = f
		c.refusing.Store(true)
	}
	f.Err = err
	c.failMu.Unlock()
	if first {
		c.log.Warn("retriable: writes are refused; their records stay pending and the writes are tried again until they succeed",
			"topic", topic, "record", w.p.name(w.it), "error", err)
	}
	e := ProduceFailed{Source: w.p.name(w.it), Topic: topic, Try: w.tries, Err: err, NextTry: wait}
	call(c, c.hook.produceFailed, func(h HookProduceFailed) { h.OnProduceFailed(e) })
}

// writeEnded ends an incident with the first write that is accepted.
func (c *Consumer) writeEnded(topic string) {
	if !c.refusing.Load() {
		return
	}
	c.failMu.Lock()
	f := c.failing[topic]
	delete(c.failing, topic)
	c.refusing.Store(len(c.failing) > 0)
	c.failMu.Unlock()
	if f != nil {
		c.log.Warn("retriable: writes are accepted again", "topic", topic, "after", time.Since(f.Since).Round(time.Millisecond))
	}
}

// wroteHook counts a copy that was acked and tells the hooks.
func (c *Consumer) wroteHook(w *write, r *kgo.Record) {
	for i, m := range w.chunks {
		c.total.deadLettered.Add(1)
		e := DeadLettered{Message: m, Err: w.err, Topic: r.Topic, Offset: r.Offset - int64(len(w.chunks)-1-i)}
		call(c, c.hook.deadLettered, func(h HookDeadLettered) { h.OnDeadLettered(e) })
	}
	if w.chunks != nil {
		return
	}
	if w.dead {
		c.total.deadLettered.Add(1)
		e := DeadLettered{Message: w.m, Err: w.err, Topic: r.Topic, Offset: w.offset}
		call(c, c.hook.deadLettered, func(h HookDeadLettered) { h.OnDeadLettered(e) })
		return
	}
	if w.moved {
		c.total.rewritten.Add(1)
		e := Rewritten{Source: w.p.name(w.it), Topic: r.Topic, Attempt: w.attempt, Due: w.due}
		call(c, c.hook.rewritten, func(h HookRewritten) { h.OnRewritten(e) })
		return
	}
	c.total.retried.Add(1)
	e := Retried{Message: w.m, Err: w.err, Topic: r.Topic, Attempt: w.attempt, Due: w.due}
	call(c, c.hook.retried, func(h HookRetried) { h.OnRetried(e) })
}
