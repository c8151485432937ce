package retriable

import (
	"container/heap"
	"sync"
	"sync/atomic"
	"time"
)

// pool is the workers that run the handlers, and which partition each of them is at. A worker stays at a partition for a turn: it
// claims records there, without the pool's lock, until there are none or others wait and its time is up. A free worker goes to
// the partition with the fewest workers, then to the one that waited longest; if several consumers share the pool, to one of the consumer
// whose turn it is.
type pool struct {
	n int // workers

	mu     sync.Mutex
	users  int      // consumers that run
	guests []*guest // consumers that have had partitions
	parts  map[*partition]struct{}
	idle   []*worker
	live   int // goroutines
	lent   int // workers beyond n, while more than three quarters are stuck (I11)
	turns  uint64
	stuck  map[*partition]struct{} // that have a handler which runs for longer than StuckAfter
	closed bool
	// cautious says that partitions are careful.
	cautious bool
	ended    chan struct{} // 1-buffered: a goroutine ended

	pace  pace
	wants atomic.Int32 // the demand of those that are ready
	free  []*worker    // workers whose goroutine ended, with their numbers
	all   []*worker
}

// poolSlot is what the pool knows of a partition.
type poolSlot struct {
	p        *partition
	attached int // workers at it
	index    int // in ready, -1 if it is not there
	turn     uint64
}

func newPool(n int) *pool {
	return &pool{n: n, pace: newPace(), parts: map[*partition]struct{}{}, stuck: map[*partition]struct{}{}, ended: make(chan struct{}, 1)}
}

// most is three quarters of the workers, and at least one.
func (pl *pool) most() int { return max(1, pl.n*3/4) }

// spawn starts the workers that are missing. The pool's lock is held.
func (pl *pool) spawn() {
	for pl.live < pl.n+pl.lent && !pl.closed {
		var w *worker
		if k := len(pl.free); k > 0 {
			w, pl.free = pl.free[k-1], pl.free[:k-1]
		} else {
			w = &worker{pool: pl, id: len(pl.all), wake: make(chan struct{}, 1)}
			pl.all = append(pl.all, w)
		}
		pl.live++
		go w.run()
	}
}

func (pl *pool) start() {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.users++
	pl.closed = false
	pl.spawn()
}

// stop is for a consumer that ends. With the last the workers end, and it waits for them, except those whose handler does not return: it
// returns how many of the consumer's do not.
func (pl *pool) stop(c *Consumer) (left int) {
	pl.mu.Lock()
	pl.users--
	pl.dismiss(&c.guest)
	left = c.guest.attached
	pl.mu.Unlock()
	for {
		pl.mu.Lock()
		if pl.users > 0 {
			pl.mu.Unlock()
			return left
		}
		pl.closed = true
		pl.endPace()
		for _, w := range pl.idle {
			w.wake <- struct{}{}
		}
		pl.idle = nil
		busy := 0
		for _, w := range pl.all {
			if w.at != nil {
				busy++
			}
		}
		over := pl.live == busy && !pl.pace.armed
		left = c.guest.attached
		pl.mu.Unlock()
		if over {
			return left
		}
		<-pl.ended
	}
}

// add makes partitions known, remove forgets them: nothing of them is dispatched after. Each looks at all there are, so those that come or go
// together do so at once.
func (pl *pool) add(parts ...*partition) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for _, p := range parts {
		pl.parts[p] = struct{}{}
		pl.host(&p.c.guest)
	}
	pl.updateAll()
}

func (pl *pool) remove(parts ...*partition) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for _, p := range parts {
		delete(pl.parts, p)
		delete(pl.stuck, p)
	}
	pl.updateAll()
	for _, p := range parts {
		pl.update(p)
	}
}

// updateAll is for changes that concern all partitions: with one alone it may have all workers. The lock is held.
func (pl *pool) updateAll() {
	for p := range pl.parts {
		pl.update(p)
	}
	pl.wakeOne()
}

// wake tells the pool that p has work.
func (pl *pool) wake(p *partition) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.update(p)
	pl.wakeOne()
}

// wakeTopic tells the pool that the partitions of a topic may have work again, all at once, so that their turns decide.
func (pl *pool) wakeTopic(t *topic) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for p := range pl.parts {
		if p.t == t {
			pl.update(p)
		}
	}
	pl.wakeOne()
}

// update puts p where it belongs: among those that a free worker may go to, or not. The lock is held.
func (pl *pool) update(p *partition) {
	want := pl.eligible(p) && p.hasWork()
	switch s, ready := &p.slot, &p.c.guest.ready; {
	case want && s.index < 0:
		heap.Push(ready, s)
	case want:
		heap.Fix(ready, s.index)
	case s.index >= 0:
		heap.Remove(ready, s.index)
	}
	pl.wants.Store(int32(pl.wanted()))
}

// wanted is the demand of the partitions that a free worker may go to. The lock is held.
func (pl *pool) wanted() demand {
	g := pl.turnOf()
	switch {
	case g != nil && g.ready[0].attached == 0:
		return deserted
	case g != nil || pl.cautious:
		return wanted
	default:
		return none
	}
}

