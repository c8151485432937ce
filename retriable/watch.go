package retriable

import (
	"context"
	"fmt"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// stillness is how long a partition's watermark has not moved; guarded by the partition's lock.
type stillness struct {
	at    int64
	since time.Time // zero until the watch has looked
	told  bool

	reason      Reason // of the record at it
	reasonSince time.Time
}

// watch looks after what does not move: watermarks, and handlers that run for too long.
func (c *Consumer) watch(ctx context.Context) {
	tick := time.NewTicker(min(max(c.set.stuckAfter/8, 10*time.Millisecond), 5*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-tick.C:
			c.pool.sample(at)
			now := c.now()
			c.watchCare(now)
			for _, p := range c.partitions() {
				if o, told := p.watch(now); told {
					c.tellStuck(p, o)
				}
			}
			c.askAgain(ctx, time.Now())
		}
	}
}

// watch reports the oldest record once it has held the watermark for StuckAfter, once per incident.
func (p *partition) watch(now time.Time) (o Oldest, tell bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weigh() // lets go of what has ended, also where nothing is read any more
	low, _ := p.window.Advance()
	p.lookAt(now, func(int64, watermark.State, RunningRecord) {})
	o, ok := p.oldest()
	if ok && o.Reason == ReasonQueued && p.barred.Load()&barredPaused != 0 {
		ok = false // it waits for Resume, which is no fault
	}
	if s := &p.still; !ok || s.since.IsZero() || s.at != low {
		*s = stillness{at: low, since: now}
		if ok && o.Since.After(s.since) {
			s.since = o.Since
		}
		s.reason, s.reasonSince = o.Reason, s.since
		return o, false
	}
	if p.still.reason != o.Reason {
		p.still.reason, p.still.reasonSince = o.Reason, now
	}
	o.ReasonSince = p.still.reasonSince
	if p.still.told || now.Sub(p.still.since) < p.c.set.stuckAfter {
		return o, false
	}
	p.still.told = true
	return o, true
}

// stuck returns the oldest record if it has been told of and is not merely waiting for its time.
func (p *partition) stuck() (o Oldest, stuck bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	low, _ := p.window.Advance()
	o, ok := p.oldest()
	return o, ok && p.still.told && p.still.at == low && !o.waits()
}

// waits reports whether the record only waits for its time, or for the rest of its message, which has a deadline of its own: that is no
// fault.
func (o Oldest) waits() bool {
	return o.Reason == ReasonHeld || o.Reason == ReasonPostponed || o.Reason == ReasonJoining
}

func (c *Consumer) tellStuck(p *partition, o Oldest) {
	level := c.log.Warn
	if o.waits() {
		level = c.log.Debug // it is as it should be
	}
	args := []any{
		"record",
		Position{p.topic, p.partition, o.Offset},
		"reason", string(o.Reason), "reason since", o.ReasonSince,
		"attempt", o.Attempt, "age", c.now().Sub(o.Since).Round(time.Second), "since", o.Since,
	}
	if o.KeyHash != 0 {
		args = append(args, "key hash", fmt.Sprintf("%04x", o.KeyHash)) // which tells its lane
	}
	if !o.Until.IsZero() {
		args = append(args, "until", o.Until)
	}
	if o.Topic != "" {
		args = append(args, "written to", o.Topic)
	}
	level("retriable: the committed offset does not move; this record holds it", args...)
	s := Stuck{Topic: p.topic, Partition: p.partition, Oldest: o}
	call(c, c.hook.stuck, func(h HookStuck) { h.OnStuck(s) })
}

// sample finds the handlers that run for longer than StuckAfter: those whose worker has ended nothing since it was last seen so. When they
// take more than three quarters of the workers others are lent in their place, for partitions that are not stuck (I11): one that is gets no
// more of them, so that what can be lent is bounded by the partitions.
func (pl *pool) sample(now time.Time) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	before := pl.stuck
	pl.stuck = map[*partition]struct{}{}
	n := 0
	for _, w := range pl.all {
		if w.at == nil {
			continue
		}
		c := w.at.c
		if e := c.counts(w).ended(); w.since.IsZero() || e != w.seen {
			w.seen, w.since = e, now
			continue
		}
		if now.Sub(w.since) >= c.set.stuckAfter {
			n++
			pl.stuck[w.at] = struct{}{}
		}
	}
	pl.lent = 0
	if pl.n > 1 {
		pl.lent = min(max(n-pl.most(), 0), 3*pl.n)
	}
	if len(before)+len(pl.stuck) > 0 {
		pl.updateAll()
	}
	pl.spawn()
}

// handledHook tells of an attempt.
func (c *Consumer) handledHook(a *attempt, v Verdict, err error) {
	now := c.now()
	e := Handled{Message: a.m, Began: a.began, Took: now.Sub(a.began), Waited: a.waited, Verdict: v, Err: err}
	if a.due > 0 {
		e.Due = time.UnixMilli(a.due)
	}
	call(c, c.hook.handled, func(h HookHandled) { h.OnHandled(e) })
}

func (c *Consumer) heldHook(e Held) {
	call(c, c.hook.held, func(h HookHeld) { h.OnHeld(e) })
}

// sometimes runs f at most once a minute.
func (c *Consumer) sometimes(last *time.Time, f func()) {
	c.failMu.Lock()
	now := time.Now()
	due := now.Sub(*last) >= time.Minute
	if due {
		*last = now
	}
	c.failMu.Unlock()
	if due {
		f()
	}
}
