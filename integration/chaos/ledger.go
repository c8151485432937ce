package chaos

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Kind is what an event is about.
type Kind string

// The kinds of events, and what of an Event they use besides its time.
const (
	Up        Kind = "up"        // the process began
	Ready     Kind = "ready"     // the member has joined
	Start     Kind = "start"     // a handler began: ID, Attempt, At its source, N the record's Sum; Text "cancelled" if its context had ended
	End       Kind = "end"       // it returns: the same, N how long it postpones in ns, Text its Result
	Handled   Kind = "handled"   // HookHandled: N how long it waited in ns, Text the verdict
	Retried   Kind = "retried"   // HookRetried: Attempt the coming one, N the due time in ms
	Letter    Kind = "letter"    // HookDeadLettered: N the letter's offset
	Refused   Kind = "refused"   // HookProduceFailed: At, Attempt the try, Text the error
	Committed Kind = "committed" // HookCommitted, accepted: At with the offset, N what it took in ns
	Cut       Kind = "cut"       // the same, where the map did not fit
	Uncommit  Kind = "uncommit"  // HookCommitted, refused: Text the error
	Asks      Kind = "asks"      // the member asked the group for its commits
	Assigned  Kind = "assigned"  // HookAssigned: At with the offset
	Drained   Kind = "drained"   // HookDrained, in a revoke or at a stop: At, N the abandoned, Attempt the dropped, Text what it took
	Lost      Kind = "lost"      // HookDrained of a lost partition: the same
	Skipped   Kind = "skipped"   // N what the map has spared since the process began
	Stopping  Kind = "stopping"  // the process was told to stop
	Down      Kind = "down"      // Run has returned: Text the error
	Dies      Kind = "dies"      // the process is about to kill itself: Text the point
	Halts     Kind = "halts"     // it is about to be halted: Text the point
)

// Event is one line of a ledger.
type Event struct {
	Time    int64 // in ns since 1970
	Kind    Kind
	ID      int64 // of the record
	Attempt int
	At      retriable.Position
	N       int64
	Text    string
}

// String is the line without its end.
func (e Event) String() string {
	return fmt.Sprintf("%d %s %d %d %s %d %d %d %s", e.Time, e.Kind, e.ID, e.Attempt, e.At.Topic, e.At.Partition, e.At.Offset, e.N, strconv.Quote(e.Text))
}

// Ledger is a file of events. Each is written by one call, at the file's end: what was written before a SIGKILL is there, whole.
type Ledger struct{ f *os.File }

// OpenLedger opens a ledger for writing. It makes the file if it is not there.
func OpenLedger(path string) (*Ledger, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &Ledger{f}, nil
}

// Write stamps an event with the time, if it has none, and writes it. A ledger that cannot be written proves nothing: the process ends.
func (l *Ledger) Write(e Event) {
	if e.At.Topic == "" {
		e.At.Topic = "-"
	}
	if e.Time == 0 {
		e.Time = time.Now().UnixNano()
	}
	if _, err := l.f.WriteString(e.String() + "\n"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(4)
	}
}

// ReadLedger returns the events of a file in the order in which they were written.
func ReadLedger(path string) ([]Event, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	events := make([]Event, 0, bytes.Count(b, []byte{'\n'}))
	for line := range bytes.Lines(b) {
		e, err := parseEvent(strings.TrimSuffix(string(line), "\n"))
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, len(events)+1, err)
		}
		events = append(events, e)
	}
	return events, nil
}

func parseEvent(line string) (e Event, err error) {
	f := strings.SplitN(line, " ", 9)
	if len(f) != 9 {
		return e, fmt.Errorf("%q: not nine fields", line)
	}
	num := func(s string) int64 {
		n, bad := strconv.ParseInt(s, 10, 64)
		if bad != nil {
			err = bad
		}
		return n
	}
	e = Event{
		Time: num(f[0]), Kind: Kind(f[1]), ID: num(f[2]), Attempt: int(num(f[3])),
		At: retriable.Position{Topic: f[4], Partition: int32(num(f[5])), Offset: num(f[6])}, N: num(f[7]),
	}
	if err == nil {
		e.Text, err = strconv.Unquote(f[8])
	}
	if err != nil {
		return e, fmt.Errorf("%q: %w", line, err)
	}
	return e, nil
}
