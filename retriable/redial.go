package retriable

import (
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// redial is the least time between two refusals of one broker's connection. Where a KIP-848 group's coordinator refuses connections, kgo asks it
// for the commits of new partitions again and again without a pause, on a whole core for as long as the broker is away.
const redial = 50 * time.Millisecond

// redials paces the dials of brokers that refuse them.
type redials struct {
	mu   sync.Mutex // guards the rest. A leaf
	last map[int32]time.Time
}

// wait notes a refusal and returns how long it is to be kept back: the first one not at all.
func (r *redials) wait(node int32, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = map[int32]time.Time{}
	}
	at := r.last[node].Add(redial)
	if at.Before(now) {
		at = now
	}
	r.last[node] = at
	return at.Sub(now)
}

// OnBrokerConnect implements kgo.HookBrokerConnect. kgo tells of it before whoever asked for the connection hears that there is none.
func (h clientHooks) OnBrokerConnect(b kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err == nil {
		return
	}
	wait := h.c.redials.wait(b.NodeID, time.Now())
	if wait <= 0 {
		return
	}
	select {
	case <-time.After(wait):
	case <-h.c.clientContext.Done():
	}
}
