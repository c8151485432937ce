package chaos

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// History is all that a run left behind, and all that [Check] sees.
type History struct {
	Sent    []Record // the base topic, as it lies there
	Copies  []Record // the retry topic
	Letters []Record // the dead-letter topic
	Members []Member
	Commits map[Partition]int64 // the group's, at the end
	Ends    map[Partition]int64 // of the base and the retry topic
	Gone    []Gone              // the retry topics before this one
	Faults  []string            // what went wrong, one line each that begins with the time in ns
}

// Gone is a topic that was deleted, and made anew under its name.
type Gone struct {
	Topic string
	From  int64 // in ns: it was going to be deleted
	Until int64 // it was gone, and the new one not yet there
	Anew  int64 // the new one was everywhere
}

// Record is one record of a topic.
type Record struct {
	At      retriable.Position
	ID      int64
	Key     string // empty: none
	Attempt int    // of a copy: the coming one; of a letter: those made
	Due     int64  // of a copy, in ms
	Time    int64  // when it was written, in ms
	Sum     int64  // over what must never change; of base records
	Body    int64  // over key, value and the producer's headers
}

// Member is one process of a group.
type Member struct {
	Name   string
	Events []Event
	Killed bool   // by SIGKILL; else it returned, and its last event says so
	Exit   string // how the process ended, for the timeline
}

// Partition names a partition.
type Partition struct {
	Topic     string
	Partition int32
	Gone      int // how many topics of this name there were before
}

func partitionOf(p retriable.Position) Partition {
	return Partition{Topic: p.Topic, Partition: p.Partition}
}

// assignment is a partition at a member, from one event to another. Indexes are into the member's events.
type assignment struct {
	member     *Member
	partition  Partition
	from       int64 // the offset where it began to read
	asked      int64 // when the member cannot yet have known the commits that it began with, in ns
	began      int   // the index of its Assigned
	ended      int   // that of its Drained or Lost; len(events) while there is none
	lost       bool
	abandoned  int64
	commits    []int // the indexes of all that was committed or refused
	deliveries []*delivery
}

func (a *assignment) open() bool        { return a.ended == len(a.member.Events) }
func (a *assignment) event(i int) Event { return a.member.Events[i] }
func (a *assignment) beganAt() int64    { return a.event(a.began).Time }

// inFlight is how long a commit may be under way: its own time, and a little.
const inFlight = 6 * time.Second

func (a *assignment) endedAt() int64                   { return a.event(a.ended).Time }
func (a *assignment) is(i int, kind Kind) bool         { return a.event(i).Kind == kind }
func (a *assignment) acceptedAt(i int) bool            { return a.is(i, Committed) || a.is(i, Cut) }
func (a *assignment) lastCommit() (index int, ok bool) { return lastOf(a.commits) }

func lastOf(is []int) (int, bool) {
	if len(is) == 0 {
		return 0, false
	}
	return is[len(is)-1], true
}

// delivery is one call of a handler.
type delivery struct {
	*assignment
	id       int64
	attempt  int
	at       retriable.Position
	sum      int64
	start    int  // indexes; -1 for what did not happen
	end      int  // the handler returned
	resolved int  // done or dropped, or its copy acked
	refused  int  // writes of its copy that were refused
	dead     bool // its context had ended when it began
}

func (d *delivery) startedAt() int64 { return d.event(d.start).Time }

func (d *delivery) result() Result {
	if d.end < 0 {
		return ""
	}
	return Result(d.event(d.end).Text)
}

// ended reports whether the handler returned something that may count.
func (d *delivery) ended() bool {
	r := d.result()
	return r != "" && r != Postpones && r != Cancelled
}

func (d *delivery) String() string {
	return fmt.Sprintf("record %d, attempt %d, read from %v by %s", d.id, d.attempt, d.at, d.member.Name)
}

// spot is one record at one place.
type spot struct {
	at   retriable.Position
	id   int64
	gone int // as in Partition: offsets are used again by a topic that was made anew
}

// index is a history read once.
type index struct {
	History
	assignments []*assignment
	deliveries  map[spot][]*delivery // in the order of their assignments, and in each as they began
	byID        map[int64][]*delivery
	sent        map[int64][]Record
	copies      map[int64][]Record
	letters     map[int64][]Record
	wrong       func(id int64, rule, format string, args ...any)
}

func newIndex(h History, wrong func(id int64, rule, format string, args ...any)) *index {
	x := &index{
		History: h, deliveries: map[spot][]*delivery{}, byID: map[int64][]*delivery{},
		sent: byID(h.Sent), copies: byID(h.Copies), letters: byID(h.Letters), wrong: wrong,
	}
	for i := range h.Members {
		x.read(&h.Members[i])
	}
	for _, ds := range x.deliveries {
		slices.SortStableFunc(ds, func(a, b *delivery) int {
			if a.assignment != b.assignment {
				return cmp.Compare(a.asked, b.asked)
			}
			return cmp.Compare(a.start, b.start)
		})
	}
	return x
}

func byID(rs []Record) map[int64][]Record {
	m := map[int64][]Record{}
	for _, r := range rs {
		m[r.ID] = append(m[r.ID], r)
	}
	return m
}

