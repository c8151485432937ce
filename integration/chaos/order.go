package chaos

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// committed sees that no commit passes a record that had not ended, and that none goes back (I2, I3). Where a member begins to read counts
// too: it is a commit whose answer may never have come.
func (x *index) committed() {
	type commit struct {
		at        int64 // when it had been accepted, or read
		began     int64 // when it had not been sent, or asked for
		offset    int64
		name      string
		beginning bool
	}
	commits := map[Partition][]commit{}
	for _, a := range x.assignments {
		if x.between(a) {
			continue
		}
		commits[a.partition] = append(commits[a.partition], commit{a.beganAt(), a.asked, a.from, a.member.Name, true})
		for _, i := range a.commits {
			if e := a.event(i); a.acceptedAt(i) {
				commits[a.partition] = append(commits[a.partition], commit{e.Time, e.Time - e.N, e.At.Offset, a.member.Name, false})
			}
		}
	}
	ended := x.ends()
	for p, cs := range commits {
		slices.SortFunc(cs, func(a, b commit) int { return cmp.Compare(a.at, b.at) })
		highest := make([]commit, len(cs)) // of those up to here
		for i, c := range cs {
			highest[i] = c
			if i > 0 && highest[i-1].offset > c.offset {
				highest[i] = highest[i-1]
			}
			// What was accepted before this one was sent.
			n, _ := slices.BinarySearchFunc(cs, c.began, func(c commit, began int64) int { return cmp.Compare(c.at, began) })
			if n = min(n, i); n > 0 && highest[n-1].offset > c.offset {
				what := "commits"
				if c.beginning {
					what = "begins"
				}
				x.wrong(-1, "I2", "%s %s %s/%d at %d, though %s had committed %d", c.name, what, p.Topic, p.Partition, c.offset, highest[n-1].name, highest[n-1].offset)
			}
			if i := unended(ended[p], c.offset, c.at); i >= 0 {
				x.wrong(ended[p][i].id, "I2", "%s had committed %s/%d at %d, and record %d at %d had not ended", c.name, p.Topic, p.Partition, c.offset, ended[p][i].id, ended[p][i].offset)
			}
		}
	}
}

// ending is when a record had certainly not ended before.
type ending struct {
	id, offset int64
	at         int64 // in ns; 0: never
	latest     int   // which, of this one and those below it, ended last or never
}

// ends returns when the records of each partition ended first, by offset.
func (x *index) ends() map[Partition][]ending {
	m := map[Partition][]ending{}
	for _, r := range slices.Concat(x.Sent, x.Copies) {
		e := ending{id: r.ID, offset: r.At.Offset}
		for _, d := range x.deliveries[x.place(r)] {
			if !d.ended() {
				continue
			}
			if at := d.event(d.end).Time; e.at == 0 || at < e.at {
				e.at = at
			}
		}
		p := x.generation(partitionOf(r.At), math.MaxInt64)
		m[p] = append(m[p], e)
	}
	for _, es := range m {
		slices.SortFunc(es, func(a, b ending) int { return cmp.Compare(a.offset, b.offset) })
		for i := range es {
			es[i].latest = i
			if i > 0 && es[i].at != 0 {
				if l := es[i-1].latest; es[l].at == 0 || es[l].at > es[i].at {
					es[i].latest = l
				}
			}
		}
	}
	return m
}

// unended returns the record below an offset that had not ended at a time, -1 if all had.
func unended(es []ending, offset, at int64) int {
	n, _ := slices.BinarySearchFunc(es, offset, func(e ending, offset int64) int { return cmp.Compare(e.offset, offset) })
	if n == 0 {
		return -1
	}
	if l := es[n-1].latest; es[l].at == 0 || es[l].at > at {
		return l
	}
	return -1
}

// ordered sees that within an assignment the records of a key never run at once, and those of a base topic begin in their order (I6).
func (x *index) ordered() {
	base := map[string]bool{}
	for _, r := range x.Sent {
		base[r.At.Topic] = true
	}
	for _, a := range x.assignments {
		last := map[string]*delivery{}
		for _, d := range a.deliveries {
			key := keyOf(x.sent, d.id)
			before := last[key]
			last[key] = d
			if key == "" || before == nil {
				continue
			}
			if before.end < 0 || before.end > d.start {
				x.wrong(d.id, "I6", "%v began while %v ran, of the same key", d, before)
			}
			// A postponed record lets those behind it pass, and comes after them.
			if base[a.partition.Topic] && d.at.Offset < before.at.Offset && FateOf(d.id).Postpone == 0 {
				x.wrong(d.id, "I6", "%v began after %v, of the same key", d, before)
			}
		}
	}
}

// punctual sees that nothing begins before it is due (I7), and returns how late each of the rest was.
func (x *index) punctual() (late []time.Duration) {
	for _, c := range x.Copies {
		for i, d := range x.deliveries[x.place(c)] {
			if milli(d.startedAt()) < c.Due {
				x.wrong(c.ID, "I7", "%v began at %d ms, and is due at %d", d, milli(d.startedAt()), c.Due)
			}
			if i == 0 {
				late = append(late, time.Duration(d.startedAt()-c.Due*int64(time.Millisecond)))
			}
		}
	}
	for _, ds := range x.deliveries {
		for i, d := range ds {
			if i == 0 || d.assignment != ds[i-1].assignment || ds[i-1].result() != Postpones {
				continue
			}
			if e := d.event(ds[i-1].end); d.startedAt() < e.Time+e.N {
				x.wrong(d.id, "I7", "%v began %v before its postponement was over", d, time.Duration(e.Time+e.N-d.startedAt()))
			}
		}
	}
	slices.Sort(late)
	return late
}
