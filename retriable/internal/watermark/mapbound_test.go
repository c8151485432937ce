package watermark

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// uncut returns how many characters the map takes if there is no limit.
func uncut(t *testing.T, m *Map, base int64) int {
	t.Helper()
	text, kept := m.encode(base, 1<<24)
	if kept != len(m.Done) {
		t.Fatalf("%d of %d runs are kept without a limit", kept, len(m.Done))
	}
	return len(text)
}

// longest is the longest that anything in front of the runs gets.
func longest(done []Run) *Map {
	return &Map{Topic: math.MaxUint32, Epoch: math.MaxInt32, Clean: true, Done: done}
}

// TestBoundOfEverySmallWindow lets every subset of every set of pending offsets finish: that is each set of offsets still
// undone, against the bounds of all larger ones, which are no lower.
func TestBoundOfEverySmallWindow(t *testing.T) {
	const most = 14
	for span := 1; span <= most; span++ {
		left := make([]bool, span)
		for set := range 1 << span {
			for i := range left {
				left[i] = set>>i&1 != 0
			}
			undone := bits.OnesCount(uint(set))
			got, bound := uncut(t, longest(runsOf(0, left)), 0), Bound(undone, int64(span), 0)
			if got > bound {
				t.Fatalf("%0*b takes %d characters, the bound is %d", span, set, got, bound)
			}
		}
	}
}

func TestBoundGrows(t *testing.T) {
	for span := int64(0); span < 3000; span += 1 + span/20 {
		for undone := 0; int64(undone) <= span; undone++ {
			b := Bound(undone, span, 3)
			if b > Bound(undone+1, span+1, 3) || b > Bound(undone, span+1, 3) || b > Bound(undone, span, 4) {
				t.Fatalf("the bound of %d in %d shrinks", undone, span)
			}
			if int64(undone) < span && b > Bound(undone+1, span, 3) {
				t.Fatalf("the bound of %d in %d shrinks with one more undone", undone, span)
			}
		}
	}
}

// TestBoundOfLargeWindows takes windows of any kind and lets what is pending finish bit by bit, in order and out of it.
func TestBoundOfLargeWindows(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 11))
	for range 60 {
		span := int64(1 + rng.IntN(1<<(4+rng.IntN(14))))
		undone := 1 + rng.Int64N(span)
		left := windowOf(rng, span, undone)
		for {
			n := count(left)
			m := longest(runsOf(0, left))
			if got, bound := uncut(t, m, 0), Bound(n, span, 0); got > bound {
				t.Fatalf("%d undone in %d take %d characters, the bound is %d", n, span, got, bound)
			}
			if n == 0 {
				break
			}
			finish(rng, left)
		}
	}
}

// windowOf says which of span offsets are pending: alone, in bursts or at steps, which are the worst for a Rice code.
func windowOf(rng *rand.Rand, span, undone int64) []bool {
	left := make([]bool, span)
	kind, step := rng.IntN(3), max(1, span/undone)
	for i := range left {
		switch i := int64(i); kind {
		case 0:
			left[i] = rng.Int64N(span) < undone
		case 1:
			left[i] = i%(20*step) < 20
		case 2:
			left[i] = i%step == 0
		}
	}
	left[0] = true
	return left
}

func count(left []bool) (n int) {
	for _, l := range left {
		if l {
			n++
		}
	}
	return n
}

// finish ends a share of what is pending: at random, or from one end.
func finish(rng *rand.Rand, left []bool) {
	kind, at := rng.IntN(3), rng.IntN(len(left))
	for i := range left {
		switch {
		case kind == 0 && rng.IntN(3) == 0, kind == 1 && i <= at, kind == 2 && i >= at:
			left[i] = false
		}
	}
}

// TestBoundAtTheWorst takes gaps that are all a power of two, or one less or more: no bound may be below them.
func TestBoundAtTheWorst(t *testing.T) {
	for bit := range 12 {
		for _, gap := range []int64{1<<bit - 1, 1 << bit, 1<<bit + 1, 3 << bit} {
			for _, n := range []int64{1, 7, 100, 900} {
				var done []Run
				for i := range n {
					from := 1 + i*(gap+1)
					if gap > 0 {
						done = append(done, Run{from, from + gap})
					}
				}
				span := n * (gap + 1)
				if got, bound := uncut(t, longest(done), 0), Bound(int(n), span, 0); got > bound {
					t.Fatalf("%d gaps of %d take %d characters, the bound is %d", n, gap, got, bound)
				}
			}
		}
	}
}

// TestBoundIsTight holds the bound against the logarithm of how many ways there are to finish, which no codec beats.
func TestBoundIsTight(t *testing.T) {
	for n := 300.0; n < 1e5; n *= 1.7 {
		for span := 2 * n; span < 1e4*n; span *= 1.3 {
			least := choices(span, n)
			body := 6*float64(Bound(int(n), int64(span), 0)) - 8*28
			if body > least*1.13+16 {
				t.Errorf("%.0f undone in %.0f: %.0f bits, at least are needed %.0f", n, span, body, least)
			}
		}
	}
}

// choices returns the binary logarithm of n over k.
func choices(n, k float64) float64 {
	a, _ := math.Lgamma(n + 1)
	b, _ := math.Lgamma(k + 1)
	c, _ := math.Lgamma(n - k + 1)
	return (a - b - c) / math.Ln2
}

// TestBoundKeepsEverything: within the bound, nothing is ever cut.
func TestBoundKeepsEverything(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 5))
		span := int64(10 + rng.IntN(100_000))
		undone := 1 + rng.Int64N(span/2)
		m := longest(atRandom(seed, 9, span, undone))
		m.Notes = make([]byte, rng.IntN(MaxNotes+1))
		limit := Bound(int(undone), span, len(m.Notes))
		if limit > MaxMetadata {
			continue
		}
		if text, kept := m.Encode(9, limit); kept != len(m.Done) || len(text) > limit {
			t.Fatalf("%d undone in %d: %d of %d runs are kept", undone, span, kept, len(m.Done))
		}
	}
}

func TestBoundOfNonsense(t *testing.T) {
	none := Bound(0, 0, 0)
	for _, b := range []int{Bound(-1, 0, 0), Bound(5, 0, -4), Bound(5, -1, 0), Bound(math.MinInt, math.MinInt64, math.MinInt)} {
		if b != none {
			t.Errorf("%d, want %d", b, none)
		}
	}
	if b := Bound(math.MaxInt, math.MaxInt64, math.MaxInt); b < MaxMetadata {
		t.Errorf("of everything it is %d", b)
	}
	if b := Bound(math.MaxInt, 100, 0); b != Bound(100, 100, 0) {
		t.Errorf("%d, more are undone than there are", b)
	}
	if b := Bound(1, math.MaxInt64, 0); b > 100 {
		t.Errorf("one undone takes %d", b)
	}
}
