package wire_test

import (
	"testing"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

func TestOurs(t *testing.T) {
	ours := []string{
		wire.AttemptHeader, wire.TimestampHeader, wire.ChunkGroupHeader, wire.ChunkCountHeader, wire.ChunkIDHeader,
		wire.DueHeader, wire.GroupHeader, wire.TopicHeader, wire.PartitionHeader, wire.OffsetHeader,
		wire.TimeHeader, wire.FirstFailureHeader, wire.ErrorHeader, wire.KeyHeader,
		"retriable_kafka_", "retriable_kafka_of_a_newer_member",
	}
	for _, key := range ours {
		if !wire.Ours(key) {
			t.Errorf("%q is not ours", key)
		}
	}
	users := []string{
		"", "r", "retriable", "retriable_", "retriable_kafka", "retriable_duel", "retriable_du", "Retriable_due",
		" retriable_due", "retriable_kafkaattempt", "traceparent", wire.LetterTopicHeader, wire.LetterMessageHeader,
	}
	for _, key := range users {
		if wire.Ours(key) {
			t.Errorf("%q is ours", key)
		}
	}
}

func TestUserKeepsWhatTheUserWrote(t *testing.T) {
	h := headers{
		textHeader("b", "1"),
		textHeader(wire.DueHeader, "5"),
		header("null", nil),
		header("empty", []byte{}),
		numberHeader(wire.AttemptHeader, 1),
		textHeader("b", "1"),
		textHeader("a", "2"),
		textHeader("retriable_other", "3"),
		textHeader(wire.LetterTopicHeader, "letters"),
		numberHeader(wire.AttemptHeader, 2),
	}
	want := headers{h[0], h[2], h[3], h[5], h[6], h[7], h[8]}
	wantHeaders(t, wire.User(h), want)
	if h[1].Key != wire.DueHeader || h[9].Key != wire.AttemptHeader {
		t.Error("the input was changed")
	}
}

func TestUserWithoutOursIsTheSameSlice(t *testing.T) {
	h := append(make(headers, 0, 8), many(3)...)
	user := wire.User(h)
	if &user[0] != &h[0] {
		t.Error("copied")
	}
	// Appending must not write behind h, where a neighbour's headers may lie.
	_ = append(user, textHeader("x", "y"))
	if behind := h[:4]; behind[3].Key != "" {
		t.Error("appending to the result wrote into the input's memory")
	}
	if allocs := testing.AllocsPerRun(100, func() { wire.User(h) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	if wire.User(nil) != nil {
		t.Error("no headers became some")
	}
	if got := wire.User(headers{numberHeader(wire.AttemptHeader, 1)}); got != nil {
		t.Errorf("only ours: got %v", got)
	}
}

func TestBare(t *testing.T) {
	h := headers{
		textHeader("a", "1"),
		textHeader(wire.LetterTopicHeader, "orders"),
		textHeader("__dlq.errors.of.a.newer.kafka", "x"),
		textHeader("__dlq.other", "2"),
		textHeader(wire.GroupHeader, "billing"),
		textHeader(wire.ChunkGroupHeader, "g"),
		numberHeader(wire.ChunkCountHeader, 3),
		numberHeader(wire.ChunkIDHeader, 1),
		textHeader(wire.KeyHeader, "null"),
		header("c", nil),
	}
	wantHeaders(t, wire.Bare(h), headers{h[0], h[3], h[9]})
	wantHeaders(t, wire.BarePart(h), headers{h[0], h[3], h[5], h[6], h[7], h[8], h[9]})
}
