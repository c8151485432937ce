package retriable

import (
	"context"
	"sync"
)

// gate is held over {poll and hand over}: a hook that takes partitions away shuts it for a moment, so that no record of theirs is on its
// way to a worker any more. It is a channel, not a mutex, for a poll waits in it.
type gate struct {
	slot chan struct{}
	mu   sync.Mutex
	want int                // hooks that wait
	poll context.CancelFunc // ends the poll that is inside
}

func newGate() gate { return gate{slot: make(chan struct{}, 1)} }

// enter is the poller's way in; the returned context ends when a hook wants in.
func (g *gate) enter(ctx context.Context) (context.Context, context.CancelFunc) {
	g.slot <- struct{}{}
	g.mu.Lock()
	defer g.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	g.poll = cancel
	if g.want > 0 {
		cancel()
	}
	return ctx, cancel
}

func (g *gate) leave() { <-g.slot }

// shut runs f while no poll is inside.
func (g *gate) shut(f func()) {
	g.mu.Lock()
	g.want++
	if g.poll != nil {
		g.poll()
	}
	g.mu.Unlock()
	g.slot <- struct{}{}
	g.mu.Lock()
	g.want--
	g.mu.Unlock()
	defer g.leave()
	f()
}
