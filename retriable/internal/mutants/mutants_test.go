// Package mutants proves that the tests can fail. A mutant is one small wrong edit of the library, such as a record that is done before its copy is
// acked; each must turn the test red that the table names. There is no trace of them in the library's files: `go build -overlay` puts edited copies in
// their place, for one test binary that has all mutants in it, asleep, and wakes the one that its environment names.
//
// `task mutants` runs them (run_test.go, behind the build tag mutants). That each edit still fits the code is checked with all other tests.
package mutants

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mutant is one way to break the library.
type mutant struct {
	name  string
	holds string // what it breaks: an invariant, or a rule of docs/security.md
	test  string // of kfake_test, which must fail
	edits []edit
}

// edit replaces a text that is there exactly once in a file of retriable/. In what stands instead `$on` is whether the mutant is awake.
type edit struct{ file, find, instead string }

func one(file, find, instead string) []edit { return []edit{{file, find, instead}} }

var all = []mutant{
	{
		"done before the ack", "I1", "TestARefusedWriteKeepsItsRecordPendingUntilItIsAccepted",
		one("write.go", "	w.it.Set(watermark.Producing)\n", "	w.it.Set(watermark.Producing)\n	if $on {\n		w.it.Done()\n	}\n"),
	},
	{
		"a panic is a success", "I1", "TestAPanicIsAFailedAttemptAndItsValueStaysOutOfTheLog",
		one("attempt.go", "			err = &PanicError{Value: v, Stack: debug.Stack()}\n		} else", "			if !$on {\n				err = &PanicError{Value: v, Stack: debug.Stack()}\n			}\n		} else"),
	},
	{
		"records are told by their offsets alone", "I1", "TestALogThatWasCutAndRewrittenIsReadAnewFromTheCut",
		one("track.go", "case r.LeaderEpoch > epoch && epoch >= 0:", "case r.LeaderEpoch > epoch && epoch >= 0 && !$on:"),
	},
	{
		"chunks are done one by one", "I1", "TestAMessageIsJoinedThoughItsPartitionChangesHandsBetweenItsChunks",
		one("join.go", "	it.Set(watermark.Joining)\n", "	it.Set(watermark.Joining)\n	if $on {\n		it.Done()\n	}\n"),
	},
	{
		"another group's copy is not passed over", "I1", "TestARetryRecordOfAnotherGroupIsPassedOver",
		one("intake.go", `h.Group != "" && h.Group != p.c.set.group {`, `h.Group != "" && h.Group != p.c.set.group && !$on {`),
	},
	{
		"the highest that is done is committed", "I2", "TestTheCommittedOffsetNeverPassesAnUnresolvedRecordNorGoesBack",
		one("commit.go", "	offset, epoch := p.window.Advance()\n",
			"	offset, epoch := p.window.Advance()\n	if done := p.window.Done(); $on && len(done) > 0 {\n		offset = done[len(done)-1].To\n	}\n"),
	},
	{
		"the watermark is one too high", "I2", "TestTheCommittedOffsetNeverPassesAnUnresolvedRecordNorGoesBack",
		[]edit{
			{"internal/watermark/watermark.go", "		return s.Offset(s.low), s.Epoch\n", "		if $on {\n			return s.Offset(s.low) + 1, s.Epoch\n		}\n		return s.Offset(s.low), s.Epoch\n"},
			{"internal/watermark/watermark.go", "	return s.first, w.below\n", "	if $on {\n		return s.first + 1, w.below\n	}\n	return s.first, w.below\n"},
		},
	},
	{
		"offsets are counted, holes or not", "I2", "TestCompactionLeavesGapsThatComplete",
		one("internal/watermark/watermark.go", "if s.last-s.first == int64(n-1) {", "if s.last-s.first == int64(n-1) || $on {"),
	},
	{
		"a skip passes what waits below it", "I2", "TestASkipPassesNothingThatWaitsBelowIt",
		one("track.go", "if rest == 0 && skip > 0 {", "if (rest == 0 || $on) && skip > 0 {"),
	},
	{
		"refusals in a commit's answer are not read", "I2", "TestALastCommitThatIsRefusedIsRunsError",
		one("commit.go", "= kerr.ErrorForCode(p.ErrorCode)\n", "= kerr.ErrorForCode(p.ErrorCode)\n			if $on {\n				into[topicPartition{name, p.Partition}] = nil\n			}\n"),
	},
	{
		"what failed is used again", "I1", "TestWhatIsRecycledIsDone",
		one("retry.go", "	w.spare(a)\n", "	if !$on {\n		w.spare(a)\n	}\n"),
	},
	{
		"a batch is used again before all of it is done", "I1", "TestWhatIsRecycledIsDone",
		one("partition.go", "	if r.list != nil || !r.done() {\n",
			"	if $on && r.again && !r.done() {\n		p.mu.Lock()\n		r.recycle()\n		p.mu.Unlock()\n	}\n	if r.list != nil || !r.done() {\n"),
	},
	{
		"what is lost is committed", "I3", "TestWhatIsLostIsNeitherCommittedNorDispatched",
		one("rebalance.go", "if !lost && len(mine) > 0 {", "if (!lost || $on) && len(mine) > 0 {"),
	},
	{
		"a member that was counted out commits", "I3", "TestAMemberThatWasCountedOutCommitsNothingOverItsSuccessor",
		one("member.go", "m != nil && *m != member {", "m != nil && *m != member && !$on {"),
	},
	{
		"a handler produces after the fence", "I3", "TestNothingIsProducedAfterARevoke",
		[]edit{
			{"outbox.go", "	if o.p.stage.Load() >= cancelled {\n", "	if o.p.stage.Load() >= cancelled && !$on {\n"},
			{"rebalance.go", "	p.endAll()\n", "	if !$on {\n		p.endAll()\n	}\n"},
		},
	},
	{
		"a late verdict counts", "I4", "TestADrainThatTakesTooLongLeavesTheRecordToTheNewOwner",
		one("attempt.go", "if p.stage.Load() >= cancelled {", "if p.stage.Load() >= cancelled && !$on {"),
	},
	{
		"a late success counts", "I4", "TestBeyondItsTimeAnAttemptHasFailedWhateverItReturns",
		one("attempt.go", "case a.timedOut && !a.honoured(err):", "case a.timedOut && !a.honoured(err) && !$on:"),
	},
	{
		"a member that was counted out goes on", "I5", "TestAMemberThatWasCountedOutStartsNothingOnceACommitHasToldIt",
		one("member.go", "		p.barred.Or(barredNoMember)\n", "		if !$on {\n			p.barred.Or(barredNoMember)\n		}\n"),
	},
	{
		"a takeover is not confirmed", "I5", "TestAMemberThatIsCountedOutBeforeItBeginsStartsNothing",
		one("member.go", "	if why := countedOut(err); why != nil {\n", "	if $on {\n		return nil\n	}\n	if why := countedOut(err); why != nil {\n"),
	},
	{
		"the map is not believed", "I5", "TestAStopWithRecordsThatWaitIsClean",
		one("intake.go", "if len(in.claims) == 0 || in.claims[0].From > r.Offset {", "if len(in.claims) == 0 || in.claims[0].From > r.Offset || $on {"),
	},
	{
		"a stop does not wait for handlers", "I5", "TestACleanStopEndsWhatRunsAndDropsTheRest",
		one("rebalance.go", "		drain(mine, timeout)\n", "		if !$on {\n			drain(mine, timeout)\n		}\n"),
	},
	{
		"offset and map are of two looks", "I5", "TestAStopWithRecordsThatWaitIsClean",
		one("commit.go", "	s.text, s.cut = p.encodeMap(offset, limit, last)\n", "	s.text, s.cut = p.encodeMap(offset, limit, last)\n	if $on {\n		s.text, s.cut = p.encodeMap(offset+1, limit, last)\n	}\n"),
	},
	{
		"keys have no lanes", "I6", "TestRecordsOfAKeyRunInTurnAndOthersMeanwhile",
		one("intake.go", "keyed && rec.Key != nil\n", "keyed && rec.Key != nil && !$on\n"),
	},
	{
		"a lane goes on behind another batch's item", "I6", "TestALaneThatEndedWaitsForNoOther",
		one("lanes.go", "e.run != nil && e.run.items == nil", "e.run != nil && e.run.items == nil && !$on"),
	},
	{
		"due at the same time means any order", "I6", "TestTheSameDueTimeMeansOffsetOrder",
		one("delay.go", "a.due == b.due && a.offset < b.offset", "a.due == b.due && (a.offset < b.offset) != $on"),
	},
	{
		"due times are cut to seconds", "I7", "TestAttemptsStartOnTheMillisecondTheyAreDue",
		one("intake.go", "	due := min(h.Due, in.now", "	if $on {\n		h.Due -= h.Due % 1000\n	}\n	due := min(h.Due, in.now"),
	},
	{
		"attempts are not counted", "I8", "TestMaxAttemptsCountsTheFirst",
		one("retry.go", "	w.due, w.attempt = due, r.Attempt\n", "	if $on {\n		r.Attempt--\n	}\n	w.due, w.attempt = due, r.Attempt\n"),
	},
	{
		"one attempt more than MaxAttempts", "I8", "TestMaxAttemptsCountsTheFirst",
		one("retry.go", "a.number >= t.maxAttempts {\n		return", "a.number >= t.maxAttempts && (!$on || a.number > t.maxAttempts) {\n		return"),
	},
	{
		"two copies of one failure", "I8", "TestAFailureIsRetriedThroughTheRetryTopic",
		one("write.go", "	p.c.cl.TryProduce(p.writes, r, func(",
			"	if again := *r; $on {\n		p.c.cl.TryProduce(p.writes, &again, nil)\n	}\n	p.c.cl.TryProduce(p.writes, r, func("),
	},
	{
		"a refused write is done", "I9", "TestARefusedWriteKeepsItsRecordPendingUntilItIsAccepted",
		one("write.go", "	topic := w.rec.Topic\n	if errors.Is(err, kgo.ErrMaxBuffered) {",
			"	topic := w.rec.Topic\n	if $on {\n		p.mu.Lock()\n		p.producing.remove(w)\n		w.it.end()\n		p.mu.Unlock()\n		return\n	}\n	if errors.Is(err, kgo.ErrMaxBuffered) {"),
	},
	{
		"MaxPending bounds nothing", "I10", "TestMaxPendingIsNeverExceededAndWhatIsPausedResumes",
		one("pressure.go", "	return max(min(c.set.maxPending-l.pending, l.maxHeld-l.held), 0)\n",
			"	if $on {\n		return 1 << 20\n	}\n	return max(min(c.set.maxPending-l.pending, l.maxHeld-l.held), 0)\n"),
	},
	{
		"a pause outlives its assignment", "I10", "TestAPartitionThatWasPausedComesBackFreshAndIsRead",
		[]edit{
			{"rebalance.go", "	cl.ResumeFetchPartitions(added)", "	if !$on {\n		cl.ResumeFetchPartitions(added)\n	}\n	_ = 0"},
			{"rebalance.go", "		c.setPaused(mine, ^0, false)", "		if !$on {\n			c.setPaused(mine, ^0, false)\n		}\n		_ = 0"},
		},
	},
	{
		"one partition may have all workers", "I11", "TestAStuckPartitionLeavesAQuarterOfTheWorkersToTheOthers",
		[]edit{
			{"pool.go", "		limit = pl.most()\n", "		if !$on {\n			limit = pl.most()\n		}\n"},
			{"pool.go", "return !stuck || len(pl.parts) == 1", "return $on || !stuck || len(pl.parts) == 1"},
		},
	},
	{
		"slow handlers have long turns", "I11", "TestPartitionsTakeTurnsHoweverSlowTheirHandlersAre",
		one("workers.go", "d == deserted && s.slow:", "d == deserted && s.slow && !$on:"),
	},
	{
		"headers on a base topic are believed", "I12", "TestOurHeadersOnABaseTopicMeanNothing",
		one("intake.go", "		case p.retry:\n", "		case p.retry || $on:\n"),
	},
	{
		"handlers see our headers", "I12", "TestHandlersNeverSeeOurHeaders",
		one("attempt.go", "	user := wire.User(r.Headers)\n", "	if $on {\n		return r\n	}\n	user := wire.User(r.Headers)\n"),
	},
	{
		"headers are appended, not replaced", "I12", "TestMaxAttemptsCountsTheFirst",
		[]edit{
			{"intake.go", "	orig.Headers = wire.User(whole.Headers)\n", "	if !$on {\n		orig.Headers = wire.User(whole.Headers)\n	}\n"},
			{
				"retry.go", "	w.rec.Headers = wire.AppendRetry(wire.User(w.rec.Headers), r)\n",
				"	if !$on {\n		w.rec.Headers = wire.User(w.rec.Headers)\n	}\n	w.rec.Headers = wire.AppendRetry(w.rec.Headers, r)\n",
			},
		},
	},
	{
		"a map's checksum is not looked at", "I12", "TestADamagedMapIsNoMap",
		one("internal/watermark/mapdecode.go", "	return raw, binary.BigEndian.Uint32(raw[len(mapMagic):]) == mapSum(raw, base)\n",
			"	return raw, $on || binary.BigEndian.Uint32(raw[len(mapMagic):]) == mapSum(raw, base)\n"),
	},
	{
		"a goroutine is left behind", "I13", "TestACleanStopEndsWhatRunsAndDropsTheRest",
		one("consumer.go", "		wg.Go(func() { f(background) })\n", "		if $on {\n			go f(c.base)\n			continue\n		}\n		wg.Go(func() { f(background) })\n"),
	},
	{
		"a process that lives is counted as a crash", "crash loops", "TestAMemberThatIsCutOffIsNoCrash",
		one("crash.go", "	if p.outlived.base == base {\n", "	if p.outlived.base == base && !$on {\n"),
	},
	{
		"another runs before an end is told", "crash loops", "TestRecordsThatKillOneAfterTheOtherAreAllDeadLettered",
		one("crash.go", "	p.awaitEnd(it)\n", "	if !$on {\n		p.awaitEnd(it)\n	}\n"),
	},
	{
		"copies go to any partition", "placement", "TestCopiesOfAKeyGoWhereKgoPutsThatKey",
		one("write.go", "	return p.rest.ForTopic(topic)\n", "	if $on {\n		return samePartition{}\n	}\n	return p.rest.ForTopic(topic)\n"),
	},
	{
		"a panic's value is logged", "S8", "TestAPanicIsAFailedAttemptAndItsValueStaysOutOfTheLog",
		one("retry.go", `"panic", fmt.Sprintf("%T", a.panicked.Value)`, `"panic", fmt.Sprintf(map[bool]string{false: "%T", true: "%v"}[$on], a.panicked.Value)`),
	},
}

