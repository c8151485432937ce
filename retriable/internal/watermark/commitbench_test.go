package watermark

import (
	"math/rand/v2"
	"testing"
)

// BenchmarkCommit is what a commit computes for a partition, all of it under the partition's lock: where the watermark is, what is finished
// above it, and the map of that. The first record of the window waits, and others at random: one in a hundred of ten thousand, one in a
// thousand of a million.
func BenchmarkCommit(b *testing.B) {
	for _, c := range []struct {
		name            string
		window, waiting int
	}{{"10k", 10_000, 100}, {"1M", 1_000_000, 1_000}} {
		b.Run(c.name, func(b *testing.B) {
			w := New[int](0, -1)
			waits := map[int]bool{0: true}
			rnd := rand.New(rand.NewPCG(1, 2))
			for len(waits) < c.waiting {
				waits[rnd.IntN(c.window)] = true
			}
			const segment = 256
			for from := 0; from < c.window; from += segment {
				s := NewSegment(0, 0, min(segment, c.window-from), func(i int) int64 { return int64(from + i) })
				w.Begin(s)
				for i := range s.Slots() {
					if !waits[from+i] {
						s.Slots()[i].Done()
					}
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				at, epoch := w.Advance()
				m := Map{Epoch: epoch, Done: w.Done()}
				text, kept := m.Encode(at, MaxMetadata)
				if kept < len(m.Done) || text == "" {
					b.Fatalf("%d of %d runs kept in %d characters", kept, len(m.Done), len(text))
				}
			}
		})
	}
}
