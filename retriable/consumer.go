package retriable

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/clock"
	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// Consumer is one member of a consumer group. Make it with [New], run it once with [Consumer.Run]. All methods may be called from any
// goroutine.
type Consumer struct {
	set  *settings
	log  *slog.Logger
	hook hookSet
	pool *pool

	joiner       *wire.Joiner // the gate's
	joinDue      atomic.Int64 // when the first incomplete message is given up, in ms; maxDue if there is none
	chunksLogged time.Time    // guarded by failMu
	guest        guest        // what the pool knows of it

	retries map[string]*topic // by the name of the retry topic
	names   map[string]*topic // by the name of the base topic
	redials redials           // of brokers that refuse connections
	sizes   *sizes            // how large a record the retry and dead-letter topics take
	timed   bool              // somebody wants to know how long handlers take
	skew    time.Duration     // how wrong the clock is; the simulation's alone

	started atomic.Bool
	ready   chan struct{}
	done    chan struct{} // closed when Run has returned
	joined  atomic.Bool
	failure atomic.Pointer[error] // why Run is to end by itself
	end     context.CancelFunc    // ends the polling

	// Set by Run, the client by its own first hook, before anything else starts.
	cl            *kgo.Client
	client        atomic.Pointer[kgo.Client] // the same, for those who come from outside
	base          context.Context            // values of Run's context; never ends
	clientContext context.Context            // kgo's own, to tell a record's context from it
	idle          bool                       // there was no topic to consume at the start

	gate       gate
	pauses     pauses
	waker      waker
	renewer    renewer
	relief     chan struct{} // 1-buffered: something ended at a partition that is at a bound
	commits    chan *commitRequest
	bytes      atomic.Int64 // of pending and held records, as of the last look
	mapLimit   atomic.Int64 // characters that the broker allows as a commit's metadata
	recordSize atomic.Int64 // of the largest records of late
	odd        atomic.Bool  // told is not empty
	told       []report     // what is to be told of once the gate is open; the gate's
	hashes     []uint64     // room for one batch's; the gate's
	copied     time.Time    // when what waits was last copied out of its batches; the poller's

	mu       sync.Mutex // guards parts, awaited, unread, outlived; taken after the gate, before a partition's lock
	parts    map[topicPartition]*partition
	fetched  map[topicPartition]fetchedOffset // between two hooks of one assignment
	awaited  map[topicPartition]struct{}      // assigned, and kgo has not told their commits yet
	unread   map[topicPartition]error         // assigned, but kgo does not read them: their commits could not be had
	outlived map[topicPartition]outlived      // what was given up without a clean mark
	assigned atomic.Pointer[[]*partition]     // parts, as a slice

	takenAway atomic.Uint64 // how often kgo has taken partitions away

	member atomic.Pointer[string] // that the partitions were assigned to; nil before the first session

	failMu      sync.Mutex
	failing     map[string]*ProduceError // topics whose writes are refused
	refusing    atomic.Bool              // there are such; changed with the lock held
	group       error                    // why the group could not be joined, nil mostly
	badLogged   time.Time
	batchLogged time.Time
	cutLogged   time.Time

	count []counts // by worker, so that they do not share a cache line
	total totals
}

