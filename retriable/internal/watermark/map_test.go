package watermark

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestMapCapacity(t *testing.T) {
	const base = 1 << 40
	for _, c := range []struct {
		name         string
		span, undone int64
	}{
		{"half", 24_000, 12_000},
		{"tenth", 50_000, 5_000},
		{"hundredth", 290_000, 2_900},
		{"thousandth", 2_000_000, 2_000},
	} {
		for seed := range uint64(8) {
			m := full(atRandom(seed, base, c.span, c.undone))
			text, kept := m.Encode(base, MaxMetadata-64)
			if kept != len(m.Done) {
				t.Errorf("%s, seed %d: %d of %d runs are kept", c.name, seed, kept, len(m.Done))
			}
			m.Notes = bytes.Repeat([]byte{0xff}, MaxNotes)
			wantRoundTrip(t, m, base) // notes have room beside that
			if seed == 0 {
				t.Logf("%s: %d offsets in %d characters", c.name, c.span, len(text))
			}
		}
	}
}

func TestMapCapacityInBursts(t *testing.T) {
	for seed := range uint64(4) {
		m := full(inBursts(seed, 1000, 1_240_000, 12_400, 8))
		text, kept := m.Encode(1000, MaxMetadata-64)
		if kept != len(m.Done) {
			t.Errorf("seed %d: %d of %d runs are kept", seed, kept, len(m.Done))
		}
		t.Logf("%d characters", len(text))
	}
}

func TestMapRoundTrip(t *testing.T) {
	const top = math.MaxInt64
	for _, c := range []struct {
		name string
		base int64
		m    Map
	}{
		{"zero", 0, Map{Epoch: -1}},
		{"epoch zero is no unknown one", 0, Map{}},
		{"clean", 5, Map{Epoch: -1, Clean: true}},
		{"topic", 5, Map{Epoch: -1, Topic: 1}},
		{"epoch", 5, Map{Epoch: math.MaxInt32}},
		{"notes", 5, Map{Epoch: -1, Notes: []byte("\x00a\xff")}},
		{"all notes", 5, Map{Epoch: -1, Notes: bytes.Repeat([]byte{7}, MaxNotes)}},
		{"one offset", 5, Map{Epoch: -1, Done: []Run{{6, 7}}}},
		{"the base itself", 5, Map{Epoch: -1, Done: []Run{{5, 6}}}},
		{"the base and more", 0, Map{Epoch: -1, Done: []Run{{0, 3}, {4, 9}}}},
		{"one long run", 5, Map{Epoch: -1, Done: []Run{{6, 1 << 40}}}},
		{"far above", 5, Map{Epoch: -1, Done: []Run{{1 << 40, 1<<40 + 1}}}},
		{"everything there can be", 0, Map{Epoch: -1, Done: []Run{{0, top}}}},
		{"but one", 0, Map{Epoch: -1, Done: []Run{{0, 1 << 62}, {1<<62 + 1, top}}}},
		{"the last two", top - 3, Map{Epoch: -1, Done: []Run{{top - 2, top}}}},
		{"far apart", 1 << 62, Map{Epoch: -1, Done: []Run{{1<<62 + 1, 1<<62 + 2}, {top - 1, top}}}},
		{"an offset between", 1 << 62, Map{Epoch: -1, Done: []Run{{1<<62 + 1, 1<<62 + 2}, {1<<62 + 3, 1<<62 + 4}}}},
	} {
		t.Run(c.name, func(t *testing.T) { wantRoundTrip(t, &c.m, c.base) })
	}
}

// TestMapRoundTripOfLengths goes through runs short and long, in each mixture, so that every method and many codes win.
func TestMapRoundTripOfLengths(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	var by [4]int
	for _, n := range []int{1, 2, 3, 10, 100, 250} {
		for undone := 0; undone <= 40; undone += 4 {
			for done := 0; done <= 48; done += 3 {
				base := rng.Int64N(1 << (1 + rng.IntN(61)))
				m := full(ofLengths(rng, base, n, undone, done))
				text := wantRoundTrip(t, m, base)
				raw, _ := openMap(text, base)
				by[raw[headLen]&methodMask]++
			}
		}
	}
	if by[methodBitset] == 0 || by[methodGaps] == 0 || by[methodRuns] == 0 {
		t.Errorf("not every method won: %v", by)
	}
}

