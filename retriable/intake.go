package retriable

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// intake is a batch of one partition on its way to the lanes. Only the poller has one, so that records are tracked in poll order before anyone
// else sees them.
type intake struct {
	p       *partition
	now     time.Time
	run     *run
	hashes  []uint64 // of the items that have a lane, 0 for the others
	held    []entry
	hooked  []Held
	claims  []watermark.Run
	skipped int // finished before this assignment
	foreign int
	bad     int
	joins   *joins // nil if there were no chunks
	rooms   []own  // for the messages of retries, some at a time
	said    string // the error of the one before, which is likely that of the next
}

// room is where the message of a retry that came i-th is made.
func (in *intake) room(i int) (o *own) {
	if len(in.rooms) == 0 {
		in.rooms = make([]own, min(len(in.run.recs)-i, maxMessages))
	}
	o, in.rooms = &in.rooms[0], in.rooms[1:]
	return o
}

// accept tracks records of one leader epoch. It reports whether there is work for the workers. As little as can be is done here for each
// record, for all of them pass through this one goroutine.
func (in *intake) accept(recs []*kgo.Record) (work bool) {
	p := in.p
	in.run = &run{read: in.now.UnixMilli(), again: p.t.recycle, recs: recs[:len(recs):len(recs)]}
	seg := watermark.NewSegment(in.run, recs[0].LeaderEpoch, len(recs), func(i int) int64 { return recs[i].Offset })
	in.run.seg, in.run.slots = seg, seg.Slots()
	keyed := p.t.order == ByKey
	if keyed || p.retry {
		in.items(keyed)
	}
	largest := int64(0)
	for i, r := range recs {
		size := recordBytes(r) + itemBytes
		largest = max(largest, size)
		in.run.bytes += size
		switch {
		case len(in.claims) > 0 && in.claimed(r):
			in.skipped++
			in.pass(i)
		case p.retry:
			in.readRetry(i, r)
		case len(r.Headers) > 0:
			in.readBase(i, r)
		}
	}
	if keyed {
		in.hash(recs)
	}
	p.c.recordSize.Store(max(largest, p.c.recordSize.Load()))
	return in.publish(seg)
}

// items makes an item for each record.
func (in *intake) items(keyed bool) {
	r := in.run
	if keyed && !in.p.retry && in.p.t.batch == nil {
		r.slab = slabFor(len(r.recs))
		r.items = (*r.slab)[:len(r.recs)]
	} else {
		r.items = make([]item, len(r.recs))
	}
	ready := in.now.UnixMilli()
	for i, rec := range r.recs {
		it := &r.items[i]
		it.Slot, it.offset, it.rec, it.ready, it.keyed = &r.slots[i], r.offset(i), rec, ready, keyed && rec.Key != nil
	}
}

// item returns the item of a record, which mostly there is none of where the order is not by key.
func (in *intake) item(i int) *item {
	if in.run.items == nil {
		in.items(false)
	}
	return &in.run.items[i]
}

// replace has an item be about another record: the message that its chunk completed.
func (in *intake) replace(i int, whole *kgo.Record) {
	in.item(i).keyed = in.p.t.order == ByKey && whole.Key != nil
	if whole != in.run.recs[i] {
		in.run.again = false
	}
	in.run.recs[i] = whole
}

// hash notes the hashes of the keys, 0 where a record joins no lane now.
func (in *intake) hash(recs []*kgo.Record) {
	for i := range recs {
		hash := uint64(0)
		switch it := &in.run.items[i]; {
		case !it.keyed:
		case i >= len(in.run.apart) || !in.run.apart[i]:
			hash = laneHash(in.run.recs[i].Key)
			it.hash = uint16(hash)
		case it.own.Load() != nil: // it joins when it is due
			it.hash = uint16(laneHash(it.key()))
		}
		in.hashes = append(in.hashes, hash)
	}
}

// pass resolves an item at once: it is not for a handler.
func (in *intake) pass(i int) {
	in.run.setApart(i)
	in.run.slots[i].Done()
}

// claimed reports whether the map says that the record is done. It knows the log up to a leader epoch: what is newer is another record, and
// with it ends all that the map says.
func (in *intake) claimed(r *kgo.Record) bool {
	for len(in.claims) > 0 && in.claims[0].To <= r.Offset {
		in.claims = in.claims[1:]
	}
	if len(in.claims) == 0 || in.claims[0].From > r.Offset {
		return false
	}
	if e := in.p.claimEpoch; e >= 0 && r.LeaderEpoch > e {
		in.claims = nil
		in.p.mu.Lock()
		in.p.claims = nil
		in.p.mu.Unlock()
		return false
	}
	return true
}

// readBase looks at the headers of the library on a base record: chunks make a message together, and with Scheduled it may not be due yet.
func (in *intake) readBase(i int, r *kgo.Record) {
	limit := in.p.t.scheduled
	if limit <= 0 && !wire.Chunked(r.Headers) {
		return
	}
	whole := in.join(i, r)
	if whole == nil {
		return
	}
	due := int64(0)
	if limit > 0 {
		due = in.scheduled(whole, limit)
	}
	switch m := (Message{Attempt: 1, Source: in.p.at(whole.Offset)}); {
	case due > in.now.UnixMilli():
		m.Record = bare(whole)
		in.hold(i, m, entry{due: due})
	case whole != r, due > 0 && in.p.c.timed:
		m.Record = bare(whole)
		it := in.item(i)
		it.keep(m)
		it.own.Load().due = due
	}
}