// updateBeside is update for a change of the workers at p: of careful partitions it concerns all. The lock is held.
func (pl *pool) updateBeside(p *partition) {
	if p.careful.Load() {
		for q := range pl.parts {
			if q.careful.Load() {
				pl.update(q)
			}
		}
	}
	pl.update(p)
}

// eligible is I11: no partition of several has more than three quarters of the workers, nor have all stuck ones together.
func (pl *pool) eligible(p *partition) bool {
	if _, ok := pl.parts[p]; !ok || !pl.mayHave(&p.c.guest) {
		return false
	}
	limit := pl.n
	if len(pl.parts) > 1 {
		limit = pl.most()
	}
	if p.t.order == ByPartition {
		limit = 1
	}
	if p.slot.attached >= limit || p.t.atOnce > 0 && p.t.attached >= p.t.atOnce || p.careful.Load() && pl.atCareful() > 0 {
		return false
	}
	_, stuck := pl.stuck[p]
	return !stuck || len(pl.parts) == 1 || pl.atStuck() < pl.most()
}

// atStuck returns how many workers are at partitions that have a stuck handler.
func (pl *pool) atStuck() (n int) {
	for p := range pl.stuck {
		n += p.slot.attached
	}
	return n
}

// atCareful returns how many workers are at partitions of which one record at a time is to run.
func (pl *pool) atCareful() (n int) {
	for p := range pl.parts {
		if p.careful.Load() {
			n += p.slot.attached
		}
	}
	return n
}

// setCareful has one record at a time run of all careful partitions together, or ends that. Turns that are under way end soon.
func (pl *pool) setCareful(parts []*partition, on bool) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for _, p := range parts {
		p.careful.Store(on)
	}
	pl.cautious = false
	for p := range pl.parts {
		pl.cautious = pl.cautious || p.careful.Load()
	}
	pl.updateAll()
}

// wakeOne wakes an idle worker if there is work for it; it wakes the next. The lock is held.
func (pl *pool) wakeOne() {
	if k := len(pl.idle); k > 0 && pl.turnOf() != nil && !pl.enoughAwake(pl.live-k) {
		w := pl.idle[k-1]
		pl.idle = pl.idle[:k-1]
		w.wake <- struct{}{}
	}
}

// next ends w's turn and returns where its next one is, waiting for it; nil when w is to end.
func (pl *pool) next(w *worker) *partition {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.setSlow(w, false)
	pl.pace.note(w.stint, w.did)
	w.did = 0
	for {
		pl.detach(w)
		if pl.closed || pl.live > pl.n+pl.lent {
			pl.wakeOne() // the wake that it may have been given
			return nil
		}
		if g := pl.turnOf(); g != nil && !pl.enoughAwake(pl.live-len(pl.idle)-1) {
			p := g.ready[0].p
			pl.turns++
			g.turn = pl.turns
			p.slot.attached++
			pl.count(g, 1)
			w.before, p.slot.turn = p.slot.turn, pl.turns
			p.t.attached++
			w.at, w.since = p, time.Time{}
			pl.updateBeside(p)
			pl.updateTopic(p.t)
			pl.wakeOne()
			return p
		}
		pl.idle = append(pl.idle, w)
		pl.mu.Unlock()
		<-w.wake
		pl.mu.Lock()
	}
}

func (pl *pool) detach(w *worker) {
	p := w.at
	if p == nil {
		return
	}
	w.at = nil
	p.slot.attached--
	pl.count(&p.c.guest, -1)
	if w.refused { // it was no turn
		w.refused, p.slot.turn = false, w.before
	}
	p.t.attached--
	pl.updateTopic(p.t)
	if _, ok := pl.stuck[p]; ok {
		for q := range pl.stuck {
			pl.update(q)
		}
	}
	pl.updateBeside(p)
	if p.stage.Load() != live {
		p.signal()
	}
}

// updateTopic is for a topic with a bound of its own (TopicConcurrency), which concerns all its partitions. The lock is held.
func (pl *pool) updateTopic(t *topic) {
	if t.atOnce == 0 {
		return
	}
	for p := range pl.parts {
		if p.t == t {
			pl.update(p)
		}
	}
}

// attached returns how many workers are at p.
func (pl *pool) attached(p *partition) int {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	return p.slot.attached
}

// readyHeap orders partitions by how many workers are at them, then by their last turn.
type readyHeap []*poolSlot

func (h readyHeap) Len() int { return len(h) }
func (h readyHeap) Less(i, j int) bool {
	if h[i].attached != h[j].attached {
		return h[i].attached < h[j].attached
	}
	return h[i].turn < h[j].turn
}

func (h readyHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *readyHeap) Push(x any) {
	s := x.(*poolSlot) //nolint:forcetypeassert // container/heap's shape
	s.index = len(*h)
	*h = append(*h, s)
}

func (h *readyHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	s.index = -1
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return s
}
