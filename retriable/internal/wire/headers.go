package wire

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Headers of the Python client, and so of every member on the topic.
const (
	AttemptHeader    = "retriable_kafka_attempt"          // the number of the coming retry, from 1
	TimestampHeader  = "retriable_kafka_timestamp"        // not before, in whole seconds
	ChunkGroupHeader = "retriable_kafka_chunk_group"      // 16 random bytes
	ChunkCountHeader = "retriable_kafka_number_of_chunks" // from 1
	ChunkIDHeader    = "retriable_kafka_chunk_id"         // from 0
)

// Headers of our own, all of them text; times are in milliseconds since 1970.
const (
	DueHeader          = "retriable_due"           // not before
	GroupHeader        = "retriable_group"         // the consumer group the copy is meant for
	TopicHeader        = "retriable_topic"         // where the record was first produced:
	PartitionHeader    = "retriable_partition"     // from 0
	OffsetHeader       = "retriable_offset"        // from 0
	TimeHeader         = "retriable_time"          // its timestamp there; -1 if it has none
	FirstFailureHeader = "retriable_first_failure" // when its first attempt failed
	ErrorHeader        = "retriable_error"         // why the last one did
	MovedHeader        = "retriable_rewritten"     // when a copy that waits was last written again
	KeyHeader          = "retriable_key"           // "null" on chunks whose message has no key
)

// Headers of dead letters as Kafka itself writes them (KIP-1191), all text.
const (
	LetterTopicHeader      = "__dlq.errors.topic"
	LetterPartitionHeader  = "__dlq.errors.partition"
	LetterOffsetHeader     = "__dlq.errors.offset"
	LetterGroupHeader      = "__dlq.errors.group"
	LetterDeliveriesHeader = "__dlq.errors.delivery.count"
	LetterMessageHeader    = "__dlq.errors.message"
)

const (
	ownPrefix    = "retriable_"
	sharedPrefix = "retriable_kafka_"
	letterPrefix = "__dlq.errors."
)

// Ours reports whether key names a header of the library, which handlers never
// see and every hop replaces: each of those above by its exact name, and
// whatever else begins with retriable_kafka_, since that is the namespace of
// the shared format and a newer member may use more of it. Other names that
// begin with retriable_ are the user's, and so are __dlq.errors.* (see [Bare]).
func Ours(key string) bool {
	// Nearly every header is the user's: this is inlined, the rest is not.
	return strings.HasPrefix(key, ownPrefix) && oursByName(key)
}

func oursByName(key string) bool {
	switch key {
	case DueHeader, GroupHeader, TopicHeader, PartitionHeader, OffsetHeader,
		TimeHeader, FirstFailureHeader, ErrorHeader, MovedHeader, KeyHeader:
		return true
	}
	return strings.HasPrefix(key, sharedPrefix)
}

// User returns the headers without ours, as the user produced them: in their
// order, with their repetitions and null values. Without any of ours that is h
// itself, clipped, so that appending to it writes to no one else's memory.
func User(h []kgo.RecordHeader) []kgo.RecordHeader {
	return without(h, Ours)
}

// Bare returns the headers without ours and without any __dlq.errors.*: what a
// dead letter keeps of its record, and what one that is sent back carries. On a
// record of a base topic the latter mean nothing; they are left over from a
// letter somebody copied back, and kept they would come first and win.
func Bare(h []kgo.RecordHeader) []kgo.RecordHeader {
	return without(h, func(key string) bool {
		return Ours(key) || strings.HasPrefix(key, letterPrefix)
	})
}

// BarePart is [Bare] for a chunk that is dead-lettered, or sent back, by
// itself: its chunk headers stay, so that the message can still be joined.
func BarePart(h []kgo.RecordHeader) []kgo.RecordHeader {
	return without(h, func(key string) bool {
		return Ours(key) && !chunkHeader(key) || strings.HasPrefix(key, letterPrefix)
	})
}

// chunkHeader reports whether key is one of those that make a record a chunk.
func chunkHeader(key string) bool {
	switch key {
	case ChunkGroupHeader, ChunkCountHeader, ChunkIDHeader, KeyHeader:
		return true
	}
	return false
}

// without returns the headers whose key is not to drop: h itself, clipped, if
// there is none, and nil if there is no other.
func without(h []kgo.RecordHeader, drop func(key string) bool) []kgo.RecordHeader {
	first, dropped := -1, 0
	for i := range h {
		if !drop(h[i].Key) {
			continue
		}
		if dropped++; first < 0 {
			first = i
		}
	}
	if first < 0 {
		return h[:len(h):len(h)]
	}
	if dropped == len(h) {
		return nil
	}
	kept := make([]kgo.RecordHeader, first, len(h)-dropped)
	copy(kept, h)
	for _, header := range h[first+1:] {
		if !drop(header.Key) {
			kept = append(kept, header)
		}
	}
	return kept
}
