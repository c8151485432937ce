package admin

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// Letter is one dead letter. What its headers do not say is zero: a letter that another tool wrote has no reason, group or origin.
type Letter struct {
	// Position is where it lies in the dead-letter topic; of one in several parts, where the first of them does.
	Position retriable.Position
	// Time is when it was written there.
	Time time.Time
	// Records is how many records it takes: more than one if it was split.
	Records int
	// Incomplete says that this is one part of a message of which others are not in the topic. It cannot be sent back.
	Incomplete bool

	// Group is the consumer group that gave up; "" if the letter names none (Kafka's own dead letters of share groups do).
	Group string
	// Reason says why, as "all 5 attempts failed"; docs/retries.md has them all.
	Reason string
	// Error is the text of the last attempt's error.
	Error string
	// Attempts is how many were made.
	Attempts int
	// FirstFailure is when the first of them failed.
	FirstFailure time.Time
	// Origin is where the record was first produced. Parts of it that are not known are "" and −1.
	Origin retriable.Position
	// OriginTime is the record's timestamp there.
	OriginTime time.Time

	// Key, Value and Headers are those of the record as it was first produced.
	Key, Value []byte
	Headers    []kgo.RecordHeader

	// Sent says that it was sent back to its group by [Client.Replay]. It is told only where [Filter.Group] names the group.
	Sent bool
}

// letterOf reads a letter, or one part of one.
func letterOf(m *message) *Letter {
	r := m.rec
	d := wire.ParseDeadLetter(r.Headers)
	l := &Letter{
		Position: retriable.Position{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}, Time: r.Timestamp,
		Records: m.parts, Incomplete: m.kind == part,
		Group: d.Group, Reason: d.Message, Error: d.Error, Attempts: d.Deliveries,
		Origin:     retriable.Position{Topic: d.Topic, Partition: d.Partition, Offset: d.Offset},
		OriginTime: d.Time, Key: r.Key, Value: r.Value, Headers: wire.Bare(r.Headers),
	}
	if d.FirstFailure > 0 {
		l.FirstFailure = time.UnixMilli(d.FirstFailure)
	}
	return l
}

// Filter says which letters are meant: those for which all that is set holds. The zero Filter means all.
type Filter struct {
	Group     string    // the consumer group that gave up
	Origin    string    // the topic of the record as first produced
	Partition *int32    // of the dead-letter topic
	Since     time.Time // dead-lettered then or later
	Until     time.Time // dead-lettered before then
	Key       []byte    // exactly this key; nil for any
	Reason    string    // somewhere in the reason
	Error     string    // somewhere in the last attempt's error
	Headers   []Header  // each of them among the record's headers
	// Match is asked last.
	Match func(*Letter) bool
}

// Header is a header of a record. In a [Filter] a nil value stands for any.
type Header struct {
	Name  string
	Value []byte
}

// match asks all of the filter but the partition and the group.
func (f *Filter) match(l *Letter) bool {
	switch {
	case f.Origin != "" && l.Origin.Topic != f.Origin,
		!f.Since.IsZero() && l.Time.Before(f.Since),
		!f.Until.IsZero() && !l.Time.Before(f.Until),
		f.Key != nil && !bytes.Equal(l.Key, f.Key),
		!strings.Contains(l.Reason, f.Reason),
		!strings.Contains(l.Error, f.Error):
		return false
	}
	for _, want := range f.Headers {
		if !slices.ContainsFunc(l.Headers, func(h kgo.RecordHeader) bool {
			return h.Key == want.Name && (want.Value == nil || bytes.Equal(h.Value, want.Value))
		}) {
			return false
		}
	}
	return f.Match == nil || f.Match(l)
}

// narrow leaves the partitions that the filter means.
func (f *Filter) narrow(bounds map[int32]Span) []int32 {
	ps := slices.Sorted(maps.Keys(bounds))
	if f.Partition == nil {
		return ps
	}
	return slices.DeleteFunc(ps, func(p int32) bool { return p != *f.Partition })
}

