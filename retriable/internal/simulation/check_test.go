package simulation

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// check says what of the invariants a history breaks. It knows nothing but the history.
func check(h *history) []string {
	c := &checker{
		history: h, resolved: map[place]time.Duration{}, told: map[place][]telling{}, by: map[int]*tenure{}, span: map[place]int64{}, dues: map[place]int64{}, given: map[string]bool{},
	}
	for _, w := range h.base {
		c.dues[w.place] = w.due
		if w.id != "" {
			c.span[w.place] = w.batch
		}
	}
	c.index()
	c.paused()
	c.condemned()
	c.hops()
	c.accounts()
	c.attempts()
	c.turns()
	c.offsets()
	c.repeats()
	if h.wedged != "" {
		c.bad("I1: not everything is committed in the end: %s", h.wedged)
	}
	return c.found
}

type checker struct {
	*history
	tenures  []*tenure
	starts   []*start
	resolved map[place]time.Duration // when a record first was, as far as a consumer was told
	told     map[place][]telling     // each time that one was
	span     map[place]int64         // of messages in chunks
	dues     map[place]int64         // of base records
	pauses   []*interval
	by       map[int]*tenure // whose a commit is, by its place in the ledger
	given    map[string]bool // ids that were given up for the crashes
	found    []string
}

// tenure is one partition at one member, from its assignment until it was given up.
type tenure struct {
	life      int
	lot       lot
	at        int64 // where reading began
	claims    []run
	from, to  time.Duration
	over      bool // it was given up
	lost      bool
	crashed   bool
	cancelled time.Duration  // when handlers' contexts ended with the drain; never, if they did not
	refused   bool           // its last commit was
	noted     map[int64]bool // as about to run, in case they end the process
	sent      saying         // by its last commit
	says      saying         // by its last commit that was accepted
}

// saying is what a commit says is resolved.
type saying struct {
	below int64
	runs  []run
	cut   bool // not all that was fitted its metadata
}

func (s saying) tells(offset int64) bool {
	return offset < s.below || slices.ContainsFunc(s.runs, func(r run) bool { return r.holds(offset) })
}

// telling is that a consumer was told that a record is resolved.
type telling struct {
	by   *tenure
	at   time.Duration
	runs bool // by a handler's return, which does not count once its context has ended
}

// start is one call of a handler.
type start struct {
	event
	tenure  *tenure
	ended   bool
	until   time.Duration
	outcome ending // "" as long as it runs, and where it was too late
}

// interval is a time in which a topic of a consumer is paused.
type interval struct {
	life     int
	topic    string
	from, to time.Duration
}

const never = time.Duration(math.MaxInt64)

