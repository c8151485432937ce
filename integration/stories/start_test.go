package stories_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// done is a handler for which all is well.
func done() retriable.Handler {
	return handles(func(*retriable.Message) error { return nil })
}

func TestMissingTopicsAreNamed(t *testing.T) {
	b := story(t, time.Minute)
	there := b.topic("orders", 1)
	missing := []string{b.name("base"), b.name("dead"), b.name("retry")}

	began := time.Now()
	c := b.launch(b.name("group"), retriable.Topic(there, done(), retriable.RetryTopic(missing[2]), retriable.DeadLetterTopic(missing[1])),
		retriable.Topic(missing[0], done(), retriable.NoDeadLetters()))
	<-c.done
	var names []string
	for _, e := range all[*retriable.TopicError](c.err) {
		names = append(names, e.Topic)
		if !errors.Is(e, kerr.UnknownTopicOrPartition) {
			t.Errorf("%v is not an UnknownTopicOrPartition", e)
		}
	}
	slices.Sort(names)
	b.wantEqual("missing", names, missing)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took Run %v to say so", took)
	}

	// Even CreateTopics does not make up a base topic.
	c = b.launch(b.name("group"), retriable.CreateTopics(1, -1), retriable.Topic(missing[0], done(), retriable.NoDeadLetters()))
	<-c.done
	if e, ok := is[*retriable.TopicError](c.err); !ok || e.Topic != missing[0] {
		t.Errorf("Run: %v, want a TopicError for %s", c.err, missing[0])
	}
}

