package retriable

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// slowWrite is when a write that nobody has refused is a reason of Health all the same: kgo keeps what the broker does not answer.
const slowWrite = 15 * time.Second

// Health returns nil if the consumer can do its work, else every reason why not, joined, each a typed error: *[BrokerError] (no broker
// answers), *[TopicError] (a topic is gone), *[GroupError] (the group is not joined), *[StuckError] (a record holds a watermark for
// longer than StuckAfter, other than by waiting for its due time), *[ProduceError] (writes are refused), *[FetchError] (a partition
// cannot be read on). It asks the brokers: bound it by ctx.
func (c *Consumer) Health(ctx context.Context) error {
	if c.client.Load() == nil {
		return &GroupError{Group: c.set.group, Err: errors.New("Run has not started")}
	}
	errs := c.brokerHealth(ctx)
	c.failMu.Lock()
	group := c.group
	c.failMu.Unlock()
	for _, f := range c.refusals() {
		errs = append(errs, f)
	}
	if !c.joined.Load() {
		if group == nil {
			group = errors.New("not joined yet")
		}
		errs = append(errs, &GroupError{Group: c.set.group, Err: group})
	}
	c.mu.Lock()
	for name, err := range c.unread {
		errs = append(errs, &FetchError{Topic: name.topic, Partition: name.partition, Offset: -1, Err: err})
	}
	c.mu.Unlock()
	for _, p := range c.partitions() {
		errs = append(errs, p.health()...)
	}
	return errors.Join(errs...)
}

// refusals returns what is told of topics whose writes are refused, as far as a refused write is still pending: its record may have gone
// elsewhere meanwhile, to a dead-letter topic or to another member.
func (c *Consumer) refusals() (fs []*ProduceError) {
	pending := map[string]bool{}
	for _, p := range c.partitions() {
		p.mu.Lock()
		for w := range p.producing.all() {
			pending[w.rec.Topic] = pending[w.rec.Topic] || w.tries > 0
		}
		p.mu.Unlock()
	}
	c.failMu.Lock()
	defer c.failMu.Unlock()
	for topic, f := range c.failing {
		if !pending[topic] {
			delete(c.failing, topic)
			c.refusing.Store(len(c.failing) > 0)
			continue
		}
		e := *f
		fs = append(fs, &e)
	}
	return fs
}

// brokerHealth asks the brokers for the topics.
func (c *Consumer) brokerHealth(ctx context.Context) (errs []error) {
	names := c.topicNames()
	found, err := askTopics(ctx, c.cl, names)
	if err != nil {
		return []error{&BrokerError{Brokers: c.set.client.seeds, Err: err}}
	}
	for _, name := range names {
		if a := found[name]; a.err != nil {
			errs = append(errs, &TopicError{Topic: name, Err: a.err})
		}
	}
	return errs
}

// topicNames are all topics that must be there.
func (c *Consumer) topicNames() (names []string) {
	seen := map[string]bool{"": true}
	for _, t := range c.set.topics {
		base := t.name
		if t.re != nil {
			base = ""
		}
		for _, name := range append(t.retries(), base, t.dead) {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}

func (p *partition) health() (errs []error) {
	if o, stuck := p.stuck(); stuck {
		errs = append(errs, &StuckError{Topic: p.topic, Partition: p.partition, Oldest: o})
	}
	if err := p.fetchError(); err != nil {
		errs = append(errs, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.producing.all() {
		if age := time.Since(w.since); w.tries == 0 && age > slowWrite {
			errs = append(errs, &ProduceError{Topic: w.rec.Topic, Since: w.since, Err: fmt.Errorf("no answer for %v", age.Round(time.Second))})
			break
		}
	}
	return errs
}

// fetchError tells why the partition cannot be read on, and if Skip is the way out, how.
func (p *partition) fetchError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blocked == nil {
		return nil
	}
	e := &FetchError{Topic: p.topic, Partition: p.partition, Offset: p.position(), Err: p.blocked}
	var large *kgo.ErrDecompressTooLarge
	switch isLarge := errors.As(p.blocked, &large); {
	case isLarge:
		e.Past = Position{p.topic, p.partition, large.NextOffset - 1}
	case !p.stalled.IsZero() && p.paused.Load()&pausedStalled == 0 && time.Since(p.stalled) > quiet:
		p.blocked, p.stalls = nil, 0 // it is fetched again, and nothing was refused since
		return nil
	}
	return e
}

// quiet is how long a partition that is fetched again must not be refused to be healthy, though nothing may come of it.
const quiet = 5 * time.Second

// position is where reading stands. p.mu is held.
func (p *partition) position() int64 {
	if n := len(p.stash); n > 0 {
		return p.stash[n-1].Offset + 1
	}
	return p.window.Next()
}

// Skip gives up on what cannot even be fetched, as a batch past kgo.MaxDecompressBatchBytes: reading goes on behind past, which is
// what the [FetchError] of Health names. What is given up is logged and counted as dropped. It refuses a partition that is not assigned
// here, and a position that reading has passed already.
func (c *Consumer) Skip(ctx context.Context, past Position) error {
	p := c.partition(topicPartition{past.Topic, past.Partition})
	if p == nil {
		return fmt.Errorf("retriable: Skip past %v: the partition is not assigned to this member", past)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var first int64
	var err error
	c.gate.shut(func() {
		if p.stage.Load() != live {
			err = fmt.Errorf("retriable: Skip past %v: the partition is being taken away", past)
			return
		}
		p.mu.Lock()
		first = p.position()
		if past.Offset < first {
			err = fmt.Errorf("retriable: Skip past %v: reading is at offset %d already", past, first)
		} else {
			p.skip, p.blocked, p.stalls = past.Offset+1, nil, 0
		}
		epoch := p.window.Epoch()
		p.mu.Unlock()
		if err == nil {
			p.admit(c.now())
			c.setPaused([]*partition{p}, pausedStalled, false)
			c.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{past.Topic: {past.Partition: {Epoch: epoch, Offset: past.Offset + 1}}})
		}
	})
	c.tell()
	if err != nil {
		return err
	}
	d := Dropped{Source: Position{past.Topic, past.Partition, first}, Records: past.Offset + 1 - first}
	c.total.dropped.Add(uint64(d.Records))
	c.log.Warn("retriable: offsets are given up unread (Skip)", "from", d.Source, "past", past, "offsets", d.Records)
	call(c, c.hook.dropped, func(h HookDropped) { h.OnDropped(d) })
	return nil
}
