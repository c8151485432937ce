package watermark

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
)

// DecodeMap returns the map that [Map.Encode] wrote beside a commit at offset base; end is the log's end, negative if it
// is not known. Metadata may hold anything (franz-go writes its member id there, others what they like, and anyone who
// may commit could forge a map), so what is not exactly such a text, or claims an offset below base or not below end, is
// no map: false, and every record is read again (I12). Notes and Done are the caller's.
//
// A forged text costs no more than its length in time and memory: the numbers in it are compared, never counted up to.
func DecodeMap(text string, base, end int64) (Map, bool) {
	raw, ok := openMap(text, base)
	if !ok {
		return Map{}, false
	}
	r := fields{b: raw[headLen+1:], ok: true}
	m := r.head(raw[headLen])
	room := uint64(math.MaxInt64 - base)
	if end >= 0 {
		room = uint64(max(end-base, 0))
	}
	m.Done = r.runs(raw[headLen]&methodMask, base, room)
	if !r.ok {
		return Map{}, false
	}
	return m, true
}

// openMap returns the bytes of a text that has our magic and version and the checksum for this base.
func openMap(text string, base int64) ([]byte, bool) {
	// The decoder would skip line ends.
	if base < 0 || len(text) > MaxMetadata || strings.ContainsAny(text, "\r\n") {
		return nil, false
	}
	raw, err := mapText.DecodeString(text)
	if err != nil || len(raw) <= headLen || string(raw[:len(mapMagic)]) != mapMagic {
		return nil, false
	}
	return raw, binary.BigEndian.Uint32(raw[len(mapMagic):]) == mapSum(raw, base)
}

// fields reads the fields of a map one after the other. Once one is not there, or not as Encode writes it, ok is false
// for good and the others are zero.
type fields struct {
	b  []byte
	ok bool
}

// must notes whether something holds that has to.
func (f *fields) must(holds bool) bool {
	f.ok = f.ok && holds
	return f.ok
}

func (f *fields) take(n int) []byte {
	if !f.must(n <= len(f.b)) {
		return make([]byte, n)
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

// uvarint reads a number that is at most limit, in its shortest form.
func (f *fields) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(f.b)
	if !f.must(n > 0 && n == uvarintLen(v) && v <= limit) {
		return 0
	}
	f.b = f.b[n:]
	return v
}

// head reads what comes before the runs.
func (f *fields) head(flags byte) Map {
	m := Map{Epoch: -1, Clean: flags&flagClean != 0}
	f.must(flags&^flagsKnown == 0)
	if flags&flagTopic != 0 {
		m.Topic = binary.BigEndian.Uint32(f.take(4))
		f.must(m.Topic != 0)
	}
	if flags&flagEpoch != 0 {
		m.Epoch = int32(f.uvarint(math.MaxInt32))
	}
	if flags&flagNotes != 0 {
		n := int(f.take(1)[0])
		if f.must(n > 0 && n <= MaxNotes) {
			m.Notes = slices.Clone(f.take(n))
		}
	}
	return m
}

// runs reads everything else: runs that end at most room above base.
func (f *fields) runs(method byte, base int64, room uint64) []Run {
	if method == methodNone {
		f.must(len(f.b) == 0)
		return nil
	}
	skip := f.uvarint(room)
	span := f.uvarint(room - skip)
	var done, undone code
	switch paramLen(method) {
	case 1:
		done = f.code()
	case 2:
		done, undone = f.code(), f.code()
	}
	if !f.must(span > 0) {
		return nil
	}
	c := claims{at: base + int64(skip), left: span}
	r := bitReader{b: f.b}
	switch method {
	case methodBitset:
		f.must(c.bitset(&r))
	case methodGaps:
		f.must(c.gaps(&r, done))
	case methodRuns:
		f.must(c.lengths(&r, done, undone))
	}
	if !f.must(r.done()) {
		return nil
	}
	return c.runs
}

func (f *fields) code() code {
	c := code(f.take(1)[0])
	f.must(c <= maxCode)
	return c
}

// claims collects runs from the low end of a span to its end.
type claims struct {
	runs []Run
	at   int64  // what is below is read
	left uint64 // offsets from at to the end of the span, which no run passes
}

// add claims the next n offsets, at least one and no more than are left.
func (c *claims) add(n uint64) {
	c.runs = append(c.runs, Run{c.at, c.at + int64(n)})
	c.skip(n)
}

// skip passes over n undone offsets, or done ones that are claimed.
func (c *claims) skip(n uint64) {
	c.at += int64(n)
	c.left -= n
}

// bitset reads a bit per offset. The first and the last are claims, or the span would be another.
func (c *claims) bitset(r *bitReader) bool {
	if c.left > 8*uint64(len(r.b)) {
		return false
	}
	for {
		n := r.same(true, c.left)
		if n == 0 {
			return false
		}
		c.add(n)
		if c.left == 0 {
			return true
		}
		c.skip(r.same(false, c.left))
	}
}

// gaps reads numbers of done offsets, behind each of which there is an undone one, but for the last.
func (c *claims) gaps(r *bitReader, gap code) bool {
	for first := true; ; first = false {
		n, ok := gap.get(r, c.left)
		if !ok || n == 0 && first {
			return false
		}
		if n > 0 {
			c.add(n)
		}
		if c.left == 0 {
			return true
		}
		if c.skip(1); c.left == 0 {
			return false
		}
	}
}

// lengths reads the lengths of done and undone runs in turn, each less 1.
func (c *claims) lengths(r *bitReader, done, undone code) bool {
	for {
		n, ok := done.get(r, c.left-1)
		if !ok {
			return false
		}
		c.add(n + 1)
		if c.left == 0 {
			return true
		}
		n, ok = undone.get(r, c.left-1)
		if !ok || n+1 == c.left {
			return false
		}
		c.skip(n + 1)
	}
}
