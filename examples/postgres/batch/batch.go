// Package batch shows a topic that goes into a table many records at a time: one statement a batch, which is harmless to repeat, and a single record that the
// table refuses is found out and dead-lettered alone.
package batch

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Schema is the table. Where a record was first produced is its key: an insert that is repeated adds nothing.
const Schema = `
CREATE TABLE readings (
	part int, "offset" bigint,
	sensor text NOT NULL, celsius double precision NOT NULL CHECK (celsius > -273.15),
	PRIMARY KEY (part, "offset")
);`

// Table is where readings go.
type Table struct{ DB *sql.DB }

// Options consume the readings, 500 at a time or what has come in 200 ms.
func (t *Table) Options() []retriable.Option {
	return []retriable.Option{
		retriable.Concurrency(4), // batches at once
		retriable.BatchTopic("readings", t.insert,
			retriable.BatchSize(500), retriable.BatchWait(200*time.Millisecond),
			retriable.Ordering(retriable.Unordered),
			retriable.RetryTopic("readings.retry"), retriable.DeadLetterTopic("readings.dead"),
			retriable.HandlerTimeout(30*time.Second)),
	}
}

type reading struct {
	Sensor  string  `json:"sensor"`
	Celsius float64 `json:"celsius"`
}

func (t *Table) insert(ctx context.Context, batch []*retriable.Message) error {
	var (
		parts   []int32
		offsets []int64
		sensors []string
		degrees []float64
		bad     = map[int]error{}
	)
	for i, m := range batch {
		var r reading
		if err := json.Unmarshal(m.Value, &r); err != nil {
			bad[i] = retriable.Permanent(&retriable.DecodeError{Position: m.Source, Err: err})
			continue
		}
		parts, offsets = append(parts, m.Partition), append(offsets, m.Offset)
		sensors, degrees = append(sensors, r.Sensor), append(degrees, r.Celsius)
	}
	_, err := t.DB.ExecContext(ctx, `INSERT INTO readings (part, "offset", sensor, celsius)
		SELECT * FROM unnest($1::int[], $2::bigint[], $3::text[], $4::double precision[]) ON CONFLICT DO NOTHING`, parts, offsets, sensors, degrees)
	switch {
	case err != nil && refused(err) && len(batch) == 1:
		return retriable.Permanent(err) // this one is to blame
	case err != nil:
		return err // one of them is, or the database: each is handed over once more by itself
	case len(bad) > 0:
		return &retriable.BatchError{Errs: bad} // the others are done
	}
	return nil
}

// refused reports whether the database would refuse the same again: data exceptions and broken constraints (classes 22 and 23).
func refused(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && len(answer.Code) == 5 && (answer.Code[:2] == "22" || answer.Code[:2] == "23")
}
