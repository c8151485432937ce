package retriable

import (
	"context"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// topicPartition names a partition.
type topicPartition struct {
	topic     string
	partition int32
}

// stage is how far a partition's end has come. It only moves forward.
type stage = int32

const (
	live      stage = iota
	draining        // nothing is dispatched any more; what runs may end, and counts
	cancelled       // the handlers' contexts are cancelled; what they return does not count (I4)
	fenced          // nothing commits, dispatches or produces (I3)
)

// partition is everything one assigned partition needs, from its assignment to its revocation, and dies whole: a partition that comes
// back is a new object.
type partition struct {
	topicPartition
	c     *Consumer
	t     *topic
	retry bool          // it is of t's retry topic or one of its tiers
	tier  time.Duration // how long a record stays here at most, 0 if it is no tier
	extra bool          // there is more to note of its attempts than the record

	stage  atomic.Int32
	barred atomic.Int32    // why nothing of it is started, 0 mostly
	ctx    context.Context // of its handlers; ends with a cause
	cancel context.CancelCauseFunc
	writes context.Context // of its produces; ends at the fence
	endAll context.CancelFunc
	gone   chan struct{} // closed when it is given up for good
	stir   chan struct{} // 1-buffered: something ended while it drains

	crowded atomic.Bool  // at a bound: what ends is to be told to the back-pressure
	nextDue atomic.Int64 // of the heaps' tops, in ms; maxDue if they are empty
	moveAt  atomic.Int64 // when to look for what is to be written again, in ms; maxDue if there is no need. Changed with mu held
	paused  atomic.Int32 // why kgo does not fetch it, 0 if it does; changed with the gate held
	why     bounds       // for which it was paused; the gate's
	overdue atomic.Bool  // what came due waits in the heap for room
	careful atomic.Bool  // one record at a time (see crash.go); changed with the pool's lock held
	out     outlet       // where its messages produce to

	mu         sync.Mutex      // guards the rest; never held over a callback or a network call
	stash      []*kgo.Record   // read, but beyond a bound: not tracked yet, in log order
	unsure     bool            // kgo may go on where it was rather than where this begins
	astray     bool            // it does
	claims     []watermark.Run // finished before this assignment, as the committed map says: not delivered again
	claimEpoch int32           // the leader epoch up to which the map knows the log
	unread     *fetchedOffset  // a commit whose map waits for the log's end to be known, nil mostly
	topicID    uint32          // the topic's id, folded; 0 if unknown
	skip       int64           // where to read on behind the stash, after a Skip
	window     *window
	first      *run // of those that may hold unclaimed items; the list's end is last
	last       *run
	open       []*run // those whose records are not all resolved or copied out
	lanes      lanes
	runs       uint32 // of what came due, so far
	heap       dueHeap
	collecting bool    // a worker claims the items of a batch
	asked      bool    // and meanwhile others would have
	ripens     int64   // when what waits for company becomes a batch all the same, in ms; maxDue if nothing does
	inPlace    dueHeap // what waits for a blocking retry: its lane waits with it, and no bound keeps it
	resend     dueHeap // copies whose write was refused: no bound keeps them either
	heldBytes  int64   // of the records in the heaps
	producing  writes
	joining    map[int64]*item // chunks of incomplete messages, by offset; nil until there was one
	end        int64           // the log's end as last seen
	committed  int64           // the last accepted commit; -1 for none
	text       string          // the map that came with it
	confirmed  bool            // a commit of this assignment was accepted
	fill       float64         // of what its metadata can hold
	cutting    bool            // the last accepted map was cut
	crash      crashes
	outlived   outlived  // of this process's takeovers before, as long as they are not taken out of the count
	blocked    error     // why it cannot be fetched on, nil mostly
	stalls     int       // fetch errors in a row
	stalled    time.Time // until when it is not fetched because of them
	doubted    time.Time // since when it is fetched again after a pause and has brought nothing; zero mostly
	bytes      int64     // of its pending and held records, as of the last look
	refusals   int       // of commits, since the last accepted
	still      stillness
	sights     map[int64]sight // what runs, as last looked at (see inspect.go)

	slot poolSlot // guarded by the pool's lock
}

type (
	window  = watermark.Window[*run]
	segment = watermark.Segment[*run]
)

// name is the position of an item as everybody is told it: of a message in chunks that of the first.
func (p *partition) name(it *item) Position {
	if a := it.assembly(); a != nil {
		return p.at(a.first)
	}
	return p.at(it.offset)
}

func (p *partition) at(offset int64) Position {
	return Position{Topic: p.topic, Partition: p.partition, Offset: offset}
}

func newPartition(c *Consumer, name topicPartition, t *topic, retry bool, start kgo.EpochOffset) *partition {
	p := &partition{
		topicPartition: name, c: c, t: t, retry: retry,
		gone: make(chan struct{}), stir: make(chan struct{}, 1),
		window:    watermark.New[*run](start.Offset, start.Epoch),
		committed: -1,
		end:       -1,
		crash:     newCrashes(start.Offset),
		outlived:  c.outlivedOf(name),
	}
	p.slot.p = p
	p.extra = retry || c.timed || c.set.client.hooked
	p.out.p, p.out.mu = p, &p.mu
	p.slot.index = -1
	p.ripens = maxDue
	p.nextDue.Store(maxDue)
	p.moveAt.Store(maxDue)
	if retry {
		p.tier = t.tierOf(name.topic)
	}
	p.ctx, p.cancel = context.WithCancelCause(c.base)
	p.writes, p.endAll = context.WithCancel(context.WithoutCancel(c.base))
	return p
}

// signal wakes the one that waits for the partition's drain.
func (p *partition) signal() {
	select {
	case p.stir <- struct{}{}:
	default:
	}
}

// push adds a run for the workers. p.mu is held.
func (p *partition) push(r *run) {
	if p.last == nil {
		p.first = r
	} else {
		p.last.next = r
	}
	p.last = r
	if !r.taken {
		p.open = append(p.open, r)
	}
}

// pushFirst adds a run before all others: what a worker gives back goes on where it was. p.mu is held.
func (p *partition) pushFirst(r *run) {
	if r.next = p.first; p.first == nil {
		p.last = r
	}
	p.first = r
}

// claimable returns the first run that may hold unclaimed items, or nil. p.mu is held.
func (p *partition) claimable() *run {
	for p.first != nil && p.first.exhausted() {
		p.first, p.first.next = p.first.next, nil // or a worker that is long at one of it would keep all that come
	}
	if p.first == nil {
		p.last = nil
	}
	return p.first
}

func (p *partition) nextRun() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.claimable()
}

