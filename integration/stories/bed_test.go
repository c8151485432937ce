// Package stories_test tells the library's stories against a real Kafka, a file a story: what a broker of one's own process cannot show.
// Most share one broker; those that hurt it start their own.
package stories_test

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/retriable-kafka/retriable-go/integration/broker"
	"github.com/retriable-kafka/retriable-go/retriable"
)

func TestMain(m *testing.M) {
	if os.Getenv(serviceBrokers) != "" {
		service() // this process is not the tests' but one that they started
		return
	}
	if os.Getenv(replayerBrokers) != "" {
		replayer()
		return
	}
	if os.Getenv(workerSpec) != "" {
		work()
		return
	}
	if os.Getenv(starvedBrokers) != "" {
		starve()
		return
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil { // what is parallel here mostly waits, whatever the number of processors
		panic(err)
	}
	code := broker.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// bed is a test with a cluster.
type bed struct {
	*testing.T
	cluster *broker.Cluster
	cl      *kgo.Client // for producing and looking; on the plain listener
	adm     *kadm.Client
	log     *logs
	suffix  string
	limit   context.Context
}

// story is a test on the shared broker that leaves no goroutine behind. It has so long to end.
func story(t *testing.T, within time.Duration) *bed {
	t.Helper()
	return storyOn(t, broker.Shared(t), within)
}

// storyOn is a story on a given cluster.
func storyOn(t *testing.T, cluster *broker.Cluster, within time.Duration) *bed {
	t.Helper()
	leavesNothing(t)
	return newBed(t, cluster, within)
}

// leavesNothing fails a test that leaves a goroutine behind. Call it before whatever is to be stopped when the test ends.
func leavesNothing(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if !t.Failed() {
			goleak.VerifyNone(t, before)
		}
	})
}

// newBed is storyOn without the look for goroutines, for those that others run beside.
func newBed(t *testing.T, cluster *broker.Cluster, within time.Duration) *bed {
	t.Helper()
	b := &bed{T: t, cluster: cluster, log: &logs{}, suffix: "-" + strings.ToLower(rand.Text()[:8])}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the consumers' log:\n%s", b.log)
		}
	})
	// Not t.Context(), which ends before the cleanup that stops consumers.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(t.Context()), within, fmt.Errorf("the test's limit of %v is over", within))
	t.Cleanup(cancel)
	b.limit = ctx
	b.cl = b.client()
	b.adm = kadm.NewClient(b.cl)
	return b
}

// client makes a client on the plain listener, closed when the test ends. Records go where their Partition says, or by key where that is -1.
func (b *bed) client(opts ...kgo.Opt) *kgo.Client {
	b.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(b.cluster.Addrs()...), kgo.RecordPartitioner(byHand{}), kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.FetchMaxWait(100 * time.Millisecond), kgo.DisableClientMetrics(), kgo.AlwaysRetryEOF(),
	}, opts...)...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(cl.Close)
	return cl
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

var notInNames = regexp.MustCompile(`[^A-Za-z0-9.]+`)

// name makes a name of a topic or a group that no other test has.
func (b *bed) name(of string) string {
	return notInNames.ReplaceAllString(strings.TrimPrefix(b.Name(), "Test"), "-") + "." + of + b.suffix
}

// topic makes a topic and returns its name. Configs are key=value.
func (b *bed) topic(of string, partitions int32, configs ...string) string {
	b.Helper()
	name := b.name(of)
	b.create(name, partitions, configs...)
	return name
}

func (b *bed) create(name string, partitions int32, configs ...string) {
	b.Helper()
	m := map[string]*string{}
	for _, c := range configs {
		k, v, _ := strings.Cut(c, "=")
		m[k] = &v
	}
	if _, err := b.adm.CreateTopic(b.limit, partitions, -1, m, name); err != nil {
		b.Fatalf("making topic %s: %v", name, err)
	}
	b.await("topic "+name+" is there", 30*time.Second, func() bool { // brokers learn of it a moment later
		ts, err := b.adm.ListTopics(b.limit, name)
		return err == nil && ts[name].Err == nil && len(ts[name].Partitions) == int(partitions) &&
			!slices.ContainsFunc(ts[name].Partitions.Sorted(), func(p kadm.PartitionDetail) bool { return p.Err != nil || p.Leader < 0 })
	})
}

// options are what every consumer of a story has, under its own.
func (b *bed) options(opts ...retriable.Option) []retriable.Option {
	return append([]retriable.Option{
		retriable.Kafka(
			kgo.SeedBrokers(b.cluster.Addrs()...), kgo.HeartbeatInterval(200*time.Millisecond), kgo.SessionTimeout(6*time.Second),
			kgo.DisableClientMetrics(),
		),
		retriable.Logger(slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelInfo}))),
	}, opts...)
}

// running is a consumer whose Run is under way.
type running struct {
	*retriable.Consumer
	b    *bed
	stop context.CancelFunc
	done chan struct{}
	err  error // of Run, once done is closed
}

// start runs a consumer and waits until it is ready. If it still runs when the test ends it is stopped then.
func (b *bed) start(group string, opts ...retriable.Option) *running {
	b.Helper()
	r := b.launch(group, opts...)
	select {
	case <-r.Ready():
	case <-r.done:
		b.Fatalf("Run ended before it was ready: %v", r.err)
	case <-b.limit.Done():
		b.Fatalf("not ready: %v", context.Cause(b.limit))
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
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Consumer: c, b: b, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = c.Run(ctx)
	}()
	b.Cleanup(func() { _ = r.end() })
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
		r.b.Errorf("Run: %v, want nil", err)
	}
}

