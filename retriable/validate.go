package retriable

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// topic is a base topic, or a pattern of them, with its retry topic: what the options say once they are checked and merged.
type topic struct {
	name        string
	pattern     bool
	re          *regexp.Regexp // of a pattern
	handler     Handler
	retry, dead string // "" where there is none
	tiers       []tier // the shortest first
	maxAttempts int
	backoff     BackoffFunc
	maxDelay    time.Duration
	maxElapsed  time.Duration // 0: none
	order       Order
	timeout     time.Duration // 0: none
	filter      func(*kgo.Record) bool
	scheduled   time.Duration // 0: none
	recycle     bool          // messages are used again
	startAt     kgo.Offset
	blocking    blockingRetries
	atOnce      int // handlers at once; 0: no bound of its own
	attached    int // workers at its partitions; guarded by the pool's lock
	bar         bar
	batch       *batching // nil if its messages are handled one by one
}

// settings is what New makes of the options.
type settings struct {
	*config
	topics []*topic
	client *clientFacts
}

// checker collects what is wrong with the options.
type checker struct{ errs []error }

func (c *checker) bad(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%w: "+format, append([]any{ErrInvalidOption}, args...)...))
}

func (c *checker) want(ok bool, format string, args ...any) {
	if !ok {
		c.bad(format, args...)
	}
}

// validate checks all options together and merges the topics' with their defaults.
func (c *config) validate() (*settings, error) {
	var ck checker
	s := &settings{config: c}
	c.checkConsumer(&ck)
	for _, tc := range c.topics {
		s.topics = append(s.topics, c.mergeTopic(&ck, tc))
	}
	checkTopicNames(&ck, s.topics)
	if c.logger == nil {
		c.logger = slog.Default()
	}
	s.client = c.checkClient(&ck)
	if s.client != nil {
		if d := s.drainInRevoke(); d < time.Second && c.drainTimeout >= time.Second {
			ck.bad("DrainTimeout(%v): kgo.RebalanceTimeout(%v) leaves a revoke %v to drain, less than 1s", c.drainTimeout, s.client.rebalance, d)
		}
	}
	return s, errors.Join(ck.errs...)
}

func (c *config) checkConsumer(ck *checker) {
	ck.want(c.group != "", "New: the group is empty")
	ck.want(len(c.topics) > 0, "New: no Topic and no TopicRegexp")
	ck.want(c.nilOptions == 0, "New: %d options are nil", c.nilOptions)
	c.checkWorkers(ck)
	ck.want(c.maxPending >= 1, "MaxPending(%d): less than 1", c.maxPending)
	ck.want(c.maxHeld >= 1, "MaxHeld(%d): less than 1", c.maxHeld)
	ck.want(c.maxPendingBytes >= 1, "MaxPendingBytes(%d): less than 1", c.maxPendingBytes)
	ck.want(c.maxWindow >= 1, "MaxWindow(%d): less than 1", c.maxWindow)
	ck.want(c.drainTimeout > 0, "DrainTimeout(%v): not above 0", c.drainTimeout)
	ck.want(c.drainTimeout <= 0 || c.drainTimeout >= time.Second, "DrainTimeout(%v): less than 1s", c.drainTimeout)
	ck.want(c.commitInterval > 0, "CommitInterval(%v): not above 0", c.commitInterval)
	ck.want(c.stuckAfter > 0, "StuckAfter(%v): not above 0", c.stuckAfter)
	ck.want(c.maxCrashes >= 0, "MaxCrashes(%d): less than 0", c.maxCrashes)
	ck.want(c.chunks.MaxChunks >= 1, "MaxChunks(%d): less than 1", c.chunks.MaxChunks)
	ck.want(c.chunks.MaxMessageBytes >= 1, "MaxMessageBytes(%d): less than 1", c.chunks.MaxMessageBytes)
	ck.want(c.chunks.MaxGroups >= 1, "MaxJoining(%d): less than 1", c.chunks.MaxGroups)
	ck.want(c.chunks.MaxBytes >= 1, "MaxJoiningBytes(%d): less than 1", c.chunks.MaxBytes)
	ck.want(c.chunks.Deadline > 0, "JoinTimeout(%v): not above 0", c.chunks.Deadline)
	if c.create != nil {
		ck.want(c.create.partitions >= 1, "CreateTopics(%d, %d): less than 1 partition", c.create.partitions, c.create.replicas)
		ck.want(c.create.replicas >= 1 || c.create.replicas == -1, "CreateTopics(%d, %d): replicas neither -1 nor above 0", c.create.partitions, c.create.replicas)
	}
	ck.want(!slices.ContainsFunc(c.middleware, func(m Middleware) bool { return m == nil }), "Use: a middleware is nil")
	for _, h := range c.hooks {
		ck.want(isHook(h), "Hooks(%T): implements none of the Hook interfaces", h)
	}
}

