package retriable

import "hash/maphash"

// A lane is the records of one key that must run in turn. It is no object of its own: each item points to the one behind it,
// and the table below knows the last of each key. All items stay in their batch's run, so workers claim them in log order; a claimer
// that finds the record before still at work passes on, and the worker that ends that one starts this (see item.gate).
// The lane lives while its key has work: its end is marked in the last item, without a lock.

// laneEnd in item.next says that the lane ended with that item.
var laneEnd = new(item)

// lanes finds the last item of a key's lane. Keys are told apart by a 64-bit seeded hash: should two ever collide they share a
// lane, which costs them their parallelism and nothing else. It is an open-addressed table; ended lanes are dropped when it is rebuilt.
type lanes struct {
	tails []laneTail
	used  int
}

type laneTail struct {
	hash uint64 // 0 for none
	tail *item
	run  *run // the batch whose items it is of; nil for what came due
}

// ended reports whether the lane has ended with its last item. That may be another batch's by now.
func (e *laneTail) ended() bool {
	return e.tail == nil || e.run != nil && e.run.items == nil || e.tail.next.Load() == laneEnd
}

var laneSeed = maphash.MakeSeed()

// laneHash returns the hash of a key, never 0.
func laneHash(key []byte) uint64 { return max(maphash.Bytes(laneSeed, key), 1) }

// join puts it, of the batch r if it is of one, at the end of its key's lane.
func (l *lanes) join(hash uint64, it *item, r *run) {
	if l.used*2 >= len(l.tails) {
		l.rebuild()
	}
	e := l.find(hash)
	if e.hash == 0 {
		e.hash = hash
		l.used++
	}
	if e.ended() || e.tail == it || !e.tail.next.CompareAndSwap(nil, it) {
		it.gate.Store(1) // nobody is before it
	}
	e.tail, e.run = it, r
}

// find returns the key's entry, or the empty one where it belongs.
func (l *lanes) find(hash uint64) *laneTail {
	mask := uint64(len(l.tails) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		if e := &l.tails[i]; e.hash == hash || e.hash == 0 {
			return e
		}
	}
}

// rebuild keeps the lanes that have not ended, in a table with room for twice as many.
func (l *lanes) rebuild() {
	old, n := l.tails, 0
	for i := range old {
		if old[i].ended() {
			old[i].hash = 0
		}
		if old[i].hash != 0 {
			n++
		}
	}
	size := 64
	for size < 4*n {
		size *= 2
	}
	l.tails, l.used = make([]laneTail, size), n
	for _, e := range old {
		if e.hash != 0 {
			*l.find(e.hash) = e
		}
	}
}

// leave ends an item's time in its lane and returns the next of it, started, if that has been claimed before.
func (it *item) leave() *item {
	for it.keyed {
		next := it.next.Swap(laneEnd)
		if next == nil || next.gate.Add(1) < 2 {
			return nil
		}
		if next.is(chained) { // of the same batch: its own end comes
			return nil
		}
		if begin(next.Slot) {
			return next
		}
		it = next // called off: its lane goes on behind it
	}
	return nil
}

// rejoin makes an item that has left its lane ready to join one again.
func (it *item) rejoin() {
	it.next.Store(nil)
	it.gate.Store(0)
}
