// Package kfake_test tells the library's stories against an in-process broker, a file a story, in fake time: everything happens in a
// testing/synctest bubble over kfake's virtual network, so that an hour's wait takes milliseconds, and a goroutine left behind fails the
// test.
package kfake_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

// bed is a broker in a bubble, the users' own kit, with what only our stories ask for: records on a partition of their choice, and consumers
// without any hook or middleware of the kit's.
type bed struct {
	*testing.T
	net     *retriabletest.Kafka
	cluster *kfake.Cluster
	cl      *kgo.Client // for producing and looking
	log     *logs
}

// topics is name:partitions, as "orders:3".
func bubble(t *testing.T, topics string, story func(b *bed), opts ...kfake.Opt) {
	t.Helper()
	t.Parallel() // the clock of each bubble is its own
	opts = append([]kfake.Opt{kfake.BrokerConfigs(map[string]string{"group.consumer.heartbeat.interval.ms": "500"})}, opts...)
	for topic := range strings.FieldsSeq(topics) {
		name, n, _ := strings.Cut(topic, ":")
		partitions, _ := strconv.Atoi(n)
		opts = append(opts, kfake.SeedTopics(int32(max(partitions, 1)), name))
	}
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		b := &bed{T: t, net: k, cluster: k.Cluster, log: &logs{}}
		k.Members = []retriable.Option{
			retriable.Kafka(kgo.HeartbeatInterval(200*time.Millisecond), kgo.SessionTimeout(6*time.Second)),
			retriable.Logger(slog.New(slog.NewTextHandler(io.MultiWriter(b.log, writer{t}), &slog.HandlerOptions{Level: slog.LevelInfo}))),
		}
		var err error
		b.cl, err = kgo.NewClient(append(b.dial(), kgo.SeedBrokers("127.0.0.1:9092"), kgo.RecordPartitioner(byHand{}))...)
		if err != nil {
			t.Fatal(err)
		}
		defer b.cl.Close()
		story(b)
	}, opts...)
}

// byHand places records where their Partition says, or by key if that is -1.
type byHand struct{}

func (byHand) ForTopic(topic string) kgo.TopicPartitioner {
	return handPartitioner{kgo.StickyKeyPartitioner(nil).ForTopic(topic)}
}

type handPartitioner struct{ rest kgo.TopicPartitioner }

func (handPartitioner) RequiresConsistency(*kgo.Record) bool { return true }
func (p handPartitioner) Partition(r *kgo.Record, n int) int {
	if r.Partition >= 0 {
		return int(r.Partition)
	}
	return p.rest.Partition(r, n)
}

func (b *bed) dial() []kgo.Opt { return []kgo.Opt{kgo.Dialer(b.net.DialContext)} }

// options are what every consumer of the bed needs.
func (b *bed) options(opts ...retriable.Option) []retriable.Option {
	return append(b.net.Options(), opts...)
}

// running is a consumer whose Run is under way.
type running struct {
	*retriable.Consumer
	b    *bed
	stop context.CancelFunc
	done chan struct{}
	err  error
}

// start runs a consumer and waits until it is ready. It is stopped, cleanly or the test fails, when the story ends.
func (b *bed) start(group string, opts ...retriable.Option) *running {
	b.Helper()
	r := b.launch(group, opts...)
	select {
	case <-r.Ready():
	case <-r.done:
		b.Fatalf("Run ended before it was ready: %v", r.err)
	}
	return r
}

// launch is start without the wait.
func (b *bed) launch(group string, opts ...retriable.Option) *running {
	b.Helper()
	c, err := retriable.New(group, b.options(opts...)...)
	if err != nil {
		b.Fatal(err)
	}
	return b.run(c)
}

// run is launch for a consumer that was made before.
func (b *bed) run(c *retriable.Consumer) *running {
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Consumer: c, b: b, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = c.Run(ctx)
	}()
	return r
}

// end stops a consumer and returns what Run returned.
func (r *running) end() error {
	r.stop()
	<-r.done
	return r.err
}

// clean stops a consumer that must stop cleanly.
func (r *running) clean() {
	r.b.Helper()
	if err := r.end(); err != nil {
		r.b.Fatalf("Run: %v", err)
	}
}

// produce writes records key=value, or value alone, to a topic's partition (-1: by key).
func (b *bed) produce(topic string, partition int32, values ...string) {
	b.Helper()
	var rs []*kgo.Record
	for _, v := range values {
		r := &kgo.Record{Topic: topic, Partition: partition}
		if key, value, ok := strings.Cut(v, "="); ok {
			r.Key, v = []byte(key), value
		}
		r.Value = []byte(v)
		rs = append(rs, r)
	}
	b.send(rs...)
}

func (b *bed) send(rs ...*kgo.Record) {
	b.Helper()
	if err := b.cl.ProduceSync(b.Context(), rs...).FirstErr(); err != nil {
		b.Fatal(err)
	}
}

// seq is n values from "0" up.
func seq(n int) []string {
	vs := make([]string, n)
	for i := range vs {
		vs[i] = strconv.Itoa(i)
	}
	return vs
}

// read returns all records of a topic, by partition and offset.
func (b *bed) read(topic string) []*kgo.Record { return b.net.Records(topic) }

// committed returns a partition's committed offset, -1 for none.
func (b *bed) committed(group, topic string, partition int32) int64 {
	return b.net.Committed(group, topic, partition)
}

// ledger notes deliveries.
type ledger struct {
	mu sync.Mutex
	ds []delivery
}

type delivery struct {
	value   string
	attempt int
	at      time.Time
	source  retriable.Position
}

func (l *ledger) note(m *retriable.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ds = append(l.ds, delivery{string(m.Value), m.Attempt, time.Now(), m.Source})
}

func (l *ledger) all() []delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ds)
}

func (l *ledger) values() (vs []string) {
	for _, d := range l.all() {
		vs = append(vs, d.value)
	}
	return vs
}

// of returns the deliveries of one value.
func (l *ledger) of(value string) (ds []delivery) {
	for _, d := range l.all() {
		if d.value == value {
			ds = append(ds, d)
		}
	}
	return ds
}

// once fails unless exactly n different values were delivered once each.
func (l *ledger) once(t *testing.T, n int) {
	t.Helper()
	seen := map[string]int{}
	for _, v := range l.values() {
		seen[v]++
	}
	for v, k := range seen {
		if k != 1 {
			t.Errorf("%s was delivered %d times", v, k)
		}
	}
	if len(seen) != n {
		t.Errorf("%d values were delivered, want %d", len(seen), n)
	}
}

// logs keeps what was logged.
type logs struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type writer struct{ *testing.T }

func (w writer) Write(p []byte) (int, error) {
	w.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// wantEqual fails unless two values print alike.
func wantEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}
