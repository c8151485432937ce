package watermark

import (
	"encoding/binary"
	"iter"
	"math/bits"
)

// code is a Golomb code of a number: a quotient in unary, that many zeros and a one, and the remainder in binary. With
// k = code>>1 an even one divides by 2^k, which is Rice's code, and an odd one by 3·2^k, whose remainder starts with
// 0, 10 or 11 for its third. For offsets finished by chance the best of them is within half a percent of the best divisor.
type code uint8

// maxCode is the last code; its k leaves 63-bit numbers room to be checked before they overflow.
const maxCode code = 2*61 + 1

// len returns the length of x's code in bits. Numbers are below 2^63.
func (c code) len(x uint64) uint64 {
	k := uint64(c >> 1)
	if c&1 == 0 {
		return x>>k + 1 + k
	}
	return (x>>k+2)/3 + 2 + k
}

// least returns a length that no n numbers with this sum go below, and that sum does not overflow.
func (c code) least(n, sum uint64) uint64 {
	k := uint64(c >> 1)
	if n >= 1<<56 {
		return n
	}
	if c&1 == 0 {
		return max(n*(1+k), n*k+sum>>k) // floor(y) + 1 >= y
	}
	return max(n*(2+k), n*(1+k)+sum>>k/3) // ceil(floor(y)/3) + 1 >= y/3
}

// likely returns a code near the best for numbers with this mean: the best divisor is 0.7 times as large, if they are
// spread as chance does it.
func likely(mean uint64) code {
	return min(code(max(0, 2*bits.Len64(mean)-3)), maxCode)
}

// codesFrom yields all codes, from the given one on and then those below it.
func codesFrom(first code) iter.Seq[code] {
	return func(yield func(code) bool) {
		for c := first; c <= maxCode; c++ {
			if !yield(c) {
				return
			}
		}
		for c := first; c > 0; c-- {
			if !yield(c - 1) {
				return
			}
		}
	}
}

// put writes x's code.
func (c code) put(w *bitWriter, x uint64) {
	k := uint(c >> 1)
	q := x >> k
	if c&1 == 0 {
		w.fill(0, q)
		w.put(1, 1)
	} else {
		w.fill(0, q/3)
		w.put(1, 1)
		switch q % 3 {
		case 0:
			w.put(0, 1)
		case 1:
			w.put(0b01, 2)
		case 2:
			w.put(0b11, 2)
		}
	}
	w.put(x, k)
}

// get reads a number that is at most limit; false if what is there is none.
func (c code) get(r *bitReader, limit uint64) (x uint64, ok bool) {
	k := uint(c >> 1)
	q, ok := r.unary()
	if !ok || q > limit>>k { // before it is multiplied: I12
		return 0, false
	}
	if c&1 != 0 {
		if q > limit>>k/3 {
			return 0, false
		}
		q *= 3
		if more := r.take(1); more == 1 {
			q += 1 + r.take(1)
		}
	}
	x = q<<k | r.take(k)
	return x, x <= limit && !r.short
}

// bitWriter appends bits to bytes, low ones first.
type bitWriter struct {
	b    []byte
	acc  uint64
	held uint // bits in acc, below 8 between calls
}

// put writes the low n bits of v, n up to 64.
func (w *bitWriter) put(v uint64, n uint) {
	if n > 32 {
		w.put(v, 32)
		v, n = v>>32, n-32
	}
	w.acc |= v & (1<<n - 1) << w.held
	for w.held += n; w.held >= 8; w.held -= 8 {
		w.b = append(w.b, byte(w.acc))
		w.acc >>= 8
	}
}

// fill writes n bits that are all those of v: 0, or all ones.
func (w *bitWriter) fill(v, n uint64) {
	for ; n > 32; n -= 32 {
		w.put(v, 32)
	}
	w.put(v, uint(n))
}

// bytes pads the last byte with zeros and returns them all.
func (w *bitWriter) bytes() []byte {
	if w.held > 0 {
		w.put(0, 8-w.held)
	}
	return w.b
}

// bitReader reads what a bitWriter wrote. Beyond the end there are zeros, and short says that somebody looked at them.
type bitReader struct {
	b     []byte
	pos   uint64 // in bits
	short bool
}

// peek returns the bits at pos, at least 57 of them, without moving.
func (r *bitReader) peek() uint64 {
	from := min(r.pos/8, uint64(len(r.b)))
	if from+8 <= uint64(len(r.b)) {
		return binary.LittleEndian.Uint64(r.b[from:]) >> (r.pos % 8)
	}
	var v uint64
	for i, x := range r.b[from:min(from+8, uint64(len(r.b)))] {
		v |= uint64(x) << (8 * i)
	}
	return v >> (r.pos % 8)
}

// take reads n bits, n up to 64.
func (r *bitReader) take(n uint) uint64 {
	if n > 32 {
		low := r.take(32)
		return low | r.take(n-32)<<32
	}
	v := r.peek() & (1<<n - 1)
	r.pos += uint64(n)
	r.short = r.short || r.pos > 8*uint64(len(r.b))
	return v
}

// same reads bits for as long as they are ones, or zeros, and returns how many there were: limit at most.
func (r *bitReader) same(ones bool, limit uint64) (n uint64) {
	for n < limit {
		v := r.peek()
		if ones {
			v = ^v
		}
		more := min(uint64(bits.TrailingZeros64(v)), 57, limit-n)
		n, r.pos = n+more, r.pos+more
		if more < 57 {
			break
		}
	}
	return n
}

// unary reads zeros up to the first one, and that, and returns how many there were; false if there is no one.
func (r *bitReader) unary() (n uint64, ok bool) {
	left := 8*uint64(len(r.b)) - min(r.pos, 8*uint64(len(r.b)))
	n = r.same(false, left)
	return n, n < left && r.take(1) == 1
}

// done reports whether everything was read, but for the zeros that fill the last byte.
func (r *bitReader) done() bool {
	return !r.short && (r.pos+7)/8 == uint64(len(r.b)) && r.peek() == 0
}