// scheduled returns when the producer of a base record wants it delivered, cut to limit from its own time, 0 if it does not say.
func (in *intake) scheduled(r *kgo.Record, limit time.Duration) int64 {
	due, ok, bad := wire.ParseDue(r.Headers)
	in.bad += bad
	if !ok {
		return 0
	}
	from := in.now // a record may have no time, or one to come
	if t := r.Timestamp; t.UnixMilli() >= 0 && t.Before(from) {
		from = t
	}
	return min(due, ceilMilli(from.Add(limit)).UnixMilli())
}

// readRetry makes the message of a retry record: the record as first produced, its attempt, and whether it is due.
func (in *intake) readRetry(i int, r *kgo.Record) {
	p := in.p
	h := wire.ParseRetry(r.Headers, p.c.set.group, p.t.name, in.said)
	in.bad += h.Bad
	if h.Group != "" && h.Group != p.c.set.group {
		in.foreign++ // another group's: done at once
		in.pass(i)
		return
	}
	whole := in.join(i, r)
	if whole == nil {
		return
	}
	it, m := in.item(i), Message{Source: p.at(whole.Offset)}
	due := min(h.Due, in.now.Add(max(p.t.maxDelay, p.t.scheduled)).UnixMilli())
	moved := min(h.Moved, in.now.UnixMilli())
	stay := p.stay(whole, moved, due)
	orig := whole // of which nobody else makes anything
	orig.Headers = wire.User(whole.Headers)
	orig.Topic, orig.Partition, orig.Offset = p.originTopic(), -1, -1
	if h.Known() && p.t.covers(h.Topic) {
		orig.Topic, orig.Partition, orig.Offset = h.Topic, h.Partition, h.Offset
	}
	if !h.Time.IsZero() {
		orig.Timestamp = h.Time
	}
	m.Record = orig
	m.Attempt = min(max(h.Attempt, 1), p.t.maxAttempts) // I8, I12
	m.LastError, in.said = h.Error, h.Error
	if h.FirstFailure > 0 {
		m.FirstFailure = time.UnixMilli(h.FirstFailure)
	} else if m.Attempt > 1 {
		m.FirstFailure = in.now // unknown: it starts anew here
	}
	if due > in.now.UnixMilli() {
		in.hold(i, m, stay)
		it.own.Load().moved = moved
		return
	}
	room := in.room(i)
	it.keepIn(room, m)
	room.due = due
}

// originTopic is the topic of a record whose origin is unknown: the base topic, or for a pattern the retry topic.
func (p *partition) originTopic() string {
	if p.t.re != nil {
		return p.topic
	}
	return p.t.name
}

// covers reports whether a record of t's retry topic may come from the named base topic.
func (t *topic) covers(name string) bool {
	if t.re != nil {
		return t.re.MatchString(name)
	}
	return t.name == name
}

// hold puts a record in the heap, copied out of its batch.
func (in *intake) hold(i int, m Message, e entry) {
	it, due := in.item(i), max(e.due, e.final)
	in.run.setApart(i)
	if i >= len(in.run.own) || !in.run.own[i] { // what was joined is copied out already
		m.Record = cloneRecord(m.Record)
	}
	it.keep(m)
	it.own.Load().due = due
	it.in, it.ready = inHeap, due
	it.Set(watermark.Held)
	e.offset, e.it = m.Source.Offset, it
	in.held = append(in.held, e)
	if len(in.p.c.hook.held) > 0 {
		in.hooked = append(in.hooked, Held{Source: m.Source, Attempt: m.Attempt, Due: time.UnixMilli(due)})
	}
}

// publish makes the batch visible: to the window first, then to the workers.
func (in *intake) publish(seg *segment) (work bool) {
	p := in.p
	p.mu.Lock()
	p.window.Begin(seg)
	waiting := 0
	if in.joins != nil {
		in.joins.publish(p)
		waiting = len(in.joins.parts)
	}
	for i, hash := range in.hashes {
		if hash != 0 {
			p.lanes.join(hash, &in.run.items[i], in.run)
		}
	}
	for _, e := range in.held {
		p.heap.push(e)
		p.heldBytes += e.it.bytes()
	}
	if len(in.held) > 0 {
		p.alarm()
	}
	next := p.heap.top()
	work = len(in.held)+in.foreign+in.skipped+waiting < len(in.run.recs)
	if work {
		p.push(in.run)
	}
	p.mu.Unlock()
	if len(in.held) > 0 {
		p.c.waker.wake(next)
	}
	return work
}

// odd reports whether there is anything to tell of the batch.
func (in *intake) odd() bool {
	return len(in.hooked)+in.skipped+in.foreign+in.bad > 0 || in.joins != nil && len(in.joins.rejected) > 0
}

// report tells what was odd about the batch.
func (in *intake) report() {
	c := in.p.c
	if in.joins != nil {
		for _, r := range in.joins.rejected {
			in.p.reject(r)
		}
	}
	for _, e := range in.hooked {
		c.heldHook(e)
	}
	if in.skipped > 0 {
		c.total.skipped.Add(uint64(in.skipped))
		e := Skipped{Topic: in.p.topic, Partition: in.p.partition, Records: in.skipped}
		call(c, c.hook.skipped, func(h HookSkipped) { h.OnSkipped(e) })
	}
	if in.foreign > 0 {
		c.total.foreign.Add(uint64(in.foreign))
		c.log.Debug("retriable: records meant for other groups are passed over", "topic", in.p.topic, "partition", in.p.partition, "records", in.foreign)
	}
	if in.bad > 0 {
		c.total.badHeaders.Add(uint64(in.bad))
		c.sometimes(&c.badLogged, func() {
			c.log.Warn("retriable: malformed headers of the library are ignored; only members of the group should write to a retry topic",
				"topic", in.p.topic, "partition", in.p.partition, "headers", in.bad)
		})
	}
}
