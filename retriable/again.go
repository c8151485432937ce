package retriable

import (
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// Held records are written again, with the same attempt and due time, in two cases: one whose stay in a tier is over before it is due hops on;
// and one that is not due for long must not pin its partition: when it is the oldest, and the partition half full, it moves to the tail of its
// retry topic. Here it completes once that write is acked (I1). A refused one is held again: it is due all the same (I7).

const (
	longHold   = time.Minute // what is due sooner is not written again
	againMost  = 1000        // written again at once
	againSoon  = 100 * time.Millisecond
	againLater = time.Second // between two looks at a partition that cannot be helped now
)

// crowdedByHeld reports whether a partition is half full of what is held: its map, MaxWindow or MaxHeld.
func (c *Consumer) crowdedByHeld(l load) bool {
	return l.held > 0 && (2*l.span >= c.set.maxWindow || 2*l.held >= l.maxHeld || !c.mapFits(l, 0, l.low+l.span, 2))
}

// movable reports whether what p holds can be written again. In a tier the head is due first, and waits for little.
func (p *partition) movable() bool { return p.t.retry != "" && p.tier == 0 }

// watchHeld has the delay goroutine look at p if it is half full.
func (p *partition) watchHeld(now time.Time) {
	if p.nextDue.Load() == maxDue || !p.movable() || p.moveAt.Load() != maxDue {
		return // mostly: nothing waits
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c.crowdedByHeld(p.weigh()) {
		at := now.UnixMilli()
		p.moveAt.Store(at)
		p.c.waker.wake(at)
	}
}

// moveOldest writes the oldest records again while they are held for long and the partition is half full. It returns when to look again.
func (p *partition) moveOldest(now int64) int64 {
	p.mu.Lock()
	var moved []*item
	next := int64(maxDue)
	l := p.weigh()
	if p.stage.Load() == live && p.c.crowdedByHeld(l) {
		moved, next = p.pickOldest(l, now)
	}
	p.moveAt.Store(next)
	for _, it := range moved {
		it.Set(watermark.Producing)
	}
	p.heap.remove(func(e entry) bool { return e.it.State() == watermark.Producing })
	p.alarm()
	ws := p.beginMove(moved, now)
	p.mu.Unlock()
	for _, w := range ws {
		p.write(w)
	}
	return next
}

// pickOldest returns what is to be written again, and when to look again. p.mu is held.
func (p *partition) pickOldest(l load, now int64) (moved []*item, next int64) {
	most := min(againMost, max(p.c.set.maxPending-l.pending, 1))
	end := l.low + l.span
	for seg, i := range p.window.Unresolved() {
		l.low, l.span = seg.Offset(i), end-seg.Offset(i)
		if !p.c.crowdedByHeld(l) {
			return moved, maxDue
		}
		it := seg.Owner.item(i)
		if it != nil && it.assembly() != nil { // a message in chunks, of which each comes by
			if it = it.carrier(); slices.Contains(moved, it) {
				continue
			}
		}
		if it == nil || it.State() != watermark.Held || !p.retry && it.attempt.Load() > 1 { // or it waits in place, and its lane with it
			return moved, now + againLater.Milliseconds() // whatever is moved behind it the watermark stays
		}
		left := it.ready - now
		if left <= longHold.Milliseconds() {
			return moved, now + againLater.Milliseconds()
		}
		if o := it.own.Load(); o != nil && o.moved > 0 {
			if at := o.moved + max(longHold.Milliseconds(), left/8); at > now {
				return moved, min(at, now+longHold.Milliseconds())
			}
		}
		if len(moved) == most {
			return moved, now + againSoon.Milliseconds()
		}
		moved = append(moved, it)
		l.held--
	}
	return moved, maxDue
}

// beginMove makes the copies of held records that were taken out of the heap; while these are written the records are pending. p.mu is held.
func (p *partition) beginMove(moved []*item, now int64) (ws []*write) {
	if len(moved) == 0 {
		return nil
	}
	p.runs++
	r := &run{list: moved, no: p.runs}
	r.cursor.Store(int64(len(moved))) // not for the workers
	p.open = append(p.open, r)
	for _, it := range moved {
		it.Set(watermark.Producing)
		p.heldBytes -= it.bytes()
		it.in = r.no
		ws = append(ws, p.newMove(it, now))
	}
	return ws
}

// newMove makes the copy of a record that is written again: all as it is.
func (p *partition) newMove(it *item, now int64) *write {
	a := p.untouched(it)
	w := p.newWrite(a, nil)
	w.moved, w.due, w.attempt, w.text = true, time.UnixMilli(it.ready), a.number, a.last
	r := wire.Retry{Origin: w.origin, Attempt: a.number, Due: it.ready, Group: p.c.set.group, Error: a.last, Moved: now}
	if w.first = 0; !a.first.IsZero() {
		w.first = a.first.UnixMilli()
	}
	r.FirstFailure = w.first
	left := time.Duration(it.ready-now) * time.Millisecond
	w.rec.Topic = p.t.retryFor(left + left/32) // it was written a moment before its stay began
	w.rec.Headers = wire.AppendRetry(wire.User(w.rec.Headers), r)
	return w
}

// moveRefused holds a record again whose new copy was refused. At its due time it starts from here; before it is tried again.
func (p *partition) moveRefused(w *write, err error) {
	wait := againSoon
	if !errors.Is(err, kgo.ErrMaxBuffered) { // that is no refusal, only a wait
		wait = 5 * time.Second
		p.mu.Lock()
		w.tries++
		p.mu.Unlock()
		p.c.writeFailed(w, w.rec.Topic, err, wait)
	}
	if errors.Is(err, kerr.UnknownTopicID) {
		p.c.renewer.add(w.rec.Topic, &p.c.renewer.produced)
	}
	again := ceilMilli(p.c.now().Add(wait)).UnixMilli()
	p.mu.Lock()
	ours := p.producing.remove(w)
	if ours {
		it, e := w.it, entry{due: w.due.UnixMilli(), offset: w.it.offset, it: w.it}
		if p.tier > 0 && again < e.due {
			e.due, e.final = again, e.due
		} else {
			p.moveAt.Store(again)
		}
		it.in = inHeap
		it.Set(watermark.Held)
		p.heap.push(e)
		p.heldBytes += it.bytes()
		p.alarm()
		again = min(again, e.due)
	}
	p.mu.Unlock()
	if p.stage.Load() != live {
		p.signal()
	}
	p.c.waker.wake(again)
}
