package chaos_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/integration/broker"
	"github.com/retriable-kafka/retriable-go/integration/chaos"
)

func TestMain(m *testing.M) {
	if chaos.IsWorker() {
		os.Exit(chaos.Worker(os.Stdin))
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil { // what is parallel here mostly waits, whatever the number of processors
		panic(err)
	}
	os.Exit(broker.Main(m))
}

// seed is that of this run: RETRIABLE_CHAOS_SEED, else the time.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano()) % 1_000_000
	if v := os.Getenv("RETRIABLE_CHAOS_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("RETRIABLE_CHAOS_SEED: %v", err)
		}
		s = n
	}
	t.Logf("RETRIABLE_CHAOS_SEED=%d", s)
	return s
}

// number reads a variable that says how much, or gives what it is by itself.
func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	v := os.Getenv(variable)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// folder is where the ledgers and logs of a run go: below RETRIABLE_CHAOS_DIR, where they stay, or away with the test.
func folder(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("RETRIABLE_CHAOS_DIR")
	if dir == "" {
		dir = t.TempDir()
	}
	dir = filepath.Join(dir, name)
	if old, err := os.ReadDir(dir); err == nil && len(old) > 0 {
		t.Fatalf("%s has the ledgers of a run before; they would be taken for this one's", dir)
	}
	return dir
}

const session = 1500 * time.Millisecond

// tally is what the arenas of a run had together.
type tally struct {
	mu      sync.Mutex
	applied map[chaos.FaultKind]int
	counts  map[string]int
	met     map[chaos.Sometimes]int
	failed  []string // told once more at the end, where it is found
}

// fail fails a test of the run.
func (c *tally) fail(t *testing.T, err any) {
	t.Helper()
	t.Error(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = append(c.failed, fmt.Sprintf("%s: %v", t.Name(), err))
}

func (c *tally) add(applied map[chaos.FaultKind]int, r *chaos.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.applied == nil {
		c.applied, c.counts, c.met = map[chaos.FaultKind]int{}, map[string]int{}, map[chaos.Sometimes]int{}
	}
	for k, n := range applied {
		c.applied[k] += n
	}
	if r == nil {
		return
	}
	for k, n := range r.Counts {
		c.counts[k] += n
	}
	for k, n := range r.Met {
		c.met[k] += n
	}
}

// table prints what the run was.
func (c *tally) table(t *testing.T) {
	t.Helper()
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(c.applied)) {
		fmt.Fprintf(&b, "%10d  faults: %s\n", c.applied[k], k)
	}
	t.Logf("in all:\n%s%v", b.String(), &chaos.Report{Counts: c.counts, Met: c.met})
	if len(c.failed) > 0 {
		t.Logf("what failed:\n%s", strings.Join(c.failed, "\n"))
	}
}

// want fails a run that did not meet what it is about.
func (c *tally) want(t *testing.T, want ...chaos.Sometimes) {
	t.Helper()
	if missing := (&chaos.Report{Met: c.met}).Void(want...); len(missing) > 0 {
		t.Errorf("the run is void, for it never met: %q", missing)
	}
}

// arena makes an arena that ends with the test.
func arena(t *testing.T, cluster *broker.Cluster, s chaos.Setup) *chaos.Arena {
	t.Helper()
	s.Dir = folder(t, s.Name)
	a, err := chaos.NewArena(context.WithoutCancel(t.Context()), cluster, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// under produces while faults last, then lets all heal and judges what is left.
func under(t *testing.T, all *tally, a *chaos.Arena, plan []chaos.Fault, faults func(ctx context.Context)) *chaos.Report {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	producing, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- a.Produce(producing) }()
	began := time.Now()
	faults(ctx)
	stop()
	if err := <-ended; err != nil {
		all.fail(t, err)
	}
	healing := time.Now()
	if err := a.Settle(ctx); err != nil {
		all.fail(t, err)
	}
	healed := time.Now()
	r, err := a.Judge(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("faults for %v, healed in %v, judged in %v\n%v", healing.Sub(began).Round(time.Second), healed.Sub(healing).Round(time.Millisecond),
		time.Since(healed).Round(time.Millisecond), r)
	for i, v := range r.Wrong {
		if i >= 10 {
			all.fail(t, fmt.Sprintf("and %d more", len(r.Wrong)-i))
			break
		}
		all.fail(t, v)
		if v.ID >= 0 && i < 3 {
			t.Logf("what happened to record %d:\n%s", v.ID, r.Timeline(v.ID))
		}
	}
	if t.Failed() {
		text := ""
		for _, f := range plan {
			text += fmt.Sprintln(f)
		}
		t.Logf("the plan:\n%s", text)
	}
	return r
}
