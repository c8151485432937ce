package admin

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Summary counts the letters of a dead-letter topic.
type Summary struct {
	Letters    int // all, in whole messages
	Incomplete int // parts of messages that are not whole; not among the letters
	Sent       int // of the letters: sent back already; told only where the filter names a group
	Bytes      int64
	Reasons    []ReasonCount // most letters first
}

// ReasonCount is the letters of one reason, group and origin.
type ReasonCount struct {
	Reason, Group, Origin string
	Letters, Sent         int
	First, Last           time.Time // when the first and the last of them was written
}

// maxReasons bounds what is told apart, for anybody who may write letters could write any reason.
const maxReasons = 1000

// Summary counts the letters that the filter means by reason, group and origin. What is beyond a thousand kinds is counted as one, whose
// reason is "…".
func (c *Client) Summary(ctx context.Context, topic string, f Filter) (*Summary, error) {
	type kind struct{ reason, group, origin string }
	s, by := &Summary{}, map[kind]*ReasonCount{}
	for l, err := range c.List(ctx, topic, f) {
		if err != nil {
			return nil, err
		}
		if l.Incomplete {
			s.Incomplete++
			continue
		}
		s.Letters++
		s.Bytes += int64(len(l.Key) + len(l.Value))
		k := kind{l.Reason, l.Group, l.Origin.Topic}
		n := by[k]
		if n == nil && len(by) >= maxReasons {
			k = kind{reason: "…"}
			n = by[k]
		}
		if n == nil {
			n = &ReasonCount{Reason: k.reason, Group: k.group, Origin: k.origin, First: l.Time, Last: l.Time}
			by[k] = n
		}
		n.Letters++
		if l.Sent {
			n.Sent++
			s.Sent++
		}
		if l.Time.Before(n.First) {
			n.First = l.Time
		}
		if l.Time.After(n.Last) {
			n.Last = l.Time
		}
	}
	for _, n := range by {
		s.Reasons = append(s.Reasons, *n)
	}
	slices.SortFunc(s.Reasons, func(a, b ReasonCount) int {
		return cmp.Or(b.Letters-a.Letters, cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Origin, b.Origin))
	})
	return s, nil
}
