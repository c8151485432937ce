package retriable

import (
	"math"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// run is a stretch of records that workers claim one by one: a fetched batch, or records that came due together. Of most records of a
// batch nothing is kept beside kgo's record and four bytes of state: a worker makes their item for the moment. Only those of one
// key that must run in turn, and retries, have items from the beginning, and what waits in memory has one from then on.
type run struct {
	// Of a fetched batch.
	read  int64            // when, in ms
	recs  []*kgo.Record    // as read, or copied out; nil for what is apart, or done and let go
	seg   *segment         // where they are tracked
	slots []watermark.Slot // its slots
	items []item           // if they have lanes or are retries
	slab  *[]item          // what they are of, if they may be used again
	kept  map[int]*item    // else of those that wait in memory or have waited. Guarded by p.mu
	apart []bool           // not claimed through this run: held, or resolved at once; nil for none
	own   []bool           // copied out of the batch; nil for none. Guarded by p.mu
	again bool             // its records may be used again
	bytes int64            // what they take while one of them is neither resolved nor copied out

	list  []*item // of what came due together, instead of all that
	no    uint32  // its number, 0 for a batch
	taken bool    // its item passed its gate before: the rest of a lane, handed on

	cursor atomic.Int64
	next   *run
	low    int // all below it are resolved or back in the heap
}

// item is a record on its way from the poll to its end.
type item struct {
	*watermark.Slot                      // its state
	offset          int64                // where this attempt was read
	rec             *kgo.Record          // as it was read; nil if it has its own
	own             atomic.Pointer[own]  // of a retry, or one that waits; nil mostly, and once resolved
	next            atomic.Pointer[item] // the record behind it in its lane, or laneEnd
	in              uint32               // the number of the run where it counts as pending, inHeap while it is there. Guarded by p.mu
	gate            atomic.Int32         // in a lane: how many have come of a worker's claim and the end of the record before
	attempt         atomic.Int32         // the delivery that is coming or running; 0 is the first too
	keyed           bool                 // it has a lane
	marks           mark                 // of the worker that has it
	hash            uint16               // of its key, for those who look from outside: the part that fits here
	ready           int64                // when it could have started, in ms: it was read, or came due
}

// mark is what workers note of an item.
type mark uint8

const (
	asked   mark = 1 << iota // the filter has let it pass
	chained                  // the one before it in its lane is in the same batch
	alone                    // it is tried by itself, for the batch it was in has failed
	listed                   // it was given back to the workers, in a list of its own
	plain                    // it simply succeeded, and nobody speaks of it once it is resolved
)

func (it *item) is(m mark) bool { return it.marks&m != 0 }

// inHeap is no run: what waits in the heap is not pending.
const inHeap = math.MaxUint32

// own is the message of an item that needs one before a worker comes: a retry's, or one in memory of its own.
type own struct {
	Message
	size  int64     // of key, value and headers
	moved int64     // when it was last written again, in ms, 0 for never
	due   int64     // in ms, 0 for a record that could be handled at once
	of    *assembly // of a chunk whose message is complete, or given up. Guarded by p.mu until others see the item
}

// keep gives an item a message of its own, and the number of its attempt to those who look from outside.
func (it *item) keep(m Message) { it.keepIn(new(own), m) }

// keepIn is keep in a room that is there.
func (it *item) keepIn(o *own, m Message) {
	*o = own{Message: m, size: recordBytes(m.Record), of: it.assembly()}
	it.own.Store(o)
	it.attempt.Store(int32(m.Attempt))
	it.rec = nil
}

// bytes is what an item in the heap, or back from it, takes. It may just have been resolved.
func (it *item) bytes() int64 {
	if o := it.own.Load(); o != nil {
		return o.size + itemBytes
	}
	return 0
}

// key is of an item that has not started.
func (it *item) key() []byte {
	if o := it.own.Load(); o != nil {
		return o.Key
	}
	return it.rec.Key
}

func (r *run) len() int { return len(r.slots) + len(r.list) }

func (r *run) exhausted() bool { return r.cursor.Load() >= int64(r.len()) }

// slot returns the state of record i.
func (r *run) slot(i int) *watermark.Slot {
	if r.list != nil {
		return r.list[i].Slot
	}
	return &r.slots[i]
}

// offset returns where record i, which is not done, was read.
func (r *run) offset(i int) int64 {
	if r.list != nil {
		return r.list[i].offset
	}
	return r.seg.Offset(i)
}

// ready returns since when record i could start, in ms.
func (r *run) ready(i int) int64 {
	if r.list != nil {
		return r.list[i].ready
	}
	return r.read
}

// item returns the item of record i, nil if it has none but for the moment. p.mu is held.
func (r *run) item(i int) *item {
	switch {
	case r.list != nil:
		return r.list[i]
	case r.items != nil:
		return &r.items[i]
	}
	return r.kept[i]
}

// remember keeps an item that was made for the moment. p.mu is held.
func (r *run) remember(i int, it *item) {
	if r.kept == nil {
		r.kept = map[int]*item{}
	}
	r.kept[i] = it
}

// setApart takes a record out of the run before the workers see it.
func (r *run) setApart(i int) {
	if r.apart == nil {
		r.apart = make([]bool, len(r.slots))
	}
	r.apart[i], r.recs[i] = true, nil
}

// claim returns the item of record i if it may start now. In a lane whose record before has not ended it is left to whoever ends that; if it
// was called off the next of its lane may be returned. An item for the moment is made in the worker's.
func (r *run) claim(i int, now *item) *item {
	switch {
	case r.taken:
		if it := r.list[i]; begin(it.Slot) {
			return it
		}
		return r.list[i].leave() // called off
	case r.list != nil:
		return r.list[i].claim()
	case i < len(r.apart) && r.apart[i]:
		return nil
	case r.items != nil:
		return r.items[i].claim()
	}
	slot := &r.slots[i]
	if !begin(slot) {
		return nil
	}
	now.Slot, now.rec, now.offset, now.ready, now.marks = slot, r.recs[i], r.offset(i), r.read, 0
	return now
}

// claim passes the gate of an item's lane, if it has one.
func (it *item) claim() *item {
	if it.keyed && it.gate.Add(1) < 2 {
		return nil
	}
	if begin(it.Slot) {
		return it
	}
	return it.leave()
}

// begin moves what nobody else may start from queued to running; false if it is not to run at all.
func begin(s *watermark.Slot) bool {
	for {
		switch s.State() {
		case watermark.Queued:
			if s.Move(watermark.Queued, watermark.Running) {
				return true
			}
		case watermark.Copying:
			runtime.Gosched() // its bytes are being copied: a matter of microseconds
		default:
			return false
		}
	}
}

// pending returns how many records are neither resolved nor in the heap nor back from it, and the memory they take: the whole batch's, as
// long as one of them refers to it. p.mu is held.
func (r *run) pending() (n int, bytes int64) {
	for r.low < len(r.slots) && r.slots[r.low].State() == watermark.Done {
		r.low++
	}
	whole := false
	for i := r.low; i < r.len(); i++ {
		if !r.here(i) {
			if i == r.low {
				r.low++
			}
			continue
		}
		n++
		switch {
		case r.list != nil:
			bytes += r.list[i].bytes()
		case i < len(r.own) && r.own[i]:
			bytes += recordBytes(r.recs[i]) + itemBytes
		default:
			whole = true
		}
	}
	switch {
	case n == 0:
		return 0, 0
	case whole:
		return n, r.bytes
	}
	return n, bytes + r.room()
}

// room is what a batch takes beside its records, for as long as one of them is pending.
func (r *run) room() int64 {
	return int64(len(r.slots))*int64(unsafe.Sizeof(watermark.Slot{})) + int64(cap(r.items))*int64(unsafe.Sizeof(item{})) + int64(len(r.recs))*8
}

// letGo drops what a batch refers to, none of which is needed any more: what waits is in the heap, with a copy. p.mu is held.
func (r *run) letGo() {
	if r.recs == nil {
		return // as it was, or it is no batch
	}
	if r.again {
		r.recycle()
	}
	clear(r.recs) // part of a larger slice
	r.recs = nil
	if r.reuse() {
		return
	}
	for i := range r.items { // one may be spoken of for long, as the last of its lane
		r.items[i].rec = nil
	}
}

func (r *run) done() bool {
	for i := range r.slots {
		if r.slots[i].State() != watermark.Done {
			return false
		}
	}
	return true
}

// here reports whether record i is unresolved and counts as pending in this run. p.mu is held.
func (r *run) here(i int) bool {
	if r.slot(i).State() == watermark.Done {
		return false
	}
	it := r.item(i)
	return it == nil || it.in == r.no
}

// copyOut copies the queued records of a batch if they are less than half of what it takes, and lets go of those that are done. p.mu is held.
func (p *partition) copyOut(r *run) {
	if r.recs == nil {
		return
	}
	var pending int64
	for i := r.low; i < len(r.slots); i++ {
		if r.here(i) {
			pending += recordBytes(r.recs[i]) + itemBytes
		}
	}
	if (pending+r.room())*2 > r.bytes {
		return
	}
	if r.own == nil {
		r.own = make([]bool, len(r.slots))
	}
	for i := range r.slots {
		switch slot := &r.slots[i]; {
		case slot.State() == watermark.Done:
			r.recs[i] = nil
			if r.items != nil {
				r.items[i].rec = nil
			}
		case r.here(i) && !r.own[i] && slot.Move(watermark.Queued, watermark.Copying):
			r.recs[i], r.own[i] = cloneRecord(r.recs[i]), true
			if it := r.item(i); it != nil {
				p.copyItem(it, r.recs[i])
			}
			slot.Set(watermark.Queued)
		}
	}
}

// copyItem has an item refer to the copy of its record.
func (p *partition) copyItem(it *item, rec *kgo.Record) {
	if o := it.own.Load(); o != nil {
		m := o.Message
		m.Record = cloneRecord(m.Record)
		it.keep(m)
		return
	}
	it.rec = rec
}
