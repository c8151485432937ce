package retriable

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A topic that is deleted and made anew has another id. kgo never takes up the new one by itself: it answers fetches and produces with
// UNKNOWN_TOPIC_ID for ever. And what kgo cannot fetch for another reason it tries again without a pause. One goroutine mends both.

// renewer is the topics that are to be purged from kgo.
type renewer struct {
	kick     chan struct{}
	mu       sync.Mutex
	consumed []string
	produced []string
	stale    []string // consumed as a member that is no more
}

const renewEvery = time.Second

func (r *renewer) add(topic string, to *[]string) {
	r.mu.Lock()
	if !slices.Contains(*to, topic) {
		*to = append(*to, topic)
	}
	r.mu.Unlock()
	r.wake()
}

func (r *renewer) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

func (r *renewer) take() (consumed, produced, stale []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	consumed, produced, stale = r.consumed, r.produced, r.stale
	r.consumed, r.produced, r.stale = nil, nil, nil
	return consumed, produced, stale
}

// renew is the goroutine.
func (c *Consumer) renew(ctx context.Context) {
	var away []absence
	for {
		wait := renewEvery
		if stalled := c.resumeStalled(time.Now()); len(away) == 0 && !stalled {
			wait = time.Hour
		}
		select {
		case <-ctx.Done():
			return
		case <-c.renewer.kick:
		case <-time.After(wait):
		}
		c.seek()
		consumed, produced, stale := c.renewer.take()
		for _, topic := range produced {
			c.cl.PurgeTopicsFromProducing(topic) // all of it that was in flight has failed; the next try learns the new id
		}
		for _, topic := range consumed {
			c.letGo(topic)
			away = append(away, absence{topic: topic})
		}
		c.letGoStale(stale)
		for _, topic := range stale {
			away = append(away, absence{topic, c.takenAway.Load(), time.Now()})
		}
		away = slices.DeleteFunc(away, func(a absence) bool { return c.isOver(a) && c.takeUp(ctx, a.topic) })
	}
}

// absence is a consumed topic that kgo has forgotten.
type absence struct {
	topic string
	taken uint64    // how often kgo had taken something away by then
	since time.Time // zero if the topic itself was gone
}

// isOver reports whether a topic may be taken up again. kgo gives up what it was assigned of a topic at the end of the group's session, and only if the
// topic is not consumed again by then: else the group gives to others what we keep.
func (c *Consumer) isOver(a absence) bool {
	return a.since.IsZero() || c.takenAway.Load() != a.taken || time.Since(a.since) >= forgetWithin
}

// forgetWithin is how long a session may take to end; by then there was none.
const forgetWithin = 5 * time.Second

// letGo gives a topic's partitions up without a commit, which would be taken for the new topic's, and has kgo forget it.
func (c *Consumer) letGo(topic string) {
	c.log.Warn("retriable: a topic was deleted; it is consumed again once it is made anew", "topic", topic)
	c.giveUp(c.ofTopics(topic), ErrRevoked, 0, true)
	c.purge(topic)
	c.cl.ResumeFetchTopics(topic) // fetchFailed paused it
}

// letGoStale has kgo forget topics of which it believes to have partitions that we gave up. What was assigned of them since then is given up in
// good order.
func (c *Consumer) letGoStale(topics []string) {
	if len(topics) > 0 {
		c.giveUp(c.ofTopics(topics...), ErrRevoked, c.set.drainInRevoke(), false)
		c.purge(topics...)
	}
}

func (c *Consumer) purge(topics ...string) {
	c.cl.PurgeTopicsFromConsuming(topics...)
	c.unawait(topics)
}

func (c *Consumer) ofTopics(topics ...string) []*partition {
	return slices.DeleteFunc(slices.Clone(c.partitions()), func(p *partition) bool { return !slices.Contains(topics, p.topic) })
}

// takeUp consumes a topic again if it is there.
func (c *Consumer) takeUp(ctx context.Context, topic string) bool {
	found, err := askTopics(ctx, c.cl, []string{topic})
	if a, ok := found[topic]; err != nil || !ok || errors.Is(a.err, kerr.UnknownTopicOrPartition) {
		return false
	}
	if c.patterns() {
		c.cl.ForceMetadataRefresh() // kgo finds it by that
	} else {
		c.cl.AddConsumeTopics(topic)
	}
	return true
}

