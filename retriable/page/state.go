package page

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// state is what data.json says, and what the page is made of.
type state struct {
	Group      string      `json:"group"`
	At         time.Time   `json:"at"`
	Ready      bool        `json:"ready"` // it has joined its group
	Problems   []problem   `json:"problems"`
	Checked    bool        `json:"checked"` // Problems are known
	Counters   counters    `json:"counters"`
	Topics     []topic     `json:"topics"`
	Partitions []partition `json:"partitions"`
	Running    []running   `json:"running"` // the longest first
	Waiting    []waiting   `json:"waiting"` // what is due first comes first
	Writing    []writing   `json:"writing"` // the oldest first
	Dead       []letters   `json:"dead_letters,omitempty"`
}

type counters struct {
	Workers         int    `json:"workers"`
	Running         int    `json:"running"`
	Pending         int    `json:"pending"`
	Held            int    `json:"held"`
	Lag             int64  `json:"lag"`
	PendingBytes    int64  `json:"pending_bytes"`
	Handled         uint64 `json:"handled"`
	Failed          uint64 `json:"failed"`
	Retried         uint64 `json:"retried"`
	DeadLettered    uint64 `json:"dead_lettered"`
	Dropped         uint64 `json:"dropped"`
	Filtered        uint64 `json:"filtered"`
	Skipped         uint64 `json:"skipped"`
	Rewritten       uint64 `json:"rewritten"`
	ProduceFailures uint64 `json:"produce_failures"`
	MapCuts         uint64 `json:"map_cuts"`
}

type topic struct {
	Base    string   `json:"base"`
	Pattern bool     `json:"pattern,omitempty"`
	Retries []string `json:"retries,omitempty"`
	Dead    string   `json:"dead,omitempty"`
}

type partition struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Retry     bool    `json:"retry,omitempty"`
	Committed int64   `json:"committed"`
	Watermark int64   `json:"watermark"`
	Next      int64   `json:"next"` // the read position
	End       int64   `json:"end"`
	Lag       int64   `json:"lag"`
	Pending   int     `json:"pending"`
	Running   int     `json:"running"`
	Held      int     `json:"held"`
	MapFill   float64 `json:"map_fill"`
	Paused    bool    `json:"paused,omitempty"`
	Careful   bool    `json:"careful,omitempty"`
	Oldest    *oldest `json:"oldest,omitempty"` // the record at the watermark
	Window    []cell  `json:"window,omitempty"`
}

type oldest struct {
	Offset  int64     `json:"offset"`
	Attempt int       `json:"attempt"`
	Reason  string    `json:"reason"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"`
	To      string    `json:"written_to,omitempty"`
}

type cell struct {
	From      int64 `json:"from"`
	To        int64 `json:"to"`
	Queued    int   `json:"queued,omitempty"`
	Running   int   `json:"running,omitempty"`
	Held      int   `json:"held,omitempty"`
	Producing int   `json:"producing,omitempty"`
	Joining   int   `json:"joining,omitempty"`
}

type position struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

type running struct {
	position
	Attempt int       `json:"attempt"`
	Since   time.Time `json:"since"` // seen to run since then
	Read    time.Time `json:"read"`  // and not for longer than since then
}

type waiting struct {
	position
	Attempt int       `json:"attempt"`
	Due     time.Time `json:"due"`
	Reason  string    `json:"reason"`
	InPlace bool      `json:"in_place,omitempty"`
}

type writing struct {
	position
	To      string    `json:"to"`
	Since   time.Time `json:"since"`
	Refused int       `json:"refused"`
	Again   time.Time `json:"again,omitzero"`
}

// What is shown at most: of partitions, of records in each list, of stretches of a window.
const (
	mostPartitions = 200
	mostRecords    = 50
	mostCells      = 120
)

// look returns what the consumer does. Those who look at the same moment see the same.
func (p *Page) look() *state {
	p.looked.Lock()
	defer p.looked.Unlock()
	if p.now == nil || time.Since(p.now.At) >= p.every/2 {
		p.now = p.makeState()
	}
	return p.now
}

func (p *Page) makeState() *state {
	st, ins := p.c.Stats(), p.c.Inspect(mostCells)
	s := &state{Group: p.c.Group(), At: time.Now(), Partitions: []partition{}, Running: []running{}, Waiting: []waiting{}, Writing: []writing{}}
	select {
	case <-p.c.Ready():
		s.Ready = true
	default:
	}
	for _, t := range p.c.Topics() {
		s.Topics = append(s.Topics, topic(t))
	}
	s.Counters = counters{
		Workers: st.Workers, Running: st.Running, PendingBytes: st.PendingBytes,
		Handled: st.Handled, Failed: st.Failed, Retried: st.Retried, DeadLettered: st.DeadLettered, Dropped: st.Dropped,
		Filtered: st.Filtered, Skipped: st.Skipped, Rewritten: st.Rewritten, ProduceFailures: st.ProduceFailures, MapCuts: st.MapCuts,
	}
	inspected := map[position]*retriable.Inspection{}
	for i := range ins {
		inspected[position{ins[i].Topic, ins[i].Partition, 0}] = &ins[i]
		s.records(&ins[i])
	}
	for i := range st.Partitions {
		ps := &st.Partitions[i]
		s.Counters.Pending += ps.Pending
		s.Counters.Held += ps.Held
		s.Counters.Lag += ps.Lag
		s.Partitions = append(s.Partitions, partitionOf(ps, inspected[position{ps.Topic, ps.Partition, 0}]))
	}
	s.sort()
	return s
}

