package retriable

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestTheFirstFewAreKeptInOrder(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		shown := make([]int, r.IntN(30))
		for i := range shown {
			shown[i] = r.IntN(20)
		}
		n := r.IntN(12) - 1
		f := few(n, cmp.Compare[int])
		for _, v := range shown {
			f.add(v)
		}
		want := slices.Sorted(slices.Values(shown))
		if want = want[:min(max(n, 0), len(want))]; !slices.Equal(f.kept, want) {
			t.Fatalf("the first %d of %v: got %v, want %v", n, shown, f.kept, want)
		}
	}
}

func TestCellsDivideAWindow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		low, next int64
		limit     int
	}{{0, 0, 5}, {7, 8, 5}, {0, 5, 5}, {0, 6, 5}, {3, 1<<20 + 3, 120}, {0, 100, 0}, {0, 100, -1}, {10, 20, 1}} {
		cs := cells(c.low, c.next, c.limit)
		if len(cs) > max(c.limit, 0) {
			t.Errorf("%+v: %d cells", c, len(cs))
		}
		at := c.low
		for i, cell := range cs {
			if cell.From != at || cell.To <= at || i < len(cs)-1 && cell.To-cell.From != cs[0].To-cs[0].From {
				t.Errorf("%+v: cell %d is %+v", c, i, cell)
			}
			at = cell.To
		}
		if c.limit > 0 && at != c.next {
			t.Errorf("%+v: they end at %d", c, at)
		}
	}
}
