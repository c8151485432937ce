package stories_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// workerSpec names the variable that makes this program a worker, and tells it what to do.
const workerSpec = "RETRIABLE_TEST_WORKER"

// worker is a consumer in a process of its own, for stories in which one dies.
type worker struct {
	Brokers            []string
	Group, Topic, Dead string
	Instance           string // so that the next one takes over at once
	Handler            string // what becomes of a record
	Ledger             string // the file that tells which deliveries began and ended
	Concurrency        int
	Commit             time.Duration // between commits, a second if 0; a life in which the offset does not move counts as a crash
	exited             chan struct{}
	cmd                *exec.Cmd
}

// delivery is a line of the ledger.
type delivery struct {
	partition int32
	offset    int64
	ended     bool
}

// work is the worker's main.
func work() {
	var w worker
	if err := json.Unmarshal([]byte(os.Getenv(workerSpec)), &w); err != nil {
		log.Fatal(err)
	}
	ledger, err := os.OpenFile(w.Ledger, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	note := func(m *retriable.Message, what string) {
		if _, err := fmt.Fprintf(ledger, "%d %d %s\n", m.Source.Partition, m.Source.Offset, what); err != nil {
			log.Fatal(err)
		}
	}
	c, err := retriable.New(w.Group, retriable.Brokers(w.Brokers...), retriable.Concurrency(w.Concurrency), retriable.CommitInterval(cmp.Or(w.Commit, time.Second)),
		retriable.Kafka(kgo.InstanceID(w.Instance), kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(200*time.Millisecond), kgo.DisableClientMetrics()),
		retriable.Topic(w.Topic, retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			note(m, "begins")
			switch {
			case w.Handler == "blocks" && m.Offset == 0:
				<-ctx.Done()
				return ctx.Err()
			case w.Handler == "sleeps":
				time.Sleep(5 * time.Millisecond)
			case string(m.Value) == "killer":
				os.Exit(3)
			}
			note(m, "ends")
			return nil
		}), retriable.DeadLetterTopic(w.Dead)))
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := c.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// launchWorker starts a worker. It is killed when the test ends.
func (b *bed) launchWorker(w worker) *worker {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	w.Brokers, w.Ledger = b.cluster.Addrs(), filepath.Join(b.TempDir(), "ledger")
	spec, err := json.Marshal(w)
	if err != nil {
		b.Fatal(err)
	}
	w.cmd = exec.CommandContext(b.limit, self)
	w.cmd.Env = append(os.Environ(), workerSpec+"="+string(spec))
	w.cmd.Stderr = b.log
	w.exited = make(chan struct{})
	if err := w.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		defer close(w.exited)
		_ = w.cmd.Wait()
	}()
	b.Cleanup(w.kill)
	return &w
}

// kill ends a worker by SIGKILL, and waits for its end.
func (w *worker) kill() {
	_ = w.cmd.Process.Kill()
	<-w.exited
}

// clean stops a worker, which must stop cleanly.
func (w *worker) clean(b *bed) {
	b.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.Error(err)
	}
	<-w.exited
	if code := w.cmd.ProcessState.ExitCode(); code != 0 {
		b.Errorf("the worker ended with code %d", code)
	}
}

func (w *worker) ended() bool {
	select {
	case <-w.exited:
		return true
	default:
		return false
	}
}

// deliveries reads the ledger.
func (w *worker) deliveries(b *bed) (ds []delivery) {
	b.Helper()
	f, err := os.Open(w.Ledger)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var d delivery
		var what string
		if _, err := fmt.Sscan(strings.TrimSpace(s.Text()), &d.partition, &d.offset, &what); err != nil {
			continue // it died in the middle of a line
		}
		d.ended = what == "ends"
		ds = append(ds, d)
	}
	return ds
}
