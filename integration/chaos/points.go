package chaos

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Points are the named points at which a worker can kill itself or, at some, halt.
var Points = []string{
	"handler",    // in a handler
	"handled",    // after a handler, before any commit tells it
	"producing",  // a copy is on its way
	"acked",      // a retry copy is acked, and no commit tells it
	"buried",     // a dead letter is acked, and no commit tells it
	"committing", // a commit is on its way
	"committed",  // its answer has come
	"joining",    // into the group
	"fetched",    // the commits of an assignment have come
	"assigned",   // before its first record
	"revoking",   // a moment after an answer that may take partitions away
	"draining",   // a moment after a SIGTERM
	"drained",    // after the last commit, before it leaves
}

// HaltPoints are the points of a takeover, at which a member that halts may be counted out before it begins.
var HaltPoints = []string{
	"joining", // into the group
	"synced",  // its assignment has come, and it has not asked for the commits
	"fetched", // the commits have come
	"assigned",
	"committing",
}

// points is where a worker is to die or to halt, if anywhere.
type points struct {
	die  func(point string)
	halt func(point string, d time.Duration)

	mu    sync.Mutex
	order Order
}

// arm has the process do as it is told when it passes a point for the so many-th time.
func (p *points) arm(o Order) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.order = o
}

// pass is called at a point.
func (p *points) pass(point string) {
	switch o, ok := p.here(point); {
	case !ok:
	case o.For > 0:
		p.halt(point, o.For)
	default:
		p.die(point)
	}
}

// soon is called a moment before a point.
func (p *points) soon(point string) {
	if _, ok := p.here(point); ok {
		time.AfterFunc(time.Duration(rand.IntN(60))*time.Millisecond, func() { p.die(point) })
	}
}

func (p *points) here(point string) (o Order, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.order.Point != point {
		return o, false
	}
	if p.order.After--; p.order.After > 0 {
		return o, false
	}
	o, p.order = p.order, Order{}
	return o, true
}
