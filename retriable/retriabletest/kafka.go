package retriabletest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// Kafka is a broker in a bubble, and what was started on it. Its methods are for the test's own goroutine, and fail the test where
// something goes wrong.
type Kafka struct {
	// Cluster is the broker itself, for what the kit has no word for: topics with settings, leaders that move, requests that it
	// controls.
	Cluster *kfake.Cluster

	// Client is a client for producing and looking, which sees the broker's faults like any other.
	Client *kgo.Client

	// Members is what every consumer is started with, below its own options: KIP-848 groups, which a bubble's time always gets
	// through, and retry and dead-letter topics made where they are missing. Replace it before the first Start for consumers that are to
	// be told everything by the test.
	Members []retriable.Option

	// Patience is how long Await waits before it fails the test, in the bubble's time. The default is a day.
	Patience time.Duration

	t       *testing.T
	network kfake.VirtualNetwork
	addrs   []string
	members []*Member

	mu      sync.Mutex
	groups  map[string]*tally
	changed chan struct{} // closed, and made anew, with everything that happens
}

// Run runs a test in a bubble with a broker. The function is handed the bubble's own *testing.T, which it must use instead of the outer
// one. When it returns, consumers that still run are stopped, which fails the test if they do not stop cleanly. The options are kfake's,
// after the kit's own: one broker, on port 9092.
func Run(t *testing.T, test func(t *testing.T, k *Kafka), opts ...kfake.Opt) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := &Kafka{
			Members: []retriable.Option{
				retriable.Kafka(kgo.ServerSideBalancer(), kgo.FetchMaxWait(5*time.Second)),
				retriable.CreateTopics(1, 1),
			},
			Patience: 24 * time.Hour,
			t:        t, groups: map[string]*tally{}, changed: make(chan struct{}),
		}
		var err error
		k.Cluster, err = kfake.NewCluster(append([]kfake.Opt{
			kfake.Ports(9092), kfake.NumBrokers(1), kfake.ListenFn(k.network.Listen),
			kfake.GroupMinSessionTimeout(time.Second),
			kfake.BrokerConfigs(map[string]string{
				"group.consumer.heartbeat.interval.ms": "2000",
				"group.consumer.session.timeout.ms":    "10000",
			}),
		}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Cluster.Close()
		k.addrs = k.Cluster.ListenAddrs()
		k.Client, err = kgo.NewClient(append(k.ClientOptions(), kgo.MetadataMinAge(50*time.Millisecond))...)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Client.Close()
		defer k.end()
		test(t, k)
	})
}

// end stops what still runs, and waits for what crashed.
func (k *Kafka) end() {
	for _, m := range k.members {
		m.finish()
	}
}

// ClientOptions are what a kgo client of your own needs to reach the broker.
func (k *Kafka) ClientOptions() []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(k.addrs...), kgo.Dialer(k.DialContext)}
}

// Options are what a consumer needs to reach the broker that the test, or the code under test, makes and runs itself. Start brings them
// along. Of such a consumer Await knows nothing; it must be stopped before the test ends.
func (k *Kafka) Options() []retriable.Option {
	return append(k.reach(k.DialContext, k.logger(k.t.Context(), "")), k.Members...)
}

// reach is how a consumer finds the broker.
func (k *Kafka) reach(dial dialer, log *slog.Logger) []retriable.Option {
	return []retriable.Option{retriable.Brokers(k.addrs...), retriable.Kafka(kgo.Dialer(dial)), retriable.Logger(log)}
}

// DialContext opens a connection to the broker: for dialers of your own, which break connections, say.
func (k *Kafka) DialContext(ctx context.Context, network, host string) (net.Conn, error) {
	return k.network.DialContext(ctx, network, host)
}

// logger logs to the test, until over is done.
func (k *Kafka) logger(over context.Context, name string) *slog.Logger {
	return slog.New(slog.NewTextHandler(writer{k.t, name, over}, nil))
}

type writer struct {
	t    *testing.T
	name string
	over context.Context //nolint:containedctx // a consumer that crashed is not heard any more
}

func (w writer) Write(p []byte) (int, error) {
	if w.over.Err() == nil {
		w.t.Logf("%s%s", w.name, bytes.TrimRight(p, "\n"))
	}
	return len(p), nil
}

// Topic makes a topic.
func (k *Kafka) Topic(name string, partitions int32) {
	k.t.Helper()
	if err := k.Cluster.CreateTopic(name, partitions, nil); err != nil {
		k.t.Fatalf("making topic %s: %v", name, err)
	}
}

