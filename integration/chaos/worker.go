package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Config is what a worker is told, on its standard input, as one JSON value. A password is on no command line and in no file.
type Config struct {
	Name              string
	Ledger, Log       string // files
	Brokers           []string
	User, Password    string // of SASL; none if empty
	Group             string
	Base, Retry, Dead string
	Protocol          string // see protocols
	Session           time.Duration
	Drain             time.Duration
}

// Order is what a worker is told after that, one JSON value each.
type Order struct {
	Point string        `json:",omitempty"` // kill yourself at this point; with For, halt
	After int           `json:",omitempty"` // when you pass it for the so many-th time
	Net   Mode          `json:",omitempty"` // let the network fail like this
	Port  int           `json:",omitempty"` // to the broker at this port; 0: to all
	Key   int16         `json:",omitempty"` // with LostAck: of these requests
	For   time.Duration `json:",omitempty"` // so long
}

// protocols are the ways in which a group can share out its partitions.
var protocols = map[string]func(c Config) []kgo.Opt{
	"cooperative": func(Config) []kgo.Opt { return []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer())} },
	"eager":       func(Config) []kgo.Opt { return []kgo.Opt{kgo.Balancers(kgo.RangeBalancer())} },
	"KIP-848": func(Config) []kgo.Opt {
		return []kgo.Opt{kgo.ServerSideBalancer(), kgo.RebalanceTimeout(12 * time.Second)}
	},
	"static": func(c Config) []kgo.Opt {
		return []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.InstanceID(c.Name[:2])}
	},
}

// worker is a member of a group in a process of its own.
type worker struct {
	Config
	ledger *Ledger
	points points
	net    *Network

	mu        sync.Mutex
	postponed map[int64]bool
}

// Worker runs a member until SIGTERM, by what it is told on in, and returns the process's exit code. The program that starts it holds the other
// end of in: when that is closed, because the program died, the worker ends at once.
func Worker(in io.Reader) int {
	orders := json.NewDecoder(in)
	w := &worker{net: NewNetwork(), postponed: map[int64]bool{}}
	if err := orders.Decode(&w.Config); err != nil {
		fmt.Fprintln(os.Stderr, "chaos: no configuration:", err)
		return 2
	}
	if err := w.run(orders); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (w *worker) run(orders *json.Decoder) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Fprint(os.Stdout, "!") // from here it can be told to stop
	if w.ledger, err = OpenLedger(w.Ledger); err != nil {
		return err
	}
	log, err := os.OpenFile(w.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	w.points.die = func(point string) {
		w.ledger.Write(Event{Kind: Dies, Text: point})
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	w.points.halt = func(point string, d time.Duration) {
		w.ledger.Write(Event{Kind: Halts, Text: point})
		fmt.Fprint(os.Stdout, "-")
		if err := halt(context.Background(), os.Getpid(), d); err != nil {
			panic(err)
		}
	}
	w.ledger.Write(Event{Kind: Up, Text: fmt.Sprintf("%s, process %d", w.Name, os.Getpid())})
	c, err := retriable.New(w.Group,
		retriable.Kafka(append(w.kafka(), kgo.WithLogger(kgo.BasicLogger(log, kgo.LogLevelInfo, func() string { return time.Now().Format("15:04:05.000 ") })))...),
		retriable.Logger(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))),
		retriable.Concurrency(16), retriable.CommitInterval(100*time.Millisecond), retriable.DrainTimeout(w.Drain),
		retriable.Hooks(w),
		retriable.MaxCrashes(250), // a record that runs at every death is suspected of it; here that is chance, and it must not be given up
		retriable.Topic(w.Base, retriable.HandlerFunc(w.handle), retriable.RetryTopic(w.Retry), retriable.DeadLetterTopic(w.Dead),
			retriable.MaxAttempts(MaxAttempts), retriable.Backoff(retriable.Exponential(150*time.Millisecond, 600*time.Millisecond))),
	)
	if err != nil {
		return err
	}
	go w.obey(orders)
	watched, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		w.watch(ctx, c, watched)
	}()
	err = c.Run(ctx)
	close(watched)
	<-over
	text := ""
	if err != nil {
		text = err.Error()
	}
	w.ledger.Write(Event{Kind: Down, Text: text})
	return err
}

