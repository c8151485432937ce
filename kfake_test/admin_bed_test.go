package kfake_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

// outside makes a client that looks from outside, closed when the story ends.
func (b *bed) outside(opts ...kgo.Opt) (c *admin.Client, done func()) {
	b.Helper()
	c, err := admin.New(append(append(b.dial(), kgo.SeedBrokers("127.0.0.1:9092")), opts...)...)
	if err != nil {
		b.Fatal(err)
	}
	return c, c.Close
}

func textHeader(name, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: name, Value: []byte(value)}
}

func numberHeader(name string, n uint64) kgo.RecordHeader {
	return kgo.RecordHeader{Key: name, Value: binary.BigEndian.AppendUint64(nil, n)}
}

// deadLetter is a dead letter of a group as a consumer writes it: the n-th of "orders".
func deadLetter(partition int32, group string, n int, reason string, headers ...kgo.RecordHeader) *kgo.Record {
	return &kgo.Record{
		Topic: "orders.dead", Partition: partition, Key: fmt.Appendf(nil, "k%d", n), Value: []byte(strconv.Itoa(n)),
		Headers: append(headers,
			textHeader("__dlq.errors.topic", "orders"), textHeader("__dlq.errors.partition", "0"), textHeader("__dlq.errors.offset", strconv.Itoa(n)),
			textHeader("__dlq.errors.group", group), textHeader("__dlq.errors.delivery.count", "5"), textHeader("__dlq.errors.message", reason),
			textHeader("retriable_group", group), textHeader("retriable_topic", "orders"), textHeader("retriable_partition", "0"), textHeader("retriable_offset", strconv.Itoa(n)),
			textHeader("retriable_time", "946684800000"), textHeader("retriable_first_failure", "946684800500"), textHeader("retriable_error", "the bank said no"),
		),
	}
}

// deadPart is the i-th of n parts of a dead letter.
func deadPart(partition int32, id string, i, n int, value string, headers ...kgo.RecordHeader) *kgo.Record {
	r := deadLetter(partition, "billing", 7, "chunks missing at the deadline", headers...)
	r.Key, r.Value = []byte(id), []byte(value)
	r.Headers = append(r.Headers, textHeader("retriable_kafka_chunk_group", id), numberHeader("retriable_kafka_number_of_chunks", uint64(n)), numberHeader("retriable_kafka_chunk_id", uint64(i)))
	return r
}

// sendBack is the replay of all of the bed's letters.
func sendBack() admin.Replay {
	return admin.Replay{From: "orders.dead", To: "orders.retry", Group: "billing", Topic: "orders"}
}

// replay sends letters back, or the story ends.
func (b *bed) replay(c *admin.Client, r admin.Replay) admin.ReplayResult {
	b.Helper()
	res, err := c.Replay(b.Context(), r)
	if err != nil {
		b.Fatalf("Replay: %v", err)
	}
	return res
}

// stable reads what readers of committed records see of a topic, by partition and offset.
func (b *bed) stable(topic string) (rs []*kgo.Record) {
	b.Helper()
	c, done := b.outside()
	defer done()
	left, err := c.Bounds(b.Context(), topic)
	if err != nil {
		b.Fatal(err)
	}
	cl, err := kgo.NewClient(append(b.dial(), kgo.SeedBrokers("127.0.0.1:9092"), kgo.ConsumeTopics(topic), kgo.FetchMaxWait(50*time.Millisecond),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())...)
	if err != nil {
		b.Fatal(err)
	}
	defer cl.Close()
	maps.DeleteFunc(left, func(_ int32, s admin.Span) bool { return s.From >= s.To })
	for len(left) > 0 {
		fs := cl.PollFetches(b.Context())
		if err := fs.Err(); err != nil {
			b.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				rs = append(rs, r)
			}
			if r.Offset+1 >= left[r.Partition].To {
				delete(left, r.Partition)
			}
		})
	}
	slices.SortFunc(rs, func(a, b *kgo.Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return rs
}

// valuesOf returns the values of records, sorted, each with how often it is there unless once.
func valuesOf(rs []*kgo.Record) string {
	n := map[string]int{}
	for _, r := range rs {
		n[string(r.Value)]++
	}
	var vs []string
	for _, v := range slices.Sorted(maps.Keys(n)) {
		if n[v] > 1 {
			v = fmt.Sprintf("%s×%d", v, n[v])
		}
		vs = append(vs, v)
	}
	return strings.Join(vs, " ")
}
