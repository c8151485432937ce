package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// held handles records that are due at times of their own, which their values name, and tells how late the attempts were.
func held(ctx context.Context, j *job.Job, m *meter) error {
	var mu sync.Mutex
	late := make([]time.Duration, 0, j.Records)
	all := make(chan struct{})
	var early int
	c, err := newOurs(j, retriable.ByKey, func(_ context.Context, msg *retriable.Message) error {
		now := time.Now()
		m.begin()
		due, err := strconv.ParseInt(string(msg.Value), 10, 64)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		l := now.Sub(time.UnixMilli(due))
		if l < 0 {
			early++
		}
		late = append(late, l)
		if len(late) == int(j.Records) {
			m.stop(j.Records)
			close(all)
		}
		return nil
	})
	if err != nil {
		return err
	}
	most := 0
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-watching.Done():
				return
			case <-tick.C:
			}
			n := 0
			for _, p := range c.Stats().Partitions {
				n += p.Held
			}
			most = max(most, n)
		}
	})
	err = runUntil(ctx, c, all, func() (uint64, error) { return uint64(j.Records), nil })
	stop()
	watch.Wait()
	if err != nil {
		return err
	}
	if early > 0 {
		return fmt.Errorf("%d of %d attempts before they were due", early, len(late))
	}
	slices.Sort(late)
	at := func(share float64) float64 {
		return float64(late[min(len(late)-1, int(share*float64(len(late))))].Microseconds()) / 1000
	}
	m.extra["late_p50_ms"], m.extra["late_p99_ms"], m.extra["late_p999_ms"], m.extra["late_max_ms"] = at(0.5), at(0.99), at(0.999), at(1)
	m.extra["held_most"] = float64(most)
	for i, below := range job.LatenessBuckets {
		n, _ := slices.BinarySearch(late, time.Duration(below*float64(time.Millisecond)))
		m.extra[fmt.Sprintf("late_below_%02d", i)] = float64(n)
	}
	return nil
}
