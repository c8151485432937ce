package retriable

import (
	"context"
	"slices"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// Back-pressure is per partition: what has reached a bound is paused in kgo, and resumed at half of it. A pause drops what kgo has
// buffered of the partition, so a partition whose workers are about to catch up is first given a moment.

const (
	pollRecords = 20_000                // at most, by one poll
	patience    = 20 * time.Millisecond // for a partition at its bound before it is paused
	reliefEvery = 5 * time.Millisecond  // between two looks at what may be resumed
)

// look takes a partition's load: how much more may be read of it, and what it adds to the bytes of all.
func (p *partition) look() load {
	p.mu.Lock()
	l := p.load()
	p.c.bytes.Add(l.bytes - p.bytes)
	p.bytes = l.bytes
	p.mu.Unlock()
	s := p.c.set
	room := min(int64(s.maxPending-l.pending), int64(s.maxHeld-l.held), s.maxWindow-l.span)
	p.room.Store(room)
	return l
}

// forget takes a partition's bytes out of the sum. p.mu is held.
func (p *partition) forget() {
	p.c.bytes.Add(-p.bytes)
	p.bytes = 0
}

// mayRead bounds the next poll, so that no partition gets more than it has room for.
func (c *Consumer) mayRead() int {
	n := int64(pollRecords)
	few := int64(c.set.maxPending / 4)
	for _, p := range c.partitions() {
		if p.paused.Load() {
			continue
		}
		room := p.room.Load()
		if room < few {
			p.look()
			room = p.room.Load()
		}
		n = min(n, max(room, 1))
	}
	return int(n)
}

// full reports whether a partition is at a bound. The bytes are one budget: at its limit those above their fair share wait, and one
// with nothing in memory never does (I10).
func (c *Consumer) full(l load, room int64) bool {
	return room <= 0 || c.bytes.Load() >= c.set.maxPendingBytes && l.bytes > c.fairShare()
}

// relaxed reports whether a paused partition is at half of every bound.
func (c *Consumer) relaxed(l load) bool {
	s := c.set
	return l.pending <= s.maxPending/2 && l.held <= s.maxHeld/2 && l.span <= s.maxWindow/2 &&
		(c.bytes.Load() <= s.maxPendingBytes/2 || l.bytes <= c.fairShare()/2)
}

func (c *Consumer) fairShare() int64 {
	return c.set.maxPendingBytes / int64(max(1, len(c.partitions())))
}

// crowd pauses what is at a bound, after a moment of patience if work could still relieve it.
func (c *Consumer) crowd(ctx context.Context) {
	at := c.crowded(true)
	if len(at) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for len(at) > 0 && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-c.progress:
			at = c.crowded(true)
		}
	}
	c.pause(c.crowded(false))
}

// crowded returns the partitions at a bound that are not paused yet. With hopeful those are paused at once, and left out, whose bound
// running handlers cannot relieve.
func (c *Consumer) crowded(hopeful bool) (at []*partition) {
	if c.bytes.Load() >= c.set.maxPendingBytes {
		c.copyOut()
	}
	var hopeless []*partition
	for _, p := range c.partitions() {
		if p.paused.Load() || p.stage.Load() != live {
			continue
		}
		if p.room.Load() > 0 && c.bytes.Load() < c.set.maxPendingBytes {
			p.crowded.Store(false)
			continue
		}
		l := p.look()
		switch {
		case !c.full(l, p.room.Load()):
			p.crowded.Store(false)
		case hopeful && l.pending == 0:
			hopeless = append(hopeless, p)
		default:
			p.crowded.Store(true)
			at = append(at, p)
		}
	}
	c.pause(hopeless)
	return at
}

func (c *Consumer) pause(parts []*partition) {
	if len(parts) == 0 {
		return
	}
	c.gate.shut(func() { // not while a poll or an assignment is under way
		m := map[string][]int32{}
		for _, p := range parts {
			if p.stage.Load() == live {
				p.paused.Store(true)
				p.crowded.Store(true)
				m[p.topic] = append(m[p.topic], p.partition)
			}
		}
		c.cl.PauseFetchPartitions(m)
	})
	c.relieve() // it may have been relieved meanwhile
}

// resume has kgo fetch partitions again.
func (c *Consumer) resume(parts []*partition) {
	m := map[string][]int32{}
	for _, p := range parts {
		p.crowded.Store(false)
		if p.paused.Swap(false) {
			m[p.topic] = append(m[p.topic], p.partition)
		}
	}
	if len(m) > 0 {
		c.cl.ResumeFetchPartitions(m)
	}
}

// relieve has the partitions at a bound looked at again.
func (c *Consumer) relieve() {
	for _, ch := range [2]chan struct{}{c.relief, c.progress} {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// relieveLoop resumes what is relaxed again. It does not depend on polls, which bring nothing while all is paused.
func (c *Consumer) relieveLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.relief:
		}
		var calm []*partition
		for _, p := range c.partitions() {
			if p.paused.Load() && c.relaxed(p.look()) {
				calm = append(calm, p)
			}
		}
		if len(calm) > 0 {
			c.gate.shut(func() { c.resume(slices.DeleteFunc(calm, func(p *partition) bool { return p.stage.Load() != live })) })
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(reliefEvery):
		}
	}
}

// copyOut copies what waits in batches that are mostly done, so that their memory is free again.
func (c *Consumer) copyOut() {
	for _, p := range c.partitions() {
		p.mu.Lock()
		for _, r := range p.open {
			r.copyOut()
		}
		p.mu.Unlock()
		p.look()
	}
}

// copyOut copies the queued items of a run if they are less than half of what the batch takes. p.mu is held.
func (r *run) copyOut() {
	if r.list != nil {
		return
	}
	var own int64
	for i := r.low; i < len(r.base); i++ {
		if it := &r.base[i]; it.in == r && it.slot.State() != watermark.Done {
			own += int64(it.size) + itemBytes
		}
	}
	if own*2 > r.bytes {
		return
	}
	for i := r.low; i < len(r.base); i++ {
		it := &r.base[i]
		if it.in != r || it.copied || !it.slot.Move(watermark.Queued, watermark.Copying) {
			continue
		}
		m := *it.msg
		m.Record = cloneRecord(m.Record)
		it.msg, it.copied = &m, true
		it.slot.Set(watermark.Queued)
	}
}
