package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

// A bank that does not answer for a while costs time: orders wait in the retry topic, payments of an account in their place, mails go on.
func TestAnOutageOfTheBankCostsTime(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		for _, topic := range []string{"orders", "payments", "mails"} {
			k.Topic(topic, 2)
		}
		s := &shop{}
		c, err := newConsumer(s, append(k.Members, k.Options()...)...)
		if err != nil {
			t.Fatal(err)
		}
		stop := runs(t, c)
		s.setOutage(true)
		k.Produce("orders", "anna", `{"id": "1", "cents": 500}`, `{"id": "2", "cents": 0}`)
		k.Produce("payments", "anna", `{"account": "anna", "cents": 500}`, `{"account": "anna", "cents": -20}`)
		k.Produce("mails", "", `{"to": "anna@example.com"}`, `{"to": ""}`)
		time.Sleep(time.Second) // five retries in place take one and a half at least
		st := c.Stats()
		if got := fmt.Sprint(st.Handled, st.DeadLettered, st.Dropped); got != "1 1 1" {
			t.Errorf("while the bank is away: handled, dead-lettered, dropped are %s, want the mail, the order of nothing and the mail to nobody", got)
		}
		s.setOutage(false)
		time.Sleep(time.Minute)
		if err := c.Health(t.Context()); err != nil {
			t.Errorf("Health: %v", err)
		}
		stop()
		if s.orders["1"] != 500 || s.balances["anna"] != 480 || s.mails != 1 {
			t.Errorf("orders %v, balances %v, %d mails", s.orders, s.balances, s.mails)
		}
		for _, letter := range k.DeadLetters("shop.orders.dead") {
			if letter.Reason != "permanent failure" || string(letter.Value) != `{"id": "2", "cents": 0}` {
				t.Errorf("%s: %s", letter.Reason, letter.Value)
			}
		}
	})
}

// runs runs a consumer until the returned function is called, which fails the test if the stop was not clean.
func runs(t *testing.T, c *retriable.Consumer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	<-c.Ready()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}
