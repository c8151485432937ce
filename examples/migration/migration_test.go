package migration_test

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/examples/migration"
	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

// What a Python member left in the retry topic is handled with its attempts counted on, and what this consumer writes there a Python member can read.
func TestAMemberTakesOverWhatAPythonMemberLeft(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		k.Topic("orders", 1)
		k.Topic("orders.retry", 1)
		var attempts []int
		service := k.Start("billing", migration.Options(func(_ context.Context, o migration.Order, m *retriable.Message) error {
			attempts = append(attempts, m.Attempt)
			return errors.New("not today")
		})...)
		// As the Python client writes it: an own key, the number of the coming retry, a due time in whole seconds, no header of the user's.
		k.ProduceRecords(&kgo.Record{
			Topic: "orders.retry", Key: []byte("5f0c"), Value: []byte(`{"id": "17", "cents": 100}`),
			Headers: []kgo.RecordHeader{
				{Key: "retriable_kafka_attempt", Value: binary.BigEndian.AppendUint64(nil, 4)},
				{Key: "retriable_kafka_timestamp", Value: binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(10*time.Second).Unix()))},
			},
		})
		service.Await(retriabletest.DeadLettered(1), retriabletest.Committed())
		if len(attempts) != 2 || attempts[0] != 5 || attempts[1] != 6 {
			t.Errorf("attempts %v, want the fifth and the last", attempts)
		}
		for _, r := range k.Records("orders.retry")[1:] { // our copy, with the headers of that client
			names := map[string][]byte{}
			for _, h := range r.Headers {
				names[h.Key] = h.Value
			}
			if n := binary.BigEndian.Uint64(names["retriable_kafka_attempt"]); n != 5 {
				t.Errorf("our copy says retry %d", n)
			}
			if len(names["retriable_kafka_timestamp"]) != 8 {
				t.Errorf("our copy has the due time %x", names["retriable_kafka_timestamp"])
			}
		}
	})
}

// The filter is asked of the record as first produced, and not again of its retries.
func TestTheFilterIsAskedOnce(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		k.Topic("orders", 1)
		service := k.Start("billing", migration.Options(func(_ context.Context, o migration.Order, m *retriable.Message) error {
			if m.Attempt < 2 {
				return errors.New("not yet")
			}
			return nil
		})...)
		for id, region := range map[string]string{"1": "eu-west", "2": "us-east"} {
			k.ProduceRecords(&kgo.Record{Topic: "orders", Value: []byte(`{"id": "` + id + `"}`), Headers: []kgo.RecordHeader{{Key: "region", Value: []byte(region)}}})
		}
		service.Await(retriabletest.Handled(1), retriabletest.Committed())
		if st := service.Stats(); st.Filtered != 1 || st.Retried != 1 || st.Handled != 1 {
			t.Errorf("%d filtered, %d retried, %d handled", st.Filtered, st.Retried, st.Handled)
		}
	})
}
