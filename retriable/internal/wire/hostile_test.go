package wire_test

import (
	"bytes"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// Whatever a record's headers are, reading all of it takes at most 64 KiB and 4 times what the headers have (I10, I12).
func TestReadingHostileHeadersTakesLittleMemory(t *testing.T) {
	large := bytes.Repeat([]byte{0xff}, 1<<20)
	thousands := func(key string, value []byte) (h headers) {
		for range 10_000 {
			h = append(h, header(key, value))
		}
		return h
	}
	for name, h := range map[string]headers{
		"2^62 chunks":          chunkHeaders("g", 1<<62, 1<<62-1),
		"a large group":        {header(wire.ChunkGroupHeader, large), numberHeader(wire.ChunkCountHeader, 2), numberHeader(wire.ChunkIDHeader, 0)},
		"large numbers":        {header(wire.AttemptHeader, large), header(wire.TimestampHeader, large), header(wire.ChunkCountHeader, large)},
		"large texts":          {header(wire.ErrorHeader, large), header(wire.GroupHeader, large), header(wire.TopicHeader, large), header(wire.LetterMessageHeader, large)},
		"digits":               {header(wire.DueHeader, bytes.Repeat([]byte("9"), 1<<20)), header(wire.OffsetHeader, bytes.Repeat([]byte("9"), 1<<20))},
		"many of ours":         thousands(wire.ErrorHeader, []byte("x")),
		"many chunk headers":   thousands(wire.ChunkGroupHeader, []byte("x")),
		"many of the user":     thousands("user", []byte("x")),
		"many of no known use": thousands("retriable_kafka_new", nil),
	} {
		t.Run(name, func(t *testing.T) {
			allocated(t, h, func() {
				wire.ParseRetry(h)
			})
			allocated(t, h, func() { wire.ParseDeadLetter(h) })
			allocated(t, h, func() { wire.ParseDue(h) })
			allocated(t, h, func() { _, _, _ = wire.ParseChunk(h) })
			allocated(t, h, func() { wire.Chunked(h) })
		})
	}
}

// Ten thousand chunks that each claim 2^62 parts of a message of their own: the limits hold, and nothing is made of the claim.
func TestAChunkThatClaims2To62PartsCostsNothing(t *testing.T) {
	j := wire.NewJoiner(wire.DefaultLimits())
	records := make([]*kgo.Record, 10_000)
	for i := range records {
		records[i] = &kgo.Record{Topic: "t", Offset: int64(i), Headers: chunkHeaders(strconv.Itoa(i), 1<<62, uint64(i))}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, r := range records {
		if got := j.Add(start, r); got.Kind != wire.Rejected {
			t.Fatalf("%+v", got)
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / uint64(len(records)); n > 1024 {
		t.Errorf("%d bytes for each", n)
	}
	wantEmpty(t, j)
}

func TestWhatIsCutFromTheLogIsForgotten(t *testing.T) {
	var l log
	j := wire.NewJoiner(wire.DefaultLimits())
	add := func(r *kgo.Record) wire.Result { return j.Add(start, r) }
	wantKind(t, add(l.chunk("below", 3, 0, "a")), wire.Part)
	wantKind(t, add(l.chunk("below", 3, 1, "b")), wire.Part)
	wantKind(t, add(l.chunk("above", 2, 0, "x")), wire.Part)
	wantKind(t, add(l.chunk("done", 2, 0, "1")), wire.Part)
	wantKind(t, add(l.chunk("done", 2, 1, "2")), wire.Joined)
	j.Cut("orders", 0, 1)
	if j.Open() != 1 {
		t.Errorf("%d are open, want that which began below", j.Open())
	}
	l.next = 1
	wantKind(t, add(l.chunk("done", 2, 0, "1")), wire.Part) // other records at old offsets, though they say the same
	wantKind(t, add(l.chunk("done", 2, 1, "2")), wire.Joined)
	wantKind(t, add(l.chunk("below", 3, 2, "c")), wire.Part)
	got := add(l.chunk("below", 3, 1, "B"))
	wantKind(t, got, wire.Joined)
	if string(got.Record.Value) != "aBc" || got.Record.Offset != 0 {
		t.Errorf("joined %q at %d", got.Record.Value, got.Record.Offset)
	}
	if wantEmpty(t, j); len(j.Expire(start.Add(time.Hour))) != 0 {
		t.Error("something was left")
	}
}
