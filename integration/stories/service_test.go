package stories_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// What the service, a process of its own, is told.
const (
	serviceBrokers = "RETRIABLE_TEST_SERVICE_BROKERS"
	serviceTopic   = "RETRIABLE_TEST_SERVICE_TOPIC"
)

// order is what the service handles.
type order struct {
	ID     int
	Amount int
}

// charge is the service's handler. It prints what it does.
func charge(_ context.Context, o order, m *retriable.Message) error {
	switch {
	case o.Amount < 0:
		return retriable.Permanent(fmt.Errorf("order %d: a negative amount", o.ID))
	case o.Amount == 0 && m.Attempt == 1:
		return fmt.Errorf("order %d: not yet", o.ID)
	}
	fmt.Printf("charged %d at attempt %d\n", o.ID, m.Attempt)
	return nil
}

// service is the README's, but for names that no other test has.
func service() {
	orders := os.Getenv(serviceTopic)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c, err := retriable.New("billing"+orders, retriable.Brokers(os.Getenv(serviceBrokers)),
		retriable.Topic(orders, retriable.JSON(charge),
			retriable.RetryTopic(orders+".retry"),
			retriable.DeadLetterTopic(orders+".dead")))
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// lines is what a process prints, while it prints it.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestTheQuickReadmeService(t *testing.T) {
	b := story(t, time.Minute)
	orders := b.topic("orders", 3)
	b.create(orders+".retry", 2)
	b.create(orders+".dead", 1)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := func() (out *lines, stop func()) {
		t.Helper()
		out = &lines{}
		cmd := exec.CommandContext(b.limit, self)
		cmd.Env = append(os.Environ(), serviceBrokers+"="+strings.Join(b.cluster.Addrs(), ","), serviceTopic+"="+orders)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return out, func() {
			t.Helper()
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("the service: %v\n%s", err, out)
			}
		}
	}

	out, stop := run()
	for i, body := range []string{`{"ID":1,"Amount":5}`, `{"ID":2,"Amount":0}`, `{"ID":3,"Amount":-1}`, `{"ID":"four"}`, `no JSON`} {
		b.produce(&kgo.Record{Topic: orders, Partition: -1, Key: fmt.Appendf(nil, "customer-%d", i), Value: []byte(body)})
	}
	b.await("what can be charged is", 20*time.Second, func() bool {
		s := out.String()
		return strings.Contains(s, "charged 1 at attempt 1\n") && strings.Contains(s, "charged 2 at attempt 2\n") && b.ends(orders + ".dead")[0] == 3
	})
	stop()
	b.wantAllCommitted("billing"+orders, orders)
	b.wantAllCommitted("billing"+orders, orders+".retry")
	if n := strings.Count(out.String(), "charged"); n != 2 {
		t.Errorf("%d charges:\n%s", n, out)
	}
	for _, r := range b.read(orders + ".dead") {
		b.wantHeader(r, "__dlq.errors.topic", orders)
		b.wantHeader(r, "__dlq.errors.delivery.count", 1)
	}

	// A second time it begins where it ended.
	b.produce(&kgo.Record{Topic: orders, Partition: -1, Key: []byte("customer-9"), Value: []byte(`{"ID":9,"Amount":9}`)})
	out, stop = run()
	b.await("the new one is charged", 20*time.Second, func() bool { return strings.Contains(out.String(), "charged 9 at attempt 1\n") })
	stop()
	if n := strings.Count(out.String(), "charged"); n != 1 {
		t.Errorf("%d charges:\n%s", n, out)
	}
}
