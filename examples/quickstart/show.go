package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// errSlow ends the play if it does not come to its end.
var errSlow = errors.New("this takes far too long: what had to happen did not")

const (
	customers  = 60
	partitions = 6 // of orders and orders.retry together
)

// show produces the orders and has members of the group come and go.
type show struct {
	brokers []string
	client  *kgo.Client // for producing and looking
	books   *books
	members []*member
	ids     int
}

// member is a consumer whose Run is under way.
type member struct {
	name string
	c    *retriable.Consumer
	stop context.CancelFunc
	done chan struct{}
	err  error // once done is closed
}

func newShow(brokers []string) (*show, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return &show{brokers: brokers, client: client, books: newBooks()}, nil
}

// play is the story, up to the last member's stop. Members come and go while orders flow and while failed ones wait for their next attempt.
func (s *show) play(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errSlow)
	defer cancel()

	fmt.Println("Of what happens often only the 1st, 2nd, 4th, 8th … time is told.")
	fmt.Println("\nOne member. 150 orders at once, some of them trouble.")
	if _, err := s.join(ctx, "A"); err != nil {
		return err
	}
	if err := s.burst(ctx, 150); err != nil {
		return err
	}

	fmt.Println("\nA second member joins, while failed orders wait and more keep coming.")
	b, err := s.join(ctx, "B")
	if err != nil {
		return err
	}
	shared := func() bool { return s.books.owned("B") > 0 && s.books.owned("A")+s.books.owned("B") == partitions }
	if err := s.trickle(ctx, shared); err != nil {
		return err
	}

	fmt.Println("\nTwo members. 150 orders more.")
	if err := s.burst(ctx, 150); err != nil {
		return err
	}

	fmt.Println("\nThe second member leaves, while failed orders wait and more keep coming.")
	b.stop()
	if err := s.trickle(ctx, func() bool { return s.books.owned("A") == partitions }); err != nil {
		return err
	}

	fmt.Println("\nOne member, until all is settled.")
	if err := until(ctx, s.books.settled); err != nil {
		return err
	}

	fmt.Println("\nThe first one stops too.")
	return nil
}

// join starts a member and waits until it has joined the group.
func (s *show) join(ctx context.Context, name string) (*member, error) {
	t := newTeller(name, s.books)
	c, err := newConsumer(s.brokers, t)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	m := &member{name: name, c: c, stop: stop, done: make(chan struct{})}
	s.members = append(s.members, m)
	go func() {
		defer close(m.done)
		m.err = c.Run(ctx)
		t.stopped(m.err)
	}()
	select {
	case <-c.Ready():
	case <-m.done:
		return m, fmt.Errorf("member %s has ended: %w", name, cmp.Or(m.err, ctx.Err()))
	}
	return m, nil
}

// stopAll stops the members that still run, waits for all, and returns what Run returned to any of them.
func (s *show) stopAll() error {
	var errs []error
	for _, m := range s.members {
		m.stop()
		<-m.done
		if m.err != nil {
			errs = append(errs, fmt.Errorf("member %s: %w", m.name, m.err))
		}
	}
	return errors.Join(errs...)
}

// burst produces n orders at once, of which some will fail, and waits until some of those wait for their next attempt.
func (s *show) burst(ctx context.Context, n int) error {
	orders := make([]order, n)
	for i := range orders {
		orders[i] = order{Cents: 100 + 37*i}
		switch o := &orders[i]; {
		case i%50 == 49:
			o.Busy = 99 // for good
		case i%75 == 60:
			o.Expired = true
		case i%20 == 10:
			o.Busy = 2
		case i%10 == 5:
			o.Busy = 1
		}
	}
	before := s.books.counted("held")
	if err := s.produce(ctx, orders...); err != nil {
		return err
	}
	return until(ctx, func() bool { return s.books.counted("held") >= before+10 })
}

// produce writes orders, keyed by customer, and enters them in the books.
func (s *show) produce(ctx context.Context, orders ...order) error {
	records := make([]*kgo.Record, len(orders))
	for i, o := range orders {
		s.ids++
		o.ID = s.ids
		value, err := json.Marshal(o)
		if err != nil {
			return err
		}
		records[i] = &kgo.Record{Topic: "orders", Key: fmt.Appendf(nil, "customer-%02d", o.ID%customers), Value: value}
	}
	if err := s.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("producing: %w", err)
	}
	for _, o := range orders {
		s.books.produced(o)
	}
	return nil
}

// trickle produces an order every 10 ms, 50 at least, until something is so.
func (s *show) trickle(ctx context.Context, so func() bool) error {
	for n := 0; n < 50 || !so(); n++ {
		if err := s.produce(ctx, order{Cents: 500}); err != nil {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// until waits until something is so.
func until(ctx context.Context, so func() bool) error {
	for !so() {
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(10 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