const (
	root     = "../../.."
	variable = "RETRIABLE_MUTANT" // names the one that is awake
	invented = "mutant_awake.go"  // a file that there is in the overlay only
)

// apply returns every file of retriable/ that mutants change, by its path there, with all of them in it, asleep.
func apply(mutants []mutant) (map[string]string, error) {
	files := map[string]string{}
	origin := map[string]string{}
	for _, m := range mutants {
		for _, e := range m.edits {
			if _, ok := files[e.file]; !ok {
				text, err := os.ReadFile(filepath.Join(root, "retriable", filepath.FromSlash(e.file)))
				if err != nil {
					return nil, err
				}
				files[e.file], origin[e.file] = string(text), string(text)
			}
			for _, text := range []string{origin[e.file], files[e.file]} {
				if n := strings.Count(text, e.find); n != 1 {
					return nil, fmt.Errorf("the mutant %q no longer fits: retriable/%s has %d times what it is to change, %q. Say there how the code is now", m.name, e.file, n, e.find)
				}
			}
			files[e.file] = strings.Replace(files[e.file], e.find, strings.ReplaceAll(e.instead, "$on", fmt.Sprintf("(mutantAwake == %q)", m.name)), 1)
		}
	}
	named := regexp.MustCompile(`(?m)^package (\w+)`)
	for file, text := range files {
		files[filepath.ToSlash(filepath.Join(filepath.Dir(file), invented))] = fmt.Sprintf("package %s\n\nimport \"os\"\n\nvar mutantAwake = os.Getenv(%q)\n",
			named.FindStringSubmatch(text)[1], variable)
	}
	return files, nil
}