// seek tells kgo once more where partitions begin that it reads from elsewhere. No poll is under way, and what kgo has read is forgotten: what comes
// after is from there.
func (c *Consumer) seek() {
	if !slices.ContainsFunc(c.partitions(), (*partition).isAstray) {
		return
	}
	c.gate.shut(func() {
		begin := map[string]map[int32]kgo.EpochOffset{}
		for _, p := range c.partitions() {
			if !p.isAstray() || p.stage.Load() != live {
				continue
			}
			p.mu.Lock()
			p.unsure, p.astray = false, false
			at := kgo.EpochOffset{Epoch: -1, Offset: p.window.Next()}
			p.mu.Unlock()
			if begin[p.topic] == nil {
				begin[p.topic] = map[int32]kgo.EpochOffset{}
			}
			begin[p.topic][p.partition] = at
		}
		c.cl.SetOffsets(begin)
	})
}

func (p *partition) isAstray() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.astray
}

// stall notes that a partition cannot be read, and until when it is left alone; it reports whether that is new.
func (p *partition) stall(err error) (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first = p.blocked == nil
	p.blocked = err
	p.stalled = time.Now().Add(min(time.Second<<min(p.stalls, 5), 30*time.Second))
	p.stalls++
	return first
}

// resumeStalled has partitions fetched again whose time is over. It reports whether others are left.
func (c *Consumer) resumeStalled(now time.Time) (left bool) {
	var over []*partition
	for _, p := range c.partitions() {
		if p.paused.Load()&pausedStalled == 0 {
			continue
		}
		p.mu.Lock()
		due := !now.Before(p.stalled)
		p.mu.Unlock()
		if due {
			over = append(over, p)
		} else {
			left = true
		}
	}
	if len(over) > 0 {
		c.gate.shut(func() { c.setPaused(over, pausedStalled, false) })
		c.tell()
	}
	return left
}

// doubt notes that a partition is fetched again after a pause, or is not. kgo throws away what it has fetched of a paused partition, and with it
// the one error that it tells only once: of a batch past its bound, behind which it never reads on.
func (p *partition) doubt(fetched bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.doubted = (time.Time{}); fetched {
		p.doubted = time.Now()
	}
}

// doubtful returns where reading stands if nothing has come since the pause for a while.
func (p *partition) doubtful(now time.Time) (next int64, epoch int32, yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	yes = !p.doubted.IsZero() && p.blocked == nil && now.Sub(p.doubted) >= quiet
	return p.position(), p.window.Epoch(), yes
}

// askAgain has partitions read once more from where they stand that have brought nothing since their pause, though there is more in the log: then
// the error comes again, and Health can name it.
func (c *Consumer) askAgain(ctx context.Context, now time.Time) {
	var topics []string
	var doubted []*partition
	for _, p := range c.partitions() {
		if _, _, yes := p.doubtful(now); yes && p.stage.Load() == live {
			topics = append(topics, p.topic)
			doubted = append(doubted, p)
		}
	}
	if len(doubted) == 0 {
		return
	}
	timed, cancel := context.WithTimeout(ctx, c.set.commitTimeout())
	defer cancel()
	ends, err := kadm.NewClient(c.cl).ListCommittedOffsets(timed, topics...)
	if err != nil {
		c.log.Debug("retriable: not all ends of the log could be listed", "error", err)
	}
	c.gate.shut(func() {
		past, from := map[string]map[int32]kgo.EpochOffset{}, map[string]map[int32]kgo.EpochOffset{}
		for _, p := range doubted {
			end, ok := ends.Lookup(p.topic, p.partition)
			next, epoch, yes := p.doubtful(now)
			if !ok || end.Err != nil || !yes || p.stage.Load() != live {
				continue
			}
			p.doubt(false)
			if end.Offset > next && next >= 0 {
				if from[p.topic] == nil {
					past[p.topic], from[p.topic] = map[int32]kgo.EpochOffset{}, map[int32]kgo.EpochOffset{}
				}
				past[p.topic][p.partition] = kgo.EpochOffset{Epoch: epoch, Offset: next + 1}
				from[p.topic][p.partition] = kgo.EpochOffset{Epoch: epoch, Offset: next}
			}
		}
		if len(from) > 0 {
			c.cl.SetOffsets(past) // to set what it has already does nothing
			c.cl.SetOffsets(from)
		}
	})
}