// New checks all options together and returns a Consumer that Run will run. It touches no network. What is wrong is reported all at
// once: the error joins one that wraps [ErrInvalidOption] for each option that is wrong, with its name and value.
func New(group string, opts ...Option) (*Consumer, error) {
	cfg := defaultConfig(group)
	for _, o := range opts {
		if o == nil {
			cfg.nilOptions++
			continue
		}
		o.consumer(cfg)
	}
	set, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	c := &Consumer{
		set: set, log: cfg.logger, pool: cfg.pool(),
		joiner: wire.NewJoiner(cfg.chunks), retries: map[string]*topic{}, names: map[string]*topic{}, sizes: newSizes(set.client),
		ready: make(chan struct{}), done: make(chan struct{}), gate: newGate(), relief: make(chan struct{}, 1), commits: make(chan *commitRequest),
		parts: map[topicPartition]*partition{}, failing: map[string]*ProduceError{}, unread: map[topicPartition]error{}, awaited: map[topicPartition]struct{}{}, outlived: map[topicPartition]outlived{},
		count: make([]counts, 4*cfg.concurrency),
	}
	c.joinDue.Store(maxDue)
	c.mapLimit.Store(watermark.MaxMetadata)
	c.assigned.Store(new([]*partition))
	c.waker.kick = make(chan struct{}, 1)
	c.renewer.kick = make(chan struct{}, 1)
	c.recordSize.Store(unknownSize) // with care, until there are some
	for _, h := range cfg.hooks {
		c.hook.add(h)
		if s, ok := h.(clock.Skewed); ok {
			c.skew = time.Duration(s.Skew())
		}
	}
	c.timed = len(c.hook.handled) > 0
	for _, t := range set.topics {
		if t.scheduled > 0 && t.retry == "" {
			c.log.Warn("retriable: Scheduled without a RetryTopic: what waits holds its partition's committed offset until it is due", "topic", t.name, "limit", t.scheduled)
		}
		if t.re == nil {
			c.names[t.name] = t
		}
		for _, name := range t.retries() {
			c.retries[name] = t
		}
	}
	return c, nil
}

// route says whose topic it is: retry topics and exact names first, then the patterns in their order.
func (c *Consumer) route(name string) (t *topic, retry bool) {
	if t := c.retries[name]; t != nil {
		return t, true
	}
	if t := c.names[name]; t != nil {
		return t, false
	}
	for _, t := range c.set.topics {
		if t.re != nil && t.re.MatchString(name) {
			return t, false
		}
	}
	return nil, false
}

// Ready is closed once the member has joined its group and consumes what it was given, be it nothing.
func (c *Consumer) Ready() <-chan struct{} { return c.ready }

// Done is closed once Run has returned, however it did. A process that goes on after that consumes nothing.
func (c *Consumer) Done() <-chan struct{} { return c.done }

// Client returns the kgo client, for requests and produces of your own; nil before Run has started. Do not close it, and leave its group
// and offsets alone.
func (c *Consumer) Client() *kgo.Client { return c.client.Load() }

var errRunTwice = errors.New("retriable: Run may be called only once")

// Run joins the group and consumes until ctx is done. Then it drains: nothing starts any more, running handlers have DrainTimeout to
// end; what is finished is committed, and the member leaves its group. It returns nil for such a clean stop. Otherwise the error joins
// what went wrong: an [AbandonedError] if a record had to be given up unresolved, a [CommitError] for a last commit that failed, what
// a handler passed to [Abort], or, at the start, a [BrokerError] if nothing answered within 30 s, a [TopicError] for each topic that
// is missing or does not fit and a [GroupError] for a group that does not. It may be called once.
func (c *Consumer) Run(ctx context.Context) error {
	if !c.started.CompareAndSwap(false, true) {
		return errRunTwice
	}
	defer close(c.done)
	err := c.preflight(ctx)
	if ctx.Err() != nil {
		return nil // a stop before the start is a clean one
	}
	if err != nil {
		return err
	}
	c.base = context.WithoutCancel(ctx)
	own, cut := context.WithCancel(c.base)
	defer cut()
	polling, end := context.WithCancel(ctx)
	c.end = end
	defer end()
	if _, err = kgo.NewClient(append(c.clientOptions(), kgo.WithContext(own))...); err != nil {
		return fmt.Errorf("retriable: making the client: %w", err)
	}
	c.client.Store(c.cl) // for others: until now kgo was still at work on it
	if c.failure.Load() != nil {
		end()
	}
	if c.idle {
		c.markJoined()
	}
	background, stop := context.WithCancel(c.base)
	defer stop()
	var wg sync.WaitGroup
	for _, f := range []func(context.Context){c.delay, c.relieveLoop, c.watch, c.commitLoop, c.renew} {
		wg.Go(func() { f(background) })
	}
	c.pool.start()
	c.poll(polling)
	err = c.shutdown()
	c.leave(cut)
	stop()
	wg.Wait()
	if left := c.pool.stop(c); left > 0 {
		c.log.Error("retriable: handlers ignore their context and still run", "handlers", left)
	}
	if f := c.failure.Load(); f != nil {
		err = errors.Join(*f, err)
	}
	return err
}

