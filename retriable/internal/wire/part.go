package wire

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// chunkCost is counted for each chunk beside its bytes, and repeatCost for one
// of which only the offset is kept.
const (
	chunkCost  = 512
	headerCost = 48
	repeatCost = 32
)

// group is a message of which chunks are missing. It grows with what arrived,
// never by the count a chunk declares (I10).
type group struct {
	count    uint64
	deadline time.Time
	parts    map[uint64]*kgo.Record
	repeats  []int64
	size     int   // bytes of the values
	cost     int64 // of all that is kept
}

func (g *group) add(id uint64, r *kgo.Record) {
	g.parts[id] = r
	g.size += len(r.Value)
}

func (g *group) rejection(key groupKey, reason string) *Rejection {
	r := &Rejection{Topic: key.topic, Partition: key.partition, Reason: reason, Repeats: g.repeats}
	r.Parts = make([]*kgo.Record, 0, len(g.parts)+1)
	for _, part := range g.parts {
		r.Parts = append(r.Parts, part)
	}
	sortByOffset(r.Parts)
	return r
}

// single returns a chunk as the message it begins, without the chunk headers,
// and without the key if that only kept the chunks together.
func single(r *kgo.Record) *kgo.Record {
	message := *r
	message.Headers = unchunked(r.Headers)
	if keyMarked(r.Headers) {
		message.Key = nil
	}
	return &message
}

// clone returns a copy of r that pins nothing of the batch r was fetched in.
// Strings are copied by kgo already.
func clone(r *kgo.Record) *kgo.Record {
	n := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Value)
	}
	buf := make([]byte, 0, n)
	keep := func(v []byte) []byte {
		if v == nil {
			return nil
		}
		start := len(buf)
		buf = append(buf, v...)
		return buf[start:len(buf):len(buf)]
	}
	copied := *r
	copied.Key, copied.Value = keep(r.Key), keep(r.Value)
	copied.Headers = make([]kgo.RecordHeader, len(r.Headers))
	for i, h := range r.Headers {
		copied.Headers[i] = kgo.RecordHeader{Key: h.Key, Value: keep(h.Value)}
	}
	return &copied
}

// costOf returns what keeping a clone of r is counted.
func costOf(r *kgo.Record) int64 {
	n := chunkCost + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += headerCost + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return int64(n)
}
