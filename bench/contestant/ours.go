package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// newOurs has everything on that a service has on: a retry topic, a dead-letter topic, the map, commits. There are no hooks.
func newOurs(j *job.Job, order retriable.Order, h retriable.HandlerFunc, opts ...retriable.Option) (*retriable.Consumer, error) {
	all := []retriable.Option{
		retriable.Brokers(j.Brokers...), retriable.Concurrency(j.Workers), retriable.Logger(slog.Default()),
		retriable.Topic(j.Topic, h, retriable.Ordering(order), retriable.RetryTopic(j.Retry), retriable.DeadLetterTopic(j.Dead),
			retriable.Backoff(retriable.Constant(0)), retriable.Scheduled(time.Hour)),
	}
	return retriable.New(j.Group, append(all, opts...)...)
}

// ours is this library with one of its orders.
func ours(order retriable.Order, opts ...retriable.Option) func(context.Context, *job.Job, *meter) error {
	return func(ctx context.Context, j *job.Job, m *meter) error {
		lasts, err := lastOffsets(ctx, j)
		if err != nil {
			return err
		}
		all := make(chan struct{})
		h, handled := handler(j, m, lasts, all)
		c, err := newOurs(j, order, h, append(opts, retriable.Kafka(m.clock()))...)
		if err != nil {
			return err
		}
		return runUntil(ctx, c, all, func() (uint64, error) {
			handled(c)
			return uint64(j.Records), nil
		})
	}
}

// recycle is for handlers that keep nothing.
var recycle = retriable.Defaults(retriable.Recycle())

// runUntil runs a consumer until all is closed and after has returned, which says how many records must have ended then: handled, or
// dead-lettered.
func runUntil(ctx context.Context, c *retriable.Consumer, all <-chan struct{}, after func() (uint64, error)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var want uint64
	var failed error
	var watch sync.WaitGroup
	watch.Go(func() {
		defer stop()
		select {
		case <-all:
			want, failed = after()
		case <-ctx.Done():
			failed = errors.New("the time was up")
		}
	})
	err := c.Run(ctx)
	stop()
	watch.Wait()
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	if s := c.Stats(); s.Handled+s.DeadLettered != want {
		return fmt.Errorf("handled %d of %d; %+v", s.Handled, want, s)
	}
	return nil
}

// handler makes the handler that the job is about. It closes all when the last record is in hand, or nearly so; handled then waits until
// the consumer has handled all and stops the meter.
//
// Nobody counts where a handler does nothing, for a counter that workers share costs as much as the library does: handlers look out for
// the last record of each partition, and only from then on the consumer is asked.
func handler(j *job.Job, m *meter, lasts []int64, all chan struct{}) (h retriable.HandlerFunc, handled func(*retriable.Consumer)) {
	if j.SleepMS == 0 && !j.FailOnce && j.Poison == 0 && j.Stuck == "" {
		var left atomic.Int64
		left.Store(int64(len(lasts) - countEmpty(lasts)))
		h = func(_ context.Context, msg *retriable.Message) error {
			nothing(msg.Record)
			if msg.Source.Offset == lasts[msg.Source.Partition] && left.Add(-1) == 0 {
				close(all)
			}
			return nil
		}
		return h, func(c *retriable.Consumer) {
			for c.Stats().Handled < uint64(j.Records) {
				time.Sleep(100 * time.Microsecond)
			}
			m.stop(j.Records)
		}
	}
	want := j.Records - j.Waiting
	var n atomic.Int64
	done := func() {
		if n.Add(1) == want {
			close(all)
		}
	}
	freed := make(chan struct{})
	h = func(_ context.Context, msg *retriable.Message) error {
		switch {
		case j.FailOnce && msg.Attempt == 1:
			return errOnce
		case j.Poison != 0 && msg.Offset%j.Poison == 0:
			done()
			return retriable.Permanent(errOnce)
		case j.Stuck != "" && string(msg.Key) == j.Stuck:
			<-freed
			return nil
		}
		nothing(msg.Record)
		if j.SleepMS > 0 {
			m.sleep(j.Sleep())
		}
		done()
		return nil
	}
	return h, func(*retriable.Consumer) {
		m.stop(j.Records)
		close(freed)
	}
}

var errOnce = errors.New("once")

func countEmpty(lasts []int64) (n int) {
	for _, l := range lasts {
		if l < 0 {
			n++
		}
	}
	return n
}

// lastOffsets are by partition; -1 where there is no record.
func lastOffsets(ctx context.Context, j *job.Job) ([]int64, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(j.Brokers...))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, j.Topic)
	if err := errors.Join(err, ends.Error()); err != nil {
		return nil, err
	}
	lasts := slices.Repeat([]int64{-1}, len(ends[j.Topic]))
	ends.Each(func(o kadm.ListedOffset) { lasts[o.Partition] = o.Offset - 1 })
	return lasts, nil
}
