// Package commits asks for the commits of a group.
package commits

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Name is a partition.
type Name struct {
	Topic     string
	Partition int32
}

// Commit is what the coordinator says of one partition.
type Commit struct {
	kmsg.OffsetFetchResponseGroupTopicPartition // Offset is -1 if there is none

	TopicID [16]byte
}

// Err is the coordinator's error for the partition.
func (c Commit) Err() error { return kerr.ErrorForCode(c.ErrorCode) }

// Text is the commit's metadata.
func (c Commit) Text() string {
	if c.Metadata == nil {
		return ""
	}
	return *c.Metadata
}

// Fetch asks for the commits of these partitions by name and returns those that the answer names, none of which a transaction holds: only what it names
// has no commit if it says so. A request for all of a group's would not tell: a broker leaves out topics that it has not heard of yet, as one
// that was just started.
func Fetch(ctx context.Context, cl *kgo.Client, group string, names []Name) (map[Name]Commit, error) {
	parts := map[string][]int32{}
	for _, n := range names {
		parts[n.Topic] = append(parts[n.Topic], n.Partition)
	}
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	for topic, numbers := range parts {
		t := kmsg.NewOffsetFetchRequestGroupTopic()
		t.Topic, t.Partitions = topic, numbers
		g.Topics = append(g.Topics, t)
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	req.Groups = append(req.Groups, g)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	all := map[Name]Commit{}
	for _, g := range resp.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return nil, err
		}
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				all[Name{t.Topic, p.Partition}] = Commit{p, t.TopicID}
			}
		}
	}
	return all, nil
}
