package chaos

import "math"

// Why a record was delivered again.
const (
	postponed = "again: it was postponed"
	killed    = "again: its process was killed"
	lost      = "again: its partition was lost"
	abandoned = "again: its drain was exceeded"
	refused   = "again: its last commit was refused"
)

// again sees that every second delivery of a record, as it lies at one place, is explained by a fault (I5). It counts them by what explains
// them.
func (x *index) again(counts map[string]int) {
	abandonedAt := map[*assignment]int64{}
	for _, ds := range x.deliveries {
		for i, d := range ds {
			for j := range i {
				why := ds[j].excuse(d)
				switch {
				case why == "":
					x.wrong(d.id, "I5", "%v: delivered again, and nothing explains it: %s", d, ds[j].standing())
				case j == i-1: // each is counted once, by the delivery before it
					counts[why]++
				}
				if why == abandoned && j == i-1 {
					abandonedAt[ds[j].assignment]++
				}
			}
		}
	}
	for a, n := range abandonedAt {
		if n > a.abandoned {
			x.wrong(-1, "I5", "%s gave up %s/%d with %d abandoned, and %d were delivered again", a.member.Name, a.partition.Topic, a.partition.Partition, a.abandoned, n)
		}
	}
}

// excuse returns what explains that the record of d is delivered once more, "" if nothing does.
func (d *delivery) excuse(next *delivery) string {
	switch {
	case d.result() == Postpones:
		return postponed // in this assignment, or by whoever comes next
	case d.assignment == next.assignment, d.safe(next.asked):
		return ""
	case d.open():
		if d.member.Killed {
			return killed
		}
		return ""
	case d.lost:
		return lost
	case d.resolved < 0:
		if d.abandoned > 0 {
			return abandoned
		}
		return ""
	}
	// It was resolved, and the partition given up in good order.
	if i, ok := d.lastCommit(); ok && i > d.resolved && d.is(i, Uncommit) {
		return refused
	}
	return ""
}

// safe reports whether a commit that was accepted by a certain time is sure to tell that the record is resolved, so that nobody who asks for
// the commits from then on may deliver it again. A commit's look at its partition lies between the answer before it and its own: the first after
// the record was resolved may have looked before, the next has not. And a partition that is given up in good order commits once more
// at its end, unless there is nothing to tell.
func (d *delivery) safe(by int64) bool {
	if d.resolved < 0 {
		return false
	}
	looked := false // once a commit was answered after the record was resolved
	for _, i := range d.commits {
		if i < d.resolved || d.event(i).Time > by {
			continue
		}
		if looked && (d.is(i, Committed) || d.is(i, Cut) && d.at.Offset < d.event(i).At.Offset) {
			return true
		}
		looked = true
	}
	if d.open() || d.assignment.lost || d.endedAt() > by {
		return false
	}
	i, ok := d.lastCommit()
	return ok && d.is(i, Committed)
}

// standing tells of a delivery what the excuses are about.
func (d *delivery) standing() string {
	s := "the delivery before, " + d.String()
	switch {
	case d.end < 0:
		s += ", had not returned"
	case d.resolved < 0:
		s += ", had returned (" + string(d.result()) + ") and not resolved it"
	default:
		s += ", had resolved it"
	}
	switch {
	case d.open() && d.member.Killed:
		s += "; the process was killed"
	case d.open():
		s += "; it still owned the partition"
	case d.assignment.lost:
		s += "; the partition was lost"
	default:
		s += "; the partition was given up in good order"
	}
	if d.safe(math.MaxInt64) {
		s += "; an accepted commit tells it"
	}
	return s
}
