package watermark

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math"
	"runtime"
	"strings"
	"testing"
)

// samples are one map for each way to write it, beside base 1000.
func samples() map[string]*Map {
	return map[string]*Map{
		"none":   {Epoch: 3, Clean: true, Notes: []byte("note")},
		"bitset": full(atRandom(1, 1000, 200, 100)),
		"gaps":   full(atRandom(1, 1000, 2_000, 40)),
		"runs":   full(inBursts(1, 1000, 4_000, 200, 20)),
	}
}

// forge makes a text with the right magic and checksum of whatever else it is given.
func forge(base int64, parts ...any) string {
	raw := append([]byte(mapMagic), 0, 0, 0, 0)
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			raw = append(raw, byte(p))
		case uint64:
			raw = binary.AppendUvarint(raw, p)
		case []byte:
			raw = append(raw, p...)
		}
	}
	binary.BigEndian.PutUint32(raw[len(mapMagic):], mapSum(raw, base))
	return mapText.EncodeToString(raw)
}

func wantNoMap(t *testing.T, text string, base, end int64) {
	t.Helper()
	m, ok := DecodeMap(text, base, end)
	if ok || m.Done != nil || m.Notes != nil {
		t.Errorf("%.80q is a map: %+v", text, m)
	}
}

func TestMapOfForeignText(t *testing.T) {
	const base = 1000
	b64 := base64.StdEncoding.EncodeToString
	own, _ := samples()["gaps"].Encode(base, MaxMetadata)
	for _, c := range []struct{ name, text string }{
		{"empty", ""},
		{"a space", " "},
		{"spaces", strings.Repeat(" ", 64)},
		{"kgo's member id", "kgo-4f4c5b0e-95b1-4b56-8e5e-4a4b7d0a9f10"},
		{"a Java member id", "consumer-orders-1-0c4e5e8e-5c3b-4f4e-9b6e-1f3f7a3f2b11"},
		{"a Python member id", "aiokafka-0.12.0-7b5a2f0e-9a54-4f3f-8a53-7b6a0f5d7c0d"},
		{"sarama's", "sarama"},
		{"Kafka Streams, version 1", b64([]byte{1, 0, 0, 1, 0x8f, 0, 0, 0, 0})},
		{"Kafka Streams, version 2", b64(append([]byte{2, 0, 0, 1, 0x8f, 0, 0, 0, 0}, make([]byte, 12)...))},
		{"a parallel consumer's bit set", b64([]byte{'o', 0, 0, 0, 64, 1, 2, 3, 4, 5, 6, 7, 8})},
		{"a parallel consumer's runs", b64([]byte{'e', 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff})},
		{"a parallel consumer's zstd", b64([]byte{'p', 0x28, 0xb5, 0x2f, 0xfd, 4, 0, 0, 0, 0, 0, 0, 0, 0})},
		{"JSON", `{"offsets":[1,2,3]}`},
		{"not ASCII", "rtm1\u00e4\u00f6\u00fc\U0001f980"},
		{"zeros", strings.Repeat("\x00", 64)},
		{"not UTF-8", "rtm1\xff\xfe\xfd"},
		{"magic alone", "rtm1"},
		{"magic and foreign text", "rtm1 kgo-4f4c5b0e"},
		{"padded", own + "="},
		{"padded twice", own + "=="},
		{"a space behind", own + " "},
		{"a space in front", " " + own},
		{"a line end behind", own + "\n"},
		{"a line end inside", own[:9] + "\r\n" + own[9:]},
		{"one more character", own + "A"},
		{"four more characters", own + "AAAA"},
		{"twice", own + own},
		{"another alphabet", strings.NewReplacer("+", "-", "/", "_").Replace(plusAndSlash(t))},
		{"other version", "rtm2" + own[4:]},
		{"lower version", "rtm0" + own[4:]},
		{"too long", forge(base, methodBitset, uint64(1), uint64(8*MaxMetadata), bytes.Repeat([]byte{0xff}, MaxMetadata))},
	} {
		t.Run(c.name, func(t *testing.T) { wantNoMap(t, c.text, base, -1) })
	}
}

