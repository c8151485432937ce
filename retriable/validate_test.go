package retriable_test

import (
	"context"
	"errors"
	"math"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

func nothing(context.Context, *retriable.Message) error { return nil }

var handler = retriable.HandlerFunc(nothing)

// good is what a Consumer needs at least.
func good(more ...retriable.Option) []retriable.Option {
	return append([]retriable.Option{
		retriable.Brokers("localhost:9092"),
		retriable.Topic("orders", handler, retriable.NoDeadLetters()),
	}, more...)
}

// orders is New with one topic that has these options.
func orders(opts ...retriable.TopicOption) error {
	_, err := retriable.New("g", retriable.Brokers("localhost:9092"), retriable.Topic("orders", handler, opts...))
	return err
}

// complaints takes a joined error apart. Each part must be an ErrInvalidOption.
func complaints(t *testing.T, err error) (texts []string) {
	t.Helper()
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%v does not join the complaints", err)
	}
	for _, e := range joined.Unwrap() {
		if !errors.Is(e, retriable.ErrInvalidOption) {
			t.Errorf("%v is not an ErrInvalidOption", e)
		}
		texts = append(texts, strings.TrimPrefix(e.Error(), retriable.ErrInvalidOption.Error()+": "))
	}
	return texts
}

// wantComplaint fails unless exactly one complaint has all the words.
func wantComplaint(t *testing.T, err error, words ...string) {
	t.Helper()
	texts := complaints(t, err)
	n := 0
	for _, text := range texts {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d complaints with %q, want 1: %q", n, words, texts)
	}
}

func TestTheLeastThatIsNeededPasses(t *testing.T) {
	t.Parallel()
	c, err := retriable.New("g", good()...)
	if err != nil || c == nil {
		t.Fatalf("New: %v, %v", c, err)
	}
}

