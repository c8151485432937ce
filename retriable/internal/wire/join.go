package wire

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Limits bound what a [Joiner] keeps.
type Limits struct {
	MaxChunks       int           // of one message
	MaxMessageBytes int           // of one message's value
	MaxBytes        int64         // of all that is kept, over all partitions
	MaxGroups       int           // messages begun and not complete, over all partitions
	Deadline        time.Duration // from a message's first chunk to its last
}

// DefaultLimits returns the limits the library uses.
func DefaultLimits() Limits {
	return Limits{
		MaxChunks:       MaxChunks,
		MaxMessageBytes: MaxMessageBytes,
		MaxBytes:        256 << 20,
		MaxGroups:       64,
		Deadline:        15 * time.Minute,
	}
}

type source struct {
	topic     string
	partition int32
}

// groupKey names a group. The same id on two partitions is two groups.
type groupKey struct {
	source
	id string
}

// Joiner joins chunks to messages. Chunks of a message may come in any order
// and between those of others, but from one partition. It is not safe for
// concurrent use.
//
// It remembers for each partition the last messages that were complete or
// rejected, so that a chunk that a producer wrote twice, or one that comes too
// late, does not begin a message that can never be complete and would hold the
// partition until its deadline. The memory does not outlive the Joiner.
type Joiner struct {
	limits Limits
	open   map[groupKey]*group
	past   map[source]*memory
	cost   int64
	digest digest
}

// NewJoiner returns an empty Joiner.
func NewJoiner(limits Limits) *Joiner {
	return &Joiner{
		limits: limits,
		open:   make(map[groupKey]*group),
		past:   make(map[source]*memory),
		digest: newDigest(),
	}
}

// Add takes the next record of a partition, of any topic, base or retry.
func (j *Joiner) Add(now time.Time, r *kgo.Record) Result {
	c, ok, bad := ParseChunk(r.Headers)
	if bad {
		return rejectOne(r, reasonMalformed)
	}
	if !ok {
		return Result{Kind: Whole, Record: r}
	}
	from := source{r.Topic, r.Partition}
	g := j.open[groupKey{from, string(c.Group)}] // the compiler makes no string for a look-up
	if g == nil && c.Count == 1 {
		return Result{Kind: Whole, Record: single(r)} // as every retry copy of a Python member
	}
	if g == nil {
		if past := j.recall(now, from, c.Group); past != nil {
			return j.late(past, c, r)
		}
		return j.begin(now, groupKey{from, string(c.Group)}, c, r)
	}
	return j.extend(groupKey{from, string(c.Group)}, g, c, r)
}

// late judges a chunk whose group has ended.
func (j *Joiner) late(past *ended, c Chunk, r *kgo.Record) Result {
	switch {
	case past.reason != "":
		return rejectOne(r, past.reason)
	case c.Count != uint64(len(past.digests)):
		return rejectOne(r, reasonCount)
	case past.digests[c.ID] != j.digest.of(r.Value):
		return rejectOne(r, reasonConflict)
	}
	return Result{Kind: Repeat}
}

// begin opens a group with its first chunk.
func (j *Joiner) begin(now time.Time, key groupKey, c Chunk, r *kgo.Record) Result {
	if c.Count > uint64(j.limits.MaxChunks) {
		return rejectOne(r, reasonChunks) // as all of its group, so there is nothing to remember
	}
	g := &group{count: c.Count, deadline: now.Add(j.limits.Deadline), parts: make(map[uint64]*kgo.Record)}
	if len(j.open) >= j.limits.MaxGroups {
		// The newest gives way: those begun may be nearly complete.
		return j.reject(key, g, r, reasonGroups)
	}
	j.open[key] = g
	return j.extend(key, g, c, r)
}

// extend adds a chunk to an open group.
func (j *Joiner) extend(key groupKey, g *group, c Chunk, r *kgo.Record) Result {
	if c.Count != g.count {
		return j.reject(key, g, r, reasonCount)
	}
	if kept := g.parts[c.ID]; kept != nil {
		return j.repeat(key, g, kept, r)
	}
	if g.size+len(r.Value) > j.limits.MaxMessageBytes {
		return j.reject(key, g, r, reasonMessage)
	}
	if uint64(len(g.parts))+1 == g.count {
		g.add(c.ID, r) // the last: joined at once, so it need not be cloned or paid for
		return j.join(key, g)
	}
	if !j.pay(g, costOf(r)) {
		return j.reject(key, g, r, reasonMemory)
	}
	g.add(c.ID, clone(r))
	return Result{Kind: Part}
}

