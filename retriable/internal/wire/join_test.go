package wire_test

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

var start = time.Unix(1795402825, 0)

// log gives records the offsets of one partition.
type log struct{ next int64 }

func (l *log) chunk(group string, count, id uint64, value string) *kgo.Record {
	r := &kgo.Record{
		Topic: "orders", Offset: l.next, Key: []byte("key"), Value: []byte(value),
		Headers:   append(headers{textHeader("user", "1")}, chunkHeaders(group, count, id)...),
		Timestamp: start,
	}
	l.next++
	return r
}

// wantKind fails the test unless the result is of a kind.
func wantKind(t *testing.T, got wire.Result, want wire.Kind) {
	t.Helper()
	if got.Kind != want {
		t.Fatalf("kind %v, want %v: %+v", got.Kind, want, got)
	}
}

func wantJoined(t *testing.T, got wire.Result, value string, offsets ...int64) {
	t.Helper()
	wantKind(t, got, wire.Joined)
	if string(got.Record.Value) != value || !slices.Equal(got.Offsets, offsets) {
		t.Errorf("joined %q of %v, want %q of %v", got.Record.Value, got.Offsets, value, offsets)
	}
}

// wantRejected checks the reason and the offsets of the parts and repeats.
func wantRejected(t *testing.T, got *wire.Rejection, reason string, parts, repeats []int64) {
	t.Helper()
	if got == nil {
		t.Fatal("not rejected")
	}
	var offsets []int64
	for _, part := range got.Parts {
		offsets = append(offsets, part.Offset)
		if _, ok, bad := wire.ParseChunk(part.Headers); !ok && !bad {
			t.Errorf("offset %d has lost its chunk headers", part.Offset)
		}
	}
	if !strings.Contains(got.Reason, reason) || !slices.Equal(offsets, parts) || !slices.Equal(got.Repeats, repeats) {
		t.Errorf("rejected %q %v %v, want %q %v %v", got.Reason, offsets, got.Repeats, reason, parts, repeats)
	}
}

func wantEmpty(t *testing.T, j *wire.Joiner) {
	t.Helper()
	if j.Open() != 0 || j.Bytes() != 0 || !j.NextDeadline().IsZero() {
		t.Errorf("%d open, %d bytes, deadline %v", j.Open(), j.Bytes(), j.NextDeadline())
	}
}

func TestJoinRecordsThatAreNoChunks(t *testing.T) {
	j := wire.NewJoiner(wire.DefaultLimits())
	r := &kgo.Record{Headers: many(2)}
	if got := j.Add(start, r); got.Kind != wire.Whole || got.Record != r {
		t.Errorf("got %+v", got)
	}
	if allocs := testing.AllocsPerRun(100, func() { j.Add(start, r) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	var l log
	got := j.Add(start, l.chunk("g", 1, 0, "alone"))
	wantKind(t, got, wire.Whole)
	if string(got.Record.Value) != "alone" {
		t.Errorf("got %q", got.Record.Value)
	}
	wantHeaders(t, got.Record.Headers, headers{textHeader("user", "1")})
	wantEmpty(t, j)
}

func TestJoinInAnyOrder(t *testing.T) {
	for _, order := range [][]uint64{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			j := wire.NewJoiner(wire.DefaultLimits())
			l := log{next: 10}
			for i, id := range order {
				part := l.chunk("g", 3, id, fmt.Sprint(id))
				// What differs between chunks is taken from the first by id.
				part.Key = fmt.Append(nil, "key", id)
				part.Headers[0] = textHeader("user", fmt.Sprint(id))
				part.Timestamp = start.Add(time.Duration(id))
				part.LeaderEpoch = int32(i)
				got := j.Add(start, part)
				if i < 2 {
					wantKind(t, got, wire.Part)
					continue
				}
				wantJoined(t, got, "012", 10, 11, 12)
				m := got.Record
				if string(m.Key) != "key0" || !m.Timestamp.Equal(start) || m.Topic != "orders" {
					t.Errorf("message %+v", m)
				}
				if m.Offset != 10 || m.LeaderEpoch != 0 {
					t.Errorf("offset %d, epoch %d: not the lowest chunk's", m.Offset, m.LeaderEpoch)
				}
				wantHeaders(t, m.Headers, headers{textHeader("user", "0")})
			}
			wantEmpty(t, j)
		})
	}
}

