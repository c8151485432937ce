package main

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// heap is what is in use once all garbage is gone.
func heap() float64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return float64(s.HeapAlloc)
}

// hoard is the bare client, keeping all records that it reads: what a record takes that nobody tracks.
func hoard(ctx context.Context, j *job.Job, m *meter) error {
	before := heap()
	cl, err := bare(j)
	if err != nil {
		return err
	}
	defer cl.Close()
	kept := make([][]*kgo.Record, 0, 100_000)
	var n int64
	for n < j.Records {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return err
		}
		m.begin()
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			kept = append(kept, p.Records)
			n += int64(len(p.Records))
		})
	}
	m.extra["bytes_per_pending"] = (heap() - before) / float64(n)
	m.stop(n)
	runtime.KeepAlive(kept)
	return nil
}

// pending lets no handler return until so many records as the job says are read and pending, weighs them, and then lets all go. Those
// that are pending have one key in each partition, so that by key a worker for each partition is at work.
func pending(order retriable.Order) func(context.Context, *job.Job, *meter) error {
	return func(ctx context.Context, j *job.Job, m *meter) error {
		before := heap()
		all, freed := make(chan struct{}), make(chan struct{})
		var others, waiting atomic.Int64
		want := j.Records - j.Waiting
		h := func(_ context.Context, msg *retriable.Message) error {
			m.begin()
			if string(msg.Key) == j.Stuck {
				waiting.Add(1)
				<-freed
				return nil
			}
			nothing(msg.Record)
			if others.Add(1) == want {
				close(all)
			}
			return nil
		}
		if want == 0 {
			close(all)
		}
		c, err := newOurs(j, order, h, retriable.MaxPending(100_000), retriable.MaxPendingBytes(2<<30), retriable.StuckAfter(time.Hour))
		if err != nil {
			return err
		}
		return runUntil(ctx, c, all, func() (uint64, error) {
			for pendingIn(c) < j.Waiting && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			m.extra["pending"] = float64(pendingIn(c))
			cpu := cpuSeconds()
			m.extra["bytes_per_pending"] = (heap() - before) / float64(max(1, j.Waiting))
			weighing := cpuSeconds() - cpu
			close(freed)
			for c.Stats().Handled < uint64(j.Records) && ctx.Err() == nil {
				time.Sleep(5 * time.Millisecond)
			}
			m.stop(j.Records)
			m.endCPU -= weighing
			return uint64(j.Records), ctx.Err()
		})
	}
}

func pendingIn(c *retriable.Consumer) (n int64) {
	for _, p := range c.Stats().Partitions {
		n += int64(p.Pending)
	}
	return n
}
