package soak_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/broker"
	"github.com/retriable-kafka/retriable-go/integration/soak"
)

const workerVariable = "RETRIABLE_SOAK_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(workerVariable) != "" {
		os.Exit(soak.Worker(os.Stdin, os.Stdout))
	}
	os.Exit(broker.Main(m))
}

// A consumer in a process of its own, under a steady load of which a tenth fails, some for good: its memory, goroutines and files stay, its attempts are
// punctual, and every record is handled or a dead letter, once. It takes RETRIABLE_SOAK, or 20 s with -short; the samples stay in
// RETRIABLE_SOAK_FILE.
func TestSoak(t *testing.T) {
	length, every := duration(t)
	const rate, pending = 400, 16 << 20
	cluster := broker.For(t, broker.Config{Source: broker.Local})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), length+5*time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.Addrs()...), kgo.DisableClientMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	c := soak.Config{
		Brokers: cluster.Addrs(), Group: "soak", Base: "soak.orders", Retry: "soak.retry", Dead: "soak.dead",
		File: file(t), Every: every, MaxPendingBytes: pending,
	}
	for _, topic := range []string{c.Base, c.Retry, c.Dead} {
		if _, err := adm.CreateTopic(ctx, 4, 1, map[string]*string{"retention.ms": kadm.StringPtr("3600000")}, topic); err != nil {
			t.Fatal(err)
		}
	}
	totals := start(t, c)

	sent, began := uint64(0), time.Now()
	fails, never := uint64(0), uint64(0)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for time.Since(began) < length {
		<-tick.C
		for ; sent < uint64(time.Since(began).Seconds()*rate); sent++ {
			kind := "g"
			switch {
			case sent%200 == 7:
				kind = "n"
				never++
			case sent%10 == 3:
				kind = "f"
				fails++
			}
			r := &kgo.Record{Topic: c.Base, Key: fmt.Appendf(nil, "key-%d", sent%5000), Value: []byte(kind + strings.Repeat("x", int(sent%900)))}
			cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Errorf("producing: %v", err)
				}
			})
		}
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	settle(ctx, t, adm, c)
	got := totals()
	want := soak.Totals{Handled: sent - never, Retried: fails + 2*never, DeadLettered: never}
	t.Logf("%d records in %v: %+v", sent, length, got)
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	f, err := os.Open(c.File)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	samples, err := soak.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range samples {
		if i%max(len(samples)/10, 1) == 0 {
			t.Log(s)
		}
	}
	// Of the memory: what a Go process with a Kafka client takes, and half as much again as the bounds that it was given. Of the lateness: what a machine
	// can do that has other work as well.
	bounds := soak.Bounds{RSS: 64<<20 + pending*3/2, Growth: 6 << 20, Late50: 50 * time.Millisecond, Late99: time.Second}
	for _, wrong := range soak.Judge(samples, bounds) {
		t.Error(wrong)
	}
}

// duration is how long the soak takes, and how far its samples are apart.
func duration(t *testing.T) (length, every time.Duration) {
	t.Helper()
	v := os.Getenv("RETRIABLE_SOAK")
	if v == "" {
		v = "2m"
		if testing.Short() {
			v = "20s"
		}
	}
	length, err := time.ParseDuration(v)
	if err != nil {
		t.Fatalf("RETRIABLE_SOAK: %v", err)
	}
	return length, min(max(length/60, time.Second), 30*time.Second)
}

// file is where the samples go.
func file(t *testing.T) string {
	t.Helper()
	path := os.Getenv("RETRIABLE_SOAK_FILE")
	if path == "" {
		return filepath.Join(t.TempDir(), "soak.csv")
	}
	path, err := filepath.Abs(path)
	if err == nil {
		err = os.RemoveAll(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// start starts the worker. What it returns stops it, and returns what it says it has done.
func start(t *testing.T, c soak.Config) (stop func() soak.Totals) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), workerVariable+"=1")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if err := json.NewEncoder(in).Encode(c); err != nil {
		t.Fatal(err)
	}
	return func() (totals soak.Totals) {
		t.Helper()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("the worker: %v\n%s", err, errs.String())
		}
		if err := json.Unmarshal([]byte(out.String()), &totals); err != nil {
			t.Fatal(err)
		}
		return totals
	}
}

