package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// newConsumer says how each topic is handled. What they have in common is said once.
func newConsumer(s *shop, opts ...retriable.Option) (*retriable.Consumer, error) {
	return retriable.New("shop", append([]retriable.Option{
		retriable.Concurrency(32), // handlers at once, over all topics
		retriable.CreateTopics(3, 1),
		retriable.Defaults(
			retriable.MaxAttempts(6),
			retriable.Backoff(retriable.Exponential(time.Second, 5*time.Minute)),
			retriable.HandlerTimeout(10*time.Second), // below DrainTimeout, so that a stop is clean
		),
		// Orders: those of one customer, their key, in turn. Retries go beside.
		retriable.Topic("orders", retriable.JSON(s.order),
			retriable.RetryTopic("shop.orders.retry"), retriable.DeadLetterTopic("shop.orders.dead")),
		// Payments: those of one account must not pass each other even when one fails. So it is tried again in place, its account waits, and
		// there is no retry topic.
		retriable.Topic("payments", retriable.JSON(s.payment),
			retriable.BlockingRetries(5, retriable.Exponential(100*time.Millisecond, 5*time.Second)), retriable.DeadLetterTopic("shop.payments.dead")),
		// Mails: in any order, and no more than the mail server bears. A lost one is no harm, and is not kept.
		retriable.Topic("mails", retriable.JSON(s.mail),
			retriable.Ordering(retriable.Unordered), retriable.RateLimit(50, 10), retriable.TopicConcurrency(4),
			retriable.RetryTopic("shop.mails.retry"), retriable.MaxAttempts(3), retriable.NoDeadLetters()),
	}, opts...)...)
}

type order struct {
	ID    string `json:"id"`
	Cents int    `json:"cents"`
}

type payment struct {
	Account string `json:"account"`
	Cents   int    `json:"cents"`
}

type mail struct {
	To string `json:"to"`
}

// shop is what the handlers work on. What they do may be done twice, as every handler's work may: orders have an id, and a payment is recognised by
// where it lies.
type shop struct {
	mu       sync.Mutex
	orders   map[string]int
	balances map[string]int
	seen     map[retriable.Position]bool
	mails    int
	outage   bool // the bank does not answer
}

var (
	errNothing = errors.New("an order of nothing")
	errOutage  = errors.New("the bank does not answer")
)

func (s *shop) order(_ context.Context, o order, _ *retriable.Message) error {
	if o.Cents <= 0 {
		return retriable.Permanent(fmt.Errorf("order %s: %w", o.ID, errNothing)) // it will not get better
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outage {
		return errOutage
	}
	if s.orders == nil {
		s.orders = map[string]int{}
	}
	s.orders[o.ID] = o.Cents
	return nil
}

func (s *shop) payment(_ context.Context, p payment, m *retriable.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outage {
		return errOutage
	}
	at := retriable.Position{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset} // as first produced, on every attempt
	if s.seen[at] {
		return nil
	}
	if s.seen == nil {
		s.seen, s.balances = map[retriable.Position]bool{}, map[string]int{}
	}
	s.seen[at] = true
	s.balances[p.Account] += p.Cents
	return nil
}

func (s *shop) mail(_ context.Context, m mail, _ *retriable.Message) error {
	if m.To == "" {
		return retriable.Drop(errors.New("a mail to nobody"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails++
	return nil
}

// setOutage has the bank not answer, or answer again.
func (s *shop) setOutage(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outage = on
}
