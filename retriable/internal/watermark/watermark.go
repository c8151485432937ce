// Package watermark tracks which offsets of one partition are resolved and how far the log is resolved without a gap.
//
// A [Window] is the stretch of the log between the watermark, below which everything is resolved, and the read position.
// Records enter it in log order, a fetched batch at a time, and each gets a [Slot]: the handle by which whoever handles
// the record says so, with one atomic store, from any goroutine and in any order. Nobody advances a watermark on the
// way: it is derived from the slots when somebody asks. Offsets that never come (compaction, transaction markers) are
// simply absent, for no arithmetic is done on offsets.
//
// The package is pure: no clock, no client, no goroutine.
package watermark

import (
	"iter"
	"sync/atomic"
)

// State says where a tracked record is on its way. The zero value is Queued.
type State uint32

// The states of a slot. Only Done counts for the watermark; the others tell why it waits.
const (
	Queued    State = iota // waits for a worker or for its lane
	Copying                // for a moment: what it refers to is being replaced
	Running                // a handler has it
	Held                   // not yet due
	Postponed              // its handler asked for it later
	Producing              // handed to a retry or dead-letter topic, not yet acked
	Joining                // a chunk whose message is not complete
	Done                   // resolved
)

// Slot is the handle of one tracked record. Its methods may be called from any goroutine.
type Slot struct {
	offset int64
	state  atomic.Uint32
}

// Offset returns the record's offset.
func (s *Slot) Offset() int64 { return s.offset }

// Place sets the offset, before the segment is tracked.
func (s *Slot) Place(offset int64) { s.offset = offset }

// State returns the slot's present state.
func (s *Slot) State() State { return State(s.state.Load()) }

// Set stores a state.
func (s *Slot) Set(to State) { s.state.Store(uint32(to)) }

// Move stores to if the slot is in from, and reports whether it was.
func (s *Slot) Move(from, to State) bool { return s.state.CompareAndSwap(uint32(from), uint32(to)) }

// Done resolves the record for good.
func (s *Slot) Done() { s.state.Store(uint32(Done)) }

// Item is what the caller tracks of a record: a struct E that embeds its Slot, so that the two share a cache line.
type Item[E any] interface {
	*E
	Tracked() *Slot
}

// Tracked returns the slot itself: embedding a Slot makes an Item.
func (s *Slot) Tracked() *Slot { return s }

// Segment holds the items of records that were read together, in offset order. Owner is the caller's.
type Segment[T, E any, I Item[E]] struct {
	Owner T
	Items []E
	Epoch int32 // leader epoch of its records

	low         int // all items below it are done
	first, last int64
	whole       bool // all are done: the items are let go
}

func (s *Segment[T, E, I]) slot(i int) *Slot { return I(&s.Items[i]).Tracked() }

// done reports whether every item is, remembering how far it looked. Of a whole segment only the ends are kept: however far the window
// reaches above an unresolved record, what is done there takes no memory.
func (s *Segment[T, E, I]) done() bool {
	for s.low < len(s.Items) && s.slot(s.low).State() == Done {
		s.low++
	}
	if s.low == len(s.Items) && !s.whole {
		s.whole, s.Items, s.low = true, nil, 0
	}
	return s.whole
}

// Window tracks one partition. Its methods must not be called concurrently; those of its slots may.
type Window[T, E any, I Item[E]] struct {
	segs  []*Segment[T, E, I]
	head  int   // segs[:head] are gone
	next  int64 // the read position: above every tracked offset
	epoch int32 // leader epoch of the last tracked record, -1 if none
	below int32 // leader epoch of the record just below the watermark, -1 if unknown
}

// New returns a window whose watermark and read position are both at offset start.
func New[T, E any, I Item[E]](start int64, epoch int32) *Window[T, E, I] {
	return &Window[T, E, I]{next: start, epoch: epoch, below: epoch}
}

// NewSegment makes the items of n records that were read together, not yet tracked: give each its offset with Place, ascending,
// and then hand the segment to [Window.Begin].
func NewSegment[T, E any, I Item[E]](owner T, n int, epoch int32) *Segment[T, E, I] {
	return &Segment[T, E, I]{Owner: owner, Items: make([]E, n), Epoch: epoch}
}

// Begin tracks a segment, none of whose offsets is below Next, and moves the read position past it.
func (w *Window[T, E, I]) Begin(s *Segment[T, E, I]) {
	if len(s.Items) == 0 {
		return
	}
	s.first, s.last = s.slot(0).offset, s.slot(len(s.Items)-1).offset
	w.segs = append(w.segs, s)
	w.epoch = s.Epoch
	w.next = s.last + 1
}

// Next returns the read position: one past the last tracked or skipped offset.
func (w *Window[T, E, I]) Next() int64 { return w.next }