func TestJoinKeepsRetryHeaders(t *testing.T) {
	want := fullRetry()
	r := &kgo.Record{Topic: "orders.retry", Value: make([]byte, 5000), Headers: wire.AppendRetry(many(2), want)}
	parts, err := wire.SplitRecord(r, group, 1500)
	if err != nil {
		t.Fatal(err)
	}
	j := wire.NewJoiner(wire.DefaultLimits())
	var got wire.Result
	for _, part := range slices.Backward(parts) {
		got = j.Add(start, part)
	}
	wantKind(t, got, wire.Joined)
	if retry := wire.ParseRetry(got.Record.Headers); retry != want {
		t.Errorf("got %+v", retry)
	}
	wantHeaders(t, wire.User(got.Record.Headers), many(2))
	if got.Record.Key != nil {
		t.Errorf("key %x, want none", got.Record.Key)
	}
}

func TestJoinChunkOfAChunk(t *testing.T) {
	j := wire.NewJoiner(wire.DefaultLimits())
	var l log
	for id := range uint64(2) {
		part := l.chunk("outer", 2, id, "x")
		part.Headers = append(part.Headers, chunkHeaders("inner", 5, 3)...)
		got := j.Add(start, part)
		if id == 1 {
			wantJoined(t, got, "xx", 0, 1)
			wantHeaders(t, got.Record.Headers, headers{textHeader("user", "1")})
		}
	}
}

func TestJoinInterleavedBy100(t *testing.T) {
	limits := wire.DefaultLimits()
	limits.MaxGroups = 100
	j := wire.NewJoiner(limits)
	var l log
	for id := range uint64(3) {
		for g := range 100 {
			got := j.Add(start, l.chunk(fmt.Sprint(g), 3, id, fmt.Sprint(id)))
			if id == 2 {
				wantJoined(t, got, "012", int64(g), int64(100+g), int64(200+g))
			}
		}
	}
	wantEmpty(t, j)
}

func TestJoinNotAcrossPartitions(t *testing.T) {
	j := wire.NewJoiner(wire.DefaultLimits())
	var l log
	wantKind(t, j.Add(start, l.chunk("g", 2, 0, "a")), wire.Part)
	other := l.chunk("g", 2, 1, "b")
	other.Partition = 1
	wantKind(t, j.Add(start, other), wire.Part)
	another := l.chunk("g", 2, 1, "c")
	another.Topic = "orders.retry"
	wantKind(t, j.Add(start, another), wire.Part)
	if j.Open() != 3 {
		t.Errorf("%d open", j.Open())
	}
	j.Drop("orders", 0)
	if j.Open() != 2 {
		t.Errorf("%d open after a revoke", j.Open())
	}
	j.Drop("orders", 1)
	j.Drop("orders.retry", 0)
	j.Drop("never seen", 0)
	wantEmpty(t, j)
}