func TestEachWrongOptionIsReportedByNameAndValue(t *testing.T) {
	t.Parallel()
	topic := func(opts ...retriable.TopicOption) retriable.Option {
		return retriable.Topic("payments", handler, append(opts, retriable.NoDeadLetters())...)
	}
	batched := func(opts ...retriable.TopicOption) retriable.Option {
		return retriable.BatchTopic("payments", func(context.Context, []*retriable.Message) error { return nil }, append(opts, retriable.NoDeadLetters())...)
	}
	retried := func(opts ...retriable.TopicOption) retriable.Option {
		return topic(append(opts, retriable.RetryTopic("payments.retry"))...)
	}
	for _, c := range []struct {
		words string // in the complaint, separated by blanks
		opt   retriable.Option
	}{
		{"nil", nil},
		{"Concurrency(0)", retriable.Concurrency(0)},
		{"Concurrency(-3)", retriable.Concurrency(-3)},
		{"SharedWorkers(nil)", retriable.SharedWorkers(nil)},
		{"SharedWorkers(NewWorkers(0))", retriable.SharedWorkers(retriable.NewWorkers(0))},
		{"MaxPending(0)", retriable.MaxPending(0)},
		{"MaxHeld(-1)", retriable.MaxHeld(-1)},
		{"MaxPendingBytes(0)", retriable.MaxPendingBytes(0)},
		{"MaxWindow(0)", retriable.MaxWindow(0)},
		{"CommitInterval(0s)", retriable.CommitInterval(0)},
		{"MaxChunks(0)", retriable.MaxChunks(0)},
		{"MaxMessageBytes(-1)", retriable.MaxMessageBytes(-1)},
		{"MaxJoining(0)", retriable.MaxJoining(0)},
		{"MaxJoiningBytes(0)", retriable.MaxJoiningBytes(0)},
		{"JoinTimeout(0s)", retriable.JoinTimeout(0)},
		{"StuckAfter(-1s)", retriable.StuckAfter(-time.Second)},
		{"MaxCrashes(-1)", retriable.MaxCrashes(-1)},
		{"CreateTopics(0, 3)", retriable.CreateTopics(0, 3)},
		{"CreateTopics(3, 0)", retriable.CreateTopics(3, 0)},
		{"CreateTopics(3, -2)", retriable.CreateTopics(3, -2)},
		{"Use nil", retriable.Use(nil)},
		{"Hooks(int)", retriable.Hooks(7)},
		{"Hooks(<nil>)", retriable.Hooks(nil)},
		{"Kafka nil", retriable.Kafka(nil)},
		{`Topic("")`, retriable.Topic("", handler, retriable.NoDeadLetters())},
		{`Topic("payments") handler`, retriable.Topic("payments", nil, retriable.NoDeadLetters())},
		{`Topic("payments") nil`, topic(nil)},
		{`TopicRegexp("("`, retriable.TopicRegexp("(", handler, retriable.NoDeadLetters())},
		{`TopicRegexp("")`, retriable.TopicRegexp("", handler, retriable.NoDeadLetters())},
		{`TopicRegexp("p.*") handler`, retriable.TopicRegexp("p.*", nil, retriable.NoDeadLetters())},
		{`Topic("payments") RetryTopic("")`, topic(retriable.RetryTopic(""))},
		{`Topic("payments") RetryTier("x", 1m0s) RetryTopic`, topic(retriable.RetryTier("x", time.Minute))},
		{`Topic("payments") RetryTier("", 1m0s) empty`, retried(retriable.RetryTier("", time.Minute))},
		{`Topic("payments") RetryTier("x", 0s)`, retried(retriable.RetryTier("x", 0))},
		{`Topic("payments") RetryTier("x", 1h0m0s) MaxDelay(1m0s)`, retried(retriable.RetryTier("x", time.Hour), retriable.MaxDelay(time.Minute))},
		{`Topic("payments") RetryTier("y", 1m0s) delay`, retried(retriable.RetryTier("x", time.Minute), retriable.RetryTier("y", time.Minute))},
		{`Topic("payments") RetryTier("payments") base`, retried(retriable.RetryTier("payments", time.Minute))},
		{`Topic("payments") RetryTier("payments.retry") already`, retried(retriable.RetryTier("payments.retry", time.Minute))},
		{`Topic("payments") MaxAttempts(0)`, retried(retriable.MaxAttempts(0))},
		{`Topic("payments") Backoff(nil)`, retried(retriable.Backoff(nil))},
		{`Topic("payments") MaxDelay(0s)`, retried(retriable.MaxDelay(0))},
		{`Topic("payments") MaxElapsed(0s)`, retried(retriable.MaxElapsed(0))},
		{`Topic("payments") HandlerTimeout(-1s)`, topic(retriable.HandlerTimeout(-time.Second))},
		{`Topic("payments") Scheduled(0s)`, retried(retriable.Scheduled(0))},
		{`Topic("payments") Filter(nil)`, topic(retriable.Filter(nil))},
		{`Topic("payments") With nil`, topic(retriable.With(nil))},
		{`Topic("payments") Gate(nil)`, topic(retriable.Gate(nil))},
		{`Topic("payments") RateLimit(0, 1)`, topic(retriable.RateLimit(0, 1))},
		{`Topic("payments") RateLimit(+Inf, 1)`, topic(retriable.RateLimit(math.Inf(1), 1))},
		{`Topic("payments") RateLimit(5, 0)`, topic(retriable.RateLimit(5, 0))},
		{`Topic("payments") TopicConcurrency(0)`, topic(retriable.TopicConcurrency(0))},
		{`Topic("payments") BlockingRetries(0)`, topic(retriable.BlockingRetries(0, retriable.Constant(1)))},
		{`Topic("payments") BlockingRetries(2, nil)`, topic(retriable.BlockingRetries(2, nil))},
		{`Topic("payments") BatchSize(5) BatchTopic`, topic(retriable.BatchSize(5))},
		{`Topic("payments") BatchWait(1s) BatchTopic`, topic(retriable.BatchWait(time.Second))},
		{`Topic("payments") handler nil`, retriable.Topic("payments", retriable.JSON[int](nil), retriable.NoDeadLetters())},
		{`Topic("payments") handler nil`, retriable.BatchTopic("payments", nil, retriable.NoDeadLetters())},
		{`Topic("payments") BatchSize(0)`, batched(retriable.BatchSize(0))},
		{`Topic("payments") BatchWait(-1s)`, batched(retriable.BatchWait(-time.Second))},
		{`Topic("payments") BlockingRetries(2) BatchTopic`, batched(retriable.BlockingRetries(2, retriable.Constant(1)))},
		{`Topic("payments") Recycle BatchTopic`, batched(retriable.Recycle())},
		{`Topic("payments") Ordering(3)`, topic(retriable.Ordering(3))},
		{`Topic("payments") Ordering(-1)`, topic(retriable.Ordering(-1))},
		{`Topic("payments") neither DeadLetterTopic NoDeadLetters`, retriable.Topic("payments", handler)},
		{`Topic("payments") both DeadLetterTopic("dead") NoDeadLetters`, topic(retriable.DeadLetterTopic("dead"))},
		{`Topic("payments") DeadLetterTopic("")`, retriable.Topic("payments", handler, retriable.DeadLetterTopic(""))},
		{`Topic("orders") twice`, retriable.Topic("orders", handler, retriable.NoDeadLetters())},
	} {
		t.Run(c.words, func(t *testing.T) {
			t.Parallel()
			_, err := retriable.New("g", good(c.opt)...)
			if n := len(complaints(t, err)); n != 1 {
				t.Errorf("%d complaints, want 1: %v", n, err)
			}
			wantComplaint(t, err, strings.Fields(c.words)...)
		})
	}
}

