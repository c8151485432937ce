package admin

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// Skip says which group to move past what.
type Skip struct {
	Group string
	// Past is the last offset that is given up: what the FetchError of Health names. All unfinished offsets below go with it.
	Past retriable.Position
	// DryRun only tells what would be given up.
	DryRun bool
}

// Skipped is what was given up, or would be.
type Skipped struct {
	From, To int64 // of offsets: From <= offset < To
	Finished int64 // of these were finished all the same
}

// Skip moves the committed offset of a group that has no members past what cannot be fetched, as a batch that unpacks to more than is allowed. What
// the commit's map says of the offsets above is kept. A group with members is refused ([ErrGroupActive]), by this and by the broker: only the
// member that reads the partition can skip then (retriable.Consumer.Skip), or stop it first.
func (c *Client) Skip(ctx context.Context, s Skip) (Skipped, error) {
	past := s.Past
	d, err := c.describe(ctx, s.Group)
	if err != nil {
		return Skipped{}, err
	}
	if d.state == "Dead" {
		return Skipped{}, fmt.Errorf("%w: %s", ErrNoGroup, s.Group)
	}
	bounds, err := c.Bounds(ctx, past.Topic)
	if err != nil {
		return Skipped{}, err
	}
	b, ok := bounds[past.Partition]
	if !ok {
		return Skipped{}, fmt.Errorf("admin: skipping past %v: there is no such partition", past)
	}
	committed, err := c.stableCommits(ctx, s.Group, past.Topic, []int32{past.Partition})
	if err != nil {
		return Skipped{}, err
	}
	was := watermark.Map{Epoch: -1}
	if o, ok := committed[past.Partition]; ok && o.Offset >= 0 {
		b.From = max(b.From, o.Offset)
		was, _ = watermark.DecodeMap(o.Text(), o.Offset, b.To)
	}
	switch {
	case past.Offset < b.From:
		return Skipped{}, fmt.Errorf("admin: skipping past %v: the group is at offset %d already", past, b.From)
	case past.Offset >= b.To:
		return Skipped{}, fmt.Errorf("admin: skipping past %v: the partition ends at offset %d", past, b.To)
	case len(d.members) > 0:
		return Skipped{}, fmt.Errorf("%w: %s has %d: stop them, or call Consumer.Skip where the partition is read", ErrGroupActive, s.Group, len(d.members))
	}
	next, res := skipTo(was, b.From, past.Offset+1)
	if s.DryRun {
		return res, nil
	}
	text := ""
	if len(next.Done) > 0 {
		text, _ = next.Encode(res.To, watermark.MaxMetadata) // it says less than the one before, so that it fits
	}
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: past.Topic, Partition: past.Partition, At: res.To, LeaderEpoch: -1, Metadata: text})
	if err := c.adm.CommitAllOffsets(ctx, s.Group, os); err != nil {
		return Skipped{}, fmt.Errorf("admin: skipping past %v: %w", past, err)
	}
	return res, nil
}

// skipTo moves a map up to an offset, and further past what is finished there.
func skipTo(m watermark.Map, from, to int64) (watermark.Map, Skipped) {
	res := Skipped{From: from, To: to}
	var left []watermark.Run
	for _, r := range m.Done {
		res.Finished += max(min(r.To, to)-r.From, 0)
		if r.From = max(r.From, to); r.From < r.To {
			left = append(left, r)
		}
	}
	if len(left) > 0 && left[0].From == to {
		res.Finished += left[0].To - to
		res.To = left[0].To
		left = left[1:]
	}
	m.Done, m.Notes = left, nil
	return m, res
}