// Produce writes records of one key, "" for none, and returns once the broker has them.
func (k *Kafka) Produce(topic, key string, values ...string) {
	k.t.Helper()
	rs := make([]*kgo.Record, 0, len(values))
	for _, v := range values {
		r := kgo.KeyStringRecord(key, v)
		if key == "" {
			r.Key = nil
		}
		r.Topic = topic
		rs = append(rs, r)
	}
	k.ProduceRecords(rs...)
}

// ProduceRecords writes records as they are, each on the partition of its key, and returns once the broker has them.
func (k *Kafka) ProduceRecords(rs ...*kgo.Record) {
	k.t.Helper()
	if err := k.Client.ProduceSync(k.t.Context(), rs...).FirstErr(); err != nil {
		k.t.Fatalf("producing: %v", err)
	}
}

// Records returns what is in a topic, by partition and offset.
func (k *Kafka) Records(topic string) []*kgo.Record {
	k.t.Helper()
	ends := map[int32]int64{} // what is still to be read
	for _, p := range k.Cluster.PartitionInfos(topic) {
		if p.HighWatermark > p.LogStartOffset {
			ends[p.Partition] = p.HighWatermark
		}
	}
	cl, err := kgo.NewClient(append(k.ClientOptions(), kgo.ConsumeTopics(topic), kgo.FetchMaxWait(50*time.Millisecond), kgo.KeepControlRecords())...)
	if err != nil {
		k.t.Fatal(err)
	}
	defer cl.Close()
	ctx, stop := context.WithTimeout(k.t.Context(), time.Minute)
	defer stop()
	var rs []*kgo.Record
	for len(ends) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			k.t.Fatalf("reading %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				rs = append(rs, r)
			}
			if r.Offset+1 >= ends[r.Partition] {
				delete(ends, r.Partition)
			}
		})
	}
	slices.SortFunc(rs, func(a, b *kgo.Record) int {
		if a.Partition != b.Partition {
			return int(a.Partition - b.Partition)
		}
		return int(a.Offset - b.Offset)
	})
	return rs
}

// DeadLetter is a record that was given up, as it was first produced, and why.
type DeadLetter struct {
	*kgo.Record                    // as it lies in the dead-letter topic
	Origin      retriable.Position // where it was first produced; -1 for what is not known
	Group       string             // who gave it up
	Attempts    int                // how many were made
	Reason      string             // why it was given up
	LastError   string             // why the last attempt failed
}

// DeadLetters returns what is in a dead-letter topic, by partition and offset.
func (k *Kafka) DeadLetters(topic string) []DeadLetter {
	k.t.Helper()
	var letters []DeadLetter
	for _, r := range k.Records(topic) {
		d := wire.ParseDeadLetter(r.Headers)
		letters = append(letters, DeadLetter{
			Record: r, Origin: retriable.Position{Topic: d.Topic, Partition: d.Partition, Offset: d.Offset},
			Group: d.Group, Attempts: d.Deliveries, Reason: d.Message, LastError: d.Error,
		})
	}
	return letters
}

// Committed returns the offset that a group has committed for a partition, below which everything is resolved; -1 if there is none.
func (k *Kafka) Committed(group, topic string, partition int32) int64 {
	if info := k.Cluster.GroupInfo(group); info != nil {
		if c, ok := info.Commits[topic][partition]; ok {
			return c.Offset
		}
	}
	return -1
}

// Fault has the broker refuse requests, until it has refused as many as it says or is removed. A retry topic that takes no writes, say:
//
//	fault := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.NotEnoughReplicas, Count: -1})
//	// … the records stay pending, and Health of the consumer says why …
//	fault.Remove()
func (k *Kafka) Fault(f kfake.Fault) *kfake.FaultHandle { return k.Cluster.Fault(f) }

// happened tells those who wait that something has changed.
func (k *Kafka) happened(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
	close(k.changed)
	k.changed = make(chan struct{})
}

// tally is what a group has done so far.
type tally struct {
	handled, failed, retried, deadLettered, dropped int
	topics                                          map[string]bool // that its members were given partitions of
}

func (t *tally) copy() tally {
	if t == nil {
		return tally{}
	}
	c := *t
	c.topics = maps.Clone(t.topics)
	return c
}

func (t *tally) String() string {
	return fmt.Sprintf("handled %d, failed %d, retried %d, dead-lettered %d, dropped %d", t.handled, t.failed, t.retried, t.deadLettered, t.dropped)
}
