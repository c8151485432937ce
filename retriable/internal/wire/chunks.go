package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	maxGroupID = 64     // bytes; all known writers use 16
	nullKey    = "null" // the only value of KeyHeader
)

// Limits of a message in chunks: what a [Joiner] takes by default and
// [SplitRecord] keeps to, since nobody could read what is beyond them.
const (
	MaxChunks       = 1024
	MaxMessageBytes = 64 << 20
)

var (
	// ErrHeadersTooLarge says that key and headers alone leave no room for any
	// part of the value.
	ErrHeadersTooLarge = errors.New("wire: key and headers leave no room for a chunk")
	// ErrTooManyChunks says that a value is too large to be joined again.
	ErrTooManyChunks = errors.New("wire: message too large to be split")
)

// Chunk is what the headers of one part of a message say. Group is the header's
// own memory.
type Chunk struct {
	Group     []byte // 1 to 64 bytes
	Count, ID uint64 // ID < Count
}

// ParseChunk reads the chunk headers in h. A record is a chunk only if it has
// all three and none is null, as for the Python client; otherwise neither ok
// nor bad is set. Bad says that it means to be one and cannot be: numbers that
// are not of 8 bytes, no chunks at all, an id past the last, an empty group id
// or one of more than 64 bytes. The count is not bounded here: nothing may be
// allocated by it (I10, I12).
func ParseChunk(h []kgo.RecordHeader) (c Chunk, ok, bad bool) {
	group, count, id := chunkValues(h)
	if group == nil || count == nil || id == nil {
		return Chunk{}, false, false
	}
	if len(group) == 0 || len(group) > maxGroupID || len(count) != 8 || len(id) != 8 {
		return Chunk{}, false, true
	}
	c = Chunk{Group: group, Count: binary.BigEndian.Uint64(count), ID: binary.BigEndian.Uint64(id)}
	if c.ID >= c.Count {
		return Chunk{}, false, true
	}
	return c, true, false
}

// Chunked reports whether h may be a chunk's: only then need a [Joiner] see it.
func Chunked(h []kgo.RecordHeader) bool {
	for i := range h {
		if len(h[i].Key) == len(ChunkGroupHeader) && h[i].Key == ChunkGroupHeader {
			return true
		}
	}
	return false
}

// chunkValues returns the values of the first header of each name. A null that
// comes first wins too, and makes the record an ordinary one.
func chunkValues(h []kgo.RecordHeader) (group, count, id []byte) {
	var groupSeen, countSeen, idSeen bool
	for i := range h {
		if len(h[i].Key) < len(ChunkIDHeader) || h[i].Key[0] != ownPrefix[0] {
			continue
		}
		switch v := h[i].Value; h[i].Key {
		case ChunkGroupHeader:
			if !groupSeen {
				group, groupSeen = v, true
			}
		case ChunkCountHeader:
			if !countSeen {
				count, countSeen = v, true
			}
		case ChunkIDHeader:
			if !idSeen {
				id, idSeen = v, true
			}
		}
	}
	return group, count, id
}

// keyMarked reports whether the message of a chunk with these headers has no
// key, and the chunk's own is only there to keep the chunks together.
func keyMarked(h []kgo.RecordHeader) bool {
	for i := range h {
		if h[i].Key == KeyHeader {
			return string(h[i].Value) == nullKey
		}
	}
	return false
}

// unchunked returns the headers without those that make a record a chunk, all
// of each name: what remains may not be a chunk again.
func unchunked(h []kgo.RecordHeader) []kgo.RecordHeader { return without(h, chunkHeader) }

// hopRoom is what the headers of a dead letter may add to a chunk.
const hopRoom = 4 << 10

const (
	batchHeader = 61 // of a record batch of version 2
	// clientExtra is what kgo counts at most against its ProducerBatchMaxBytes
	// beyond what the broker counts: the batch's length prefix in the request.
	clientExtra = 4
)

// RecordSize returns the size of r alone in an uncompressed batch, in bytes, as
// a broker holds it against max.message.bytes.
func RecordSize(r *kgo.Record) int {
	return batchHeader + prefixed(recordRest(r.Key, r.Headers)+prefixed(len(r.Value)))
}

