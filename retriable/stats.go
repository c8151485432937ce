package retriable

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// Stats is a snapshot of a Consumer. Its counters are since New.
type Stats struct {
	Workers, Running int   // handlers that may run, and that do
	PendingBytes     int64 // memory of what is pending and held, as of the last look at it

	Handled      uint64 // attempts that succeeded
	Failed       uint64 // attempts that failed
	Retried      uint64 // copies acked by a retry topic
	DeadLettered uint64 // records acked by a dead-letter topic
	Dropped      uint64 // records that ended without success and are kept nowhere

	Filtered        uint64 // rejected by a Filter
	Skipped         uint64 // not delivered again thanks to the committed map
	Rewritten       uint64 // held records written again: to the tail of their retry topic, or to their next tier
	ProduceFailures uint64 // refused writes to retry and dead-letter topics
	MapCuts         uint64 // commits that left out finished offsets, for a broker allowed less metadata than they took

	Partitions []PartitionStats // what is assigned, by topic and partition
}

// PartitionStats is a snapshot of one assigned partition.
type PartitionStats struct {
	Topic     string
	Partition int32

	Committed int64 // the last accepted commit; -1 for none
	Watermark int64 // everything below it is resolved
	End       int64 // the log's end, as last seen
	Lag       int64 // from Committed (without one: from Watermark) to End

	Pending int // read, not resolved and not held
	Running int // of these, with a handler
	Held    int // waiting in memory until they are due

	MapFill float64   // share used, by the last commit, of what its metadata can hold
	Paused  bool      // it is not fetched
	Careful bool      // one record of it at a time runs, for one may have ended the process (see MaxCrashes)
	NextDue time.Time // of what is held; zero if nothing is
	Oldest  Oldest    // the record at the watermark
}

// Oldest is the record at a watermark: the one that holds the committed offset.
type Oldest struct {
	Offset  int64
	Attempt int
	Since   time.Time // since when it is pending; zero if there is none
	Reason  Reason    // why it is

	ReasonSince time.Time // since when that is why, as seen every few seconds; zero if it has not been seen yet
	Until       time.Time // held or postponed: when it is due
	Topic       string    // producing: the topic that its copy is written to
	KeyHash     uint16    // by key: tells its lane from most others, in this process alone, for the hash is seeded; 0 without a key
}

// Reason says why a record is still pending.
type Reason string

// The reasons.
const (
	ReasonQueued    Reason = "queued"    // waits for a worker, or for the record before it in its lane
	ReasonRunning   Reason = "running"   // its handler has not returned
	ReasonHeld      Reason = "held"      // not yet due
	ReasonProducing Reason = "producing" // its copy is not yet acked
	ReasonJoining   Reason = "joining"   // a chunk of a message that is not complete
	ReasonPostponed Reason = "postponed" // its handler asked for it later
)

var reasons = [...]Reason{
	watermark.Queued: ReasonQueued, watermark.Copying: ReasonQueued, watermark.Running: ReasonRunning, watermark.Held: ReasonHeld,
	watermark.Postponed: ReasonPostponed, watermark.Producing: ReasonProducing, watermark.Joining: ReasonJoining, watermark.Done: "",
}

// counts is one worker's share of the counters.
type counts struct {
	handled, failed, filtered, postponed atomic.Uint64
	_                                    [32]byte // a cache line of its own
}

func (n *counts) ended() uint64 {
	return n.handled.Load() + n.failed.Load() + n.filtered.Load() + n.postponed.Load()
}

func (c *Consumer) counts(w *worker) *counts { return &c.count[w.id%len(c.count)] }

// totals is what is counted seldom enough to be shared.
type totals struct {
	retried, deadLettered, dropped, skipped, produceFailures, foreign, badHeaders, mapCuts, rewritten atomic.Uint64
}

// Stats returns a snapshot. It costs time in proportion to what is pending.
func (c *Consumer) Stats() Stats {
	s := Stats{
		Workers:      c.set.concurrency,
		Retried:      c.total.retried.Load(),
		DeadLettered: c.total.deadLettered.Load(),
		Dropped:      c.total.dropped.Load(),
		Skipped:      c.total.skipped.Load(),
		Rewritten:    c.total.rewritten.Load(),

		ProduceFailures: c.total.produceFailures.Load(),
		MapCuts:         c.total.mapCuts.Load(),
	}
	for i := range c.count {
		n := &c.count[i]
		s.Handled += n.handled.Load()
		s.Failed += n.failed.Load()
		s.Filtered += n.filtered.Load()
	}
	for _, p := range c.partitions() {
		ps := p.stats()
		s.Running += ps.Running
		s.PendingBytes += p.look().bytes
		s.Partitions = append(s.Partitions, ps)
	}
	slices.SortFunc(s.Partitions, func(a, b PartitionStats) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return s
}

func (p *partition) stats() PartitionStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	low, _ := p.window.Advance()
	by := p.window.Count()
	held := by[watermark.Held] + by[watermark.Postponed]
	s := PartitionStats{
		Topic: p.topic, Partition: p.partition,
		Committed: p.committed, Watermark: low, End: max(p.end, p.window.Next()),
		Pending: by[watermark.Queued] + by[watermark.Copying] + by[watermark.Running] + by[watermark.Producing] + by[watermark.Joining],
		Running: by[watermark.Running],
		Held:    held,
		MapFill: p.fill,
		Paused:  p.paused.Load() != 0,
		Careful: p.careful.Load(),
	}
	s.Lag = s.End - s.Watermark
	if s.Committed >= 0 {
		s.Lag = s.End - s.Committed
	}
	if held > 0 {
		s.NextDue = p.nextHeld()
	}
	s.Oldest, _ = p.oldest()
	return s
}

// nextHeld returns when the first record is due. p.mu is held.
func (p *partition) nextHeld() time.Time {
	h, first := &p.heap, p.inPlace.top()
	for i := range h.es {
		first = min(first, max(h.es[i].due, h.es[i].final))
	}
	if first == maxDue {
		return time.Time{}
	}
	return time.UnixMilli(first)
}

// oldest names the record at the watermark, as of the last Advance. p.mu is held.
func (p *partition) oldest() (o Oldest, ok bool) {
	seg, i, ok := p.window.Oldest()
	if !ok {
		return o, false
	}
	o = Oldest{Offset: seg.Offset(i), Attempt: 1, Since: time.UnixMilli(seg.Owner.read), Reason: reasons[seg.Slots()[i].State()]}
	it := seg.Owner.item(i)
	if it != nil {
		it = it.carrier()
		o.Attempt, o.Reason, o.KeyHash = max(int(it.attempt.Load()), 1), reasons[it.State()], it.hash
	}
	if s := &p.still; s.at == o.Offset && s.reason == o.Reason {
		o.ReasonSince = s.reasonSince
	}
	if it == nil {
		return o, true
	}
	switch o.Reason {
	case ReasonHeld, ReasonPostponed:
		o.Until = time.UnixMilli(it.ready)
	case ReasonProducing:
		for w := range p.producing.all() {
			if w.it == it {
				o.Topic = w.rec.Topic
			}
		}
	case ReasonQueued, ReasonRunning, ReasonJoining: // there is no more to say
	}
	return o, true
}
