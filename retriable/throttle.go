package retriable

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// RateLimit bounds how many attempts of the topic and its retry topic start in a second, over all their partitions that this member has;
// burst, at least 1, is how many may start at once after a pause. There is no default. A record that has to wait holds no worker
// and no other topic; it is pending, and its partition is paused at MaxPending. What a Filter rejects counts. A batch counts by its messages.
func RateLimit(perSecond float64, burst int) TopicOption {
	return topicOption(func(t *topicConfig) { t.rate = set(rateLimit{perSecond, burst}) })
}

type rateLimit struct {
	perSecond float64
	burst     int
}

// Gate has g asked before each start of the topic's handler, its retry topic included: 0 (or less) lets the record start. Anything else bars
// the topic for so long: what runs goes on, nothing of the topic starts, no worker is held and no attempt is spent, and then g is asked again. It is
// what circuit breakers and quotas are made of. g is called from many goroutines at once and must be quick; if it panics that counts as one
// second. Between its answer and the handler's start others may be asked. It adds up: the first that bars counts.
func Gate(g func() time.Duration) TopicOption {
	return topicOption(func(t *topicConfig) { t.gates = append(t.gates, g) })
}

// throttle spaces starts evenly. A slot that could not be taken to the moment, for timers are not that precise, is taken late, and the next is
// counted from when it was meant to be: otherwise a small burst would lose a little each time.
type throttle struct {
	mu   sync.Mutex
	lim  *rate.Limiter
	last time.Time // the slot taken last
	slot time.Time // the next; zero if it is not known yet
}

// catchUp is how late a slot may be taken without moving those behind it.
const catchUp = 10 * time.Millisecond

func newThrottle(r rateLimit) *throttle {
	return &throttle{lim: rate.NewLimiter(rate.Limit(r.perSecond), r.burst)}
}

// wait takes the next slot and returns 0, or how far off it is.
func (th *throttle) wait() time.Duration {
	now := time.Now()
	th.mu.Lock()
	defer th.mu.Unlock()
	if th.slot.IsZero() {
		from := now
		if now.Sub(th.last) < catchUp {
			from = th.last
		}
		th.slot = from.Add(th.lim.ReserveN(from, 1).DelayFrom(from))
	}
	if wait := th.slot.Sub(now); wait > 0 {
		return wait
	}
	th.last, th.slot = th.slot, time.Time{}
	return 0
}

// bar is how long a topic is barred by its gates.
type bar struct {
	gates []func() time.Duration
	until atomic.Int64 // in ns; 0 if it is not
}

// admits asks the gates whether a record of p may start. If not, the topic is barred.
func (p *partition) admits() bool {
	b := &p.t.bar
	var wait time.Duration
	for i := 0; i < len(b.gates) && wait <= 0; i++ { // the limiter comes last: it would count what does not start
		wait = p.c.askGate(p.t, b.gates[i])
	}
	if wait <= 0 {
		return true
	}
	until := p.c.now().Add(wait).UnixNano()
	for _, q := range p.c.partitions() {
		if q.t == p.t {
			q.barred.Or(barredByGate) // before it is said until when, or it might never end
		}
	}
	for {
		was := b.until.Load()
		if was != 0 && was <= until || b.until.CompareAndSwap(was, until) {
			break
		}
	}
	p.c.waker.wake(until / int64(time.Millisecond))
	return false
}

func (c *Consumer) askGate(t *topic, g func() time.Duration) (wait time.Duration) {
	defer func() {
		if v := recover(); v != nil {
			wait = time.Second
			c.log.Error("retriable: a Gate panicked, waiting 1s", "topic", t.name, "panic", fmt.Sprintf("%T", v))
		}
	}()
	return g()
}

// unbar lets go of the topics whose time is over and returns when the next one's is, maxDue for none.
func (c *Consumer) unbar(now time.Time) (next int64) {
	next = maxDue
	for _, t := range c.set.topics {
		until := t.bar.until.Load()
		if until > now.UnixNano() {
			next = min(next, until)
		}
		if until == 0 || until > now.UnixNano() || !t.bar.until.CompareAndSwap(until, 0) {
			continue
		}
		for _, p := range c.partitions() {
			if p.t == t {
				p.barred.And(^barredByGate)
			}
		}
		c.pool.wakeTopic(t)
	}
	return next
}
