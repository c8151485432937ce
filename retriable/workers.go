package retriable

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// worker runs handlers, one at a time.
type worker struct {
	pool *pool
	id   int
	wake chan struct{}
	at   *partition // guarded by the pool's lock

	// Its own goroutine's.
	headers  []kgo.RecordHeader // room for one attempt's
	messages []Message          // room for the next
	again    *Message           // that is used again and again (see Recycle); nil until there is one
	used     int                // how much of it is
	room     int                // how much was made of late
	item     item               // of a record that has none of its own
	from     *run               // where it claimed last
	index    int                // which of it
	stint    stint              // of its turn
	did      int                // records in it
	refused  bool               // it was let start nothing

	before uint64 // its partition's turn before this one; guarded by the pool's lock

	// What the watch saw of it; guarded by the pool's lock.
	seen  uint64
	since time.Time

	// What the pool saw of it when it last looked how brisk the handlers are; guarded by the pool's lock.
	looked uint64 // what it had ended
	slow   bool   // that was no more than the time before
}

// turnRecords and turnTime bound a turn while other partitions wait.
const (
	turnRecords = 256
	turnTime    = time.Millisecond
	slowRecord  = turnTime / 16
)

// run is a worker's goroutine.
func (w *worker) run() {
	clean := false
	defer func() {
		if !clean { // a handler ended this goroutine
			go w.run()
			return
		}
		pl := w.pool
		pl.mu.Lock()
		pl.live--
		pl.free = append(pl.free, w)
		pl.spawn()
		pl.mu.Unlock()
		pl.signalEnded()
	}()
	for p := w.pool.next(w); p != nil; p = w.pool.next(w) {
		w.turn(p)
		if w.again != nil {
			*w.again = Message{}
		}
		w.item.rec = nil // it would keep a whole fetch in memory, and so would a header's value
		clear(w.headers[:cap(w.headers)])
	}
	clean = true
}

// turn handles records of p.
func (w *worker) turn(p *partition) {
	if p.careful.Load() {
		w.carefulTurn(p)
		return
	}
	if p.t.batch != nil {
		w.batchTurn(p)
		return
	}
	var it *item
	n := 0
	w.stint = stint{}
	w.stint.begin()
	sp := span{began: w.stint.from}
	defer func() {
		w.stint.pause()
		w.did = n
		if w.from != nil && w.from.exhausted() {
			p.finished(w.from)
		}
		w.from, w.messages, w.used, w.room = nil, nil, 0, n/2 // messages of one partition only are neighbours
	}()
	gated, bound := len(p.t.bar.gates) > 0, p.t.atOnce > 0
	for p.barred.Load() == 0 {
		if it == nil {
			if it = p.take(w); it == nil {
				return
			}
		}
		if gated && !p.admits() {
			break
		}
		it = w.handle(p, it)
		n++
		if sp.over(n, w.pool.demand(bound)) {
			break
		}
	}
	w.refused = n == 0
	if it != nil {
		w.handOn(p, it)
	}
}

// demand is how much the other partitions want a worker.
type demand int32

const (
	none     demand = iota
	wanted          // one could do more with another
	deserted        // one has work and no worker at all
)

// demand is what a turn goes by; a topic's own bound (TopicConcurrency) hides what its other partitions want.
func (pl *pool) demand(bound bool) demand {
	if bound {
		return deserted
	}
	return demand(pl.wants.Load())
}

// span is how long a turn has lasted.
type span struct {
	began time.Time
	slow  bool // its records were, when it last looked
}

// over bounds a turn by records and by time. The clock is not read for each record, unless they are slow and somebody has no worker: the
// others' turn comes soon however long handlers take.
func (s *span) over(n int, d demand) bool {
	if n&(n-1) == 0 {
		s.slow = time.Since(s.began) >= time.Duration(n)*slowRecord
	}
	switch {
	case d == none:
		return false
	case n >= turnRecords:
		return true
	case n&15 == 0, d == deserted && s.slow:
		return time.Since(s.began) >= turnTime
	default:
		return false
	}
}
