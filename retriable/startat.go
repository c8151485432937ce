package retriable

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// start is where a partition is read from.
type start struct {
	at        kgo.EpochOffset // offset -1: unknown until the first record
	from      kgo.Offset      // the same for kgo
	end       int64
	committed bool
	err       error // why it is unknown
}

// fetchAgain asks once more for the commits of partitions that kgo was told to read, in this session or in one that ended before it had them, and leaves
// out because it got none: nobody would read them until the next rebalance. What is refused again Health names.
func (c *Consumer) fetchAgain(ctx context.Context, offsets map[string]map[int32]kgo.Offset) {
	missing := map[topicPartition]error{}
	for name := range c.awaited {
		if _, ok := offsets[name.topic][name.partition]; !ok {
			missing[name] = errNoCommit
		}
	}
	clear(c.awaited)
	for try := 0; len(missing) > 0 && try < 3; try++ {
		var topics []string
		for name := range missing {
			topics = append(topics, name.topic)
		}
		all, _ := kadm.NewClient(c.cl).FetchOffsetsForTopics(ctx, c.set.group, topics...)
		for name := range missing {
			o, ok := all.Lookup(name.topic, name.partition)
			if !ok || o.Err != nil {
				missing[name] = cmp.Or(o.Err, errNoCommit)
				continue
			}
			c.fetched[name] = fetchedOffset{offset: o.At, epoch: o.LeaderEpoch, text: o.Metadata}
			if offsets[name.topic] == nil {
				offsets[name.topic] = map[int32]kgo.Offset{}
			}
			offsets[name.topic][name.partition] = kgo.NewOffset()
			delete(missing, name)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(min(len(missing), 1)) * 250 * time.Millisecond):
		}
	}
	c.mu.Lock()
	for name, err := range missing {
		c.unread[name] = err
	}
	c.mu.Unlock()
	for name, err := range missing {
		c.log.Error("retriable: a partition is ours but cannot be read, for its commit cannot be had", "topic", name.topic, "partition", name.partition, "error", err)
		if errors.Is(err, kerr.UnknownTopicID) {
			c.renewer.add(name.topic, &c.renewer.consumed) // the topic was made anew, and this member had nothing of it to see that by
		}
	}
}

var errNoCommit = errors.New("the broker does not tell its committed offset")

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
	starts := map[topicPartition]start{}
	for t, parts := range offsets {
		for p := range parts {
			s := start{end: -1}
			if e, ok := ends.Lookup(t, p); ok && e.Err == nil {
				s.end = e.Offset
			}
			c.resolveStart(timed, adm, topicPartition{t, p}, &s)
			starts[topicPartition{t, p}] = s
		}
	}
	return starts
}

func (c *Consumer) resolveStart(ctx context.Context, adm *kadm.Client, name topicPartition, s *start) {
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
	at, err := resolveOffset(ctx, adm, name, want)
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

// resolveOffset turns a place to start into an offset.
func resolveOffset(ctx context.Context, adm *kadm.Client, name topicPartition, o kgo.Offset) (int64, error) {
	at, relative := o.EpochOffset().Offset, relativeOf(o)
	var listed kadm.ListedOffsets
	var err error
	starts, err := adm.ListStartOffsets(ctx, name.topic)
	if err != nil && len(starts) == 0 {
		return 0, err
	}
	ends, err := adm.ListEndOffsets(ctx, name.topic)
	if err != nil && len(ends) == 0 {
		return 0, err
	}
	low, okLow := starts.Lookup(name.topic, name.partition)
	high, okHigh := ends.Lookup(name.topic, name.partition)
	if !okLow || !okHigh {
		return 0, fmt.Errorf("listing the ends of %s/%d: %w", name.topic, name.partition, kerr.UnknownTopicOrPartition)
	}
	if err := errors.Join(low.Err, high.Err); err != nil {
		return 0, fmt.Errorf("listing the ends of %s/%d: %w", name.topic, name.partition, err)
	}
	switch {
	case isAfterMilli(o):
		if listed, err = adm.ListOffsetsAfterMilli(ctx, at, name.topic); err != nil && len(listed) == 0 {
			return 0, err
		}
		l, _ := listed.Lookup(name.topic, name.partition)
		at = l.Offset
	case at == -2:
		at = low.Offset
	case at == -1:
		at = high.Offset
	}
	return min(max(at+relative, low.Offset), high.Offset), nil
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
