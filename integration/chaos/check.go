package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Report is the judgement on a run.
type Report struct {
	Wrong   []Violation
	Counts  map[string]int // what there was, and the second deliveries by what explains them
	Met     map[Sometimes]int
	Late    []time.Duration // how long after its due time each later attempt began, ascending
	history History
}

// Violation is one thing that must not be.
type Violation struct {
	ID   int64 // of the record; -1 if it is about none
	Rule string
	Text string
}

func (v Violation) String() string { return fmt.Sprintf("%s: %s", v.Rule, v.Text) }

// Check judges a run. It looks at nothing but the history.
func Check(h History) *Report {
	r := &Report{Counts: map[string]int{}, Met: map[Sometimes]int{}, history: h}
	x := newIndex(h, func(id int64, rule, format string, args ...any) {
		r.Wrong = append(r.Wrong, Violation{id, rule, fmt.Sprintf(format, args...)})
	})
	r.Counts["records"], r.Counts["copies"], r.Counts["letters"], r.Counts["members"] = len(h.Sent), len(h.Copies), len(h.Letters), len(h.Members)
	for _, m := range h.Members {
		r.Counts["events"] += len(m.Events)
	}
	x.account(r.Counts)
	x.again(r.Counts)
	x.copied(r.Counts)
	x.committed()
	x.ordered()
	r.Late = x.punctual()
	x.sometimes(r.Met)
	slices.SortStableFunc(r.Wrong, func(a, b Violation) int { return cmp.Compare(a.Rule, b.Rule) })
	return r
}

// account sees that each record came to the end that its number foretells (I1, I8), and that all of it is committed.
func (x *index) account(counts map[string]int) {
	for _, r := range x.Sent {
		f := FateOf(r.ID)
		went := x.went(r.ID)
		if went {
			counts["gone with their topic"]++
		}
		if n := len(x.letters[r.ID]); f.Letter() != (n > 0) && (n > 0 || !went) {
			x.wrong(r.ID, "I1", "record %d has %d dead letters, and its end is %q after %d attempts", r.ID, n, f.Last, f.Attempts)
		}
		ended := map[int]bool{}
		for _, d := range x.byID[r.ID] {
			x.intact(r, d)
			if d.ended() {
				ended[d.attempt] = true
				if want := f.Result(r.ID, d.attempt); d.result() != want {
					x.wrong(r.ID, "ledger", "%v: %s, want %s", d, d.result(), want)
				}
			}
		}
		for n := 1; n <= f.Attempts; n++ {
			if !ended[n] && (n == 1 || !went) {
				x.wrong(r.ID, "I1", "record %d: attempt %d of its %d never ended", r.ID, n, f.Attempts)
			}
			delete(ended, n)
		}
		for n := range ended {
			x.wrong(r.ID, "I8", "record %d had an attempt %d, after the last of its %d", r.ID, n, f.Attempts)
		}
	}
	for _, r := range slices.Concat(x.Copies, x.Letters) {
		if s := x.sent[r.ID]; len(s) == 0 || s[0].Body != r.Body {
			x.wrong(r.ID, "bytes", "record %d, as it lies at %v, is not what was produced", r.ID, r.At)
		}
	}
	for id := range x.byID {
		if len(x.sent[id]) == 0 {
			x.wrong(id, "I12", "record %d was delivered, and there is none", id)
		}
	}
	// A record that was copied twice has two chains: each of its copies must come to its end too.
	for _, r := range slices.Concat(x.Sent, x.Copies) {
		if !slices.ContainsFunc(x.deliveries[x.place(r)], (*delivery).ended) {
			x.wrong(r.ID, "I1", "record %d, as it lies at %v, never ended", r.ID, r.At)
		}
	}
	for p, end := range x.Ends {
		if at, ok := x.Commits[p]; end > 0 && (!ok || at != end) {
			x.wrong(-1, "I1", "%s/%d is committed at %d, its end is %d", p.Topic, p.Partition, at, end)
		}
	}
}

// went reports whether a copy of the record was acked that no longer lies there, for its topic was deleted: then what was to come after it may
// never have.
func (x *index) went(id int64) bool {
	return slices.ContainsFunc(x.byID[id], func(d *delivery) bool {
		if d.resolved < 0 || !d.is(d.resolved, Retried) || !x.wentAlong(d) {
			return false
		}
		next := d.attempt + 1
		return !slices.ContainsFunc(x.copies[id], func(c Record) bool { return c.Attempt == next })
	})
}

