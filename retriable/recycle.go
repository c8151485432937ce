package retriable

import (
	"context"
	"math/bits"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Recycle says that the topic's handler, its middleware and its filter keep nothing of a message once the handler has returned: neither the
// [Message] nor its Record. Both are then used again for messages to come, which saves about a quarter of the CPU that a record costs beside its
// handler, most of it the garbage collector's (docs/performance.md). The default is that a message may be kept. Set it where handlers take
// microseconds and records come by the hundred thousand; elsewhere it does not matter. Who keeps a message all the same finds another's content in it,
// or none. What a record refers to, its key, value, headers and their values, is not used again and may be kept. The goroutines that a
// handler starts must have let go of the message, too, when it returns.
//
// A record whose attempt failed is left to the collector, with its message. Hooks may look at a message until they return. There is no Recycle for a
// [BatchTopic], whose messages are many at once: New refuses it there, and as a default it does nothing there. See [kgo.WithPools] for how it is done.
func Recycle() TopicOption { return topicOption(func(t *topicConfig) { t.recycle = set(true) }) }

// slabs is where kgo gets the records from that it reads, and puts them back ([kgo.PoolRecords]): slices of a batch each, by their size.
type slabs struct {
	mu   sync.Mutex // guards the rest; taken under a partition's, and nothing is taken under it
	free [slabClasses][][]kgo.Record
	n    int // records in free
}

const (
	slabClasses = 20      // of capacities 1, 2, 4…; larger ones are not kept
	slabLeast   = 16      // smaller batches are not worth it
	slabsMost   = 1 << 17 // records that wait for use at once: some 27 MB
)

// GetRecords implements kgo.PoolRecords. kgo makes what is nil.
func (s *slabs) GetRecords(n int) []kgo.Record {
	class := bits.Len(uint(max(n-1, 0)))
	if n < slabLeast || class >= slabClasses {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := len(s.free[class])
	if k == 0 {
		return make([]kgo.Record, n, 1<<class)
	}
	slab := s.free[class][k-1]
	s.free[class][k-1] = nil
	s.free[class] = s.free[class][:k-1]
	s.n -= len(slab)
	return slab[:n]
}

// PutRecords implements kgo.PoolRecords: the last record of a slab has been recycled.
func (s *slabs) PutRecords(slab []kgo.Record) {
	class := bits.Len(uint(cap(slab))) - 1
	if len(slab) < slabLeast || class >= slabClasses || cap(slab) != 1<<class {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n+cap(slab) <= slabsMost {
		s.free[class] = append(s.free[class], slab[:cap(slab)])
		s.n += cap(slab)
	}
}

// recycle gives the records of a batch back, none of which is pending any more: what waits in memory has a copy of its own. What was copied out
// of it, or is not in it any more, is left to the collector, and with it the slab that it is of. p.mu is held.
func (r *run) recycle() {
	defer func() { _ = recover() }() // kgo panics at a record that is not of the slab it names: somebody has overwritten it
	for i, rec := range r.recs {
		if rec != nil && (i >= len(r.own) || !r.own[i]) {
			rec.Recycle()
		}
	}
}

// tellThenResolve is for a success with a hook: once its record is resolved another's may stand in its place.
func (p *partition) tellThenResolve(a *attempt) {
	defer p.resolve(a.it) // also if a hook ends the goroutine
	p.c.handledHook(a, VerdictDone, nil)
}

// spare has the record of an attempt that failed never be used again: writes and hooks may look at it for long.
func (w *worker) spare(a *attempt) {
	if !a.p.t.recycle {
		return
	}
	a.rec.Context = context.Background() // no slab is found through it
	if a.m == w.again {
		w.again = nil
	}
}
