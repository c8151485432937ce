package main

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// member joins a group and tells each record that it handles. Ready is closed once it consumes; stop makes it leave, and returns when it has.
type member func(ctx context.Context, j *job.Job, tell func(*kgo.Record)) (ready <-chan struct{}, stop func() error, err error)

// takeover has a second member join the first under a steady load, and then the first one leave: how long until the one that comes has its first
// record, and how long the slowest record waited meanwhile.
func takeover(join member) func(context.Context, *job.Job, *meter) error {
	return func(ctx context.Context, j *job.Job, m *meter) error {
		log := &latencies{}
		hear := func(who int) func(*kgo.Record) {
			return func(r *kgo.Record) { log.add(who, r) }
		}
		begin := time.Now()
		_, stopFirst, err := join(ctx, j, hear(0))
		if err != nil {
			return err
		}
		load, stopLoad := context.WithCancel(ctx)
		defer stopLoad()
		sent := make(chan int64, 1)
		go func() { sent <- produceSteadily(load, j) }()
		if err := log.wait(ctx, 0); err != nil {
			return errors.Join(err, stopFirst())
		}
		m.extra["start_s"] = time.Since(begin).Seconds()
		m.begin()
		time.Sleep(2 * time.Second)

		log.reset()
		begin = time.Now()
		_, stopSecond, err := join(ctx, j, hear(1))
		if err != nil {
			return err
		}
		if err := log.wait(ctx, 1); err != nil {
			return err
		}
		m.extra["second_start_s"] = time.Since(begin).Seconds()
		time.Sleep(3 * time.Second)
		m.extra["join_wait_ms"] = log.reset()

		begin = time.Now()
		if err := stopFirst(); err != nil {
			return err
		}
		m.extra["leave_s"] = time.Since(begin).Seconds()
		time.Sleep(3 * time.Second)
		m.extra["leave_wait_ms"] = log.reset()

		stopLoad()
		n := <-sent
		for log.count() < n && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		m.extra["handled_again"] = float64(log.count() - n)
		j.Records = n
		m.stop(n)
		return stopSecond()
	}
}

// latencies are from a record's timestamp to its handler.
type latencies struct {
	mu    sync.Mutex
	most  time.Duration
	total int64
	heard [2]bool
}

func (l *latencies) add(who int, r *kgo.Record) {
	sent, err := strconv.ParseInt(string(r.Value), 10, 64)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	l.heard[who] = true
	l.most = max(l.most, time.Since(time.UnixMicro(sent)))
}

func (l *latencies) count() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

func (l *latencies) reset() (ms float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ms = float64(l.most.Microseconds()) / 1000
	l.most = 0
	return ms
}

func (l *latencies) wait(ctx context.Context, who int) error {
	for {
		l.mu.Lock()
		heard := l.heard[who]
		l.mu.Unlock()
		if heard {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// produceSteadily writes a thousand records a second, each with the time in its value, until ctx ends, and returns how many.
func produceSteadily(ctx context.Context, j *job.Job) (n int64) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(j.Brokers...), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.ProducerLinger(0))
	if err != nil {
		return 0
	}
	defer cl.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = cl.Flush(context.WithoutCancel(ctx)) // what is missing shows in the count
			return n
		case <-tick.C:
		}
		for range 10 {
			cl.Produce(context.WithoutCancel(ctx), &kgo.Record{Topic: j.Topic, Value: strconv.AppendInt(nil, time.Now().UnixMicro(), 10)}, nil)
			n++
		}
	}
}

func oursMember(ctx context.Context, j *job.Job, tell func(*kgo.Record)) (<-chan struct{}, func() error, error) {
	c, err := newOurs(j, retriable.ByKey, func(_ context.Context, m *retriable.Message) error {
		tell(m.Record)
		return nil
	}, retriable.Logger(slog.Default()))
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	return c.Ready(), func() error {
		cancel()
		return <-ended
	}, nil
}

// bareMember is the serial loop, with kgo's defaults for groups: cooperative-sticky, marks, a commit when it gives partitions up.
func bareMember(ctx context.Context, j *job.Job, tell func(*kgo.Record)) (<-chan struct{}, func() error, error) {
	commit := func(ctx context.Context, cl *kgo.Client, _ map[string][]int32) { _ = cl.CommitMarkedOffsets(ctx) }
	cl, err := bare(j, kgo.AutoCommitMarks(), kgo.BlockRebalanceOnPoll(), kgo.OnPartitionsRevoked(commit))
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			fs := cl.PollFetches(ctx)
			if ctx.Err() != nil {
				return
			}
			fs.EachRecord(func(r *kgo.Record) {
				tell(r)
				cl.MarkCommitRecords(r)
			})
			cl.AllowRebalance()
		}
	}()
	return nil, func() error {
		cancel()
		<-ended
		cl.CloseAllowingRebalance()
		return nil
	}, nil
}
