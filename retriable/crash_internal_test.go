package retriable

import (
	"testing"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// Notes come back as they were written, fit a map, and whatever else is there is no note (I12).
func FuzzNotes(f *testing.F) {
	f.Add([]byte{2, noteNoted, 5}, int64(7))
	f.Add([]byte{255, noteNoted | noteMoved, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, int64(1)<<62)
	f.Add([]byte{0, 0}, int64(0))
	f.Fuzz(func(t *testing.T, b []byte, offset int64) {
		offset &= 1<<62 - 1
		count, moved, noted, ok := readNotes(b, offset)
		if !ok {
			if count != 0 || moved || noted != -1 {
				t.Fatalf("%x is no note but says something", b)
			}
			return
		}
		if noted >= 0 && noted < offset || noted < -1 {
			t.Fatalf("%x notes offset %d below %d", b, noted, offset)
		}
		p := &partition{c: &Consumer{set: &settings{config: &config{maxCrashes: 3}}}, crash: crashes{count: count, base: offset, noted: noted}}
		if moved {
			p.crash.base--
			p.careful.Store(true)
		}
		again := p.notes(offset)
		if len(again) > watermark.MaxNotes {
			t.Fatalf("%d bytes do not fit", len(again))
		}
		if c, m, n, ok := readNotes(again, offset); !ok || c != count || m != moved || n != noted {
			t.Fatalf("%x became %x", b, again)
		}
	})
}
