package main

import (
	"slices"
	"sync"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// books account for every order. Orders are known by where they were first produced, which is the same on each attempt.
type books struct {
	began time.Time

	mu         sync.Mutex
	plan       plan
	deliveries map[delivery]int
	done       map[retriable.Position][]int // the attempts that succeeded
	dead       map[retriable.Position]int
	last       map[string]int64 // by customer: the offset of the last order on its first attempt
	disorder   int
	partitions map[string]int // by member
	counts     map[string]int // of what is only told
}

type delivery struct {
	origin  retriable.Position
	attempt int
}

// plan is what is to become of the orders produced.
type plan struct {
	produced  int
	onAttempt [maxAttempts + 1]int
	exhausted int
	permanent int
}

func newBooks() *books {
	return &books{
		began: time.Now(), deliveries: map[delivery]int{}, done: map[retriable.Position][]int{}, dead: map[retriable.Position]int{},
		last: map[string]int64{}, partitions: map[string]int{}, counts: map[string]int{},
	}
}

func (b *books) produced(o order) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.plan.produced++
	switch {
	case o.Expired:
		b.plan.permanent++
	case o.Busy >= maxAttempts:
		b.plan.exhausted++
	default:
		b.plan.onAttempt[o.Busy+1]++
	}
}

// handled enters an attempt and returns how many have succeeded.
func (b *books) handled(m *retriable.Message, err error) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := origin(m)
	b.deliveries[delivery{at, m.Attempt}]++
	if customer := string(m.Key); m.Attempt == 1 {
		if last, ok := b.last[customer]; ok && m.Offset <= last {
			b.disorder++
		}
		b.last[customer] = m.Offset
	}
	if err == nil {
		b.done[at] = append(b.done[at], m.Attempt)
	}
	return len(b.done)
}

func (b *books) deadLettered(m *retriable.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dead[origin(m)]++
}

// settled reports whether all that was produced has come to an end.
func (b *books) settled() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.done)+len(b.dead) >= b.plan.produced
}

func (b *books) owns(member string, change int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.partitions[member] += change
}

func (b *books) owned(member string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.partitions[member]
}

func (b *books) count(what string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts[what]++
	return b.counts[what]
}

func (b *books) counted(what string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts[what]
}

// onAttempt returns how many orders succeeded first on that attempt.
func (b *books) onAttempt(n int) (orders int) {
	for _, attempts := range b.done {
		if slices.Min(attempts) == n {
			orders++
		}
	}
	return orders
}

// twice returns how many deliveries were repeated, and how many orders were handled or dead-lettered more than once.
func (b *books) twice() (deliveries, orders int) {
	for _, n := range b.deliveries {
		deliveries += n - 1
	}
	for at, attempts := range b.done {
		orders += len(attempts) - 1 + b.dead[at]
	}
	for _, n := range b.dead {
		orders += n - 1
	}
	return deliveries, orders
}