// intact sees that a delivery had the record as it was produced, with the attempt of where it was read from (I8).
func (x *index) intact(r Record, d *delivery) {
	if len(x.sent[r.ID]) == 1 && d.sum != r.Sum {
		x.wrong(r.ID, "bytes", "%v: not as it was produced", d)
	}
	want := 1
	if d.at != r.At {
		i := slices.IndexFunc(x.copies[r.ID], func(c Record) bool { return x.place(c) == spot{d.at, d.id, d.partition.Gone} })
		if i < 0 && d.partition.Gone < x.generation(partitionOf(d.at), math.MaxInt64).Gone {
			return // it lay in a topic that is gone
		}
		if i < 0 {
			x.wrong(r.ID, "I8", "%v: there is no such copy", d)
			return
		}
		want = x.copies[r.ID][i].Attempt
	}
	if d.attempt != want || d.attempt > MaxAttempts {
		x.wrong(r.ID, "I8", "%v: it should be attempt %d", d, want)
	}
}

// copied counts the copies and letters of each record: as many as deliveries wrote them (I1, I5).
func (x *index) copied(counts map[string]int) {
	for id := range x.sent {
		wrote, acked, refused := map[int]int{}, map[int]int{}, map[int]int{}
		f := FateOf(id)
		for _, d := range x.byID[id] {
			next := d.attempt + 1
			if d.attempt >= f.Attempts {
				next = 0 // a letter
			}
			if r := d.result(); r == Fails || r == Panics || r == Permanent {
				wrote[next]++
				refused[next] += d.refused
			}
			if d.resolved >= 0 && (d.is(d.resolved, Letter) || d.is(d.resolved, Retried) && !x.wentAlong(d)) {
				acked[next]++
			}
		}
		lie := map[int]int{0: len(x.letters[id])}
		for _, c := range x.copies[id] {
			lie[c.Attempt]++
		}
		for n, want := range acked {
			if lie[n] < want {
				x.wrong(id, "I1", "record %d: %d copies for attempt %d were acked (0: letters), %d lie there", id, want, n, lie[n])
			}
		}
		for n, there := range lie {
			switch {
			case there > wrote[n]+refused[n]:
				x.wrong(id, "I5", "record %d: %d copies for attempt %d lie there (0: letters), from %d deliveries that failed and %d refusals", id, there, n, wrote[n], refused[n])
			case there > 1:
				counts["copied twice"] += there - 1
			}
		}
	}
}

// Sometimes is what a run must have met at least once.
type Sometimes string

// What a run is about.
const (
	DiedAtWork   Sometimes = "a process died while a handler ran"
	DiedUnacked  Sometimes = "a process died before a copy's ack"
	DiedDone     Sometimes = "a process died with work done that no commit tells"
	DiedAbove    Sometimes = "a process died with work done above the watermark"
	RevokedAt    Sometimes = "a partition was taken away while one of its handlers ran"
	RevokedHeld  Sometimes = "a partition was taken away with records read and not begun"
	HaltedAt     Sometimes = "a process was halted at a point of a takeover"
	LostAtWork   Sometimes = "a partition was lost while one of its handlers ran"
	NotCommitted Sometimes = "a commit was refused"
	NotWritten   Sometimes = "a write to the retry topic was refused"
	Repeated     Sometimes = "a record was delivered again"
	Spared       Sometimes = "a map spared a record that had been done"
	CopiedTwice  Sometimes = "a copy was written twice"
)

