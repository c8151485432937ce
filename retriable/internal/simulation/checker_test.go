package simulation

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// good is a history in which all is well: two records on one partition; a succeeds, b fails once and succeeds from the retry topic.
func good() *history {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	base := func(offset int64) place { return place{"orders", 0, offset} }
	copied := place{"orders.retry", 0, 0}
	return &history{
		most: 3, keyed: true,
		base: []written{
			{place: base(0), id: "a", attempt: 1, first: 1, fate: fate{end: succeeds}},
			{place: base(1), id: "b", attempt: 1, first: 1, fate: fate{fails: 1, end: succeeds}},
		},
		copies: []written{{place: copied, id: "b", attempt: 2, due: 30, at: ms(20)}},
		events: []event{
			{at: ms(0), kind: assigned, life: 1, place: base(0)},
			{at: ms(0), kind: assigned, life: 1, place: copied},
			{at: ms(10), kind: began, life: 1, place: base(0), id: "a", key: "k", attempt: 1, clock: 10},
			{at: ms(15), kind: ended, life: 1, place: base(0), id: "a", attempt: 1, outcome: succeeds},
			{at: ms(16), kind: began, life: 1, place: base(1), id: "b", key: "k", attempt: 1, clock: 16},
			{at: ms(20), kind: ended, life: 1, place: base(1), id: "b", attempt: 1, outcome: fails},
			{at: ms(21), kind: retried, life: 1, place: base(1)},
			{at: ms(25), kind: commits, life: 1, place: base(2)},
			{at: ms(25), kind: committed, life: 1, place: base(2)},
			{at: ms(30), kind: began, life: 1, place: copied, id: "b", key: "k", attempt: 2, clock: 30},
			{at: ms(31), kind: ended, life: 1, place: copied, id: "b", attempt: 2, outcome: succeeds},
			{at: ms(35), kind: commits, life: 1, place: place{"orders.retry", 0, 1}},
			{at: ms(35), kind: committed, life: 1, place: place{"orders.retry", 0, 1}},
			{at: ms(40), kind: drained, life: 1, place: base(0)},
			{at: ms(40), kind: drained, life: 1, place: copied},
		},
	}
}

func TestTheCheckerFindsNothingWhereAllIsWell(t *testing.T) {
	if found := check(good()); len(found) > 0 {
		t.Error(strings.Join(found, "\n"))
	}
}

