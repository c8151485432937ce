package watermark_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

type (
	window  = watermark.Window[int]
	segment = watermark.Segment[int]
	slot    = watermark.Slot
)

func newWindow(start int64, epoch int32) *window { return watermark.New[int](start, epoch) }

func newSegment(owner int, epoch int32, offsets ...int64) *segment {
	return watermark.NewSegment(owner, epoch, len(offsets), func(i int) int64 { return offsets[i] })
}

// track begins a segment over the given offsets.
func track(w *window, owner int, offsets ...int64) []*slot {
	s := newSegment(owner, 0, offsets...)
	slots := make([]*slot, len(offsets))
	for i := range offsets {
		slots[i] = &s.Slots()[i]
	}
	w.Begin(s)
	return slots
}

func wantAt(t *testing.T, w *window, want int64) {
	t.Helper()
	if got, _ := w.Advance(); got != want {
		t.Fatalf("watermark is %d, want %d", got, want)
	}
}

func TestWatermarkIsContiguous(t *testing.T) {
	w := newWindow(10, -1)
	wantAt(t, w, 10)
	s := track(w, 1, 10, 11, 12)
	s[2].Done()
	s[1].Done()
	wantAt(t, w, 10) // I2: 10 is unresolved, whatever lies above it
	s[0].Done()
	wantAt(t, w, 13)
}

func TestGapsAreNothing(t *testing.T) {
	w := newWindow(5, -1)
	s := track(w, 1, 50, 53)
	s = append(s, track(w, 2, 90)...)
	wantAt(t, w, 50)
	s[0].Done()
	wantAt(t, w, 53)
	s[1].Done()
	wantAt(t, w, 90)
	s[2].Done()
	wantAt(t, w, 91)
}

func TestSkipToMovesAnIdleWatermark(t *testing.T) {
	w := newWindow(5, -1)
	w.SkipTo(9)
	wantAt(t, w, 9)
	s := track(w, 1, 9)
	w.SkipTo(20)
	wantAt(t, w, 9)
	s[0].Done()
	wantAt(t, w, 20)
	w.SkipTo(3)
	wantAt(t, w, 20)
}

func TestEpochIsThatOfTheRecordBelowTheWatermark(t *testing.T) {
	w := newWindow(0, 3)
	if _, e := w.Advance(); e != 3 {
		t.Fatalf("epoch %d, want the start's 3", e)
	}
	a, b := newSegment(1, 4, 0, 1), newSegment(2, 7, 2)
	w.Begin(a)
	w.Begin(b)
	below, above := a.Slots(), b.Slots()
	for _, c := range []struct {
		done *slot
		want int32
	}{{nil, 3}, {&below[0], 4}, {&below[1], 4}, {&above[0], 7}} {
		if c.done != nil {
			c.done.Done()
		}
		if _, e := w.Advance(); e != c.want {
			t.Fatalf("epoch %d, want %d", e, c.want)
		}
	}
}

func TestTruncateForgetsTheTail(t *testing.T) {
	w := newWindow(0, -1)
	s := track(w, 1, 0, 1, 2)
	s = append(s, track(w, 2, 3, 4)...)
	s[0].Done()
	if !w.Truncate(2) {
		t.Fatal("refused above the watermark")
	}
	if w.Next() != 2 {
		t.Fatalf("next is %d, want 2", w.Next())
	}
	s[2].Done() // an orphan: nothing listens
	wantAt(t, w, 1)
	s[1].Done()
	wantAt(t, w, 2)
	if w.Truncate(1) {
		t.Fatal("moved below the watermark")
	}
	n := track(w, 3, 2)
	n[0].Done()
	wantAt(t, w, 3)
}

// Found by TestWindowAgainstASortedSet: a segment that was seen to be done up to above the cut never ended, and the watermark passed the read position.
func TestACutBelowWhatIsKnownToBeDone(t *testing.T) { // I2
	w := newWindow(100, -1)
	low := track(w, 1, 100)
	s := track(w, 2, 101, 102, 103)
	s[0].Done()
	s[1].Done()
	w.Done() // looks how far the second is done
	if !w.Truncate(102) {
		t.Fatal("refused above the watermark")
	}
	low[0].Done()
	wantAt(t, w, 102)
}

func TestOldestNamesTheFirstUnresolved(t *testing.T) {
	w := newWindow(0, -1)
	if _, _, ok := w.Oldest(); ok {
		t.Fatal("an empty window has no oldest")
	}
	s := track(w, 7, 4, 5)
	s[0].Done()
	s[1].Set(watermark.Held)
	w.Advance()
	seg, i, ok := w.Oldest()
	if !ok || seg.Owner != 7 || seg.Offset(i) != 5 || seg.Slots()[i].State() != watermark.Held {
		t.Fatalf("got %v %d %v", seg, i, ok)
	}
	if by := w.Count(); by[watermark.Held] != 1 || by[watermark.Queued] != 0 {
		t.Fatalf("counts %v", by)
	}
}

func TestDoneNamesOnlyWhatLiesAboveTheWatermark(t *testing.T) {
	w := newWindow(0, -1)
	s := track(w, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	s = append(s, track(w, 2, 10, 14)...) // a gap between two that are done is done
	track(w, 3, 20)
	for i, slot := range s {
		if i != 5 && i != 9 {
			slot.Done()
		}
	}
	if _, before := w.Advance(); before != 0 {
		t.Fatal("epoch")
	}
	runs := w.Done()
	if want := []watermark.Run{{From: 6, To: 9}, {From: 10, To: 15}}; !slices.Equal(runs, want) {
		t.Fatalf("runs %v, want %v", runs, want)
	}
	m := watermark.Map{Epoch: -1, Done: runs}
	if text, kept := m.Encode(5, watermark.MaxMetadata); kept != len(runs) || text == "" {
		t.Fatalf("%d of %d runs are claimed", kept, len(runs))
	}
}

func benchmark(b *testing.B, batch int, done func(s []slot)) {
	b.ReportAllocs()
	w := newWindow(0, -1)
	offset := int64(0)
	for i := 0; i < b.N; i += batch {
		s := watermark.NewSegment(0, 0, batch, func(i int) int64 { return offset + int64(i) })
		offset += int64(batch)
		w.Begin(s)
		done(s.Slots())
		w.Advance()
	}
}

func BenchmarkBeginDoneAdvanceSequential(b *testing.B) {
	benchmark(b, 500, func(s []slot) {
		for i := range s {
			s[i].Done()
		}
	})
}

func BenchmarkBeginDoneAdvanceReversed(b *testing.B) {
	benchmark(b, 500, func(s []slot) {
		for i := len(s) - 1; i >= 0; i-- {
			s[i].Done()
		}
	})
}

func BenchmarkBeginDoneAdvanceShuffled(b *testing.B) {
	order := rand.Perm(500)
	benchmark(b, 500, func(s []slot) {
		for _, i := range order {
			s[i].Done()
		}
	})
}

func TestASegmentLetsGoOfWhatIsDone(t *testing.T) {
	owner := new(int)
	s := watermark.NewSegment(owner, 0, 2, func(i int) int64 { return int64(i) })
	slots := s.Slots()
	slots[0].Done()
	if s.LetGo(); s.Owner != owner || len(s.Slots()) != 2 {
		t.Error("one is not done yet")
	}
	slots[1].Done()
	if s.LetGo(); s.Owner != nil || s.Slots() != nil {
		t.Error("all are done")
	}
	var none *watermark.Segment[*int]
	none.LetGo()
}
