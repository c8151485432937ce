// Command contestant is one contestant of the benchmark, for as long as its job takes. The command above starts it.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/pprof"
	"time"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// contestants by name. Each returns once its records are handled and their offsets committed.
var contestants = map[string]func(context.Context, *job.Job, *meter) error{
	"serial":      serial,
	"serial-6m":   serialSmall,
	"partition":   perPartition,
	"pool":        naivePool,
	"barrier":     barrierPool,
	"bykey":       ours(retriable.ByKey),
	"bypartition": ours(retriable.ByPartition),
	"unordered":   ours(retriable.Unordered),

	"bykey-recycle":       ours(retriable.ByKey, recycle),
	"bypartition-recycle": ours(retriable.ByPartition, recycle),
	"unordered-recycle":   ours(retriable.Unordered, recycle),

	"kafka-go":  kafkaGo,
	"watermill": watermillRouter,

	"hoard":             hoard,
	"pending-bykey":     pending(retriable.ByKey),
	"pending-unordered": pending(retriable.Unordered),
	"held":              held,
	"takeover":          takeover(oursMember),
	"takeover-kgo":      takeover(bareMember),
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	j, err := job.Parse(os.Args)
	if err != nil {
		return err
	}
	compete := contestants[j.Contestant]
	if compete == nil {
		return fmt.Errorf("no contestant %q", j.Contestant)
	}
	if j.Profile != "" {
		out, err := os.Create(j.Profile)
		if err != nil {
			return err
		}
		defer out.Close()
		if err := pprof.StartCPUProfile(out); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	m := newMeter()
	if err := compete(ctx, j, m); err != nil {
		return fmt.Errorf("%s: %w", j.Contestant, err)
	}
	f := m.figures()
	if f.Records != j.Records {
		return fmt.Errorf("%s handled %d records of %d", j.Contestant, f.Records, j.Records)
	}
	return f.Print(os.Stdout)
}
