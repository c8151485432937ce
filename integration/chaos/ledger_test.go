package chaos_test

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/retriable-kafka/retriable-go/integration/chaos"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// What several goroutines and several openings of one file write is all there, each line whole.
func TestALedgerKeepsWhatIsWritten(t *testing.T) {
	const writers, each = 8, 200
	path := filepath.Join(t.TempDir(), "ledger")
	var wg sync.WaitGroup
	for i := range writers {
		l, err := chaos.OpenLedger(path)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for j := range each {
				l.Write(chaos.Event{
					Kind: chaos.Start, ID: int64(i), Attempt: j, N: -1, Text: "two\nlines and \"quotes\" \xff",
					At: retriable.Position{Topic: "orders", Partition: 3, Offset: int64(j)},
				})
			}
		})
	}
	wg.Wait()
	events, err := chaos.ReadLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != writers*each {
		t.Errorf("%d events, want %d", len(events), writers*each)
	}
	next := make([]int, writers)
	for _, e := range events {
		if e.Attempt != next[e.ID] || e.At.Offset != int64(e.Attempt) || e.At.Partition != 3 || e.N != -1 || e.Text != "two\nlines and \"quotes\" \xff" {
			t.Fatalf("not what was written: %v", e)
		}
		next[e.ID]++
	}
}

// A ledger that was tampered with, or is none, is no evidence.
func TestADamagedLedgerIsRefused(t *testing.T) {
	for _, text := range []string{
		"1 start 2 3 orders 0 0 0\n", "x start 2 3 orders 0 0 0 \"\"\n", "1 start 2 3 orders 0 0 0 \"\n", "1 start 2 3 orders 0 0 0 \"\"\n1 st",
	} {
		path := filepath.Join(t.TempDir(), "ledger")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if events, err := chaos.ReadLedger(path); err == nil {
			t.Errorf("%q is read as %v", text, events)
		}
	}
}

// A plan is a function of its seed, applies each point before any comes again, and differs from others.
func TestAPlanIsAFunctionOfItsSeed(t *testing.T) {
	plan := func(seed, stream uint64) []chaos.Fault { return chaos.ProcessPlan(seed, stream, 60, 3, session) }
	if !slices.Equal(plan(1, 0), plan(1, 0)) || slices.Equal(plan(1, 0), plan(2, 0)) || slices.Equal(plan(1, 0), plan(1, 1)) {
		t.Error("plans of one seed differ, or of two seeds do not")
	}
	kinds, points, halts := map[chaos.FaultKind]int{}, map[string]int{}, map[string]int{}
	for _, f := range plan(1, 0) {
		kinds[f.Kind]++
		switch f.Kind {
		case chaos.Point:
			points[f.Point]++
		case chaos.Halt:
			halts[f.Point]++
		default:
		}
		if (f.Kind == chaos.Zombie || f.Kind == chaos.Halt) && f.For <= session || f.Kind == chaos.Nap && f.For >= session {
			t.Errorf("%v: the session is %v", f, session)
		}
	}
	for _, p := range chaos.Points {
		if points[p] == 0 {
			t.Errorf("no death at %q", p)
		}
	}
	for _, p := range chaos.HaltPoints {
		if halts[p] == 0 {
			t.Errorf("no halt at %q", p)
		}
	}
	kinds = map[chaos.FaultKind]int{}
	for _, f := range slices.Concat(chaos.BrokerPlan(1, 0, 11), chaos.MemberPlan(1, 0, 10, 2)) {
		kinds[f.Kind]++
	}
	for _, k := range []chaos.FaultKind{chaos.BrokerKill, chaos.LeaderKill, chaos.CoordKill, chaos.BrokerPause, chaos.Quorum, chaos.BrokerRoll, chaos.Deny, chaos.NetCut, chaos.Kill} {
		if kinds[k] == 0 {
			t.Errorf("no %s in the smallest plan", k)
		}
	}
}
