package retriable

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// clientOptions puts the library's defaults below the user's options and what it owns above.
func (c *Consumer) clientOptions() []kgo.Opt {
	opts := c.set.connection(
		kgo.RecordRetries(5),     // what is refused comes back to us: we tell of it, and try again (I9)
		kgo.AlwaysRetryEOF(),     // a broker that hangs up at once is one that ends: one that wants TLS has failed the preflight (I5)
		kgo.FetchMaxBytes(6<<20), // what more a fetch brings is out of the processors' caches before it is handled
	)
	opts = append(opts,
		kgo.ProducerBatchMaxBytesFn(c.sizes.batchBytes),
		kgo.ConsumerGroup(c.set.group),
		kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.OnPartitionsAssigned(c.onAssigned),
		kgo.OnPartitionsRevoked(c.onRevoked),
		kgo.OnPartitionsLost(c.onLost),
		kgo.OnOffsetsFetched(c.onFetched),
		kgo.AdjustFetchOffsetsFn(c.onOffsets),
		kgo.RecordPartitioner(newCopyPartitioner(c.set.topics)),
		kgo.WithHooks(clientHooks{c}),
	)
	if slices.ContainsFunc(c.set.topics, func(t *topic) bool { return t.recycle }) {
		opts = append(opts, kgo.WithPools(new(slabs)))
	}
	return append(opts, c.subscription()...)
}

// connection is what every client of the library needs, with further defaults, below the user's own options.
func (c *clientConfig) connection(more ...kgo.Opt) []kgo.Opt {
	opts := append([]kgo.Opt{
		kgo.FetchMaxWait(500 * time.Millisecond),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.MaxDecompressBatchBytes(64 << 20),
		kgo.ProducerLinger(0), // a copy is not worth waiting for company; under load it has some
	}, more...)
	if len(c.brokers) > 0 {
		opts = append(opts, kgo.SeedBrokers(c.brokers...))
	}
	return append(opts, c.kafka...)
}

// identify loads the producer id that idempotent writes carry, before there is anything to write. kgo would load it with the first write, and hold a lock over
// that request, which other brokers' writes wait for: in a bubble of testing/synctest no time passes then, so that a request that needs some, because a
// broker is away, never ends. Without an answer the writes ask for it themselves, and tell what is wrong.
func identify(ctx context.Context, cl *kgo.Client, log *slog.Logger) {
	timed, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	for {
		_, _, err := cl.ProducerID(timed)
		var refused *kerr.Error
		if err == nil || errors.As(err, &refused) && !refused.Retriable {
			return
		}
		select {
		case <-timed.Done():
			log.Debug("retriable: no producer id yet; the first write asks for it again", "error", err)
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// patterns reports whether one of the topics is a pattern.
func (c *Consumer) patterns() bool {
	return slices.ContainsFunc(c.set.topics, func(t *topic) bool { return t.re != nil })
}

// subscription names the topics; with a pattern among them all are patterns, anchored.
func (c *Consumer) subscription() []kgo.Opt {
	var names, dead []string
	regex := c.patterns()
	literal := func(name string) string {
		if regex {
			return "^" + regexp.QuoteMeta(name) + "$"
		}
		return name
	}
	for _, t := range c.set.topics {
		if t.re != nil {
			names = append(names, t.re.String())
		} else {
			names = append(names, literal(t.name))
		}
		for _, name := range t.retries() {
			names = append(names, literal(name))
		}
		if t.dead != "" {
			dead = append(dead, literal(t.dead))
		}
	}
	opts := []kgo.Opt{kgo.ConsumeTopics(names...)}
	if regex {
		opts = append(opts, kgo.ConsumeRegex(), kgo.ConsumeExcludeTopics(dead...))
	}
	return opts
}

// leaveWithin bounds the leaving of the group: a join that is parked at the broker, because another member drains, would hold it for the
// rebalance timeout. All that matters is committed by then.
const leaveWithin = 5 * time.Second

// leave closes the client, which leaves the group.
func (c *Consumer) leave(cut context.CancelFunc) {
	member, _ := c.cl.GroupMetadata()
	late := time.AfterFunc(leaveWithin, cut)
	defer late.Stop()
	c.cl.Close()
	if c.set.client.serverSide && c.set.client.instance != "" && member != "" {
		c.leaveStatic(member)
	}
}

// leaveStatic says of a static member under KIP-848 that it will be back: kgo 1.22.2 leaves its instance id out, which the broker
// refuses, and then nobody may take its place until the session is over.
func (c *Consumer) leaveStatic(member string) {
	ctx, cancel := context.WithTimeout(c.base, leaveWithin)
	defer cancel()
	cl, err := kgo.NewClient(c.set.connection()...)
	if err != nil {
		return
	}
	defer cl.Close()
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Group, req.MemberID, req.MemberEpoch = c.set.group, member, -2
	req.InstanceID = &c.set.client.instance
	if _, err := req.RequestWith(ctx, cl); err != nil {
		c.log.Debug("retriable: leaving as a static member", "error", err)
	}
}
