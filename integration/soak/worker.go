package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Config is what a worker is told, as one JSON value on its standard input.
type Config struct {
	Brokers                  []string
	Group, Base, Retry, Dead string
	File                     string        // of the samples, which is appended to
	Every                    time.Duration // between two of them
	MaxPendingBytes          int64
}

// Totals is what a worker says at its end, as one JSON value on its standard output.
type Totals struct{ Handled, Retried, DeadLettered uint64 }

// What becomes of a record is told by its value's first byte: nine of twenty fail once, wait, and are handled.
const (
	good  = 'g'
	fails = 'f' // at the first attempt
	never = 'n' // at every attempt
)

// worker is a consumer that watches itself.
type worker struct {
	Config
	ended atomic.Int64

	mu   sync.Mutex
	late []time.Duration // since the last sample
}

// Worker consumes until SIGTERM, or until in is closed, and returns the exit code.
func Worker(in io.Reader, out io.Writer) int {
	w := &worker{}
	orders := json.NewDecoder(in)
	if err := orders.Decode(&w.Config); err != nil {
		fmt.Fprintln(os.Stderr, "soak: no configuration:", err)
		return 2
	}
	go func() {
		_ = orders.Decode(&struct{}{})
		os.Exit(3) // whoever started us is dead
	}()
	totals, err := w.run()
	if err == nil {
		err = json.NewEncoder(out).Encode(totals)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (w *worker) run() (t Totals, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	file, err := os.OpenFile(w.File, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return t, err
	}
	defer file.Close()
	fmt.Fprintln(file, Header())
	c, err := retriable.New(w.Group,
		retriable.Kafka(kgo.SeedBrokers(w.Brokers...), kgo.DisableClientMetrics()),
		retriable.MaxPendingBytes(w.MaxPendingBytes), retriable.Hooks(w),
		retriable.Topic(w.Base, retriable.HandlerFunc(w.handle), retriable.RetryTopic(w.Retry), retriable.DeadLetterTopic(w.Dead),
			retriable.MaxAttempts(3), retriable.Backoff(retriable.Exponential(2*time.Second, 20*time.Second))))
	if err != nil {
		return t, err
	}
	end, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		w.watch(c, file, end)
	}()
	err = c.Run(ctx)
	close(end)
	<-over
	s := c.Stats()
	return Totals{s.Handled, s.Retried, s.DeadLettered}, err
}

func (w *worker) handle(ctx context.Context, m *retriable.Message) error {
	work := time.NewTimer(2 * time.Millisecond)
	defer work.Stop()
	select {
	case <-work.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if m.Value[0] == never || m.Value[0] == fails && m.Attempt == 1 {
		return errors.New("not yet")
	}
	return nil
}

// OnHandled implements retriable.HookHandled.
func (w *worker) OnHandled(h retriable.Handled) {
	w.ended.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = append(w.late, h.Waited)
}

// watch writes samples until the end.
func (w *worker) watch(c *retriable.Consumer, file io.Writer, end <-chan struct{}) {
	tick := time.NewTicker(w.Every)
	defer tick.Stop()
	began, before := time.Now(), int64(0)
	for {
		select {
		case <-tick.C:
		case <-end:
			return
		}
		s := Sample{At: time.Since(began)}
		s.measure()
		n := w.ended.Load()
		s.Handled, before = n-before, n
		for _, p := range c.Stats().Partitions {
			s.Held += int64(p.Held)
			s.Behind += max(p.Lag, 0)
		}
		w.mu.Lock()
		slices.Sort(w.late)
		if k := len(w.late); k > 0 {
			s.Late50, s.Late99, s.LateMax = w.late[k/2].Microseconds(), w.late[k*99/100].Microseconds(), w.late[k-1].Microseconds()
		}
		w.late = w.late[:0]
		w.mu.Unlock()
		fmt.Fprintln(file, s)
	}
}