func TestWithoutGroupTopicsOrBrokersNewSaysSo(t *testing.T) {
	t.Parallel()
	_, err := retriable.New("")
	if n := len(complaints(t, err)); n != 3 {
		t.Errorf("%d complaints, want 3: %v", n, err)
	}
	wantComplaint(t, err, "group", "empty")
	wantComplaint(t, err, "no Topic")
	wantComplaint(t, err, "Brokers", "none")
	if _, err := retriable.New("g", retriable.Kafka(kgo.SeedBrokers("localhost:9092")), retriable.Topic("orders", handler, retriable.NoDeadLetters())); err != nil {
		t.Errorf("kgo.SeedBrokers name no broker: %v", err)
	}
}

func TestAllThatIsWrongIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := retriable.New("",
		retriable.Brokers("localhost:9092"),
		nil,
		retriable.Concurrency(0), retriable.MaxPending(-1), retriable.MaxHeld(0), retriable.MaxPendingBytes(-5), retriable.MaxWindow(0),
		retriable.CommitInterval(-time.Second), retriable.StuckAfter(0), retriable.CreateTopics(0, 0),
		retriable.Use(nil), retriable.Hooks("x"),
		retriable.Kafka(kgo.DisableAutoCommit(), kgo.ManualFlushing()),
		retriable.Topic("a", nil, retriable.HandlerTimeout(-1), retriable.MaxAttempts(3)),
		retriable.Topic("no-func", retriable.HandlerFunc(nil), retriable.NoDeadLetters()),
		retriable.TopicRegexp("[", handler, retriable.NoDeadLetters(), retriable.Filter(nil)),
	)
	for _, words := range [][]string{
		{"group is empty"},
		{"nil", "1 option"},
		{`"no-func"`, "the handler is nil"},
		{"Concurrency(0)"},
		{"MaxPending(-1)"},
		{"MaxHeld(0)"},
		{"MaxPendingBytes(-5)"},
		{"MaxWindow(0)"},
		{"CommitInterval(-1s)"},
		{"StuckAfter(0s)"},
		{"CreateTopics(0, 0)", "partition"},
		{"CreateTopics(0, 0)", "replicas"},
		{"Use"},
		{"Hooks(string)"},
		{"kgo.DisableAutoCommit"},
		{"kgo.ManualFlushing"},
		{`Topic("a")`, "handler"},
		{`Topic("a")`, "HandlerTimeout(-1ns)"},
		{`Topic("a")`, "MaxAttempts(3)", "RetryTopic"},
		{`Topic("a")`, "neither"},
		{`TopicRegexp("[")`, "missing"},
		{`TopicRegexp("[")`, "Filter"},
	} {
		wantComplaint(t, err, words...)
	}
}

