package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/plugin/breaker"
	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

var errDown = errors.New("connection refused")

// downstream is what handlers call: it takes its time, and can be down.
type downstream struct {
	took time.Duration
	down atomic.Bool

	mu       sync.Mutex
	attempts map[string][]int // of each value
	inside   int
	most     int // at once, while it was down
	calls    int // while it was down
	done     int
}

func (d *downstream) call(_ context.Context, m *retriable.Message) error {
	d.mu.Lock()
	d.attempts[string(m.Value)] = append(d.attempts[string(m.Value)], m.Attempt)
	d.inside++
	if d.down.Load() {
		d.calls++
		d.most = max(d.most, d.inside)
	}
	d.mu.Unlock()
	time.Sleep(d.took)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside--
	if d.down.Load() {
		return errDown
	}
	d.done++
	return nil
}

func (d *downstream) handled() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

// tried returns how many calls there were while it was down, since the last such question, and how many of these at once.
func (d *downstream) tried() (calls, most int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	calls, most = d.calls, d.most
	d.calls, d.most = 0, 0
	return calls, most
}

func newBreaker(t *testing.T, opts ...breaker.Option) *breaker.Breaker {
	t.Helper()
	b, err := breaker.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var orderings = map[string]retriable.Order{"ByKey": retriable.ByKey, "Unordered": retriable.Unordered, "ByPartition": retriable.ByPartition}

// Five minutes of outage, with a thousand records a second coming in.
func TestAnOutageSpendsNoAttempts(t *testing.T) {
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			outage := 5 * time.Minute
			if testing.Short() || raceEnabled || order != retriable.ByKey {
				outage = 30 * time.Second
			}
			retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) { storyOfAnOutage(t, k, order, outage) })
		})
	}
}

func storyOfAnOutage(t *testing.T, k *retriabletest.Kafka, order retriable.Order, outage time.Duration) {
	const partitions, perSecond, threshold = 4, 1000, 5
	k.Topic("orders", partitions)
	d := &downstream{took: 2 * time.Millisecond, attempts: map[string][]int{}}
	var states []breaker.State
	b := newBreaker(t, breaker.ConsecutiveFailures(threshold), breaker.OnChange(func(_, to breaker.State) {
		if len(states) == 0 || states[len(states)-1] != to {
			states = append(states, to)
		}
	}))
	m := k.Start("billing", retriable.Kafka(kgo.FetchMaxWait(500*time.Millisecond)), retriable.Concurrency(16), retriable.MaxPending(2000),
		retriable.Topic("orders", retriable.HandlerFunc(d.call), retriable.Ordering(order),
			retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.MaxAttempts(2), retriable.Backoff(retriable.Constant(time.Second)),
			retriable.With(b.Middleware), retriable.Gate(b.Gate)))

	n := 0
	second := func() {
		for range 10 {
			rs := make([]*kgo.Record, perSecond/10)
			for i := range rs {
				rs[i] = &kgo.Record{Topic: "orders", Key: fmt.Appendf(nil, "customer-%d", n%5000), Value: fmt.Appendf(nil, "%d", n)}
				n++
			}
			k.ProduceRecords(rs...)
			time.Sleep(100 * time.Millisecond)
		}
	}
	for range 5 {
		second()
	}
	d.down.Store(true)
	second()
	d.tried() // those that opened it
	for range int(outage/time.Second) - 2 {
		second()
	}
	calls, most := d.tried()
	if most != 1 {
		t.Errorf("%d probes at once, want 1", most)
	}
	if rate := float64(calls) / (outage.Seconds() - 2); rate > 1.1 || rate < 0.8 {
		t.Errorf("%.2f probes a second, want about 1", rate)
	}
	d.down.Store(false)
	time.Sleep(2 * time.Second)
	speed := func(span time.Duration) float64 {
		before := d.handled()
		time.Sleep(span)
		return float64(d.handled()-before) / span.Seconds()
	}
	early := speed(time.Second)
	full := speed(time.Second)
	t.Logf("%v records in, %v handled a second 2 s after its return, %v later", n, early, full)
	if early < 0.95*full || full < 1500 {
		t.Errorf("2 s after its return %v a second, later %v", early, full)
	}
	m.Await(retriabletest.Committed())
	if err := m.Stop(); err != nil {
		t.Fatal(err)
	}
	if letters := k.DeadLetters("orders.dead"); len(letters) != 0 {
		t.Errorf("%d dead letters", len(letters))
	}
	spent := 0
	for i := range n {
		ns := d.attempts[fmt.Sprint(i)]
		if len(ns) == 0 {
			t.Fatalf("%d was never handled", i)
		}
		if slices.Max(ns) > 1 {
			spent++
		}
	}
	if spent >= threshold {
		t.Errorf("%d records spent an attempt, of %d; only the %d before it opened may", spent, n, threshold-1)
	}
	if states[0] != breaker.Open || states[len(states)-1] != breaker.Closed {
		t.Errorf("states: %v", states)
	}
}

