// Command bench measures the library against a bare serial kgo loop on a real Kafka: each contestant is a process of its own, rounds are
// interleaved, and what counts is the ratio within a round, for machines are noisy.
//
//	go run .            # brings up a Kafka, produces once, nine rounds
//	go run . -rounds 3 -records 500000
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/broker"
)

var (
	records    = flag.Int64("records", 2_000_000, "records of 100 bytes, over 12 partitions and 12,000 keys")
	rounds     = flag.Int("rounds", 9, "interleaved rounds")
	workers    = flag.Int("workers", 16, "handlers at once")
	only       = flag.String("only", "serial,unordered,bypartition,bykey", "contestants")
	contestant = flag.String("contestant", "", "run this one, here (used by the command itself)")
	seeds      = flag.String("seeds", "", "brokers, for a contestant")
	group      = flag.String("group", "", "group, for a contestant")
	profile    = flag.String("cpuprofile", "", "of a contestant")
)

const topic, partitions, keys = "bench", 12, 12_000

func main() {
	flag.Parse()
	run := orchestrate
	if *contestant != "" {
		run = compete
	}
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func compete(ctx context.Context) error {
	f, ok := contestants[*contestant]
	if !ok {
		return fmt.Errorf("no contestant %q", *contestant)
	}
	if *profile != "" {
		out, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer out.Close()
		if err := pprof.StartCPUProfile(out); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	j := &job{seeds: strings.Split(*seeds, ","), topic: topic, group: *group, records: *records, workers: *workers, meter: newMeter()}
	if err := f(ctx, j); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(j.meter.figures())
}

func orchestrate(ctx context.Context) error {
	addrs := strings.Split(*seeds, ",")
	if *seeds == "" {
		cluster, err := broker.Start(ctx, broker.Config{HeapMB: 1024})
		if err != nil {
			return err
		}
		defer cluster.Close()
		addrs = cluster.Addrs()
	}
	if err := fill(ctx, addrs); err != nil {
		return err
	}
	names := strings.Split(*only, ",")
	all := map[string][]figures{}
	for round := range *rounds {
		for i := range names {
			name := names[(i+round)%len(names)]
			f, err := one(ctx, name, addrs, fmt.Sprintf("%s-%d-%d", name, round, time.Now().UnixNano()))
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			all[name] = append(all[name], f)
		}
	}
	report(names, all)
	return nil
}

func one(ctx context.Context, name string, addrs []string, group string) (f figures, err error) {
	cmd := exec.CommandContext(ctx, os.Args[0], "-contestant", name, "-seeds", strings.Join(addrs, ","), "-group", group,
		"-records", fmt.Sprint(*records), "-workers", fmt.Sprint(*workers))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(out, &f)
}

// fill produces the records once.
func fill(ctx context.Context, addrs []string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(64<<10))
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	if offsets, err := adm.ListEndOffsets(ctx, topic); err == nil && offsets.Error() == nil {
		var n int64
		offsets.Each(func(o kadm.ListedOffset) { n += o.Offset })
		if n == *records {
			return nil
		}
	}
	if _, err := adm.CreateTopic(ctx, partitions, 1, nil, topic); err != nil {
		return err
	}
	value := fmt.Appendf(nil, `{"pad":"%s"}`, strings.Repeat("x", 90))
	for i := range *records {
		k := i * 7919 % keys
		cl.Produce(ctx, &kgo.Record{Topic: topic, Partition: int32(k % partitions), Key: fmt.Appendf(nil, "%08d", k), Value: value[:100]}, nil)
	}
	return cl.Flush(ctx)
}

// report prints medians, and the paired ratios to the first contestant.
func report(names []string, all map[string][]figures) {
	fmt.Printf("%-12s %12s %10s %10s %10s %8s %22s %22s\n", "", "records/s", "CPU-s/1M", "allocs/rec", "B/rec", "RSS MiB", "records/s to "+names[0], "CPU to "+names[0])
	for _, name := range names {
		fs := all[name]
		pick := func(of func(figures) float64) []float64 {
			vs := make([]float64, len(fs))
			for i, f := range fs {
				vs[i] = of(f)
			}
			return vs
		}
		ratio := func(of func(figures) float64) []float64 {
			vs := pick(of)
			for i, f := range all[names[0]] {
				vs[i] /= of(f)
			}
			return vs
		}
		rate := func(f figures) float64 { return f.RecordsPerSec }
		cpu := func(f figures) float64 { return f.CPUPerMillion }
		fmt.Printf("%-12s %12.0f %10.3f %10.4f %10.0f %8.0f %22s %22s\n", name, median(pick(rate)), median(pick(cpu)),
			median(pick(func(f figures) float64 { return f.AllocsPerRec })), median(pick(func(f figures) float64 { return f.BytesPerRec })),
			median(pick(func(f figures) float64 { return f.PeakRSS })), spread(ratio(rate)), spread(ratio(cpu)))
	}
}

func median(vs []float64) float64 {
	vs = slices.Sorted(slices.Values(vs))
	return vs[len(vs)/2]
}

func spread(vs []float64) string {
	return fmt.Sprintf("%.2f [%.2f-%.2f]", median(vs), slices.Min(vs), slices.Max(vs))
}
