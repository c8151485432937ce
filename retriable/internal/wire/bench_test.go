package wire_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

func BenchmarkUser(b *testing.B) {
	for _, bench := range []struct {
		name string
		h    headers
	}{
		{"NoHeaders", nil},
		{"FiveOfTheUser", many(5)},
		{"RetryCopy", wire.AppendRetry(many(5), fullRetry())},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				wire.User(bench.h)
			}
		})
	}
}

func BenchmarkParseRetry(b *testing.B) {
	h := wire.AppendRetry(many(5), fullRetry())
	b.ReportAllocs()
	for b.Loop() {
		wire.ParseRetry(h)
	}
}

func BenchmarkParseDue(b *testing.B) {
	h := many(5)
	b.ReportAllocs()
	for b.Loop() {
		wire.ParseDue(h)
	}
}

func BenchmarkAppendRetry(b *testing.B) {
	user, r := many(5), fullRetry()
	b.ReportAllocs()
	for b.Loop() {
		wire.AppendRetry(user[:5:5], r)
	}
}

func BenchmarkAppendDeadLetter(b *testing.B) {
	user, d := many(5), fullLetter()
	b.ReportAllocs()
	for b.Loop() {
		wire.AppendDeadLetter(user[:5:5], d)
	}
}

func BenchmarkJoin(b *testing.B) {
	b.Run("NoChunk", func(b *testing.B) {
		j, r := wire.NewJoiner(wire.DefaultLimits()), &kgo.Record{Headers: many(5)}
		b.ReportAllocs()
		for b.Loop() {
			j.Add(start, r)
		}
	})
	b.Run("OnlyChunk", func(b *testing.B) {
		var l log
		j, r := wire.NewJoiner(wire.DefaultLimits()), l.chunk("g", 1, 0, "value")
		b.ReportAllocs()
		for b.Loop() {
			j.Add(start, r)
		}
	})
	b.Run("3Chunks1MB", func(b *testing.B) {
		parts, err := wire.SplitRecord(&kgo.Record{Value: make([]byte, 3_000_000)}, group, 1_000_200)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(3_000_000)
		b.ReportAllocs()
		for b.Loop() {
			j := wire.NewJoiner(wire.DefaultLimits())
			for _, part := range parts {
				j.Add(start, part)
			}
		}
	})
}