// recordRest returns the size of all of a record but its length and its value.
func recordRest(key []byte, h []kgo.RecordHeader) int {
	// Attributes, timestamp delta and offset delta are one byte each: a batch
	// of one record counts both from itself.
	n := 3 + prefixed(len(key)) + varint(len(h))
	for i := range h {
		n += prefixed(len(h[i].Key)) + prefixed(len(h[i].Value))
	}
	return n
}

// prefixed returns the size of n bytes behind their length. A null's length, -1,
// takes one byte as 0 does.
func prefixed(n int) int { return varint(n) + n }

// varint returns the size of n >= 0 as a zigzag varint.
func varint(n int) int { return (bits.Len64(uint64(n)<<1|1) + 6) / 7 }

// Fits reports whether r may be produced under limit, both as the broker and as
// kgo count.
func Fits(r *kgo.Record, limit int) bool { return RecordSize(r)+clientExtra <= limit }

// room returns the largest value that fits into limit beside the rest of a
// record, or 0.
func room(rest, limit int) int {
	n := limit - clientExtra - batchHeader - rest
	for n > 0 && clientExtra+batchHeader+prefixed(rest+prefixed(n)) > limit {
		n-- // the two length fields: at most ten times
	}
	return max(n, 0)
}

// SplitRecord returns r itself if it fits into limit, the bytes of a whole
// record as written, which a topic's max.message.bytes and kgo's
// ProducerBatchMaxBytes bound. Otherwise it returns r as chunks that each fit.
//
// All chunks carry r's key, timestamp and headers, the chunk headers last and
// in the order of the Python client; such as r has already are replaced. Without a key the group id becomes the
// key, so that all of them lie on one partition, and a header says so, so that
// the joined message has none again. Their values are parts of r's own. A
// record without a timestamp should be given one first: kgo would stamp each
// chunk by itself.
func SplitRecord(r *kgo.Record, group [16]byte, limit int) ([]*kgo.Record, error) {
	return split(r, group, limit, DefaultLimits())
}

// SplitSparing is [SplitRecord] for consumers with such limits, with chunks that
// leave some room below the limit, so that each may yet be dead-lettered by
// itself, with the headers of that, to a topic that takes as much.
func SplitSparing(r *kgo.Record, group [16]byte, limit int, most Limits) ([]*kgo.Record, error) {
	if Fits(r, limit) {
		return []*kgo.Record{r}, nil
	}
	if parts, err := split(r, group, limit-min(limit/8, hopRoom), most); err == nil {
		return parts, nil
	}
	return split(r, group, limit, most)
}

func split(r *kgo.Record, group [16]byte, limit int, most Limits) ([]*kgo.Record, error) {
	if Fits(r, limit) {
		return []*kgo.Record{r}, nil
	}
	key, headers := r.Key, unchunked(r.Headers)
	if key == nil {
		key = group[:]
		headers = append(headers, kgo.RecordHeader{Key: KeyHeader, Value: []byte(nullKey)})
	}
	sample := appendChunk(headers, Chunk{Group: group[:], Count: 1})
	size := room(recordRest(key, sample), limit)
	if size == 0 || len(r.Value) == 0 {
		return nil, fmt.Errorf("%w: limit %d", ErrHeadersTooLarge, limit)
	}
	count := (len(r.Value) + size - 1) / size
	if count > most.MaxChunks || len(r.Value) > most.MaxMessageBytes {
		return nil, fmt.Errorf("%w: %d bytes in %d chunks", ErrTooManyChunks, len(r.Value), count)
	}
	parts := make([]*kgo.Record, count)
	for i := range parts {
		start, end := i*size, min((i+1)*size, len(r.Value))
		parts[i] = &kgo.Record{
			Key:       key,
			Value:     r.Value[start:end:end],
			Headers:   appendChunk(headers, Chunk{Group: group[:], Count: uint64(count), ID: uint64(i)}),
			Timestamp: r.Timestamp,
			Topic:     r.Topic,
			Partition: r.Partition,
			Context:   r.Context,
		}
	}
	return parts, nil
}

// appendChunk returns dst with the three headers of c behind, always in new
// memory: the chunks of a message share dst.
func appendChunk(dst []kgo.RecordHeader, c Chunk) []kgo.RecordHeader {
	w := newWriter(slices.Clip(dst), 3, len(c.Group)+2*8)
	w.bytes(ChunkGroupHeader, c.Group)
	w.uint64(ChunkCountHeader, c.Count)
	w.uint64(ChunkIDHeader, c.ID)
	return w.dst
}
