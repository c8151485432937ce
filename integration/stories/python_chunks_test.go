package stories_test

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/interop"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// Sizes of messages: one that a topic takes whole, and those that are split into 4 and into 32 chunks.
const (
	small = 2_000
	large = 3_000_000
	huge  = 30_000_000
)

// producer makes a Producer, closed when the test ends.
func (b *bed) producer() *retriable.Producer {
	b.Helper()
	p, err := retriable.NewProducer(retriable.Brokers(b.cluster.Addrs()...))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	return p
}

// blobAt is how Python's handler tells of a message with filler: the filler's length and checksum.
func blobAt(id, size int) string {
	blob := interop.Blob(id, size)
	return fmt.Sprintf(`{"id": %d, "blob": "%d %x"}`, id, len(blob), sha256.Sum256(blob))
}

// (b), (e) Large messages of a Producer, and of Split with a client of one's own, interleaved on one partition with small ones and with each
// other: a Python handler gets each once and whole.
func TestGoSplitsAndPythonJoins(t *testing.T) {
	b := beside(t, 2*time.Minute)
	topic, group := b.topic("orders", 1), b.name("group")
	sizes := []int{huge, large, small, large, large, huge, small, large}
	record := func(id int) *kgo.Record {
		r := &kgo.Record{Topic: topic, Value: interop.Filler(id, sizes[id]), Headers: []kgo.RecordHeader{{Key: "tenant", Value: []byte("blue")}}}
		if id%2 == 0 {
			r.Key = []byte("key")
		}
		return r
	}
	var split [][]*kgo.Record
	for id := range 5 {
		split = append(split, retriable.Split(record(id), 900_000))
	}
	failed := make(chan error, 3)
	p := b.producer()
	for id := 5; id < len(sizes); id++ {
		go func() { failed <- p.Produce(b.limit, record(id)) }()
	}
	b.produce(inTurn(split)...)
	for range cap(failed) {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	if n := interleaved(b.read(topic)); n < 10 {
		t.Errorf("only %d chunks lie between chunks of another message: this shows nothing", n)
	}
	m := b.join(1, interop.Consuming{Group: group, Topic: topic})
	b.await("Python has handled all", time.Minute, func() bool { return m.Handled() == len(sizes) })
	b.leave(m)
	for _, e := range m.Events("done") {
		var id int
		_, _ = fmt.Sscan(e.ID, &id)
		if want := blobAt(id, sizes[id]); e.Message != want || e.N != 1 {
			t.Errorf("call %d of %d with %s, want %s", e.N, id, e.Message, want)
		}
	}
	b.wantAllCommitted(group, topic)
}

// inTurn takes one of each list in turn.
func inTurn(lists [][]*kgo.Record) (rs []*kgo.Record) {
	for i, more := 0, true; more; i++ {
		more = false
		for _, list := range lists {
			if i < len(list) {
				rs, more = append(rs, list[i]), true
			}
		}
	}
	return rs
}

// interleaved counts records of one partition that lie between two chunks of another message.
func interleaved(rs []*kgo.Record) (n int) {
	last := map[string]int{}
	for i, r := range rs {
		if group, ok := header(r, "retriable_kafka_chunk_group"); ok {
			last[group] = i
		}
	}
	open := map[string]bool{}
	for i, r := range rs {
		group, _ := header(r, "retriable_kafka_chunk_group")
		delete(open, group)
		n += b2i(len(open) > 0)
		if group != "" && last[group] > i {
			open[group] = true
		}
	}
	return n
}

// A producer's due time: a Python member waits for it.
func TestGoDelaysAndPythonWaits(t *testing.T) {
	b := beside(t, time.Minute)
	topic, group := b.topic("orders", 1), b.name("group")
	m := b.join(1, interop.Consuming{Group: group, Topic: topic})
	due := time.Now().Add(3 * time.Second)
	p := b.producer()
	for id, size := range []int{small, large} {
		if err := p.Produce(b.limit, &kgo.Record{Topic: topic, Key: []byte("key"), Value: interop.Filler(id, size)}, retriable.DeliverAt(due)); err != nil {
			t.Fatal(err)
		}
	}
	b.await("Python has handled both", 20*time.Second, func() bool { return m.Handled() == 2 })
	b.leave(m)
	for _, e := range m.Events("call") {
		if early := due.Sub(unix(e.At)); early > 0 {
			t.Errorf("%s is handled %v too early", e.ID, early)
		}
	}
	b.wantAllCommitted(group, topic)
}
