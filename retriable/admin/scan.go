package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Span is a stretch of offsets of one partition: From <= offset < To.
type Span struct{ From, To int64 }

// Bounds returns where each partition of a topic begins and ends. The end is the last stable offset: what open transactions have written does not
// count yet.
func (c *Client) Bounds(ctx context.Context, topic string) (map[int32]Span, error) {
	starts, err := c.listed(ctx, topic, c.adm.ListStartOffsets)
	if err != nil {
		return nil, err
	}
	ends, err := c.listed(ctx, topic, c.adm.ListCommittedOffsets)
	if err != nil {
		return nil, err
	}
	bounds := make(map[int32]Span, len(ends))
	for p, end := range ends {
		bounds[p] = Span{From: starts[p], To: max(end, starts[p])}
	}
	return bounds, nil
}

func (c *Client) listed(ctx context.Context, topic string, list func(context.Context, ...string) (kadm.ListedOffsets, error)) (map[int32]int64, error) {
	found, err := list(ctx, topic)
	if err == nil {
		err = found.Error()
	}
	if err == nil && len(found[topic]) == 0 {
		err = kerr.UnknownTopicOrPartition
	}
	if err != nil {
		return nil, fmt.Errorf("admin: listing the offsets of %s: %w", topic, err)
	}
	m := map[int32]int64{}
	for p, o := range found[topic] {
		m[p] = o.Offset
	}
	return m, nil
}

// scanner reads stretches of partitions.
type scanner struct {
	cl *kgo.Client
	// patience is how long nothing may come before the scan is given up.
	patience time.Duration
	// refused, if set, is told of partitions that cannot be read to their end, and the others go on.
	refused func(topicPartition, error)
}

const (
	patience     = 30 * time.Second
	recordsAPoll = 1000
)

// scanner makes one; close it.
func (c *Client) scanner(opts ...kgo.Opt) (*scanner, error) {
	cl, err := c.derive(append([]kgo.Opt{
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),                          // they tell that a stretch has no more records
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // what was deleted meanwhile is passed over
		kgo.FetchMaxWait(250 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		return nil, err
	}
	return &scanner{cl: cl, patience: patience}, nil
}

func (s *scanner) close() { s.cl.Close() }

type topicPartition struct {
	topic     string
	partition int32
}

func (t topicPartition) String() string { return fmt.Sprintf("%s/%d", t.topic, t.partition) }

// errStalled says that nothing more came of a partition although its end was not reached.
var errStalled = errors.New("nothing more could be read")

// scan hands the records of the spans to take, by offset within each partition. A partition is over at its span's end, or once
// take returns false.
func (s *scanner) scan(ctx context.Context, spans map[topicPartition]Span, take func(*kgo.Record) (more bool, err error)) error {
	left := map[topicPartition]*Span{}
	begin := map[string]map[int32]kgo.Offset{}
	for name, sp := range spans {
		if sp.From >= sp.To {
			continue
		}
		left[name] = &sp
		if begin[name.topic] == nil {
			begin[name.topic] = map[int32]kgo.Offset{}
		}
		begin[name.topic][name.partition] = kgo.NewOffset().At(sp.From)
	}
	over := func(name topicPartition) {
		delete(left, name)
		s.cl.RemoveConsumePartitions(map[string][]int32{name.topic: {name.partition}})
	}
	defer func() {
		for name := range left {
			over(name)
		}
	}()
	s.cl.AddConsumePartitions(begin)
	moved := time.Now()
	for len(left) > 0 {
		timed, cancel := context.WithDeadline(ctx, moved.Add(s.patience))
		fs := s.cl.PollRecords(timed, recordsAPoll)
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if fs.IsClientClosed() {
			return kgo.ErrClientClosed
		}
		for name, err := range fetchErrors(fs, left) {
			if s.refused == nil {
				return err
			}
			s.refused(name, err)
			over(name)
		}
		for iter := fs.RecordIter(); !iter.Done(); {
			r := iter.Next()
			name := topicPartition{r.Topic, r.Partition}
			sp := left[name]
			if sp == nil || r.Offset < sp.From {
				continue
			}
			moved = time.Now()
			sp.From = r.Offset + 1
			if !r.Attrs.IsControl() && r.Offset < sp.To {
				more, err := take(r)
				if err != nil {
					return err
				}
				moved = time.Now() // it may take its time
				if !more {
					over(name)
					continue
				}
			}
			if sp.From >= sp.To {
				over(name)
			}
		}
		if time.Since(moved) < s.patience {
			continue
		}
		for name, sp := range left {
			err := fmt.Errorf("admin: reading %v at offset %d, its end is %d: %w", name, sp.From, sp.To, errStalled)
			if s.refused == nil {
				return err
			}
			s.refused(name, err)
			over(name)
		}
	}
	return nil
}

// fetchErrors returns what partitions that are still read cannot be read for.
func fetchErrors(fs kgo.Fetches, left map[topicPartition]*Span) map[topicPartition]error {
	var errs map[topicPartition]error
	for _, e := range fs.Errors() {
		var lost *kgo.ErrDataLoss
		if errors.Is(e.Err, context.DeadlineExceeded) || errors.As(e.Err, &lost) {
			continue
		}
		for name, sp := range left {
			if e.Topic == name.topic && (e.Partition == name.partition || e.Partition < 0) {
				if errs == nil {
					errs = map[topicPartition]error{}
				}
				errs[name] = fmt.Errorf("admin: reading %v at offset %d: %w", name, sp.From, e.Err)
			}
		}
	}
	return errs
}
