package retriable

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// The hooks below run one after another on kgo's goroutines, also with empty maps. Within an assignment: onAssigned, onFetched,
// onOffsets, then records, then onRevoked or onLost.

// clientHooks is what kgo tells of the client itself.
type clientHooks struct{ c *Consumer }

// OnNewClient implements kgo.HookNewClient: the group's hooks may run before kgo.NewClient has returned.
func (h clientHooks) OnNewClient(cl *kgo.Client) {
	h.c.cl = cl
	h.c.clientContext = cl.Context()
}

// OnGroupManageError implements kgo.HookGroupManageError: why the group cannot be joined, for Health.
func (h clientHooks) OnGroupManageError(err error) {
	h.c.unjoined(err)
	h.c.log.Warn("retriable: the group session ended; joining again", "group", h.c.set.group, "error", err)
}

func (c *Consumer) onAssigned(_ context.Context, cl *kgo.Client, added map[string][]int32) {
	member, _ := cl.GroupMetadata()
	c.await(added) // before a topic may be let go, with which they are forgotten
	c.joinedAs(member)
	cl.ResumeFetchPartitions(added) // a pause outlives an assignment in kgo
	if len(added) == 0 {
		c.markJoined()
	}
}

var errLost = errors.New("the partitions were lost; joining again")

func (c *Consumer) unjoined(why error) {
	c.failMu.Lock()
	c.group = why
	c.failMu.Unlock()
	c.joined.Store(false)
}

func (c *Consumer) markJoined() {
	c.failMu.Lock()
	c.group = nil
	c.failMu.Unlock()
	if !c.joined.Swap(true) {
		select {
		case <-c.ready:
		default:
			close(c.ready)
		}
	}
}

// onOffsets makes the partitions' objects and says where each is to be read from. Where there is no commit, or one outside the log, the
// place is resolved and committed now, so that a restart begins there too; and with all, that they are taken over (see crash.go and confirm).
func (c *Consumer) onOffsets(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	identify(ctx, c.cl, c.log)
	c.ours(offsets)
	c.fetchAgain(ctx, offsets)
	starts := c.resolveStarts(ctx, offsets)
	again := c.twice(offsets)
	c.giveUp(again, ErrRevoked, 0, true)
	var made []*partition
	for name, s := range starts {
		t, retry := c.route(name.topic)
		if t == nil {
			continue
		}
		unsure := slices.ContainsFunc(again, func(q *partition) bool { return q.topicPartition == name })
		if unsure && s.at.Offset < 0 { // nobody could tell where it strays from
			delete(offsets[name.topic], name.partition)
			c.renewer.add(name.topic, &c.renewer.stale)
			continue
		}
		p := newPartition(c, name, t, retry, s.at)
		p.unsure = unsure
		p.end, p.blocked, p.topicID = s.end, s.err, c.fetched[name].topic
		if s.committed {
			p.committed = s.at.Offset
			p.readMap(c.fetched[name], false)
		}
		made = append(made, p)
		offsets[name.topic][name.partition] = s.from
	}
	c.setParts(func(parts map[topicPartition]*partition) {
		for _, p := range made {
			parts[p.topicPartition] = p
		}
	})
	c.gate.shut(func() { c.applyPauses(made) })
	c.pool.add(made...)
	for _, p := range made {
		a := Assigned{Topic: p.topic, Partition: p.partition, Offset: starts[p.topicPartition].at.Offset}
		call(c, c.hook.assigned, func(h HookAssigned) { h.OnAssigned(a) })
	}
	c.tell()
	c.takeCare()
	if err := c.confirm(ctx, made); err != nil {
		c.disown(made)
		return nil, err
	}
	c.markJoined()
	return offsets, nil
}

// twice returns what is ours already: kgo may say so again without having taken it away, where a topic was made anew. A second object beside the
// first would handle the same records. Nor does kgo always begin where it is told then: see strays.
func (c *Consumer) twice(offsets map[string]map[int32]kgo.Offset) (parts []*partition) {
	for t, ps := range offsets {
		for n := range ps {
			if p := c.partition(topicPartition{t, n}); p != nil {
				parts = append(parts, p)
			}
		}
	}
	return parts
}

func (c *Consumer) onRevoked(_ context.Context, _ *kgo.Client, m map[string][]int32) {
	defer c.tookAway()
	if out := c.giveUp(c.owned(m), ErrRevoked, c.set.drainInRevoke(), false); out.err != nil {
		c.log.Warn("retriable: the last commit of partitions that were taken away failed; what has finished since the commit before is delivered again",
			"error", out.err)
	}
}

func (c *Consumer) onLost(_ context.Context, _ *kgo.Client, m map[string][]int32) {
	defer c.tookAway()
	if len(m) > 0 { // the session may end without an error of its own (KIP-848)
		c.unjoined(errLost)
	}
	c.giveUp(c.owned(m), ErrRevoked, 0, true)
}

