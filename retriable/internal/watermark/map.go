package watermark

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
)

// Run is a stretch of offsets From <= o < To, all of them done.
type Run struct{ From, To int64 }

// Map is what a commit says beside its offset: which offsets above it are done already. It travels as the text of the
// commit's metadata, and whoever gets the partition next skips what it claims.
//
// The text is unpadded base64 (brokers compare the limit with UTF-16 units, and keep nothing but UTF-8) of
//
//	magic and version   3 bytes; the text starts with "rtm1"
//	checksum            4 bytes, CRC-32C of the base, 8 bytes, and of all that follows
//	flags               1 byte: which of the following are there, Clean, and how the runs are written
//	topic               4 bytes, unless 0
//	epoch               uvarint, unless -1
//	notes               length byte and bytes, unless empty
//	skip, span          uvarints: the first claim starts skip above the base, and span further on the last one ends
//	parameters          none, 1 or 2 bytes: see code
//	body                bits, low ones first, the rest of the last byte zero
//
// where a map without runs ends before the skip. The base is in the checksum alone: a map beside any other offset than
// its own is none. Numbers are big-endian and uvarints are minimal, so that a map has one text per way to write its runs.
type Map struct {
	Topic uint32 // a caller's fingerprint of the topic's id, 0 if unknown
	Epoch int32  // leader epoch of the record below the base, -1 if unknown
	Clean bool   // the partition was handed over in order: nothing ran when this was written
	Notes []byte // at most MaxNotes opaque bytes; more are left out altogether
	Done  []Run  // ascending, disjoint and not touching, none below the base
}

const (
	// MaxMetadata is what brokers allow by default (offset.metadata.max.bytes), in characters. No map is longer.
	MaxMetadata = 4096
	// MaxNotes is the most that Map.Notes may hold, in bytes: with its length, the 64 characters beyond what the
	// codec's capacity is promised for.
	MaxNotes = 45
)

// How the runs are written.
const (
	methodNone   = iota // there are none
	methodBitset        // a bit per offset, 1 is done
	methodGaps          // the number of done offsets before each undone one, and behind the last: one code
	methodRuns          // lengths of done and undone runs in turn, each less 1: two codes
)

const (
	mapMagic   = "\xae\xd9\xb5" // "rtm1" in base64; its last character is the version
	headLen    = len(mapMagic) + 4
	methodMask = 3
	flagClean  = 1 << 2
	flagTopic  = 1 << 3
	flagEpoch  = 1 << 4
	flagNotes  = 1 << 5
	flagsKnown = methodMask | flagClean | flagTopic | flagEpoch | flagNotes
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	mapText    = base64.RawStdEncoding.Strict()
)

// Encode returns the map as the metadata of a commit at offset base, in at most limit characters (and never more than
// MaxMetadata), all of them ASCII. It is the shortest text of those that the ways to write it give.
//
// If not all claims fit the highest are cut, and kept, the number of runs that are claimed as a whole, is less than
// len(Done): below what is cut, nothing is. A run may be cut in part. What breaks the promise of Done is cut likewise,
// from the first run that does: the text never claims an offset that Done does not. A limit too small for a map
// without claims gives the empty text, as does a negative base.
//
// It costs time in proportion to the runs, or to limit if they are more than could fit; never to the offsets.
func (m *Map) Encode(base int64, limit int) (text string, kept int) {
	return m.encode(base, min(limit, MaxMetadata))
}

func (m *Map) encode(base int64, limit int) (text string, kept int) {
	room := mapText.DecodedLen(max(limit, 0))
	raw := m.appendHead(make([]byte, 0, min(room, MaxMetadata)))
	if len(raw) > room || base < 0 {
		return "", 0
	}
	runs := usable(base, m.Done, 8*room)
	p := bestPlan(base, runs, room-len(raw))
	if p.method != methodNone {
		raw[headLen] |= p.method
		raw = p.append(raw, base, runs)
	}
	binary.BigEndian.PutUint32(raw[len(mapMagic):], mapSum(raw, base))
	return mapText.EncodeToString(raw), p.kept
}

// appendHead appends everything that comes before the runs, with the checksum and the method still zero.
func (m *Map) appendHead(b []byte) []byte {
	b = append(b, mapMagic...)
	b = append(b, 0, 0, 0, 0, 0)
	flags := &b[headLen]
	if m.Clean {
		*flags |= flagClean
	}
	if m.Topic != 0 {
		*flags |= flagTopic
		b = binary.BigEndian.AppendUint32(b, m.Topic)
	}
	if m.Epoch >= 0 {
		b[headLen] |= flagEpoch
		b = binary.AppendUvarint(b, uint64(m.Epoch))
	}
	if n := len(m.Notes); n > 0 && n <= MaxNotes {
		b[headLen] |= flagNotes
		b = append(append(b, byte(n)), m.Notes...)
	}
	return b
}

// mapSum returns the checksum of a whole map, given with or without its checksum.
func mapSum(raw []byte, base int64) uint32 {
	var salt [8]byte
	binary.BigEndian.PutUint64(salt[:], uint64(base))
	return crc32.Update(crc32.Checksum(salt[:], castagnoli), castagnoli, raw[headLen:])
}

// usable returns the leading runs that are what Done promises to be, and no more of them than bits: each costs one at least.
func usable(base int64, done []Run, bits int) []Run {
	done = done[:min(len(done), bits)]
	last := base - 1
	for i, r := range done {
		if r.From <= last || r.To <= r.From {
			return done[:i]
		}
		last = r.To
	}
	return done
}
