package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

func chunkHeaders(group string, count, id uint64) headers {
	return headers{
		textHeader(wire.ChunkGroupHeader, group),
		numberHeader(wire.ChunkCountHeader, count),
		numberHeader(wire.ChunkIDHeader, id),
	}
}

// TestParseChunk has a row for each way to be a chunk, to be none, and to be a
// broken or hostile one (I12).
func TestParseChunk(t *testing.T) {
	const (
		none = iota
		chunk
		bad
	)
	// with returns good chunk headers with one replaced.
	with := func(key string, value []byte) headers {
		h := chunkHeaders("group", 3, 1)
		for i := range h {
			if h[i].Key == key {
				h[i].Value = value
			}
		}
		return h
	}
	without := func(key string) headers {
		var h headers
		for _, header := range chunkHeaders("group", 3, 1) {
			if header.Key != key {
				h = append(h, header)
			}
		}
		return h
	}
	mib := make([]byte, 1<<20)
	tests := []struct {
		name string
		h    headers
		want int
	}{
		{"no headers", nil, none},
		{"the user's", many(3), none},
		{"a chunk", chunkHeaders("group", 3, 1), chunk},
		{"the only chunk", chunkHeaders("group", 1, 0), chunk},
		{"behind 10,000 headers", append(many(10_000), chunkHeaders("group", 3, 1)...), chunk},
		{"with retry headers", append(wire.AppendRetry(nil, fullRetry()), chunkHeaders("group", 3, 1)...), chunk},
		{"a chunk of a chunk", append(chunkHeaders("group", 3, 1), chunkHeaders("x", 0, 9)...), chunk},

		{"no group", without(wire.ChunkGroupHeader), none},
		{"no count", without(wire.ChunkCountHeader), none},
		{"no id", without(wire.ChunkIDHeader), none},
		{"group null", with(wire.ChunkGroupHeader, nil), none},
		{"count null", with(wire.ChunkCountHeader, nil), none},
		{"id null", with(wire.ChunkIDHeader, nil), none},
		{"id null, then another", append(with(wire.ChunkIDHeader, nil), numberHeader(wire.ChunkIDHeader, 1)), none},

		{"group empty", with(wire.ChunkGroupHeader, []byte{}), bad},
		{"group of 1 byte", with(wire.ChunkGroupHeader, mib[:1]), chunk},
		{"group of 64 bytes", with(wire.ChunkGroupHeader, mib[:64]), chunk},
		{"group of 65 bytes", with(wire.ChunkGroupHeader, mib[:65]), bad},
		{"group of 64 KiB", with(wire.ChunkGroupHeader, mib[:64<<10]), bad},
		{"group of 1 MiB", with(wire.ChunkGroupHeader, mib), bad},
		{"count of length 0", with(wire.ChunkCountHeader, []byte{}), bad},
		{"count of length 1", with(wire.ChunkCountHeader, []byte{3}), bad},
		{"count of length 7", with(wire.ChunkCountHeader, mib[:7]), bad},
		{"count of length 9", with(wire.ChunkCountHeader, mib[:9]), bad},
		{"count of 1 MiB", with(wire.ChunkCountHeader, mib), bad},
		{"count 0", with(wire.ChunkCountHeader, number(0)), bad},
		{"count 1, id past it", with(wire.ChunkCountHeader, number(1)), bad},
		{"count 2^31", with(wire.ChunkCountHeader, number(1<<31)), chunk},
		{"count 2^62", with(wire.ChunkCountHeader, number(1<<62)), chunk},
		{"count 2^64-1", with(wire.ChunkCountHeader, number(maxUint64)), chunk},
		{"id of length 0", with(wire.ChunkIDHeader, []byte{}), bad},
		{"id of length 1", with(wire.ChunkIDHeader, []byte{1}), bad},
		{"id of length 7", with(wire.ChunkIDHeader, mib[:7]), bad},
		{"id of length 9", with(wire.ChunkIDHeader, mib[:9]), bad},
		{"id in text", with(wire.ChunkIDHeader, []byte("1")), bad},
		{"id equal to the count", with(wire.ChunkIDHeader, number(3)), bad},
		{"id 2^64-1", with(wire.ChunkIDHeader, number(maxUint64)), bad},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var c wire.Chunk
			var isChunk, isBad bool
			allocated(t, test.h, func() { c, isChunk, isBad = wire.ParseChunk(test.h) })
			if isChunk != (test.want == chunk) || isBad != (test.want == bad) {
				t.Errorf("got %v %v %v", c, isChunk, isBad)
			}
			if isChunk && (len(c.Group) == 0 || c.ID >= c.Count) {
				t.Errorf("got %v", c)
			}
		})
	}
}

