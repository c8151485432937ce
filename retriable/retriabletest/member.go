package retriabletest

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// ErrCrashed is the cause of a handler's context when its consumer has crashed ([Member.Crash]).
var ErrCrashed = errors.New("retriabletest: the consumer crashed")

// Member is a consumer that was started, over its crashes and restarts.
type Member struct {
	*retriable.Consumer // of its present life

	k     *Kafka
	group string
	opts  []retriable.Option
	now   *life
	past  []*life // that crashed
}

// life is one run of a consumer.
type life struct {
	m       *Member
	network *network
	stop    context.CancelFunc
	crash   context.CancelCauseFunc // of the context that handlers' contexts end with
	dying   context.Context
	done    chan struct{}
	err     error // what Run returned
	seen    bool  // somebody was told, or has crashed it
}

// Start starts a consumer and waits until it is ready. It runs until Stop or Crash, or until the test ends.
func (k *Kafka) Start(group string, opts ...retriable.Option) *Member {
	k.t.Helper()
	m := k.Launch(group, opts...)
	m.ready()
	return m
}

// Launch is Start without the wait.
func (k *Kafka) Launch(group string, opts ...retriable.Option) *Member {
	k.t.Helper()
	m := &Member{k: k, group: group, opts: opts}
	k.members = append(k.members, m)
	m.launch()
	return m
}

func (m *Member) launch() {
	m.k.t.Helper()
	l := &life{m: m, network: &network{dial: m.k.DialContext}, done: make(chan struct{})}
	whole := context.WithoutCancel(m.k.t.Context())
	l.dying, l.crash = context.WithCancelCause(whole)
	opts := append(m.k.reach(l.network.dialContext, m.k.logger(l.dying, m.group+": ")), retriable.Use(l.middleware), retriable.Hooks(counter{l}))
	c, err := retriable.New(m.group, append(append(opts, m.k.Members...), m.opts...)...)
	if err != nil {
		m.k.t.Fatal(err)
	}
	var ctx context.Context
	ctx, l.stop = context.WithCancel(whole)
	m.Consumer, m.now = c, l
	go func() {
		err := c.Run(ctx)
		m.k.happened(func() { l.err = err })
		close(l.done)
	}()
}

func (m *Member) ready() {
	m.k.t.Helper()
	select {
	case <-m.Ready():
	case <-m.now.done:
		m.now.seen = true
		m.k.t.Fatalf("group %s: Run ended before the consumer was ready: %v", m.group, m.now.err)
	}
}

// Done is closed when Run has returned.
func (m *Member) Done() <-chan struct{} { return m.now.done }

// Stop stops the consumer as a deployment does: it drains, commits and leaves its group. It returns what Run returned.
func (m *Member) Stop() error {
	m.now.stop()
	return m.Wait()
}

// Wait waits until Run ends by itself, and returns what it returned.
func (m *Member) Wait() error {
	<-m.now.done
	m.now.seen = true
	return m.now.err
}

// End has Run end as Stop does, without waiting for it.
func (m *Member) End() { m.now.stop() }

// Crash ends the consumer as a kill does, at once: its connections break, so that nothing more of it reaches the broker, and no handler
// starts any more. The broker learns of it by the missing heartbeats, as a real one does: until the session is over, 10 s in KIP-848
// groups here, its partitions are nobody's. A handler may call it, for a crash between what it did and the commit of it.
//
// A goroutine cannot be killed. The contexts of running handlers end, with [ErrCrashed] as cause, and what they return counts no more; what a
// handler does all the same, a real crash would have kept it from.
func (m *Member) Crash() { m.now.die() }

func (l *life) die() {
	l.seen = true
	l.network.cut() // first: what handlers return because of the crash must not reach the broker
	l.crash(ErrCrashed)
	l.stop()
}

// CrashBefore crashes the consumer when it is about to send its next request of a kind, which the broker does not get: before a retry copy is
// written (kmsg.Produce), say, or before a commit (kmsg.OffsetCommit).
func (m *Member) CrashBefore(key kmsg.Key) {
	l := m.now
	l.network.set(trap{key, true, func(*conn) { l.die() }})
}

// CrashAfter is CrashBefore, but the broker has got the request and done what it says; its answer is lost with the consumer.
func (m *Member) CrashAfter(key kmsg.Key) {
	l := m.now
	l.network.set(trap{key, false, func(*conn) { l.die() }})
}

// LoseAnswer breaks the connection when the next request of a kind was delivered, and before its answer comes. The consumer cannot know then
// whether the broker has done it.
func (m *Member) LoseAnswer(key kmsg.Key) {
	m.now.network.set(trap{key, false, func(c *conn) { _ = c.Conn.Close() }})
}

// Crashed is closed when the consumer crashes, in its present life.
func (m *Member) Crashed() <-chan struct{} { return m.now.dying.Done() }

// Restart starts the consumer again, with the same options, after a stop or a crash, and waits until it is ready. One that still runs is
// stopped first.
func (m *Member) Restart() {
	m.k.t.Helper()
	if m.now.dying.Err() == nil {
		if err := m.Stop(); err != nil {
			m.k.t.Errorf("group %s: Run: %v", m.group, err)
		}
	}
	m.past = append(m.past, m.now)
	m.launch()
	m.ready()
}

// Disconnect takes the consumer's network away: its connections break, and there are no new ones until Reconnect. The consumer goes on with
// what it has.
func (m *Member) Disconnect() { m.now.network.cut() }

// Reconnect gives it back.
func (m *Member) Reconnect() {
	if m.now.dying.Err() == nil {
		m.now.network.mend()
	}
}

// finish ends all of its lives.
func (m *Member) finish() {
	for _, l := range m.past {
		<-l.done
	}
	l := m.now
	l.stop()
	<-l.done
	if l.err != nil && !l.seen {
		m.k.t.Errorf("group %s: Run: %v", m.group, l.err)
	}
}

// middleware is around all others: of a consumer that crashed no handler starts, and those that run are told.
func (l *life) middleware(inner retriable.Handler) retriable.Handler {
	return retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
		if l.dying.Err() != nil {
			return ErrCrashed
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(l.dying, func() { cancel(ErrCrashed) })()
		return inner.Handle(ctx, m)
	})
}

// counter is the hook that keeps the tally.
type counter struct{ l *life }

func (c counter) count(change func(*tally)) {
	k := c.l.m.k
	k.happened(func() {
		if c.l.dying.Err() != nil {
			return // a real crash would have kept it from happening
		}
		t := k.groups[c.l.m.group]
		if t == nil {
			t = &tally{topics: map[string]bool{}}
			k.groups[c.l.m.group] = t
		}
		change(t)
	})
}

func (c counter) OnHandled(h retriable.Handled) {
	c.count(func(t *tally) {
		switch h.Verdict {
		case retriable.VerdictDone:
			t.handled++
		case retriable.VerdictRetry, retriable.VerdictDeadLetter, retriable.VerdictDrop:
			t.failed++
		default: // no attempt was spent
		}
	})
}

func (c counter) OnRetried(retriable.Retried)           { c.count(func(t *tally) { t.retried++ }) }
func (c counter) OnDeadLettered(retriable.DeadLettered) { c.count(func(t *tally) { t.deadLettered++ }) }

func (c counter) OnDropped(d retriable.Dropped) {
	c.count(func(t *tally) { t.dropped += int(d.Records) })
}

func (c counter) OnAssigned(a retriable.Assigned) {
	c.count(func(t *tally) { t.topics[a.Topic] = true })
}
func (c counter) OnCommitted(retriable.Committed) { c.count(func(*tally) {}) }