// checkWorkers takes the concurrency from a shared pool, if there is one.
func (c *config) checkWorkers(ck *checker) {
	ck.want(c.concurrency >= 1, "Concurrency(%d): less than 1", c.concurrency)
	if !c.shared {
		return
	}
	ck.want(!c.concurrent, "Concurrency(%d) with SharedWorkers: the size of that pool is NewWorkers's", c.concurrency)
	if c.workers == nil || c.workers.pool == nil {
		ck.bad("SharedWorkers(nil): make one with NewWorkers")
		return
	}
	ck.want(c.workers.pool.n >= 1, "SharedWorkers(NewWorkers(%d)): less than 1", c.workers.pool.n)
	c.concurrency = max(c.workers.pool.n, 1)
}

// pool is the shared one, or one of its own.
func (c *config) pool() *pool {
	if c.shared {
		return c.workers.pool
	}
	return newPool(c.concurrency)
}

// mergeTopic checks one topic's options and fills in the defaults.
func (c *config) mergeTopic(ck *checker, tc *topicConfig) *topic {
	d := &c.defaults
	t := &topic{
		name:        tc.name,
		pattern:     tc.pattern,
		retry:       tc.retry.or(d.retry, ""),
		maxAttempts: tc.attempts.or(d.attempts, 5),
		backoff:     tc.backoff.or(d.backoff, Exponential(time.Second, time.Minute)),
		maxDelay:    tc.maxDelay.or(d.maxDelay, 7*24*time.Hour),
		maxElapsed:  tc.maxElapsed.or(d.maxElapsed, 0),
		order:       tc.order.or(d.order, ByKey),
		timeout:     tc.timeout.or(d.timeout, 0),
		filter:      tc.filter.or(d.filter, nil),
		scheduled:   tc.scheduled.or(d.scheduled, 0),
		recycle:     tc.recycle.or(d.recycle, false) && !tc.batch,
		startAt:     tc.startAt.or(d.startAt, kgo.NewOffset().AtStart()),
		blocking:    tc.blocking.or(d.blocking, blockingRetries{}),
		atOnce:      tc.atOnce.or(d.atOnce, 0),
	}
	c.checkTopic(ck, tc, t)
	t.tiers = c.mergeTiers(ck, tc, t)
	t.dead = c.mergeDeadLetters(ck, tc)
	t.handler = c.wrapHandler(ck, tc)
	t.batch = c.mergeBatch(ck, tc)
	if t.batch != nil {
		t.blocking = blockingRetries{}
	}
	t.bar.gates = c.mergeGates(ck, tc)
	if tc.pattern {
		re, err := regexp.Compile("^(?:" + tc.name + ")$")
		ck.want(err == nil, "TopicRegexp(%q): %v", tc.name, err)
		t.re = re
	}
	return t
}

// wrapHandler puts the middleware around a topic's handler: the consumer's, the defaults', its own, the first outermost.
func (c *config) wrapHandler(ck *checker, tc *topicConfig) Handler {
	missing := func(m Middleware) bool { return m == nil }
	own := slices.Concat(c.defaults.middleware, tc.middleware)
	ck.want(!slices.ContainsFunc(own, missing), "%s: With: a middleware is nil", tc.label())
	all := slices.Concat(c.middleware, own)
	if tc.handler == nil || slices.ContainsFunc(all, missing) {
		return nil
	}
	h := chain(tc.handler, all)
	ck.want(h != nil, "%s: a middleware of Use or With returned nil", tc.label())
	return h
}

