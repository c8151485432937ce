package wire

import (
	"math"

	"github.com/twmb/franz-go/pkg/kgo"
)

// DeadLetter is what the headers of a record on a dead-letter topic say.
type DeadLetter struct {
	Origin              // each part for itself: unknown ones are "", -1, -1 and the zero time
	Group        string // the consumer group that gave up
	Deliveries   int    // attempts made
	Message      string // why it was dead-lettered
	FirstFailure int64  // in ms since 1970; 0 if unknown
	Error        string // why the last attempt failed
	Bad          int    // headers that were ignored as malformed; not written
}

// AppendDeadLetter appends to dst Kafka's own headers of a dead letter and then
// ours. It does not look at what dst holds: pass the result of [Bare]. What is
// unknown or empty is not written, the number of deliveries always.
func AppendDeadLetter(dst []kgo.RecordHeader, d DeadLetter) []kgo.RecordHeader {
	message, text := CleanError(d.Message), CleanError(d.Error)
	w := newWriter(dst, 13, 8*maxDigits+2*len(d.Topic)+2*len(d.Group)+len(message)+len(text))
	w.text(LetterTopicHeader, d.Topic)
	if d.Topic != "" && d.Partition >= 0 {
		w.number(LetterPartitionHeader, int64(d.Partition))
	}
	if d.Topic != "" && d.Offset >= 0 {
		w.number(LetterOffsetHeader, d.Offset)
	}
	w.text(LetterGroupHeader, d.Group)
	w.number(LetterDeliveriesHeader, int64(max(d.Deliveries, 0)))
	w.text(LetterMessageHeader, message)
	w.text(GroupHeader, d.Group)
	w.origin(d.Origin)
	w.failure(d.FirstFailure, text)
	return w.dst
}

// ParseDeadLetter reads the headers of a record from a dead-letter topic, which
// may have been written by Kafka itself: where ours and Kafka's say the same
// thing, ours count if they are there.
func ParseDeadLetter(h []kgo.RecordHeader) DeadLetter {
	d := DeadLetter{Origin: unknown}
	var f found
	if !f.scan(h) {
		return d
	}
	d.Origin = f.origin(topicField, partitionField, offsetField)
	if !d.Known() {
		d.Origin = f.origin(letterTopicField, letterPartitionField, letterOffsetField)
	}
	d.Time = f.time()
	if d.Group = f.group(groupField); d.Group == "" {
		d.Group = f.group(letterGroupField)
	}
	n, _ := f.number(letterDeliveriesField, math.MaxInt32)
	d.Deliveries = int(n)
	d.Message = f.text(letterMessageField)
	d.FirstFailure, _ = f.number(firstFailureField, MaxTime)
	d.Error = f.text(errorField)
	d.Bad = f.bad
	return d
}
