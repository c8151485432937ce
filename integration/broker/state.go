package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

const (
	pollEvery  = 100 * time.Millisecond
	askTimeout = 3 * time.Second // for one request, as a paused broker never answers
)

// expectation is what await waits for.
type expectation struct {
	nodes []int // node ids that must answer and see each other; none: every address must answer
	isr   bool  // and no partition may be short of replicas
	sasl  *SASL // ask on the SASL addresses, as this user
}

// Wait waits until every broker is in the cluster and every partition has all
// its replicas in sync, as each broker sees it. Call it between faults, so that
// one has healed before the next. Give the context a deadline: with a dead
// or paused node Wait never returns otherwise.
func (c *Cluster) Wait(ctx context.Context) error {
	want := expectation{isr: true}
	if c.local != nil {
		want.nodes = c.local.ids()
	}
	if err := c.await(ctx, want); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	return nil
}

// Leader returns the node id of the active controller. While an election is
// on it asks until there is an outcome or the context ends.
func (c *Cluster) Leader(ctx context.Context) (int, error) {
	// A broker passes the question on to the controller it knew last, and may
	// wait half a minute for one that hangs. So ask the controllers themselves
	// where we can: only the leader answers without an error.
	addrs := c.controllers
	if addrs == nil {
		addrs = c.addrs
	}
	cl, err := newClient(addrs, nil)
	if err != nil {
		return 0, fmt.Errorf("broker: %w", err)
	}
	defer cl.Close()

	var newest leadership
	err = until(ctx, func(ctx context.Context) (missing string, err error) {
		for _, b := range c.reachable(cl) {
			l, err := askLeader(ctx, b)
			if err != nil {
				missing = "no active controller: " + err.Error()
			} else if l.epoch > newest.epoch {
				newest = l // another that thinks it leads was paused for an election
			}
		}
		if newest.epoch > 0 {
			return "", nil
		}
		return missing, nil
	})
	if err != nil {
		return 0, fmt.Errorf("broker: %w", err)
	}
	return newest.id, nil
}

// await waits until the cluster is as expected. It asks each broker rather
// than any: one may be ready, or know of the others, long before the rest.
func (c *Cluster) await(ctx context.Context, want expectation) error {
	addrs := c.addrs
	if want.sasl != nil {
		addrs = c.saslAddrs
	}
	cl, err := newClient(addrs, want.sasl)
	if err != nil {
		return err
	}
	defer cl.Close()

	return until(ctx, func(ctx context.Context) (string, error) {
		if c.alive != nil {
			if err := c.alive(ctx); err != nil {
				return "", err
			}
		}
		for i, b := range cl.SeedBrokers() {
			if len(want.nodes) > 0 && !slices.Contains(want.nodes, i+1) {
				continue
			}
			if why := look(ctx, b, want); why != "" {
				return fmt.Sprintf("not ready: %s: %s", addrs[i], why), nil
			}
		}
		return "", nil
	})
}

// reachable are the brokers worth asking: all but those known to be down.
func (c *Cluster) reachable(cl *kgo.Client) []*kgo.Broker {
	all := cl.SeedBrokers()
	if c.local == nil {
		return all
	}
	var up []*kgo.Broker
	for _, id := range c.local.running() {
		up = append(up, all[id-1])
	}
	return up
}

// look says what is missing in one broker's view of the cluster.
func look(ctx context.Context, b *kgo.Broker, want expectation) string {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest() // no topics named: all of them
	resp, err := b.Request(ctx, req)
	if err != nil {
		return err.Error()
	}
	meta := resp.(*kmsg.MetadataResponse)
	for _, id := range want.nodes {
		in := func(b kmsg.MetadataResponseBroker) bool { return int(b.NodeID) == id }
		if !slices.ContainsFunc(meta.Brokers, in) {
			return fmt.Sprintf("broker %d is not in yet", id)
		}
	}
	if !want.isr {
		return ""
	}
	for _, t := range meta.Topics {
		for _, p := range t.Partitions {
			// A replica may be reported missing as an error, too.
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Sprintf("%s/%d: %v", name(t), p.Partition, err)
			}
			if p.Leader < 0 || len(p.ISR) < len(p.Replicas) {
				return fmt.Sprintf("%s/%d: %d of %d replicas in sync", name(t), p.Partition, len(p.ISR), len(p.Replicas))
			}
		}
	}
	return ""
}

func name(t kmsg.MetadataResponseTopic) string {
	if t.Topic == nil {
		return "?"
	}
	return *t.Topic
}

// leadership is who leads the metadata log and since which election.
type leadership struct{ id, epoch int }

// askLeader asks for the leader of the metadata log: the controller id in a
// Metadata response is merely some broker, which passes requests on.
func askLeader(ctx context.Context, b *kgo.Broker) (leadership, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic = "__cluster_metadata"
	topic.Partitions = append(topic.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req := kmsg.NewPtrDescribeQuorumRequest()
	req.Topics = append(req.Topics, topic)
	r, err := b.Request(ctx, req)
	if err != nil {
		return leadership{}, err
	}
	resp := r.(*kmsg.DescribeQuorumResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return leadership{}, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return leadership{}, errors.New("an answer without the metadata log")
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return leadership{}, err
	}
	if p.LeaderID < 0 || p.LeaderEpoch <= 0 {
		return leadership{}, errors.New("none elected")
	}
	return leadership{int(p.LeaderID), int(p.LeaderEpoch)}, nil
}

// newClient returns a client whose seed brokers are addrs, in this order.
func newClient(addrs []string, user *SASL) (*kgo.Client, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(addrs...),
		kgo.DialTimeout(askTimeout),
		kgo.DisableClientMetrics(),
	}
	if user != nil {
		opts = append(opts, kgo.SASL(scram.Auth{User: user.User, Pass: user.Password}.AsSha512Mechanism()))
	}
	return kgo.NewClient(opts...)
}

// until calls check, again and again, until it says nothing is missing, or
// fails for good, or the context ends.
func until(ctx context.Context, check func(context.Context) (missing string, err error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		missing, err := check(ctx)
		if err != nil || missing == "" {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s (%w)", missing, context.Cause(ctx))
		}
	}
}