func TestJoinRepeatedChunk(t *testing.T) {
	j := wire.NewJoiner(wire.DefaultLimits())
	var l log
	wantKind(t, j.Add(start, l.chunk("g", 2, 0, "a")), wire.Part)
	wantKind(t, j.Add(start, l.chunk("g", 2, 0, "a")), wire.Part)
	wantJoined(t, j.Add(start, l.chunk("g", 2, 1, "b")), "ab", 0, 1, 2)
	wantEmpty(t, j)

	// After completion a repeat must not open a group that blocks for ever.
	wantKind(t, j.Add(start, l.chunk("g", 2, 1, "b")), wire.Repeat)
	wantKind(t, j.Add(start.Add(time.Hour), l.chunk("g", 2, 0, "a")), wire.Repeat)
	wantEmpty(t, j)

	// But nothing is thrown away that was not in the message.
	got := j.Add(start, l.chunk("g", 2, 1, "c"))
	wantRejected(t, got.Rejection, "another value", []int64{5}, nil)
	got = j.Add(start, l.chunk("g", 3, 1, "b"))
	wantRejected(t, got.Rejection, "disagree", []int64{6}, nil)

	// A new assignment knows nothing of the last one's.
	j.Drop("orders", 0)
	wantKind(t, j.Add(start, l.chunk("g", 2, 1, "b")), wire.Part)
}

func TestJoinRejects(t *testing.T) {
	limits := wire.Limits{MaxChunks: 4, MaxMessageBytes: 10, MaxBytes: 4000, MaxGroups: 2, Deadline: time.Minute}
	type step struct {
		group     string
		count, id uint64
		value     string
	}
	tests := []struct {
		name    string
		before  []step // kept
		last    step   // rejected
		reason  string
		parts   []int64
		repeats []int64
		open    int
	}{
		{"malformed", nil, step{"g", 0, 0, "a"}, "malformed", []int64{0}, nil, 0},
		{"malformed id of an open group", []step{{"g", 2, 0, "a"}}, step{"g", 2, 2, "b"}, "malformed", []int64{1}, nil, 1},
		{"too many chunks", nil, step{"g", 5, 0, "a"}, "too many chunks", []int64{0}, nil, 0},
		{"2^31 chunks", nil, step{"g", 1 << 31, 0, "a"}, "too many chunks", []int64{0}, nil, 0},
		{"2^62 chunks", nil, step{"g", 1 << 62, 0, "a"}, "too many chunks", []int64{0}, nil, 0},
		{"2^64-1 chunks", nil, step{"g", maxUint64, maxUint64 - 1, "a"}, "too many chunks", []int64{0}, nil, 0},
		{"counts that differ", []step{{"g", 3, 0, "a"}, {"g", 3, 0, "a"}}, step{"g", 2, 1, "b"}, "disagree", []int64{0, 2}, []int64{1}, 0},
		{"a count of one for an open group", []step{{"g", 3, 0, "a"}}, step{"g", 1, 0, "a"}, "disagree", []int64{0, 1}, nil, 0},
		{"other bytes", []step{{"g", 3, 0, "a"}, {"g", 3, 1, "b"}}, step{"g", 3, 0, "c"}, "another value", []int64{0, 1, 2}, nil, 0},
		{"message too large", []step{{"g", 3, 0, "12345"}}, step{"g", 3, 1, "678901"}, "too large", []int64{0, 1}, nil, 0},
		{"message too large at its last", []step{{"g", 2, 0, "12345"}}, step{"g", 2, 1, "678901"}, "too large", []int64{0, 1}, nil, 0},
		{"too many messages", []step{{"g", 2, 0, "a"}, {"h", 2, 0, "a"}}, step{"i", 2, 0, "a"}, "too many incomplete", []int64{2}, nil, 2},
		{"too much memory", []step{{"g", 4, 0, "a"}, {"g", 4, 1, "a"}, {"h", 4, 0, "a"}, {"h", 4, 1, "a"}}, step{"h", 4, 2, "a"}, "no memory", []int64{2, 3, 4}, nil, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			j := wire.NewJoiner(limits)
			var l log
			for _, s := range test.before {
				wantKind(t, j.Add(start, l.chunk(s.group, s.count, s.id, s.value)), wire.Part)
			}
			got := j.Add(start, l.chunk(test.last.group, test.last.count, test.last.id, test.last.value))
			wantKind(t, got, wire.Rejected)
			wantRejected(t, got.Rejection, test.reason, test.parts, test.repeats)
			if got.Rejection.Topic != "orders" || got.Rejection.Partition != 0 {
				t.Errorf("of %s/%d", got.Rejection.Topic, got.Rejection.Partition)
			}
			if j.Open() != test.open {
				t.Errorf("%d open, want %d", j.Open(), test.open)
			}
			if test.open == 0 {
				wantEmpty(t, j)
			}
		})
	}
}

