package watermark

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// atRandom makes the runs of a window of span offsets from base up, of which exactly undone are not done: the base, as it
// is in life, and others at random.
func atRandom(seed uint64, base, span, undone int64) []Run {
	rng := rand.New(rand.NewPCG(seed, 1))
	left := make([]bool, span)
	left[0] = true
	for n := int64(1); n < undone; {
		if i := rng.Int64N(span); !left[i] {
			left[i] = true
			n++
		}
	}
	return runsOf(base, left)
}

// inBursts is atRandom with the undone offsets in bursts of size.
func inBursts(seed uint64, base, span, undone, size int64) []Run {
	rng := rand.New(rand.NewPCG(seed, 2))
	left := make([]bool, span)
	left[0] = true
	for range undone / size {
		from := rng.Int64N(span)
		for i := from; i < min(from+size, span); i++ {
			left[i] = true
		}
	}
	return runsOf(base, left)
}

// runsOf makes the runs of a window where left says what is not done.
func runsOf(base int64, left []bool) (runs []Run) {
	for i := 0; i < len(left); i++ {
		from := i
		for i < len(left) && !left[i] {
			i++
		}
		if i > from {
			runs = append(runs, Run{base + int64(from), base + int64(i)})
		}
	}
	return runs
}

// ofLengths makes runs from base up: undone and done lengths in turn, drawn with up to their number of bits.
func ofLengths(rng *rand.Rand, base int64, n, undoneBits, doneBits int) (runs []Run) {
	draw := func(bits int) int64 { return 1 + rng.Int64N(1<<rng.IntN(bits+1)) }
	for range n {
		from := base + draw(undoneBits)
		base = from + draw(doneBits)
		runs = append(runs, Run{from, base})
	}
	return runs
}

// full is a map with everything but notes that takes room in front of the runs.
func full(done []Run) *Map {
	return &Map{Topic: 0xdeadbeef, Epoch: 1 << 20, Clean: true, Done: done}
}

func same(a, b *Map) bool {
	return a.Topic == b.Topic && a.Epoch == b.Epoch && a.Clean == b.Clean &&
		slices.Equal(a.Notes, b.Notes) && slices.Equal(a.Done, b.Done)
}

// mustDecode decodes the text, with the highest claim's end as the log's.
func mustDecode(t *testing.T, text string, base int64, done []Run) Map {
	t.Helper()
	end := base
	if len(done) > 0 {
		end = done[len(done)-1].To
	}
	got, ok := DecodeMap(text, base, end)
	if !ok {
		t.Fatalf("a text of %d characters with %d runs beside base %d does not decode", len(text), len(done), base)
	}
	return got
}

// wantRoundTrip encodes m without a limit, or at MaxMetadata if limited, and decodes it again.
func wantRoundTrip(t *testing.T, m *Map, base int64) (text string) {
	t.Helper()
	text, kept := m.Encode(base, MaxMetadata)
	if kept != len(m.Done) {
		t.Fatalf("%d of %d runs are kept", kept, len(m.Done))
	}
	if got := mustDecode(t, text, base, m.Done); !same(&got, m) {
		t.Fatalf("decodes as %+v, want %+v", got, *m)
	}
	return text
}
