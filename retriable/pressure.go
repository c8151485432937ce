package retriable

import (
	"context"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Back-pressure is per partition: what has reached a bound is paused in kgo, and resumed at half of it. A pause drops what kgo has
// buffered of the partition, so a partition whose workers are about to catch up is first given a moment.

const (
	unknownSize  = 16 << 10              // of a record, until there was one
	patience     = 20 * time.Millisecond // for a partition at its bound before it is paused
	patienceStep = 2 * time.Millisecond  // between two looks meanwhile: a look costs what is pending
	copyEvery    = 100 * time.Millisecond
	reliefEvery  = 5 * time.Millisecond // between two looks at what may be resumed
)

// look takes a partition's load: what it adds to the bytes of all.
func (p *partition) look() load {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.weigh()
}

// weigh is look with p.mu held.
func (p *partition) weigh() load {
	if p.stage.Load() == fenced {
		return load{} // its share is given back
	}
	l := p.load()
	p.c.bytes.Add(l.bytes - p.bytes)
	p.bytes = l.bytes
	return l
}

// room is how many more records the bounds let in.
func (c *Consumer) room(l load) int {
	if l.pending+l.held > 0 && (l.span >= c.set.maxWindow || !c.mapFits(l, 1, l.low+l.span+1, 1)) {
		return 0
	}
	return max(min(c.set.maxPending-l.pending, l.maxHeld-l.held), 0)
}

// within is how many of recs lie inside MaxWindow, and inside what the map can tell of; the first always does if nothing is unresolved
// below it.
func (c *Consumer) within(recs []*kgo.Record, l load) int {
	alone := l.pending+l.held == 0
	if alone && len(recs) > 0 {
		l.low = recs[0].Offset
	}
	n := sort.Search(len(recs), func(i int) bool { return recs[i].Offset >= l.low+c.set.maxWindow })
	if n > 0 && !c.mapRoom(l, recs, n) {
		n = sort.Search(n, func(i int) bool { return !c.mapRoom(l, recs, i+1) })
	}
	if n == 0 && alone {
		return min(len(recs), 1)
	}
	return n
}

// forget takes a partition's bytes out of the sum. p.mu is held.
func (p *partition) forget() {
	p.c.bytes.Add(-p.bytes)
	p.bytes = 0
}

// mayRead bounds the next poll by what is left of the bytes, going by the size of the largest of late. Otherwise a poll takes all that kgo
// has, which only then fetches more: that goes on while this is handled.
func (c *Consumer) mayRead() int {
	left := c.set.maxPendingBytes - c.bytes.Load()
	return int(min(max(left/max(c.recordSize.Load(), itemBytes), 1), math.MaxInt32))
}

// full reports whether a partition is at a bound: something read has no room, or the bytes have none. The bytes are one budget: at its
// limit those above their fair share wait, and one with nothing in memory never does (I10).
func (c *Consumer) full(p *partition, l load) bool {
	return p.waiting() > 0 || c.room(l) == 0 || c.bytes.Load() >= c.set.maxPendingBytes && l.bytes > c.fairShare()
}

// bounds says which are meant: where none is known, all.
type bounds struct{ pending, held, window, mapped, bytes bool }

// reached says at which bounds a partition is.
func (c *Consumer) reached(l load) bounds {
	return bounds{
		pending: l.pending >= c.set.maxPending,
		held:    l.held >= l.maxHeld,
		window:  l.span >= c.set.maxWindow,
		mapped:  !c.mapFits(l, 1, l.low+l.span+1, 1),
		bytes:   c.bytes.Load() >= c.set.maxPendingBytes && l.bytes > c.fairShare(),
	}
}

// relaxed reports whether a paused partition is at half of the bounds for which it was paused, and below the others.
func (c *Consumer) relaxed(l load, why bounds) bool {
	now, s := c.reached(l), c.set
	if now != (bounds{}) {
		return false
	}
	all := why == bounds{}
	return (!all && !why.pending || l.pending <= s.maxPending/2) &&
		(!all && !why.held || l.held <= l.maxHeld/2) &&
		(!all && !why.window || l.span <= s.maxWindow/2) &&
		(!all && !why.mapped || c.mapFits(l, 0, l.low+l.span, 2)) &&
		(!all && !why.bytes || c.bytes.Load() <= s.maxPendingBytes/2 || l.bytes <= c.fairShare()/2)
}

func (c *Consumer) fairShare() int64 {
	return c.set.maxPendingBytes / int64(max(1, len(c.partitions())))
}

// crowd pauses what is at a bound, after a moment of patience if work could still relieve it.
func (c *Consumer) crowd(ctx context.Context) {
	tick := time.NewTicker(patienceStep)
	defer tick.Stop()
	for range patience / patienceStep {
		if len(c.crowded(true)) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	c.pause(c.crowded(false))
}

// crowded returns the partitions at a bound that are not paused yet. With hopeful those are paused at once, and left out, whose bound
// running handlers cannot relieve.
func (c *Consumer) crowded(hopeful bool) (at []*partition) {
	if now := time.Now(); c.bytes.Load() >= c.set.maxPendingBytes && now.Sub(c.copied) >= copyEvery {
		c.copied = now
		c.copyAllOut()
	}
	c.gate.shut(func() { // nothing is let in beside
		var hopeless []*partition
		for _, p := range c.partitions() {
			if p.paused.Load() != 0 || p.stage.Load() != live {
				continue
			}
			p.admit(c.now())
			l := p.look()
			switch {
			case !c.full(p, l):
				p.crowded.Store(p.overdue.Load())
			case hopeful && l.pending == 0:
				hopeless = append(hopeless, p)
			default:
				p.crowded.Store(true)
				at = append(at, p)
			}
		}
		c.setFull(hopeless)
	})
	c.tell()
	return at
}

// pause stops the reading of what is at a bound.
func (c *Consumer) pause(parts []*partition) {
	if len(parts) > 0 {
		c.gate.shut(func() { c.setFull(parts) }) // not while a poll or an assignment is under way
		c.tell()
	}
}

// setFull is pause with the gate held.
func (c *Consumer) setFull(parts []*partition) {
	for _, p := range parts {
		p.crowded.Store(true)
		p.why = c.reached(p.look())
	}
	c.setPaused(parts, pausedFull, true)
	if len(parts) > 0 {
		c.relieve() // it may have been relieved meanwhile
	}
}

// Why a partition is not fetched; it is fetched again when none of them is left.
const (
	pausedFull    = 1 << iota // it is at a bound
	pausedStalled             // it could not be read a moment ago
	pausedByUser              // Pause
)

// setPaused adds or takes away a reason; the gate is held.
func (c *Consumer) setPaused(parts []*partition, why int32, on bool) {
	m := map[string][]int32{}
	for _, p := range parts {
		if on && p.stage.Load() != live {
			continue
		}
		before := p.paused.Load()
		after := before &^ why
		if on {
			after = before | why
		}
		p.paused.Store(after)
		if (before == 0) != (after == 0) {
			m[p.topic] = append(m[p.topic], p.partition)
			p.doubt(after == 0)
			p.tellPaused(after)
		}
	}
	switch {
	case len(m) == 0:
	case on:
		c.cl.PauseFetchPartitions(m)
	default:
		c.cl.ResumeFetchPartitions(m)
	}
}

// tellPaused has the hooks told, once the gate is open, that a partition is not fetched, or is again. One that is given up is neither.
func (p *partition) tellPaused(why int32) {
	if len(p.c.hook.paused) == 0 || p.stage.Load() != live {
		return
	}
	e := Paused{Topic: p.topic, Partition: p.partition, Paused: why != 0}
	for bit, reason := range [...]PauseReason{PauseBound, PauseStalled, PauseUser} {
		if why&(1<<bit) != 0 {
			e.Reasons = append(e.Reasons, reason)
		}
	}
	p.c.later(pauseReport{p.c, e})
}

// pauseReport is what the hooks are told of a pause.
type pauseReport struct {
	c *Consumer
	e Paused
}

func (r pauseReport) report() { call(r.c, r.c.hook.paused, func(h HookPaused) { h.OnPaused(r.e) }) }

// relieve has the paused partitions looked at again.
func (c *Consumer) relieve() {
	select {
	case c.relief <- struct{}{}:
	default:
	}
}

// relieveLoop resumes what is relaxed again. It does not depend on polls, which bring nothing while all is paused.
func (c *Consumer) relieveLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.relief:
		}
		began := time.Now()
		c.relax()
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(reliefEvery, 20*time.Since(began))): // it costs what is pending: a twentieth of a core at most
		}
	}
}

// relax resumes the partitions that are at half of every bound, after letting in what waits for them.
func (c *Consumer) relax() {
	var full []*partition
	for _, p := range c.partitions() {
		if p.overdue.Load() {
			c.waker.wake(p.release(c.now().UnixMilli())) // what is due later waited behind it, out of the alarm's sight
		}
		if p.paused.Load()&pausedFull != 0 {
			full = append(full, p)
		}
	}
	if len(full) == 0 {
		return
	}
	c.gate.shut(func() {
		c.setPaused(slices.DeleteFunc(full, func(p *partition) bool {
			if p.stage.Load() != live {
				return true
			}
			p.admit(c.now())
			if !c.relaxed(p.look(), p.why) || p.waiting() > 0 {
				return true
			}
			p.crowded.Store(p.overdue.Load())
			return false
		}), pausedFull, false)
	})
	c.tell()
}

// copyAllOut copies what waits in batches that are mostly done, so that their memory is free again.
func (c *Consumer) copyAllOut() {
	for _, p := range c.partitions() {
		p.mu.Lock()
		for _, r := range p.open {
			p.copyOut(r)
		}
		p.mu.Unlock()
		p.look()
	}
}
