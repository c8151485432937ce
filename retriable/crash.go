package retriable

import (
	"fmt"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// A record that ends its process (memory, os.Exit, a fault in C code) comes again with every takeover. Commits tell of it: whoever gives a
// partition up in order leaves a clean mark; who finds none, at a watermark that has not moved since the takeover before, counts one. From
// the second on the partition is careful: one record at a time runs, and an acked commit has noted it before. What is found noted
// when the count is full is given up. A process that lost a partition and lives takes its own takeover out of the count when it has it again.
//
// That a record was noted proves nothing if others ran beside it. So while one partition is careful, all that were taken over without a
// clean mark are, for any of them may hold the cause; the pool lets one worker at a time be at any of these.

// crashes is what is known of the deaths of a partition's owners. p.mu is held.
type crashes struct {
	suspect   bool  // it was taken over without a clean mark, with records to handle
	count     int   // takeovers in a row without a clean mark and without progress
	base      int64 // the watermark at this takeover
	noted     int64 // the record that runs alone, -1 for none
	condemned int64 // the record that was found noted when the count was full, -1 for none
	end       int64 // the log's at this takeover: what lies above has ended no process
	passed    int   // records that ended while it was careful, in their retry topic too
	taken     time.Time
	since     time.Time // since when it is careful
	running   time.Time // since when the noted record may run
}

func newCrashes(base int64) crashes { return crashes{base: base, noted: -1, condemned: -1} }

// carefulFrom is the count from which on a partition is careful.
func (s *settings) carefulFrom() int { return max(1, min(2, s.maxCrashes-1)) }

// carefulFor is how long a consumer is careful at most, and how long a takeover raises suspicion: a process that dies later has got on
// meanwhile.
const carefulFor = 10 * time.Minute

// takeOver reads what the commit tells of the owner before. p.mu is held, or nobody else has p yet.
func (p *partition) takeOver(m watermark.Map, offset int64) {
	p.crash = newCrashes(offset)
	if p.c.set.maxCrashes == 0 || m.Clean || offset >= p.end {
		return
	}
	p.crash.suspect, p.crash.end, p.crash.taken = true, p.end, p.c.now()
	before, ok := watermark.ReadCrashes(m.Notes, offset)
	if !ok {
		return // it has moved since the takeover before
	}
	if p.crash.count = before.Count; !before.Moved {
		p.crash.count = min(max(before.Count+1-p.survived(offset), 0), 255)
	}
	if before.Noted >= 0 && p.crash.count >= p.c.set.maxCrashes {
		p.crash.condemned = before.Noted
	}
}

// outlived is a takeover that this process lived through, though it could not leave a clean mark: brokers that do not answer for a while are no crash.
type outlived struct {
	base  int64 // the watermark at that takeover
	times int   // in a row, and not yet told to those who count
}

// survive notes that we live, after partitions were given up with a clean mark or without one.
func (c *Consumer) survive(parts []*partition, clean bool) {
	for _, p := range parts {
		p.mu.Lock()
		now := outlived{base: p.crash.base, times: 1}
		p.mu.Unlock()
		if p.outlived.base == now.base {
			now.times += p.outlived.times
		}
		c.mu.Lock()
		if clean {
			delete(c.outlived, p.topicPartition)
		} else {
			c.outlived[p.topicPartition] = now
		}
		c.mu.Unlock()
	}
}

// survived is how many takeovers at this watermark were ours and are counted, by us now or by others before. Those who come after us count on from
// what we say. p.mu is held, or nobody else has p yet.
func (p *partition) survived(base int64) (times int) {
	if p.outlived.base == base {
		times = p.outlived.times
	}
	p.outlived = outlived{base: -1}
	return times
}

func (c *Consumer) outlivedOf(name topicPartition) outlived {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o, ok := c.outlived[name]; ok {
		return o
	}
	return outlived{base: -1}
}

// notes is what a commit at an offset tells of crashes: nothing once the watermark has moved, unless the partition is careful. p.mu is held.
func (p *partition) notes(offset int64) []byte {
	k := &p.crash
	if p.c.set.maxCrashes == 0 || offset > k.base && !p.careful.Load() {
		return nil
	}
	return watermark.Crashes{Count: k.count, Moved: offset > k.base, Noted: k.noted}.Notes(offset)
}

// suspects are the partitions any of which may hold what ended the process, and whether there is reason to be careful with them.
func (c *Consumer) suspects() (all []*partition, reason bool) {
	now := c.now()
	for _, p := range c.partitions() {
		if p.suspected(now) {
			all = append(all, p)
			p.mu.Lock()
			reason = reason || p.crash.count >= c.set.carefulFrom()
			p.mu.Unlock()
		}
	}
	return all, reason
}

// suspected reports whether p may hold what ended the process. It does not once all that was there at the takeover is behind.
func (p *partition) suspected(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := &p.crash
	if !k.suspect || p.stage.Load() != live {
		return false
	}
	low, _ := p.window.Advance()
	k.suspect = p.careful.Load() || low < k.end && now.Sub(k.taken) < carefulFor
	return k.suspect
}

// takeCare makes the suspects careful if there is reason to, and ends it if there is none.
func (c *Consumer) takeCare() {
	all, careful := c.suspects()
	now, fresh := c.now(), 0
	for _, p := range all {
		p.mu.Lock()
		if careful && !p.careful.Load() {
			p.crash.since, p.crash.passed = now, 0
			fresh++
		}
		p.mu.Unlock()
	}
	c.pool.setCareful(all, careful)
	if fresh > 0 {
		c.log.Warn("retriable: the process has ended again and again without getting on; until it is clear by which record, what it may be runs one by one",
			"partitions", fresh, "MaxCrashes", c.set.maxCrashes)
	}
}

// trust ends the suspicion of partitions, and with the last reason for it all care.
func (c *Consumer) trust(parts ...*partition) {
	for _, p := range parts {
		p.mu.Lock()
		p.crash.suspect, p.crash.count, p.crash.noted = false, 0, -1
		p.mu.Unlock()
	}
	c.pool.setCareful(parts, false)
	c.takeCare()
}

// carefulTurn handles one record of p while no other of the suspects' runs.
func (w *worker) carefulTurn(p *partition) {
	if p.barred.Load() != 0 {
		return
	}
	defer func() { w.from = nil }()
	it := p.take(w)
	if it == nil {
		return
	}
	offset := it.offset
	if w.refused = !p.admits(); w.refused || !p.note(offset) {
		w.handOn(p, it)
		return
	}
	defer p.pass() // also if the handler ends the goroutine
	var next *item
	if p.isCondemned(offset) {
		next = w.condemn(p, it)
	} else {
		next = w.handle(p, it)
	}
	if next != nil {
		w.handOn(p, next)
	}
}

// note has an acked commit say that this record is about to run, and that no other of the suspects' does. It tries for as long as it takes;
// false if the partition is given up meanwhile.
func (p *partition) note(offset int64) bool {
	p.mu.Lock()
	p.crash.noted, p.crash.running = offset, time.Time{}
	p.mu.Unlock()
	p.tellNotes()
	p.mu.Lock()
	p.crash.running = p.c.now()
	p.mu.Unlock()
	return p.stage.Load() == live
}

// tellNotes commits until an ack says that the notes of all suspects are as they are here.
func (p *partition) tellNotes() {
	for p.stage.Load() == live && p.careful.Load() {
		all, _ := p.c.suspects()
		err := p.c.commitNow(p.ctx, all, false)
		if err == nil {
			return
		}
		p.c.log.Debug("retriable: a record that may end the process waits for the commit that notes it", "topic", p.topic, "partition", p.partition, "error", err)
		select {
		case <-p.ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// pass notes that the process has survived a record; the next commit, before another runs, says so. Once as many have passed as can have been
// under way when the process ended, the partition is not under suspicion any more.
func (p *partition) pass() {
	p.mu.Lock()
	if s := p.window.State(p.crash.noted); s != watermark.Held && s != watermark.Postponed { // what waits in memory for another call is not behind us
		p.crash.passed++
	}
	p.crash.noted, p.crash.running = -1, time.Time{}
	low, _ := p.window.Advance()
	enough := p.crash.passed >= p.c.set.maxPending || low >= p.crash.end
	p.mu.Unlock()
	if enough {
		p.tellNotes() // or the note might be found that the next to die did not make
		p.c.trust(p)
	}
}

func (p *partition) isCondemned(offset int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.crash.condemned == offset
}

// condemn gives a record up that ended its process as often as it may. The partition's others are not under suspicion any more; but nothing of it runs
// before an acked commit tells of that end. Should another of them end the process it would else all begin again, and again.
func (w *worker) condemn(p *partition, it *item) (next *item) {
	p.mu.Lock()
	e := &CrashError{Crashes: p.crash.count}
	p.crash.condemned = -1
	p.mu.Unlock()
	it, _ = w.lasting(it)
	a := p.untouched(it)
	a.cause, a.text = e, e.Error()
	p.c.log.Error("retriable: a record ended its process again and again and is given up", "record", p.name(it), "attempt", a.number, "crashes", e.Crashes,
		"dead-letter topic", p.t.dead)
	if p.t.dead == "" {
		next = it.leave()
		p.drop(a, e)
	} else {
		p.deadLetter(a, e, false)
		next = it.leave()
	}
	p.awaitEnd(it)
	p.c.trust(p)
	return next
}

// awaitEnd waits until a record is resolved, its letter acked, and a commit has told so.
func (p *partition) awaitEnd(it *item) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for it.State() != watermark.Done && p.stage.Load() == live {
		select {
		case <-p.ctx.Done():
		case <-tick.C:
		}
	}
	p.mu.Lock()
	p.crash.noted = -1
	p.mu.Unlock()
	p.tellNotes()
}

// untouched is the attempt that an item comes to, with its message as it was read.
func (p *partition) untouched(it *item) *attempt {
	m := p.message(it)
	a := &attempt{p: p, it: it, m: &m, number: m.Attempt, first: m.FirstFailure, last: m.LastError, rec: m.Record}
	a.was = was{
		key: m.Key, value: m.Value, headers: m.Headers, time: m.Timestamp, context: m.Context,
		topic: p.topic, partition: p.partition, offset: m.Source.Offset,
	}
	if p.retry {
		a.was.topic, a.was.partition, a.was.offset = m.Topic, m.Partition, m.Offset
	}
	return a
}

// watchCare ends the care where it would hold up more than it helps: a record that has run for StuckAfter and not ended the process may go on
// while the others do, and after so long it is over.
func (c *Consumer) watchCare(now time.Time) {
	all, careful := c.suspects()
	if !careful {
		return
	}
	for _, p := range all {
		p.mu.Lock()
		k := p.crash
		p.mu.Unlock()
		if !k.running.IsZero() && now.Sub(k.running) >= c.set.stuckAfter || !k.since.IsZero() && now.Sub(k.since) >= carefulFor {
			for _, p := range all {
				p.mu.Lock()
				p.crash.noted = -1
				p.mu.Unlock()
			}
			_ = c.commitNow(c.base, all, false) // else the next says that nothing is noted any more
			c.trust(all...)
			return
		}
	}
}

// CrashError is why a record was given up that ended its process again and again (see [MaxCrashes]). It is what hooks are told.
type CrashError struct {
	Crashes int // takeovers without progress
}

// Error implements error.
func (e *CrashError) Error() string { return fmt.Sprintf("killed its process (%d crashes)", e.Crashes) }
