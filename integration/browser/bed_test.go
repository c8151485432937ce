package browser_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/admin"
	"github.com/retriable-kafka/retriable-go/retriable/page"
)

var screenshot = flag.Bool("screenshot", false, "write docs/page.png")

// service is a consumer at work, with its page.
type service struct {
	*testing.T
	url      string
	consumer *retriable.Consumer
	client   *kgo.Client
	blocked  chan struct{} // handlers of blocked records wait for it
}

// start runs a consumer that handles orders as their values say, and serves its page.
func start(t *testing.T, letters bool, opts ...page.Option) *service {
	t.Helper()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "orders"), kfake.SeedTopics(2, "orders.retry", "orders.dead"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	s := &service{T: t, blocked: make(chan struct{})}
	if s.client, err = kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	s.consumer, err = retriable.New("billing", retriable.Brokers(broker.ListenAddrs()...), retriable.Logger(slog.New(slog.DiscardHandler)),
		retriable.Concurrency(8), retriable.MaxPending(600), retriable.StuckAfter(2*time.Second),
		retriable.Topic("orders", retriable.HandlerFunc(s.handle), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"),
			retriable.MaxAttempts(3)))
	if err != nil {
		t.Fatal(err)
	}
	if letters {
		a, err := admin.New(kgo.SeedBrokers(broker.ListenAddrs()...))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Close)
		opts = append(opts, page.Letters(a))
	}
	p, err := page.New(s.consumer, append(opts, page.Every(250*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/ops/", http.StripPrefix("/ops", p))
	server := httptest.NewServer(mux)
	s.url = server.URL + "/ops/"
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context())) // it outlives the test: its cleanup stops it
	ended := make(chan error, 1)
	go func() { ended <- s.consumer.Run(ctx) }()
	t.Cleanup(func() {
		s.release()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		p.Close()
		server.Close()
	})
	select {
	case <-s.consumer.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("the consumer is not ready after 30 s")
	}
	return s
}

func (s *service) release() {
	select {
	case <-s.blocked:
	default:
		close(s.blocked)
	}
}

// handle does what an order's value says.
func (s *service) handle(_ context.Context, m *retriable.Message) error {
	what, arg, _ := strings.Cut(string(m.Value), " ")
	switch what {
	case "blocked":
		<-s.blocked
	case "later":
		if m.Attempt > 1 {
			return nil
		}
		d, err := time.ParseDuration(arg)
		if err != nil {
			return retriable.Permanent(err)
		}
		return retriable.RetryAfter(errors.New("the bank is closed"), d)
	case "bad":
		if m.FirstFailure.IsZero() && !time.Now().After(m.Timestamp.Add(time.Hour)) && arg != "again" {
			return retriable.Permanent(fmt.Errorf("card %s has expired", arg))
		}
	}
	return nil
}

// produce writes key=value records to a partition of orders.
func (s *service) produce(partition int32, values ...string) {
	s.Helper()
	var rs []*kgo.Record
	for _, v := range values {
		key, value, _ := strings.Cut(v, "=")
		rs = append(rs, &kgo.Record{Topic: "orders", Partition: partition, Key: []byte(key), Value: []byte(value)})
	}
	if err := s.client.ProduceSync(s.Context(), rs...).FirstErr(); err != nil {
		s.Fatal(err)
	}
}

// wait waits until the consumer's numbers are as wanted.
func (s *service) wait(what string, ok func(retriable.Stats) bool) {
	s.Helper()
	for began := time.Now(); ; {
		st := s.consumer.Stats()
		if ok(st) {
			return
		}
		if time.Since(began) > 30*time.Second {
			s.Fatalf("after 30 s still not: %s: %+v", what, st)
		}
		select {
		case <-s.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// browser is a tab of Chromium, and what it complained about.
type browser struct {
	*testing.T
	ctx context.Context //nolint:containedctx // of the tab

	listeners  sync.WaitGroup
	mu         sync.Mutex
	complaints []string
}

// open starts Chromium.
func open(t *testing.T, flags ...chromedp.ExecAllocatorOption) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("RETRIABLE_REQUIRE_CHROMIUM") != "" {
			t.Fatal("there is no Chromium here")
		}
		t.Skip("there is no Chromium here (Debian: apt-get install chromium)")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.WindowSize(1280, 1000), chromedp.Flag("disable-dev-shm-usage", true))
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // it refuses to run as root with one
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	ctx, cancelBrowser := chromedp.NewExecAllocator(ctx, append(opts, flags...)...)
	ctx, cancelTab := chromedp.NewContext(ctx)
	b := &browser{T: t, ctx: ctx}
	t.Cleanup(func() {
		cancelTab()
		cancelBrowser()
		cancel()
		b.listeners.Wait()
	})
	b.do(chromedp.Navigate("about:blank"))
	// Violations of the policy, resources that are not there; exceptions; what scripts print.
	listen(b, log.EntryAdded, func(e log.EventEntryAdded) string {
		return fmt.Sprintf("%s: %s (%s)", e.Entry.Level, e.Entry.Text, e.Entry.URL)
	})
	listen(b, runtime.ExceptionThrown, func(e runtime.EventExceptionThrown) string { return fmt.Sprint(e.ExceptionDetails) })
	listen(b, runtime.ConsoleAPICalled, func(e runtime.EventConsoleAPICalled) string { return fmt.Sprintf("console.%s", e.Type) })
	command(b, log.Enable, cdp.Empty{})
	command(b, runtime.Enable, cdp.Empty{})
	return b
}

// listen notes what the browser complains about.
func listen[E any](b *browser, event cdp.Event[E], text func(E) string) {
	events := chromedp.Events(b.ctx, event)
	b.listeners.Go(func() {
		for e, err := range events {
			if err != nil {
				return
			}
			b.mu.Lock()
			b.complaints = append(b.complaints, text(e))
			b.mu.Unlock()
		}
	})
}

// silent fails if the browser had anything to complain about.
func (b *browser) silent() {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.complaints {
		b.Errorf("the browser complains: %s", c)
	}
}

// forgive forgets one complaint, which the test has asked for.
func (b *browser) forgive(word string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.IndexFunc(b.complaints, func(c string) bool { return strings.Contains(c, word) }); i >= 0 {
		b.complaints = slices.Delete(b.complaints, i, i+1)
	}
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.Fatal(err)
	}
}

func command[P, R any](b *browser, c cdp.Command[P, R], params P) {
	b.Helper()
	if _, err := chromedp.Call(b.ctx, c, params); err != nil {
		b.Fatal(err)
	}
}

func result[T any](b *browser, a chromedp.Action[T]) T {
	b.Helper()
	v, err := chromedp.Run(b.ctx, a)
	if err != nil {
		b.Fatal(err)
	}
	return v
}

// eval returns what an expression is.
func eval[T any](b *browser, expression string) T {
	b.Helper()
	return result(b, chromedp.Evaluate[T](expression))
}

// html is the whole document, whether or not scripts may run.
func (b *browser) html() string { return result(b, chromedp.OuterHTML(chromedp.CSS("html"))) }

// until waits for an expression to be true, over navigations too.
func (b *browser) until(expression string) {
	b.Helper()
	for began := time.Now(); ; {
		ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && ok {
			return
		}
		if time.Since(began) > 20*time.Second {
			b.Fatalf("after 20 s still not: %s: %v; the page says: %s", expression, err, eval[string](b, "document.body.innerText"))
		}
		select {
		case <-b.ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func wantEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}