func TestARebalanceAndAStopWhileItIsOpen(t *testing.T) {
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) { storyOfARebalance(t, k, order) })
		})
	}
}

func storyOfARebalance(t *testing.T, k *retriabletest.Kafka, order retriable.Order) {
	k.Topic("orders", 4)
	d := &downstream{took: 10 * time.Millisecond, attempts: map[string][]int{}}
	d.down.Store(true)
	options := func() []retriable.Option {
		b := newBreaker(t, breaker.ConsecutiveFailures(1))
		return []retriable.Option{retriable.Topic("orders", retriable.HandlerFunc(d.call), retriable.Ordering(order), retriable.RetryTopic("orders.retry"),
			retriable.DeadLetterTopic("orders.dead"), retriable.With(b.Middleware), retriable.Gate(b.Gate))}
	}
	one := k.Start("billing", options()...)
	for i := range 200 {
		k.Produce("orders", fmt.Sprint("customer-", i%20), fmt.Sprint(i))
	}
	time.Sleep(10 * time.Second)
	two := k.Start("billing", options()...)
	time.Sleep(20 * time.Second)
	if err := one.Stop(); err != nil {
		t.Errorf("a stop while it is open: %v", err)
	}
	time.Sleep(10 * time.Second)
	d.down.Store(false)
	two.Await(retriabletest.Committed())
	for i := range 200 {
		if ns := d.attempts[fmt.Sprint(i)]; len(ns) == 0 || slices.Max(ns) != 1 {
			t.Errorf("%d: attempts %v", i, ns)
		}
	}
}

func TestPoisonDoesNotOpenIt(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		k.Topic("orders", 1)
		b := newBreaker(t, breaker.ConsecutiveFailures(2))
		m := k.Start("billing", retriable.Topic("orders", retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
			return retriable.Permanent(errors.New("no order"))
		}), retriable.DeadLetterTopic("orders.dead"), retriable.With(b.Middleware), retriable.Gate(b.Gate)))
		for i := range 50 {
			k.Produce("orders", "", fmt.Sprint(i))
		}
		m.Await(retriabletest.DeadLettered(50))
		if b.State() != breaker.Closed {
			t.Errorf("it is %s", b.State())
		}
	})
}

func TestARatioOpensIt(t *testing.T) {
	b := newBreaker(t, breaker.ConsecutiveFailures(1000), breaker.FailureRatio(0.5, 20, time.Minute), breaker.ProbeEvery(time.Hour))
	n := 0
	h := b.Middleware(retriable.HandlerFunc(func(context.Context, *retriable.Message) error {
		if n++; n%2 == 0 {
			return errDown
		}
		return nil
	}))
	for n < 20 {
		if b.State() != breaker.Closed {
			t.Fatalf("it is %s after %d", b.State(), n)
		}
		_ = h.Handle(t.Context(), retriable.NewMessage(&kgo.Record{}))
	}
	if b.State() != breaker.Open || b.Gate() == 0 {
		t.Errorf("after ten of twenty failed it is %s", b.State())
	}
	if v := retriable.VerdictOf(h.Handle(t.Context(), retriable.NewMessage(&kgo.Record{}))); v != retriable.VerdictPostpone || n != 20 {
		t.Errorf("what comes all the same: %s, %d calls", v, n)
	}
}

func TestAPanicIsAFailure(t *testing.T) {
	b := newBreaker(t, breaker.ConsecutiveFailures(1), breaker.Failure(func(error) bool { return true }))
	h := b.Middleware(retriable.HandlerFunc(func(context.Context, *retriable.Message) error { panic("gone") }))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is swallowed")
			}
		}()
		_ = h.Handle(t.Context(), retriable.NewMessage(&kgo.Record{}))
	}()
	if b.State() != breaker.Open {
		t.Errorf("it is %s", b.State())
	}
}

func TestNewReportsAllThatIsWrong(t *testing.T) {
	_, err := breaker.New(breaker.ConsecutiveFailures(0), breaker.ProbeEvery(-1), breaker.Failure(nil), breaker.FailureRatio(2, 0, time.Second))
	want := `retriable: invalid option: breaker: ConsecutiveFailures(0): less than 1
retriable: invalid option: breaker: ProbeEvery(-1ns): not above 0
retriable: invalid option: breaker: Failure(nil)
retriable: invalid option: breaker: FailureRatio(2, 0, 1s): not a share above 0 up to 1, of 1 or more, within 10ms or more`
	if err == nil || err.Error() != want || !errors.Is(err, retriable.ErrInvalidOption) {
		t.Errorf("got %v", err)
	}
}
