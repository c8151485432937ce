package wire

import (
	"cmp"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Kind says what became of a record given to [Joiner.Add].
type Kind int

const (
	// Whole is a record that is a message by itself: it is no chunk, or the
	// only one of its message.
	Whole Kind = iota
	// Part is a chunk that is kept, as a clone, until its message is complete
	// or given up. Its offset must not be committed before.
	Part
	// Joined is the chunk that completes a message.
	Joined
	// Repeat is a chunk of a message that was complete before, and says the
	// same: there is nothing left to do for it.
	Repeat
	// Rejected is a chunk that ends its group, or has none: what was kept of it
	// goes to the dead-letter topic.
	Rejected
)

// Result is what became of a record.
type Result struct {
	Kind      Kind
	Record    *kgo.Record // of Whole and Joined: the message
	Offsets   []int64     // of Joined: all its chunks', ascending, repeated chunks included
	Rejection *Rejection  // of Rejected
}

// Rejection is a group of chunks that will not become a message. No value of it
// is lost: every chunk is in Parts, but for those whose value another has too.
type Rejection struct {
	Topic     string
	Partition int32
	Reason    string        // one of a fixed few, with nothing from the wire in it
	Parts     []*kgo.Record // by offset, with their chunk headers
	Repeats   []int64       // offsets of chunks equal to one in Parts
}

// Why groups are rejected.
const (
	reasonMalformed = "malformed chunk headers"
	reasonChunks    = "message has too many chunks"
	reasonMessage   = "message too large to be joined"
	reasonMemory    = "no memory left for chunks of incomplete messages"
	reasonGroups    = "too many incomplete messages"
	reasonCount     = "chunks disagree about their number"
	reasonConflict  = "chunk repeated with another value"
	ReasonDeadline  = "chunks missing at the deadline"
)

func rejectOne(r *kgo.Record, reason string) Result {
	return Result{Kind: Rejected, Rejection: &Rejection{
		Topic: r.Topic, Partition: r.Partition, Reason: reason, Parts: []*kgo.Record{r},
	}}
}

func sortByOffset(records []*kgo.Record) {
	slices.SortFunc(records, func(a, b *kgo.Record) int { return cmp.Compare(a.Offset, b.Offset) })
}
