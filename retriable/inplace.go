package retriable

import (
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// BlockingRetries has a record of the base topic whose attempt failed tried again in place, n times at most, waiting as f says, before it goes to
// the retry topic, or without one to the dead letters. Only what must not pass it waits with it: its key (ByKey), its partition (ByPartition),
// nothing (Unordered). No worker waits, nothing is written, and a stop or a rebalance does not wait either. There is no default.
//
// These attempts count toward MaxAttempts. A restart or a hand-over between two of them begins them anew. Keep them few and quick: what waits
// behind one is pending and in memory. A [RetryAfter] goes to the retry topic if there is one, and else is waited for in place.
//
// Without a retry topic the order by key holds through all attempts of a record.
func BlockingRetries(n int, f BackoffFunc) TopicOption {
	return topicOption(func(t *topicConfig) { t.blocking = set(blockingRetries{n, f}) })
}

type blockingRetries struct {
	n       int
	backoff BackoffFunc
}

// blockingRetry says when a failed record is tried again in place; false if it is not.
func (p *partition) blockingRetry(a *attempt, k kind, after time.Duration) (due time.Time, ok bool) {
	t := p.t
	switch {
	case a.number > t.blocking.n, p.retry, k == kindPermanent:
		return due, false
	case t.retry != "" && (a.number >= t.maxAttempts || k == kindRetryAfter):
		return due, false // I8; nor is the other a quick one
	case k != kindRetryAfter:
		after = p.c.backoff(t, t.blocking.backoff, a.number)
	}
	return p.dueIn(a, after)
}

// waitInPlace keeps a record in memory until its next attempt, and its lane with it: it does not leave it.
func (p *partition) waitInPlace(a *attempt, due time.Time) {
	it, m := a.it, a.remember()
	m.Attempt, m.LastError, m.FirstFailure = a.number+1, wire.CleanError(a.text), time.UnixMilli(a.firstFailure())
	p.mu.Lock()
	a.aside(m, due.UnixMilli(), watermark.Held)
	if p.stage.Load() == live {
		p.inPlace.push(entry{due: it.ready, offset: it.offset, it: it})
		p.heldBytes += it.bytes()
		p.alarm()
		if p.t.order == ByPartition {
			p.barred.Or(barredByHead)
		}
	}
	p.mu.Unlock()
	p.c.heldHook(Held{Source: p.name(it), Attempt: m.Attempt, Due: due})
	p.c.waker.wake(due.UnixMilli())
}

// releaseInPlace gives what is due back to the workers, before all else. No bound holds it up: what waits behind it may be what fills the
// bound. It reports whether there was any. p.mu is held.
func (p *partition) releaseInPlace(now int64) bool {
	var due []*item
	for p.inPlace.top() <= now {
		it := p.inPlace.pop().it
		p.heldBytes -= it.bytes()
		due = append(due, it)
	}
	if len(due) == 0 || p.stage.Load() != live {
		return false
	}
	p.runs++
	r := &run{list: due, no: p.runs, taken: true}
	for _, it := range due {
		it.in = r.no
		it.Move(watermark.Held, watermark.Queued) // unless the log was cut below it
	}
	p.pushFirst(r)
	p.open = append(p.open, r)
	p.barred.And(^barredByHead)
	return true
}
