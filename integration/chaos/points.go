package chaos

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Points are the named points at which a worker can kill itself.
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

// points is where a worker is to die, if anywhere.
type points struct {
	die func(point string)

	mu    sync.Mutex
	point string
	left  int
}

// arm has the process die when it passes a point for the n-th time.
func (p *points) arm(point string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.point, p.left = point, max(n, 1)
}

// pass is called at a point.
func (p *points) pass(point string) {
	if p.here(point) {
		p.die(point)
	}
}

// soon is called a moment before a point.
func (p *points) soon(point string) {
	if p.here(point) {
		time.AfterFunc(time.Duration(rand.IntN(60))*time.Millisecond, func() { p.die(point) })
	}
}

func (p *points) here(point string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.point != point {
		return false
	}
	p.left--
	if p.left > 0 {
		return false
	}
	p.point = ""
	return true
}