// settle waits until all is committed.
func settle(ctx context.Context, t *testing.T, adm *kadm.Client, c soak.Config) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(2 * time.Minute); ; {
		ends, err := adm.ListEndOffsets(ctx, c.Base, c.Retry)
		if err != nil {
			t.Fatal(err)
		}
		commits, err := adm.FetchOffsets(ctx, c.Group)
		if err != nil {
			t.Fatal(err)
		}
		behind := ""
		ends.Each(func(o kadm.ListedOffset) {
			if at, _ := commits.Lookup(o.Topic, o.Partition); at.At != o.Offset {
				behind += fmt.Sprintf("%s/%d at %d of %d, ", o.Topic, o.Partition, at.At, o.Offset)
			}
		})
		if behind == "" {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("not all is committed: %s", behind)
		}
		<-tick.C
	}
}

// steady makes a run in which nothing grows, and then spoils it.
func steady(n int, spoil func(i int, s *soak.Sample)) []soak.Sample {
	samples := make([]soak.Sample, n)
	for i := range samples {
		samples[i] = soak.Sample{
			At: time.Duration(i) * time.Minute, RSS: 50<<20 + int64(i%3)<<20, Heap: 20 << 20, Goroutines: 40 + int64(i%4), Files: 12, Handled: 500,
			Late50: 900, Late99: 9000, LateMax: 30_000,
		}
		if spoil != nil {
			spoil(i, &samples[i])
		}
	}
	return samples
}

func TestWhatGrowsIsFound(t *testing.T) {
	bounds := soak.Bounds{RSS: 100 << 20, Growth: 6 << 20, Late50: 5 * time.Millisecond, Late99: 50 * time.Millisecond}
	for word, spoil := range map[string]func(i int, s *soak.Sample){
		"":           nil,
		"MiB of":     func(i int, s *soak.Sample) { s.RSS += int64(i/59) * 90 << 20 },
		"grew by":    func(i int, s *soak.Sample) { s.RSS += int64(i) << 19 },
		"goroutines": func(i int, s *soak.Sample) { s.Goroutines += int64(i) / 2 },
		"open files": func(i int, s *soak.Sample) { s.Files += int64(i) / 2 },
		"middle":     func(_ int, s *soak.Sample) { s.Late50 = 6000 },
		"hundred":    func(_ int, s *soak.Sample) { s.Late99 = 60_000 },
		"nothing":    func(_ int, s *soak.Sample) { s.Handled = 0 },
	} {
		wrong := strings.Join(soak.Judge(steady(60, spoil), bounds), "; ")
		if word == "" && wrong != "" || !strings.Contains(wrong, word) {
			t.Errorf("%q: found %q", word, wrong)
		}
	}
	if wrong := soak.Judge(steady(3, nil), bounds); len(wrong) != 1 {
		t.Errorf("three samples: %q", wrong)
	}
}

func TestSamplesAreReadAsTheyWereWritten(t *testing.T) {
	text := soak.Header() + "\n"
	samples := steady(10, func(i int, s *soak.Sample) { s.Held, s.Behind = int64(i), int64(2*i) })
	for _, s := range samples {
		text += s.String() + "\n"
	}
	got, err := soak.Read(strings.NewReader(text))
	if err != nil || fmt.Sprint(got) != fmt.Sprint(samples) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "a,b\n1,2\n", soak.Header() + "\n1,2,3\n", soak.Header() + "\n" + strings.Repeat("x,", 10) + "x\n"} {
		if _, err := soak.Read(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}