// plusAndSlash returns a map's text that has either character.
func plusAndSlash(t *testing.T) string {
	for seed := range uint64(50) {
		text, _ := full(atRandom(seed, 1000, 900, 450)).Encode(1000, MaxMetadata)
		if strings.ContainsAny(text, "+") && strings.ContainsAny(text, "/") {
			return text
		}
	}
	t.Fatal("no text has both + and /")
	return ""
}

// TestMapForged has the right checksum throughout: what is left is that the text is not as Encode writes it.
func TestMapForged(t *testing.T) {
	const base, top = int64(1000), uint64(math.MaxInt64)
	ones, zeros := []byte{0xff, 0xff, 0xff, 0xff}, []byte{0, 0, 0, 0}
	rice := func(k int) int { return 2 * k }
	for _, c := range []struct {
		name  string
		end   int64
		parts []any
	}{
		{"no flags", -1, nil},
		{"unknown flag", -1, []any{0x40}},
		{"another unknown flag", -1, []any{0x80}},
		{"something behind nothing", -1, []any{methodNone, 0}},
		{"topic 0", -1, []any{flagTopic, zeros}},
		{"no topic", -1, []any{flagTopic}},
		{"half a topic", -1, []any{flagTopic, 1, 2, 3}},
		{"no epoch", -1, []any{flagEpoch}},
		{"an epoch without end", -1, []any{flagEpoch, 0x80}},
		{"an epoch longer than need be", -1, []any{flagEpoch, 0x81, 0}},
		{"an epoch above 2^31-1", -1, []any{flagEpoch, uint64(1 << 31)}},
		{"an epoch above 2^64-1", -1, []any{flagEpoch, ones, ones, ones}},
		{"no length of notes", -1, []any{flagNotes}},
		{"empty notes", -1, []any{flagNotes, 0}},
		{"notes of 46", -1, []any{flagNotes, 46, make([]byte, 46)}},
		{"notes of 255", -1, []any{flagNotes, 255, make([]byte, 255)}},
		{"notes cut short", -1, []any{flagNotes, 3, 1, 2}},
		{"no skip", -1, []any{methodBitset}},
		{"no span", -1, []any{methodBitset, uint64(1)}},
		{"span 0", -1, []any{methodBitset, uint64(1), uint64(0)}},
		{"a skip longer than need be", -1, []any{methodBitset, 0x81, 0, uint64(1), 1}},
		{"a skip beyond the last offset", -1, []any{methodBitset, top, uint64(1), 1}},
		{"a span beyond the last offset", -1, []any{methodGaps, uint64(1), top - 1000, rice(61), 1}},
		{"a skip beyond the end", 1001, []any{methodBitset, uint64(2), uint64(1), 1}},
		{"a claim at the end", 1001, []any{methodBitset, uint64(1), uint64(1), 1}},
		{"a claim beyond the end", 1002, []any{methodBitset, uint64(1), uint64(2), 3}},
		{"an end at the base", 1000, []any{methodBitset, uint64(0), uint64(1), 1}},
		{"an end below the base", 10, []any{methodBitset, uint64(0), uint64(1), 1}},
		{"no bits", -1, []any{methodBitset, uint64(1), uint64(3)}},
		{"too few bits", -1, []any{methodBitset, uint64(1), uint64(9), 0xff}},
		{"too many bytes", -1, []any{methodBitset, uint64(1), uint64(8), 0xff, 0}},
		{"bits behind the last", -1, []any{methodBitset, uint64(1), uint64(7), 0xff}},
		{"an undone first bit", -1, []any{methodBitset, uint64(1), uint64(8), 0xfe}},
		{"an undone last bit", -1, []any{methodBitset, uint64(1), uint64(8), 0x7f}},
		{"all bits undone", -1, []any{methodBitset, uint64(1), uint64(8), 0}},
		{"2^31-1 bits", -1, []any{methodBitset, uint64(1), uint64(math.MaxInt32), ones}},
		{"2^62 bits", -1, []any{methodBitset, uint64(1), uint64(1 << 62), ones}},
		{"no code of gaps", -1, []any{methodGaps, uint64(1), uint64(3)}},
		{"an unknown code", -1, []any{methodGaps, uint64(1), uint64(3), int(maxCode) + 1, ones}},
		{"an unknown code of 3", -1, []any{methodGaps, uint64(1), uint64(3), rice(62), 0b111, zeros, 0, 0, 0}},
		{"code 255", -1, []any{methodGaps, uint64(1), uint64(3), 255, ones}},
		{"no gaps", -1, []any{methodGaps, uint64(1), uint64(3), 0}},
		{"a first gap of nothing", -1, []any{methodGaps, uint64(1), uint64(2), 0, 0b101}},
		{"a last gap of nothing", -1, []any{methodGaps, uint64(1), uint64(2), 0, 0b110}},
		{"a gap beyond the span", -1, []any{methodGaps, uint64(1), uint64(3), 0, 0b10000}},
		{"a gap without end", -1, []any{methodGaps, uint64(1), uint64(1 << 62), 0, zeros}},
		{"a gap of 2^62 cut short", -1, []any{methodGaps, uint64(1), uint64(1 << 62), rice(61), 0b100}},
		{"a gap of 2^62 beyond the end", 1 << 62, []any{methodGaps, uint64(1), uint64(1 << 62), rice(61), 0b100, zeros, zeros}},
		{"gaps that overflow", -1, []any{methodGaps, uint64(1), uint64(1 << 40), rice(61), zeros, ones, ones}},
		{"thirds that overflow", -1, []any{methodGaps, uint64(1), uint64(1 << 40), rice(61) + 1, zeros, ones, ones}},
		{"a gap of 2^64+1 in a span of 1", -1, []any{methodGaps, uint64(1), uint64(1), rice(61), 0, 0b11, zeros, 0, 0, 0}},
		{"thirds of 2^64+1 in a span of 1", -1, []any{methodGaps, uint64(1), uint64(1), rice(61) + 1, 0, 0b101, zeros, 0, 0, 0}},
		{"thirds of 9·2^61, in 64 bits 2^61", -1, []any{methodGaps, uint64(1), uint64(3<<61 + 1), rice(61) + 1, 0b1000, zeros, 0, 0, 0, 0b11100, zeros, zeros}},
		{"bits behind the last gap", -1, []any{methodGaps, uint64(1), uint64(1), 0, 0b110}},
		{"a byte behind the last gap", -1, []any{methodGaps, uint64(1), uint64(1), 0, 0b10, 0}},
		{"one code of runs", -1, []any{methodRuns, uint64(1), uint64(1), 0}},
		{"no runs", -1, []any{methodRuns, uint64(1), uint64(1), 0, 0}},
		{"a run beyond the span", -1, []any{methodRuns, uint64(1), uint64(1), 0, 0, 0b10}},
		{"an undone run at the end", -1, []any{methodRuns, uint64(1), uint64(2), 0, 0, 0b11}},
		{"a run behind an undone one at the end", -1, []any{methodRuns, uint64(1), uint64(2), 0, 0, 0b111}},
		{"a run of 2^64 behind that", -1, []any{methodRuns, uint64(1), uint64(2), rice(61), 0, 1, zeros, 0, 0, 0x40, 0xc0, ones, 0xff, 0xff, 0xff, 0x0f}},
		{"an undone run beyond the span", -1, []any{methodRuns, uint64(1), uint64(3), 0, 0, 0b100001}},
		{"a run of 2^31-1 in a span of 9", -1, []any{methodRuns, uint64(1), uint64(9), rice(31), 0, 0xff, ones}},
		{"a run of 2^62 in a span of 9", -1, []any{methodRuns, uint64(1), uint64(9), rice(61), 0, 0b100, zeros, zeros}},
		{"a run of 2^31-1 beyond the end", 5000, []any{methodRuns, uint64(1), uint64(math.MaxInt32), rice(31), 0, 0xff, ones}},
		{"runs cut short", -1, []any{methodRuns, uint64(1), uint64(1 << 20), 0, 0, ones}},
		{"bits behind the last run", -1, []any{methodRuns, uint64(1), uint64(1), 0, 0, 0b11}},
	} {
		t.Run(c.name, func(t *testing.T) { wantNoMap(t, forge(base, c.parts...), base, c.end) })
	}
}