// List reads a dead-letter topic up to its present end and yields the letters that the filter means, by partition and offset. A message in several
// parts is one letter, where the last of them lies; parts that cannot be joined come last of their partition, each by itself. An error is the last
// that is yielded.
func (c *Client) List(ctx context.Context, topic string, f Filter) iter.Seq2[*Letter, error] {
	return func(yield func(*Letter, error) bool) {
		if err := c.list(ctx, topic, &f, math.MaxInt64, yield); err != nil {
			yield(nil, err)
		}
	}
}

// Latest returns the newest letters that the filter means, newest first and at most n of them, of the last n offsets of each partition: it is for a look
// at a topic that may be large. Of a message in several parts those may be cut off that lie further back: what came of it is incomplete then.
func (c *Client) Latest(ctx context.Context, topic string, n int, f Filter) ([]*Letter, error) {
	n = max(n, 0)
	var ls []*Letter
	err := c.list(ctx, topic, &f, int64(n), func(l *Letter, _ error) bool {
		ls = append(ls, l)
		return true
	})
	slices.SortStableFunc(ls, func(a, b *Letter) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.Position.Offset, a.Position.Offset))
	})
	return ls[:min(len(ls), n)], err
}

// list reads the last offsets of each partition.
func (c *Client) list(ctx context.Context, topic string, f *Filter, last int64, yield func(*Letter, error) bool) error {
	bounds, err := c.Bounds(ctx, topic)
	if err != nil {
		return err
	}
	sent := map[int32]*progress{}
	if f.Group != "" {
		if sent, err = c.progress(ctx, topic, f.Group, bounds); err != nil {
			return err
		}
	}
	s, err := c.scanner()
	if err != nil {
		return err
	}
	defer s.close()
	for _, p := range f.narrow(bounds) {
		stopped, b := false, bounds[p]
		b.From = b.To - min(b.To-b.From, last)
		err := s.messages(ctx, topicPartition{topic, p}, b, func(m *message) (bool, error) {
			if m.kind == repeat {
				return true, nil
			}
			l := letterOf(m)
			if f.Group != "" && l.Group != f.Group || !f.match(l) {
				return true, nil
			}
			l.Sent = sent[p].hasAll(m.covers)
			stopped = !yield(l, nil)
			return !stopped, nil
		})
		if err != nil || stopped {
			return err
		}
	}
	return nil
}

// ErrNoLetter says that at a position there is no letter, or no longer.
var ErrNoLetter = errors.New("admin: there is no letter")

// Letter reads the letter at a position that [Client.List] gave. It returns [ErrNoLetter] if there is none.
func (c *Client) Letter(ctx context.Context, at retriable.Position) (*Letter, error) {
	bounds, err := c.Bounds(ctx, at.Topic)
	if err != nil {
		return nil, err
	}
	b, ok := bounds[at.Partition]
	if !ok || at.Offset < b.From || at.Offset >= b.To {
		return nil, fmt.Errorf("%w at %v", ErrNoLetter, at)
	}
	s, err := c.scanner()
	if err != nil {
		return nil, err
	}
	defer s.close()
	var l *Letter
	j, there := newJoiner(at.Offset), false
	find := func(ms []*message) bool {
		for _, m := range ms {
			if m.rec.Offset == at.Offset {
				l = letterOf(m)
			}
		}
		return l == nil
	}
	err = s.scan(ctx, map[topicPartition]Span{{at.Topic, at.Partition}: {at.Offset, b.To}}, func(r *kgo.Record) (bool, error) {
		there = there || r.Offset == at.Offset
		return there && find(j.add(r)), nil // the last part of a message may lie far behind
	})
	if err == nil && l == nil {
		find(j.rest())
	}
	if err == nil && l == nil {
		err = fmt.Errorf("%w at %v", ErrNoLetter, at)
	}
	return l, err
}
