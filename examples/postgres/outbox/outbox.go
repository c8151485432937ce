// Package outbox shows the two halves of exactly-once work around a database. A record is delivered at least once: so the handler notes which record it has
// worked on in the same transaction as its work, and a repeated delivery finds the note. What it wants to tell others it writes into a table, the
// outbox, in that transaction too; a relay takes it from there to Kafka, where it may come twice and carries the id by which its readers can tell.
package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Schema is the tables. Rows of handled may go when their records have left the topic (its retention, and that of the dead letters, for those may be sent
// back).
const Schema = `
CREATE TABLE accounts (name text PRIMARY KEY, cents bigint NOT NULL DEFAULT 0);
CREATE TABLE handled (
	topic text, part int, "offset" bigint,
	at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (topic, part, "offset")
);
CREATE TABLE outbox (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	topic text NOT NULL, key text NOT NULL, value text NOT NULL
);`

// Payment is the body of a record.
type Payment struct {
	Account string `json:"account"`
	Cents   int64  `json:"cents"`
}

// Books books payments.
type Books struct{ DB *sql.DB }

// Options consume the payments.
func (b *Books) Options() []retriable.Option {
	return []retriable.Option{
		retriable.Concurrency(8), // not more than the database has connections for us
		retriable.Topic("payments", retriable.JSON(b.book),
			retriable.RetryTopic("payments.retry"), retriable.DeadLetterTopic("payments.dead"),
			retriable.HandlerTimeout(10*time.Second)),
	}
}

// book does all of a payment in one transaction, or nothing of it.
func (b *Books) book(ctx context.Context, p Payment, m *retriable.Message) error {
	tx, err := b.DB.BeginTx(ctx, nil)
	if err != nil {
		return err // the database is away: another attempt
	}
	defer func() { _ = tx.Rollback() }() // nothing, after a commit

	// Where the record was first produced is its name on every attempt, those from the retry topic and those of replays included.
	noted, err := tx.ExecContext(ctx, `INSERT INTO handled (topic, part, "offset") VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, m.Topic, m.Partition, m.Offset)
	if err != nil {
		return err
	}
	if n, err := noted.RowsAffected(); err != nil || n == 0 {
		return err // nil: it was worked on before
	}
	var balance int64
	err = tx.QueryRowContext(ctx, `INSERT INTO accounts (name, cents) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET cents = accounts.cents + excluded.cents RETURNING cents`, p.Account, p.Cents).Scan(&balance)
	if err != nil {
		return err
	}
	if balance < 0 {
		return retriable.Permanent(fmt.Errorf("the account would stand at %d", balance)) // and the transaction is undone
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO outbox (topic, key, value) VALUES ('balances', $1, $2)`, p.Account, strconv.FormatInt(balance, 10))
	if err != nil {
		return err
	}
	return tx.Commit() // if its outcome is unknown the record comes again, and finds the note or not
}

// Relay takes what lies in the outbox to Kafka, oldest first, until ctx is done. One of several relays works at a time, so that what is told of an
// account comes in order. A crash between the write and the commit has the same ids written again.
func Relay(ctx context.Context, db *sql.DB, p *retriable.Producer, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		for {
			n, err := relay(ctx, db, p)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// relayLock is the number of the lock that the working relay holds; any will do that nobody else in the database takes.
const relayLock = 7_245_118

// relay takes one page.
func relay(ctx context.Context, db *sql.DB, p *retriable.Producer) (n int, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }()
	var mine bool
	if err := tx.QueryRowContext(ctx, `SELECT pg_try_advisory_xact_lock($1)`, relayLock).Scan(&mine); err != nil || !mine {
		return 0, err
	}
	records, ids, err := page(ctx, tx)
	if err != nil || len(records) == 0 {
		return 0, err
	}
	for _, r := range records {
		if err := p.Produce(ctx, r); err != nil { // acked, or an error
			return 0, err
		}
	}
	// Identities are drawn in order, but rows may be committed in another: one below may yet come, so only what was read goes.
	if _, err := tx.ExecContext(ctx, `DELETE FROM outbox WHERE id = ANY($1)`, ids); err != nil {
		return 0, err
	}
	return len(records), tx.Commit()
}

// page reads the oldest rows.
func page(ctx context.Context, tx *sql.Tx) (records []*kgo.Record, ids []int64, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT id, topic, key, value FROM outbox ORDER BY id LIMIT 500`)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var topic, key, value string
		if err := rows.Scan(&id, &topic, &key, &value); err != nil {
			return nil, nil, err
		}
		ids = append(ids, id)
		records = append(records, &kgo.Record{
			Topic: topic, Key: []byte(key), Value: []byte(value),
			Headers: []kgo.RecordHeader{{Key: "id", Value: strconv.AppendInt(nil, id, 10)}}, // by which readers tell a repetition
		})
	}
	return records, ids, rows.Err()
}
