package stories_test

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

// Full maps of 300 partitions are 1.2 MB, more than a broker takes in one commit. All are committed within every interval all the same, while
// records finish in each partition. The first of each waits, and of the rest one in two, at random. To read and hold that of 300 partitions takes
// gigabytes, so one is filled, and what it committed becomes the others' commit: they hold as many records.
func TestThreeHundredFullMapsAreCommittedInEveryInterval(t *testing.T) {
	const partitions, batches, perBatch, intervals = 300, 50, 500, 6
	b := story(t, time.Minute)
	topic, group := b.topic("orders", partitions), b.name("group")
	b.fillAlike(topic, 0, 1, batches, perBatch)

	var mu sync.Mutex
	finished := make([][batches * perBatch]bool, partitions)
	first := b.start(group, retriable.MaxPending(batches*perBatch), retriable.Kafka(kgo.FetchMaxPartitionBytes(4<<10)),
		retriable.Topic(topic, handles(func(m *retriable.Message) error {
			if m.Offset == 0 || rand.IntN(2) == 0 {
				return retriable.Postpone(time.Hour)
			}
			mu.Lock()
			defer mu.Unlock()
			finished[0][m.Offset] = true
			return nil
		}), retriable.NoDeadLetters()), retriable.MaxHeld(batches*perBatch))
	b.await("a map is full", 20*time.Second, func() bool {
		p, ok := first.part(topic, 0)
		return ok && p.Paused && p.Pending == 0
	})
	first.clean()
	b.fillAlike(topic, 1, partitions, batches, perBatch)
	b.copyCommit(group, topic, partitions)
	for p := range finished {
		finished[p] = finished[0]
	}

	// Each finishes some twenty records a second.
	seen := map[retriable.Position]bool{}
	commits := newCommits()
	c := b.start(group, retriable.MaxHeld(200), retriable.Hooks(commits), retriable.Kafka(kgo.FetchMaxPartitionBytes(4<<10)),
		retriable.Topic(topic, handles(func(m *retriable.Message) error {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case m.Offset == 0:
				return retriable.Postpone(time.Hour)
			case finished[m.Partition][m.Offset]:
				t.Errorf("%v is delivered again", m.Source)
			case !seen[m.Source]:
				seen[m.Source] = true
				return retriable.Postpone(rand.N(10 * time.Second))
			}
			finished[m.Partition][m.Offset] = true
			return nil
		}), retriable.NoDeadLetters()))
	b.await("each has committed", 20*time.Second, func() bool { return commits.least(partitions) >= 2 })
	began, before := time.Now(), commits.least(partitions)
	b.await("and goes on", 2*intervals*time.Second, func() bool { return commits.least(partitions) >= before+intervals })
	took, least := time.Since(began).Round(time.Millisecond), 1.0
	s := c.Stats()
	for _, p := range s.Partitions {
		least = min(least, p.MapFill)
	}
	t.Logf("%d partitions with maps at least %.3f full: %d commits of each in %v", len(s.Partitions), least, intervals, took)
	if took > (intervals+1)*time.Second {
		t.Errorf("%d commits of each took %v", intervals, took)
	}
	if least < 0.9 || len(s.Partitions) != partitions || s.MapCuts > 0 {
		t.Errorf("%d partitions, with maps of which one is %v full; %d were cut", len(s.Partitions), least, s.MapCuts)
	}
	c.clean()
	commits.each(b)

	os, err := b.adm.FetchOffsets(b.limit, group)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for p := range finished {
		o, _ := os.Lookup(topic, int32(p))
		m, ok := admin.DecodeMap(o.Metadata, o.At, batches*perBatch)
		if !ok || o.At != 0 || len(o.Metadata) < 3686 {
			t.Fatalf("partition %d: committed %d with %d characters", p, o.At, len(o.Metadata))
		}
		for at, done := range finished[p] {
			if m.Has(int64(at)) != done {
				t.Fatalf("partition %d: %d is finished: %v; the committed map says %v", p, at, done, !done)
			}
		}
	}
}