// ownedOptions is a row for each option of kgo that is the library's own to set, with a value other than kgo's default.
var ownedOptions = []struct {
	name string
	opts []kgo.Opt
}{
	{"ConsumerGroup", []kgo.Opt{kgo.ConsumerGroup("other")}},
	{"ConsumeTopics", []kgo.Opt{kgo.ConsumeTopics("other")}},
	{"ConsumeRegex", []kgo.Opt{kgo.ConsumeRegex()}},
	{"ConsumeExcludeTopics", []kgo.Opt{kgo.ConsumeRegex(), kgo.ConsumeExcludeTopics("other")}},
	{"ConsumePartitions", []kgo.Opt{kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"other": {0: kgo.NewOffset()}})}},
	{"ConsumeStartOffset", []kgo.Opt{kgo.ConsumeStartOffset(kgo.NewOffset().AtEnd())}},
	{"ConsumeResetOffset", []kgo.Opt{kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd())}},
	{"DisableAutoCommit", []kgo.Opt{kgo.DisableAutoCommit()}},
	{"AutoCommitMarks", []kgo.Opt{kgo.AutoCommitMarks()}},
	{"AutoCommitInterval", []kgo.Opt{kgo.AutoCommitInterval(time.Second)}},
	{"AutoCommitCallback", []kgo.Opt{kgo.AutoCommitCallback(func(*kgo.Client, *kmsg.OffsetCommitRequest, *kmsg.OffsetCommitResponse, error) {})}},
	{"GreedyAutoCommit", []kgo.Opt{kgo.GreedyAutoCommit()}},
	{"OnPartitionsAssigned", []kgo.Opt{kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) {})}},
	{"OnPartitionsRevoked", []kgo.Opt{kgo.OnPartitionsRevoked(func(context.Context, *kgo.Client, map[string][]int32) {})}},
	{"OnPartitionsLost", []kgo.Opt{kgo.OnPartitionsLost(func(context.Context, *kgo.Client, map[string][]int32) {})}},
	{"OnPartitionsCallbackBlocked", []kgo.Opt{kgo.OnPartitionsCallbackBlocked(func(context.Context, *kgo.Client) {})}},
	{"OnOffsetsFetched", []kgo.Opt{kgo.OnOffsetsFetched(func(context.Context, *kgo.Client, *kmsg.OffsetFetchResponse) error { return nil })}},
	{"AdjustFetchOffsetsFn", []kgo.Opt{kgo.AdjustFetchOffsetsFn(func(_ context.Context, m map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
		return m, nil
	})}},
	{"BlockRebalanceOnPoll", []kgo.Opt{kgo.BlockRebalanceOnPoll()}},
	{"RequiredAcks", []kgo.Opt{kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck())}},
	{"RequiredAcks", []kgo.Opt{kgo.RequiredAcks(kgo.NoAck())}},
	{"DisableIdempotentWrite", []kgo.Opt{kgo.DisableIdempotentWrite()}},
	{"AllowIdempotentProduceCancellation", []kgo.Opt{kgo.AllowIdempotentProduceCancellation()}},
	{"TransactionalID", []kgo.Opt{kgo.TransactionalID("tx")}},
	{"RecordPartitioner", []kgo.Opt{kgo.RecordPartitioner(kgo.RoundRobinPartitioner())}},
	{"RecordPartitioner", []kgo.Opt{kgo.RecordPartitioner(kgo.UniformBytesPartitioner(1, false, false, nil))}},
	{"ManualFlushing", []kgo.Opt{kgo.ManualFlushing()}},
	{"WithPools", []kgo.Opt{kgo.WithPools(pool{})}},
	{"ShareGroup", []kgo.Opt{kgo.ShareGroup("other")}},
	{"KeepControlRecords", []kgo.Opt{kgo.KeepControlRecords()}},
}

