// Command bench measures the library against a bare kgo loop and its peers on a real Kafka, and makes the tables and plots of
// docs/performance.md of what it has measured.
//
//	go run .                          # all scenarios; brings up a Kafka, produces once, runs everybody: about half an hour
//	go run . -scenarios noop,retry    # some of them
//	go run . -page                    # docs/performance.md anew, from results/
//	go run . -check                   # a short form that only asserts what holds on any machine
//
// Each contestant is a process of its own. Rounds are interleaved, and what counts is the ratio within a round, for machines are noisy.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/retriable-kafka/retriable-go/bench/page"
	"github.com/retriable-kafka/retriable-go/integration/broker"
)

var (
	only    = flag.String("scenarios", "", "comma-separated; all if empty. A name that ends in * means all that begin so")
	who     = flag.String("contestants", "", "comma-separated; all if empty")
	rounds  = flag.Int("rounds", 9, "the most rounds of a contestant")
	scale   = flag.Float64("scale", 1, "of the number of records, for trying it out; results are then not kept")
	add     = flag.Bool("add", false, "keep the results of earlier runs beside this one's")
	dir     = flag.String("results", "results", "the folder of the results")
	seeds   = flag.String("seeds", "", "brokers to use; otherwise as the integration tests do")
	profile = flag.String("cpuprofile", "", "folder for CPU profiles of the Go contestants")
	pages   = flag.Bool("page", false, "only make the page anew")
	check   = flag.Bool("check", false, "the short form, for CI: fails if something that does not depend on the machine is not so")
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if *pages {
		return page.Write(*dir, "../docs")
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	addrs, release, err := brokers(ctx)
	if err != nil {
		return err
	}
	defer release()
	b, err := newBench(ctx, addrs)
	if err != nil {
		return err
	}
	defer b.close()
	if *check {
		return b.check(ctx)
	}
	for _, s := range chosen {
		if err := b.measure(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if *scale != 1 || *dir != "results" {
		return nil
	}
	return page.Write(*dir, "../docs")
}

func choose(names string) ([]scenario, error) {
	all := scenarios()
	if names == "" {
		return all, nil
	}
	var chosen []scenario
	for name := range strings.SplitSeq(names, ",") {
		prefix, many := strings.CutSuffix(name, "*")
		n := len(chosen)
		for _, s := range all {
			if s.name == name || many && strings.HasPrefix(s.name, prefix) {
				chosen = append(chosen, s)
			}
		}
		if len(chosen) == n {
			return nil, fmt.Errorf("no scenario %q", name)
		}
	}
	return chosen, nil
}

func brokers(ctx context.Context) (addrs []string, release func(), err error) {
	if *seeds != "" {
		return strings.Split(*seeds, ","), func() {}, nil
	}
	cluster, err := broker.Start(ctx, broker.Config{HeapMB: 1024, Logf: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }})
	if err != nil {
		return nil, nil, err
	}
	return cluster.Addrs(), func() {
		if err := cluster.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}, nil
}

// wanted reports whether -contestants lets one take part.
func wanted(name string) bool {
	return *who == "" || slices.Contains(strings.Split(*who, ","), name)
}