// commits counts, as a HookCommitted, those of each partition.
type commits struct {
	mu      sync.Mutex
	of      map[int32]int
	refused error
}

func newCommits() *commits { return &commits{of: map[int32]int{}} }

func (c *commits) OnCommitted(e retriable.Committed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Err != nil {
		c.refused = e.Err
		return
	}
	c.of[e.Partition]++
}

// least is the count of the partition that has the fewest.
func (c *commits) least(partitions int32) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.of[0]
	for p := range partitions {
		n = min(n, c.of[p])
	}
	return n
}

// each fails if one was refused.
func (c *commits) each(b *bed) {
	b.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused != nil {
		b.Errorf("a commit was refused: %v", c.refused)
	}
}

// copyCommit makes what is committed of a topic's first partition the commit of all.
func (b *bed) copyCommit(group, topic string, partitions int32) {
	b.Helper()
	os, err := b.adm.FetchOffsets(b.limit, group)
	if err != nil {
		b.Fatal(err)
	}
	o, _ := os.Lookup(topic, 0)
	b.Logf("a full map has %d characters", len(o.Metadata))
	for p := range partitions {
		var one kadm.Offsets
		o.Partition = p
		one.Add(o.Offset)
		if err := b.adm.CommitAllOffsets(b.limit, group, one); err != nil {
			b.Fatal(err)
		}
	}
}

// fillAlike writes the same batches of empty records to the partitions below to.
func (b *bed) fillAlike(topic string, from, to int32, batches, records int) {
	b.Helper()
	ts, err := b.adm.ListTopics(b.limit, topic)
	if err != nil {
		b.Fatal(err)
	}
	batch := emptyBatch(records)
	for range batches {
		var left []kmsg.ProduceRequestTopicPartition
		for p := from; p < to; p++ {
			part := kmsg.NewProduceRequestTopicPartition()
			part.Partition, part.Records = p, batch
			left = append(left, part)
		}
		b.await("all are written", 10*time.Second, func() bool {
			left = b.produceRaw(topic, ts[topic].ID, left)
			return len(left) == 0
		})
	}
	ends := b.ends(topic)
	for p := from; p < to; p++ {
		b.wantEqual(fmt.Sprint("end of partition ", p), ends[p], batches*records)
	}
}

// produceRaw writes a batch to each of some partitions and returns those that were refused because their leader is not ready yet.
func (b *bed) produceRaw(topic string, id kadm.TopicID, parts []kmsg.ProduceRequestTopicPartition) (left []kmsg.ProduceRequestTopicPartition) {
	b.Helper()
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.TopicID, t.Partitions = topic, id, parts
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis, req.Topics = -1, 10_000, append(req.Topics, t)
	resp, err := req.RequestWith(b.limit, b.cl)
	if err != nil {
		b.Fatalf("producing: %v", err)
	}
	refused := map[int32]error{}
	for _, p := range resp.Topics[0].Partitions {
		refused[p.Partition] = kerr.ErrorForCode(p.ErrorCode)
	}
	return slices.DeleteFunc(parts, func(p kmsg.ProduceRequestTopicPartition) bool {
		err := refused[p.Partition]
		if err != nil && !kerr.IsRetriable(err) {
			b.Fatalf("producing to partition %d: %v", p.Partition, err)
		}
		return err == nil
	})
}

// emptyBatch is a batch of so many records without key and value.
func emptyBatch(n int) []byte {
	now := time.Now().UnixMilli()
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(n - 1), FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(n),
	}
	for i := range n {
		r := kmsg.Record{OffsetDelta: int32(i)}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		batch.Records = r.AppendTo(batch.Records)
	}
	const afterLength, afterSum = 12, 21
	batch.Length = int32(len(batch.AppendTo(nil)) - afterLength)
	batch.CRC = int32(crc32.Checksum(batch.AppendTo(nil)[afterSum:], crc32.MakeTable(crc32.Castagnoli)))
	return batch.AppendTo(nil)
}
