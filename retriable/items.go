package retriable

import (
	"math/bits"
	"sync"
)

// The items of a batch with lanes are used again for another once all of its records have simply succeeded, as nearly all do. What was tried again,
// held, joined, handed on or cut off may be spoken of for longer, in a heap, a write or a list: its batch's items are left to the collector.

// itemSlabs has items for batches to come, all zero: 1, 2, 4… batchRecords of them.
var itemSlabs [batchBits + 1]sync.Pool

// slabFor returns room for the items of a batch.
func slabFor(n int) *[]item {
	class := bits.Len(uint(n - 1))
	if s, ok := itemSlabs[class].Get().(*[]item); ok {
		return s
	}
	s := make([]item, 1<<class)
	return &s
}

// plainly marks an item that has left its lane and is about to be resolved, unless it was ever more than a record of its batch.
func (it *item) plainly() {
	if it.own.Load() == nil && !it.is(listed) {
		it.marks |= plain
	}
}

// reuse gives a batch's items back, all of whose records are resolved, if nobody can speak of them. It reports whether it did. p.mu is held.
func (r *run) reuse() bool {
	if r.slab == nil {
		return false
	}
	for i := range r.items {
		if !r.items[i].is(plain) {
			return false
		}
	}
	clear(r.items)
	itemSlabs[bits.Len(uint(cap(r.items)-1))].Put(r.slab)
	r.items, r.slab = nil, nil
	return true
}