// kafka are the options of the member's client.
func (w *worker) kafka() []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(w.Brokers...), kgo.HeartbeatInterval(w.Session / 7), kgo.SessionTimeout(w.Session), kgo.RebalanceTimeout(6 * time.Second),
		kgo.DisableClientMetrics(), kgo.Dialer(w.net.Dial), kgo.WithHooks(w),
	}
	if w.User != "" {
		opts = append(opts, kgo.SASL(scram.Auth{User: w.User, Pass: w.Password}.AsSha512Mechanism()))
	}
	return append(opts, protocols[w.Protocol](w.Config)...)
}

// obey takes orders until there are no more: then whoever gave them is dead.
func (w *worker) obey(orders *json.Decoder) {
	for {
		var o Order
		if err := orders.Decode(&o); err != nil {
			os.Exit(3)
		}
		if o.Point != "" {
			w.points.arm(o)
		}
		if o.Net != "" {
			w.net.Fail(o)
		}
	}
}

// watch notes that the member is ready, that it was told to stop, and what the map has spared.
func (w *worker) watch(ctx context.Context, c *retriable.Consumer, end <-chan struct{}) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	ready, told := c.Ready(), ctx.Done()
	spared := uint64(0)
	for {
		last := false
		select {
		case <-ready:
			w.ledger.Write(Event{Kind: Ready})
			ready = nil
		case <-told:
			w.ledger.Write(Event{Kind: Stopping})
			told = nil
			w.points.soon("draining")
		case <-tick.C:
		case <-end:
			last = true
		}
		if n := c.Stats().Skipped; n > spared {
			spared = n
			w.ledger.Write(Event{Kind: Skipped, N: int64(n)})
		}
		if last {
			return
		}
	}
}

// handle does what the record's number foretells.
func (w *worker) handle(ctx context.Context, m *retriable.Message) error {
	id, err := idOf(m.Record)
	if err != nil {
		return retriable.Permanent(err)
	}
	// The time first: if the context has not ended by now, it had not then.
	e := Event{Time: time.Now().UnixNano(), Kind: Start, ID: id, Attempt: m.Attempt, At: m.Source, N: sum(m.Record, retriable.Position{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset})}
	if ctx.Err() != nil {
		e.Text = "cancelled"
	}
	w.ledger.Write(e)
	f := FateOf(id)
	res := f.Result(id, m.Attempt)
	if f.Postpone > 0 && w.firstTime(id) {
		res = Postpones
	}
	ends := ctx.Done()
	if f.Deaf {
		ends = nil
	}
	work := time.NewTimer(f.Work)
	defer work.Stop()
	w.points.pass("handler")
	select {
	case <-work.C:
	case <-ends:
		res = Cancelled
	}
	e.Time, e.Kind, e.N, e.Text = 0, End, 0, string(res)
	if res == Postpones {
		e.N = int64(f.Postpone)
	}
	w.ledger.Write(e)
	return res.verdict(ctx, f)
}

// verdict is what a handler returns for a result.
func (r Result) verdict(ctx context.Context, f Fate) error {
	switch r {
	case OK:
		return nil
	case Panics:
		panic("as foretold")
	case Permanent:
		return retriable.Permanent(errors.New("as foretold"))
	case Drops:
		return retriable.Drop(errors.New("as foretold"))
	case Postpones:
		return retriable.Postpone(f.Postpone)
	case Cancelled:
		return context.Cause(ctx)
	case Fails:
	}
	return errors.New("as foretold")
}

func (w *worker) firstTime(id int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	met := w.postponed[id]
	w.postponed[id] = true
	return !met
}