// encoded is r as the protocol's own encoder writes it, alone in a batch.
func encoded(r *kgo.Record) []byte {
	inner := kmsg.NewRecord()
	inner.Key, inner.Value = r.Key, r.Value
	for _, h := range r.Headers {
		inner.Headers = append(inner.Headers, kmsg.Header{Key: h.Key, Value: h.Value})
	}
	inner.Length = int32(len(inner.AppendTo(nil)) - 1) // less the length 0 itself
	batch := kmsg.NewRecordBatch()
	batch.Magic = 2
	batch.NumRecords = 1
	batch.Records = inner.AppendTo(nil)
	return batch.AppendTo(nil)
}

func TestRecordSize(t *testing.T) {
	for _, value := range []int{0, 1, 40, 55, 56, 57, 58, 63, 64, 65, 127, 128, 8191, 8192, 1 << 20, 1<<20 + 1} {
		for _, h := range []headers{nil, many(1), many(63), many(64), {header("null", nil), header("", []byte{})}} {
			for _, key := range [][]byte{nil, {}, make([]byte, 16), make([]byte, 64)} {
				r := &kgo.Record{Key: key, Value: make([]byte, value), Headers: h, Timestamp: time.UnixMilli(1795402825981)}
				if got, want := wire.RecordSize(r), len(encoded(r)); got != want {
					t.Errorf("value %d, key %d, %d headers: %d bytes, want %d", value, len(key), len(h), got, want)
				}
			}
		}
	}
	if got, want := wire.RecordSize(&kgo.Record{}), len(encoded(&kgo.Record{})); got != want {
		t.Errorf("empty record: %d bytes, want %d", got, want)
	}
}

var group = [16]byte{0: 1, 15: 16}

func TestSplitRecordLeavesAloneWhatFits(t *testing.T) {
	r := &kgo.Record{Topic: "orders", Value: make([]byte, 1000), Headers: many(2)}
	limit := wire.RecordSize(r) + 4 // which kgo counts beside
	parts, err := wire.SplitRecord(r, group, limit)
	if err != nil || len(parts) != 1 || parts[0] != r {
		t.Errorf("got %v, %v", parts, err)
	}
	parts, err = wire.SplitRecord(r, group, limit-1)
	if err != nil || len(parts) != 2 {
		t.Errorf("a byte less: %d parts, %v", len(parts), err)
	}
}

func TestSplitRecord(t *testing.T) {
	key := []byte("customer-1")
	r := &kgo.Record{
		Topic: "orders", Partition: 3, Key: key, Value: bytes.Repeat([]byte("0123456789"), 500),
		Headers:   append(headers{textHeader("user", "1"), header("null", nil)}, chunkHeaders("stale", 9, 8)...),
		Timestamp: time.UnixMilli(1795402825981),
	}
	const limit = 1000
	parts, err := wire.SplitRecord(r, group, limit)
	if err != nil {
		t.Fatal(err)
	}
	var value []byte
	for i, part := range parts {
		wantHeaders(t, part.Headers, append(headers{textHeader("user", "1"), header("null", nil)},
			chunkHeaders(string(group[:]), uint64(len(parts)), uint64(i))...))
		if part.Topic != "orders" || part.Partition != 3 || !bytes.Equal(part.Key, key) || !part.Timestamp.Equal(r.Timestamp) {
			t.Errorf("chunk %d: %+v", i, part)
		}
		size := wire.RecordSize(part) + 4
		if size > limit || i < len(parts)-1 && size < limit {
			t.Errorf("chunk %d takes %d bytes of %d", i, size, limit)
		}
		value = append(value, part.Value...)
	}
	if !bytes.Equal(value, r.Value) {
		t.Error("the chunks' values are not the record's")
	}
	// A tracing hook appends to the headers of what it is given.
	_ = append(parts[0].Headers, textHeader("trace", "0"))
	_ = append(parts[1].Headers, textHeader("trace", "1"))
	if len(r.Headers) != 5 || r.Headers[4].Key != wire.ChunkIDHeader {
		t.Error("the record's own headers were changed")
	}
}