// TestMapOfEverySmallWindow goes through all subsets of a window.
func TestMapOfEverySmallWindow(t *testing.T) {
	const span = 12
	left := make([]bool, span)
	for set := range 1 << span {
		for i := range left {
			left[i] = set>>i&1 != 0
		}
		wantRoundTrip(t, &Map{Epoch: -1, Done: runsOf(77, left)}, 77)
	}
}

func TestMapIsDeterministic(t *testing.T) {
	m := full(atRandom(1, 50, 60_000, 5_000))
	first, _ := m.Encode(50, 2000)
	for range 3 {
		if again, _ := m.Encode(50, 2000); again != first {
			t.Fatal("the same map has two texts")
		}
	}
}

// wantCut asserts that the text claims the runs' low end and nothing else, and says how much.
func wantCut(t *testing.T, m *Map, base int64, limit int) (claimed int64) {
	t.Helper()
	text, kept := m.Encode(base, limit)
	if len(text) > limit {
		t.Fatalf("%d characters, the limit is %d", len(text), limit)
	}
	if text == "" {
		if kept != 0 {
			t.Fatalf("no text keeps %d runs", kept)
		}
		return 0
	}
	got := mustDecode(t, text, base, m.Done).Done
	if len(got) < kept || len(got) > kept+1 {
		t.Fatalf("%d runs decode, of which %d are whole", len(got), kept)
	}
	for i, r := range got {
		if want := m.Done[i]; r != want && (i < kept || r.From != want.From || r.To >= want.To) {
			t.Fatalf("run %d decodes as %v, want %v", i, r, want)
		}
		claimed += r.To - r.From
	}
	return claimed
}

func TestMapCutsTheHighest(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	late := append(atRandom(5, 10, 3_000, 1_500), ofLengths(rng, 5_000, 4_000, 20, 3)...)
	for _, c := range []struct {
		name string
		done []Run
	}{
		{"half", atRandom(1, 10, 100_000, 50_000)},
		{"tenth", atRandom(2, 10, 200_000, 20_000)},
		{"thousandth", atRandom(3, 10, 4_000_000, 4_000)},
		{"bursts", inBursts(4, 10, 4_000_000, 40_000, 8)},
		{"long and short", ofLengths(rng, 10, 5_000, 30, 3)},
		{"of two kinds", late},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, last := full(c.done), int64(0)
			m.Notes = []byte("n")
			for limit := 0; limit <= MaxMetadata; limit += 1 + limit/7 {
				claimed := wantCut(t, m, 10, limit)
				if claimed < last {
					t.Fatalf("limit %d claims %d, a lower one %d", limit, claimed, last)
				}
				last = claimed
			}
			if last == 0 {
				t.Error("nothing is claimed at the highest limit")
			}
		})
	}
}

// TestMapCutsLittle: of a window three times too large, about a third is claimed.
func TestMapCutsLittle(t *testing.T) {
	for _, c := range []struct{ fits, each int64 }{{24_000, 2}, {50_000, 10}, {290_000, 100}, {2_000_000, 1000}} {
		m := full(atRandom(9, 10, 3*c.fits, 3*c.fits/c.each))
		done := c.fits - c.fits/c.each
		if got := wantCut(t, m, 10, MaxMetadata); got < done-done/50 {
			t.Errorf("one in %d undone: %d offsets are claimed, want %d", c.each, got, done)
		}
	}
}

func TestMapWithoutRoom(t *testing.T) {
	m := Map{Epoch: -1, Topic: 9, Done: []Run{{1, 2}}}
	for _, limit := range []int{math.MinInt, -1, 0, 1, 4, 15} {
		if text, kept := m.Encode(0, limit); text != "" || kept != 0 {
			t.Errorf("limit %d: %q keeps %d", limit, text, kept)
		}
	}
	if text, kept := m.Encode(0, 16); len(text) != 16 || kept != 0 {
		t.Errorf("the envelope alone: %q keeps %d", text, kept)
	}
	if text, kept := m.Encode(-1, MaxMetadata); text != "" || kept != 0 {
		t.Errorf("negative base: %q keeps %d", text, kept)
	}
	if text, _ := full(atRandom(1, 0, 90_000, 45_000)).Encode(0, math.MaxInt); len(text) > MaxMetadata {
		t.Errorf("no limit gives %d characters", len(text))
	}
}

