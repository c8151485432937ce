package retriable

import (
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// write is a copy on its way to a retry or dead-letter topic. Its record is pending until the broker has acked it (I1), however often
// it is refused (I9).
type write struct {
	p      *partition
	it     *item
	m      *Message    // of the attempt that failed
	err    error       // its failure
	text   string      // what that said
	first  int64       // when the first attempt failed, in ms
	rec    *kgo.Record // the copy, whole
	origin wire.Origin
	dead   bool
	due    time.Time // of a retry
	// attempt is the coming one, of a retry.
	attempt int
	since   time.Time
	tries   int
	moved   bool // it is of a held record, as it was read
	slim    bool // our text headers are shed: it was too large with them

	// Room for the copy, and for parts, if there is but one: so that a write is one object.
	whole kgo.Record
	one   [1]*kgo.Record
	begun bool // kgo has had whole

	prev, next *write // in its partition's list, if it is there: see writes. Guarded by p.mu
	listed     bool

	parts  []*kgo.Record // what is written, one after the other: the copy, or its chunks, or letters of chunks
	acked  int           // of the parts
	limit  int           // how large a part may be if not as the topic says: larger ones were refused
	offset int64         // of the first part, once it is acked
	chunks []*Message    // whose letters the parts are: of a message that cannot be joined
}

// newWrite begins a copy of the attempt's record: key, value and headers as first produced.
func (p *partition) newWrite(a *attempt, err error) *write {
	w := &write{p: p, it: a.it, m: a.m, err: err, text: a.text, first: a.firstFailure(), since: a.now().Add(-p.c.skew), origin: a.origin()}
	w.whole = kgo.Record{
		Key: a.was.key, Value: a.was.value, Headers: append([]kgo.RecordHeader(nil), a.was.headers...),
		Context: p.c.withValues(p.writes, a.was.context),
	}
	w.rec = &w.whole
	return w
}

// write registers a copy with its partition and sends it. After the fence nothing is written (I3): what is registered before counts
// as in flight.
func (p *partition) write(w *write) {
	p.mu.Lock()
	if p.stage.Load() == fenced {
		p.mu.Unlock()
		return
	}
	if w.parts == nil {
		p.split(w)
	}
	w.it.Set(watermark.Producing)
	p.producing.add(w)
	r := w.part()
	p.mu.Unlock()
	p.give(w, r)
}

// split makes the parts of a copy: chunks, if it is too large for its topic. If not even that can be done, for want of room beside key
// and headers, our text headers are shed; and if that does not help it is written as it is, to be refused. p.mu is held.
func (p *partition) split(w *write) {
	limit, _ := p.c.sizes.limit(w.rec.Topic)
	if w.limit > 0 {
		limit = min(limit, w.limit)
	}
	w.acked = 0
	if wire.Fits(w.rec, limit) {
		w.one[0] = w.rec
		w.parts = w.one[:]
		return
	}
	var err error
	if w.parts, err = wire.SplitSparing(w.rec, newGroup(), limit, p.c.set.chunks); err != nil && !w.slim {
		w.slim, w.limit = true, 0
		w.rec.Headers = wire.Slim(w.rec.Headers)
		p.split(w)
		return
	}
	if err != nil {
		w.parts = []*kgo.Record{w.rec}
	}
	if len(w.parts) > 1 {
		now := time.Now()
		for _, part := range w.parts {
			part.Timestamp = now // one for all
		}
	}
}

// send hands the copy to kgo, which tries for as long as the broker's answers let it.
func (p *partition) send(w *write) {
	p.mu.Lock()
	r := w.part()
	p.mu.Unlock()
	p.give(w, r)
}

// part is the next one to be written. kgo gets the copy itself, once, and of all else a struct of its own: what it was refused must not be
// produced again by itself, and where a dead letter goes is said by the partition that it had, which kgo overwrites. p.mu is held.
func (w *write) part() *kgo.Record {
	r := w.parts[w.acked]
	if r == &w.whole && !w.dead {
		w.begun = true
		return r
	}
	c := *r
	return &c
}

// anew makes the copy anew, which kgo has had. p.mu is held.
func (w *write) anew() {
	if !w.begun {
		return
	}
	w.begun = false
	w.rec = &kgo.Record{Topic: w.rec.Topic, Key: w.rec.Key, Value: w.rec.Value, Headers: w.rec.Headers, Context: w.rec.Context}
	w.one[0] = w.rec
}

// give hands kgo a part, when it is its turn.
func (p *partition) give(w *write, r *kgo.Record) {
	if p.c.sizes.queued(r.Topic) {
		p.c.sizes.enter(r.Topic, func(leave func()) { p.produce(w, r, leave) })
		return
	}
	p.produce(w, r, nil)
}

// produce is give's, where nobody is before it.
func (p *partition) produce(w *write, r *kgo.Record, leave func()) {
	p.c.cl.TryProduce(p.writes, r, func(r *kgo.Record, err error) {
		if leave != nil {
			leave()
		}
		if err != nil {
			p.refused(w, err)
			return
		}
		p.acked(w, r)
	})
}

// acked completes the record, if it was the last part: its copy is safe.
func (p *partition) acked(w *write, r *kgo.Record) {
	p.mu.Lock()
	ours := w.listed
	more := ours && p.nextPart(w, r)
	if !more {
		p.producing.remove(w)
	}
	if ours && !more {
		w.it.end() // under the lock: a drain that sees no write under way must see its record resolved (I5)
	}
	p.mu.Unlock()
	if !ours {
		return // given up at the fence: whoever owns the partition now writes it again
	}
	if more {
		p.send(w)
		return
	}
	if p.stage.Load() != live {
		p.signal()
	}
	if p.crowded.Load() {
		p.c.relieve()
	}
	p.c.writeEnded(w.rec.Topic)
	p.c.wroteHook(w, r)
}

// nextPart counts one that is acked and reports whether another is to follow, to the same partition. What a refusal taught was right.
// p.mu is held.
func (p *partition) nextPart(w *write, r *kgo.Record) bool {
	if w.acked++; w.acked == 1 {
		w.offset = r.Offset
		there := pinned(w.rec.Context, r.Partition)
		for _, part := range w.parts[1:] {
			part.Context = there //nolint:fatcontext // the same for each: nothing is nested
		}
	}
	if w.limit > 0 {
		p.c.sizes.set(w.rec.Topic, int64(w.limit))
	}
	return w.acked < len(w.parts)
}

// refused keeps the record pending and tries again later, for as long as it takes (I9).
func (p *partition) refused(w *write, err error) {
	p.mu.Lock()
	ours := w.listed
	w.anew()
	p.mu.Unlock()
	if !ours || p.writes.Err() != nil {
		return
	}
	if w.moved && w.acked == 0 { // one that is begun is ended
		p.moveRefused(w, err)
		return
	}
	topic := w.rec.Topic
	if errors.Is(err, kgo.ErrMaxBuffered) {
		p.later(w, 100*time.Millisecond) // kgo's buffer is full: no refusal, only a wait
		return
	}
	p.mu.Lock()
	w.tries++
	wait := min(100*time.Millisecond<<min(w.tries-1, 6), 5*time.Second)
	if errors.Is(err, kerr.MessageTooLarge) {
		p.c.sizes.tooLarge(topic)
		p.shrink(w)
	}
	p.mu.Unlock()
	if errors.Is(err, kerr.UnknownTopicID) {
		p.c.renewer.add(topic, &p.c.renewer.produced)
	}
	p.c.writeFailed(w, topic, err, wait)
	p.later(w, wait)
}

// shrink makes a copy that was refused as too large smaller: in chunks of half the size, without our text headers where these leave no room,
// and at last a dead letter, whose topic may take more. p.mu is held, for Health looks at what is being written.
func (p *partition) shrink(w *write) {
	size := wire.RecordSize(w.parts[min(w.acked, len(w.parts)-1)])
	switch {
	case w.tries == 1: // perhaps only the batch it was in: once more as it is
	case w.chunks != nil: // each is a chunk of its own message, and stays what it is
		if !w.slim {
			w.slim = true
			for _, part := range w.parts {
				part.Headers = wire.Slim(part.Headers)
			}
		}
	case p.halve(w, size/2):
	case !w.slim:
		w.slim, w.limit = true, 0
		w.rec.Headers = wire.Slim(w.rec.Headers)
		p.split(w)
	case !w.dead && !w.moved && p.t.dead != "":
		w.dead = true
		w.rec.Topic = p.t.dead
		if w.rec.Partition = w.origin.Partition; w.rec.Partition < 0 {
			w.rec.Partition = p.partition
		}
		w.rec.Headers = wire.AppendDeadLetter(wire.Bare(w.rec.Headers), wire.DeadLetter{
			Origin:  w.origin,
			Group:   p.c.set.group,
			Message: "too large for " + p.t.retry, Deliveries: w.attempt - 1, FirstFailure: w.first, Error: w.text,
		})
		w.slim, w.limit = false, 0
		p.split(w)
	}
}

// halve splits a copy into chunks of a size; false if key and headers are too large for that.
func (p *partition) halve(w *write, limit int) bool {
	parts, err := wire.SplitSparing(w.rec, newGroup(), limit, p.c.set.chunks)
	if err != nil || len(parts) == 1 {
		return false
	}
	w.limit = limit
	p.split(w)
	return true
}

// later sends the copy again in a while.
func (p *partition) later(w *write, wait time.Duration) {
	due := ceilMilli(p.c.now().Add(wait)).UnixMilli()
	p.mu.Lock()
	if w.listed {
		p.resend.push(entry{due: due, offset: w.it.offset, w: w})
		p.alarm()
	}
	p.mu.Unlock()
	p.c.waker.wake(due)
}

// copyPartitioner places dead letters by the base topic's partition, as Kafka's own are (KIP-1191), and all else as a Producer does.
type copyPartitioner struct {
	dead map[string]bool
	rest kgo.Partitioner
}

func newCopyPartitioner(topics []*topic) kgo.Partitioner {
	p := copyPartitioner{dead: map[string]bool{}, rest: newPartitioner()}
	for _, t := range topics {
		if t.dead != "" {
			p.dead[t.dead] = true
		}
	}
	return p
}

// ForTopic implements kgo.Partitioner.
func (p copyPartitioner) ForTopic(topic string) kgo.TopicPartitioner {
	if p.dead[topic] {
		return samePartition{}
	}
	return p.rest.ForTopic(topic)
}

type samePartition struct{}

func (samePartition) RequiresConsistency(*kgo.Record) bool { return true }
func (samePartition) Partition(r *kgo.Record, n int) int {
	if at, ok := pinOf(r); ok && at < n {
		return at
	}
	return int(r.Partition) % n
}
