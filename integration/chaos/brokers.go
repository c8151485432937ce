package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/retriable-kafka/retriable-go/integration/broker"
)

// healLimit bounds the time in which a cluster must have all its replicas in sync again after a fault.
const healLimit = 90 * time.Second

// RunBrokers applies a plan of faults to the brokers that arenas share, one after the other: each has healed before the next. It returns how many
// there were of each kind.
func RunBrokers(ctx context.Context, cluster *broker.Cluster, arenas []*Arena, plan []Fault) (map[FaultKind]int, error) {
	applied := map[FaultKind]int{}
	note := func(format string, args ...any) {
		for _, a := range arenas {
			a.note(format, args...)
		}
	}
	for i, f := range plan {
		if err := pause(ctx, f.Wait); err != nil {
			return applied, nil //nolint:nilerr // the time is over
		}
		note("%v", f)
		if err := applyBroker(ctx, cluster, arenas, f); err != nil {
			return applied, fmt.Errorf("fault %d, %v: %w", i, f, err)
		}
		healing, cancel := context.WithTimeout(ctx, healLimit)
		err := cluster.Wait(healing)
		cancel()
		if err != nil {
			return applied, fmt.Errorf("after fault %d, %v: %w", i, f, err)
		}
		note("the brokers have healed")
		applied[f.Kind]++
	}
	return applied, nil
}

func applyBroker(ctx context.Context, cluster *broker.Cluster, arenas []*Arena, f Fault) error {
	node := f.Slot%3 + 1
	var err error
	switch f.Kind {
	case LeaderKill:
		node, err = cluster.Leader(ctx)
	case CoordKill:
		node, err = arenas[0].coordinator(ctx)
	default:
	}
	if err != nil {
		return err
	}
	switch f.Kind {
	case BrokerKill, LeaderKill, CoordKill:
		return outage(ctx, cluster, f.For, node)
	case Quorum:
		return outage(ctx, cluster, f.For, node, node%3+1)
	case BrokerPause:
		if err := cluster.Pause(node); err != nil {
			return err
		}
		_ = pause(ctx, f.For)
		return cluster.Resume(node)
	case BrokerRoll:
		for n := 1; n <= 3; n++ {
			if err := cluster.Stop(n); err != nil {
				return err
			}
			if err := cluster.StartNode(ctx, n); err != nil {
				return err
			}
			healing, cancel := context.WithTimeout(ctx, healLimit)
			err := cluster.Wait(healing)
			cancel()
			if err != nil {
				return err
			}
		}
		return nil
	default:
		return fmt.Errorf("no fault of brokers")
	}
}

// outage kills nodes and starts them again after a while.
func outage(ctx context.Context, cluster *broker.Cluster, d time.Duration, nodes ...int) error {
	for _, n := range nodes {
		if err := cluster.Kill(n); err != nil {
			return err
		}
	}
	_ = pause(ctx, d)
	for _, n := range nodes {
		if err := cluster.StartNode(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// coordinator returns the broker that coordinates the group.
func (a *Arena) coordinator(ctx context.Context) (int, error) {
	found := a.adm.FindGroupCoordinators(ctx, a.Name)
	return int(found[a.Name].NodeID), found[a.Name].Err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
