package broker

import (
	"context"
	"fmt"
)

// Kill ends a node at once (SIGKILL), paused or not, and returns when it is
// gone. Nodes are numbered from 1, in the order of [Cluster.Addrs]. The data
// stays for [Cluster.StartNode].
func (c *Cluster) Kill(id int) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	return prefixed(n.kill())
}

// Stop shuts a node down cleanly (SIGTERM) and returns when it is gone, which
// takes a second or more as it hands its partitions over. It refuses a paused
// node, which could not shut down. The data stays for [Cluster.StartNode].
func (c *Cluster) Stop(id int) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	return prefixed(n.stop())
}

// Pause halts a node (SIGSTOP): its connections stay open and nobody answers,
// as with a machine that hangs.
func (c *Cluster) Pause(id int) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	return prefixed(n.pause(true))
}

// Resume lets a paused node go on (SIGCONT).
func (c *Cluster) Resume(id int) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	return prefixed(n.pause(false))
}

// StartNode starts a killed or stopped node again, with its data, and waits
// until it and the other running nodes see each other. It does not wait while
// too few nodes run to elect a controller. See [Cluster.Wait] for waiting until
// the node has caught up.
func (c *Cluster) StartNode(ctx context.Context, id int) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	l := c.local
	if err := n.start(l.command(n, l.cfg.HeapMB, "kafka.Kafka", n.properties())); err != nil {
		return prefixed(err)
	}
	up := l.running()
	if len(up)*2 <= len(l.nodes) {
		return nil
	}
	if err := c.await(ctx, expectation{nodes: up}); err != nil {
		return fmt.Errorf("broker: starting node %d: %w\n%s", id, err, tail(n.log()))
	}
	return nil
}

// node finds a node that can be acted on.
func (c *Cluster) node(id int) (*node, error) {
	if c.local == nil {
		return nil, fmt.Errorf("broker: the nodes of this cluster (%s) cannot be touched: ask CanFault first, or set Config.Source to Local", c.source)
	}
	if id < 1 || id > len(c.local.nodes) {
		return nil, fmt.Errorf("broker: there is no node %d: give 1 to %d", id, len(c.local.nodes))
	}
	return c.local.nodes[id-1], nil
}

func prefixed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("broker: %w", err)
}
