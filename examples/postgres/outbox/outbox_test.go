package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/examples/postgres/internal/pgtest"
	"github.com/retriable-kafka/retriable-go/examples/postgres/outbox"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// Every payment is booked once though all are delivered twice, and the last that is told of an account is its balance.
func TestEveryPaymentIsBookedOnceAndTold(t *testing.T) {
	db := pgtest.Open(t, outbox.Schema)
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "payments", "balances"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	seeds := retriable.Brokers(broker.ListenAddrs()...)
	producer, err := retriable.NewProducer(seeds)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	const payments, accounts = 120, 6
	for i := range payments {
		account := fmt.Sprint("account-", i%accounts)
		r := &kgo.Record{Topic: "payments", Key: []byte(account), Value: fmt.Appendf(nil, `{"account": %q, "cents": 10}`, account)}
		if err := producer.Produce(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	overdraft := &kgo.Record{Topic: "payments", Key: []byte("poor"), Value: []byte(`{"account": "poor", "cents": -1}`)}
	if err := producer.Produce(t.Context(), overdraft); err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	relayed := make(chan error, 1)
	go func() { relayed <- outbox.Relay(ctx, db, producer, 10*time.Millisecond) }()
	consume(t, "billing", seeds, db)
	consume(t, "billing-again", seeds, db) // all of it is delivered once more, as after a crash or an offset that was reset
	for count(t, db, "SELECT count(*) FROM outbox") > 0 {
		select {
		case err := <-relayed:
			t.Fatalf("Relay: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	stop()
	if err := <-relayed; err != nil {
		t.Errorf("Relay: %v", err)
	}

	if n := count(t, db, "SELECT count(*) FROM handled"); n != payments {
		t.Errorf("%d payments are noted, want %d", n, payments)
	}
	if n := count(t, db, "SELECT count(*) FROM accounts WHERE cents = 200"); n != accounts {
		t.Errorf("%d accounts stand at 200, want %d", n, accounts)
	}
	if n := count(t, db, "SELECT count(*) FROM accounts"); n != accounts {
		t.Errorf("%d accounts, want %d: the overdraft left nothing", n, accounts)
	}
	told, lastID := read(t, broker.ListenAddrs(), payments), map[string]int{}
	for key, ids := range told {
		if len(ids) != payments/accounts {
			t.Errorf("%s was told of %d times", key, len(ids))
		}
		for i, id := range ids {
			if id <= lastID[key] {
				t.Errorf("%s: number %d has id %d after %d", key, i, id, lastID[key])
			}
			lastID[key] = id
		}
	}
}

// consume runs a consumer until everything is handled, and stops it cleanly.
func consume(t *testing.T, group string, seeds retriable.Option, db *sql.DB) {
	t.Helper()
	books := &outbox.Books{DB: db}
	c, err := retriable.New(group, append(books.Options(), seeds, retriable.CreateTopics(1, 1), retriable.Logger(slog.New(slog.DiscardHandler)))...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	for {
		if st := c.Stats(); st.Handled+st.DeadLettered >= 121 {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("Run ended early: %v; %+v", err, c.Stats())
		case <-time.After(10 * time.Millisecond):
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// read returns the ids that were told of each key, in their order.
func read(t *testing.T, seeds []string, n int) map[string][]int {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.ConsumeTopics("balances"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	told := map[string][]int{}
	for seen := 0; seen < n; {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("after %d of %d: %v", seen, n, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			id, err := strconv.Atoi(string(r.Headers[0].Value))
			if err != nil {
				t.Error(err)
			}
			told[string(r.Key)] = append(told[string(r.Key)], id)
			seen++
		})
	}
	return told
}

func count(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
