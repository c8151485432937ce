package simulation

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// place is where a record lies. A topic that is made anew is another topic: "orders", then "orders#1".
type place struct {
	topic     string
	partition int32
	offset    int64
}

func (p place) String() string { return fmt.Sprintf("%s/%d@%d", p.topic, p.partition, p.offset) }

// lot is a partition.
type lot struct {
	topic     string
	partition int32
}

func (p place) lot() lot { return lot{p.topic, p.partition} }

// tierTopic is a retry topic for waits of a length.
const tierTopic = "orders.2s"

// based reports whether a topic is the base topic, be it made anew.
func based(topic string) bool { return topic == "orders" || strings.HasPrefix(topic, "orders#") }

type kind string

const (
	assigned  kind = "assigned"  // place: where reading begins; runs: what the commit's map says is done
	drained   kind = "drained"   // a partition was given up; flag: lost; count: how long that took
	began     kind = "began"     // a handler, at place
	ended     kind = "ended"     // … with outcome; flag: its context had ended
	retried   kind = "retried"   // the copy of the record at place was acked
	buried    kind = "buried"    // its dead letter was
	gaveUp    kind = "gave up"   // it was dropped, or skipped: count of them
	commits   kind = "commits"   // the broker got a commit of place; runs: its map
	committed kind = "committed" // it was answered; flag: refused
	moved     kind = "moved"     // the record at place was written again elsewhere, as it is
	pausing   kind = "pausing"   // place.topic: which, "" for all
	resuming  kind = "resuming"
	crashed   kind = "crashed"
	cut       kind = "cut off" // from the network, by the plan
	fault     kind = "fault"   // the plan did something
)

// run is a stretch of offsets.
type run struct{ from, to int64 }

func (r run) holds(offset int64) bool { return offset >= r.from && offset < r.to }

// event is a line of the ledger.
type event struct {
	at      time.Duration // since the beginning
	kind    kind
	life    int // which consumer, from 1; 0 for none
	place   place
	runs    []run
	id      string
	key     string
	attempt int
	clock   int64 // by the member's own clock, in ms
	outcome ending
	flag    bool
	noted   bool // of commits: so many above it lies a record that is about to run
	cut     bool // of committed: not all that is finished fitted
	count   int64
	text    string
}

func (e event) String() string {
	s := fmt.Sprintf("%10.3fs  %-9s", e.at.Seconds(), e.kind)
	if e.life > 0 {
		s += fmt.Sprintf(" m%d", e.life)
	}
	if e.place.topic != "" {
		s += " " + e.place.String()
	}
	if e.id != "" {
		s += fmt.Sprintf(" %s (%s), attempt %d", e.id, e.key, e.attempt)
	}
	if e.outcome != "" {
		s += " " + string(e.outcome)
	}
	if len(e.runs) > 0 {
		s += fmt.Sprint(" map ", e.runs)
	}
	if e.flag {
		s += map[kind]string{drained: " lost", ended: " too late", committed: " refused"}[e.kind]
	}
	if e.cut {
		s += " cut"
	}
	if e.text != "" {
		s += " " + e.text
	}
	return s
}

// history is the whole of a run, as the checker gets it.
type history struct {
	most     int // attempts
	keyed    bool
	inTurn   bool // all records of a partition
	moves    bool // a copy that waits may be written again at the tail of its topic
	base     []written
	copies   []written
	letters  []written
	events   []event
	drain    time.Duration // how long handlers may run on in partitions that are given up
	narrow   bool          // a broker has refused metadata for its size
	blocking int           // so many attempts of a base record are tried again in place
	pause    time.Duration // before each of these
	tier     time.Duration // how long copies in the tier wait there
	crashes  int           // after so many a record may be given up
	wedged   string        // why not everything was committed in the end, if so
	parked   bool          // the broker has not let any member join for half an hour
}

// written is a record in a topic.
type written struct {
	place   place
	id      string
	attempt int   // of a copy: the coming one; of a letter: those made
	due     int64 // ms; of a base record too, if its producer asked for it
	origin  place // of a letter
	fate    fate
	first   int   // the first attempt's number: 1, but for hostile copies
	gone    bool  // it was deleted with its topic
	hop     bool  // it was written again as it was
	forged  bool  // written by no member
	batch   int64 // it lies at so many offsets, being in chunks, or not to be read
	kills   bool  // its handler ends the process
	at      time.Duration
}

// ledger is written by all that happens.
type ledger struct {
	began  time.Time
	mu     sync.Mutex
	events []event
}

func (l *ledger) write(e event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.at = time.Since(l.began)
	l.events = append(l.events, e)
}

// print shows what happened in its order.
func (h *history) print(w io.Writer) {
	for _, e := range h.events {
		fmt.Fprintln(w, e)
	}
	for _, r := range h.base {
		fmt.Fprintf(w, "%10.3fs  a record at %v: %s\n", r.at.Seconds(), r.place, r.id)
	}
	for _, r := range h.copies {
		fmt.Fprintf(w, "%10.3fs  a copy at %v: %s, attempt %d, due %d\n", r.at.Seconds(), r.place, r.id, r.attempt, r.due)
	}
	for _, r := range h.letters {
		fmt.Fprintf(w, "%10.3fs  a letter at %v: %s, after %d attempts\n", r.at.Seconds(), r.place, r.id, r.attempt)
	}
}
