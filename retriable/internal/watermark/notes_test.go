package watermark_test

import (
	"testing"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// Notes come back as they were written, fit a map, and whatever else is there is no note (I12).
func FuzzNotes(f *testing.F) {
	f.Add([]byte{2, 2, 5}, int64(7))
	f.Add([]byte{255, 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, int64(1)<<62)
	f.Add([]byte{0, 0}, int64(0))
	f.Fuzz(func(t *testing.T, b []byte, offset int64) {
		offset &= 1<<62 - 1
		c, ok := watermark.ReadCrashes(b, offset)
		if !ok {
			if c != (watermark.Crashes{Noted: -1}) {
				t.Fatalf("%x is no note but says something", b)
			}
			return
		}
		if c.Noted >= 0 && c.Noted < offset || c.Noted < -1 {
			t.Fatalf("%x notes offset %d below %d", b, c.Noted, offset)
		}
		again := c.Notes(offset)
		if len(again) > watermark.MaxNotes {
			t.Fatalf("%d bytes do not fit", len(again))
		}
		if twice, ok := watermark.ReadCrashes(again, offset); !ok || twice != c {
			t.Fatalf("%x became %x", b, again)
		}
	})
}
