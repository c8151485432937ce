package simulation

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seeds = flag.Int("seeds", 300, "how many plans TestSimulation runs")
	first = flag.Uint64("first", 0, "the first seed of TestSimulation")
	plain = flag.Bool("plain", false, "TestSeed runs the plan without embellishments, as TestRegressions does")
	only  = flag.Uint64("seed", 0, "the one seed that TestSeed runs, and prints what happens")
)

// logger logs where only one seed runs: the log of many is of no use.
func logger() *slog.Logger {
	if *only == 0 {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// TestSimulation runs a plan for each of its seeds. Without -tags synctests only those of KIP-848 groups: in a classic group a commit may wait
// for a parked join on a mutex inside kgo, which stops a bubble's time.
func TestSimulation(t *testing.T) {
	began := time.Now()
	var ran, events, parked atomic.Int64
	var mu sync.Mutex
	met := map[string]int{}
	t.Run("seeds", func(t *testing.T) {
		for seed := *first; seed < *first+uint64(*seeds); seed++ {
			if !possible(seed) {
				continue
			}
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				hangs := time.AfterFunc(time.Minute, func() { fmt.Fprintf(os.Stderr, "seed %d has run for a minute\n", seed) })
				defer hangs.Stop()
				p := draw(seed)
				h, m := p.run(t)
				if ran.Add(1); h.parked {
					parked.Add(1)
					t.Skip("kfake has parked the group: see world.parked")
				}
				judge(t, p, h)
				events.Add(int64(len(h.events)))
				mu.Lock()
				defer mu.Unlock()
				for what, n := range m {
					met[what] += n
				}
			})
		}
	})
	t.Logf("%d seeds, %d events, %d parked, %.0f seeds a minute; %v", ran.Load(), events.Load(), parked.Load(), float64(ran.Load())/time.Since(began).Minutes(), met)
	if n := parked.Load(); n > 1+ran.Load()/100 {
		t.Errorf("%d of %d groups were parked for ever", n, ran.Load())
	}
	if t.Failed() || ran.Load() < 100 {
		return
	}
	// A run in which nothing happened proves nothing.
	for _, what := range []string{
		"chunks", "moved", "paused", "killed", "condemned", "revoked", "lost", "abandoned", "a handler's context ended", "a commit was refused", "a write was refused", "a map", "skip", "skip over what waits", string(renew), "refused OffsetCommit",
	} {
		if met[what] == 0 && !(raceEnabled && what == string(renew)) {
			t.Errorf("void: in %d seeds never: %s", ran.Load(), what)
		}
	}
}

// regressions are seeds that have found something; each stays here for good, whatever plan its number stands for by now. The stories of what
// they found are named.
var regressions = []struct {
	seed  uint64
	found string
	whole bool // the plan as it is drawn now, not without embellishments
}{
	{seed: 374, found: "what was due behind an overdue record was overslept (TestWhatIsDueBehindAnOverdueRecordIsNotOverslept)"},
	{seed: 297, found: "a drain with overdue records span (TestADrainWithOverdueRecordsIsQuiet)"},
	{seed: 474, found: "a batch too large to unpack that came during a pause was never named (TestABatchTooLargeToUnpackIsNamedThoughItCameWhileThePartitionWasPaused)"},
	{seed: 342, found: "a partition that was assigned again without a revoke had two objects"},
	{seed: 190, found: "a commit under way at a loss arrives after it; allowed, see inFlight"},
	{seed: 203, found: "kfake answers for a topic that is gone in no time, and kgo asks as fast; see aroundKfake"},
	{seed: 167, found: "a member that crashed while kfake held its join stayed in the group for ever; see bury"},
	{seed: 2564, found: "the same, of an eager group"},
	{seed: 1375, found: "the checker took what one consumer was told for what its successor was told"},
	{seed: 1749, found: "the run ended while a member was still cut off, and could not but abandon"},
	{seed: 887, found: "the run ended while a member that came back had still to write; its copy was not in the history"},
	{seed: 3420, found: "the kit told handlers of a crash before it cut the network, and a copy of what they returned got through (TestACrashBreaksConnectionsFirst)"},
	{seed: 1853, found: "a map that was left out of a commit was told by nobody (TestAMapThatIsLeftOutIsTold)"},
	{seed: 2, whole: true, found: "a record hopped through its tier ten thousand times, at a member whose clock is ahead of the broker's"},
	{seed: 60, whole: true, found: "a record that ends its process was never given up behind others that wait in place (TestARecordThatKillsIsFoundBehindOthersThatWaitInPlace)"},
	{seed: 2658, whole: true, found: "kgo dialed a broker that refuses without a pause, and no time passed (TestABrokerThatRefusesConnectionsIsNotDialedWithoutAPause)"},
	{seed: 2747, found: "the checker took what was resolved before a rebalance for what was resolved after it, where no time had passed"},
}

func TestRegressions(t *testing.T) {
	for _, r := range regressions {
		if !possible(r.seed) {
			continue
		}
		t.Run(fmt.Sprint(r.seed), func(t *testing.T) {
			p := sketch(r.seed)
			if r.whole {
				p = draw(r.seed)
			}
			h, _ := p.run(t)
			judge(t, p, h)
		})
	}
}

// judge fails the test if the history of a seed breaks an invariant, and shows it.
func judge(t *testing.T, p plan, h *history) {
	t.Helper()
	found := check(h)
	if len(found) == 0 {
		return
	}
	for i, f := range found {
		if t.Errorf("seed %d: %s", p.seed, f); i == 8 {
			break
		}
	}
	if dir := os.Getenv("SIMULATION_DIR"); dir != "" {
		if f, err := os.Create(filepath.Join(dir, fmt.Sprintf("seed-%d.txt", p.seed))); err == nil {
			defer f.Close()
			h.report(f, p, found)
		}
		return
	}
	var b strings.Builder
	h.report(&b, p, nil)
	t.Log(b.String())
}

// report is a seed's plan and timeline.
func (h *history) report(w io.Writer, p plan, found []string) {
	fmt.Fprintf(w, "again with: go test -tags synctests ./retriable/internal/simulation -run TestSeed -seed %d\n", p.seed)
	fmt.Fprintf(w, "plan: %s, order %d, %d brokers, %d+%d partitions, %d members, %d workers, at most %d attempts, %d pending, %d held, backoff %v, drain %v, commits each %v, clocks %v, for %v; in place %d, tier %v, due within %v, crashes %d\n",
		p.protocol.name, p.order, p.brokers, p.partitions, p.retries, p.members, p.workers, p.maxAttempts, p.maxPending, p.maxHeld, p.backoff, p.drain, p.commit, p.skews, p.length, p.blocking, p.tier, p.scheduled, p.crashes)
	for _, f := range found {
		fmt.Fprintln(w, "BROKEN", f)
	}
	h.print(w)
}

// TestSeed runs one plan, and shows it.
func TestSeed(t *testing.T) {
	if *only == 0 {
		t.Skip("no -seed")
	}
	p := draw(*only)
	if *plain {
		p = sketch(*only)
	}
	h, met := p.run(t)
	h.report(os.Stdout, p, nil)
	t.Log(met)
	judge(t, p, h)
}

// possible reports whether a seed's plan can run in this build.
func possible(seed uint64) bool {
	return seed%3 == 0 || builtWith("synctests")
}

// builtWith reports whether the test was built with a tag.
func builtWith(tag string) bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool {
		return s.Key == "-tags" && slices.Contains(strings.Split(s.Value, ","), tag)
	})
}