// all returns every error of a type in a tree.
func all[T error](err error) (es []T) {
	if e, ok := err.(T); ok { //nolint:errorlint // the walk is what errors.As would do, for all of them
		es = append(es, e)
	}
	switch u := err.(type) { //nolint:errorlint // as above
	case interface{ Unwrap() error }:
		es = append(es, all[T](u.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, err := range u.Unwrap() {
			es = append(es, all[T](err)...)
		}
	}
	return es
}

func TestCreateTopicsMakesWhatIsMissing(t *testing.T) {
	b := story(t, time.Minute)
	const large = 3 << 20
	base, small := b.topic("orders", 1, fmt.Sprintf("max.message.bytes=%d", large)), b.topic("small", 1, "max.message.bytes=1000")
	kept := b.topic("kept", 1, "retention.ms=12345")
	retry, dead, retrySmall := b.name("retry"), b.name("dead"), b.name("small.retry")

	c := b.start(b.name("group"), retriable.CreateTopics(5, 1),
		retriable.Topic(base, done(), retriable.RetryTopic(retry), retriable.DeadLetterTopic(dead), retriable.MaxDelay(30*24*time.Hour)),
		retriable.Topic(small, done(), retriable.RetryTopic(retrySmall), retriable.DeadLetterTopic(kept)))
	b.await("they are there", 10*time.Second, func() bool {
		ts, err := b.adm.ListTopics(b.limit, retry, dead, retrySmall)
		return err == nil && ts.Error() == nil && len(ts.Names()) == 3
	})
	ts, err := b.adm.ListTopics(b.limit, retry, dead, retrySmall, kept)
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]int{}
	for name, d := range ts {
		parts[name] = len(d.Partitions)
	}
	b.wantEqual("partitions", parts, map[string]int{retry: 5, dead: 5, retrySmall: 5, kept: 1})

	day := (24 * time.Hour).Milliseconds()
	got := map[string]map[string]int64{}
	for name := range parts {
		got[name] = map[string]int64{"retention.ms": b.config(name, "retention.ms"), "max.message.bytes": b.config(name, "max.message.bytes")}
	}
	for name, retention := range map[string]int64{retry: 37 * day, retrySmall: 14 * day, dead: -1, kept: 12345} {
		b.wantEqual("retention of "+name, got[name]["retention.ms"], retention)
	}
	for _, name := range []string{retry, dead} {
		if got[name]["max.message.bytes"] <= large {
			t.Errorf("%s takes %d bytes, no more than its base topic", name, got[name]["max.message.bytes"])
		}
	}
	if got[retrySmall]["max.message.bytes"] < 1<<20 {
		t.Errorf("%s takes %d bytes, less than the default", retrySmall, got[retrySmall]["max.message.bytes"])
	}
	c.clean()

	// As large a record as the base topic takes goes through both.
	through := b.start(b.name("group"), retriable.Topic(base, handles(func(m *retriable.Message) error {
		return errors.New("no")
	}), retriable.RetryTopic(retry), retriable.DeadLetterTopic(dead), retriable.MaxAttempts(2), retriable.Backoff(retriable.Constant(time.Millisecond))))
	big := b.client(kgo.ProducerBatchMaxBytes(large))
	r := &kgo.Record{Topic: base, Key: []byte("k"), Value: noise(large - 200)}
	if err := big.ProduceSync(b.limit, r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.await("it is a dead letter", 20*time.Second, func() bool { return through.Stats().DeadLettered == 1 })
	through.clean()
	letters := b.read(dead)
	if len(letters) != 1 || !bytes.Equal(letters[0].Value, r.Value) {
		t.Errorf("%d dead letters, or not as sent", len(letters))
	}
}

// config returns a number among a topic's settings.
func (b *bed) config(topic, key string) (n int64) {
	b.Helper()
	rs, err := b.adm.DescribeTopicConfigs(b.limit, topic)
	if err != nil {
		b.Fatal(err)
	}
	r, err := rs.On(topic, func(*kadm.ResourceConfig) error { return nil })
	if err != nil || r.Err != nil {
		b.Fatalf("the settings of %s: %v %v", topic, err, r.Err)
	}
	for _, c := range r.Configs {
		if c.Key == key {
			if _, err := fmt.Sscan(c.MaybeValue(), &n); err != nil {
				b.Fatalf("%s of %s: %v", key, topic, err)
			}
		}
	}
	return n
}

// noise is what no compression makes smaller.
func noise(n int) []byte {
	v := make([]byte, n)
	x := uint64(1)
	for i := range v {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		v[i] = byte(x)
	}
	return v
}

// What is committed may be nonsense: metadata of another client, an offset beyond the log's end.
func TestForeignCommitsAreTakenForWhatTheyAre(t *testing.T) {
	b := story(t, time.Minute)
	topic, group := b.topic("orders", 4), b.name("group")
	for p := range int32(4) {
		b.fill(topic, p, 10, 10)
	}
	var offsets kadm.Offsets
	for p, o := range map[int32]kadm.Offset{
		0: {At: 4, LeaderEpoch: -1, Metadata: "consumer-1-4f0e\x00 not ours, \u2603"},
		1: {At: 1 << 40, LeaderEpoch: -1},
		2: {At: 10, LeaderEpoch: -1, Metadata: "AAAA////"},
		3: {At: 7, LeaderEpoch: 0},
	} {
		o.Topic, o.Partition = topic, p
		offsets.Add(o)
	}
	if err := b.adm.CommitAllOffsets(b.limit, group, offsets); err != nil {
		t.Fatal(err)
	}

	got := make(chan retriable.Position, 100)
	c := b.start(group, retriable.Topic(topic, handles(func(m *retriable.Message) error {
		got <- m.Source
		return nil
	}), retriable.NoDeadLetters()))
	b.await("what is not committed is handled", 20*time.Second, func() bool { return c.Stats().Handled == 6+10+0+3 })
	first, n := map[int32]int64{}, map[int32]int{}
	for range 19 {
		at := <-got
		if o, ok := first[at.Partition]; !ok || at.Offset < o {
			first[at.Partition] = at.Offset
		}
		n[at.Partition]++
	}
	b.wantEqual("first offsets", first, map[int32]int64{0: 4, 1: 0, 3: 7})
	b.wantEqual("deliveries", n, map[int32]int{0: 6, 1: 10, 3: 3})
	if !b.log.has("beyond the log's end", "partition=1") {
		t.Error("nothing in the log about the offset beyond the end")
	}
	if err := c.health(); err != nil {
		t.Errorf("Health: %v", err)
	}
	b.produce(&kgo.Record{Topic: topic, Partition: 1}, &kgo.Record{Topic: topic, Partition: 2})
	b.await("what comes is handled", 20*time.Second, func() bool { return c.Stats().Handled == 21 })
	c.clean()
	b.wantAllCommitted(group, topic)
}