func TestJoinRejectedGroupStaysRejected(t *testing.T) {
	limits := wire.DefaultLimits()
	j := wire.NewJoiner(limits)
	var l log
	j.Add(start, l.chunk("g", 3, 0, "a"))
	got := j.Add(start.Add(time.Minute), l.chunk("g", 3, 0, "b"))
	wantRejected(t, got.Rejection, "another value", []int64{0, 1}, nil)

	// Its other chunks do not open a group of their own, and block nothing.
	got = j.Add(start.Add(2*time.Minute), l.chunk("g", 3, 1, "c"))
	wantRejected(t, got.Rejection, "another value", []int64{2}, nil)
	wantEmpty(t, j)

	// Sent back later, they are joined.
	later := start.Add(limits.Deadline)
	wantKind(t, j.Add(later, l.chunk("g", 3, 0, "a")), wire.Part)
	wantKind(t, j.Add(later, l.chunk("g", 3, 1, "b")), wire.Part)
	wantJoined(t, j.Add(later, l.chunk("g", 3, 2, "c")), "abc", 3, 4, 5)
	wantKind(t, j.Add(later, l.chunk("g", 3, 2, "c")), wire.Repeat)
}

func TestJoinDeadline(t *testing.T) {
	limits := wire.DefaultLimits()
	j := wire.NewJoiner(limits)
	var l log
	j.Add(start, l.chunk("g", 3, 1, "a"))
	j.Add(start.Add(time.Second), l.chunk("h", 3, 0, "a"))
	// It runs from the first chunk: a drip of more does not move it.
	j.Add(start.Add(limits.Deadline-1), l.chunk("g", 3, 0, "a"))
	j.Add(start.Add(limits.Deadline-1), l.chunk("g", 3, 0, "a"))
	if got, want := j.NextDeadline(), start.Add(limits.Deadline); !got.Equal(want) {
		t.Errorf("deadline %v, want %v", got, want)
	}
	if got := j.Expire(start.Add(limits.Deadline - 1)); got != nil {
		t.Errorf("expired early: %v", got)
	}
	got := j.Expire(start.Add(limits.Deadline))
	if len(got) != 1 {
		t.Fatalf("%d expired", len(got))
	}
	wantRejected(t, got[0], "deadline", []int64{0, 2}, []int64{3})
	if got, want := j.NextDeadline(), start.Add(limits.Deadline+time.Second); !got.Equal(want) {
		t.Errorf("deadline %v, want %v", got, want)
	}
	j.Add(start, l.chunk("i", 2, 0, "a"))
	got = j.Expire(start.Add(time.Hour))
	if len(got) != 2 || got[0].Parts[0].Offset != 1 || got[1].Parts[0].Offset != 4 {
		t.Errorf("expired %v", got)
	}
	wantEmpty(t, j)
}

// A chunk that waits must not pin the batch it was fetched in.
func TestJoinKeepsCopies(t *testing.T) {
	j := wire.NewJoiner(wire.DefaultLimits())
	var l log
	parts := []*kgo.Record{l.chunk("g", 2, 1, "second"), l.chunk("g", 2, 0, "first ")}
	spoil := func(r *kgo.Record) {
		for _, b := range append([][]byte{r.Key, r.Value}, r.Headers[0].Value, r.Headers[1].Value) {
			clear(b)
		}
	}
	wantKind(t, j.Add(start, parts[0]), wire.Part)
	spoil(parts[0])
	got := j.Add(start, parts[1])
	spoil(parts[1]) // the message does not alias its last chunk either
	wantJoined(t, got, "first second", 0, 1)
	if string(got.Record.Key) != "key" {
		t.Errorf("key %q", got.Record.Key)
	}
	wantHeaders(t, got.Record.Headers, headers{textHeader("user", "1")})
}

