package interop

import (
	_ "embed"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

//go:embed consume.py
var consumeScript string

// Consuming is what a Python member of a group is made of and what its handler does.
type Consuming struct {
	Brokers     []string       `json:"brokers"`
	Group       string         `json:"group"`
	Topic       string         `json:"topic"`       // or a pattern that begins with ^
	Retry       string         `json:"retry"`       // none if empty
	Retries     int            `json:"retries"`     // so many after the first attempt
	Delay       float64        `json:"delay"`       // seconds until the next attempt
	CancelWait  float64        `json:"cancel_wait"` // seconds for each running handler, at a hand-over; 30
	ChunkWait   float64        `json:"chunk_wait"`  // seconds for a message's next chunk; 900
	Workers     int            `json:"workers"`     // threads; 4
	Concurrency int            `json:"concurrency"` // messages given to them at once; as many as Workers
	Log         string         `json:"log"`         // level from which on the client's log is told; WARNING
	Raw         bool           `json:"raw"`         // tell of every record that is polled
	Only        []string       `json:"only"`        // only records with this header, containing this text, pass the filter
	Kafka       map[string]any `json:"kafka"`       // settings of librdkafka

	Sleep     float64 `json:"sleep"`      // seconds that the handler takes
	Fail      int     `json:"fail"`       // so many calls of each message fail, counted by this process
	Whole     bool    `json:"whole"`      // tell of blobs as they are, not by length and checksum
	FailEvery int     `json:"fail_every"` // only for ids divisible by it
}

// Event is something that a member told; see consume.py.
type Event struct {
	Event     string
	At        float64      // Unix time in seconds
	ID        string       // call, done
	N         int          // call, done
	OK        bool         // done
	Message   string       // done
	Topic     string       // raw, call, done
	Partition int32        // raw, call, done
	Offset    int64        // raw, call, done
	Key       *string      // raw, in hex
	Headers   [][2]*string // raw, names and values in hex
	Offsets   [][3]any     // assign, commit: topic, partition, offset
	Level     string       // log
	Text      string       // log
	Error     string       // commit, crash
}

// Member is a process with a BaseConsumer.
type Member struct {
	*process
	mu     sync.Mutex
	events []Event
}

// Member starts a member of a group. It ends with the test, by being killed, unless it is stopped before.
func (p *Python) Member(tb testing.TB, s Consuming) *Member {
	tb.Helper()
	if s.CancelWait == 0 {
		s.CancelWait = 30
	}
	if s.ChunkWait == 0 {
		s.ChunkWait = 900
	}
	if s.Workers == 0 {
		s.Workers = 4
	}
	if s.Concurrency == 0 {
		s.Concurrency = s.Workers
	}
	if s.Log == "" {
		s.Log = "WARNING"
	}
	if s.Kafka == nil {
		s.Kafka = map[string]any{}
	}
	m := &Member{}
	m.process = p.start(tb, consumeScript, s, func(line []byte) {
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			e = Event{Event: "crash", Error: err.Error() + ": " + string(line)}
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.events = append(m.events, e)
	})
	return m
}

// Events returns what the member told of a kind, in order.
func (m *Member) Events(kind string) (es []Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		if e.Event == kind {
			es = append(es, e)
		}
	}
	return es
}

// Handled returns how many messages its handler has handled with success, each counted once.
func (m *Member) Handled() int {
	ids := map[string]bool{}
	for _, e := range m.Events("done") {
		if e.OK {
			ids[e.ID] = true
		}
	}
	return len(ids)
}

// Logged reports whether a line of the client's log has the text.
func (m *Member) Logged(text string) bool {
	return slices.ContainsFunc(m.Events("log"), func(e Event) bool { return strings.Contains(e.Text, text) })
}

// Stop has the member leave as the client does when it is told to stop, and waits until it is gone. An error is how it failed to.
func (m *Member) Stop() error { return m.end(time.Minute) }

// Ended is closed once the member is gone, however it ended.
func (m *Member) Ended() <-chan struct{} { return m.ended }

// Kill ends the member as a crash would.
func (m *Member) Kill() { m.kill() }

// PrintHeaders prints the headers of a raw record: name=hex, or name=null, each followed by a space.
func (e *Event) PrintHeaders() (s string) {
	for _, h := range e.Headers {
		s += *h[0] + "="
		if h[1] == nil {
			s += "null "
		} else {
			s += *h[1] + " "
		}
	}
	return s
}
