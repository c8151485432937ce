package wire_test

import (
	"runtime"
	"testing"
)

// allocated runs parse and checks that it allocates in proportion to what it
// was given (I10): at most 64 KiB and 4 times its length. Tests that use it
// must not be parallel, since the count is the whole process's.
func allocated(t *testing.T, h headers, parse func()) {
	t.Helper()
	length := 0
	for _, header := range h {
		length += len(header.Key) + len(header.Value)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	parse()
	runtime.ReadMemStats(&after)
	if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(64<<10+4*length); got > limit {
		t.Errorf("%d bytes allocated for %d bytes of headers, more than %d", got, length, limit)
	}
}
