package admin

import (
	"slices"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// Map is what a commit's metadata says beside its offset: which offsets above it are finished already.
type Map struct {
	// Finished is ascending stretches of offsets; they neither overlap nor touch.
	Finished []Span
	// Clean says that the partition was given up in order: nothing ran when this was committed.
	Clean bool
	// Crashes is how often in a row, by then, the partition had been taken over without having been given up in order and without its committed
	// offset having moved; see [retriable.MaxCrashes]. It is known until the offset moves, or while records are run one at a time.
	Crashes int
	// Alone is the record that was run by itself then, for one like it may have ended the process; −1 for none.
	Alone int64
}

// DecodeMap reads the metadata of a commit at an offset; end is the log's end, −1 if it is not known. It returns false if that is no map of this
// library for this offset: other clients put there what they like.
func DecodeMap(metadata string, offset, end int64) (Map, bool) {
	m, ok := watermark.DecodeMap(metadata, offset, end)
	if !ok {
		return Map{}, false
	}
	c, _ := watermark.ReadCrashes(m.Notes, offset)
	return Map{Finished: spans(m.Done), Clean: m.Clean, Crashes: c.Count, Alone: c.Noted}, true
}

func spans(runs []watermark.Run) []Span {
	all := make([]Span, len(runs))
	for i, r := range runs {
		all[i] = Span(r)
	}
	return all
}

// Count returns how many offsets are finished.
func (m *Map) Count() (n int64) {
	for _, s := range m.Finished {
		n += s.To - s.From
	}
	return n
}

// Has reports whether an offset is finished.
func (m *Map) Has(offset int64) bool {
	i, _ := slices.BinarySearchFunc(m.Finished, offset, func(s Span, o int64) int {
		if s.To <= o {
			return -1
		}
		return 1
	})
	return i < len(m.Finished) && m.Finished[i].From <= offset
}