func (p *partition) hasWork() bool {
	if p.barred.Load() != 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.t.batch != nil {
		return p.ripe()
	}
	return p.claimable() != nil
}

// Why nothing of a partition is started.
const (
	barredEnding   = 1 << iota // it is given up
	barredPaused               // by the user
	barredByGate               // its topic's gates let nothing start for a while
	barredByHead               // ByPartition, and the record whose turn it is waits for its blocking retry
	barredNoMember             // a commit was refused because the group does not know us
)

// take claims the next item that may start, through the run that the worker last claimed from.
func (p *partition) take(w *worker) *item {
	for {
		if w.from == nil {
			if w.from = p.nextRun(); w.from == nil {
				return nil
			}
		}
		w.index = int(w.from.cursor.Add(1)) - 1
		if w.index >= w.from.len() {
			p.finished(w.from)
			w.from = nil
			w.stint.pause()
			runtime.Gosched() // kgo and the poller wait for a turn, too, and all others for them
			w.stint.begin()
			continue
		}
		if it := w.from.claim(w.index, &w.item); it != nil {
			return it
		}
	}
}

// finished drops what a run refers to if all of it is done. Each worker asks that comes past its end, so the last one does it.
func (p *partition) finished(r *run) {
	if r.list != nil || !r.done() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r.letGo()
}

// load is what a partition's records take, for the back-pressure.
type load struct {
	pending, held int
	maxHeld       int
	low           int64 // the watermark
	span          int64 // offsets between it and the read position
	ahead         reach // of what is known to be done beyond
	bytes         int64
}

// load drops what has ended and counts the rest. p.mu is held.
func (p *partition) load() load {
	low, _ := p.window.Advance()
	l := load{held: p.heap.held + p.inPlace.held, maxHeld: p.maxHeld(), low: low, span: p.window.Next() - low, ahead: p.ahead(), bytes: p.heldBytes + int64(len(p.stash))*p.c.recordSize.Load()}
	if len(p.joining) > 0 && l.span > p.c.set.maxWindow/2 {
		l.low = p.aboveJoining(low) // incomplete messages never stop the reading of their partition: it might be for their last chunk
		l.span = p.window.Next() - l.low
	}
	kept := p.open[:0]
	for _, r := range p.open {
		n, b := r.pending()
		if n == 0 {
			r.letGo()
			r.seg.LetGo()
			continue
		}
		kept = append(kept, r)
		l.pending += n
		l.bytes += b
	}
	clear(p.open[len(kept):])
	p.open = kept
	return l
}

// itemBytes is what the library keeps beside a record: its message, item, slot, and kgo's Record (I10).
const itemBytes = 400

// recordBytes is the room of a record's key, value and headers.
func recordBytes(r *kgo.Record) int64 {
	n := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value) + 40
	}
	return int64(n)
}

// cloneRecord copies a record out of the batch it was fetched in, which it would keep in memory.
func cloneRecord(r *kgo.Record) *kgo.Record {
	c := *r
	n := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Value)
	}
	buf := make([]byte, 0, n)
	keep := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		at := len(buf)
		buf = append(buf, b...)
		return buf[at:len(buf):len(buf)]
	}
	c.Key, c.Value = keep(r.Key), keep(r.Value)
	if r.Headers != nil {
		c.Headers = make([]kgo.RecordHeader, len(r.Headers))
		for i, h := range r.Headers {
			c.Headers[i] = kgo.RecordHeader{Key: h.Key, Value: keep(h.Value)}
		}
	}
	return &c
}

const maxDue = math.MaxInt64