// TestMapOfBrokenRuns: whatever Done holds, no offset is claimed that it does not.
func TestMapOfBrokenRuns(t *testing.T) {
	for _, c := range []struct {
		done []Run
		kept int
	}{
		{[]Run{{9, 11}}, 0},
		{[]Run{{11, 11}}, 0},
		{[]Run{{12, 11}}, 0},
		{[]Run{{math.MinInt64, math.MaxInt64}}, 0},
		{[]Run{{11, 13}, {13, 15}}, 1},
		{[]Run{{11, 13}, {12, 15}}, 1},
		{[]Run{{11, 13}, {20, 22}, {15, 16}}, 2},
		{[]Run{{11, 13}, {15, 15}, {17, 18}}, 1},
		{[]Run{{11, 13}, {15, math.MinInt64}}, 1},
	} {
		m := Map{Epoch: -1, Done: c.done}
		text, kept := m.Encode(10, MaxMetadata)
		if kept != c.kept {
			t.Errorf("%v: %d are kept, want %d", c.done, kept, c.kept)
		}
		m.Done = c.done[:c.kept]
		if got := mustDecode(t, text, 10, m.Done); !same(&got, &m) {
			t.Errorf("%v decodes as %v", c.done, got.Done)
		}
	}
	m := Map{Epoch: -7, Notes: make([]byte, MaxNotes+1)}
	text, _ := m.Encode(10, MaxMetadata)
	if got := mustDecode(t, text, 10, nil); got.Epoch != -1 || got.Notes != nil {
		t.Errorf("decodes as %+v", got)
	}
}

func TestMapTextIsPlain(t *testing.T) {
	text, _ := full(atRandom(1, 0, 20_000, 10_000)).Encode(0, MaxMetadata)
	if !strings.HasPrefix(text, "rtm1") {
		t.Errorf("starts with %q", text[:4])
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	if strings.Trim(text, alphabet) != "" {
		t.Error("not base64")
	}
}

// TestCode compares the length that plans count with with what is written, for each code around each power of two.
func TestCode(t *testing.T) {
	for c := range maxCode + 1 {
		for bit := range 63 {
			for _, x := range []uint64{1<<bit - 1, 1 << bit, 1<<bit + 1, 3 << bit >> 1} {
				if x > math.MaxInt64 || c.len(x) > 1<<12 {
					continue
				}
				if err := writeAndRead(c, x); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func writeAndRead(c code, x uint64) error {
	w := bitWriter{}
	w.put(1, 3)
	c.put(&w, x)
	if got := uint64(8*len(w.b)) + uint64(w.held) - 3; got != c.len(x) {
		return fmt.Errorf("code %d of %d has %d bits, said to have %d", c, x, got, c.len(x))
	}
	r := bitReader{b: w.bytes()}
	r.take(3)
	if got, ok := c.get(&r, x); !ok || got != x || !r.done() {
		return fmt.Errorf("code %d of %d is read as %d, %v", c, x, got, ok)
	}
	r = bitReader{b: w.b, pos: 3}
	if _, ok := c.get(&r, x-1); ok && x > 0 {
		return fmt.Errorf("code %d of %d is read below its limit", c, x)
	}
	return nil
}

// TestCodeLeast: planGaps leaves out codes by their least length, so it must be none that numbers go below.
func TestCodeLeast(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 300 {
		numbers, sum := make([]uint64, 1+rng.IntN(9)), uint64(0)
		size := 1 + rng.IntN(40)
		for i := range numbers {
			numbers[i] = rng.Uint64N(1 << (1 + rng.IntN(size)))
			if rng.IntN(3) == 0 {
				numbers[i] = 1<<rng.IntN(size) - 1 // just below a step
			}
			sum += numbers[i]
		}
		for c := range maxCode + 1 {
			length := uint64(0)
			for _, x := range numbers {
				length += c.len(x)
			}
			if least := c.least(uint64(len(numbers)), sum); least > length {
				t.Fatalf("%v have %d bits in code %d, said to have %d at least", numbers, length, c, least)
			}
		}
	}
	if huge := uint64(1 << 62); maxCode.least(huge, huge) < huge {
		t.Error("the least length overflows")
	}
}
