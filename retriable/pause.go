package retriable

import "slices"

// pauses is what Pause and Resume have asked for. It outlives assignments, and may be asked for before there are any. The gate guards it.
type pauses struct {
	all   bool
	named map[string]bool // overrules all; by topic, or by the pattern of a TopicRegexp
}

// Pause stops the topics: nothing of them starts any more, be it fetched or held already, and nothing more is fetched. What runs ends, is
// settled and committed. Without names it stops all. The name of a base topic takes its retry topic and tiers along, as does the pattern of a
// [TopicRegexp], which stands for all its topics; a retry topic or a tier can be paused alone.
//
// Pause lasts until [Consumer.Resume], across rebalances, and may be called before Run. It is the member's own: others of the group go on.
// Due times, attempts and commits are as ever, the group keeps its heartbeat, and Health finds nothing wrong. It returns at once; a
// handler that is being called at this moment counts as running. PartitionStats.Paused shows it.
func (c *Consumer) Pause(topics ...string) { c.setPauses(topics, true) }

// Resume ends what [Consumer.Pause] began: for the topics named, in the same way, or for all. What was read goes on where it stood.
func (c *Consumer) Resume(topics ...string) { c.setPauses(topics, false) }

func (c *Consumer) setPauses(topics []string, on bool) {
	var parts []*partition
	c.gate.shut(func() { // an assignment may be under way
		if len(topics) == 0 {
			c.pauses = pauses{all: on}
		}
		if c.pauses.named == nil {
			c.pauses.named = map[string]bool{}
		}
		for _, name := range topics {
			c.pauses.named[name] = on
			if t := c.known(name); t == nil {
				c.log.Warn("retriable: Pause or Resume of a topic that is not consumed", "topic", name)
			} else if !slices.Contains(t.retries(), name) {
				for _, retry := range t.retries() {
					c.pauses.named[retry] = on
				}
			}
		}
		parts = c.partitions()
		c.applyPauses(parts)
	})
	c.tell()
	for _, p := range parts {
		c.pool.wake(p)
	}
}

// known returns the topic that a name given to Pause means.
func (c *Consumer) known(name string) *topic {
	for _, t := range c.set.topics {
		if t.name == name {
			return t
		}
	}
	t, _ := c.route(name)
	return t
}

// applyPauses brings partitions in line with what is asked for. The gate is held.
func (c *Consumer) applyPauses(parts []*partition) {
	var stop, start []*partition
	for _, p := range parts {
		if c.isPaused(p) {
			p.barred.Or(barredPaused)
			stop = append(stop, p)
		} else if p.barred.And(^barredPaused)&barredPaused != 0 {
			start = append(start, p)
		}
	}
	c.setPaused(stop, pausedByUser, true)
	c.setPaused(start, pausedByUser, false)
}

func (c *Consumer) isPaused(p *partition) bool {
	if on, ok := c.pauses.named[p.topic]; ok {
		return on
	}
	if on, ok := c.pauses.named[p.t.name]; ok && !p.retry {
		return on // by its pattern
	}
	return c.pauses.all
}
