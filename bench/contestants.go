package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// job is what one contestant does in its own process.
type job struct {
	seeds   []string
	topic   string
	group   string
	records int64
	workers int
	meter   *meter
}

// contestants by name; each returns once the records are handled.
var contestants = map[string]func(context.Context, *job) error{
	"serial":      serial,
	"unordered":   func(ctx context.Context, j *job) error { return ours(ctx, j, retriable.Unordered) },
	"bypartition": func(ctx context.Context, j *job) error { return ours(ctx, j, retriable.ByPartition) },
	"bykey":       func(ctx context.Context, j *job) error { return ours(ctx, j, retriable.ByKey) },
}

// serial is the bare kgo loop: poll, handle, mark by partition, auto-commit of what is marked.
func serial(ctx context.Context, j *job) error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(j.seeds...), kgo.ConsumerGroup(j.group), kgo.ConsumeTopics(j.topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.AutoCommitMarks(),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	var n int64
	for n < j.records {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return err
		}
		j.meter.begin()
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, r := range p.Records {
				handle(r)
				n++
			}
			if len(p.Records) > 0 {
				cl.MarkCommitRecords(p.Records[len(p.Records)-1])
			}
		})
	}
	j.meter.end(n)
	return cl.CommitMarkedOffsets(ctx)
}

var sink atomic.Int64

// handle is the no-op handler, kept from being optimised away.
func handle(r *kgo.Record) {
	if len(r.Value) == 0 {
		sink.Add(1)
	}
}

// ours is this library.
func ours(ctx context.Context, j *job, order retriable.Order) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var n [64]struct {
		atomic.Int64
		_ [56]byte
	}
	done := make(chan struct{})
	var c *retriable.Consumer
	h := retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
		handle(m.Record)
		n[m.Partition&63].Add(1)
		return nil
	})
	c, err := retriable.New(j.group, retriable.Brokers(j.seeds...), retriable.Concurrency(j.workers), retriable.Logger(slog.Default()),
		retriable.Topic(j.topic, h, retriable.NoDeadLetters(), retriable.Ordering(order)))
	if err != nil {
		return err
	}
	go func() {
		defer close(done)
		<-c.Ready()
		for total := int64(0); total < j.records && ctx.Err() == nil; {
			total = 0
			for i := range n {
				total += n[i].Load()
			}
			if total > 0 {
				j.meter.begin()
			}
			time.Sleep(time.Millisecond)
		}
		j.meter.end(j.records)
		cancel()
	}()
	if err := c.Run(ctx); err != nil {
		return err
	}
	<-done
	if s := c.Stats(); s.Handled != uint64(j.records) {
		return fmt.Errorf("handled %d of %d", s.Handled, j.records)
	}
	return nil
}