// pool is one of kgo's record pools.
type pool struct{}

func (pool) GetDecompressBytes([]byte, kgo.CompressionCodecType) []byte { return nil }
func (pool) PutDecompressBytes([]byte)                                  {}

func TestWhatTheLibraryOwnsIsRefusedByName(t *testing.T) {
	t.Parallel()
	for _, c := range ownedOptions {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := retriable.New("g", good(retriable.Kafka(c.opts...))...)
			wantComplaint(t, err, "Kafka(kgo."+c.name+")")
		})
	}
}

func TestAnOwnedOptionBesideOtherFaultsIsStillNamed(t *testing.T) {
	t.Parallel()
	_, err := retriable.New("g", good(retriable.Concurrency(0), retriable.Kafka(kgo.FetchMinBytes(-1), kgo.GreedyAutoCommit()), retriable.Kafka(kgo.ManualFlushing()))...)
	wantComplaint(t, err, "Concurrency(0)")
	wantComplaint(t, err, "kgo.GreedyAutoCommit")
	wantComplaint(t, err, "kgo.ManualFlushing")
}

// hook is one of kgo's.
type hook struct{}

func (hook) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) {}

func TestOtherOptionsOfTheClientPass(t *testing.T) {
	t.Parallel()
	_, err := retriable.New("g", good(retriable.Kafka(
		kgo.ClientID("billing"), kgo.InstanceID("billing-1"), kgo.Rack("a"), kgo.WithHooks(hook{}), kgo.WithLogger(kgo.BasicLogger(nil, kgo.LogLevelNone, nil)),
		kgo.DialTimeout(time.Second), kgo.MetadataMinAge(time.Second), kgo.MetadataMaxAge(time.Minute),
		kgo.Balancers(kgo.RangeBalancer()), kgo.SessionTimeout(30*time.Second), kgo.HeartbeatInterval(2*time.Second), kgo.RebalanceTimeout(2*time.Minute),
		kgo.FetchMaxWait(time.Second), kgo.FetchMaxBytes(1<<20), kgo.FetchMaxPartitionBytes(1<<19), kgo.MaxConcurrentFetches(2),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()), kgo.MaxDecompressBatchBytes(1<<20),
		kgo.ProducerLinger(time.Millisecond), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.MaxBufferedRecords(100),
		kgo.AllowAutoTopicCreation(), kgo.RequestRetries(3),
	))...)
	if err != nil {
		t.Error(err)
	}
	if _, err := retriable.New("g", good(retriable.Kafka(kgo.ServerSideBalancer()))...); err != nil {
		t.Errorf("ServerSideBalancer: %v", err)
	}
}

func TestAnOptionThatContradictsAnotherOfTheClientIsReported(t *testing.T) {
	t.Parallel()
	_, err := retriable.New("g", good(retriable.Kafka(kgo.DialTLS(), kgo.Dialer((&net.Dialer{}).DialContext)))...)
	wantComplaint(t, err, "Kafka", "Dialer")
	// What kgo checks only for members of a group would fail Run otherwise.
	_, err = retriable.New("g", good(retriable.Kafka(kgo.SessionTimeout(time.Second), kgo.HeartbeatInterval(2*time.Second)))...)
	wantComplaint(t, err, "Kafka", "heartbeat")
}

