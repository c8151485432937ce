package watermark_test

import (
	"flag"
	"maps"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// TestMain has each property checked more often than rapid's default; -rapid.checks says otherwise.
func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "400")
	os.Exit(m.Run())
}

// model is a window that cannot be wrong: all that was tracked, in a map.
type model struct {
	w     *window
	next  int64
	epoch int32
	open  map[int64]*slot // unresolved
	at    map[int64]int32 // leader epochs, of all that was tracked and not cut away
}

// offsets are those that are unresolved, ascending.
func (m *model) offsets() []int64 { return slices.Sorted(maps.Keys(m.open)) }

func (m *model) watermark() int64 {
	if open := m.offsets(); len(open) > 0 {
		return open[0]
	}
	return m.next
}

// below is the epoch of the record just below an offset.
func (m *model) below(offset int64) int32 {
	high, epoch := int64(-1), int32(-1)
	for o, e := range m.at {
		if o < offset && o > high {
			high, epoch = o, e
		}
	}
	return epoch
}

// highest is the highest resolved record, -1 if there is none.
func (m *model) highest() int64 {
	high := int64(-1)
	for o := range m.at {
		if m.open[o] == nil {
			high = max(high, o)
		}
	}
	return high
}

func (m *model) begin(t *rapid.T) {
	var offsets []int64
	for _, gap := range rapid.SliceOfN(rapid.SampledFrom([]int64{0, 0, 0, 1, 5, 1000}), 1, 12).Draw(t, "gaps") {
		offsets = append(offsets, m.next+gap)
		m.next += gap + 1
	}
	if rapid.IntRange(0, 5).Draw(t, "new leader") == 0 {
		m.epoch++
	}
	s := newSegment(0, m.epoch, offsets...)
	for i, o := range offsets {
		m.open[o], m.at[o] = &s.Slots()[i], m.epoch
	}
	m.w.Begin(s)
}

// TestWindowAgainstASortedSet drives histories through the window and a model, and compares all that the window tells after each step (I2); what the
// map tells of it is read back (I5).
func TestWindowAgainstASortedSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{w: newWindow(100, -1), next: 100, epoch: -1, open: map[int64]*slot{}, at: map[int64]int32{}}
		pick := func(t *rapid.T) int64 {
			open := m.offsets()
			if len(open) == 0 {
				t.Skip("nothing is unresolved")
			}
			return rapid.SampledFrom(open).Draw(t, "offset")
		}
		resolve := func(t *rapid.T) {
			o := pick(t)
			m.open[o].Done()
			delete(m.open, o)
		}
		t.Repeat(map[string]func(*rapid.T){
			"begin":         m.begin,
			"resolve":       resolve,
			"resolve again": resolve, // as often as the others together
			"resolve all": func(t *rapid.T) {
				from := pick(t)
				for _, o := range m.offsets() {
					if o >= from {
						m.open[o].Done()
						delete(m.open, o)
					}
				}
			},
			"hold": func(t *rapid.T) { m.open[pick(t)].Set(watermark.Held) },
			"skip": func(t *rapid.T) {
				to := m.next + rapid.Int64Range(-3, 10).Draw(t, "by")
				m.w.SkipTo(to)
				m.next = max(m.next, to)
			},
			"cut": func(t *rapid.T) {
				to := max(0, m.next-rapid.Int64Range(0, 20).Draw(t, "by"))
				low := m.watermark()
				if done := m.w.Truncate(to); done != (low <= to) {
					t.Fatalf("cut at %d, with the watermark at %d: %v", to, low, done)
				}
				if low > to {
					return
				}
				m.next = to
				cut := func(o int64) bool { return o >= to }
				maps.DeleteFunc(m.open, func(o int64, _ *slot) bool { return cut(o) })
				maps.DeleteFunc(m.at, func(o int64, _ int32) bool { return cut(o) })
			},
			"": m.compare,
		})
	})
}

func (m *model) compare(t *rapid.T) {
	low, epoch := m.w.Advance()
	if want := m.watermark(); low != want || m.w.Next() != m.next {
		t.Fatalf("watermark %d, want %d; next %d, want %d", low, want, m.w.Next(), m.next)
	}
	if want := m.below(low); epoch != want {
		t.Fatalf("epoch %d below %d, want %d", epoch, low, want)
	}
	var open []int64
	for s, i := range m.w.Unresolved() {
		open = append(open, s.Offset(i))
	}
	if want := m.offsets(); !slices.Equal(open, want) {
		t.Fatalf("unresolved %v, want %v", open, want)
	}
	held := 0
	for o, s := range m.open {
		if got := m.w.State(o); got != s.State() {
			t.Fatalf("state of %d: %v, want %v", o, got, s.State())
		}
		if s.State() == watermark.Held {
			held++
		}
	}
	if by := m.w.Count(); by[watermark.Held] != held || by[watermark.Queued] != len(m.open)-held {
		t.Fatalf("counts %v, want %d held of %d", by, held, len(m.open))
	}
	m.compareRuns(t, low)
}

// compareRuns wants the runs to be all between the watermark and the highest resolved record but what is unresolved, and the map to tell the same.
func (m *model) compareRuns(t *rapid.T, low int64) {
	runs := m.w.Done()
	from, open := low, m.offsets()
	for _, r := range runs {
		for from < r.From {
			if len(open) == 0 || open[0] != from {
				t.Fatalf("%d is told unresolved, of %v: runs %v", from, m.offsets(), runs)
			}
			open, from = open[1:], from+1
		}
		if r.From >= r.To || r.To > m.next || len(open) > 0 && open[0] < r.To {
			t.Fatalf("run %v, next %d, unresolved %v", r, m.next, open)
		}
		from = r.To
	}
	if high := m.highest(); high >= low && high >= from {
		t.Fatalf("%d is resolved, and not told: runs %v", high, runs)
	}
	told := watermark.Map{Epoch: m.w.Epoch(), Done: runs}
	text, kept := told.Encode(low, watermark.MaxMetadata)
	if kept != len(runs) {
		t.Fatalf("%d of %d runs fit", kept, len(runs))
	}
	if len(runs) == 0 {
		return
	}
	if read, ok := watermark.DecodeMap(text, low, m.next); !ok || !slices.Equal(read.Done, runs) || read.Epoch != told.Epoch {
		t.Fatalf("%v is read back as %v, %v", told, read, ok)
	}
}
