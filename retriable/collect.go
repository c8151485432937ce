package retriable

import (
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// ripe reports whether there is a batch to run: a full one, or one that has waited. Otherwise it says when. One worker collects at a time, for two would
// share out what is enough for one batch. p.mu is held.
func (p *partition) ripe() bool {
	if p.collecting {
		p.asked = true
		return false
	}
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
	sp := span{began: time.Now()}
	n := 0
	for p.barred.Load() == 0 {
		items := w.collect(p)
		if len(items) == 0 {
			break
		}
		w.handBack(p, w.handleBatch(p, items))
		n += len(items)
		if sp.over(max(n, 16)&^15, w.pool.demand(p.t.atOnce > 0)) {
			break
		}
	}
	w.refused, w.from, w.messages, w.used, w.room = n == 0, nil, nil, 0, min(n, maxMessages)/2
}

// collect claims the items of a batch. What is to be tried alone comes alone.
func (w *worker) collect(p *partition) (items []*item) {
	p.mu.Lock()
	ripe := p.ripe()
	p.collecting = p.collecting || ripe
	p.mu.Unlock()
	if !ripe {
		return nil
	}
	defer p.collected()
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

// collected lets others collect, who may have asked meanwhile.
func (p *partition) collected() {
	p.mu.Lock()
	asked := p.asked
	p.collecting, p.asked = false, false
	p.mu.Unlock()
	if asked {
		p.c.pool.wake(p)
	}
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
