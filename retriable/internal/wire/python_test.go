package wire_test

import (
	"fmt"
	"testing"
)

// blob makes the body of a fixture's large message, as its description says:
//
//	json.dumps({"id": seed, "blob": "".join(random.Random(seed).choices(a-z0-9, k=k))})
func blob(seed uint32, k int) []byte {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	random := newTwister(seed)
	body := fmt.Appendf(nil, `{"id": %d, "blob": "`, seed)
	for range k {
		body = append(body, letters[int(random.float()*float64(len(letters)))])
	}
	return append(body, `"}`...)
}

func TestBlob(t *testing.T) {
	if got := sum(blob(80, 2000)); got != "fd5511db5c388aa2fa0d93e1bbd3e908c1cb6c4b26e8c0c674c74beac7260446" {
		t.Errorf("not Python's: %s", got)
	}
}

// twister is MT19937 as Python's random.Random seeds and reads it.
type twister struct {
	state [624]uint32
	next  int
}

func newTwister(seed uint32) *twister {
	const n = 624
	m := &twister{next: n}
	s := &m.state
	s[0] = 19650218
	for i := uint32(1); i < n; i++ {
		s[i] = 1812433253*(s[i-1]^s[i-1]>>30) + i
	}
	i := 1
	step := func(factor, add uint32) {
		s[i] = (s[i] ^ (s[i-1]^s[i-1]>>30)*factor) + add
		if i++; i == n {
			s[0] = s[n-1]
			i = 1
		}
	}
	for range n {
		step(1664525, seed)
	}
	for range n - 1 {
		step(1566083941, uint32(-i))
	}
	s[0] = 1 << 31
	return m
}

func (m *twister) uint32() uint32 {
	const n, half = 624, 397
	if m.next == n {
		for i := range m.state {
			y := m.state[i]&(1<<31) | m.state[(i+1)%n]&(1<<31-1)
			m.state[i] = m.state[(i+half)%n] ^ y>>1 ^ (y&1)*0x9908b0df
		}
		m.next = 0
	}
	y := m.state[m.next]
	m.next++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

func (m *twister) float() float64 {
	a, b := m.uint32()>>5, m.uint32()>>6
	return (float64(a)*(1<<26) + float64(b)) / (1 << 53)
}
