package batch_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/examples/postgres/batch"
	"github.com/retriable-kafka/retriable-go/examples/postgres/internal/pgtest"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// Of 2,000 readings one cannot be read and one cannot be true: all others are in the table, once, though all are delivered twice.
func TestReadingsAreInsertedOnceAndBadOnesFoundOut(t *testing.T) {
	db := pgtest.Open(t, batch.Schema)
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "readings"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	const n = 2000
	var rs []*kgo.Record
	for i := range n {
		value := fmt.Appendf(nil, `{"sensor": "s%d", "celsius": %d}`, i%7, i%40)
		switch i {
		case 700:
			value = []byte("not JSON")
		case 1300:
			value = []byte(`{"sensor": "s1", "celsius": -300}`)
		}
		rs = append(rs, &kgo.Record{Topic: "readings", Key: fmt.Append(nil, i), Value: value})
	}
	if err := cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"first", "again"} {
		c, err := retriable.New(group, append((&batch.Table{DB: db}).Options(), retriable.Brokers(broker.ListenAddrs()...), retriable.CreateTopics(1, 1),
			retriable.Logger(slog.New(slog.DiscardHandler)))...)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		for c.Stats().Handled < n-2 || c.Stats().DeadLettered < 2 {
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
		if st := c.Stats(); st.Retried != 0 || st.DeadLettered != 2 {
			t.Errorf("%d retried, %d dead-lettered", st.Retried, st.DeadLettered)
		}
		var rows int
		if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM readings`).Scan(&rows); err != nil || rows != n-2 {
			t.Errorf("%s: %d rows, %v", group, rows, err)
		}
	}
}