// read follows one member through its ledger.
func (x *index) read(m *Member) {
	current := map[Partition]*assignment{} // the newest of each partition
	running := map[spot]*delivery{}        // the newest of each record; spots without their topic's generation
	at := map[retriable.Position]*delivery{}
	asked := int64(0) // for the partitions that are assigned next; what is asked and not answered is asked anew
	for i, e := range m.Events {
		p, s := partitionOf(e.At), spot{at: e.At, id: e.ID}
		a := current[p]
		switch e.Kind {
		case Asks:
			asked = e.Time
		case Assigned:
			if a != nil && a.open() {
				x.wrong(-1, "I3", "%s: %v is assigned a second time without having been given up", m.Name, e.At)
			}
			a = &assignment{member: m, partition: x.generation(p, e.Time), from: max(e.At.Offset, 0), asked: asked, began: i, ended: len(m.Events)}
			current[p] = a
			x.assignments = append(x.assignments, a)
		case Drained, Lost:
			if a == nil || !a.open() {
				x.wrong(-1, "I3", "%s: %v is given up without having been assigned", m.Name, e.At)
				continue
			}
			a.ended, a.lost, a.abandoned = i, e.Kind == Lost, e.N
		case Committed, Cut, Uncommit:
			// What was under way when the partition was lost may be answered after: nobody waits for it there, and the broker takes it only as
			// long as nobody else has the partition.
			late := a != nil && a.lost && e.Time-a.endedAt() <= int64(inFlight)
			if a == nil || !a.open() && !late {
				if e.Kind != Uncommit {
					x.wrong(-1, "I3", "%s committed %v without owning it", m.Name, e.At)
				}
				continue
			}
			a.commits = append(a.commits, i)
		case Start:
			d := &delivery{assignment: a, id: e.ID, attempt: e.Attempt, at: e.At, sum: e.N, start: i, end: -1, resolved: -1, dead: e.Text != ""}
			// A partition is lost without a wait for what begins just then: that had begun before, or finds its context ended.
			if a == nil || !a.open() && !d.dead && (!a.lost || e.Time > a.endedAt()) {
				x.wrong(e.ID, "I3", "%s started record %d (%v) without owning its partition", m.Name, e.ID, e.At)
			}
			if a == nil {
				continue
			}
			if e.At.Offset < a.from {
				x.wrong(e.ID, "I5", "%v: below %d, where it began to read", d, a.from)
			}
			a.deliveries = append(a.deliveries, d)
			full := spot{e.At, e.ID, a.partition.Gone}
			x.deliveries[full] = append(x.deliveries[full], d)
			x.byID[e.ID] = append(x.byID[e.ID], d)
			running[s], at[e.At] = d, d
		case Refused: // does not tell the record
			if d := at[e.At]; d != nil {
				d.refused++
			}
		case End, Handled, Retried, Letter:
			if d := running[s]; d != nil {
				d.note(e, i)
			} else {
				x.wrong(e.ID, "ledger", "%s: %s of a record that it did not start", m.Name, e)
			}
		case Down:
			x.left(m, e)
		case Up, Ready, Skipped, Stopping, Dies, Halts:
		}
	}
}

// generation tells which topic of a name a partition that was assigned at a time belongs to.
func (x *index) generation(p Partition, at int64) Partition {
	for _, g := range x.Gone {
		if g.Topic == p.Topic && at > g.Until {
			p.Gone++
		}
	}
	return p
}

// between reports whether an assignment was made while its topic was being deleted and made anew: nobody can tell of which of the two it is, and whose
// commit the member was told.
func (x *index) between(a *assignment) bool {
	return slices.ContainsFunc(x.Gone, func(g Gone) bool { return g.Topic == a.partition.Topic && a.asked <= g.Anew && a.beganAt() >= g.From })
}

// place is where a record lies that is there at the end.
func (x *index) place(r Record) spot {
	return spot{r.At, r.ID, x.generation(partitionOf(r.At), math.MaxInt64).Gone}
}

// wentAlong reports whether a delivery's copy, which was acked, may have gone with its topic: it was written between the handler's end and the ack, which
// may be slow to arrive.
func (x *index) wentAlong(d *delivery) bool {
	return slices.ContainsFunc(x.Gone, func(g Gone) bool { return d.end >= 0 && d.event(d.end).Time <= g.Until })
}

// left sees that a member that returned an error had reason to.
func (x *index) left(m *Member, down Event) {
	if down.Text == "" || !slices.ContainsFunc(m.Events, func(e Event) bool { return e.Kind == Ready }) {
		return // one that never began has not to say why
	}
	if !slices.ContainsFunc(m.Events, func(e Event) bool { return e.Kind == Uncommit || e.Kind == Drained && e.N > 0 }) {
		x.wrong(-1, "stop", "%s returned %q, with nothing abandoned and no commit refused", m.Name, down.Text)
	}
}

// note takes what comes after a delivery's start.
func (d *delivery) note(e Event, i int) {
	switch e.Kind {
	case End:
		d.end = i
	case Handled:
		if v := retriable.Verdict(e.Text); v == retriable.VerdictDone || v == retriable.VerdictDrop {
			d.resolve(i)
		}
	case Retried, Letter:
		d.resolve(i)
	default:
	}
}

// resolve notes that the record is resolved; what is told after the partition was given up does not count.
func (d *delivery) resolve(i int) {
	if d.open() {
		d.resolved = i
	}
}