func TestSplitRecordWithoutKey(t *testing.T) {
	r := &kgo.Record{Value: make([]byte, 5000), Headers: many(1)}
	parts, err := wire.SplitRecord(r, group, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range parts {
		// The group id, so that all chunks share a partition, and marked.
		if !bytes.Equal(part.Key, group[:]) {
			t.Errorf("chunk %d: key %x", i, part.Key)
		}
		wantHeaders(t, part.Headers[:2], append(many(1), textHeader("retriable_key", "null")))
		if wire.RecordSize(part)+4 > 1000 {
			t.Errorf("chunk %d too large", i)
		}
	}
	// A key of no bytes is a key.
	r.Key = []byte{}
	parts, err = wire.SplitRecord(r, group, 1000)
	if err != nil || parts[0].Key == nil || len(parts[0].Key) != 0 || len(parts[0].Headers) != 4 {
		t.Errorf("empty key: %v %v", parts, err)
	}
}

func TestSplitRecordRefusesWhatCannotBeRead(t *testing.T) {
	small := []byte("x")
	tests := []struct {
		name  string
		r     *kgo.Record
		limit int
		want  error
	}{
		{"headers too large", &kgo.Record{Value: small, Headers: headers{textHeader("h", strings.Repeat("x", 2000))}}, 1000, wire.ErrHeadersTooLarge},
		{"key too large", &kgo.Record{Value: small, Key: make([]byte, 1000)}, 1000, wire.ErrHeadersTooLarge},
		{"no value to split", &kgo.Record{Headers: headers{textHeader("h", strings.Repeat("x", 950))}}, 1000, wire.ErrHeadersTooLarge},
		{"limit 0", &kgo.Record{Value: small}, 0, wire.ErrHeadersTooLarge},
		{"limit negative", &kgo.Record{Value: small}, -1 << 62, wire.ErrHeadersTooLarge},
		{"more than 1,024 chunks", &kgo.Record{Value: make([]byte, 1<<20)}, 1000, wire.ErrTooManyChunks},
		{"more than 64 MiB", &kgo.Record{Value: make([]byte, 64<<20+1)}, 1 << 20, wire.ErrTooManyChunks},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			parts, err := wire.SplitRecord(test.r, group, test.limit)
			if !errors.Is(err, test.want) || parts != nil {
				t.Errorf("got %d parts, %v", len(parts), err)
			}
		})
	}
}

// TestSplitRecordAtEveryLimit crosses the borders of all length fields.
func TestSplitRecordAtEveryLimit(t *testing.T) {
	for _, n := range []int{200, 300, 8300, 20_000} {
		value := make([]byte, n)
		for i := range value {
			value[i] = byte(i * 7)
		}
		r := &kgo.Record{Topic: "t", Value: value, Headers: many(1)}
		for limit := 280; limit < n+100; limit += 1 + n/400 {
			t.Run(fmt.Sprintf("%d in %d", n, limit), func(t *testing.T) { splitAndJoin(t, r, limit) })
		}
	}
}

func splitAndJoin(t *testing.T, r *kgo.Record, limit int) {
	parts, err := wire.SplitRecord(r, group, limit)
	if err != nil {
		t.Fatal(err)
	}
	joiner := wire.NewJoiner(wire.DefaultLimits())
	for i, part := range parts {
		size := wire.RecordSize(part) + 4
		if size > limit {
			t.Fatalf("chunk %d of %d bytes", i, size)
		}
		// A varint that grows can leave a byte or two unused, no more.
		if i < len(parts)-1 && size < limit-2 {
			t.Fatalf("chunk %d of only %d bytes", i, size)
		}
		part.Offset = int64(i)
		result := joiner.Add(time.Unix(0, 0), part)
		if i < len(parts)-1 {
			continue
		}
		if !bytes.Equal(result.Record.Value, r.Value) || !bytes.Equal(result.Record.Key, r.Key) {
			t.Fatalf("joined: %v", result.Kind)
		}
		wantHeaders(t, result.Record.Headers, r.Headers)
	}
}
