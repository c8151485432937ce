package retriable

import (
	"cmp"
	"context"
	"errors"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

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
	h.c.client.Store(cl)
}

// OnGroupManageError implements kgo.HookGroupManageError: why the group cannot be joined, for Health.
func (h clientHooks) OnGroupManageError(err error) {
	h.c.unjoined(err)
	h.c.log.Warn("retriable: the group session ended; joining again", "group", h.c.set.group, "error", err)
}

func (c *Consumer) onAssigned(_ context.Context, cl *kgo.Client, added map[string][]int32) {
	cl.ResumeFetchPartitions(added) // a pause outlives an assignment in kgo
	c.added = added
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

// fetchedOffset is a commit as the group has it.
type fetchedOffset struct {
	offset int64 // -1: none
	epoch  int32
	text   string // the metadata
	topic  uint32 // the topic's id, folded
}

// onFetched keeps the commits, with which onOffsets makes the partitions.
func (c *Consumer) onFetched(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	c.fetched = map[topicPartition]fetchedOffset{}
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				f := fetchedOffset{offset: p.Offset, epoch: p.LeaderEpoch, topic: foldID(t.TopicID)}
				if p.Metadata != nil {
					f.text = *p.Metadata
				}
				c.fetched[topicPartition{t.Topic, p.Partition}] = f
			}
		}
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			f := fetchedOffset{offset: p.Offset, epoch: p.LeaderEpoch}
			if p.Metadata != nil {
				f.text = *p.Metadata
			}
			c.fetched[topicPartition{t.Topic, p.Partition}] = f
		}
	}
	return nil
}

// onOffsets makes the partitions' objects and says where each is to be read from. Where there is no commit, or one outside the log, the
// place is resolved and committed now, so that a restart begins there too.
func (c *Consumer) onOffsets(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	c.fetchAgain(ctx, offsets)
	starts := c.resolveStarts(ctx, offsets)
	var made, resolved []*partition
	for name, s := range starts {
		t, retry := c.route(name.topic)
		if t == nil {
			continue
		}
		p := newPartition(c, name, t, retry, s.at)
		p.end, p.blocked = s.end, s.err
		if s.committed {
			p.committed = s.at.Offset
			p.readMap(c.fetched[name])
		} else if s.err == nil {
			resolved = append(resolved, p)
		}
		made = append(made, p)
		offsets[name.topic][name.partition] = s.from
	}
	c.setParts(func(parts map[topicPartition]*partition) {
		for _, p := range made {
			parts[p.topicPartition] = p
		}
	})
	for _, p := range made {
		c.pool.add(p)
		a := Assigned{Topic: p.topic, Partition: p.partition, Offset: starts[p.topicPartition].at.Offset}
		call(c, c.hook.assigned, func(h HookAssigned) { h.OnAssigned(a) })
	}
	if len(resolved) > 0 {
		if err := c.commitNow(ctx, resolved, false); err != nil {
			c.log.Debug("retriable: where to start is not committed yet; it will be with the next commit", "error", err)
		}
	}
	c.markJoined()
	return offsets, nil
}

// readMap takes what the committed map says is done. What is not ours, damaged, or of another topic of that name means no map, and nothing
// else (I12); it is checked against the log's end, and waits for the first fetch where that is not known. p.mu is held, or nobody else
// has p yet.
func (p *partition) readMap(f fetchedOffset) {
	p.topicID, p.text = f.topic, f.text
	if p.end < 0 && f.text != "" {
		p.unread = &f
		return
	}
	p.unread = nil
	m, ok := watermark.DecodeMap(f.text, f.offset, p.end)
	if !ok || m.Topic != 0 && f.topic != 0 && m.Topic != f.topic {
		return
	}
	p.claims, p.claimEpoch = m.Done, m.Epoch
}

// foldID makes a number of a topic's id, 0 of none.
func foldID(id [16]byte) uint32 {
	if id == [16]byte{} {
		return 0
	}
	return max(crc32.ChecksumIEEE(id[:]), 1)
}

// start is where a partition is read from.
type start struct {
	at        kgo.EpochOffset // offset -1: unknown until the first record
	from      kgo.Offset      // the same for kgo
	end       int64
	committed bool
	err       error // why it is unknown
}

