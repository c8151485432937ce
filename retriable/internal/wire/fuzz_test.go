package wire_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// names are the keys that a fuzzed header may have: each of ours, and others.
var names = []string{
	wire.AttemptHeader, wire.TimestampHeader, wire.ChunkGroupHeader, wire.ChunkCountHeader, wire.ChunkIDHeader,
	wire.DueHeader, wire.GroupHeader, wire.TopicHeader, wire.PartitionHeader, wire.OffsetHeader,
	wire.TimeHeader, wire.FirstFailureHeader, wire.ErrorHeader, wire.KeyHeader,
	wire.LetterTopicHeader, wire.LetterPartitionHeader, wire.LetterOffsetHeader, wire.LetterGroupHeader,
	wire.LetterDeliveriesHeader, wire.LetterMessageHeader,
	"user", "", "retriable_kafka_new", "__dlq.errors.new",
}

// pack and unpack turn headers into a fuzzer's bytes and back: the name's
// number, the value's length, 255 for a null, and the value.
func pack(h headers) []byte {
	var b []byte
	for _, header := range h {
		name := max(slices.Index(names, header.Key), 0)
		if header.Value == nil {
			b = append(b, byte(name), 255)
			continue
		}
		value := header.Value[:min(len(header.Value), 254)]
		b = append(append(b, byte(name), byte(len(value))), value...)
	}
	return b
}

func unpack(b []byte) headers {
	var h headers
	for len(b) >= 2 {
		key, length := names[int(b[0])%len(names)], int(b[1])
		if b = b[2:]; length == 255 {
			h = append(h, header(key, nil))
			continue
		}
		length = min(length, len(b))
		h = append(h, header(key, b[:length:length]))
		b = b[length:]
	}
	return h
}

