package retriable

import (
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// Option configures a Consumer. Options only record what they are given; [New] checks them together. Where one is
// given twice the later wins, unless it says that it adds up.
type Option interface{ consumer(*config) }

// ProducerOption configures a Producer.
type ProducerOption interface{ producer(*clientConfig) }

// ClientOption configures the connection to Kafka, of a Consumer and of a Producer alike.
type ClientOption interface {
	Option
	ProducerOption
}

// clientConfig is what a Consumer and a Producer have in common.
type clientConfig struct {
	brokers []string
	kafka   []kgo.Opt
	logger  *slog.Logger
}

// config is what the options of one Consumer say.
type config struct {
	clientConfig
	group           string
	topics          []*topicConfig
	defaults        topicConfig
	concurrency     int
	concurrent      bool // it was given
	workers         *Workers
	shared          bool
	maxPending      int
	maxHeld         int
	maxPendingBytes int64
	maxWindow       int64
	drainTimeout    time.Duration
	commitInterval  time.Duration
	stuckAfter      time.Duration
	maxCrashes      int
	chunks          wire.Limits
	create          *createTopics
	middleware      []Middleware
	hooks           []Hook
	nilOptions      int
}

type createTopics struct {
	partitions int32
	replicas   int16
}

func defaultConfig(group string) *config {
	return &config{
		group:           group,
		concurrency:     16,
		maxPending:      10_000,
		maxHeld:         100_000,
		maxPendingBytes: 256 << 20,
		maxWindow:       1 << 20,
		drainTimeout:    30 * time.Second,
		commitInterval:  time.Second,
		stuckAfter:      time.Minute,
		maxCrashes:      3,
		chunks:          wire.DefaultLimits(),
	}
}

type option func(*config)

func (o option) consumer(c *config) { o(c) }

type clientOption func(*clientConfig)

func (o clientOption) consumer(c *config)       { o(&c.clientConfig) }
func (o clientOption) producer(c *clientConfig) { o(c) }

// Options makes one option of several, for whoever hands out what belongs together, as plugins do. They are applied in their order.
func Options(opts ...Option) Option {
	return option(func(c *config) {
		for _, o := range opts {
			if o == nil {
				c.nilOptions++
				continue
			}
			o.consumer(c)
		}
	})
}

// Brokers names the brokers to begin with, as host or host:port (9092); the others are learned from them. It adds up.
// One of them must be given, here or as kgo.SeedBrokers in [Kafka].
func Brokers(seeds ...string) ClientOption {
	return clientOption(func(c *clientConfig) { c.brokers = append(c.brokers, seeds...) })
}

// Kafka passes options to the kgo client: TLS, SASL, dialer, hooks, balancers, client id, instance id, fetch sizes and the
// like. It adds up. What the library must own to keep its promises is refused by New, by name: the group, topics and
// partitions, offsets and commits, the group's callbacks, acks and idempotence, transactions, the partitioner and record pools.
//
// The library's own defaults below yours: ReadCommitted isolation, FetchMaxWait 500 ms, FetchMaxBytes 6 MiB (raise it where brokers are
// far away and are to bring more than that in a round trip), MetadataMinAge 250 ms, MaxDecompressBatchBytes 64 MiB. KIP-848 groups are had with kgo.ServerSideBalancer.
func Kafka(opts ...kgo.Opt) ClientOption {
	return clientOption(func(c *clientConfig) { c.kafka = append(c.kafka, opts...) })
}

// Logger sets where the library logs. The default is slog.Default. It is quiet: warnings and errors are few and each
// names what to do; what happens to single records is told at debug level. Keys, values, header values, passwords and the text
// of handlers' errors are never logged; records are named by topic/partition/offset.
func Logger(l *slog.Logger) ClientOption {
	return clientOption(func(c *clientConfig) { c.logger = l })
}

// Defaults sets topic options for every topic that does not say otherwise itself. It adds up. Defaults that need a retry topic
// do nothing for a topic that has none, and a topic's own NoDeadLetters or DeadLetterTopic beats the default's other.
func Defaults(opts ...TopicOption) Option {
	return option(func(c *config) { c.defaults.apply(opts) })
}

// Concurrency bounds how many handlers run at once, over all topics. The default is 16. Raise it when handlers wait for the
// network; the order by key holds whatever it is. Of several partitions no one ever occupies more than three quarters of it.
// Handlers that have run for longer than StuckAfter count toward at most three quarters of it: for those beyond, workers are added (at
// most 3n), so that a quarter stays with the partitions that are not stuck (I11).
func Concurrency(n int) Option {
	return option(func(c *config) { c.concurrency, c.concurrent = n, true })
}

// MaxPending bounds the records per partition that are read, not yet resolved and not held. The default is 10,000. At the
// bound the partition is paused, at half of it resumed. Lower it when records are large; raise it when many keys wait behind slow ones.
func MaxPending(records int) Option { return option(func(c *config) { c.maxPending = records }) }

// MaxHeld bounds the records per partition that are held in memory until they are due. The default is 100,000. Beyond it the
// partition is paused until half of them have come due: what lies further back in the log is then seen later than its due time.
func MaxHeld(records int) Option { return option(func(c *config) { c.maxHeld = records }) }

// MaxPendingBytes bounds the memory of pending and held records together, over all partitions. The default is 256 MiB. At the
// bound the partitions above their fair share of it wait; the others may still take theirs, so that where few partitions had filled
// it alone it can be exceeded, at most twofold. A
// fetched batch counts whole until its last record is resolved or copied out, and every record 400 bytes beside.
// What kgo has fetched but not handed over comes on top (kgo.FetchMaxBytes).
func MaxPendingBytes(n int64) Option { return option(func(c *config) { c.maxPendingBytes = n }) }

// MaxWindow bounds, per partition, how far reading may be ahead of the watermark, in offsets. The default is 1<<20. It is
// what one record that never ends can make a restart read again.
func MaxWindow(offsets int64) Option { return option(func(c *config) { c.maxWindow = offsets }) }

// DrainTimeout is how long a revoke or a stop waits for running handlers before it cancels their contexts. The default is
// 30 s. In a revoke it is also bounded by what kgo.RebalanceTimeout (60 s) leaves; New refuses what leaves less than a second.
func DrainTimeout(d time.Duration) Option { return option(func(c *config) { c.drainTimeout = d }) }

// CommitInterval is the time between commits of what is finished. The default is 1 s. A crash delivers again what finished since.
func CommitInterval(d time.Duration) Option {
	return option(func(c *config) { c.commitInterval = d })
}

// StuckAfter is how long a watermark may stand still, with records waiting, before HookStuck, the log and Health say so, and after
// which a running handler counts as stuck. The default is 1 min.
func StuckAfter(d time.Duration) Option { return option(func(c *config) { c.stuckAfter = d }) }

// MaxCrashes bounds how often a record may end its process (memory, os.Exit, a fault in C code) before it is dead-lettered, or dropped where
// there are no dead letters, with a [CrashError]. The default is 3; 0 turns it off. What counts is a partition that is taken over
// again and again, without its owner before having given it up in order, and without its committed offset having moved. From the second such
// takeover on all partitions that were not given up in order run one record at a time, and each is noted by a commit before; the one that is
// noted when the count is full is the cause. So with less than 3 it still takes a second takeover. Before that it costs a note in the commit that is made
// with an assignment, and nothing for a record.
//
// It cannot tell a record that ends its process from one that was running whenever something else did: three kills during one slow
// record, each within StuckAfter of its start, are taken for it. And it does not find what ends the process before a handler is called,
// as the decoding of a batch.
func MaxCrashes(n int) Option { return option(func(c *config) { c.maxCrashes = n }) }

// MaxChunks bounds the chunks of one message. The default is 1,024. What claims to have more is not joined: its chunks go to the
// dead-letter topic one by one.
func MaxChunks(n int) Option { return option(func(c *config) { c.chunks.MaxChunks = n }) }

// MaxMessageBytes bounds the value of a message that is joined from chunks. The default is 64 MiB. The chunks of a larger one go to
// the dead-letter topic one by one.
func MaxMessageBytes(n int) Option { return option(func(c *config) { c.chunks.MaxMessageBytes = n }) }

// MaxJoining bounds how many messages may be incomplete at once, over all partitions. The default is 64. The chunks of one more go
// to the dead-letter topic one by one. Raise it where more producers than that write messages in chunks at once.
func MaxJoining(messages int) Option {
	return option(func(c *config) { c.chunks.MaxGroups = messages })
}

// MaxJoiningBytes bounds the memory of the chunks of incomplete messages, over all partitions, beside MaxPendingBytes. The default is
// 256 MiB. A message for whose chunk none is left goes to the dead-letter topic, chunk by chunk.
func MaxJoiningBytes(n int64) Option { return option(func(c *config) { c.chunks.MaxBytes = n }) }

// JoinTimeout is how long after its first chunk was read a message may be incomplete. The default is 15 min. What came of it then goes to
// the dead-letter topic, chunk by chunk; until then its first chunk holds the partition's committed offset. Raise it if producers
// may take longer between two chunks.
func JoinTimeout(d time.Duration) Option { return option(func(c *config) { c.chunks.Deadline = d }) }

// CreateTopics has Run create the retry and dead-letter topics that are missing, with so many partitions and replicas
// (-1: the broker's default). Retry topics keep records a week longer than the longest wait, dead-letter topics for ever,
// both take records as large as their base topic's. Without it a missing topic fails Run at its start.
func CreateTopics(partitions int32, replicas int16) Option {
	return option(func(c *config) { c.create = &createTopics{partitions, replicas} })
}

// Use wraps the handlers of all topics; the first middleware is the outermost. It adds up.
func Use(mw ...Middleware) Option {
	return option(func(c *config) { c.middleware = append(c.middleware, mw...) })
}

// Hooks adds hooks, each of them implementing one or more of the Hook interfaces. It adds up.
func Hooks(h ...Hook) Option { return option(func(c *config) { c.hooks = append(c.hooks, h...) }) }
