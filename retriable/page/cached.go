package page

import (
	"context"
	"sync"
	"time"
)

// cached is something that is asked for only while somebody looks, and not more often than it may be. What takes long is asked for beside: who
// looks meanwhile sees what was known before.
type cached[T any] struct {
	p     *Page
	every time.Duration
	load  func(ctx context.Context) T

	mu      sync.Mutex
	value   T
	known   bool
	at      time.Time
	loading chan struct{} // closed when it has come; nil if nothing is asked for
}

func newCached[T any](p *Page, every time.Duration, load func(context.Context) T) *cached[T] {
	return &cached[T]{p: p, every: every, load: load}
}

// firstLook is how long the first who looks waits for an answer.
const firstLook = 2 * time.Second

// get returns what is known, and asks anew if that is old. known is false if there was no answer, or none of late.
func (c *cached[T]) get(ctx context.Context) (value T, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = c.known && time.Since(c.at) < 4*c.every
	if c.loading == nil && (!c.known || time.Since(c.at) >= c.every) {
		c.begin()
	}
	if !c.known && c.loading != nil {
		done := c.loading
		c.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		case <-time.After(firstLook):
		}
		c.mu.Lock()
	}
	return c.value, c.known
}

// begin asks. The lock is held.
func (c *cached[T]) begin() {
	done := make(chan struct{})
	if c.p.begin(func() {
		v := c.load(c.p.ctx)
		c.mu.Lock()
		c.value, c.known, c.at, c.loading = v, true, time.Now(), nil
		c.mu.Unlock()
		close(done)
	}) {
		c.loading = done
	}
}

// forget has the next who looks ask, and wait for the answer.
func (c *cached[T]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = false
}
