package retriable

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// start is where a partition is read from.
type start struct {
	at        kgo.EpochOffset // offset -1: unknown until the first record
	from      kgo.Offset      // the same for kgo
	end       int64
	epoch     int32 // of the log's end; -1 if unknown
	committed bool
	err       error // why it is unknown
}

// resolveStarts looks up the log's ends, and for partitions without a valid commit where their topic wants them to start. Where that
// cannot be had kgo finds the place by itself, and until then the partition holds up no other.
func (c *Consumer) resolveStarts(ctx context.Context, offsets map[string]map[int32]kgo.Offset) map[topicPartition]start {
	topics := make([]string, 0, len(offsets))
	for t := range offsets {
		topics = append(topics, t)
	}
	adm := kadm.NewClient(c.cl)
	timed, cancel := context.WithTimeout(ctx, c.set.commitTimeout())
	defer cancel()
	ends, err := adm.ListEndOffsets(timed, topics...)
	if err != nil {
		c.log.Debug("retriable: not all ends of the log could be listed", "error", err)
	}
	l := logs{adm: adm, seen: map[spot]listing{}}
	if err == nil && ends.Error() == nil { // else a second look may see more
		for _, t := range topics {
			l.seen[spot{t, logEnd}] = listing{offsets: ends}
		}
	}
	starts := map[topicPartition]start{}
	for t, parts := range offsets {
		for p := range parts {
			s := start{end: -1, epoch: -1}
			if e, ok := ends.Lookup(t, p); ok && e.Err == nil {
				s.end, s.epoch = e.Offset, e.LeaderEpoch
			}
			c.resolveStart(timed, &l, topicPartition{t, p}, &s)
			starts[topicPartition{t, p}] = s
		}
	}
	together(starts)
	return starts
}

// together has what kgo would read at once wait for what it asks the broker about first, because the epoch of the record before it is known. For an
// empty retry topic that is fetched alone would have all others wait for as long as that fetch waits for records. It is asked about, too, if it has the
// epoch of the log's end, which is no lower than that of any record below.
func together(starts map[topicPartition]start) {
	asked := false
	for _, s := range starts {
		asked = asked || s.at.Epoch >= 0
	}
	if !asked {
		return
	}
	for name, s := range starts {
		if s.at.Offset >= 0 && s.at.Epoch < 0 && s.epoch >= 0 {
			s.from = s.from.WithEpoch(s.epoch)
			starts[name] = s
		}
	}
}

func (c *Consumer) resolveStart(ctx context.Context, l *logs, name topicPartition, s *start) {
	f, ok := c.fetched[name]
	want := c.startAt(name.topic)
	switch s.committed = ok && f.offset >= 0; {
	case s.committed && (s.end < 0 || f.offset <= s.end):
		s.at = kgo.EpochOffset{Offset: f.offset, Epoch: f.epoch}
		s.from = kgo.NewOffset().At(f.offset).WithEpoch(f.epoch)
		return
	case s.committed:
		c.log.Warn("retriable: the committed offset lies beyond the log's end, which was cut or made anew; starting at its start",
			"topic", name.topic, "partition", name.partition, "committed", f.offset, "end", s.end)
		s.committed = false
		want = kgo.NewOffset().AtStart()
	}
	at, err := l.resolve(ctx, name, want)
	if err != nil {
		s.at, s.from, s.err = kgo.EpochOffset{Offset: -1, Epoch: -1}, want, err
		return
	}
	s.at, s.from = kgo.EpochOffset{Offset: at, Epoch: -1}, kgo.NewOffset().At(at)
}

// startAt is where a partition without a commit starts; a retry topic at its start, for all in it is to be handled.
func (c *Consumer) startAt(name string) kgo.Offset {
	if t, retry := c.route(name); t != nil && !retry {
		return t.startAt
	}
	return kgo.NewOffset().AtStart()
}

// The ends of a log, as ListOffsets names them; what is above is a time in ms.
const logStart, logEnd = -2, -1

// logs looks up spots in logs. A listing is of a whole topic, so that each spot is asked for once, however many of its partitions are new.
type logs struct {
	adm  *kadm.Client
	seen map[spot]listing
}

type spot struct {
	topic string
	at    int64 // logStart, logEnd or a time
}

type listing struct {
	offsets kadm.ListedOffsets
	err     error
}

func (l *logs) list(ctx context.Context, topic string, at int64) (kadm.ListedOffsets, error) {
	got, ok := l.seen[spot{topic, at}]
	if ok {
		return got.offsets, got.err
	}
	switch at {
	case logStart:
		got.offsets, got.err = l.adm.ListStartOffsets(ctx, topic)
	case logEnd:
		got.offsets, got.err = l.adm.ListEndOffsets(ctx, topic)
	default:
		got.offsets, got.err = l.adm.ListOffsetsAfterMilli(ctx, at, topic)
	}
	if len(got.offsets) > 0 {
		got.err = nil // each partition has its own
	}
	l.seen[spot{topic, at}] = got
	return got.offsets, got.err
}

// lookup returns where a spot is in a partition's log.
func (l *logs) lookup(ctx context.Context, name topicPartition, at int64) (int64, error) {
	all, err := l.list(ctx, name.topic, at)
	if err != nil {
		return 0, err
	}
	o, ok := all.Lookup(name.topic, name.partition)
	if !ok {
		o.Err = kerr.UnknownTopicOrPartition
	}
	if o.Err != nil {
		return 0, fmt.Errorf("listing the ends of %s/%d: %w", name.topic, name.partition, o.Err)
	}
	return o.Offset, nil
}

// resolve turns a place to start into an offset.
func (l *logs) resolve(ctx context.Context, name topicPartition, o kgo.Offset) (int64, error) {
	low, err := l.lookup(ctx, name, logStart)
	if err != nil {
		return 0, err
	}
	high, err := l.lookup(ctx, name, logEnd)
	if err != nil {
		return 0, err
	}
	at, relative := o.EpochOffset().Offset, relativeOf(o)
	switch {
	case isAfterMilli(o):
		if at, err = l.lookup(ctx, name, at); err != nil {
			return 0, err
		}
	case at == logStart:
		at = low
	case at == logEnd:
		at = high
	}
	return min(max(at+relative, low), high), nil
}

// kgo.Offset does not show all of what it says: the rest is found by comparing and through its JSON.

// isAfterMilli reports whether o is a place by time.
func isAfterMilli(o kgo.Offset) bool {
	at := o.EpochOffset().Offset
	return o == kgo.NewOffset().AfterMilli(at) || o == kgo.NoResetOffset().AfterMilli(at)
}

// relativeOf returns how far from its anchor o is.
func relativeOf(o kgo.Offset) int64 {
	var v struct{ Relative int64 }
	if b, err := o.MarshalJSON(); err == nil {
		_ = json.Unmarshal(b, &v)
	}
	return v.Relative
}

// resolvable reports whether o can be turned into an offset where there is no commit.
func resolvable(o kgo.Offset) bool {
	at := o.EpochOffset().Offset
	return at >= -2 || isAfterMilli(o)
}
