package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
	"github.com/retriable-kafka/retriable-go/bench/internal/result"
	"github.com/retriable-kafka/retriable-go/bench/peers"
)

// bench runs scenarios against one cluster.
type bench struct {
	addrs   []string
	brokers []int // their processes
	cl      *kgo.Client
	adm     *kadm.Client
	tmp     string
	filled  map[string]bool
	machine result.Machine
	commit  string
	serial  int // makes names unique
}

func newBench(ctx context.Context, addrs []string) (*bench, error) {
	b := &bench{addrs: addrs, brokers: findBrokers(), filled: map[string]bool{}, machine: machine(ctx), commit: said(ctx, "git", "rev-parse", "--short=12", "HEAD")}
	var err error
	if b.tmp, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.program(), "./contestant").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the contestants: %w\n%s", err, out)
	}
	if b.cl, err = kgo.NewClient(kgo.SeedBrokers(addrs...)); err != nil {
		return nil, err
	}
	b.adm = kadm.NewClient(b.cl)
	return b, nil
}

func (b *bench) program() string { return filepath.Join(b.tmp, "contestant") }

func (b *bench) close() {
	b.cl.Close()
	_ = os.RemoveAll(b.tmp) // in the temporary folder
}

// measure runs a scenario and keeps its results.
func (b *bench) measure(ctx context.Context, s scenario) error {
	inv, err := b.rounds(ctx, s)
	if err != nil {
		return err
	}
	if *scale != 1 {
		return nil
	}
	inv.Contestants = slices.DeleteFunc(inv.Contestants, func(c result.Contestant) bool { return len(c.Rounds) == 0 && c.Missing == "" })
	if len(inv.Contestants) == 0 {
		return ctx.Err()
	}
	f := &result.File{Scenario: s.name}
	if *add {
		if f, err = result.Read(*dir, s.name); err != nil {
			return err
		}
	}
	f.Runs = append(f.Runs, *inv)
	return f.Write(*dir)
}

// rounds runs a scenario's rounds, everybody in each, each time in another order.
func (b *bench) rounds(ctx context.Context, s scenario) (*result.Invocation, error) {
	inv := &result.Invocation{
		Command: "go run . " + strings.Join(os.Args[1:], " "), Date: time.Now().UTC().Format(time.DateTime), Commit: b.commit, Machine: b.machine,
	}
	fmt.Printf("%s: %s\n", s.name, s.about)
	if s.micro {
		c, err := microbenchmarks(ctx)
		inv.Contestants = []result.Contestant{c}
		return inv, err
	}
	s.shrink(*scale)
	if s.data.records > 0 && s.job.SleepMS > 0 {
		inv.Longest = s.data.longest()
	}
	if !b.filled[s.data.topic] && !s.data.dueIn {
		if err := s.data.fill(ctx, b.addrs); err != nil {
			return inv, fmt.Errorf("producing: %w", err)
		}
		b.filled[s.data.topic] = true
	}
	inv.Rounds = *rounds
	if s.rounds != 0 {
		inv.Rounds = min(*rounds, s.rounds)
	}
	for _, e := range s.contestants {
		inv.Contestants = append(inv.Contestants, result.Contestant{Name: e.called(), Workers: s.job.Workers})
	}
rounds:
	for round := range inv.Rounds {
		for i := range s.contestants {
			k := (i + round) % len(s.contestants)
			e, c := s.contestants[k], &inv.Contestants[k]
			if c.Missing != "" || e.rounds != 0 && round >= e.rounds || !wanted(e.called()) {
				continue
			}
			r, err := b.one(ctx, s, e, round)
			if err != nil && ctx.Err() != nil { // what there is counts
				break rounds
			}
			if err != nil {
				c.Missing = err.Error()
				fmt.Printf("  %-28s missing: %v\n", c.Name, err)
				continue
			}
			c.Rounds = append(c.Rounds, *r)
			show(c.Name, r)
		}
	}
	if s.data.topic != main100.topic && ctx.Err() == nil {
		delete(b.filled, s.data.topic)
		return inv, remove(ctx, b.adm, s.data.topic)
	}
	return inv, nil
}

// shrink makes a scenario smaller, for trying it out.
func (s *scenario) shrink(by float64) {
	if by == 1 {
		return
	}
	waiting := s.data.waiting == s.data.records
	s.data.topic += "-small"
	s.data.records = max(int64(float64(s.data.records)*by), min(s.data.records, 1000))
	if waiting {
		s.data.waiting = s.data.records
	}
	s.data.waiting = min(s.data.waiting, s.data.records)
	s.job.Waiting = min(s.job.Waiting, s.data.waiting)
	for i := range s.contestants {
		s.contestants[i].records = int64(float64(s.contestants[i].records) * by)
	}
}

