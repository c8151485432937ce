package main

import (
	"context"
	"encoding/binary"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
)

var sink atomic.Uint64

// nothing is the handler that does nothing, kept from being optimised away.
//
//go:noinline
func nothing(r *kgo.Record) uint64 { return uint64(len(r.Value)) + uint64(len(r.Key)) }

func bare(j *job.Job, opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(j.Brokers...), kgo.ConsumerGroup(j.Group), kgo.ConsumeTopics(j.Topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
	}, opts...)...)
}

// serial is the least that a consumer does: poll, handle, mark the last of each partition, and the client commits what is marked. Poison goes to
// the dead-letter topic, all of a poll at once, before anything of the poll is marked.
func serial(ctx context.Context, j *job.Job, m *meter) error {
	if j.FailOnce {
		return serialRetry(ctx, j, m)
	}
	return serialWith(ctx, j, m)
}

// serialSmall fetches as much at once as this library does by default.
func serialSmall(ctx context.Context, j *job.Job, m *meter) error {
	return serialWith(ctx, j, m, kgo.FetchMaxBytes(6<<20))
}

func serialWith(ctx context.Context, j *job.Job, m *meter, opts ...kgo.Opt) error {
	cl, err := bare(j, append(opts, m.clock(), kgo.AutoCommitMarks(), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	var n int64
	var s uint64
	var letters []*kgo.Record
	for n < j.Records {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return err
		}
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, r := range p.Records {
				if j.Poison != 0 && r.Offset%j.Poison == 0 {
					letters = append(letters, &kgo.Record{Topic: j.Dead, Key: r.Key, Value: r.Value, Headers: r.Headers})
				} else {
					s += nothing(r)
				}
			}
			n += int64(len(p.Records))
		})
		if len(letters) > 0 {
			if err := cl.ProduceSync(ctx, letters...).FirstErr(); err != nil {
				return err
			}
			letters = nil
		}
		markLasts(cl, fs)
	}
	m.stop(n)
	sink.Add(s)
	return cl.CommitMarkedOffsets(ctx)
}

// markLasts marks the last record of each partition, and with it all before.
func markLasts(cl *kgo.Client, fs kgo.Fetches) {
	fs.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) > 0 {
			cl.MarkCommitRecords(p.Records[len(p.Records)-1])
		}
	})
}

// serialRetry is the least that a retry topic costs: the serial loop writes all of a poll of the base topic to it, with as many headers as this
// library needs to say the same, waits for the acks, and handles what comes from there. It waits for nothing to come due and no record passes another.
func serialRetry(ctx context.Context, j *job.Job, m *meter) error {
	cl, err := bare(j, m.clock(), kgo.ConsumeTopics(j.Topic, j.Retry), kgo.AutoCommitMarks(), kgo.FetchMaxBytes(6<<20), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(1<<20))
	if err != nil {
		return err
	}
	defer cl.Close()
	var n int64
	var s uint64
	for n < j.Records {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return err
		}
		var copies []*kgo.Record
		fs.EachRecord(func(r *kgo.Record) {
			if r.Topic == j.Topic {
				copies = append(copies, &kgo.Record{Topic: j.Retry, Key: r.Key, Value: r.Value, Headers: retryHeaders(j, r)})
				return
			}
			n++
			s += nothing(r)
		})
		if err := cl.ProduceSync(ctx, copies...).FirstErr(); err != nil {
			return err
		}
		markLasts(cl, fs)
	}
	m.stop(n)
	sink.Add(s)
	return cl.CommitMarkedOffsets(ctx)
}

// retryHeaders say what the library's own do.
func retryHeaders(j *job.Job, r *kgo.Record) []kgo.RecordHeader {
	now := time.Now().UnixMilli()
	number := func(v int64) []byte { return strconv.AppendInt(nil, v, 10) }
	return []kgo.RecordHeader{
		{Key: "retriable_kafka_attempt", Value: binary.BigEndian.AppendUint64(nil, 1)},
		{Key: "retriable_kafka_timestamp", Value: binary.BigEndian.AppendUint64(nil, uint64(now/1000+1))},
		{Key: "retriable_due", Value: number(now)},
		{Key: "retriable_group", Value: []byte(j.Group)},
		{Key: "retriable_topic", Value: []byte(r.Topic)},
		{Key: "retriable_partition", Value: number(int64(r.Partition))},
		{Key: "retriable_offset", Value: number(r.Offset)},
		{Key: "retriable_time", Value: number(r.Timestamp.UnixMilli())},
		{Key: "retriable_first_failure", Value: number(now)},
		{Key: "retriable_error", Value: []byte(errOnce.Error())},
	}
}

