package page

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

// deadTopic is one dead-letter topic of the consumer, and the base topic whose records end there.
type deadTopic struct {
	p     *Page
	no    int
	topic topic
	found *cached[found]
	job   job
}

// found is what a look at a dead-letter topic found.
type found struct {
	letters []*admin.Letter
	stored  int64 // offsets from the topic's beginning to its end
	err     bool
}

// letters is what is shown of a dead-letter topic.
type letters struct {
	No     int       `json:"-"`
	Topic  string    `json:"topic"`
	Base   string    `json:"base"`
	To     string    `json:"retry,omitempty"` // where they can be sent back to
	Known  bool      `json:"known"`           // the topic could be read
	Stored int64     `json:"stored"`          // offsets that it holds, of all groups
	Latest []letter  `json:"latest"`          // the newest first
	Replay *progress `json:"replay,omitempty"`
}

// letter is one dead letter of this group.
type letter struct {
	position
	Time         time.Time `json:"time"`
	Reason       string    `json:"reason"`
	Attempts     int       `json:"attempts"`
	Origin       position  `json:"origin"`
	FirstFailure time.Time `json:"first_failure,omitzero"`
	Sent         bool      `json:"sent"` // it was sent back
	Incomplete   bool      `json:"incomplete,omitempty"`
	Payload      *payload  `json:"payload,omitempty"` // nil unless it may be shown
}

type payload struct {
	ID      string   `json:"-"` // tells it from the others of its topic
	Key     string   `json:"key"`
	Value   string   `json:"value"`
	Cut     bool     `json:"cut,omitempty"` // of the value, only the beginning is here
	Error   string   `json:"error"`
	Reason  string   `json:"reason"`
	Headers []header `json:"headers"`
}

type header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// latest is how many letters of a topic are shown, and mostValue how much of each one's value.
const (
	latest    = 25
	mostValue = 4096
)

// deadTopics are those of the consumer, each once for every base topic.
func (p *Page) deadTopics() (ds []*deadTopic) {
	if p.letters == nil {
		return nil
	}
	for _, t := range p.c.Topics() {
		if t.Dead == "" {
			continue
		}
		d := &deadTopic{p: p, no: len(ds), topic: topic(t)}
		d.found = newCached(p, max(10*p.every, 3*time.Second), d.read)
		ds = append(ds, d)
	}
	return ds
}

// read asks the brokers for the newest letters.
func (d *deadTopic) read(ctx context.Context) (f found) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	bounds, err := d.p.letters.Bounds(ctx, d.topic.Dead)
	if err == nil {
		f.letters, err = d.p.letters.Latest(ctx, d.topic.Dead, latest, admin.Filter{Group: d.p.c.Group(), Match: d.mine})
	}
	for _, b := range bounds {
		f.stored += b.To - b.From
	}
	f.err = err != nil
	return f
}

// mine reports whether a letter is of this base topic: several may share a dead-letter topic.
func (d *deadTopic) mine(l *admin.Letter) bool {
	if d.topic.Pattern {
		re, err := regexp.Compile("^(?:" + d.topic.Base + ")$")
		return err == nil && re.MatchString(l.Origin.Topic)
	}
	return l.Origin.Topic == "" || l.Origin.Topic == d.topic.Base
}

// view is what a reader may see of it.
func (d *deadTopic) view(ctx context.Context, payloads bool) letters {
	f, known := d.found.get(ctx)
	ls := letters{No: d.no, Topic: d.topic.Dead, Base: d.topic.Base, Known: known && !f.err, Stored: f.stored, Latest: []letter{}, Replay: d.job.progress()}
	if len(d.topic.Retries) > 0 {
		ls.To = d.topic.Retries[0]
	}
	for _, l := range f.letters {
		ls.Latest = append(ls.Latest, letterOf(l, payloads))
	}
	return ls
}

// known is the reasons that this library gives: nothing in them is of a record. (docs/retries.md, docs/wire.md.)
var known = regexp.MustCompile(`^(permanent failure|all \d+ attempts failed|its time was over \(MaxElapsed\)|no retry topic|too large for [a-zA-Z0-9._-]+|` +
	`killed its process \(\d+ crashes\)|malformed chunk headers|message has too many chunks|message too large to be joined|` +
	`no memory left for chunks of incomplete messages|too many incomplete messages|chunks disagree about their number|` +
	`chunk repeated with another value|chunks missing at the deadline)$`)

func letterOf(l *admin.Letter, payloads bool) letter {
	out := letter{
		position: position(l.Position), Time: l.Time, Reason: l.Reason, Attempts: l.Attempts, Origin: position(l.Origin),
		FirstFailure: l.FirstFailure, Sent: l.Sent, Incomplete: l.Incomplete,
	}
	if !known.MatchString(l.Reason) {
		out.Reason = "" // whoever wrote it may have put anything there
	}
	if !payloads {
		return out
	}
	pay := &payload{ID: fmt.Sprintf("%d-%d", l.Position.Partition, l.Position.Offset), Key: text(l.Key), Error: l.Error, Reason: l.Reason, Cut: len(l.Value) > mostValue, Headers: []header{}}
	if l.Value == nil {
		pay.Value = text(nil)
	} else {
		pay.Value = text(l.Value[:min(len(l.Value), mostValue)])
	}
	for _, h := range l.Headers {
		pay.Headers = append(pay.Headers, header{h.Key, text(h.Value[:min(len(h.Value), mostValue)])})
	}
	out.Payload = pay
	return out
}
