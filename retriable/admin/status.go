package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// Group is where a consumer group stands, as seen from outside.
type Group struct {
	Name       string
	Protocol   Protocol // "" if it never had members
	State      string   // the broker's word: Stable, Empty, PreparingRebalance and so on
	Members    []Member
	Partitions []Partition // by topic and partition: all that it has committed, consumes or is subscribed to
}

// Partition is where a group stands in one partition.
type Partition struct {
	Topic     string
	Partition int32
	Member    string // the id of the member that has it; "" if nobody has

	Committed  int64 // −1 for none
	Start, End int64 // of the log
	Lag        int64 // from Committed, without one from Start, to End. It counts offsets, finished ones too
	// Finished is how many offsets above Committed are finished, as the commit's map says; they will not be delivered again.
	Finished int64
	Map      *Map // nil if the commit has none

	// Oldest is the record at the watermark: the first that is not known to be finished. Nil if there is none.
	Oldest *Waiting
	// Retry says that this is a retry topic, to judge by that record.
	Retry bool
	// Held is how many of a retry topic's records are not due yet, and NextDue when the first of them is. If HeldMore, there were more to
	// read than [StatusRecords].
	Held     int
	HeldMore bool
	NextDue  time.Time

	Err error // why part of this is not known
}

// Waiting is a record that a group has not finished. Only copies on a retry topic have more than a position and a time.
type Waiting struct {
	Position retriable.Position
	Time     time.Time // when it was written there
	Attempt  int       // the coming one; 1 on a base topic
	Due      time.Time // not before; zero for at once
	Group    string    // the group it is meant for; "" if it does not say

	Origin       retriable.Position // where it was first produced; "" and −1 if it is not known
	FirstFailure time.Time
	LastError    string
	Key          []byte
}

// StatusRecords is how many records of a partition of a retry topic [Client.Status] reads at most.
const StatusRecords = 10_000

// Status tells where a group stands: members, and by partition what is committed, what is finished above that, the record that holds the
// watermark, and what waits in retry topics. It asks the brokers and reads records, but joins no group. Nothing of the process that consumes
// is needed; so what is queued or runs there, it cannot tell. It returns [ErrNoGroup] for a group that has neither member nor commit.
func (c *Client) Status(ctx context.Context, group string) (*Group, error) {
	d, err := c.describe(ctx, group)
	if err != nil {
		return nil, err
	}
	commits, err := c.commits(ctx, group)
	if err != nil {
		return nil, err
	}
	if d.state == "Dead" && len(commits) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoGroup, group)
	}
	g := &Group{Name: group, Protocol: d.protocol, State: d.state, Members: d.members}
	topics := d.topics()
	for t := range commits {
		topics = append(topics, t)
	}
	slices.Sort(topics)
	for _, t := range slices.Compact(topics) {
		g.Partitions = append(g.Partitions, c.partitions(ctx, t, d, commits)...)
	}
	return g, c.watermarks(ctx, g)
}

// partitions is a group's partitions of one topic, without what only reading tells.
func (c *Client) partitions(ctx context.Context, topic string, d *described, commits kadm.OffsetResponses) (ps []Partition) {
	starts, err := c.listed(ctx, topic, c.adm.ListStartOffsets)
	ends := map[int32]int64{}
	if err == nil {
		ends, err = c.listed(ctx, topic, c.adm.ListEndOffsets)
	}
	if err != nil { // a topic that is gone: what was committed is all there is
		for n, o := range commits[topic] {
			ps = append(ps, Partition{Topic: topic, Partition: n, Committed: o.At, Start: -1, End: -1, Err: err})
		}
	}
	for n, end := range ends {
		p := Partition{Topic: topic, Partition: n, Member: d.assigned[topicPartition{topic, n}], Committed: -1, Start: starts[n], End: end}
		if o, ok := commits.Lookup(topic, n); ok && o.At >= 0 {
			p.Committed = o.At
			if m, ok := DecodeMap(o.Metadata, o.At, end); ok {
				p.Map, p.Finished = &m, m.Count()
			}
		}
		p.Lag = max(p.End-p.from(), 0)
		ps = append(ps, p)
	}
	slices.SortFunc(ps, func(a, b Partition) int { return cmp.Compare(a.Partition, b.Partition) })
	return ps
}

// from is where the group would read on, as far as that is known from outside.
func (p *Partition) from() int64 { return max(p.Committed, p.Start) }

// statusPatience is how long Status waits for partitions that cannot be read.
const statusPatience = 5 * time.Second

// watermarks reads the records at the watermarks, and on in retry topics.
func (c *Client) watermarks(ctx context.Context, g *Group) error {
	s, err := c.scanner(kgo.FetchMaxPartitionBytes(64<<10), kgo.FetchMaxBytes(16<<20))
	if err != nil {
		return err
	}
	defer s.close()
	s.patience = statusPatience
	spans, at, stable := map[topicPartition]Span{}, map[topicPartition]*Partition{}, map[string]map[int32]int64{}
	for i := range g.Partitions {
		p := &g.Partitions[i]
		if p.Err != nil || p.from() >= p.End {
			continue
		}
		if stable[p.Topic] == nil {
			// What open transactions have written cannot be read yet.
			if stable[p.Topic], p.Err = c.listed(ctx, p.Topic, c.adm.ListCommittedOffsets); p.Err != nil {
				stable[p.Topic] = map[int32]int64{}
				continue
			}
		}
		name := topicPartition{p.Topic, p.Partition}
		spans[name], at[name] = Span{p.from(), stable[p.Topic][p.Partition]}, p
	}
	read, now := map[topicPartition]int{}, time.Now()
	s.refused = func(name topicPartition, err error) { at[name].Err = err }
	return s.scan(ctx, spans, func(r *kgo.Record) (bool, error) {
		name := topicPartition{r.Topic, r.Partition}
		read[name]++
		return at[name].look(r, read[name], g.Name, now), nil
	})
}

// look takes one more record of the partition into account. It reports whether to read on.
func (p *Partition) look(r *kgo.Record, read int, group string, now time.Time) (more bool) {
	if p.Map != nil && p.Map.Has(r.Offset) {
		return true
	}
	w := waitingOf(&message{rec: r, parts: 1})
	if p.Oldest == nil {
		p.Retry = isRetry(r)
		if p.Retry && w.Group != "" && w.Group != group {
			p.Retry = false // passed over, and no more is known of the topic yet
			return true
		}
		p.Oldest = w
	}
	if !p.Retry {
		return false
	}
	c, chunk, _ := wire.ParseChunk(r.Headers)
	if (w.Group == "" || w.Group == group) && w.Due.After(now) && (!chunk || c.ID == 0) {
		p.Held++
		if p.NextDue.IsZero() || w.Due.Before(p.NextDue) {
			p.NextDue = w.Due
		}
	}
	if read >= StatusRecords {
		p.HeldMore = r.Offset+1 < p.End
		return false
	}
	return true
}