func TestNewTouchesNoNetwork(t *testing.T) {
	t.Parallel()
	var dialed atomic.Int32
	dialer := kgo.Dialer(func(context.Context, string, string) (net.Conn, error) {
		dialed.Add(1)
		return nil, errors.New("no network here")
	})
	opts := good(retriable.Kafka(dialer, kgo.MetadataMinAge(10*time.Millisecond)), retriable.CreateTopics(3, 1))
	try := func(name string, more ...kgo.Opt) error {
		_, err := retriable.New("g", append(slices.Clip(opts), retriable.Kafka(more...))...)
		time.Sleep(5 * time.Millisecond) // real time: what dials does so in a goroutine of its own
		if n := dialed.Swap(0); n > 0 {
			t.Errorf("New dialed %d times with %s", n, name)
		}
		return err
	}
	if err := try("good options"); err != nil {
		t.Error(err)
	}
	// Nor with what is refused: these would have a client look for a group and for topics.
	for _, o := range ownedOptions {
		_ = try(o.name, o.opts...)
	}
	_ = try("a group and topics", kgo.ConsumerGroup("x"), kgo.ConsumeTopics("orders"))
}

func TestNewDoesNotChangeWhatItIsGiven(t *testing.T) {
	t.Parallel()
	seeds := append(make([]string, 0, 8), "localhost:9092")
	kafka := append(make([]kgo.Opt, 0, 8), kgo.ClientID("a"))
	opts := []retriable.Option{
		retriable.Brokers(seeds...), retriable.Brokers("other:9092"), retriable.Kafka(kafka...), retriable.Kafka(kgo.Rack("r")),
		retriable.Defaults(retriable.NoDeadLetters()), retriable.Topic("orders", handler),
	}
	for range 2 { // the same options are good for two consumers
		if _, err := retriable.New("g", opts...); err != nil {
			t.Error(err)
		}
	}
	if seeds[:2][1] != "" || kafka[:2][1] != nil {
		t.Error("New wrote into the caller's slices")
	}
}

func TestDefaultsYieldToWhatATopicSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		defaults []retriable.TopicOption
		topic    []retriable.TopicOption
		bad      string // words of the one complaint; none: it is good
	}{
		{name: "NoDeadLetters for all", defaults: opts(retriable.NoDeadLetters())},
		{name: "DeadLetterTopic for all", defaults: opts(retriable.DeadLetterTopic("dead"))},
		{name: "own NoDeadLetters beats the default topic", defaults: opts(retriable.DeadLetterTopic("dead")), topic: opts(retriable.NoDeadLetters())},
		{name: "own DeadLetterTopic beats the default NoDeadLetters", defaults: opts(retriable.NoDeadLetters()), topic: opts(retriable.DeadLetterTopic("dead"))},
		{name: "both by default", defaults: opts(retriable.NoDeadLetters(), retriable.DeadLetterTopic("dead")), bad: "both"},
		{name: "both by default, but its own choice", defaults: opts(retriable.NoDeadLetters(), retriable.DeadLetterTopic("dead")), topic: opts(retriable.NoDeadLetters())},
		{name: "an empty one of its own is no way out", defaults: opts(retriable.DeadLetterTopic("dead")), topic: opts(retriable.DeadLetterTopic("")), bad: `DeadLetterTopic("")`},
		{name: "neither", defaults: opts(retriable.MaxAttempts(3)), bad: "neither"},
		{
			name:     "defaults for a retry topic where there is none",
			defaults: opts(retriable.MaxAttempts(3), retriable.Backoff(retriable.Constant(1)), retriable.MaxElapsed(time.Hour), retriable.NoDeadLetters()),
		},
		{name: "an own MaxAttempts where there is no retry topic", topic: opts(retriable.MaxAttempts(3), retriable.NoDeadLetters()), bad: "MaxAttempts(3) RetryTopic"},
		{name: "an own Backoff where there is no retry topic", topic: opts(retriable.Backoff(retriable.Constant(1)), retriable.NoDeadLetters()), bad: "Backoff RetryTopic"},
		{name: "an own MaxElapsed where there is no retry topic", topic: opts(retriable.MaxElapsed(time.Hour), retriable.NoDeadLetters()), bad: "MaxElapsed(1h0m0s) RetryTopic"},
		{name: "the retry topic by default", defaults: opts(retriable.RetryTopic("retry"), retriable.NoDeadLetters()), topic: opts(retriable.MaxAttempts(3))},
		{name: "a wrong default", defaults: opts(retriable.HandlerTimeout(-1), retriable.NoDeadLetters()), bad: "HandlerTimeout(-1ns)"},
		{name: "a wrong default that the topic does not use", defaults: opts(retriable.HandlerTimeout(-1), retriable.NoDeadLetters()), topic: opts(retriable.HandlerTimeout(time.Second))},
		{name: "a nil default", defaults: opts(nil, retriable.NoDeadLetters()), bad: "nil"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, order := range []string{"before", "after"} {
				all := []retriable.Option{retriable.Brokers("localhost:9092"), retriable.Defaults(c.defaults...), retriable.Topic("orders", handler, c.topic...)}
				if order == "after" {
					slices.Reverse(all)
				}
				_, err := retriable.New("g", all...)
				switch {
				case c.bad == "" && err != nil:
					t.Errorf("Defaults %s: %v", order, err)
				case c.bad != "":
					wantComplaint(t, err, strings.Fields(c.bad)...)
					if n := len(complaints(t, err)); n != 1 {
						t.Errorf("Defaults %s: %d complaints, want 1: %v", order, n, err)
					}
				}
			}
		})
	}
}

