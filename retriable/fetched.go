package retriable

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable/internal/commits"
)

// The commits of what is assigned, which kgo fetches, and what it could not fetch is asked for once more.

// fetchedOffset is a commit as the group has it.
type fetchedOffset struct {
	offset int64 // -1: none
	epoch  int32
	text   string // the metadata
	topic  uint32 // the topic's id, folded
}

func fetchedOf(f commits.Commit) fetchedOffset {
	return fetchedOffset{offset: f.Offset, epoch: f.LeaderEpoch, text: f.Text(), topic: foldID(f.TopicID)}
}

// onFetched keeps the commits, with which onOffsets makes the partitions.
func (c *Consumer) onFetched(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	c.fetched = map[topicPartition]fetchedOffset{}
	for _, g := range resp.Groups { // kgo repeats the group's as resp.Topics, without the topics' ids
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				c.fetched[topicPartition{t.Topic, p.Partition}] = fetchedOf(commits.Commit{OffsetFetchResponseGroupTopicPartition: p, TopicID: t.TopicID})
			}
		}
	}
	return nil
}

// await notes what was assigned: kgo is going to tell its commits.
func (c *Consumer) await(added map[string][]int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for t, ps := range added {
		for _, n := range ps {
			c.awaited[topicPartition{t, n}] = struct{}{}
		}
	}
}

// unawait forgets what was assigned of topics of which kgo has been told to forget all: it may be another member's by now.
func (c *Consumer) unawait(topics []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.awaited, func(name topicPartition, _ struct{}) bool { return slices.Contains(topics, name.topic) })
	maps.DeleteFunc(c.unread, func(name topicPartition, _ error) bool { return slices.Contains(topics, name.topic) })
}

// ours takes out of what kgo is about to read what we were not told is ours, or were told is not: kgo 1.22.2 still fetches the commits of what it was
// assigned in a session that ended before it had them, though it was taken away meanwhile with all of its topic, and would then read it
// beside whoever has it.
func (c *Consumer) ours(offsets map[string]map[int32]kgo.Offset) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, parts := range offsets {
		maps.DeleteFunc(parts, func(n int32, _ kgo.Offset) bool {
			_, ok := c.awaited[topicPartition{topic, n}]
			return !ok
		})
	}
}

// fetchAgain asks once more for the commits of partitions that kgo was told to read, in this session or in one that ended before it had them, and leaves
// out because it got none: nobody would read them until the next rebalance. What is refused again Health names.
func (c *Consumer) fetchAgain(ctx context.Context, offsets map[string]map[int32]kgo.Offset) {
	missing := map[topicPartition]error{}
	c.mu.Lock()
	for name := range c.awaited {
		if _, ok := offsets[name.topic][name.partition]; !ok {
			missing[name] = errNoCommit
		}
	}
	clear(c.awaited)
	c.mu.Unlock()
	began := time.Now()
	for try := 1; len(missing) > 0; try++ {
		c.fetchMissing(ctx, missing, offsets)
		over := try >= 3 && (time.Since(began) >= c.set.commitTimeout() || !slices.ContainsFunc(slices.Collect(maps.Values(missing)), mayPass))
		if over || len(missing) == 0 || ctx.Err() != nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
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

// fetchMissing asks once for commits; what it gets goes from missing into offsets.
func (c *Consumer) fetchMissing(ctx context.Context, missing map[topicPartition]error, offsets map[string]map[int32]kgo.Offset) {
	var names []commits.Name
	for name := range missing {
		names = append(names, commits.Name{Topic: name.topic, Partition: name.partition})
	}
	all, err := commits.Fetch(ctx, c.cl, c.set.group, names)
	for name := range missing {
		f, ok := all[commits.Name{Topic: name.topic, Partition: name.partition}]
		if err := cmp.Or(err, f.Err()); !ok || err != nil {
			missing[name] = cmp.Or(err, errNoCommit)
			continue
		}
		c.fetched[name] = fetchedOf(f)
		if offsets[name.topic] == nil {
			offsets[name.topic] = map[int32]kgo.Offset{}
		}
		offsets[name.topic][name.partition] = kgo.NewOffset()
		delete(missing, name)
	}
}

// mayPass reports whether what keeps a commit from us may pass within the assignment: not a right that we lack, nor that the topic is another.
func mayPass(err error) bool {
	return !errors.Is(err, kerr.TopicAuthorizationFailed) && !errors.Is(err, kerr.GroupAuthorizationFailed) && !errors.Is(err, kerr.UnknownTopicID)
}

var errNoCommit = errors.New("the broker does not tell its committed offset")
