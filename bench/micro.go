package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
	"github.com/retriable-kafka/retriable-go/bench/internal/result"
)

// microbenchmarks runs the library's own benchmarks of what a commit computes, five times each, and keeps the medians, in nanoseconds.
func microbenchmarks(ctx context.Context) (c result.Contestant, err error) {
	c.Name = "commit"
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkCommit$", "-benchtime", "200x", "-count", "5", "./retriable/internal/watermark")
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	if err != nil {
		return c, fmt.Errorf("%w\n%s", err, out)
	}
	took := map[string][]float64{}
	for line := range bytes.Lines(out) {
		fields := strings.Fields(string(line))
		if len(fields) < 4 || fields[3] != "ns/op" {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(fields[0], "BenchmarkCommit/"), "-")
		ns, err := strconv.ParseFloat(fields[2], 64)
		if err != nil {
			return c, err
		}
		took[name] = append(took[name], ns)
	}
	extra := map[string]float64{}
	for name, ns := range took {
		slices.Sort(ns)
		extra[name] = ns[len(ns)/2]
		fmt.Printf("  %s: %.3f ms\n", name, extra[name]/1e6)
	}
	if len(extra) == 0 {
		return c, fmt.Errorf("no benchmark ran:\n%s", out)
	}
	c.Rounds = []result.Round{{Foreign: -1, Figures: job.Figures{Records: 1, Seconds: 1, Extra: extra}}}
	return c, nil
}
