package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/retriable-kafka/retriable-go/retriable/internal/commits"
	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// What was sent back is kept as a consumer keeps what it has finished: as the committed offset of a group, below which every letter was sent,
// and the map of those above in the commit's metadata. So a letter is sent once, whatever filters the replays had, and a page of letters
// goes with its progress in one transaction.

// ReplayGroup is the name of the group whose commits tell what was sent back to a consumer group. Nobody is a member of it. Its
// commits are kept for ten years, but for those of a replay that was killed, which Kafka forgets after offsets.retention.minutes (7 days) unless
// one that ends comes by in time.
func ReplayGroup(group string) string { return "retriable.replay." + group }

// progress is what was sent back of one partition.
type progress struct {
	topic uint32 // the folded id
	base  int64  // all letters below were sent
	done  []watermark.Run
}

// hasAll reports whether all of these offsets were sent.
func (p *progress) hasAll(runs []watermark.Run) bool {
	if p == nil {
		return false
	}
	for _, r := range runs {
		if !p.has(r.To - 1) {
			return false
		}
	}
	return len(runs) > 0
}

func (p *progress) has(offset int64) bool {
	if offset < p.base {
		return true
	}
	i, _ := slices.BinarySearchFunc(p.done, offset, func(r watermark.Run, o int64) int {
		if r.To <= o {
			return -1
		}
		return 1
	})
	return i < len(p.done) && p.done[i].From <= offset
}

// with returns the progress once these too are sent. The receiver stays as it is.
func (p *progress) with(runs []watermark.Run) *progress {
	all := slices.Concat(p.done, runs)
	slices.SortFunc(all, func(a, b watermark.Run) int { return int(min(max(a.From-b.From, -1), 1)) })
	n := &progress{topic: p.topic, base: p.base}
	for _, r := range all {
		r.From = max(r.From, n.base)
		last := len(n.done) - 1
		switch {
		case r.From >= r.To:
		case last < 0 && r.From <= n.base:
			n.base = r.To
		case last >= 0 && r.From <= n.done[last].To:
			n.done[last].To = max(n.done[last].To, r.To)
		default:
			n.done = append(n.done, r)
		}
	}
	return n
}

// encode returns the commit that says so; false if its metadata has no room for all of it.
func (p *progress) encode() (offset int64, text string, ok bool) {
	if len(p.done) == 0 {
		return p.base, "", true
	}
	m := watermark.Map{Topic: p.topic, Epoch: -1, Done: p.done}
	text, kept := m.Encode(p.base, watermark.MaxMetadata)
	return p.base, text, kept == len(p.done)
}

// Sent returns, by partition, the offset below which every letter of a dead-letter topic was sent back to the group: what may be purged.
func (c *Client) Sent(ctx context.Context, topic, group string) (map[int32]int64, error) {
	bounds, err := c.Bounds(ctx, topic)
	if err != nil {
		return nil, err
	}
	all, err := c.progress(ctx, topic, group, bounds)
	if err != nil {
		return nil, err
	}
	below := map[int32]int64{}
	for p, pr := range all {
		below[p] = pr.base
	}
	return below, nil
}

// progress reads what was sent back. It waits for transactions of replays that have not ended.
func (c *Client) progress(ctx context.Context, topic, group string, bounds map[int32]Span) (map[int32]*progress, error) {
	details, err := c.details(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("admin: asking for %s: %w", topic, err)
	}
	sent, err := c.stableCommits(ctx, ReplayGroup(group), topic, slices.Collect(maps.Keys(bounds)))
	if err != nil {
		return nil, err
	}
	all := map[int32]*progress{}
	for p, b := range bounds {
		all[p] = &progress{topic: foldID(details[topic].ID), base: b.From}
		o, ok := sent[p]
		if !ok || o.Offset < 0 || o.Offset > b.To { // beyond the end: of another topic of this name
			continue
		}
		all[p].base = max(o.Offset, b.From)
		m, ok := watermark.DecodeMap(o.Text(), o.Offset, b.To)
		if ok && (m.Topic == 0 || all[p].topic == 0 || m.Topic == all[p].topic) {
			all[p] = all[p].with(m.Done)
		}
	}
	return all, nil
}

// commits asks for a group's commits, as they are.
func (c *Client) commits(ctx context.Context, group string) (kadm.OffsetResponses, error) {
	all, err := c.adm.FetchOffsets(ctx, group)
	switch {
	case errors.Is(err, kerr.GroupIDNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("admin: asking for the commits of group %s: %w", group, err)
	}
	return all, nil
}

// stableCommits asks for a group's commits of some partitions and waits while a transaction holds one of them. It fails rather than take a commit that cannot be
// had for none.
func (c *Client) stableCommits(ctx context.Context, group, topic string, partitions []int32) (map[int32]commits.Commit, error) {
	names := make([]commits.Name, len(partitions))
	for i, p := range partitions {
		names[i] = commits.Name{Topic: topic, Partition: p}
	}
	for {
		all, err := commits.Fetch(ctx, c.cl, group, names)
		if errors.Is(err, kerr.GroupIDNotFound) {
			return nil, nil
		}
		found := map[int32]commits.Commit{}
		for _, n := range names {
			f, ok := all[n]
			if found[n.Partition] = f; err == nil && !ok {
				err = fmt.Errorf("the answer leaves %s/%d out", topic, n.Partition)
			}
			err = cmp.Or(err, f.Err())
		}
		if !errors.Is(err, kerr.UnstableOffsetCommit) {
			if err != nil {
				return nil, fmt.Errorf("admin: asking for the commits of group %s: %w", group, err)
			}
			return found, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// foldID makes a number of a topic's id, as consumers do in their maps; 0 of none.
func foldID(id [16]byte) uint32 {
	if id == [16]byte{} {
		return 0
	}
	return max(crc32.ChecksumIEEE(id[:]), 1)
}