// health asks for the reasons why the consumer cannot do its work.
func (r *running) health() error {
	ctx, cancel := context.WithTimeout(r.b.limit, 5*time.Second)
	defer cancel()
	return r.Health(ctx)
}

// part returns the snapshot of one partition.
func (r *running) part(topic string, partition int32) (retriable.PartitionStats, bool) {
	ps := r.Stats().Partitions
	i := slices.IndexFunc(ps, func(p retriable.PartitionStats) bool { return p.Topic == topic && p.Partition == partition })
	if i < 0 {
		return retriable.PartitionStats{}, false
	}
	return ps[i], true
}

// await waits until something is so. If it is not within so long the test ends.
func (b *bed) await(what string, within time.Duration, so func() bool) {
	b.Helper()
	if !b.comesTrue(within, so) {
		b.Fatalf("not within %v: %s", within, what)
	}
}

func (b *bed) comesTrue(within time.Duration, so func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	over := time.NewTimer(within)
	defer over.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-over.C:
			return so()
		case <-b.limit.Done():
			return false
		}
	}
	return true
}

// pass lets time go by.
func (b *bed) pass(d time.Duration) {
	b.Helper()
	select {
	case <-time.After(d):
	case <-b.limit.Done():
		b.Fatal(context.Cause(b.limit))
	}
}

// produce writes records and waits until all are acked.
func (b *bed) produce(rs ...*kgo.Record) {
	b.Helper()
	if err := b.cl.ProduceSync(b.limit, rs...).FirstErr(); err != nil {
		b.Fatalf("producing: %v", err)
	}
}

// ends returns a topic's offsets beyond the last of each partition.
func (b *bed) ends(topic string) map[int32]int64 {
	b.Helper()
	return b.listed(topic, b.adm.ListEndOffsets)
}

func (b *bed) listed(topic string, list func(context.Context, ...string) (kadm.ListedOffsets, error)) map[int32]int64 {
	b.Helper()
	found, err := list(b.limit, topic)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		b.Fatalf("listing the offsets of %s: %v", topic, err)
	}
	m := map[int32]int64{}
	for p, o := range found[topic] {
		m[p] = o.Offset
	}
	return m
}

// read returns all records of a topic, by partition and offset: for topics without holes.
func (b *bed) read(topic string) (rs []*kgo.Record) {
	b.Helper()
	want := int64(0)
	from := map[int32]kgo.Offset{}
	starts := b.listed(topic, b.adm.ListStartOffsets)
	for p, end := range b.ends(topic) {
		want += end - starts[p]
		from[p] = kgo.NewOffset().At(starts[p])
	}
	cl := b.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	for int64(len(rs)) < want {
		fs := cl.PollFetches(b.limit)
		if err := fs.Err(); err != nil {
			b.Fatalf("reading %s: %v", topic, err)
		}
		rs = append(rs, fs.Records()...)
	}
	slices.SortFunc(rs, func(a, b *kgo.Record) int {
		if a.Partition != b.Partition {
			return int(a.Partition - b.Partition)
		}
		return int(a.Offset - b.Offset)
	})
	return rs
}

// committed returns a group's committed offsets of a topic, -1 for partitions without.
func (b *bed) committed(group, topic string) map[int32]int64 {
	b.Helper()
	commits, err := b.adm.FetchOffsets(b.limit, group)
	if err != nil {
		b.Fatalf("asking for the commits of %s: %v", group, err)
	}
	m := map[int32]int64{}
	for p := range b.ends(topic) {
		m[p] = -1
		if o, ok := commits.Lookup(topic, p); ok {
			m[p] = o.At
		}
	}
	return m
}

// wantAllCommitted fails unless the group has committed a topic to its end.
func (b *bed) wantAllCommitted(group, topic string) {
	b.Helper()
	b.wantEqual("committed offsets of "+topic, b.committed(group, topic), b.ends(topic))
}

// wantEqual fails unless two values print alike.
func (b *bed) wantEqual(what string, got, want any) {
	b.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		b.Errorf("%s: got %s, want %s", what, g, w)
	}
}

// header returns the value of the first header of a name, and whether there is one.
func header(r *kgo.Record, name string) (string, bool) {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value), true
		}
	}
	return "", false
}

// wantHeader fails unless a record has this header.
func (b *bed) wantHeader(r *kgo.Record, name string, want any) {
	b.Helper()
	got, _ := header(r, name)
	b.wantEqual(fmt.Sprintf("header %s of %s/%d/%d", name, r.Topic, r.Partition, r.Offset), got, want)
}

// handles makes a handler of a function that does without the context.
func handles(f func(m *retriable.Message) error) retriable.Handler {
	return retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error { return f(m) })
}

// is reports whether an error's tree holds one of the type, and returns it.
func is[T error](err error) (T, bool) {
	var e T
	ok := errors.As(err, &e)
	return e, ok
}

// logs keeps the end of what the consumers of a test log, for when it fails.
type logs struct {
	mu    sync.Mutex
	lines []string
}

// Write implements io.Writer.
func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) >= 2000 {
		l.lines = slices.Delete(l.lines, 0, 1000)
	}
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-100):], "")
}

// has reports whether a line has all the words.
func (l *logs) has(words ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(line string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
	})
}
