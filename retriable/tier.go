package retriable

import (
	"cmp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Tiers are retry topics of one delay each: what is written to one waits there for that long, so its head is due first. A record goes to the
// largest that is not longer than its wait, and hops on from there until it is due.

// tier is one of them.
type tier struct {
	topic string
	delay time.Duration
}

// tierAhead is how many records of a tier's partition are read ahead of the one that is due next, so that none is late for want of a fetch.
const tierAhead = 1000

// nearlyDue is how much longer a record may stay in a tier than that is long, if it is due then: hopping on would take as long.
const nearlyDue = 500 * time.Millisecond

// RetryTier names a topic for the waits of a delay: a record whose wait is at least that long waits there first, in the longest tier that is
// not longer, and what is left of its wait in the next. Waits below the shortest tier are those of the RetryTopic, without which there are no
// tiers. It adds up; a topic's own tiers beat those of the defaults. The same consumer reads all of them.
//
// In a tier the record that is due next is the first, so hardly more than that is read and kept in memory, however many wait. Without tiers
// all that waits is held, and written again where it would hold up the committed offset. Use them where very many records wait for long. Every
// hop is one write. Do not use them in a group with members of the Python client, which know nothing of tiers.
func RetryTier(topic string, delay time.Duration) TopicOption {
	return topicOption(func(t *topicConfig) { t.tiers = append(t.tiers, tier{topic, delay}) })
}

// mergeTiers checks a topic's tiers, or the defaults', and puts the shortest first.
func (c *config) mergeTiers(ck *checker, tc *topicConfig, t *topic) []tier {
	tiers, name := tc.tiers, tc.label()
	if len(tiers) == 0 {
		if tiers = c.defaults.tiers; t.retry == "" {
			return nil
		}
	}
	tiers = slices.SortedStableFunc(slices.Values(tiers), func(a, b tier) int { return cmp.Compare(a.delay, b.delay) })
	for i, r := range tiers {
		ck.want(t.retry != "", "%s: RetryTier(%q, %v) without a RetryTopic", name, r.topic, r.delay)
		ck.want(r.topic != "", "%s: RetryTier(%q, %v): the name is empty", name, r.topic, r.delay)
		ck.want(r.delay >= time.Millisecond, "%s: RetryTier(%q, %v): less than 1ms", name, r.topic, r.delay)
		ck.want(r.delay <= t.maxDelay, "%s: RetryTier(%q, %v): longer than MaxDelay(%v), so nothing ever waits there", name, r.topic, r.delay, t.maxDelay)
		ck.want(i == 0 || tiers[i-1].delay != r.delay, "%s: RetryTier(%q, %v): there is another of that delay", name, r.topic, r.delay)
	}
	return tiers
}

// retries are the names of its retry topic and its tiers.
func (t *topic) retries() (names []string) {
	if t.retry != "" {
		names = append(names, t.retry)
	}
	for _, r := range t.tiers {
		names = append(names, r.topic)
	}
	return names
}

// copies are the names of all topics that copies of its records are written to.
func (t *topic) copies() []string {
	if t.dead == "" {
		return t.retries()
	}
	return append(t.retries(), t.dead)
}

// retryFor is the topic for a record that is to wait for so long.
func (t *topic) retryFor(wait time.Duration) string {
	name := t.retry
	for _, r := range t.tiers {
		if r.delay <= wait {
			name = r.topic
		}
	}
	return name
}

// tierOf returns the delay of a tier, 0 for any other topic.
func (t *topic) tierOf(name string) time.Duration {
	for _, r := range t.tiers {
		if r.topic == name {
			return r.delay
		}
	}
	return 0
}

// waitIn is the longest that a record waits in one of the retry topics.
func (t *topic) waitIn(name string) time.Duration {
	switch d := t.tierOf(name); {
	case d > 0:
		return d
	case len(t.tiers) > 0:
		return t.tiers[0].delay
	}
	return t.maxDelay
}

// stay says for how long a record that is due then is held here: in a tier no longer than that is. It began when the record was written; that may be
// told by another clock, the broker's or another member's, so that it began no earlier than a member says that has hopped it on: or a clock that is
// ahead would have it hop back to where it is again and again.
func (p *partition) stay(r *kgo.Record, moved, due int64) entry {
	if p.tier > 0 {
		if until := max(r.Timestamp.UnixMilli(), moved) + p.tier.Milliseconds(); until < due-nearlyDue.Milliseconds() {
			return entry{due: until, final: due}
		}
	}
	return entry{due: due}
}

// maxHeld is how many records p may hold.
func (p *partition) maxHeld() int {
	if p.tier > 0 {
		return min(p.c.set.maxHeld, tierAhead)
	}
	return p.c.set.maxHeld
}