// repeat adds a chunk whose id the group has. A producer may write one twice;
// only its offset is news.
func (j *Joiner) repeat(key groupKey, g *group, kept, r *kgo.Record) Result {
	if !bytes.Equal(kept.Value, r.Value) {
		return j.reject(key, g, r, reasonConflict)
	}
	if !j.pay(g, repeatCost) {
		return j.reject(key, g, r, reasonMemory)
	}
	g.repeats = append(g.repeats, r.Offset)
	return Result{Kind: Part}
}

// join makes the message of a complete group. It pins no fetched batch.
func (j *Joiner) join(key groupKey, g *group) Result {
	value := make([]byte, 0, g.size)
	digests := make([]uint64, g.count)
	offsets := g.repeats
	lowest := g.parts[0]
	for id := range g.count {
		part := g.parts[id]
		value = append(value, part.Value...)
		digests[id] = j.digest.of(part.Value)
		offsets = append(offsets, part.Offset)
		if part.Offset < lowest.Offset {
			lowest = part
		}
	}
	slices.Sort(offsets)

	first := *g.parts[0]
	first.Value = nil // a clone keeps key and value in one piece, and the value is of no more use
	message := single(clone(&first))
	message.Value = value
	message.Offset, message.LeaderEpoch = lowest.Offset, lowest.LeaderEpoch
	j.close(key, g)
	j.remember(key, &ended{digests: digests})
	return Result{Kind: Joined, Record: message, Offsets: slices.Compact(offsets)}
}

// reject ends a group, with r as the chunk that did not fit. Those of its
// chunks that come before its deadline are rejected one by one.
func (j *Joiner) reject(key groupKey, g *group, r *kgo.Record, reason string) Result {
	j.close(key, g)
	j.remember(key, &ended{reason: reason, until: g.deadline})
	rejection := g.rejection(key, reason)
	rejection.Parts = append(rejection.Parts, r)
	sortByOffset(rejection.Parts)
	return Result{Kind: Rejected, Rejection: rejection}
}

// Expire gives up the groups whose deadline is over.
func (j *Joiner) Expire(now time.Time) []*Rejection {
	var expired []*Rejection
	for key, g := range j.open {
		if now.Before(g.deadline) {
			continue
		}
		j.close(key, g)
		expired = append(expired, g.rejection(key, ReasonDeadline))
	}
	slices.SortFunc(expired, func(a, b *Rejection) int {
		return cmp.Or(
			cmp.Compare(a.Topic, b.Topic),
			cmp.Compare(a.Partition, b.Partition),
			cmp.Compare(a.Parts[0].Offset, b.Parts[0].Offset),
		)
	})
	return expired
}

// NextDeadline returns when [Joiner.Expire] has something to do, or zero.
func (j *Joiner) NextDeadline() time.Time {
	var next time.Time
	for _, g := range j.open {
		if next.IsZero() || g.deadline.Before(next) {
			next = g.deadline
		}
	}
	return next
}

// Drop forgets all of a partition: it was taken away, or its log replaced.
func (j *Joiner) Drop(topic string, partition int32) {
	from := source{topic, partition}
	delete(j.past, from)
	for key, g := range j.open {
		if key.source == from {
			j.close(key, g)
		}
	}
}

// Cut forgets the chunks of a partition from offset on, where its log was cut to
// go on with other records, and what ended there. Of a message that is begun
// below what lies there is kept.
func (j *Joiner) Cut(topic string, partition int32, offset int64) {
	from := source{topic, partition}
	delete(j.past, from)
	for key, g := range j.open {
		if key.source != from {
			continue
		}
		g.repeats = slices.DeleteFunc(g.repeats, func(at int64) bool { return at >= offset })
		for id, part := range g.parts {
			if part.Offset >= offset {
				g.size -= len(part.Value)
				delete(g.parts, id)
			}
		}
		if len(g.parts) == 0 {
			j.close(key, g)
		}
	}
}

// Open returns how many messages have been begun and are not complete.
func (j *Joiner) Open() int { return len(j.open) }

// Bytes returns what they are counted to use.
func (j *Joiner) Bytes() int64 { return j.cost }

// pay counts n more bytes for g, unless that is too much.
func (j *Joiner) pay(g *group, n int64) bool {
	if j.cost+n > j.limits.MaxBytes {
		return false
	}
	j.cost += n
	g.cost += n
	return true
}

// close ends a group that may be open.
func (j *Joiner) close(key groupKey, g *group) {
	delete(j.open, key)
	j.cost -= g.cost
}
