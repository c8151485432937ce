package retriable

import (
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// Chunks of a message are joined as they are read, before anything else is done with them. The joiner is one for all partitions, and is
// the gate's: only the poller, or who has shut the gate, asks it. A chunk that waits for others is an item in state Joining, of which nothing
// is kept but its offset. The last chunk's item becomes the message's: it takes its lane where it lies, runs and is retried like any other.
// The others stay in state Joining, so that the first of them holds the watermark, and end with it.

// assembly is the items of one message. They end together, in one look at the partition: a commit says of all of them that they are done,
// or of none, or a restart would join what is left of a message (I1).
type assembly struct {
	carrier *item // the message's
	others  []*item
	first   int64 // the offset of the first chunk, and so of the message
}

// assemble makes one of items; the carrier has the message. p.mu is held.
func assemble(carrier *item, others []*item) {
	a := &assembly{carrier: carrier, others: others, first: carrier.offset}
	carrier.own.Load().of = a
	for _, it := range others {
		a.first = min(a.first, it.offset)
		it.own.Store(&own{of: a})
	}
}

// assembly returns that of a chunk whose message is complete, or given up; nil mostly.
func (it *item) assembly() *assembly {
	if o := it.own.Load(); o != nil {
		return o.of
	}
	return nil
}

// carrier returns the item that has the message of which it is a chunk: itself, mostly.
func (it *item) carrier() *item {
	if a := it.assembly(); a != nil {
		return a.carrier
	}
	return it
}

// end resolves an item, and with it all of its message. If that is in chunks p.mu is held.
func (it *item) end() {
	o := it.own.Load()
	if o == nil {
		it.Done() // it may be another record's from here on
		return
	}
	if o.of != nil {
		for _, other := range o.of.others {
			other.Done()
			other.own.Store(nil)
		}
	}
	it.Done()
	it.own.Store(nil)
}

// beganBelow reports whether record i is a message in chunks whose first lies below offset. p.mu is held.
func (r *run) beganBelow(i int, offset int64) bool {
	it := r.item(i)
	return it != nil && it.assembly() != nil && it.assembly().first < offset
}

// joins is what the chunks among the records of an intake came to.
type joins struct {
	parts    []*item // wait for the rest of their message, or belong to it
	complete []joined
	rejected []*wire.Rejection // dealt with once the gate is open
}

// joined is a message that has become complete.
type joined struct {
	it      *item
	offsets []int64
}

// join passes a record through the joiner. It returns the message to go on with, r itself if it is no chunk; nil if there is none, or not
// yet.
func (in *intake) join(i int, r *kgo.Record) *kgo.Record {
	if !wire.Chunked(r.Headers) {
		return r
	}
	res := in.p.c.joiner.Add(in.now, r)
	if res.Kind == wire.Whole {
		in.replace(i, res.Record)
		return res.Record
	}
	if in.joins == nil {
		in.joins = &joins{} // nearly all intakes have none
	}
	switch res.Kind {
	case wire.Whole:
	case wire.Joined:
		in.joins.complete = append(in.joins.complete, joined{in.item(i), res.Offsets})
		in.replace(i, res.Record)
		in.run.bytes += recordBytes(res.Record)
		if in.run.own == nil {
			in.run.own = make([]bool, len(in.run.slots))
		}
		in.run.own[i] = true
		return res.Record
	case wire.Repeat:
		in.pass(i)
	case wire.Rejected:
		in.joins.rejected = append(in.joins.rejected, res.Rejection)
		in.wait(i)
	case wire.Part:
		in.wait(i)
	}
	return nil
}

// wait leaves a chunk to those of its message. The fetched batch is not needed for it.
func (in *intake) wait(i int) {
	it := in.item(i)
	if it.keyed {
		it.hash = uint16(laneHash(it.rec.Key)) // what it waits for has the same
	}
	in.run.setApart(i)
	it.rec, it.in = nil, inHeap
	it.Set(watermark.Joining)
	in.joins.parts = append(in.joins.parts, it)
}

// publish makes known which items wait for others, and which have come together. The gate and p.mu are held.
func (j *joins) publish(p *partition) {
	if p.joining == nil {
		p.joining = map[int64]*item{}
	}
	for _, it := range j.parts {
		p.joining[it.offset] = it
	}
	for _, done := range j.complete {
		assemble(done.it, p.joined(done.offsets))
	}
	p.c.watchChunks()
}

// joined takes items out of those that wait. p.mu is held.
func (p *partition) joined(offsets []int64) (items []*item) {
	for _, offset := range offsets {
		if it := p.joining[offset]; it != nil {
			delete(p.joining, offset)
			items = append(items, it)
		}
	}
	return items
}

// watchChunks sets the alarm of the delay goroutine to the first deadline of an incomplete message. The gate is held.
func (c *Consumer) watchChunks() {
	due := int64(maxDue)
	if next := c.joiner.NextDeadline(); !next.IsZero() {
		due = ceilMilli(next).UnixMilli()
	}
	c.joinDue.Store(due)
	c.waker.wake(due)
}

// giveUpChunks ends the messages whose deadline is over, also when nothing is read any more.
func (c *Consumer) giveUpChunks() {
	var expired []*wire.Rejection
	c.gate.shut(func() {
		expired = c.joiner.Expire(c.now())
		c.watchChunks()
	})
	for _, r := range expired {
		if p := c.partition(topicPartition{r.Topic, r.Partition}); p != nil {
			p.reject(r)
		}
	}
}

// forgetChunks drops what is incomplete of partitions that are given up. The gate is held.
func (c *Consumer) forgetChunks(parts []*partition) {
	for _, p := range parts {
		c.joiner.Drop(p.topic, p.partition)
	}
	c.watchChunks()
}

// cutChunks drops the chunks from offset on: the log was cut there. The gate and p.mu are held.
func (p *partition) cutChunks(offset int64) {
	p.c.joiner.Cut(p.topic, p.partition, offset)
	for at := range p.joining {
		if at >= offset {
			delete(p.joining, at)
		}
	}
}

// aboveJoining is the first offset above low of which anything but a chunk that waits for others is unresolved. p.mu is held.
func (p *partition) aboveJoining(low int64) int64 {
	for seg, i := range p.window.Unresolved() {
		if at := seg.Offset(i); p.joining[at] == nil {
			return max(low, at)
		}
	}
	return p.window.Next()
}

// errChunks is why the parts of a message became dead letters, or were dropped.
var errChunks = errors.New("retriable: a message in chunks cannot be joined")

// reject writes the chunks of a group that will not become a message to the dead-letter topic, each as it is and with the reason. Their
// offsets end when all are acked.
func (p *partition) reject(r *wire.Rejection) {
	c := p.c
	offsets := slices.Clone(r.Repeats)
	size := int64(0)
	for _, part := range r.Parts {
		offsets = append(offsets, part.Offset)
		size += recordBytes(part) + itemBytes
	}
	slices.Sort(offsets)
	p.mu.Lock()
	items := p.joined(offsets)
	if len(items) == 0 || p.stage.Load() == fenced {
		p.mu.Unlock()
		return // its log was cut, or it is somebody else's by now
	}
	it := items[0]
	it.own.Store(&own{size: size})
	assemble(it, items[1:])
	p.runs++
	it.in = p.runs // it is pending: the parts take memory until they are acked
	p.open = append(p.open, &run{list: []*item{it}, no: p.runs})
	p.mu.Unlock()
	c.tellChunks(p, r, p.t.dead != "")
	if p.t.dead == "" {
		n := len(r.Parts)
		c.total.dropped.Add(uint64(n))
		d := Dropped{Source: p.name(it), Records: int64(n), Err: errChunks}
		p.resolve(it)
		call(c, c.hook.dropped, func(h HookDropped) { h.OnDropped(d) })
		return
	}
	p.write(p.lettersOf(r, it))
}

// tellChunks logs a rejection: each message that is given up for its deadline, of what is malformed or beyond a limit one a minute.
func (c *Consumer) tellChunks(p *partition, r *wire.Rejection, kept bool) {
	tell := func() {
		c.log.Warn("retriable: chunks cannot be joined to a message", "record", Position{p.topic, p.partition, r.Parts[0].Offset},
			"chunks", len(r.Parts), "reason", r.Reason, "kept as dead letters", kept)
	}
	if r.Reason == wire.ReasonDeadline {
		tell()
		return
	}
	c.sometimes(&c.chunksLogged, tell)
}

// lettersOf makes dead letters of the parts of a group. They keep their chunk headers, so that the message can be joined if they are
// sent back.
func (p *partition) lettersOf(r *wire.Rejection, it *item) *write {
	w := &write{p: p, it: it, dead: true, err: errChunks, since: time.Now()}
	for _, part := range r.Parts {
		d := wire.DeadLetter{
			Origin: wire.Origin{Topic: p.topic, Partition: p.partition, Offset: part.Offset, Time: part.Timestamp},
			Group:  p.c.set.group, Message: r.Reason,
		}
		if p.retry {
			h := wire.ParseRetry(part.Headers)
			d.Deliveries, d.FirstFailure, d.Error = h.Attempt-1, h.FirstFailure, h.Error
			if h.Known() && p.t.covers(h.Topic) {
				d.Origin = h.Origin
			} else {
				d.Origin = wire.Origin{Topic: p.originTopic(), Partition: -1, Offset: -1, Time: h.Time}
			}
		}
		letter := &kgo.Record{
			Topic: p.t.dead, Key: part.Key, Value: part.Value, Partition: d.Partition,
			Headers: wire.AppendDeadLetter(wire.BarePart(part.Headers), d), Context: p.c.withValues(p.writes, part.Context),
		}
		if d.Partition < 0 {
			letter.Partition = p.partition
		}
		w.parts = append(w.parts, letter)
		m := NewMessage(&kgo.Record{
			Key: part.Key, Value: part.Value, Headers: wire.User(part.Headers), Timestamp: part.Timestamp,
			Topic: d.Topic, Partition: d.Partition, Offset: d.Offset,
		})
		m.Attempt, m.Source = d.Deliveries, Position{p.topic, p.partition, part.Offset}
		w.chunks = append(w.chunks, m)
	}
	w.rec = w.parts[0]
	return w
}