// now is this consumer's clock, by which due times are written and judged.
func (c *Consumer) now() time.Time { return time.Now().Add(c.skew) }

// abort has Run drain and return err.
func (c *Consumer) abort(err error) {
	if c.failure.CompareAndSwap(nil, &err) {
		c.end()
	}
}

// poll reads until ctx is done. It never waits for a handler.
func (c *Consumer) poll(ctx context.Context) {
	for ctx.Err() == nil {
		crowded := c.pollOnce(ctx)
		c.tell()
		if crowded || c.bytes.Load() >= c.set.maxPendingBytes {
			c.crowd(ctx)
		}
	}
}

// pollOnce hands over what one poll brings. It reports whether a partition came to a bound.
func (c *Consumer) pollOnce(ctx context.Context) (crowded bool) {
	ctx, cancel := c.gate.enter(ctx)
	defer c.gate.leave()
	defer cancel()
	fetches := c.cl.PollRecords(ctx, c.mayRead())
	if !fetches.Empty() {
		c.recordSize.Store(c.recordSize.Load() * 7 / 8)
	}
	now := c.now()
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		if f.Err != nil {
			c.fetchFailed(topicPartition{f.Topic, f.Partition}, f.Err)
			f.HighWatermark = -1 // kgo makes some of these up
		}
		p := c.partition(topicPartition{f.Topic, f.Partition})
		if p == nil || p.stage.Load() != live {
			return // taken away: whoever owns it now reads it
		}
		crowded = p.accept(f.Records, f.HighWatermark, now) || crowded
	})
	return crowded
}

// partition returns the live object of a partition, nil if it is not ours.
func (c *Consumer) partition(name topicPartition) *partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.parts[name]
}

// partitions returns all that are assigned, in no order.
func (c *Consumer) partitions() []*partition { return *c.assigned.Load() }

// setParts changes parts under its lock.
func (c *Consumer) setParts(change func(map[topicPartition]*partition)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c.parts)
	all := make([]*partition, 0, len(c.parts))
	for _, p := range c.parts {
		all = append(all, p)
	}
	c.assigned.Store(&all)
}

// fetchFailed keeps what a partition cannot be read for; kgo retries what can be retried by itself.
func (c *Consumer) fetchFailed(name topicPartition, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed) {
		return
	}
	var session *kgo.ErrGroupSession
	if errors.As(err, &session) {
		return // told by its own hook
	}
	p := c.partition(name)
	if p == nil {
		return
	}
	var loss *kgo.ErrDataLoss
	if errors.As(err, &loss) {
		c.log.Warn("retriable: kgo reports data loss; records that are new are told by their leader epoch", "error", err)
		return
	}
	first := p.stall(err)
	if first {
		c.log.Error("retriable: a partition cannot be read on", "error", p.fetchError())
	}
	// Unless it is paused kgo asks again at once, for as long as that lasts.
	if errors.Is(err, kerr.UnknownTopicID) {
		c.cl.PauseFetchTopics(name.topic)
		c.renewer.add(name.topic, &c.renewer.consumed)
		return
	}
	c.setPaused([]*partition{p}, pausedStalled, true)
	c.renewer.wake()
}

// guard runs a hook; its panic is logged and otherwise ignored.
func (c *Consumer) guard(f func()) {
	defer func() {
		if v := recover(); v != nil {
			c.log.Error("retriable: a hook panicked", "panic", fmt.Sprintf("%T", v))
		}
	}()
	f()
}

// call runs all hooks of a kind.
func call[T any](c *Consumer, hooks []T, f func(T)) {
	for _, h := range hooks {
		c.guard(func() { f(h) })
	}
}
