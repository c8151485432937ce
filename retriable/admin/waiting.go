package admin

import (
	"context"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// isRetry reports whether a record looks like a retry copy: all of them have this header.
func isRetry(r *kgo.Record) bool {
	return slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == wire.AttemptHeader })
}

// waitingOf reads a record that waits. On a base topic headers of the library mean nothing.
func waitingOf(m *message) *Waiting {
	r := m.rec
	w := &Waiting{
		Position: retriable.Position{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset},
		Origin:   retriable.Position{Partition: -1, Offset: -1},
		Time:     r.Timestamp, Attempt: 1, Key: r.Key,
	}
	if !isRetry(r) {
		return w
	}
	h := wire.ParseRetry(r.Headers)
	w.Attempt, w.Group, w.LastError = h.Attempt, h.Group, h.Error
	w.Origin = retriable.Position{Topic: h.Topic, Partition: h.Partition, Offset: h.Offset}
	if h.Due > 0 {
		w.Due = time.UnixMilli(h.Due)
	}
	if h.FirstFailure > 0 {
		w.FirstFailure = time.UnixMilli(h.FirstFailure)
	}
	return w
}

// Waiting reads a retry topic of a group and yields what is not finished there, by partition and offset: from the group's commit to the present end,
// without what the commit's map says is finished and without copies for other groups. What is due already waits for a worker, or runs. A consumer
// cuts a due time that is further ahead than its MaxDelay, which cannot be seen from outside. An error is the last that is yielded.
func (c *Client) Waiting(ctx context.Context, group, topic string) iter.Seq2[*Waiting, error] {
	return func(yield func(*Waiting, error) bool) {
		if err := c.waiting(ctx, group, topic, yield); err != nil {
			yield(nil, err)
		}
	}
}

func (c *Client) waiting(ctx context.Context, group, topic string, yield func(*Waiting, error) bool) error {
	bounds, err := c.Bounds(ctx, topic)
	if err != nil {
		return err
	}
	commits, err := c.commits(ctx, group)
	if err != nil {
		return err
	}
	s, err := c.scanner()
	if err != nil {
		return err
	}
	defer s.close()
	for _, p := range slices.Sorted(maps.Keys(bounds)) {
		b, finished := bounds[p], Map{}
		if o, ok := commits.Lookup(topic, p); ok && o.At >= 0 {
			b.From = max(b.From, o.At)
			finished, _ = DecodeMap(o.Metadata, o.At, b.To)
		}
		stopped := false
		err := s.messages(ctx, topicPartition{topic, p}, b, func(m *message) (bool, error) {
			w := waitingOf(m)
			if m.kind == repeat || finished.Has(m.rec.Offset) || w.Group != "" && w.Group != group {
				return true, nil
			}
			stopped = !yield(w, nil)
			return !stopped, nil
		})
		if err != nil || stopped {
			return err
		}
	}
	return nil
}
