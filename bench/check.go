package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
	"github.com/retriable-kafka/retriable-go/bench/internal/result"
)

// What must hold on every machine, busy or not. Rates are no part of it.
const (
	mostAllocations = 0.05  // a record
	mostBytes       = 200.0 // a pending record, beside kgo's own
	mostEncoding    = 3e6   // ns a commit, at a window of a million; 1 ms on a quiet machine
)

// check is the short form. Each contestant fails by itself unless it handles and commits all of its records.
func (b *bench) check(ctx context.Context) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	run := func(name string, change func(*scenario)) *result.Invocation {
		s := named(name)
		s.rounds = 1
		change(&s)
		inv, err := b.rounds(ctx, s)
		if err != nil {
			bad("%s: %w", name, err)
			return &result.Invocation{}
		}
		for _, c := range inv.Contestants {
			if c.Missing != "" {
				bad("%s, %s: %s", name, c.Name, c.Missing)
			}
		}
		return inv
	}
	records := func(n int64, contestants int) func(*scenario) {
		return func(s *scenario) {
			s.data.topic, s.data.records = s.name, n
			s.contestants = s.contestants[:contestants]
		}
	}

	for _, c := range run("noop", records(2_000_000, 4)).Contestants {
		if a := c.Over(func(f *job.Figures) float64 { return f.Allocations }).Median; a > mostAllocations {
			bad("noop, %s: %.4f allocations a record, at most %.2f", c.Name, a, mostAllocations)
		}
	}
	run("retry", records(50_000, 3))
	run("poison", records(100_000, 4))
	memory := run("memory", func(s *scenario) {
		s.data.records, s.data.waiting, s.job.Waiting = 200_000, 200_000, 200_000
	})
	weight := func(f *job.Figures) float64 { return f.Extra["bytes_per_pending"] }
	if bare := memory.Of("hoard"); bare != nil {
		for _, name := range []string{"unordered", "bykey"} {
			if w := memory.Of(name).Over(weight).Median - bare.Over(weight).Median; w > mostBytes {
				bad("memory, %s: %.0f bytes a pending record beside kgo's, at most %.0f", name, w, mostBytes)
			}
		}
	}
	commit, err := microbenchmarks(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for name, ns := range commit.Rounds[0].Figures.Extra {
		if ns > mostEncoding {
			bad("a commit at window %s: %.2f ms, at most %.2f", name, ns/1e6, mostEncoding/1e6)
		}
	}
	return errors.Join(errs...)
}

func named(name string) scenario {
	for _, s := range scenarios() {
		if s.name == name {
			return s
		}
	}
	panic("no scenario " + name)
}