func FuzzParseRetry(f *testing.F) {
	f.Add([]byte{})
	f.Add(pack(wire.AppendRetry(many(2), fullRetry())))
	f.Add(pack(wire.AppendRetry(nil, unknownRetry())))
	f.Add(pack(wire.AppendDue(nil, 1795402836001)))
	f.Add(pack(wire.AppendDeadLetter(many(1), fullLetter())))
	f.Add(pack(append(chunkHeaders("g", 3, 1), wire.AppendRetry(nil, fullRetry())...)))
	f.Add(pack(headers{numberHeader(wire.AttemptHeader, maxUint64), numberHeader(wire.TimestampHeader, maxUint64)}))
	f.Add(pack(headers{textHeader(wire.DueHeader, "9223372036854775808"), header(wire.AttemptHeader, nil)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h := unpack(b)
		before := slices.Clone(h)
		r := wire.ParseRetry(h)
		checkRetry(t, r)
		user := wire.User(h)
		for _, header := range user {
			if wire.Ours(header.Key) {
				t.Errorf("%q is left", header.Key)
			}
		}

		// What was understood is written, and read again, as it is.
		again := wire.AppendRetry(user, r)
		r.Bad = 0
		if got := wire.ParseRetry(again); got != r {
			t.Errorf("\nread again %+v\nwant       %+v", got, r)
		}
		wantHeaders(t, wire.User(again), user)

		letter := wire.ParseDeadLetter(h)
		again = wire.AppendDeadLetter(wire.Bare(h), letter)
		letter.Bad = 0
		if got := wire.ParseDeadLetter(again); got != letter && letter.Topic != "" {
			t.Errorf("\nletter again %+v\nwant         %+v", got, letter)
		}
		wantHeaders(t, h, before)
	})
}

func checkRetry(t *testing.T, r wire.Retry) {
	t.Helper()
	switch {
	case r.Attempt < 1, r.Due < 0, r.Due > wire.MaxTime, r.FirstFailure < 0, r.FirstFailure > wire.MaxTime:
		t.Errorf("out of bounds: %+v", r)
	case len(r.Error) > 1024, !utf8.ValidString(r.Error), !utf8.ValidString(r.Group), len(r.Topic) > 249:
		t.Errorf("bad text: %+v", r)
	case !r.Known() && (r.Topic != "" || r.Partition != -1 || r.Offset != -1):
		t.Errorf("half an origin: %+v", r)
	}
}

func FuzzParseDue(f *testing.F) {
	f.Add([]byte{})
	f.Add(pack(wire.AppendDue(many(2), 1795402836001)))
	f.Add(pack(headers{numberHeader(wire.TimestampHeader, maxUint64)}))
	f.Add(pack(headers{textHeader(wire.DueHeader, "99999999999999999999"), header(wire.TimestampHeader, nil)}))
	f.Add(pack(headers{textHeader(wire.DueHeader, "-1"), textHeader(wire.TimestampHeader, "1700000000")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h := unpack(b)
		ms, ok, bad := wire.ParseDue(h)
		if ms < 0 || ms > wire.MaxTime || bad < 0 || bad > 2 || !ok && ms != 0 {
			t.Errorf("due %d, %v, %d bad", ms, ok, bad)
		}
		if got := wire.ParseRetry(h); got.Due != ms {
			t.Errorf("due %d, on a retry topic %d", ms, got.Due)
		}
		bare := wire.Undue(h)
		if _, left, _ := wire.ParseDue(bare); left {
			t.Error("still due")
		}
		if ok && ms > 0 {
			if again, ok, bad := wire.ParseDue(wire.AppendDue(bare, ms)); again != ms || !ok || bad != 0 {
				t.Errorf("read again %d, want %d", again, ms)
			}
		}
	})
}

func FuzzParseDeadLetter(f *testing.F) {
	f.Add([]byte{})
	f.Add(pack(wire.AppendDeadLetter(many(2), fullLetter())))
	f.Add(pack(append(chunkHeaders("g", 3, 1), wire.AppendDeadLetter(nil, fullLetter())...)))
	f.Add(pack(headers{textHeader(wire.LetterOffsetHeader, "9223372036854775807"), textHeader(wire.LetterDeliveriesHeader, "4294967296")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h := unpack(b)
		d := wire.ParseDeadLetter(h)
		switch {
		case d.Deliveries < 0, d.Partition < -1, d.Offset < -1, d.FirstFailure < 0, d.FirstFailure > wire.MaxTime:
			t.Errorf("out of bounds: %+v", d)
		case len(d.Message) > 1024, len(d.Error) > 1024, !utf8.ValidString(d.Message), !utf8.ValidString(d.Error):
			t.Errorf("bad text: %+v", d)
		}
		// A chunk that is sent back stays one.
		before, _, _ := wire.ParseChunk(h)
		after, _, _ := wire.ParseChunk(wire.BarePart(h))
		if !bytes.Equal(before.Group, after.Group) || before.Count != after.Count || before.ID != after.ID {
			t.Errorf("chunk %+v, then %+v", before, after)
		}
	})
}

func FuzzParseChunk(f *testing.F) {
	f.Add(pack(chunkHeaders("group", 3, 1)))
	f.Add(pack(chunkHeaders("", 3, 1)))
	f.Add(pack(chunkHeaders("group", maxUint64, maxUint64-1)))
	f.Add(pack(append(chunkHeaders("group", 3, 1), chunkHeaders("x", 0, 0)...)))
	f.Add(pack(headers{header(wire.ChunkGroupHeader, nil)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h := unpack(b)
		c, ok, bad := wire.ParseChunk(h)
		if ok && bad {
			t.Error("both a chunk and none")
		}
		if ok && (len(c.Group) == 0 || len(c.Group) > 64 || c.ID >= c.Count) {
			t.Errorf("got %+v", c)
		}
		if _, chunk, malformed := wire.ParseChunk(wire.User(h)); chunk || malformed {
			t.Error("still a chunk for the handler")
		}
	})
}

// FuzzJoin feeds a Joiner with chunks and lets time pass: whatever comes, its
// limits hold, and every offset comes out exactly once (I1).
func FuzzJoin(f *testing.F) {
	f.Add([]byte{0, 2, 0, 'a', 0, 2, 1, 'b'})
	f.Add([]byte{0, 2, 0, 'a', 0, 2, 0, 'a', 0, 2, 1, 'b', 0, 2, 1, 'b', 0, 2, 1, 'c'})
	f.Add([]byte{0, 3, 0, 'a', 0, 2, 1, 'b', 0, 3, 2, 'c'})
	f.Add([]byte{1, 1, 0, 'a', 1, 0, 0, 'a', 1, 9, 0, 'a', 1, 3, 7, 'a'})
	f.Add([]byte{0, 3, 0, 'a', 1, 3, 0, 'a', 2, 3, 0, 'a', 3, 3, 0, 'a', 0xf0, 200, 0, 0, 0, 3, 1, 'b'})
	f.Add([]byte{0, 2, 0, 'a', 0xf1, 0, 0, 0, 0, 2, 1, 'b'})
	f.Add([]byte{0, 3, 0, 'a', 1, 2, 0, 'x', 0, 3, 1, 'b', 0xf2, 1, 0, 0, 0, 3, 1, 'b', 0, 3, 2, 'c'})
	f.Fuzz(func(t *testing.T, b []byte) {
		limits := wire.Limits{MaxChunks: 5, MaxMessageBytes: 12, MaxBytes: 6000, MaxGroups: 3, Deadline: time.Minute}
		m := joinModel{t: t, j: wire.NewJoiner(limits), now: start, out: map[int64]int{}}
		for ; len(b) >= 4; b = b[4:] {
			m.step(b[0], b[1], b[2], b[3])
			if m.j.Open() > limits.MaxGroups || m.j.Bytes() > limits.MaxBytes {
				t.Fatalf("%d open, %d bytes", m.j.Open(), m.j.Bytes())
			}
		}
		for _, rejection := range m.j.Expire(m.now.Add(limits.Deadline)) {
			m.rejected(rejection)
		}
		wantEmpty(t, m.j)
		for offset := range m.l.next {
			if m.out[offset] != 1 && !m.dropped[offset] {
				t.Errorf("offset %d came out %d times", offset, m.out[offset])
			}
		}
	})
}

type joinModel struct {
	t       *testing.T
	j       *wire.Joiner
	l       log
	now     time.Time
	out     map[int64]int  // how often an offset came out
	dropped map[int64]bool // offsets that were in when the partition went
}

func (m *joinModel) step(group, count, id, value byte) {
	switch group {
	case 0xf0:
		m.now = m.now.Add(time.Duration(count) * time.Second)
		for _, rejection := range m.j.Expire(m.now) {
			m.rejected(rejection)
		}
	case 0xf2: // the log is cut: what lies above comes no more
		offset := int64(count) % (m.l.next + 1)
		m.j.Cut("orders", 0, offset)
		if m.dropped == nil {
			m.dropped = map[int64]bool{}
		}
		for at := offset; at < m.l.next; at++ {
			m.dropped[at] = m.out[at] <= 1
		}
	case 0xf1:
		m.j.Drop("orders", 0)
		m.dropped = map[int64]bool{}
		for offset := range m.l.next {
			m.dropped[offset] = m.out[offset] <= 1
		}
	default:
		body := string(bytes.Repeat([]byte{value}, 1+int(value)%4))
		m.add(m.l.chunk(string([]byte{group % 6}), uint64(count), uint64(id), body))
	}
}

func (m *joinModel) add(r *kgo.Record) {
	got := m.j.Add(m.now, r)
	switch got.Kind {
	case wire.Part:
		return
	case wire.Joined:
		for _, offset := range got.Offsets {
			m.out[offset]++
		}
		if got.Record.Offset > got.Offsets[len(got.Offsets)-1] || len(got.Record.Value) > 12 {
			m.t.Errorf("joined %+v", got.Record)
		}
	case wire.Rejected:
		m.rejected(got.Rejection)
	case wire.Whole, wire.Repeat:
		m.out[r.Offset]++
	}
}

func (m *joinModel) rejected(r *wire.Rejection) {
	for _, part := range r.Parts {
		m.out[part.Offset]++
	}
	for _, offset := range r.Repeats {
		m.out[offset]++
	}
}

// FuzzSplit checks that what is split can be joined, whatever the sizes.
func FuzzSplit(f *testing.F) {
	f.Add([]byte("value"), []byte("key"), []byte{}, uint16(300))
	f.Add(bytes.Repeat([]byte("x"), 5000), []byte(nil), pack(wire.AppendRetry(many(3), fullRetry())), uint16(900))
	f.Add(binary.BigEndian.AppendUint64(nil, maxUint64), []byte{}, pack(chunkHeaders("g", 3, 1)), uint16(0))
	f.Fuzz(func(t *testing.T, value, key, packed []byte, limit uint16) {
		r := &kgo.Record{Topic: "t", Key: key, Value: value, Headers: unpack(packed)}
		parts, err := wire.SplitRecord(r, group, int(limit))
		if err != nil || len(parts) == 1 {
			return
		}
		j := wire.NewJoiner(wire.DefaultLimits())
		var got wire.Result
		for i, part := range slices.Backward(parts) {
			if size := wire.RecordSize(part); size+4 > int(limit) {
				t.Fatalf("chunk %d has %d bytes, more than %d", i, size, limit)
			}
			got = j.Add(start, part)
		}
		wantKind(t, got, wire.Joined)
		m := got.Record
		if !bytes.Equal(m.Value, value) || !bytes.Equal(m.Key, key) || (m.Key == nil) != (key == nil) {
			t.Error("another message")
		}
		wantHeaders(t, wire.User(m.Headers), wire.User(r.Headers))
		if got, want := wire.ParseRetry(m.Headers), wire.ParseRetry(r.Headers); got != want {
			t.Errorf("retry %+v, want %+v", got, want)
		}
	})
}
