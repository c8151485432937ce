package wire

import (
	"hash/maphash"
	"slices"
	"time"
)

// Of each partition the last groups that ended are remembered: so many, and of
// their chunks so many, but one in any case.
const (
	maxPast        = 64
	maxPastDigests = 2048
)

// ended is a group that was joined, with a digest of each chunk's value, or
// rejected, and why.
type ended struct {
	digests []uint64
	reason  string
	until   time.Time // of a rejected one: from then on its chunks may begin anew
}

// memory holds what ended on a partition.
type memory struct {
	groups  map[string]*ended
	order   []string // of the keys of groups, oldest first
	digests int
}

// recall returns how a group ended, or nil.
func (j *Joiner) recall(now time.Time, from source, id []byte) *ended {
	m := j.past[from]
	if m == nil {
		return nil
	}
	past := m.groups[string(id)]
	if past == nil || past.reason != "" && !now.Before(past.until) {
		return nil
	}
	return past
}

// remember keeps how a group ended, and forgets older ones for it.
func (j *Joiner) remember(key groupKey, past *ended) {
	m := j.past[key.source]
	if m == nil {
		m = &memory{groups: make(map[string]*ended)}
		j.past[key.source] = m
	}
	if m.groups[key.id] != nil {
		m.forget(slices.Index(m.order, key.id))
	}
	m.order = append(m.order, key.id)
	m.groups[key.id] = past
	m.digests += len(past.digests)
	for len(m.order) > 1 && (len(m.order) > maxPast || m.digests > maxPastDigests) {
		m.forget(0)
	}
}

// forget drops the i-th oldest.
func (m *memory) forget(i int) {
	id := m.order[i]
	m.order = slices.Delete(m.order, i, i+1)
	m.digests -= len(m.groups[id].digests)
	delete(m.groups, id)
}

// digest tells values apart. Its seed is the Joiner's own, so nobody can write
// two values that look the same.
type digest struct{ seed maphash.Seed }

func newDigest() digest { return digest{maphash.MakeSeed()} }

func (d digest) of(value []byte) uint64 { return maphash.Bytes(d.seed, value) }