// mergeGates puts a topic's gates in the order in which they are asked: the limiter last, for it counts what starts.
func (c *config) mergeGates(ck *checker, tc *topicConfig) []func() time.Duration {
	gates := slices.Concat(c.defaults.gates, tc.gates)
	ck.want(!slices.ContainsFunc(gates, func(g func() time.Duration) bool { return g == nil }), "%s: Gate(nil)", tc.label())
	if !tc.rate.set && !c.defaults.rate.set {
		return gates
	}
	r := tc.rate.or(c.defaults.rate, rateLimit{})
	ck.want(r.perSecond > 0 && !math.IsInf(r.perSecond, 0), "%s: RateLimit(%v, %d): not a finite number above 0 a second", tc.label(), r.perSecond, r.burst)
	ck.want(r.burst >= 1, "%s: RateLimit(%v, %d): a burst less than 1", tc.label(), r.perSecond, r.burst)
	return append(gates, newThrottle(r).wait)
}

// mergeBatch returns how a BatchTopic is consumed, nil for the others.
func (c *config) mergeBatch(ck *checker, tc *topicConfig) *batching {
	name := tc.label()
	if !tc.batch {
		ck.want(!tc.size.set, "%s: BatchSize(%d) without a BatchTopic", name, tc.size.v)
		ck.want(!tc.wait.set, "%s: BatchWait(%v) without a BatchTopic", name, tc.wait.v)
		return nil
	}
	b := &batching{size: tc.size.or(c.defaults.size, 100), wait: tc.wait.or(c.defaults.wait, 100*time.Millisecond)}
	ck.want(b.size >= 1, "%s: BatchSize(%d): less than 1", name, b.size)
	ck.want(b.wait >= 0, "%s: BatchWait(%v): less than 0", name, b.wait)
	ck.want(!tc.recycle.set, "%s: Recycle with a BatchTopic", name)
	ck.want(!tc.blocking.set, "%s: BlockingRetries(%d) with a BatchTopic", name, tc.blocking.v.n)
	return b
}

func (c *config) checkTopic(ck *checker, tc *topicConfig, t *topic) {
	name := tc.label()
	ck.want(tc.name != "", "%s: the name is empty", name)
	f, isFunc := tc.handler.(HandlerFunc)
	ck.want(tc.handler != nil && (!isFunc || f != nil), "%s: the handler is nil", name)
	ck.want(tc.nilOptions+c.defaults.nilOptions == 0, "%s: an option is nil", name)
	if t.retry == "" {
		ck.want(!tc.retry.set, "%s: RetryTopic(%q) is empty", name, t.retry)
		ck.want(!tc.attempts.set, "%s: MaxAttempts(%d) without a RetryTopic", name, tc.attempts.v)
		ck.want(!tc.backoff.set, "%s: Backoff without a RetryTopic", name)
		ck.want(!tc.maxElapsed.set, "%s: MaxElapsed(%v) without a RetryTopic", name, tc.maxElapsed.v)
	}
	ck.want(t.maxAttempts >= 1, "%s: MaxAttempts(%d): less than 1", name, t.maxAttempts)
	ck.want(t.backoff != nil, "%s: Backoff(nil)", name)
	ck.want(t.maxDelay > 0, "%s: MaxDelay(%v): not above 0", name, t.maxDelay)
	ck.want(t.maxElapsed > 0 || !tc.maxElapsed.set && !c.defaults.maxElapsed.set, "%s: MaxElapsed(%v): not above 0", name, t.maxElapsed)
	ck.want(t.timeout > 0 || !tc.timeout.set && !c.defaults.timeout.set, "%s: HandlerTimeout(%v): not above 0", name, t.timeout)
	ck.want(t.filter != nil || !tc.filter.set && !c.defaults.filter.set, "%s: Filter(nil)", name)
	ck.want(t.scheduled > 0 || !tc.scheduled.set && !c.defaults.scheduled.set, "%s: Scheduled(%v): not above 0", name, t.scheduled)
	ck.want(resolvable(t.startAt), "%s: StartAt(%v): neither start, end, an offset, relative to these, nor AfterMilli", name, t.startAt)
	ck.want(t.atOnce >= 1 || !tc.atOnce.set && !c.defaults.atOnce.set, "%s: TopicConcurrency(%d): less than 1", name, t.atOnce)
	if tc.blocking.set || c.defaults.blocking.set {
		ck.want(t.blocking.n >= 1, "%s: BlockingRetries(%d): less than 1", name, t.blocking.n)
		ck.want(t.blocking.backoff != nil, "%s: BlockingRetries(%d, nil): no backoff", name, t.blocking.n)
	}
	ck.want(t.order >= ByKey && t.order <= Unordered, "%s: Ordering(%d): no such order", name, t.order)
}