// fetchAgain asks once more for the commits of partitions that kgo was told to read and leaves out because it got none: nobody would read
// them until the next rebalance. What is refused again Health names.
func (c *Consumer) fetchAgain(ctx context.Context, offsets map[string]map[int32]kgo.Offset) {
	missing := map[topicPartition]error{}
	for t, ps := range c.added {
		for _, n := range ps {
			if _, ok := offsets[t][n]; !ok {
				missing[topicPartition{t, n}] = errNoCommit
			}
		}
	}
	for try := 0; len(missing) > 0 && try < 3; try++ {
		var topics []string
		for name := range missing {
			topics = append(topics, name.topic)
		}
		all, _ := kadm.NewClient(c.cl).FetchOffsetsForTopics(ctx, c.set.group, topics...)
		for name := range missing {
			o, ok := all.Lookup(name.topic, name.partition)
			if !ok || o.Err != nil {
				missing[name] = cmp.Or(o.Err, errNoCommit)
				continue
			}
			c.fetched[name] = fetchedOffset{offset: o.At, epoch: o.LeaderEpoch, text: o.Metadata}
			if offsets[name.topic] == nil {
				offsets[name.topic] = map[int32]kgo.Offset{}
			}
			offsets[name.topic][name.partition] = kgo.NewOffset()
			delete(missing, name)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(min(len(missing), 1)) * 250 * time.Millisecond):
		}
	}
	c.mu.Lock()
	for name, err := range missing {
		c.unread[name] = err
	}
	c.mu.Unlock()
	for name, err := range missing {
		c.log.Error("retriable: a partition is ours but cannot be read, for its commit cannot be had", "topic", name.topic, "partition", name.partition, "error", err)
	}
}

var errNoCommit = errors.New("the broker does not tell its committed offset")

// resolveStarts looks up the log's ends, and for partitions without a valid commit where their topic wants them to start. Where that
// cannot be had kgo finds the place by itself, and until then the partition holds up no other.
func (c *Consumer) resolveStarts(ctx context.Context, offsets map[string]map[int32]kgo.Offset) map[topicPartition]start {
	topics := make([]string, 0, len(offsets))
	for t := range offsets {
		topics = append(topics, t)
	}
	adm := kadm.NewClient(c.cl)
	timed, cancel := context.WithTimeout(ctx, c.set.commitTimeout())
	defer cancel()
	ends, err := adm.ListEndOffsets(timed, topics...)
	if err != nil {
		c.log.Debug("retriable: not all ends of the log could be listed", "error", err)
	}
	starts := map[topicPartition]start{}
	for t, parts := range offsets {
		for p := range parts {
			s := start{end: -1}
			if e, ok := ends.Lookup(t, p); ok && e.Err == nil {
				s.end = e.Offset
			}
			c.resolveStart(timed, adm, topicPartition{t, p}, &s)
			starts[topicPartition{t, p}] = s
		}
	}
	return starts
}

func (c *Consumer) resolveStart(ctx context.Context, adm *kadm.Client, name topicPartition, s *start) {
	f, ok := c.fetched[name]
	want := c.startAt(name.topic)
	switch s.committed = ok && f.offset >= 0; {
	case s.committed && (s.end < 0 || f.offset <= s.end):
		s.at = kgo.EpochOffset{Offset: f.offset, Epoch: f.epoch}
		s.from = kgo.NewOffset().At(f.offset).WithEpoch(f.epoch)
		return
	case s.committed:
		c.log.Warn("retriable: the committed offset lies beyond the log's end, which was cut or made anew; starting at its start",
			"topic", name.topic, "partition", name.partition, "committed", f.offset, "end", s.end)
		s.committed = false
		want = kgo.NewOffset().AtStart()
	}
	at, err := resolveOffset(ctx, adm, name, want)
	if err != nil {
		s.at, s.from, s.err = kgo.EpochOffset{Offset: -1, Epoch: -1}, want, err
		return
	}
	s.at, s.from = kgo.EpochOffset{Offset: at, Epoch: -1}, kgo.NewOffset().At(at)
}

// startAt is where a partition without a commit starts; a retry topic at its start, for all in it is to be handled.
func (c *Consumer) startAt(name string) kgo.Offset {
	if t, retry := c.route(name); t != nil && !retry {
		return t.startAt
	}
	return kgo.NewOffset().AtStart()
}

func (c *Consumer) onRevoked(_ context.Context, _ *kgo.Client, m map[string][]int32) {
	c.giveUp(c.owned(m), ErrRevoked, c.set.drainInRevoke(), false)
}

func (c *Consumer) onLost(_ context.Context, _ *kgo.Client, m map[string][]int32) {
	if len(m) > 0 { // the session may end without an error of its own (KIP-848)
		c.unjoined(errLost)
	}
	c.giveUp(c.owned(m), ErrRevoked, 0, true)
}

func (c *Consumer) owned(m map[string][]int32) (parts []*partition) {
	for t, ps := range m {
		for _, n := range ps {
			c.mu.Lock()
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
				mine = append(mine, p)
			}
		}
	})
	for _, p := range mine {
		c.pool.remove(p)
	}
	c.gate.shut(func() { c.setPaused(mine, ^0, false) }) // a pause would outlive the assignment
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
	return len(p.producing) == 0
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
	p.window.Each(func(s *watermark.Slot) {
		switch s.State() {
		case watermark.Done:
		case watermark.Running, watermark.Producing:
			d.Abandoned++
			out.abandoned = append(out.abandoned, Position{p.topic, p.partition, s.Offset()})
		default:
			d.Dropped++
		}
	})
	clear(p.producing)
	p.forget()
	p.heldBytes = 0
	d.Dropped += len(p.stash)
	p.stash = nil
	p.first, p.last, p.open, p.heap, p.lanes = nil, nil, nil, dueHeap{}, lanes{}
	p.nextDue.Store(maxDue)
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
