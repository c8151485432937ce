package wire

import (
	"encoding/binary"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A field is a header that some reader here looks at.
type field int

const (
	attemptField field = iota
	timestampField
	dueField
	groupField
	topicField
	partitionField
	offsetField
	timeField
	firstFailureField
	errorField
	movedField
	letterTopicField
	letterPartitionField
	letterOffsetField
	letterGroupField
	letterDeliveriesField
	letterMessageField
	fields
	noField field = -1
)

// fieldOf returns the field a header's key names.
func fieldOf(key string) field {
	switch {
	case strings.HasPrefix(key, ownPrefix):
		return ownField(key)
	case strings.HasPrefix(key, letterPrefix):
		return letterField(key)
	}
	return noField
}

func ownField(key string) field {
	switch key {
	case AttemptHeader:
		return attemptField
	case TimestampHeader:
		return timestampField
	case DueHeader:
		return dueField
	case GroupHeader:
		return groupField
	case TopicHeader:
		return topicField
	case PartitionHeader:
		return partitionField
	case OffsetHeader:
		return offsetField
	case TimeHeader:
		return timeField
	case FirstFailureHeader:
		return firstFailureField
	case ErrorHeader:
		return errorField
	case MovedHeader:
		return movedField
	}
	return noField
}

func letterField(key string) field {
	switch key {
	case LetterTopicHeader:
		return letterTopicField
	case LetterPartitionHeader:
		return letterPartitionField
	case LetterOffsetHeader:
		return letterOffsetField
	case LetterGroupHeader:
		return letterGroupField
	case LetterDeliveriesHeader:
		return letterDeliveriesField
	case LetterMessageHeader:
		return letterMessageField
	}
	return noField
}

// found holds the first header of each field and how many of those that were
// asked for turned out malformed. It lives on the stack: a record with ten
// thousand headers costs one pass over them and no memory (I10).
type found struct {
	value [fields][]byte
	seen  uint32
	bad   int
	names []string // texts that are likely
}

// string is v, for which there is no new memory if it is one of the names.
func (f *found) string(v []byte) string {
	for _, name := range f.names {
		if name == string(v) {
			return name
		}
	}
	return string(v)
}

// scan collects the fields of h. It reports whether there was any.
func (f *found) scan(h []kgo.RecordHeader) bool {
	for i := range h {
		k := fieldOf(h[i].Key)
		if k == noField || f.has(k) {
			continue // the first of a name wins
		}
		f.seen |= 1 << k
		f.value[k] = h[i].Value
	}
	return f.seen != 0
}

func (f *found) has(k field) bool { return f.seen&(1<<k) != 0 }

// check counts a field that is there but not as it should be.
func (f *found) check(k field, ok bool) bool {
	if !ok && f.has(k) {
		f.bad++
	}
	return ok
}

// uint64 reads an integer in the shared encoding: exactly 8 bytes, big endian.
func (f *found) uint64(k field) (uint64, bool) {
	v := f.value[k]
	if !f.check(k, len(v) == 8) {
		return 0, false
	}
	return binary.BigEndian.Uint64(v), true
}

// number reads a decimal of at most limit.
func (f *found) number(k field, limit int64) (int64, bool) {
	n, ok := decimal(f.value[k])
	ok = f.check(k, ok && n <= limit)
	if !ok {
		return 0, false
	}
	return n, true
}

// topic reads a legal topic name.
func (f *found) topic(k field) string {
	if !f.check(k, legalTopic(f.value[k])) {
		return ""
	}
	return f.string(f.value[k])
}

// group reads the id of a consumer group.
func (f *found) group(k field) string {
	v := f.value[k]
	if !f.check(k, 0 < len(v) && len(v) <= math.MaxInt16 && utf8.Valid(v)) {
		return ""
	}
	return f.string(v)
}

// text reads a text for people. It is cleaned rather than refused, except for
// a null.
func (f *found) text(k field) string {
	v := f.value[k]
	if !f.check(k, v != nil) {
		return ""
	}
	// A little more than is kept, so that CleanError sees that it is cut.
	return CleanError(f.string(v[:min(len(v), maxText+utf8.UTFMax)]))
}

// origin reads a position, each part of it for itself: unknown ones are the
// empty topic and -1.
func (f *found) origin(topic, partition, offset field) Origin {
	o := unknown
	o.Topic = f.topic(topic)
	if n, ok := f.number(partition, math.MaxInt32); ok {
		o.Partition = int32(n)
	}
	if n, ok := f.number(offset, math.MaxInt64-1); ok {
		o.Offset = n
	}
	return o
}