// mergeDeadLetters returns the dead-letter topic, "" for none: a topic's own choice beats the default's.
func (c *config) mergeDeadLetters(ck *checker, tc *topicConfig) string {
	dead, none, whose := tc.dead, tc.noDead, tc.label()
	if !dead.set && !none.set {
		dead, none = c.defaults.dead, c.defaults.noDead
	}
	switch {
	case dead.set && none.set:
		ck.bad("%s: both DeadLetterTopic(%q) and NoDeadLetters", whose, dead.v)
	case !dead.set && !none.set:
		ck.bad("%s: neither DeadLetterTopic nor NoDeadLetters", whose)
	case dead.set && dead.v == "":
		ck.bad("%s: DeadLetterTopic(%q) is empty", whose, dead.v)
	}
	return dead.v
}

// label names a topic as its option did.
func (t *topicConfig) label() string { return label(t.name, t.pattern) }

func (t *topic) label() string { return label(t.name, t.pattern) }

func label(name string, pattern bool) string {
	if pattern {
		return fmt.Sprintf("TopicRegexp(%q)", name)
	}
	return fmt.Sprintf("Topic(%q)", name)
}

// checkTopicNames refuses topics that are used for two things.
func checkTopicNames(ck *checker, topics []*topic) {
	base, retries := map[string]bool{}, map[string]*topic{}
	for _, t := range topics {
		ck.want(!base[t.label()], "%s: given twice", t.label())
		base[t.label()] = true
	}
	isBase := func(name string) bool { return base[(&topic{name: name}).label()] }
	for _, t := range topics {
		for i, name := range t.retries() {
			option := "RetryTopic"
			if i > 0 || t.retry == "" {
				option = "RetryTier"
			}
			ck.want(!isBase(name), "%s: %s(%q) is also a base topic", t.label(), option, name)
			if first := retries[name]; first != nil {
				ck.bad("%s: %s(%q) is already that of %s; every topic needs its own", t.label(), option, name, first.label())
			}
			retries[name] = t
		}
	}
	for _, t := range topics {
		if t.dead == "" {
			continue
		}
		ck.want(!isBase(t.dead), "%s: DeadLetterTopic(%q) is also consumed", t.label(), t.dead)
		ck.want(retries[t.dead] == nil, "%s: DeadLetterTopic(%q) is also a retry topic", t.label(), t.dead)
	}
}

// A revoke's time: what is left of the rebalance timeout once it was noticed, after the drain, for what comes last.
const lastMomentShare, commitShare = 30, 6

// commitTimeout bounds one commit.
func (s *settings) commitTimeout() time.Duration {
	return min(5*time.Second, s.client.rebalance/commitShare)
}

// lastMoment is what a handler gets after its context was cancelled.
func (s *settings) lastMoment() time.Duration {
	return min(time.Second, s.client.rebalance/lastMomentShare)
}

// drainInRevoke is how long a revoke may wait for running handlers: the broker evicts a member that exceeds the rebalance timeout.
func (s *settings) drainInRevoke() time.Duration {
	notice := 2 * s.client.heartbeat
	if s.client.serverSide {
		notice = 5 * time.Second // the broker's heartbeat interval, at which a revoke is noticed
	}
	return min(s.drainTimeout, s.client.rebalance-notice-s.lastMoment()-s.commitTimeout())
}