// lane is one partition's goroutine.
type lane struct {
	quit, done chan struct{}
	records    chan []*kgo.Record
}

// perPartition is franz-go's own example goroutine_per_partition_consuming, autocommit_marks.
func perPartition(ctx context.Context, j *job.Job, m *meter) error {
	var n atomic.Int64
	all := make(chan struct{})
	lanes := map[int32]*lane{}
	drop := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
		for _, p := range lost[j.Topic] {
			l := lanes[p]
			delete(lanes, p)
			close(l.quit)
			<-l.done
		}
	}
	work := func(cl *kgo.Client, l *lane) {
		defer close(l.done)
		for {
			select {
			case <-l.quit:
				return
			case rs := <-l.records:
				var s uint64
				for _, r := range rs {
					s += nothing(r)
				}
				sink.Add(s)
				cl.MarkCommitRecords(rs...)
				if n.Add(int64(len(rs))) == j.Records {
					close(all)
				}
			}
		}
	}
	cl, err := bare(j, m.clock(), kgo.AutoCommitMarks(), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, cl *kgo.Client, added map[string][]int32) {
			for _, p := range added[j.Topic] {
				lanes[p] = &lane{make(chan struct{}), make(chan struct{}), make(chan []*kgo.Record, 5)}
				go work(cl, lanes[p])
			}
		}),
		kgo.OnPartitionsRevoked(func(ctx context.Context, cl *kgo.Client, lost map[string][]int32) {
			drop(ctx, cl, lost)
			_ = cl.CommitMarkedOffsets(ctx) // the command compares what is committed
		}),
		kgo.OnPartitionsLost(drop))
	if err != nil {
		return err
	}
	polling, stop := context.WithCancel(ctx)
	defer stop()
	var polls sync.WaitGroup
	polls.Go(func() {
		for {
			fs := cl.PollRecords(polling, 10_000)
			if polling.Err() != nil {
				return
			}
			fs.EachPartition(func(p kgo.FetchTopicPartition) { lanes[p.Partition].records <- p.Records })
			cl.AllowRebalance()
		}
	})
	select {
	case <-all:
		m.stop(n.Load())
	case <-ctx.Done():
	}
	stop()
	polls.Wait()
	cl.CloseAllowingRebalance()
	return ctx.Err()
}

// naivePool hands records to workers through a channel and lets the client commit by itself what the poll before brought, handled or not: it
// loses records. It bounds from below what a pool costs.
func naivePool(ctx context.Context, j *job.Job, m *meter) error { return pool(ctx, j, m, false) }

// barrierPool waits until all of a poll is handled, then marks it: nothing is lost, and one slow record stops everything.
func barrierPool(ctx context.Context, j *job.Job, m *meter) error { return pool(ctx, j, m, true) }

func pool(ctx context.Context, j *job.Job, m *meter, barrier bool) error {
	opts := []kgo.Opt{m.clock()}
	if barrier {
		opts = append(opts, kgo.AutoCommitMarks())
	}
	cl, err := bare(j, opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	records := make(chan *kgo.Record, 1024)
	var poll, workers sync.WaitGroup
	for range j.Workers {
		workers.Go(func() {
			var s uint64
			for r := range records {
				s += nothing(r)
				if j.SleepMS > 0 {
					m.sleep(j.Sleep())
				}
				if barrier {
					poll.Done()
				}
			}
			sink.Add(s)
		})
	}
	at := 1000
	if barrier && j.Workers > 100 {
		at = 10 * j.Workers // or most of them would wait at each barrier
	}
	var n int64
	for n < j.Records {
		fs := cl.PollRecords(ctx, at)
		if err := fs.Err(); err != nil {
			return err
		}
		if barrier {
			poll.Add(fs.NumRecords())
		}
		fs.EachRecord(func(r *kgo.Record) { records <- r })
		if barrier {
			poll.Wait()
			cl.MarkCommitRecords(fs.Records()...)
		}
		n += int64(fs.NumRecords())
	}
	close(records)
	workers.Wait()
	m.stop(n)
	if barrier {
		return cl.CommitMarkedOffsets(ctx)
	}
	return cl.CommitUncommittedOffsets(ctx)
}
