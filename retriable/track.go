package retriable

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// accept takes the records of a poll, in the gate, and tracks as many as the bounds let in. The rest
// waits untracked. It reports whether the partition is at a bound.
func (p *partition) accept(recs []*kgo.Record, end int64, now time.Time) (full bool) {
	p.mu.Lock()
	p.end = max(p.end, end)
	late := p.unread != nil && p.end >= 0
	if late {
		p.readMap(*p.unread, true)
	}
	if p.strays(recs) {
		recs = nil
	}
	if len(recs) > 0 {
		p.blocked, p.stalls, p.doubted = nil, 0, time.Time{}
		if len(p.stash) == 0 {
			p.stash = recs
		} else {
			p.stash = append(p.stash, recs...)
		}
	}
	p.mu.Unlock()
	if late {
		p.c.takeCare()
	}
	return p.admit(now)
}

// strays reports whether records are not to be believed: of a partition that kgo gave us while we had it, it may go on with what it had read
// before, from further on than it was told to begin. What lies between would be passed by the next commit (I2), so the records are dropped and
// kgo is told again (see seek); where it begins then, it begins. p.mu is held.
func (p *partition) strays(recs []*kgo.Record) bool {
	if !p.unsure || len(recs) == 0 {
		return false
	}
	if !p.astray && recs[0].Offset <= p.window.Next() {
		p.unsure = false
		return false
	}
	p.astray = true
	p.c.renewer.wake()
	return true
}

// batchRecords is how many records become one batch at most: so many messages still fit the allocator's small classes.
const batchRecords = 1 << batchBits

const batchBits = 8

// batchHeld is the same where records are held, for very different times: the last one of a batch keeps the room of all its items.
const batchHeld = 32

// admit tracks what waits as far as the bounds let it, and gives it to the workers or the heap. Only the poller, and who has shut the
// gate, calls it. It reports whether the partition is at a bound.
func (p *partition) admit(now time.Time) (full bool) {
	for {
		p.mu.Lock()
		l := p.weigh()
		room := p.c.room(l)
		n := p.c.within(p.stash[:min(len(p.stash), room)], l)
		recs, cut := p.fresh(p.stash[:n])
		claims := p.claims
		p.stash = p.stash[n:]
		rest, skip := len(p.stash), p.skip
		if rest == 0 {
			p.stash = nil
		}
		p.mu.Unlock()
		if cut {
			p.c.log.Warn("retriable: the log was cut; what was read above is forgotten and read again",
				"topic", p.topic, "partition", p.partition, "offset", recs[0].Offset)
		}
		p.acceptAll(recs, claims, now)
		if rest == 0 && skip > 0 {
			p.skipTo(skip)
		}
		if n == 0 || rest == 0 {
			p.watchHeld(now)
			return rest > 0 || n == room
		}
	}
}

// skipTo moves the read position after a Skip: only once all that was read below it is tracked, or a commit might pass it (I2).
func (p *partition) skipTo(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.window.SkipTo(next)
}

// acceptAll tracks records, a batch at a time.
func (p *partition) acceptAll(recs []*kgo.Record, claims []watermark.Run, now time.Time) {
	work, most := false, batchRecords
	if p.nextDue.Load() != maxDue {
		most = batchHeld
	}
	for len(recs) > 0 {
		n := min(len(recs), most)
		for recs[n-1].LeaderEpoch != recs[0].LeaderEpoch { // they only grow
			n--
		}
		in := intake{p: p, now: now, claims: claims, hashes: p.c.hashes[:0]}
		work = in.accept(recs[:n]) || work
		if in.odd() {
			odd := in
			p.c.later(&odd)
		}
		p.c.hashes = in.hashes
		recs = recs[n:]
	}
	if work {
		p.c.pool.wake(p)
	}
}

// waiting is how many records are read but not let in.
func (p *partition) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.stash)
}

// report is something to be told of.
type report interface{ report() }

// later has something told of once the gate is open. The gate is held.
func (c *Consumer) later(r report) {
	c.told = append(c.told, r)
	c.odd.Store(true)
}

// tell reports what happened in the gate, now that it is open.
func (c *Consumer) tell() {
	var told []report
	if !c.odd.Swap(false) {
		return
	}
	c.gate.shut(func() { told, c.told = c.told, nil })
	for _, r := range told {
		r.report()
	}
}

// fresh drops what is tracked already: offsets can go backwards under a live assignment. A record with a newer leader epoch is another
// record at an offset of old: the log was cut there, and what was tracked above goes with it. p.mu is held.
func (p *partition) fresh(recs []*kgo.Record) (kept []*kgo.Record, cut bool) {
	for i, r := range recs {
		next, epoch := p.window.Next(), p.window.Epoch()
		switch {
		case r.Offset >= next:
			return recs[i:], false
		case r.LeaderEpoch > epoch && epoch >= 0:
			p.cut(r.Offset)
			return recs[i:], true
		}
	}
	return nil, false
}

// cut forgets everything tracked from offset on. If even the watermark is above it everything starts anew there, as in a new
// assignment (I2). p.mu is held.
func (p *partition) cut(offset int64) {
	p.claims, p.skip = nil, 0 // both were said of the log that is gone
	p.cutChunks(offset)
	if !p.window.Truncate(offset) {
		p.window = watermark.New[*run](offset, -1)
		p.committed = -1
	}
	// Of the forgotten only the dispatch is stopped: what runs ends, and nobody listens.
	for r := p.first; r != nil; r = r.next {
		for i := range r.len() {
			if s := r.slot(i); s.State() != watermark.Done && r.offset(i) >= offset && !r.beganBelow(i, offset) {
				s.Move(watermark.Queued, watermark.Done)
			}
		}
	}
	old := p.heap
	p.heap, p.heldBytes = dueHeap{}, 0
	for _, e := range old.es {
		if e.offset >= offset {
			e.it.Done()
			continue
		}
		p.heap.push(e)
		p.heldBytes += e.it.bytes()
	}
	for _, e := range p.inPlace.es {
		if e.offset >= offset {
			e.it.Done() // it leaves its lane when it is due
		}
		p.heldBytes += e.it.bytes()
	}
	p.alarm()
}
