package watermark

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var updateMaps = flag.Bool("update-maps", false, "write testdata/maps.golden anew: only with a new version in the magic")

// golden are maps whose texts must not change as long as their version does not: members of a group run different
// versions of the library during each roll-out, and read each other's commits.
func golden() []struct {
	name  string
	base  int64
	limit int
	m     *Map
} {
	step := func(base, n, undone, done int64) (runs []Run) {
		for i := range n {
			from := base + i*(undone+done) + undone
			runs = append(runs, Run{from, from + done})
		}
		return runs
	}
	return []struct {
		name  string
		base  int64
		limit int
		m     *Map
	}{
		{"empty", 0, MaxMetadata, &Map{Epoch: -1}},
		{"head", 42, MaxMetadata, &Map{Topic: 0x01020304, Epoch: 7, Clean: true, Notes: []byte("golden")}},
		{"one", 42, MaxMetadata, &Map{Epoch: -1, Done: []Run{{43, 44}}}},
		{"bitset", 100, MaxMetadata, full(step(100, 60, 1, 1))},
		{"gaps", 100, MaxMetadata, full(append(step(100, 40, 1, 9), step(520, 30, 1, 14)...))},
		{"runs", 1 << 40, MaxMetadata, full(step(1<<40, 25, 30, 11))},
		{"huge", 1 << 61, MaxMetadata, full([]Run{{1<<61 + 1, 1 << 62}, {1<<62 + 1, 1<<63 - 1}})},
		{"cut", 100, 64, full(step(100, 500, 1, 6))},
		{"cut bitset", 100, 64, full(step(100, 500, 1, 1))},
	}
}

func TestMapGolden(t *testing.T) {
	path := filepath.Join("testdata", "maps.golden")
	if *updateMaps {
		writeGolden(t, path)
	}
	want := readGolden(t, path)
	for _, g := range golden() {
		text, kept := g.m.Encode(g.base, g.limit)
		if text != want[g.name] {
			t.Errorf("%s is written as\n%s, and must be\n%s", g.name, text, want[g.name])
		}
		m, ok := DecodeMap(want[g.name], g.base, -1)
		if !ok || len(m.Done) < kept || kept == len(g.m.Done) && !same(&m, g.m) {
			t.Errorf("%s is read as %+v, %v", g.name, m, ok)
		}
	}
}

func writeGolden(t *testing.T, path string) {
	t.Helper()
	var b strings.Builder
	for _, g := range golden() {
		text, _ := g.m.Encode(g.base, g.limit)
		fmt.Fprintf(&b, "%s: %s\n", g.name, text)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readGolden(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), ": ")
		want[name] = text
	}
	return want
}