// TestTheCheckerFindsWhatIsBroken breaks one thing at a time in a good history.
func TestTheCheckerFindsWhatIsBroken(t *testing.T) {
	at := func(h *history, k kind, topic string, nth int) *event {
		for i := range h.events {
			if e := &h.events[i]; e.kind == k && e.place.topic == topic {
				if nth == 0 {
					return e
				}
				nth--
			}
		}
		panic(fmt.Sprint("no such event: ", k, topic))
	}
	again := func(h *history, e event, outcome ending) { // the record of e is handled once more, right behind it
		begin, end := e, e
		begin.kind, end.kind, end.outcome = began, ended, outcome
		end.at += time.Millisecond
		i := slices.IndexFunc(h.events, func(x event) bool { return x.at > e.at })
		h.events = slices.Insert(h.events, i, begin, end)
	}
	for name, w := range map[string]struct {
		breaks func(h *history)
		want   string
	}{
		"a record never succeeds":      {func(h *history) { at(h, ended, "orders", 0).outcome = "" }, "I1: a is lost"},
		"its result came too late":     {func(h *history) { at(h, ended, "orders", 0).flag = true }, "I1: a is lost"},
		"a record ends otherwise":      {func(h *history) { at(h, ended, "orders", 0).outcome = dropped }, `should have ended as "done", and ended as "dropped"`},
		"a dead letter nobody wanted":  {func(h *history) { h.letters = append(h.letters, written{id: "a", attempt: 1}) }, `and ended as "dead"`},
		"a dead letter of nothing":     {func(h *history) { h.letters = append(h.letters, written{id: "x", attempt: 1}) }, "never produced"},
		"a record out of nowhere":      {func(h *history) { at(h, began, "orders", 0).id = "x" }, "never produced"},
		"something is left in the end": {func(h *history) { h.wedged = "orders/0: 1 of 2" }, "not everything is committed"},
		"a commit passes what runs":    {func(h *history) { at(h, commits, "orders", 0).at = 18 * time.Millisecond }, "I2: m1 committed orders/0@2"},
		"a map claims what runs": {func(h *history) {
			*at(h, commits, "orders", 0) = event{at: 12e6, kind: commits, life: 1, place: place{"orders", 0, 0}, runs: []run{{1, 2}}}
		}, "I2: m1 committed orders/0@0, map [{1 2}]"},
		"a commit passes an unacked copy": {func(h *history) { at(h, retried, "orders", 0).kind = fault }, "I2"},
		"a commit goes back": {func(h *history) {
			h.events = append(h.events[:9:9], append([]event{{at: 26e6, kind: commits, life: 1, place: place{"orders", 0, 1}}}, h.events[9:]...)...)
		}, "went back"},
		"a commit after the fence": {func(h *history) { at(h, drained, "orders", 0).at = 22 * time.Millisecond }, "I3: m1 committed"},
		"a start after the fence": {func(h *history) {
			at(h, drained, "orders.retry", 0).at = 1
			slices.SortStableFunc(h.events, func(a, b event) int { return int(a.at - b.at) })
		}, "I3: orders.retry/0@0 began"},
		"two owners in one":              {func(h *history) { h.events = slices.Insert(h.events, 2, h.events[0]) }, "twice"},
		"the same again, in one tenure":  {func(h *history) { again(h, *at(h, began, "orders", 0), succeeds) }, "I5: orders/0@0 (a) began"},
		"what was committed comes again": {func(h *history) { h.takeOver(0) }, "its first owner had committed it"},
		"what the map says comes again":  {func(h *history) { h.takeOver(0).runs = []run{{0, 1}} }, "though the map"},
		"below where its reading began":  {func(h *history) { h.takeOver(2) }, "below where its reading began"},
		"two of a key at once":           {func(h *history) { at(h, ended, "orders", 0).at = 17 * time.Millisecond }, "I6: b began"},
		"two of a key out of turn":       {func(h *history) { h.base[0].place.offset = 1; h.base[1].place.offset = 0; h.swap() }, "I6"},
		"an attempt before it is due":    {func(h *history) { h.copies[0].due = 31 }, "I7: attempt 2 of b"},
		"an attempt number is wrong":     {func(h *history) { at(h, began, "orders.retry", 0).attempt = 1 }, "I8: attempt 1 of b"},
		"an attempt past the last":       {func(h *history) { h.most = 1 }, "I8"},
		"a copy without a failure": {func(h *history) {
			h.copies = append(h.copies, written{place: place{"orders.retry", 0, 1}, id: "a", attempt: 2})
		}, "none before it had failed"},
		"two copies of one failure": {func(h *history) {
			h.copies = append(h.copies, written{place: place{"orders.retry", 0, 5}, id: "b", attempt: 2, at: 21e6})
		}, "2 copies"},
		"a letter with a wrong count": {func(h *history) { h.base[0].fate = fate{end: refused}; h.letters = []written{{id: "a", attempt: 3}} }, "I8: the dead letter of a tells of 3"},
		"a start while it is paused": {func(h *history) {
			h.events = slices.Insert(h.events, 2, event{at: 1e6, kind: pausing, life: 1}, event{at: 50e6, kind: resuming, life: 1})
		}, "Pause: orders/0@0 began"},
		"a start from the retry topic while the base topic is paused": {func(h *history) {
			h.events = slices.Insert(h.events, 9, event{at: 26e6, kind: pausing, life: 1, place: place{topic: "orders"}})
		}, "Pause: orders.retry/0@0 began"},
		"a chunk is not resolved": {func(h *history) {
			h.base[1].batch, h.base[1].place.offset = 2, 1
			at(h, commits, "orders", 0).place.offset = 3
			at(h, retried, "orders", 0).at = 26 * time.Millisecond
		}, "with orders/0@2 unresolved"},
		"a scheduled record before it is due": {func(h *history) { h.base[0].due = 11 }, "I7: attempt 1 of a"},
		"a retry in place too soon":           {func(h *history) { h.retryInPlace(50 * time.Millisecond) }, "I7: attempt 2 of a in place"},
		"a retry in place of another number": {func(h *history) {
			h.retryInPlace(0)
			h.each(began, func(e *event) { e.attempt = 1 })
		}, "I8: attempt 1 of a at orders/0@0, want 2"},
		"more retries in place than there are": {func(h *history) { h.retryInPlace(0); h.blocking = 0 }, "I5: orders/0@0 (a) began"},
		"another of its key between two retries in place": {func(h *history) {
			h.retryInPlace(0)
			again, end := h.events[4], h.events[5]
			again.at, end.at = 20e6, 20e6
			h.events = slices.Insert(slices.Delete(h.events, 4, 6), 6, again, end)
		}, "I6"},
		"given up without a crash": {func(h *history) {
			h.crashes = 2
			h.events = slices.Insert(h.events, 4, event{at: 15e6, kind: buried, life: 1, place: place{"orders", 0, 0}, id: "a", outcome: condemned})
		}, "MaxCrashes(2): a at orders/0@0 was given up after 0 crashes; noted before one of them: false"},
		"what kills its process ends well": {func(h *history) { h.base[0].kills = true }, "I1: a is lost"},
		"a hop before its stay is over": {func(h *history) {
			h.tier, h.moves = 2*time.Second, true
			for i, at := range []time.Duration{22e6, 23e6} {
				h.copies = append(h.copies, written{hop: true, place: place{tierTopic, 0, int64(i)}, id: "b", attempt: 2, due: 30, at: at})
				h.events = append(h.events, event{at: at + time.Millisecond, kind: moved, life: 1, place: place{tierTopic, 0, int64(i)}})
			}
		}, "hops on after 1ms"},
		"other bytes than were produced":  {func(h *history) { at(h, began, "orders", 0).text = "its key is \"x\"" }, "its key is"},
		"a second owner beside the first": {func(h *history) { h.takeOver(0); at(h, drained, "orders", 0).kind = fault; h.calm() }, "had not given it up"},
		"a former owner that dies, with no trouble before": {func(h *history) {
			h.takeOver(0)
			h.formerOwner(event{kind: resuming}, event{kind: crashed})
			h.calm()
		}, "I5: orders/0@0 (a) began"},
		"resolved, and no commit tells it": {func(h *history) { h.takeOver(0); at(h, committed, "orders", 0).kind = "" }, "no commit told"},
		"its commit leaves it out":         {func(h *history) { h.takeOver(0); at(h, commits, "orders", 0).place.offset = 0 }, "no commit told"},
		"left out, for no reason":          {func(h *history) { at(h, committed, "orders", 0).cut = true }, "no broker had refused it"},
		"left out, and told all the same": {func(h *history) {
			h.takeOver(0)
			h.narrow, at(h, committed, "orders", 0).cut = true, true
		}, "its first owner had committed it"},
		"resolved a moment before its drain was over": {func(h *history) {
			h.overrun()
			at(h, ended, "orders", 0).at -= time.Microsecond
		}, "no commit told"},
	} {
		t.Run(name, func(t *testing.T) {
			h := good()
			w.breaks(h)
			found := strings.Join(check(h), "\n")
			if !strings.Contains(found, w.want) {
				t.Errorf("want %q, found:\n%s", w.want, found)
			}
		})
	}
}