// Epoch returns the leader epoch of the last tracked record, -1 if unknown.
func (w *Window[T, E, I]) Epoch() int32 { return w.epoch }

// SkipTo moves the read position up to next: offsets in between count as absent.
func (w *Window[T, E, I]) SkipTo(next int64) { w.next = max(w.next, next) }

// Advance drops what is resolved at the low end and returns the watermark, all below which is resolved, with the leader
// epoch of the record just below it.
func (w *Window[T, E, I]) Advance() (offset int64, epoch int32) {
	for w.head < len(w.segs) && w.segs[w.head].done() {
		w.below = w.segs[w.head].Epoch
		w.segs[w.head] = nil
		w.head++
	}
	w.compact()
	s := w.oldest()
	if s == nil {
		return w.next, w.below
	}
	if s.low > 0 {
		return s.slot(s.low).offset, s.Epoch
	}
	return s.first, w.below
}

// compact reuses the room of dropped segments, at a cost that is constant per segment.
func (w *Window[T, E, I]) compact() {
	if w.head*2 < len(w.segs) {
		return
	}
	n := copy(w.segs, w.segs[w.head:])
	clear(w.segs[n:])
	w.segs, w.head = w.segs[:n], 0
}

func (w *Window[T, E, I]) oldest() *Segment[T, E, I] {
	if w.head == len(w.segs) {
		return nil
	}
	return w.segs[w.head]
}

// Oldest returns the first unresolved record's segment and index, as of the last Advance; ok is false if there is none.
func (w *Window[T, E, I]) Oldest() (s *Segment[T, E, I], i int, ok bool) {
	s = w.oldest()
	if s == nil || s.done() {
		return nil, 0, false
	}
	return s, s.low, true
}

// Truncate forgets everything tracked at or above offset: the log was cut there and goes on with other records.
// It reports false, and does nothing, if the watermark is above offset.
func (w *Window[T, E, I]) Truncate(offset int64) bool {
	if low, _ := w.Advance(); low > offset {
		return false
	}
	for len(w.segs) > w.head && w.segs[len(w.segs)-1].truncate(offset) {
		w.segs[len(w.segs)-1] = nil
		w.segs = w.segs[:len(w.segs)-1]
	}
	w.next = offset
	return true
}

// truncate drops the items at or above offset and reports whether none is left.
func (s *Segment[T, E, I]) truncate(offset int64) (empty bool) {
	if s.first >= offset {
		return true
	}
	n := len(s.Items)
	for n > 0 && s.slot(n-1).offset >= offset {
		n--
	}
	s.Items = s.Items[:n]
	s.last = min(s.last, offset-1)
	return false
}

// Done returns the stretches above the watermark that are resolved, ascending, as of the last Advance. Offsets that never come count as
// resolved up to the highest record that is: so what lies between two stretches is unresolved records and nothing else. It costs time in
// proportion to the segments, and to the records of those that are not whole.
func (w *Window[T, E, I]) Done() (runs []Run) {
	if w.head == len(w.segs) {
		return nil
	}
	from, top := w.segs[w.head].first, int64(0) // where the coming stretch begins; one past the highest resolved record
	for i, s := range w.segs[w.head:] {
		if s.done() {
			top = s.last + 1
			continue
		}
		low := 0
		if i == 0 {
			low, from = s.low, s.slot(s.low).offset // the watermark
		}
		for j := low; j < len(s.Items); j++ {
			slot := s.slot(j)
			if slot.State() == Done {
				top = slot.offset + 1
				continue
			}
			if slot.offset > from {
				runs = append(runs, Run{from, slot.offset})
			}
			from = slot.offset + 1
		}
	}
	if top > from {
		return append(runs, Run{from, top})
	}
	for len(runs) > 0 && runs[len(runs)-1].From >= top {
		runs = runs[:len(runs)-1]
	}
	if n := len(runs); n > 0 {
		runs[n-1].To = min(runs[n-1].To, top)
	}
	return runs
}

// Count returns how many tracked records are in each state, Done included only while their segment is tracked.
// It costs time in proportion to the window: for snapshots, not for a record's way.
func (w *Window[T, E, I]) Count() (by [Done + 1]int) {
	for _, s := range w.segs[w.head:] {
		for i := s.low; i < len(s.Items); i++ {
			by[s.slot(i).State()]++
		}
	}
	return by
}

// Unresolved yields what is not resolved, from the watermark up, as of the last Advance.
func (w *Window[T, E, I]) Unresolved() iter.Seq[I] {
	return func(yield func(I) bool) {
		for _, s := range w.segs[w.head:] {
			for i := s.low; i < len(s.Items); i++ {
				if s.slot(i).State() != Done && !yield(I(&s.Items[i])) {
					return
				}
			}
		}
	}
}
