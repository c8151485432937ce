package wire_test

import (
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

func fullLetter() wire.DeadLetter {
	return wire.DeadLetter{
		Origin:       wire.Origin{Topic: "orders", Partition: 7, Offset: 42, Time: time.UnixMilli(1795402825981)},
		Group:        "billing",
		Deliveries:   5,
		Message:      "all attempts failed",
		FirstFailure: 1795402826000,
		Error:        "no such account",
	}
}

func TestAppendDeadLetterWritesTheHeadersInOrder(t *testing.T) {
	got := wire.AppendDeadLetter(headers{textHeader("user", "1")}, fullLetter())
	wantHeaders(t, got, headers{
		textHeader("user", "1"),
		textHeader("__dlq.errors.topic", "orders"),
		textHeader("__dlq.errors.partition", "7"),
		textHeader("__dlq.errors.offset", "42"),
		textHeader("__dlq.errors.group", "billing"),
		textHeader("__dlq.errors.delivery.count", "5"),
		textHeader("__dlq.errors.message", "all attempts failed"),
		textHeader("retriable_group", "billing"),
		textHeader("retriable_topic", "orders"),
		textHeader("retriable_partition", "7"),
		textHeader("retriable_offset", "42"),
		textHeader("retriable_time", "1795402825981"),
		textHeader("retriable_first_failure", "1795402826000"),
		textHeader("retriable_error", "no such account"),
	})
	if parsed := wire.ParseDeadLetter(got); parsed != fullLetter() {
		t.Errorf("read back: %+v", parsed)
	}
}

func TestDeadLetterOfUnknownOrigin(t *testing.T) {
	want := wire.DeadLetter{
		Origin: wire.Origin{Topic: "orders", Partition: -1, Offset: -1},
		Group:  "billing", Deliveries: 1, Message: "undecodable",
	}
	h := wire.AppendDeadLetter(nil, want)
	wantHeaders(t, h, headers{
		textHeader("__dlq.errors.topic", "orders"),
		textHeader("__dlq.errors.group", "billing"),
		textHeader("__dlq.errors.delivery.count", "1"),
		textHeader("__dlq.errors.message", "undecodable"),
		textHeader("retriable_group", "billing"),
	})
	if got := wire.ParseDeadLetter(h); got != want {
		t.Errorf("read back: %+v", got)
	}
}

// A letter sent back and dead-lettered again says what happened the second
// time: the first one's headers come first, and would win.
func TestDeadLetterOfADeadLetter(t *testing.T) {
	user := many(2)
	first := wire.AppendDeadLetter(wire.Bare(user), fullLetter())
	second := fullLetter()
	second.Topic, second.Offset, second.Deliveries, second.Message = "orders2", 99, 1, "permanent"
	h := wire.AppendDeadLetter(wire.Bare(first), second)
	if got := wire.ParseDeadLetter(h); got != second {
		t.Errorf("got %+v", got)
	}
	wantHeaders(t, wire.Bare(h), user)
}

func TestDeadLetterWrittenByKafka(t *testing.T) {
	got := wire.ParseDeadLetter(headers{
		textHeader(wire.LetterTopicHeader, "orders"),
		textHeader(wire.LetterPartitionHeader, "3"),
		textHeader(wire.LetterOffsetHeader, "12"),
		textHeader(wire.LetterGroupHeader, "share"),
		textHeader(wire.LetterDeliveriesHeader, "5"),
		textHeader(wire.LetterMessageHeader, "rejected"),
	})
	want := wire.DeadLetter{
		Origin: wire.Origin{Topic: "orders", Partition: 3, Offset: 12},
		Group:  "share", Deliveries: 5, Message: "rejected",
	}
	if got != want {
		t.Errorf("got %+v", got)
	}
}

func TestHostileDeadLetter(t *testing.T) {
	tests := []struct {
		name string
		h    headers
		bad  int
	}{
		{"no headers", nil, 0},
		{"only the user's", many(3), 0},
		{"nulls", headers{header(wire.LetterTopicHeader, nil), header(wire.LetterDeliveriesHeader, nil), header(wire.LetterMessageHeader, nil)}, 3},
		{"of a newer Kafka", headers{textHeader("__dlq.errors.new", "x")}, 0},
		{"deliveries negative", headers{textHeader(wire.LetterDeliveriesHeader, "-1")}, 1},
		{"deliveries 2^31", headers{textHeader(wire.LetterDeliveriesHeader, "2147483648")}, 1},
		{"offset 2^64", headers{textHeader(wire.LetterOffsetHeader, "18446744073709551616")}, 1},
		{"group of 1 MiB", headers{header(wire.LetterGroupHeader, make([]byte, 1<<20))}, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := wire.DeadLetter{Origin: wire.Origin{Partition: -1, Offset: -1}, Bad: test.bad}
			var got wire.DeadLetter
			allocated(t, test.h, func() { got = wire.ParseDeadLetter(test.h) })
			if got != want {
				t.Errorf("got %.300v", got)
			}
		})
	}
}