// tookAway notes that kgo has taken something away, or nothing at a session's end.
func (c *Consumer) tookAway() {
	c.takenAway.Add(1)
	c.renewer.wake()
}

func (c *Consumer) owned(m map[string][]int32) (parts []*partition) {
	for t, ps := range m {
		for _, n := range ps {
			c.mu.Lock()
			delete(c.awaited, topicPartition{t, n})
			delete(c.unread, topicPartition{t, n})
			c.mu.Unlock()
			if p := c.partition(topicPartition{t, n}); p != nil {
				parts = append(parts, p)
			}
		}
	}
	return parts
}

// outcome is what giving partitions up left behind.
type outcome struct {
	abandoned []Position
	running   int
	err       error // of the last commit
}

// giveUp ends partitions: their dispatch at once, then, in time, what runs, then everything (I3). What a stop is already giving up is
// waited for.
func (c *Consumer) giveUp(parts []*partition, cause error, timeout time.Duration, lost bool) (out outcome) {
	began := time.Now()
	var mine []*partition
	c.gate.shut(func() {
		for _, p := range parts {
			if p.stage.CompareAndSwap(live, draining) {
				p.barred.Or(barredEnding)
				mine = append(mine, p)
			}
		}
	})
	c.pool.remove(mine...)
	c.gate.shut(func() {
		c.setPaused(mine, ^0, false) // a pause would outlive the assignment
		c.forgetChunks(mine)
	})
	if !lost {
		drain(mine, timeout)
	}
	for _, p := range mine {
		p.stage.Store(cancelled)
		p.cancel(cause)
	}
	if !lost {
		drain(mine, c.set.lastMoment())
	}
	counts := make([]Drained, len(mine))
	for i, p := range mine {
		counts[i] = p.fence(&out)
	}
	if !lost && len(mine) > 0 {
		out.err = c.lastCommit(mine, timeout-time.Since(began))
	}
	c.survive(mine, !lost && out.err == nil)
	c.setParts(func(m map[topicPartition]*partition) {
		for _, p := range mine {
			if m[p.topicPartition] == p {
				delete(m, p.topicPartition)
			}
		}
	})
	for i, p := range mine {
		close(p.gone)
		d := counts[i]
		if d.Abandoned > 0 {
			c.log.Warn("retriable: records are abandoned at the end of the drain; they are delivered again",
				"topic", p.topic, "partition", p.partition, "records", d.Abandoned)
		}
		d.Lost, d.Took = lost, time.Since(began)
		call(c, c.hook.drained, func(h HookDrained) { h.OnDrained(d) })
	}
	for _, p := range parts {
		<-p.gone
	}
	return out
}

// drain waits until nothing of the partitions runs or is being written, or the time is over.
func drain(parts []*partition, timeout time.Duration) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for _, p := range parts {
		for !p.idle() {
			select {
			case <-p.stir:
			case <-timer.C:
				return
			}
		}
	}
}

// idle reports whether neither a handler nor a write of p is under way.
func (p *partition) idle() bool {
	if p.c.pool.attached(p) > 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.producing.first == nil
}

// fence ends the partition for good. What is still unresolved and was begun is abandoned.
func (p *partition) fence(out *outcome) Drained {
	out.running += p.c.pool.attached(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stage.Store(fenced)
	p.endAll()
	p.window.Advance()
	d := Drained{Topic: p.topic, Partition: p.partition}
	for seg, i := range p.window.Unresolved() {
		it, at := seg.Owner.item(i), p.at(seg.Offset(i))
		if it != nil {
			at = p.name(it)
		}
		switch s := seg.Slots()[i].State(); {
		case it != nil && it.carrier() != it: // a chunk of what is counted elsewhere
		case s == watermark.Running, s == watermark.Producing:
			d.Abandoned++
			out.abandoned = append(out.abandoned, at)
		default:
			d.Dropped++
		}
	}
	p.producing.clear()
	p.forget()
	p.heldBytes = 0
	d.Dropped += len(p.stash)
	p.stash = nil
	p.joining = nil
	p.first, p.last, p.open, p.heap, p.inPlace, p.resend, p.lanes = nil, nil, nil, dueHeap{}, dueHeap{}, dueHeap{}, lanes{}
	p.nextDue.Store(maxDue)
	p.moveAt.Store(maxDue)
	return d
}

// shutdown gives up everything at a stop. Heartbeats go on until it is done.
func (c *Consumer) shutdown() error {
	out := c.giveUp(c.partitions(), ErrShutdown, c.set.drainTimeout, false)
	var err error
	if len(out.abandoned) > 0 {
		err = &AbandonedError{Records: out.abandoned, Running: out.running}
	}
	return errors.Join(err, out.err)
}
