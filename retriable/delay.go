package retriable

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// What is not yet due waits in its partition's heap: records held until their next attempt, postponed ones, and copies whose write was
// refused. One goroutine for all partitions sleeps until the earliest of them is due.

// entry is one that waits; it or w is set, by the heap it is in.
type entry struct {
	due    int64 // ms; of a record in a tier when its stay is over
	final  int64 // when such a record is due, if that is later
	offset int64
	it     *item
	w      *write
}

// dueHeap is a binary heap by due time, then offset (I6).
type dueHeap struct {
	es   []entry
	held int // entries that are records
}

func (h *dueHeap) less(i, j int) bool {
	a, b := &h.es[i], &h.es[j]
	return a.due < b.due || a.due == b.due && a.offset < b.offset
}

func (h *dueHeap) push(e entry) {
	if e.it != nil {
		h.held++
	}
	h.es = append(h.es, e)
	for i := len(h.es) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.less(i, up) {
			break
		}
		h.es[i], h.es[up] = h.es[up], h.es[i]
		i = up
	}
}

func (h *dueHeap) pop() entry {
	top, n := h.es[0], len(h.es)-1
	h.es[0] = h.es[n]
	h.es[n] = entry{}
	h.es = h.es[:n]
	h.down(0)
	if top.it != nil {
		h.held--
	}
	if cap(h.es) > 1024 && len(h.es) < cap(h.es)/4 {
		h.es = append(make([]entry, 0, cap(h.es)/2), h.es...)
	}
	return top
}

// down moves an entry to where it belongs below.
func (h *dueHeap) down(i int) {
	for {
		least := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < len(h.es) && h.less(down, least) {
				least = down
			}
		}
		if least == i {
			return
		}
		h.es[i], h.es[least] = h.es[least], h.es[i]
		i = least
	}
}

// remove takes out all entries for which gone holds. It costs time in proportion to the heap.
func (h *dueHeap) remove(gone func(entry) bool) {
	h.es = slices.DeleteFunc(h.es, func(e entry) bool {
		out := gone(e)
		if out && e.it != nil {
			h.held--
		}
		return out
	})
	for i := len(h.es)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

// top returns when the first is due, maxDue if there is none.
func (h *dueHeap) top() int64 {
	if len(h.es) == 0 {
		return maxDue
	}
	return h.es[0].due
}

// alarm notes when the first of what waits is due. p.mu is held.
func (p *partition) alarm() {
	p.nextDue.Store(min(p.heap.top(), p.inPlace.top(), p.resend.top(), p.ripens))
}

// release lets go of what is due: records to their lanes, as far as there is room, writes to the broker, and what has been in its tier for
// long enough to the next. It returns when the next is.
func (p *partition) release(now int64) int64 {
	var due, hops []*item
	var writes []*write
	p.mu.Lock()
	room := 0
	if p.heap.top() <= now {
		room = p.c.set.maxPending - p.weigh().pending
	}
	for p.resend.top() <= now { // whatever waits for room: it may be these that make it
		writes = append(writes, p.resend.pop().w)
	}
	for p.heap.top() <= now && (room > 0 || p.heap.es[0].final > now) {
		e := p.heap.pop()
		if e.final > now {
			hops = append(hops, e.it)
			continue
		}
		p.heldBytes -= e.it.bytes()
		due = append(due, e.it)
		room--
	}
	if p.stage.Load() != live {
		due, hops = nil, nil
	}
	moves := p.beginMove(hops, now)
	if len(due) > 0 {
		p.queue(due)
	}
	again := p.releaseInPlace(now)
	if p.ripens <= now {
		p.ripens, again = maxDue, true
	}
	next := p.heap.top()
	late := next <= now
	if late {
		next = maxDue // what ends makes room and wakes; while it drains nothing needs to
	}
	late = late && p.stage.Load() == live
	p.overdue.Store(late)
	next = min(next, p.inPlace.top(), p.resend.top(), p.ripens)
	p.nextDue.Store(next)
	p.mu.Unlock()
	if late {
		p.crowded.Store(true)
		p.c.relieve()
	}
	if len(due) > 0 || again {
		p.c.pool.wake(p)
		if p.crowded.Load() {
			p.c.relieve()
		}
	}
	for _, w := range writes {
		p.send(w)
	}
	for _, w := range moves {
		p.write(w)
	}
	return next
}

// queue puts records that came due in their lanes, in the order given. p.mu is held.
func (p *partition) queue(due []*item) {
	p.runs++
	r := &run{list: due, no: p.runs}
	for _, it := range due {
		it.in = r.no
		it.rejoin()
		if it.keyed {
			hash := laneHash(it.key())
			it.hash = uint16(hash)
			p.lanes.join(hash, it, nil)
		}
		it.Set(watermark.Queued)
	}
	p.push(r)
}

// waker is the alarm of the delay goroutine.
type waker struct {
	at   atomic.Int64 // when it will wake by itself, in ms
	kick chan struct{}
}

// wake sees to it that what is due then is not overslept.
func (w *waker) wake(due int64) {
	if due >= w.at.Load() {
		return
	}
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// delay is the goroutine: it releases what is due, on the millisecond (I7).
func (c *Consumer) delay(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		c.waker.at.Store(maxDue) // whoever adds something from here on kicks
		began := c.now()
		next, bar := int64(maxDue), c.unbar(began)
		now := began.UnixMilli()
		if c.joinDue.Load() <= now {
			c.giveUpChunks()
		}
		next = min(next, c.joinDue.Load())
		for _, p := range c.partitions() {
			due := p.nextDue.Load()
			if due <= now {
				due = p.release(now)
			}
			again := p.moveAt.Load()
			if again <= now {
				again = p.moveOldest(now)
			}
			next = min(next, due, again)
		}
		wait := time.Hour
		if next < now+wait.Milliseconds() {
			wait = time.UnixMilli(next).Sub(c.now())
		}
		if bar < maxDue {
			wait = min(wait, time.Unix(0, bar).Sub(c.now()))
			next = min(next, bar/int64(time.Millisecond))
		}
		timer.Reset(wait)
		c.waker.at.Store(next)
		// What was added meanwhile has kicked, or the loop saw it.
		select {
		case <-ctx.Done():
			return
		case <-c.waker.kick:
		case <-timer.C:
		}
	}
}