// TestTheCheckerKnowsWhatExplainsARepeat is the other side: these are no violations.
func TestTheCheckerKnowsWhatExplainsARepeat(t *testing.T) {
	for name, excuse := range map[string]func(h *history){
		"its owner crashed":     func(h *history) { h.replace(drained, crashed) },
		"the partition is lost": func(h *history) { h.each(drained, func(e *event) { e.flag = true }) },
		"its commit is refused": func(h *history) { h.each(committed, func(e *event) { e.flag = true }) },
		"its commit had no room for it": func(h *history) {
			h.narrow = true
			h.each(commits, func(e *event) { e.place.offset = 0 })
			h.each(committed, func(e *event) { e.cut = true })
		},
		"an owner after the first had no room for it": func(h *history) {
			h.narrow = true
			p := place{"orders", 0, 0}
			h.events = slices.Insert(h.events, 15,
				event{at: 45e6, kind: assigned, life: 3, place: place{"orders", 0, 2}},
				event{at: 46e6, kind: commits, life: 3, place: p},
				event{at: 46e6, kind: committed, life: 3, place: p, cut: true},
				event{at: 48e6, kind: drained, life: 3, place: p})
		},
		"its owner had been cut off, and did not know yet that it was counted out": func(h *history) {
			h.formerOwner(event{kind: cut}, event{kind: drained, flag: true})
		},
		"its owner had been cut off, and died before it knew that it was counted out": func(h *history) {
			h.formerOwner(event{kind: cut}, event{kind: crashed})
		},
		"it returned in the moment in which its drain was over": func(h *history) { h.overrun() },
		"it had resolved it in the moment in which it got it again": func(h *history) {
			p := place{"orders", 0, 0}
			h.each(committed, func(e *event) { e.flag = true })
			h.events = slices.Insert(h.events, 15,
				event{at: 40e6, kind: assigned, life: 1, place: p},
				event{at: 40e6, kind: began, life: 1, place: p, id: "a", key: "k", attempt: 1, clock: 41},
				event{at: 43e6, kind: ended, life: 1, place: p, id: "a", outcome: succeeds, flag: true},
				event{at: 43e6, kind: drained, life: 1, place: p})
			at := &h.events[3]
			at.at = 40e6
		},
		"only an earlier owner, who crashed, had resolved it": func(h *history) {
			p := place{"orders", 0, 0}
			h.replace(drained, crashed)
			h.events = slices.Insert(h.events, 15,
				event{at: 45e6, kind: assigned, life: 3, place: p},
				event{at: 46e6, kind: began, life: 3, place: p, id: "a", key: "k", attempt: 1, clock: 46},
				event{at: 47e6, kind: committed, life: 3, place: p},
				event{at: 48e6, kind: drained, life: 3, place: p})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := good()
			h.takeOver(0)
			excuse(h)
			for _, f := range check(h) {
				if strings.HasPrefix(f, "I5") {
					t.Error(f)
				}
			}
		})
	}
}

