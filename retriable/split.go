package retriable

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// A record too large for its topic is written as several, each with a part of its value: chunks. Consumers of this library, and of the
// Python one, join them to one message again.

// SendOption configures what is sent, of [Producer.Produce] and of [Split].
type SendOption interface{ send(*sending) }

type sending struct{ due time.Time }

type sendOption func(*sending)

func (o sendOption) send(s *sending) { o(s) }

// DeliverAt asks for a first delivery not before t. Consumers hold the record until then on topics with Scheduled, for as long as its
// limit allows; on others they ignore it, and handle the record at once. The Python client honours it everywhere, in whole
// seconds: there it may take a second longer. The zero time asks for nothing.
func DeliverAt(t time.Time) SendOption { return sendOption(func(s *sending) { s.due = t }) }

// Split returns r as a kgo.Client of your own can write it to a topic that takes limit bytes, its max.message.bytes: r alone if it
// fits, otherwise its chunks, in order. A whole record as written counts, with key and headers, uncompressed. kgo puts several records
// into one batch, which the limit bounds too: set kgo.ProducerBatchMaxBytes to it (1,000,012 by default; a larger limit is of no use
// without).
//
// All chunks have r's key, so that a partitioner by key puts them on one partition, where they must be to be joined; if r has none
// they share a random one, and a header says so, and the joined message has none again. Write them all: of a message with one missing
// consumers dead-letter the others in time. Neither r nor its headers are changed; the values are parts of r's own.
//
// What cannot be split comes back whole, and writing it will tell that it is too large: key and headers alone exceed the limit, or
// it would take more than 1,024 chunks or has more than 64 MiB, which no consumer joins by default.
func Split(r *kgo.Record, limit int, opts ...SendOption) []*kgo.Record {
	r = prepare(r, opts)
	parts, err := wire.SplitSparing(r, newGroup(), limit, wire.DefaultLimits())
	if err != nil {
		return []*kgo.Record{r}
	}
	return parts
}

// prepare returns a copy of the record as the options want it.
func prepare(r *kgo.Record, opts []SendOption) *kgo.Record {
	var s sending
	for _, o := range opts {
		if o != nil {
			o.send(&s)
		}
	}
	c := *r
	if c.Timestamp.IsZero() {
		c.Timestamp = time.Now() // the same for all chunks
	}
	if !s.due.IsZero() {
		c.Headers = wire.AppendDue(wire.Undue(r.Headers), ceilMilli(s.due).UnixMilli())
	}
	return &c
}

// newGroup names a message in chunks.
func newGroup() (id [16]byte) {
	_, _ = rand.Read(id[:]) // it never fails
	return id
}

// pinned is the context of a chunk that must go where the first one went, whatever became of the topic's partitions meanwhile.
func pinned(ctx context.Context, partition int32) context.Context {
	return context.WithValue(ctx, pin{}, partition)
}

type pin struct{}

func pinOf(r *kgo.Record) (partition int, ok bool) {
	if r.Context == nil {
		return 0, false
	}
	n, ok := r.Context.Value(pin{}).(int32)
	return int(n), ok
}

// newPartitioner places records as kgo does by default, but for what is pinned.
func newPartitioner() kgo.Partitioner {
	return pinningPartitioner{kgo.UniformBytesPartitioner(64<<10, true, true, nil)}
}

type pinningPartitioner struct{ rest kgo.Partitioner }

// ForTopic implements kgo.Partitioner.
func (p pinningPartitioner) ForTopic(topic string) kgo.TopicPartitioner {
	return pinning{p.rest.ForTopic(topic).(kgo.TopicBackupPartitioner)} //nolint:forcetypeassert // it is one of kgo's that are
}

type pinning struct{ kgo.TopicBackupPartitioner }

// RequiresConsistency implements kgo.TopicPartitioner.
func (p pinning) RequiresConsistency(r *kgo.Record) bool {
	_, ok := pinOf(r)
	return ok || p.TopicBackupPartitioner.RequiresConsistency(r)
}

// PartitionByBackup implements kgo.TopicBackupPartitioner.
func (p pinning) PartitionByBackup(r *kgo.Record, n int, backup kgo.TopicBackupIter) int {
	if at, ok := pinOf(r); ok && at < n {
		return at
	}
	return p.TopicBackupPartitioner.PartitionByBackup(r, n, backup)
}