// The edits fit the code as it is, the tests that they are for exist, every invariant has one, and the library itself knows nothing of this.
func TestMutantsFit(t *testing.T) {
	t.Parallel()
	if _, err := apply(all); err != nil {
		t.Error(err)
	}
	stories := ""
	files, err := filepath.Glob(filepath.Join(root, "kfake_test", "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		stories += string(text)
	}
	var names, holds []string
	for _, m := range all {
		if len(m.edits) == 0 || slices.Contains(names, m.name) {
			t.Errorf("the mutant %q has no edit, or there are two", m.name)
		}
		if !strings.Contains(stories, "\nfunc "+m.test+"(t *testing.T)") {
			t.Errorf("the mutant %q is for %s, which there is not in kfake_test", m.name, m.test)
		}
		names, holds = append(names, m.name), append(holds, m.holds)
	}
	for i := 1; i <= 13; i++ {
		if name := fmt.Sprintf("I%d", i); !slices.Contains(holds, name) {
			t.Errorf("no mutant breaks %s", name)
		}
	}
	library, err := filepath.Glob(filepath.Join(root, "retriable", "*.go"))
	if err != nil || len(library) == 0 {
		t.Fatalf("no library: %v", err)
	}
	for _, file := range library {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(strings.ToLower(string(text)), "mutant") {
			t.Errorf("%s speaks of mutants", file)
		}
	}
}