// TestMapForgedWell shows that forge makes maps, so that the rows above fail for what they say.
func TestMapForgedWell(t *testing.T) {
	const base = 1000
	for _, c := range []struct {
		parts []any
		want  []Run
	}{
		{[]any{0}, nil},
		{[]any{methodBitset, uint64(1), uint64(8), 0x81}, []Run{{1001, 1002}, {1008, 1009}}},
		{[]any{methodGaps, uint64(1), uint64(3), 0, 0b1010}, []Run{{1001, 1002}, {1003, 1004}}},
		{[]any{methodRuns, uint64(1), uint64(3), 0, 0, 0b111}, []Run{{1001, 1002}, {1003, 1004}}},
	} {
		end := int64(base)
		if n := len(c.want); n > 0 {
			end = c.want[n-1].To
		}
		for _, end := range []int64{end, -1, math.MaxInt64} {
			m, ok := DecodeMap(forge(base, c.parts...), base, end)
			if want := (Map{Epoch: -1, Done: c.want}); !ok || !same(&m, &want) {
				t.Errorf("%v decodes as %v, %v", c.parts, m.Done, ok)
			}
		}
	}
}

func TestMapTruncated(t *testing.T) {
	for name, m := range samples() {
		text, _ := m.Encode(1000, MaxMetadata)
		for n := range len(text) {
			if _, ok := DecodeMap(text[:n], 1000, -1); ok {
				t.Errorf("%s: %d of %d characters are a map", name, n, len(text))
			}
		}
	}
}

