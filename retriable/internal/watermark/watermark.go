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
	"sort"
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

// Slot is the state of one tracked record, by which whoever handles it tells. Its methods may be called from any goroutine.
type Slot struct{ state atomic.Uint32 }

// State returns the slot's present state.
func (s *Slot) State() State { return State(s.state.Load()) }

// Set stores a state.
func (s *Slot) Set(to State) { s.state.Store(uint32(to)) }

// Move stores to if the slot is in from, and reports whether it was.
func (s *Slot) Move(from, to State) bool { return s.state.CompareAndSwap(uint32(from), uint32(to)) }

// Done resolves the record for good.
func (s *Slot) Done() { s.state.Store(uint32(Done)) }

// Segment holds the slots of records that were read together, in offset order. Owner is the caller's. A segment with no gaps takes four bytes a
// record, none of which the garbage collector looks at.
type Segment[T any] struct {
	Owner T
	Epoch int32 // leader epoch of its records

	slots       []Slot
	offsets     []int64 // nil without gaps
	low         int     // all slots below it are done
	first, last int64
	whole       bool // all are done: the slots are let go
}

// NewSegment makes the slots of n records that were read together, at ascending offsets, not yet tracked: hand it to [Window.Begin].
func NewSegment[T any](owner T, epoch int32, n int, offset func(i int) int64) *Segment[T] {
	s := &Segment[T]{Owner: owner, Epoch: epoch, slots: make([]Slot, n), first: offset(0), last: offset(n - 1)}
	if s.last-s.first == int64(n-1) {
		return s
	}
	s.offsets = make([]int64, n)
	for i := range n {
		s.offsets[i] = offset(i)
	}
	return s
}

// Slots returns the slots in offset order. The segment lets go of them once all are done; whoever keeps them may go on looking.
func (s *Segment[T]) Slots() []Slot { return s.slots }

// Offset returns the offset of slot i.
func (s *Segment[T]) Offset(i int) int64 {
	if s.offsets != nil {
		return s.offsets[i]
	}
	return s.first + int64(i)
}

// done reports whether every slot is, remembering how far it looked. Of a whole segment only the ends are kept: however far the window
// reaches above an unresolved record, what is done there takes no memory.
func (s *Segment[T]) done() bool {
	for s.low < len(s.slots) && s.slots[s.low].State() == Done {
		s.low++
	}
	if s.low == len(s.slots) && !s.whole {
		var none T
		s.whole, s.slots, s.offsets, s.Owner, s.low = true, nil, nil, none, 0
	}
	return s.whole
}

// LetGo lets go of the slots and of the owner if all is done. A window finds that out when it next looks; this is to have it sooner. Of no
// segment it does nothing.
func (s *Segment[T]) LetGo() {
	if s != nil {
		s.done()
	}
}

// Window tracks one partition. Its methods must not be called concurrently; those of its slots may.
type Window[T any] struct {
	segs  []*Segment[T]
	head  int   // segs[:head] are gone
	next  int64 // the read position: above every tracked offset
	epoch int32 // leader epoch of the last tracked record, -1 if none
	below int32 // leader epoch of the record just below the watermark, -1 if unknown
}

// New returns a window whose watermark and read position are both at offset start.
func New[T any](start int64, epoch int32) *Window[T] {
	return &Window[T]{next: start, epoch: epoch, below: epoch}
}

// Begin tracks a segment, none of whose offsets is below Next, and moves the read position past it.
func (w *Window[T]) Begin(s *Segment[T]) {
	w.segs = append(w.segs, s)
	w.epoch = s.Epoch
	w.next = s.last + 1
}

// Next returns the read position: one past the last tracked or skipped offset.
func (w *Window[T]) Next() int64 { return w.next }

// Epoch returns the leader epoch of the last tracked record, -1 if unknown.
func (w *Window[T]) Epoch() int32 { return w.epoch }

// SkipTo moves the read position up to next: offsets in between count as absent.
func (w *Window[T]) SkipTo(next int64) { w.next = max(w.next, next) }

// Advance drops what is resolved at the low end and returns the watermark, all below which is resolved, with the leader
// epoch of the record just below it.
func (w *Window[T]) Advance() (offset int64, epoch int32) {
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
		return s.Offset(s.low), s.Epoch
	}
	return s.first, w.below
}

// compact reuses the room of dropped segments, at a cost that is constant per segment.
func (w *Window[T]) compact() {
	if w.head*2 < len(w.segs) {
		return
	}
	n := copy(w.segs, w.segs[w.head:])
	clear(w.segs[n:])
	w.segs, w.head = w.segs[:n], 0
}

func (w *Window[T]) oldest() *Segment[T] {
	if w.head == len(w.segs) {
		return nil
	}
	return w.segs[w.head]
}

// State returns the state of a tracked offset, Done of any other.
func (w *Window[T]) State(offset int64) State {
	segs := w.segs[w.head:]
	i := sort.Search(len(segs), func(i int) bool { return segs[i].last >= offset })
	if i == len(segs) || segs[i].whole {
		return Done
	}
	s := segs[i]
	if j := sort.Search(len(s.slots), func(j int) bool { return s.Offset(j) >= offset }); j < len(s.slots) && s.Offset(j) == offset {
		return s.slots[j].State()
	}
	return Done
}

// Oldest returns the first unresolved record's segment and index, as of the last Advance; ok is false if there is none.
func (w *Window[T]) Oldest() (s *Segment[T], i int, ok bool) {
	s = w.oldest()
	if s == nil || s.done() {
		return nil, 0, false
	}
	return s, s.low, true
}

// Truncate forgets everything tracked at or above offset: the log was cut there and goes on with other records.
// It reports false, and does nothing, if the watermark is above offset.
func (w *Window[T]) Truncate(offset int64) bool {
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
func (s *Segment[T]) truncate(offset int64) (empty bool) {
	if s.first >= offset {
		return true
	}
	n := len(s.slots)
	for n > 0 && s.Offset(n-1) >= offset {
		n--
	}
	s.slots, s.low = s.slots[:n], min(s.low, n)
	s.last = min(s.last, offset-1)
	return false
}

// Done returns the stretches above the watermark that are resolved, ascending, as of the last Advance. Offsets that never come count as
// resolved up to the highest record that is: so what lies between two stretches is unresolved records and nothing else. It costs time in
// proportion to the segments, and to the records of those that are not whole.
func (w *Window[T]) Done() (runs []Run) {
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
			low, from = s.low, s.Offset(s.low) // the watermark
		}
		for j := low; j < len(s.slots); j++ {
			offset := s.Offset(j)
			if s.slots[j].State() == Done {
				top = offset + 1
				continue
			}
			if offset > from {
				runs = append(runs, Run{from, offset})
			}
			from = offset + 1
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
func (w *Window[T]) Count() (by [Done + 1]int) {
	for _, s := range w.segs[w.head:] {
		for i := s.low; i < len(s.slots); i++ {
			by[s.slots[i].State()]++
		}
	}
	return by
}

// Unresolved yields what is not resolved, as segment and index, from the watermark up, as of the last Advance.
func (w *Window[T]) Unresolved() iter.Seq2[*Segment[T], int] {
	return func(yield func(*Segment[T], int) bool) {
		for _, s := range w.segs[w.head:] {
			for i := s.low; i < len(s.slots); i++ {
				if s.slots[i].State() != Done && !yield(s, i) {
					return
				}
			}
		}
	}
}
