package wire_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

func TestSlimKeepsWhatDecidesTheNextAttempt(t *testing.T) {
	full := wire.AppendRetry([]kgo.RecordHeader{{Key: "tenant", Value: []byte("a")}}, wire.Retry{
		Origin:  wire.Origin{Topic: "orders", Partition: 3, Offset: 9, Time: time.UnixMilli(1)},
		Attempt: 4, Due: 1_700_000_000_123, Group: "billing", FirstFailure: 1_600_000_000_000, Error: "no",
	})
	slim := wire.Slim(full)
	if len(slim) >= len(full) {
		t.Fatalf("%d headers, no fewer than %d", len(slim), len(full))
	}
	r := wire.ParseRetry(slim)
	if r.Attempt != 4 || r.Due != 1_700_000_000_123 || r.Group != "billing" || r.Known() || r.Error != "" {
		t.Fatalf("got %+v", r)
	}
	if user := wire.User(slim); len(user) != 1 || user[0].Key != "tenant" {
		t.Fatalf("user headers %v", user)
	}
}