// TestMapWithAFlippedBit flips each bit of the text, and of the bytes in it.
func TestMapWithAFlippedBit(t *testing.T) {
	for name, m := range samples() {
		text, _ := m.Encode(1000, MaxMetadata)
		for i := range 8 * len(text) {
			b := []byte(text)
			b[i/8] ^= 1 << (i % 8)
			if _, ok := DecodeMap(string(b), 1000, -1); ok {
				t.Errorf("%s: still a map with bit %d of the text flipped", name, i)
			}
		}
		raw, _ := openMap(text, 1000)
		for i := range 8 * len(raw) {
			raw[i/8] ^= 1 << (i % 8)
			if _, ok := DecodeMap(mapText.EncodeToString(raw), 1000, -1); ok {
				t.Errorf("%s: still a map with bit %d flipped", name, i)
			}
			raw[i/8] ^= 1 << (i % 8)
		}
	}
}

func TestMapBesideAnotherBase(t *testing.T) {
	for name, m := range samples() {
		text, _ := m.Encode(1000, MaxMetadata)
		for _, base := range []int64{math.MinInt64, -1000, -1, 0, 999, 1001, 1 << 32, math.MaxInt64} {
			if _, ok := DecodeMap(text, base, -1); ok {
				t.Errorf("%s: still a map beside %d", name, base)
			}
		}
	}
}

func TestMapBeyondTheEnd(t *testing.T) {
	for name, m := range samples() {
		text, _ := m.Encode(1000, MaxMetadata)
		if len(m.Done) == 0 {
			continue
		}
		end := m.Done[len(m.Done)-1].To
		for _, c := range []struct {
			end int64
			ok  bool
		}{{-1, true}, {math.MinInt64, true}, {end, true}, {end + 1, true}, {end - 1, false}, {1000, false}, {0, false}} {
			if _, ok := DecodeMap(text, 1000, c.end); ok != c.ok {
				t.Errorf("%s, end %d: %v", name, c.end, ok)
			}
		}
	}
}

// TestMapForgedIsCheap takes texts that name large numbers, and the most runs that there is room for: 24,000 bits of them.
func TestMapForgedIsCheap(t *testing.T) {
	body := make([]byte, 3000)
	for i := range body {
		body[i] = 0x55
	}
	huge := uint64(1 << 62)
	for name, text := range map[string]string{
		"bitset":          forge(1, methodBitset, uint64(1), uint64(24_000-1), body),
		"a huge bitset":   forge(1, methodBitset, uint64(1), huge, body),
		"gaps":            forge(1, methodGaps, uint64(1), huge, 0, body),
		"gaps of nothing": forge(1, methodGaps, uint64(1), huge, 0, 2, make([]byte, 2990)),
		"runs":            forge(1, methodRuns, uint64(1), huge, 0, 0, body),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		DecodeMap(text, 1, -1)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 2<<20 {
			t.Errorf("%s: %d bytes are allocated", name, got)
		}
	}
}