// one runs one contestant, in a process of its own, and sees to it that it has committed what it handled.
func (b *bench) one(ctx context.Context, s scenario, e entry, round int) (*result.Round, error) {
	b.serial++
	name := fmt.Sprintf("%s-%s-%d-%d", s.name, e.called(), round, b.serial)
	j := s.job
	j.Contestant, j.Brokers, j.Topic, j.Group, j.Records = e.name, b.addrs, s.data.topic, name, s.data.records
	j.Retry, j.Dead = name+"-retry", name+"-dead"
	if e.records != 0 {
		j.Records = min(e.records, j.Records)
	}
	if e.job != nil {
		e.job(&j)
	}
	if *profile != "" {
		j.Profile = filepath.Join(*profile, name+".pprof")
	}
	if s.data.dueIn {
		if err := s.data.fill(ctx, b.addrs); err != nil {
			return nil, fmt.Errorf("producing: %w", err)
		}
	}
	if s.data.records == 0 {
		if err := create(ctx, b.adm, s.data.partitions, s.data.topic); err != nil {
			return nil, err
		}
	}
	if err := create(ctx, b.adm, min(s.data.partitions, 12), j.Retry, j.Dead); err != nil {
		return nil, err
	}
	argv, err := b.argv(ctx, e, &j)
	if err != nil {
		return nil, err
	}
	time.Sleep(200 * time.Millisecond) // until all know of the new topics: not every client asks again soon
	before, began := look(b.brokers), time.Now()
	f, cpu, err := start(ctx, argv)
	if err != nil {
		return nil, err
	}
	after, took := look(b.brokers), time.Since(began).Seconds()
	r := &result.Round{Round: round, Foreign: -1, Figures: *f}
	if before.known {
		r.Foreign = max(0, (after.others()-before.others()-cpu)/took)
	}
	if err := b.committed(ctx, e, &j, &r.Figures); err != nil {
		return nil, err
	}
	return r, remove(ctx, b.adm, j.Retry, j.Dead)
}

// argv is the command line of a contestant.
func (b *bench) argv(ctx context.Context, e entry, j *job.Job) ([]string, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	switch e.name {
	case "parallel-consumer":
		argv, err := peers.Java(ctx)
		return append(argv, peers.JavaArgs(j, j.Contestant)...), err
	case "python":
		argv, err := peers.Python()
		return append(argv, string(text)), err
	}
	return []string{b.program(), string(text)}, nil
}

// start runs a process and returns what it measured of itself, and the CPU time that it took in all.
func start(ctx context.Context, argv []string) (*job.Figures, float64, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return nil, 0, fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()[max(0, said.Len()-2000):]))
	}
	f := &job.Figures{}
	if err := json.Unmarshal(out.Bytes(), f); err != nil {
		return nil, 0, fmt.Errorf("it said %q: %w", out.Bytes(), err)
	}
	return f, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), nil
}

// uncommitted are those of whom it is not asked: one only reads, and some have two members or stop in the middle of a topic.
var uncommitted = []string{"hoard", "takeover", "takeover-kgo", "python", "parallel-consumer"}

// committed checks what a contestant has committed.
func (b *bench) committed(ctx context.Context, e entry, j *job.Job, f *job.Figures) error {
	if slices.Contains(uncommitted, e.name) {
		return nil
	}
	offsets, err := b.adm.FetchOffsets(ctx, j.Group)
	if err != nil {
		return err
	}
	var sum int64
	for _, o := range offsets.Offsets()[j.Topic] {
		sum += o.At
	}
	if sum < f.Records {
		return fmt.Errorf("it handled %d records and committed %d", f.Records, sum)
	}
	return nil
}

func show(name string, r *result.Round) {
	f := &r.Figures
	fmt.Printf("  %-28s %10.0f/s %7.3f CPU-s/M %6.0f MiB %7.4f allocs join %.2f s foreign %.2f", name, f.Rate(), f.CPUPerMillion(), f.RSS, f.Allocations, f.Join, r.Foreign)
	if f.Handler > 0 {
		fmt.Printf(" handler %.3f ms", f.Handler*1000)
	}
	for _, k := range slices.Sorted(maps.Keys(f.Extra)) {
		fmt.Printf(" %s=%.4g", k, f.Extra[k])
	}
	fmt.Println()
}