// formerOwner has a member that began before the others, and of which something was heard, handle a record in the end and then leave in some way.
func (h *history) formerOwner(heard, leaves event) {
	p := place{"orders", 0, 0}
	heard.at, heard.life, leaves.at, leaves.life, leaves.place = 1e6, 3, 54e6, 3, p
	h.events = slices.Insert(h.events, 0, event{at: -1, kind: assigned, life: 3, place: p}, heard)
	h.events = append(h.events, event{at: 53e6, kind: began, life: 3, place: p, id: "a", key: "k", attempt: 1, clock: 53}, leaves)
	h.each(began, func(e *event) {
		if e.life == 2 {
			e.kind = resuming
		}
	})
}

// takeOver has a second member begin at an offset, and handle a once more. It returns its assignment.
func (h *history) takeOver(from int64) *event {
	p := place{"orders", 0, 0}
	n := len(h.events)
	h.events = append(h.events,
		event{at: 50e6, kind: assigned, life: 2, place: place{"orders", 0, from}},
		event{at: 51e6, kind: began, life: 2, place: p, id: "a", key: "k", attempt: 1, clock: 51},
		event{at: 52e6, kind: ended, life: 2, place: p, id: "a", attempt: 1, outcome: succeeds})
	return &h.events[n]
}

// retryInPlace has a fail once and succeed in place, of two attempts in place at most, that are to wait for so long.
func (h *history) retryInPlace(pause time.Duration) {
	h.blocking, h.pause = 2, pause
	h.base[0].fate.fails = 1
	h.events[3].outcome = fails
	again, end := h.events[2], h.events[3]
	again.at, again.attempt, again.clock, end.outcome = h.events[3].at, 2, 15, succeeds
	h.events = slices.Insert(h.events, 4, again, end)
}

// overrun has a return in the very moment in which the drain of its partition is over, untold by any commit, and a second member begin there.
func (h *history) overrun() {
	h.drain = 20 * time.Millisecond
	h.each(commits, func(e *event) { e.place.offset = 0 })
	h.each(drained, func(e *event) { e.count = int64(h.drain) })
	h.events[3].at = 40 * time.Millisecond
	if h.events[len(h.events)-1].life == 1 {
		h.takeOver(0)
	}
}

func (h *history) each(k kind, f func(*event)) {
	for i := range h.events {
		if h.events[i].kind == k {
			f(&h.events[i])
		}
	}
}

func (h *history) replace(a, b kind) { h.each(a, func(e *event) { e.kind = b }) }

// calm takes away what would explain anything.
func (h *history) calm() {
	h.events = slices.DeleteFunc(h.events, func(e event) bool { return e.kind == fault })
}

// swap exchanges the offsets of the two base records in what happened.
func (h *history) swap() {
	for i := range h.events {
		if e := &h.events[i]; e.place.topic == "orders" && e.id != "" {
			e.place.offset = 1 - e.place.offset
		}
	}
}