// TestJoinAllocatesByWhatArrived: a chunk that claims 2^62 costs nothing, nor
// does a million of what is refused.
func TestJoinAllocatesByWhatArrived(t *testing.T) {
	limits := wire.DefaultLimits()
	limits.MaxChunks = 1 << 62 // even so
	j := wire.NewJoiner(limits)
	var l log
	part := l.chunk("g", 1<<62, 1<<62-1, "a")
	allocated(t, part.Headers, func() { j.Add(start, part) })
	if j.Bytes() > 2000 {
		t.Errorf("%d bytes", j.Bytes())
	}
}

func TestJoinMemoryIsBounded(t *testing.T) {
	limits := wire.Limits{MaxChunks: 1024, MaxMessageBytes: 1 << 20, MaxBytes: 1 << 20, MaxGroups: 64, Deadline: time.Hour}
	j := wire.NewJoiner(limits)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var l log
	value := strings.Repeat("x", 100)
	for i := range 50_000 {
		// Open groups that never end, repeats without end, and ends to remember.
		j.Add(start, l.chunk(fmt.Sprint(i), 1000, 0, value))
		j.Add(start, l.chunk("g", 1000, 5, value))
		j.Add(start, l.chunk(fmt.Sprint("done", i), 2, 0, value))
		j.Add(start, l.chunk(fmt.Sprint("done", i), 2, 1, value))
		if j.Bytes() > limits.MaxBytes || j.Open() > limits.MaxGroups {
			t.Fatalf("%d bytes, %d open", j.Bytes(), j.Open())
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2*limits.MaxBytes {
		t.Errorf("grew by %d bytes", grown)
	}
	runtime.KeepAlive(j)
}

// What is counted for a chunk is at least what it takes.
func TestJoinCountsWhatChunksTake(t *testing.T) {
	for name, h := range map[string]headers{"few headers": nil, "many headers": many(1000)} {
		t.Run(name, func(t *testing.T) {
			limits := wire.DefaultLimits()
			limits.MaxGroups = 1000
			j := wire.NewJoiner(limits)
			parts := make([]*kgo.Record, 1000)
			var l log
			for i := range parts {
				parts[i] = l.chunk(fmt.Sprint("group", i), 2, 0, "v")
				parts[i].Headers = append(parts[i].Headers, h...)
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for _, part := range parts {
				wantKind(t, j.Add(start, part), wire.Part)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > j.Bytes() {
				t.Errorf("%d bytes used, %d counted", used, j.Bytes())
			}
			runtime.KeepAlive(parts)
		})
	}
}

func TestJoinEmptyValues(t *testing.T) {
	j := wire.NewJoiner(wire.DefaultLimits())
	var l log
	first, second := l.chunk("g", 2, 0, ""), l.chunk("g", 2, 1, "")
	first.Value, second.Value = nil, []byte{}
	j.Add(start, first)
	got := j.Add(start, second)
	wantJoined(t, got, "", 0, 1)
	if got.Record.Value == nil {
		t.Error("joined to a tombstone")
	}
}

func TestJoinKeyMark(t *testing.T) {
	for value, want := range map[string][]byte{"null": nil, "": []byte("key"), "other": []byte("key")} {
		j := wire.NewJoiner(wire.DefaultLimits())
		var l log
		for id := range uint64(2) {
			part := l.chunk("g", 2, id, "v")
			part.Headers = append(part.Headers, textHeader(wire.KeyHeader, value), textHeader(wire.KeyHeader, "null"))
			got := j.Add(start, part)
			if id == 0 {
				continue
			}
			if key := got.Record.Key; !bytes.Equal(key, want) || (key == nil) != (want == nil) {
				t.Errorf("mark %q: key %q", value, key)
			}
			wantHeaders(t, got.Record.Headers, headers{textHeader("user", "1")})
		}
	}
}