func opts(os ...retriable.TopicOption) []retriable.TopicOption { return os }

func TestATopicMayServeOnePurposeOnly(t *testing.T) {
	t.Parallel()
	retry := func(base, retry, dead string) retriable.Option {
		return retriable.Topic(base, handler, retriable.RetryTopic(retry), retriable.DeadLetterTopic(dead))
	}
	pattern := func(p, retry, dead string) retriable.Option {
		return retriable.TopicRegexp(p, handler, retriable.RetryTopic(retry), retriable.DeadLetterTopic(dead))
	}
	for _, c := range []struct {
		name string
		opts []retriable.Option
		bad  string
	}{
		{"two base topics with all their own", list(retry("a", "a.retry", "a.dead"), retry("b", "b.retry", "b.dead")), ""},
		{"one dead-letter topic for both", list(retry("a", "a.retry", "dead"), retry("b", "b.retry", "dead")), ""},
		{"a base topic twice", list(retry("a", "a.retry", "dead"), retry("a", "b.retry", "dead")), `"a" twice`},
		{"a pattern twice", list(pattern("a.*", "a.retry", "dead"), pattern("a.*", "b.retry", "dead")), `"a.*" twice`},
		{"a topic and a pattern that reads the same", list(retry("abc", "a.retry", "dead"), pattern("abc", "b.retry", "dead")), ""},
		{"one retry topic for both", list(retry("a", "retry", "dead"), retry("b", "retry", "dead")), `"b" RetryTopic("retry") "a"`},
		{"one retry topic for a topic and a pattern", list(retry("a", "retry", "dead"), pattern("b.*", "retry", "dead")), `"b.*" RetryTopic("retry") "a"`},
		{"a retry topic that is also a base topic", list(retry("a", "b", "dead"), retry("b", "b.retry", "dead")), `"a" RetryTopic("b") base`},
		{"its own retry topic", list(retry("a", "a", "dead")), `"a" RetryTopic("a") base`},
		{"a dead-letter topic that is also a base topic", list(retry("a", "a.retry", "b"), retry("b", "b.retry", "dead")), `"a" DeadLetterTopic("b") consumed`},
		{"its own dead-letter topic", list(retry("a", "a.retry", "a")), `"a" DeadLetterTopic("a") consumed`},
		{"a dead-letter topic that is its retry topic", list(retry("a", "x", "x")), `"a" DeadLetterTopic("x") retry`},
		{"a dead-letter topic that is another's retry topic", list(retry("a", "a.retry", "b.retry"), retry("b", "b.retry", "dead")), `"a" DeadLetterTopic("b.retry") retry`},
		{"a pattern that matches all of them", list(retry("a", "a.retry", "a.dead"), pattern(".*", "all.retry", "all.dead")), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := retriable.New("g", append(c.opts, retriable.Brokers("localhost:9092"))...)
			if c.bad == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantComplaint(t, err, strings.Fields(c.bad)...)
			if n := len(complaints(t, err)); n != 1 {
				t.Errorf("%d complaints, want 1: %v", n, err)
			}
		})
	}
}

