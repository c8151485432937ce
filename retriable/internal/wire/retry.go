package wire

import (
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Origin is where a record was first produced.
type Origin struct {
	Topic     string
	Partition int32     // -1 if unknown
	Offset    int64     // -1 if unknown
	Time      time.Time // its timestamp there, in milliseconds; zero if unknown
}

var unknown = Origin{Partition: -1, Offset: -1}

// Known reports whether the position is complete. It is not after a Python
// member's hop, which keeps no header.
func (o Origin) Known() bool { return o.Topic != "" && o.Partition >= 0 && o.Offset >= 0 }

// Retry is what the headers of a record on a retry topic say.
type Retry struct {
	Origin              // Topic, Partition, Offset either all known or none; Time for itself
	Attempt      int    // the coming delivery, 1-based; 1 if the headers do not say
	Due          int64  // not before, in ms since 1970; 0 if the headers do not say
	Group        string // the consumer group it is meant for; "" if they do not say
	FirstFailure int64  // in ms since 1970; 0 if they do not say
	Error        string // why the attempt before failed
	Moved        int64  // when it was last written again as it was, in ms; 0 if it was not
	Bad          int    // headers of ours that were ignored as malformed; not written
}

// ParseRetry reads the headers of a record from a retry topic. On a base topic
// they mean nothing, and must not be asked for (I12).
//
// Attempt is at least 1 and at most 2^31-1, Due at most [MaxTime]: the caller
// bounds both by its own limits. See [ParseDue] for how the two headers that
// tell the due time are weighed. A text that is one of names takes no memory of
// its own.
func ParseRetry(h []kgo.RecordHeader, names ...string) Retry {
	r := Retry{Origin: unknown, Attempt: 1}
	f := found{names: names}
	if !f.scan(h) {
		return r
	}
	if n, ok := f.uint64(attemptField); ok {
		r.Attempt = int(min(n, math.MaxInt32-1)) + 1
	}
	r.Due, _ = f.due()
	r.Group = f.group(groupField)
	if o := f.origin(topicField, partitionField, offsetField); o.Known() {
		r.Origin = o
	}
	r.Time = f.time()
	r.FirstFailure, _ = f.number(firstFailureField, MaxTime)
	r.Error = f.text(errorField)
	r.Moved, _ = f.number(movedField, MaxTime)
	r.Bad = f.bad
	return r
}

// ParseDue reads only when a record is due, in ms since 1970: for base topics
// whose producers may say so. Bad counts headers ignored as malformed.
//
// A retriable_kafka_timestamp by itself comes from a peer that counts in whole
// seconds and runs the record once that second is over, so it is due at the
// second's end. A retriable_due is exact, and counts if its second, rounded up
// as we write it, is what the timestamp says, or there is none. If the two
// disagree somebody who knows only the timestamp has changed it, so that one
// counts and ours is ignored as malformed. Times too far ahead become
// [MaxTime]: they are bounded, never ignored, so that nothing runs early (I7).
func ParseDue(h []kgo.RecordHeader) (ms int64, ok bool, bad int) {
	var f found
	if !f.scan(h) {
		return 0, false, 0
	}
	ms, ok = f.due()
	return ms, ok, f.bad
}

func (f *found) due() (int64, bool) {
	sec, peer := f.uint64(timestampField)
	ms, own := f.number(dueField, math.MaxInt64)
	ms = min(ms, MaxTime)
	switch {
	case own && (!peer || seconds(ms) == sec):
		return ms, true
	case own:
		f.bad++
	}
	if !peer {
		return 0, false
	}
	if sec >= uint64(MaxTime)/1000 {
		return MaxTime, true
	}
	return int64(sec)*1000 + 1000, true
}

// time reads the original timestamp. Kafka's -1, for a record without one, is
// the only number with a sign that any of our headers may hold.
func (f *found) time() time.Time {
	if string(f.value[timeField]) == "-1" {
		return time.UnixMilli(-1)
	}
	ms, ok := f.number(timeField, MaxTime)
	if !ok {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// seconds returns ms in whole seconds, rounded up: a peer must not run early.
func seconds(ms int64) uint64 { return uint64(ms+999) / 1000 }

// AppendRetry appends to dst the headers that say r, those of the shared format
// first and in their order there. It does not look at what dst holds: pass the
// result of [User], or a second hop's headers would hide behind the first's.
// An unknown origin, group or time and an empty error are not written.
func AppendRetry(dst []kgo.RecordHeader, r Retry) []kgo.RecordHeader {
	text := CleanError(r.Error)
	n, bytes := 10, 2*8+3*timeDigits+offsetDigits+partitionDigits+len(r.Group)+len(r.Topic)+len(text)
	if r.Moved > 0 {
		n, bytes = n+1, bytes+timeDigits
	}
	w := newWriter(dst, n, bytes)
	w.uint64(AttemptHeader, uint64(max(r.Attempt-1, 0)))
	if r.Due > 0 {
		due := min(r.Due, MaxTime)
		w.uint64(TimestampHeader, seconds(due))
		w.number(DueHeader, due)
	}
	w.text(GroupHeader, r.Group)
	w.origin(r.Origin)
	w.failure(r.FirstFailure, text)
	if r.Moved > 0 {
		w.number(MovedHeader, min(r.Moved, MaxTime))
	}
	return w.dst
}

// Undue returns the headers without those that say when a record is due.
func Undue(h []kgo.RecordHeader) []kgo.RecordHeader {
	return without(h, func(key string) bool { return key == TimestampHeader || key == DueHeader })
}

// AppendDue appends to dst the headers that ask for a first delivery not before
// ms, for a producer. It does not look at what dst holds: pass the result of
// [Undue]. An ms of 0 or less asks for nothing.
func AppendDue(dst []kgo.RecordHeader, ms int64) []kgo.RecordHeader {
	if ms <= 0 {
		return dst
	}
	ms = min(ms, MaxTime)
	w := newWriter(dst, 2, 8+maxDigits)
	w.uint64(TimestampHeader, seconds(ms))
	w.number(DueHeader, ms)
	return w.dst
}
