package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

const batchBytes = 64 << 10 // or what one record takes

// fill makes the topic anew and produces its records: batches of 64 KiB, uncompressed, each key on one partition.
func (d data) fill(ctx context.Context, addrs []string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(int32(max(batchBytes, d.size+10_000))), kgo.ProducerLinger(20*time.Millisecond), kgo.MaxBufferedRecords(100_000),
		kgo.MaxBufferedBytes(64<<20))
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := create(ctx, kadm.NewClient(cl), d.partitions, d.topic); err != nil {
		return err
	}
	var failed atomic.Pointer[error]
	promise := func(_ *kgo.Record, err error) {
		if err != nil {
			failed.Store(&err)
		}
	}
	for r := range d.all() {
		cl.Produce(ctx, r, promise)
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// all are the records.
func (d data) all() func(yield func(*kgo.Record) bool) {
	return func(yield func(*kgo.Record) bool) {
		if d.records == 0 {
			return
		}
		key := d.keys(d.records)
		start := time.Now().Add(12 * time.Second)
		pad := strings.Repeat("x", max(d.size, 100))
		for i := range d.records {
			k := key(i)
			r := &kgo.Record{Topic: d.topic, Key: fmt.Appendf(nil, "%08d", k), Partition: int32(k % int64(d.partitions))}
			if i < d.waiting {
				r.Key, r.Partition = []byte(stuckKey), int32(i%int64(d.partitions))
			}
			if d.dueIn {
				due := start.Add(time.Duration(i) * time.Minute / time.Duration(d.records)).Truncate(time.Millisecond)
				r.Value = strconv.AppendInt(nil, due.UnixMilli(), 10)
				r = retriable.Split(r, 1_000_000, retriable.DeliverAt(due))[0]
			} else {
				head := fmt.Appendf(nil, `{"id":%d,"pad":"`, i)
				r.Value = append(append(head, pad[:d.size-len(head)-2]...), `"}`...)
			}
			if !yield(r) {
				return
			}
		}
	}
}

// create makes topics anew.
func create(ctx context.Context, adm *kadm.Client, partitions int32, topics ...string) error {
	if err := remove(ctx, adm, topics...); err != nil {
		return err
	}
	for {
		made, err := adm.CreateTopics(ctx, partitions, 1, nil, topics...)
		if err != nil {
			return err
		}
		err = made.Error()
		if err == nil {
			return known(ctx, adm, topics...)
		}
		if ctx.Err() != nil || !strings.Contains(err.Error(), "TOPIC_ALREADY_EXISTS") {
			return err
		}
		time.Sleep(100 * time.Millisecond) // it is being deleted
	}
}

// known returns once topics that were made can be written to: a broker says that they are there before it serves them.
func known(ctx context.Context, adm *kadm.Client, topics ...string) error {
	for {
		ends, err := adm.ListEndOffsets(ctx, topics...)
		if err != nil {
			return err
		}
		err = ends.Error()
		if err == nil && len(ends) == len(topics) {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func remove(ctx context.Context, adm *kadm.Client, topics ...string) error {
	gone, err := adm.DeleteTopics(ctx, topics...)
	if err != nil {
		return err
	}
	for _, t := range gone.Sorted() {
		if t.Err != nil && !strings.Contains(t.Err.Error(), "UNKNOWN_TOPIC_OR_PARTITION") {
			err = errors.Join(err, t.Err)
		}
	}
	return err
}