func list(os ...retriable.Option) []retriable.Option { return os }

func TestADrainMustFitIntoARebalance(t *testing.T) {
	t.Parallel()
	kafka := func(os ...kgo.Opt) retriable.Option { return retriable.Kafka(os...) }
	for _, c := range []struct {
		name string
		opts []retriable.Option
		bad  []string
	}{
		{"the defaults", nil, nil},
		{"a long one is only bounded", list(retriable.DrainTimeout(time.Hour)), nil},
		{"a second", list(retriable.DrainTimeout(time.Second)), nil},
		{"no room in a short rebalance", list(kafka(kgo.RebalanceTimeout(5 * time.Second))), []string{"DrainTimeout(30s)", "RebalanceTimeout(5s)"}},
		{"room with quicker heartbeats", list(kafka(kgo.RebalanceTimeout(5*time.Second), kgo.HeartbeatInterval(500*time.Millisecond))), nil},
		{"heartbeats too slow", list(kafka(kgo.HeartbeatInterval(28*time.Second), kgo.SessionTimeout(2*time.Minute))), []string{"DrainTimeout(30s)", "RebalanceTimeout(1m0s)"}},
		{"with a server-side balancer 5 s are lost", list(kafka(kgo.ServerSideBalancer(), kgo.RebalanceTimeout(6*time.Second))), []string{"DrainTimeout(30s)", "RebalanceTimeout(6s)"}},
		{
			"with a server-side balancer heartbeats of the client do not count",
			list(kafka(kgo.ServerSideBalancer(), kgo.RebalanceTimeout(10*time.Second))), nil,
		},
		{"less than a second", list(retriable.DrainTimeout(500 * time.Millisecond)), []string{"DrainTimeout(500ms)"}},
		{"none", list(retriable.DrainTimeout(0)), []string{"DrainTimeout(0s)", "above 0"}},
		{"a negative one", list(retriable.DrainTimeout(-time.Second)), []string{"DrainTimeout(-1s)", "above 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := retriable.New("g", good(c.opts...)...)
			if c.bad == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantComplaint(t, err, c.bad...)
		})
	}
}

func TestAPlaceToStartThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	for _, o := range []kgo.Offset{
		kgo.NewOffset().AtStart(), kgo.NewOffset().AtEnd(), kgo.NewOffset().At(7), kgo.NewOffset().AtEnd().Relative(-10),
		kgo.NewOffset().AfterMilli(1_700_000_000_000),
	} {
		if err := orders(retriable.NoDeadLetters(), retriable.StartAt(o)); err != nil {
			t.Errorf("%v: %v", o, err)
		}
	}
	err := orders(retriable.NoDeadLetters(), retriable.StartAt(kgo.NewOffset().AtCommitted()))
	wantComplaint(t, err, `Topic("orders")`, "StartAt")
}

func TestConcurrencyAndSharedWorkersExcludeEachOther(t *testing.T) {
	t.Parallel()
	_, err := retriable.New("g", good(retriable.Concurrency(3), retriable.SharedWorkers(retriable.NewWorkers(2)))...)
	wantComplaint(t, err, "Concurrency(3)", "SharedWorkers")
	c, err := retriable.New("g", good(retriable.SharedWorkers(retriable.NewWorkers(2)))...)
	if err != nil || c.Stats().Workers != 2 {
		t.Errorf("New: %v", err)
	}
}
