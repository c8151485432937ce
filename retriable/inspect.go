package retriable

import (
	"cmp"
	"slices"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// TopicNames is a topic that a consumer was given, and where its records go that fail.
type TopicNames struct {
	Base    string   // the name, or the pattern
	Pattern bool     // Base is a pattern (TopicRegexp)
	Retries []string // the retry topic, then its tiers; none where there are none
	Dead    string   // the dead-letter topic; "" with NoDeadLetters
}

// Group returns the name of the consumer's group.
func (c *Consumer) Group() string { return c.set.group }

// Topics returns the topics that the consumer was given, in their order.
func (c *Consumer) Topics() []TopicNames {
	names := make([]TopicNames, 0, len(c.set.topics))
	for _, t := range c.set.topics {
		names = append(names, TopicNames{Base: t.name, Pattern: t.pattern, Retries: t.retries(), Dead: t.dead})
	}
	return names
}

// Inspection is a closer look at one assigned partition than [PartitionStats]: what its records do, one by one as far as was asked for. Records are
// named by their position; there is no key, value, header or error text in it.
type Inspection struct {
	Topic     string
	Partition int32
	Retry     bool // of a retry topic

	Watermark int64 // everything below it is resolved
	Next      int64 // the read position: the window lies between the two
	End       int64 // the log's end, as last seen

	Window  []Cell          // the window in stretches of equal length, from the watermark up; none if it is empty
	Running []RunningRecord // the longest first
	Waiting []WaitingRecord // what is due first comes first
	Writing []WritingRecord // the oldest first
}

// Cell is a stretch of a window, and how many of its offsets are not resolved, by what they do. The others are, or never held a record.
type Cell struct {
	From, To  int64 // of offsets: From <= offset < To
	Queued    int
	Running   int
	Held      int // until they are due; postponed ones too
	Producing int
	Joining   int
}

// Pending returns how many offsets of the stretch are not resolved.
func (c Cell) Pending() int { return c.Queued + c.Running + c.Held + c.Producing + c.Joining }

// RunningRecord is a record that a handler has.
type RunningRecord struct {
	Offset  int64
	Attempt int
	// Since is when it was first seen to run, by an earlier Inspect or by the consumer itself, which looks every few seconds (an eighth of
	// StuckAfter, 5 s at most). It runs for a little longer than that.
	Since time.Time
	// Read is when its records came in, or when it came due: it does not run for longer than since then.
	Read time.Time
}

// WaitingRecord is a record that is held in memory until it is due.
type WaitingRecord struct {
	Offset  int64
	Attempt int       // the coming one
	Due     time.Time // not before
	Reason  Reason    // ReasonHeld or ReasonPostponed
	InPlace bool      // it waits for a blocking retry: what must not pass it waits as well
}

// WritingRecord is a record whose copy is on its way to a retry or dead-letter topic.
type WritingRecord struct {
	Offset  int64
	Topic   string // that it is written to
	Since   time.Time
	Refused int       // how often
	Again   time.Time // when it is tried again; zero while it is with the broker
}

// Inspect returns a closer look at what is assigned, by topic and partition: at most limit records in each list, and as many cells of each
// window. Less than 1 means none of them. It costs time in proportion to what is pending and held, with each partition's lock held for its
// part: it is for people who look, about once a second, not for each record.
func (c *Consumer) Inspect(limit int) []Inspection {
	now := time.Now()
	all := []Inspection{}
	for _, p := range c.partitions() {
		all = append(all, p.inspect(limit, now))
	}
	slices.SortFunc(all, func(a, b Inspection) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return all
}

func (p *partition) inspect(limit int, now time.Time) Inspection {
	p.mu.Lock()
	defer p.mu.Unlock()
	low, _ := p.window.Advance()
	in := Inspection{Topic: p.topic, Partition: p.partition, Retry: p.retry, Watermark: low, Next: p.window.Next(), End: max(p.end, p.window.Next())}
	in.Window = cells(low, in.Next, limit)
	running := few(limit, func(a, b RunningRecord) int {
		return cmp.Or(a.Since.Compare(b.Since), a.Read.Compare(b.Read), cmp.Compare(a.Offset, b.Offset))
	})
	p.lookAt(now, func(offset int64, s watermark.State, r RunningRecord) {
		if len(in.Window) > 0 {
			width := in.Window[0].To - in.Window[0].From
			in.Window[min((offset-low)/width, int64(len(in.Window)-1))].count(s)
		}
		if s == watermark.Running {
			running.add(r)
		}
	})
	in.Running, in.Waiting, in.Writing = running.kept, p.firstDue(limit), p.oldestWrites(limit)
	return in
}

// cells divides the offsets from low to next.
func cells(low, next int64, limit int) []Cell {
	n := min(int64(limit), next-low)
	if n <= 0 {
		return nil
	}
	width := (next - low + n - 1) / n
	cs := make([]Cell, 0, n)
	for from := low; from < next; from += width {
		cs = append(cs, Cell{From: from, To: min(from+width, next)})
	}
	return cs
}

func (c *Cell) count(s watermark.State) {
	switch s {
	case watermark.Queued, watermark.Copying:
		c.Queued++
	case watermark.Running:
		c.Running++
	case watermark.Held, watermark.Postponed:
		c.Held++
	case watermark.Producing:
		c.Producing++
	case watermark.Joining:
		c.Joining++
	case watermark.Done: // since it was looked at
	}
}

// sight is since when an attempt is seen to run.
type sight struct {
	attempt int
	since   time.Time
}

// lookAt shows what is not resolved, and notes since when what runs does: no worker reads a clock for that. p.mu is held.
func (p *partition) lookAt(now time.Time, show func(offset int64, s watermark.State, r RunningRecord)) {
	seen := map[int64]sight{}
	for seg, i := range p.window.Unresolved() {
		offset, s := seg.Offset(i), seg.Slots()[i].State()
		var r RunningRecord
		if s == watermark.Running {
			r = RunningRecord{Offset: offset, Attempt: 1, Read: time.UnixMilli(seg.Owner.ready(i))}
			if it := seg.Owner.item(i); it != nil {
				r.Offset, r.Attempt, r.Read = p.name(it).Offset, max(int(it.attempt.Load()), 1), time.UnixMilli(it.ready)
			}
			before, ok := p.sights[offset]
			if !ok || before.attempt != r.Attempt || before.since.Before(r.Read) {
				before = sight{attempt: r.Attempt, since: now}
			}
			seen[offset], r.Since = before, before.since
		}
		show(offset, s, r)
	}
	p.sights = seen
}

// firstDue returns what is due first of what waits in memory. p.mu is held.
func (p *partition) firstDue(limit int) []WaitingRecord {
	first := few(limit, func(a, b WaitingRecord) int {
		return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.Offset, b.Offset))
	})
	for _, h := range []*dueHeap{&p.heap, &p.inPlace} {
		for _, e := range h.es {
			reason := reasons[e.it.State()]
			if reason != ReasonHeld && reason != ReasonPostponed {
				continue // the log was cut below it
			}
			first.add(WaitingRecord{
				Offset: p.name(e.it).Offset, Attempt: max(int(e.it.attempt.Load()), 1), Reason: reason,
				Due: time.UnixMilli(max(e.due, e.final)), InPlace: h == &p.inPlace,
			})
		}
	}
	return first.kept
}

// oldestWrites returns the oldest of the copies that are not acked. p.mu is held.
func (p *partition) oldestWrites(limit int) []WritingRecord {
	again := map[*write]time.Time{}
	for _, e := range p.resend.es {
		again[e.w] = time.UnixMilli(e.due)
	}
	first := few(limit, func(a, b WritingRecord) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Offset, b.Offset))
	})
	for w := range p.producing.all() {
		first.add(WritingRecord{Offset: p.name(w.it).Offset, Topic: w.rec.Topic, Since: w.since, Refused: w.tries, Again: again[w]})
	}
	return first.kept
}

// first keeps the first n of what it is shown, in their order.
type first[T any] struct {
	n    int
	cmp  func(a, b T) int
	kept []T
}

func few[T any](n int, order func(a, b T) int) *first[T] { return &first[T]{n: n, cmp: order} }

func (f *first[T]) add(v T) {
	if len(f.kept) >= f.n {
		if f.n <= 0 || f.cmp(v, f.kept[f.n-1]) >= 0 {
			return
		}
		f.kept = f.kept[:f.n-1]
	}
	i, _ := slices.BinarySearchFunc(f.kept, v, f.cmp)
	f.kept = slices.Insert(f.kept, i, v)
}