// sometimes counts what the run met.
func (x *index) sometimes(met map[Sometimes]int) {
	for _, a := range x.assignments {
		died := a.open() && a.member.Killed
		waits := int64(math.MaxInt64) // the lowest that had begun and was not resolved
		for _, d := range a.deliveries {
			if d.resolved < 0 {
				waits = min(waits, d.at.Offset)
			}
		}
		for _, d := range a.deliveries {
			switch {
			case !died:
			case d.end < 0:
				met[DiedAtWork]++
			case d.resolved < 0 && (d.result() == Fails || d.result() == Panics):
				met[DiedUnacked]++
			case d.resolved >= 0 && !d.safe(math.MaxInt64):
				met[DiedDone]++
			}
			if died && d.resolved >= 0 && d.at.Offset > waits {
				met[DiedAbove]++
			}
			if !a.open() && !d.dead && d.start < a.ended && (d.end < 0 || d.event(d.end).Time > a.takenAt()) {
				if a.lost {
					met[LostAtWork]++
				} else {
					met[RevokedAt]++
				}
			}
		}
		if !a.open() && !a.lost && a.event(a.ended).Attempt > 0 {
			met[RevokedHeld]++
		}
	}
	for _, m := range x.Members {
		spared := int64(0)
		for _, e := range m.Events {
			switch e.Kind {
			case Uncommit:
				met[NotCommitted]++
			case Refused:
				met[NotWritten]++
			case Halts:
				met[HaltedAt]++
			case Skipped:
				spared = e.N
			default:
			}
		}
		met[Spared] += int(spared)
	}
	for _, ds := range x.deliveries {
		met[Repeated] += len(ds) - 1
	}
	for _, cs := range x.copies {
		ns := map[int]int{}
		for _, c := range cs {
			if ns[c.Attempt]++; ns[c.Attempt] > 1 {
				met[CopiedTwice]++
			}
		}
	}
}

// takenAt is when the giving up of the partition began.
func (a *assignment) takenAt() int64 {
	e := a.event(a.ended)
	took, err := time.ParseDuration(e.Text)
	if err != nil {
		took = 0
	}
	return e.Time - int64(took)
}

// Void returns what a run should have met and did not.
func (r *Report) Void(want ...Sometimes) (missing []string) {
	for _, s := range want {
		if r.Met[s] == 0 {
			missing = append(missing, string(s))
		}
	}
	return missing
}

// Timeline tells all that is known of one record, in the order in which it happened, among the faults and the comings and goings of the
// partitions that it lay on.
func (r *Report) Timeline(id int64) string {
	type line struct {
		at   int64
		text string
	}
	var lines []line
	on := map[Partition]bool{}
	lie := func(what string, rs []Record) {
		for _, x := range rs {
			if x.ID == id {
				on[partitionOf(x.At)] = true
				lines = append(lines, line{x.Time * 1e6, fmt.Sprintf("%-8s lies at %v, attempt %d, due %d", what, x.At, x.Attempt, x.Due)})
			}
		}
	}
	lie("record", r.history.Sent)
	lie("copy", r.history.Copies)
	lie("letter", r.history.Letters)
	for _, m := range r.history.Members {
		for _, e := range m.Events {
			switch e.Kind {
			case Assigned, Drained, Lost, Committed, Cut, Uncommit:
				if !on[partitionOf(e.At)] {
					continue
				}
			case Asks:
				continue
			case Up, Ready, Stopping, Down, Dies, Halts:
			default:
				if e.ID != id {
					continue
				}
			}
			lines = append(lines, line{e.Time, fmt.Sprintf("%-8s %s %d %v %d %s", m.Name, e.Kind, e.Attempt, e.At, e.N, e.Text)})
		}
	}
	for _, f := range r.history.Faults {
		var at int64
		if _, err := fmt.Sscan(f, &at); err == nil {
			_, text, _ := strings.Cut(f, " ")
			lines = append(lines, line{at, "fault    " + text})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.at, b.at) })
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%s %s\n", time.Unix(0, l.at).Format("15:04:05.000000"), l.text)
	}
	return b.String()
}

// String is the report's table.
func (r *Report) String() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(r.Counts)) {
		fmt.Fprintf(&b, "%10d  %s\n", r.Counts[k], k)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Met)) {
		fmt.Fprintf(&b, "%10d  times: %s\n", r.Met[k], k)
	}
	if n := len(r.Late); n > 0 {
		fmt.Fprintf(&b, "%10d  later attempts; after their due time: %v in the middle, %v at 99 %%, %v at most\n", n, r.Late[n/2], r.Late[n*99/100], r.Late[n-1])
	}
	return b.String()
}

func milli(ns int64) int64 { return ns / int64(time.Millisecond) }

func keyOf(rs map[int64][]Record, id int64) string {
	if len(rs[id]) == 0 {
		return ""
	}
	return rs[id][0].Key
}
