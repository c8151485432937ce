package watermark

import (
	"strings"
	"testing"
)

// FuzzDecodeMap feeds any text, which is almost never a map; and the same bytes with magic and checksum put right, which
// often gets to the runs. What is a map must keep every promise and have the form that its method would give it.
func FuzzDecodeMap(f *testing.F) {
	for _, m := range samples() {
		text, _ := m.Encode(1000, MaxMetadata)
		f.Add(text, int64(1000), int64(-1))
		f.Add(text, int64(1000), int64(1100))
		f.Add(text, int64(999), int64(-1))
		f.Add(text[:len(text)/2], int64(1000), int64(-1))
		f.Add(strings.ToLower(text), int64(1000), int64(-1))
	}
	f.Add("kgo-4f4c5b0e-95b1-4b56-8e5e-4a4b7d0a9f10", int64(0), int64(10))
	f.Fuzz(func(t *testing.T, text string, base, end int64) {
		checkDecoded(t, text, base, end)
		raw, err := mapText.DecodeString(text)
		if err == nil && len(raw) > headLen {
			checkDecoded(t, forge(base, raw[headLen:]), base, end)
		}
	})
}

func checkDecoded(t *testing.T, text string, base, end int64) {
	t.Helper()
	m, ok := DecodeMap(text, base, end)
	if !ok {
		return
	}
	last := base - 1
	for _, r := range m.Done {
		if r.From <= last || r.To <= r.From || end >= 0 && r.To > end {
			t.Fatalf("the runs %v are none, base %d, end %d", m.Done, base, end)
		}
		last = r.To
	}
	if again := rewrite(t, &m, text, base); again != text {
		t.Fatalf("%q is not the one form of its map: %q", text, again)
	}
	short, kept := m.Encode(base, len(text))
	if kept != len(m.Done) || len(short) > len(text) {
		t.Fatalf("Encode takes %d characters for what was read from %d, and keeps %d of %d runs", len(short), len(text), kept, len(m.Done))
	}
	if got, ok := DecodeMap(short, base, end); !ok || !same(&got, &m) {
		t.Fatalf("Encode's text decodes as %+v, want %+v", got, m)
	}
}

// rewrite writes the map by the method and with the codes that the text has.
func rewrite(t *testing.T, m *Map, text string, base int64) string {
	t.Helper()
	raw, _ := openMap(text, base)
	body := m.appendHead(nil)[headLen:]
	if len(m.Done) > 0 {
		p := plan{method: raw[headLen] & methodMask, kept: len(m.Done), top: endOf(m.Done, len(m.Done))}
		first := uint64(m.Done[0].From - base)
		codes := raw[len(body)+headLen+uvarintLen(first)+uvarintLen(uint64(p.top-m.Done[0].From)):]
		switch paramLen(p.method) {
		case 1:
			p.done = code(codes[0])
		case 2:
			p.done, p.undone = code(codes[0]), code(codes[1])
		}
		body[0] |= p.method
		body = p.append(body, base, m.Done)
	}
	return forge(base, body)
}