func partitionOf(ps *retriable.PartitionStats, in *retriable.Inspection) partition {
	p := partition{
		Topic: ps.Topic, Partition: ps.Partition, Committed: ps.Committed, Watermark: ps.Watermark, Next: ps.Watermark, End: ps.End, Lag: ps.Lag,
		Pending: ps.Pending, Running: ps.Running, Held: ps.Held, MapFill: ps.MapFill, Paused: ps.Paused, Careful: ps.Careful,
	}
	if o := ps.Oldest; !o.Since.IsZero() {
		p.Oldest = &oldest{o.Offset, o.Attempt, string(o.Reason), o.Since, o.Until, o.Topic}
	}
	if in == nil {
		return p // it came between the two looks
	}
	p.Retry, p.Watermark, p.Next, p.End = in.Retry, in.Watermark, in.Next, max(in.End, ps.End)
	for _, c := range in.Window {
		p.Window = append(p.Window, cell{c.From, c.To, c.Queued, c.Running, c.Held, c.Producing, c.Joining})
	}
	return p
}

// records adds what single records of a partition do.
func (s *state) records(in *retriable.Inspection) {
	at := func(offset int64) position { return position{in.Topic, in.Partition, offset} }
	for _, r := range in.Running[:min(len(in.Running), mostRecords)] {
		s.Running = append(s.Running, running{at(r.Offset), r.Attempt, r.Since, r.Read})
	}
	for _, r := range in.Waiting[:min(len(in.Waiting), mostRecords)] {
		s.Waiting = append(s.Waiting, waiting{at(r.Offset), r.Attempt, r.Due, string(r.Reason), r.InPlace})
	}
	for _, r := range in.Writing[:min(len(in.Writing), mostRecords)] {
		s.Writing = append(s.Writing, writing{at(r.Offset), r.Topic, r.Since, r.Refused, r.Again})
	}
}

func (s *state) sort() {
	slices.SortStableFunc(s.Running, func(a, b running) int { return cmp.Or(a.Since.Compare(b.Since), a.Read.Compare(b.Read)) })
	slices.SortStableFunc(s.Waiting, func(a, b waiting) int { return a.Due.Compare(b.Due) })
	slices.SortStableFunc(s.Writing, func(a, b writing) int { return a.Since.Compare(b.Since) })
	s.Running = s.Running[:min(len(s.Running), mostRecords)]
	s.Waiting = s.Waiting[:min(len(s.Waiting), mostRecords)]
	s.Writing = s.Writing[:min(len(s.Writing), mostRecords)]
	slices.SortStableFunc(s.Partitions, func(a, b partition) int { return cmp.Compare(b2i(a.idle()), b2i(b.idle())) })
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// idle partitions have nothing to show.
func (p *partition) idle() bool {
	return p.Lag == 0 && p.Pending == 0 && p.Held == 0 && !p.Paused && !p.Careful && len(p.Window) == 0
}

// problem is one reason why the consumer cannot do all of its work.
type problem struct {
	Kind   string `json:"kind"` // stuck, produce, fetch, topic, group, broker or other
	Text   string `json:"text"`
	Advice string `json:"advice,omitempty"`
}

// askHealth asks the consumer, which asks the brokers.
func (p *Page) askHealth(ctx context.Context) []problem {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	problems := []problem{}
	for _, err := range leaves(p.c.Health(ctx)) {
		problems = append(problems, problemOf(err))
	}
	slices.SortStableFunc(problems, func(a, b problem) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Text, b.Text)) })
	return problems
}

// leaves takes a joined error apart.
func leaves(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error }) // the outermost alone is joined
	if !ok {
		return []error{err}
	}
	return joined.Unwrap()
}

var adviceOnStuck = map[retriable.Reason]string{
	retriable.ReasonRunning:   "Its handler has not returned: look at what it calls. HandlerTimeout bounds how long it may take.",
	retriable.ReasonQueued:    "All workers are busy, or the record before it in its lane has not ended: look at what runs.",
	retriable.ReasonProducing: "Its copy is not acked: look at what is being written, and at the rights and the state of that topic.",
}

func problemOf(err error) problem {
	pr := problem{Kind: "other", Text: strings.TrimPrefix(err.Error(), "retriable: ")}
	var (
		stuck   *retriable.StuckError
		produce *retriable.ProduceError
		fetch   *retriable.FetchError
		missing *retriable.TopicError
		group   *retriable.GroupError
		broker  *retriable.BrokerError
	)
	switch {
	case errors.As(err, &stuck):
		pr.Kind, pr.Advice = "stuck", adviceOnStuck[stuck.Oldest.Reason]
	case errors.As(err, &produce):
		pr.Kind, pr.Advice = "produce", "Nothing is lost: the records stay pending and the writes are tried again. Look at the topic's rights, size limit and replicas."
	case errors.As(err, &fetch):
		pr.Kind = "fetch"
	case errors.As(err, &missing):
		pr.Kind, pr.Advice = "topic", "The topic must be there, and this consumer be allowed to see it."
	case errors.As(err, &group):
		pr.Kind = "group"
	case errors.As(err, &broker):
		pr.Kind, pr.Advice = "broker", "What was read before is still handled; nothing can be committed meanwhile."
	}
	return pr
}
