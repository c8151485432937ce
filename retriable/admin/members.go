package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Member is one member of a group.
type Member struct {
	ID         string
	ClientID   string
	Host       string
	InstanceID string // of a static member
	Partitions int    // how many are assigned to it
}

// Protocol is how a group is balanced.
type Protocol string

// The protocols.
const (
	Classic  Protocol = "classic"  // by its members: eager or cooperative
	Consumer Protocol = "consumer" // by the brokers (KIP-848)
)

// ErrNoGroup says that the brokers know nothing of a group: no member and no commit.
var ErrNoGroup = errors.New("admin: there is no such group")

// ErrGroupActive says that a group has members, so that what was asked for cannot be done from outside.
var ErrGroupActive = errors.New("admin: the group has members")

// described is a group without its offsets.
type described struct {
	protocol   Protocol
	state      string
	members    []Member
	assigned   map[topicPartition]string // to the member with this id
	subscribed []string
}

// describe asks for a group's members, of whichever protocol.
func (c *Client) describe(ctx context.Context, group string) (*described, error) {
	// An older broker does not know the newer protocol, and has only groups of the other.
	if gs, err := c.adm.DescribeConsumerGroups(ctx, group); err == nil {
		if g, ok := gs[group]; ok && g.Err == nil {
			return describedNew(&g), nil
		}
	}
	gs, err := c.adm.DescribeGroups(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("admin: asking for group %s: %w", group, err)
	}
	g := gs[group]
	switch {
	case errors.Is(g.Err, kerr.GroupIDNotFound):
		return &described{state: "Dead"}, nil
	case g.Err != nil:
		return nil, fmt.Errorf("admin: asking for group %s: %w", group, g.Err)
	case g.ProtocolType != "" && g.ProtocolType != "consumer":
		return nil, fmt.Errorf("admin: group %s is of protocol type %q, not of consumers", group, g.ProtocolType)
	}
	return describedClassic(&g), nil
}

func describedNew(g *kadm.DescribedConsumerGroup) *described {
	d := &described{protocol: Consumer, state: g.State, assigned: map[topicPartition]string{}}
	for _, m := range g.Members {
		d.add(Member{ID: m.MemberID, ClientID: m.ClientID, Host: m.ClientHost, InstanceID: deref(m.InstanceID)}, m.Assignment)
		d.subscribed = append(d.subscribed, m.SubscribedTopics...)
	}
	return d
}

func describedClassic(g *kadm.DescribedGroup) *described {
	d := &described{protocol: Classic, state: g.State, assigned: map[topicPartition]string{}}
	for _, m := range g.Members {
		set := kadm.TopicsSet{}
		if a, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range a.Topics {
				set.Add(t.Topic, t.Partitions...)
			}
		}
		d.add(Member{ID: m.MemberID, ClientID: m.ClientID, Host: m.ClientHost, InstanceID: deref(m.InstanceID)}, set)
		if j, ok := m.Join.AsConsumer(); ok {
			d.subscribed = append(d.subscribed, j.Topics...)
		}
	}
	return d
}

func (d *described) add(m Member, assigned kadm.TopicsSet) {
	assigned.Each(func(t string, p int32) {
		m.Partitions++
		if t != "" { // the broker may know it by id alone
			d.assigned[topicPartition{t, p}] = m.ID
		}
	})
	d.members = append(d.members, m)
}

// topics is all that members consume or are subscribed to.
func (d *described) topics() []string {
	names := slices.Clone(d.subscribed)
	for name := range d.assigned {
		names = append(names, name.topic)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