func (c *checker) bad(format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

// index finds tenures, calls, and what was resolved when.
func (c *checker) index() {
	holds := map[int]map[lot]*tenure{}
	running := map[int]map[place]*start{}
	for i, e := range c.events {
		if holds[e.life] == nil {
			holds[e.life], running[e.life] = map[lot]*tenure{}, map[place]*start{}
		}
		t := holds[e.life][e.place.lot()]
		switch e.kind {
		case assigned:
			if t != nil && !t.over {
				c.bad("I3: %v was assigned to m%d twice", e.place.lot(), e.life)
			}
			t = &tenure{life: e.life, lot: e.place.lot(), at: e.place.offset, claims: e.runs, from: e.at, to: never, cancelled: never, noted: map[int64]bool{}}
			holds[e.life][t.lot] = t
			c.tenures = append(c.tenures, t)
		case drained:
			if t != nil {
				t.over, t.lost, t.to = true, e.flag, e.at
				if took := time.Duration(e.count); took >= c.drain {
					t.cancelled = e.at - took + c.drain
				}
			}
		case crashed:
			for _, t := range holds[e.life] {
				if !t.over {
					t.crashed, t.to = true, e.at
				}
			}
		case commits:
			if c.by[i] = t; t != nil {
				t.sent = saying{below: e.place.offset, runs: e.runs}
				if e.noted {
					t.noted[e.place.offset+e.count] = true
				}
			}
		case committed:
			if e.cut && !c.narrow {
				c.bad("I5: m%d left out at %v what is finished above it, and no broker had refused it", e.life, e.place)
			}
			if t != nil {
				if t.refused = e.flag; !e.flag {
					t.says = t.sent
					t.says.cut = e.cut
				}
			}
		case began:
			s := &start{event: e, tenure: t, until: never}
			if t == nil || e.at > t.to {
				c.bad("I3: %v began at m%d, which does not own it", e.place, e.life)
			}
			running[e.life][e.place] = s
			c.starts = append(c.starts, s)
		case ended:
			if s := running[e.life][e.place]; s != nil {
				s.ended, s.until = true, e.at
				if !e.flag {
					s.outcome = e.outcome
				}
			}
			if s := running[e.life][e.place]; s != nil && !e.flag && (e.outcome == succeeds || e.outcome == dropped) {
				c.resolve(e.place, telling{by: s.tenure, at: e.at, runs: true})
			}
		case retried, moved, buried:
			c.resolve(e.place, telling{by: t, at: e.at})
		case pausing:
			c.pauses = append(c.pauses, &interval{e.life, e.place.topic, e.at, never})
		case resuming:
			for _, p := range c.pauses {
				if p.life == e.life && p.topic == e.place.topic {
					p.to = min(p.to, e.at)
				}
			}
		case gaveUp:
			for i := range e.count {
				c.resolve(place{e.place.topic, e.place.partition, e.place.offset + i}, telling{by: t, at: e.at})
			}
		case cut, fault:
		}
	}
}

// paused is what Pause promises: nothing of what it stops begins, wherever it waits.
func (c *checker) paused() {
	for _, s := range c.starts {
		for _, p := range c.pauses {
			covers := p.topic == "" || p.topic == "orders" || p.topic == s.place.topic
			if covers && s.life == p.life && s.at > p.from && s.at < p.to {
				c.bad("Pause: %v began at m%d at %v, where %q was paused from %v to %v", s.place, s.life, s.at, p.topic, p.from, p.to)
			}
		}
	}
}

// hops is what a tier is for: a copy that a member has written there stays for as long as the tier is, by that member's clock.
func (c *checker) hops() {
	if c.tier == 0 {
		return
	}
	movers := map[place]int{}
	for _, e := range c.events {
		if e.kind == moved {
			movers[e.place] = e.life
		}
	}
	for i, w := range c.copies {
		if movers[w.place] == 0 || w.place.topic != tierTopic {
			continue
		}
		from := c.movedFrom(i)
		if from < 0 || !w.hop || movers[c.copies[from].place] != movers[w.place] {
			continue // written by another, whose clock is another
		}
		if slices.ContainsFunc(c.copies, func(o written) bool {
			return o.id == w.id && o.attempt == w.attempt && movers[o.place] != 0 && movers[o.place] != movers[w.place]
		}) {
			continue // or of several like it one may be
		}
		for _, e := range c.events {
			if e.kind == moved && e.life == movers[w.place] && e.place == w.place && e.at < w.at+c.tier-time.Millisecond {
				c.bad("%s at %v hops on after %v, by m%d, which had put it there", w.id, w.place, e.at-w.at, e.life)
			}
		}
	}
}

// unclean reports whether a partition was given up without a mark that all is in order: for its successor its owner may have died.
func (t *tenure) unclean() bool { return t.crashed || t.lost || t.refused || !t.over }

// condemned is what MaxCrashes promises: a record is given up after so many owners of its partition that seem to have died, one of which had
// noted that it was about to run.
func (c *checker) condemned() {
	for _, e := range c.events {
		if e.kind != buried || e.outcome != condemned {
			continue
		}
		c.given[e.id] = true
		crashes, noted := 0, false
		for _, t := range c.tenures {
			zombie := t.life != e.life && t.to > e.at
			if t.lot == e.place.lot() && t.from <= e.at && (zombie || t.to <= e.at && t.unclean()) {
				crashes++
				for i := range max(1, c.span[e.place]) { // a message in chunks runs with its last
					noted = noted || t.noted[e.place.offset+i]
				}
			}
		}
		if crashes < max(c.crashes, 1) || !noted {
			c.bad("MaxCrashes(%d): %s at %v was given up after %d crashes; noted before one of them: %v", c.crashes, e.id, e.place, crashes, noted)
		}
	}
}

// movedFrom finds the copy that one was moved from: the last before it for the same attempt, due at the same time. -1 for none.
func (c *checker) movedFrom(i int) int {
	w, found := c.copies[i], -1
	for j, o := range c.copies {
		if c.moves && j != i && o.id == w.id && o.attempt == w.attempt && !w.forged && (o.due == w.due || o.forged) && o.at <= w.at && (found < 0 || o.at >= c.copies[found].at) {
			if o.at < w.at || j < i {
				found = j
			}
		}
	}
	return found
}

func (c *checker) resolve(p place, w telling) {
	for range max(1, c.span[p]) {
		c.told[p] = append(c.told[p], w)
		if was, ok := c.resolved[p]; !ok || w.at < was {
			c.resolved[p] = w.at
		}
		p.offset++
	}
}

// within says when a record was first resolved within a tenure: what an earlier owner was told, a later one does not know. Where a handler returned
// in the very moment in which its context ended, nobody can say which came first: that resolves nothing for sure.
func (c *checker) within(t *tenure, p place) (at time.Duration, ok bool) {
	for _, w := range c.told[p] {
		if w.by == t && !(w.runs && w.at == t.cancelled) && (!ok || w.at < at) {
			at, ok = w.at, true
		}
	}
	return at, ok
}

// accounts is I1: each id that was produced ends as it is to end, and nowhere else.
func (c *checker) accounts() {
	type account struct {
		fate        fate
		first       int
		gone        bool
		kills       bool
		done, drops int
		letters     int
	}
	accounts := map[string]*account{}
	var ids []string
	add := func(w written) {
		if w.id != "" {
			accounts[w.id] = &account{fate: w.fate, first: w.first, gone: w.gone, kills: w.kills}
			ids = append(ids, w.id)
		}
	}
	for _, w := range c.base {
		add(w)
	}
	for _, w := range c.copies {
		if w.forged {
			add(w)
		}
	}
	for _, s := range c.starts {
		a := accounts[s.id]
		if a == nil {
			c.bad("I1: %s was never produced, and handled at %v", s.id, s.place)
			continue
		}
		switch s.outcome {
		case succeeds:
			a.done++
		case dropped:
			a.drops++
		default:
		}
	}
	for _, l := range c.letters {
		a := accounts[l.id]
		if a == nil {
			c.bad("I1: a dead letter of %s, which was never produced", l.id)
			continue
		}
		a.letters++
		if n, _ := a.fate.last(a.first, c.most); l.attempt != n && !c.given[l.id] {
			c.bad("I8: the dead letter of %s tells of %d attempts, and there were %d", l.id, l.attempt, n)
		}
	}
	for _, id := range ids {
		a := accounts[id]
		_, end := a.fate.last(a.first, c.most)
		if a.kills {
			end = refused
		}
		got := map[ending]int{succeeds: a.done, refused: a.letters, dropped: a.drops}
		for _, e := range []ending{succeeds, refused, dropped} {
			switch {
			case e == end && got[e] == 0 && !a.gone && !c.given[id]:
				c.bad("I1: %s is lost: it should have ended as %q", id, end)
			case e != end && got[e] > 0 && !(e == refused && c.given[id]):
				c.bad("I1: %s should have ended as %q, and ended as %q", id, end, e)
			}
		}
	}
}

// attempts is I8 and I7: what a call says of itself is what was written, the numbers go up by one, and none is early.
func (c *checker) attempts() {
	at := map[place]written{}
	for _, w := range c.base {
		at[w.place] = w
	}
	for _, w := range c.copies {
		at[w.place] = w
	}
	failed := map[string]map[int]time.Duration{} // id → attempt → when it first failed
	type call struct {
		t *tenure
		p place
	}
	before := map[call]*start{}
	for _, s := range c.starts {
		w, ok := at[s.place]
		last := before[call{s.tenure, s.place}]
		if before[call{s.tenure, s.place}] = s; last != nil {
			w.attempt = last.attempt
			if c.inPlace(last) {
				w.attempt++
				if s.at < last.until+c.pause {
					c.bad("I7: attempt %d of %s in place began at %v, and the one before it ended at %v", s.attempt, s.id, s.at, last.until)
				}
			}
		}
		switch {
		case !ok || w.id != s.id:
			c.bad("I1: %s was handled at %v, where %q lies", s.id, s.place, w.id)
			continue
		case s.attempt != w.attempt:
			c.bad("I8: attempt %d of %s at %v, want %d", s.attempt, s.id, s.place, w.attempt)
		case s.attempt > c.most || s.attempt < 1:
			c.bad("I8: attempt %d of %s", s.attempt, s.id)
		}
		if w.due > 0 && s.clock < w.due {
			c.bad("I7: attempt %d of %s at %v began %d ms early", s.attempt, s.id, s.place, w.due-s.clock)
		}
		if s.text != "" {
			c.bad("attempt %d of %s at %v: %s", s.attempt, s.id, s.place, s.text)
		}
		if s.outcome == fails {
			if failed[s.id] == nil {
				failed[s.id] = map[int]time.Duration{}
			}
			if was, ok := failed[s.id][s.attempt]; !ok || s.until < was {
				failed[s.id][s.attempt] = s.until
			}
		}
	}
	hops := map[string]int{}
	for i, w := range c.copies {
		if w.forged || c.movedFrom(i) >= 0 || w.attempt == 1 { // the last: a base record that was not due yet
			continue
		}
		when, ok := failed[w.id][w.attempt-1]
		if !ok || when > w.at+time.Millisecond { // which it tells in milliseconds
			c.bad("I8: the copy of %s at %v is for attempt %d, and none before it had failed", w.id, w.place, w.attempt)
		}
		hops[fmt.Sprint(w.id, "/", w.attempt)]++
	}
	calls := map[string]int{}
	for _, s := range c.starts {
		calls[fmt.Sprint(s.id, "/", s.attempt+1)]++
	}
	for hop, n := range hops {
		if n > calls[hop] {
			c.bad("I8: %d copies for %s, of %d calls", n, hop, calls[hop])
		}
	}
}

// turns is I6: within a tenure the records of a lane never run at once, and those of a base topic begin in the order of their offsets.
func (c *checker) turns() {
	if !c.keyed && !c.inTurn {
		return
	}
	type lane struct {
		t   *tenure
		key string
	}
	lanes := map[lane][]*start{}
	postponed := map[place]bool{}
	for _, s := range c.starts {
		key := s.key
		if c.inTurn {
			key = ""
		} else if key == "" {
			continue
		}
		l := lane{s.tenure, key}
		for _, o := range lanes[l] {
			switch {
			case o.until > s.at && !(s.tenure != nil && s.at >= s.tenure.to):
				c.bad("I6: %s began at %v while %s of its lane ran", s.id, s.at, o.id)
			case !based(o.place.topic) || postponed[o.place] || postponed[s.place] || c.dues[o.place]+c.dues[s.place] > 0:
			case o.place.offset > s.place.offset:
				c.bad("I6: %v began after %v of its lane", s.place, o.place)
			}
		}
		if s.outcome == "postponed" {
			postponed[s.place] = true
		}
		lanes[l] = append(lanes[l], s)
	}
}

// offsets is I2 and I3: no commit passes what is not resolved, in its map neither, or comes from one who does not own the partition; and within
// a tenure they only go up.
func (c *checker) offsets() {
	lots := map[lot][]place{}
	for _, ws := range [][]written{c.base, c.copies} {
		for _, w := range ws {
			lots[w.place.lot()] = append(lots[w.place.lot()], w.place)
			for i := int64(1); i < w.batch; i++ {
				lots[w.place.lot()] = append(lots[w.place.lot()], place{w.place.topic, w.place.partition, w.place.offset + i})
			}
		}
	}
	last := map[*tenure]int64{}
	for i, e := range c.events {
		if e.kind != commits || e.life == 0 {
			continue
		}
		t := c.by[i]
		if !c.owns(t, e.at) {
			c.bad("I3: m%d committed %v at %v, and does not own it", e.life, e.place, e.at)
		} else {
			if was, ok := last[t]; ok && e.place.offset < was {
				c.bad("I2: the commit of %v at m%d went back from %d", e.place, e.life, was)
			}
			last[t] = e.place.offset
		}
		for _, p := range lots[e.place.lot()] {
			claimed := slices.ContainsFunc(e.runs, func(r run) bool { return r.holds(p.offset) })
			if p.offset >= e.place.offset && !claimed {
				continue
			}
			if when, ok := c.resolved[p]; !ok || when > e.at {
				c.bad("I2: m%d committed %v, map %v, at %v, with %v unresolved", e.life, e.place, e.runs, e.at, p)
			}
		}
	}
}

// inFlight is how long a commit that was under way when its partition was lost may still arrive: nobody waits for it there, and the broker
// takes it only as long as nobody else has the partition.
const inFlight = 6 * time.Second

// owns reports whether a partition is still a tenure's, so that it may commit.
func (c *checker) owns(t *tenure, at time.Duration) bool {
	switch {
	case t == nil:
		return false
	case t.lost:
		return at <= t.to+inFlight
	case t.over, t.crashed:
		return at <= t.to
	}
	return true
}

// repeats is I5: a record is called again only where something explains it.
func (c *checker) repeats() {
	calls := map[place][]*start{}
	for _, s := range c.starts {
		if t := s.tenure; t != nil {
			if s.place.offset < t.at {
				c.bad("I5: %v began at m%d, below where its reading began, %d", s.place, s.life, t.at)
			}
			if slices.ContainsFunc(t.claims, func(r run) bool { return r.holds(s.place.offset) }) {
				c.bad("I5: %v began at m%d, though the map that it read says it is done", s.place, s.life)
			}
		}
		calls[s.place] = append(calls[s.place], s)
	}
	for _, ss := range calls {
		slices.SortStableFunc(ss, func(a, b *start) int { return cmp.Compare(a.at, b.at) })
		for i, s := range ss[1:] {
			if why := c.explain(ss[i], s); why != "" {
				c.bad("I5: %v (%s) began at m%d at %v, and again at m%d at %v: %s", s.place, s.id, ss[i].life, ss[i].at, s.life, s.at, why)
			}
		}
	}
}

// explain says why a second call has no excuse, "" if it has one.
func (c *checker) explain(first, again *start) string {
	a, b := first.tenure, again.tenure
	if a == nil || b == nil {
		return "" // told already
	}
	when, resolved := c.within(a, first.place)
	switch {
	case a == b && (first.outcome == "postponed" || c.inPlace(first)) && first.until <= again.at:
		return ""
	case a == b:
		return "in one tenure"
	case a.crashed && a.to <= again.at, a.lost:
		return ""
	case b.from < a.from && (b.lost || b.crashed) && c.troubled(b, again.at):
		return "" // a former owner that does not know that its session is over, and may have died before it did
	case !a.over || a.to > again.at:
		if c.troubled(a, again.at) {
			return "" // it was taken away behind its back
		}
		return "its first owner had not given it up"
	case !resolved || when > a.to:
		return "" // abandoned at the end of the drain, or its copy was not acked
	case a.says.tells(first.place.offset):
		if c.cutSince(a, b, first.place.offset) {
			return ""
		}
		return "its first owner had committed it"
	case a.refused, a.says.cut:
		return ""
	}
	return "it was resolved, and no commit told"
}

// inPlace reports whether the attempt after one is to follow in memory.
func (c *checker) inPlace(s *start) bool {
	return s.outcome == fails && s.attempt <= c.blocking && s.attempt < c.most && based(s.place.topic)
}

// cutSince reports whether an owner between two others could not pass on all that it knew.
func (c *checker) cutSince(a, b *tenure, offset int64) bool {
	return slices.ContainsFunc(c.tenures, func(t *tenure) bool {
		return t.lot == a.lot && t.from >= a.from && t.to <= b.from && t.says.cut && !t.says.tells(offset)
	})
}

// troubled reports whether the plan did something to a member, or to all, since it was given a partition.
func (c *checker) troubled(t *tenure, until time.Duration) bool {
	return slices.ContainsFunc(c.events, func(e event) bool {
		return (e.kind == cut && e.life == t.life || e.kind == fault) && e.at >= t.from-time.Minute && e.at <= until
	})
}
