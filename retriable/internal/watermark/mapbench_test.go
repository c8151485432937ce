package watermark

import "testing"

// benchWindows are the capacity cases, each about as large as fits, and windows of a million offsets that need not.
func benchWindows() []struct {
	name string
	done []Run
} {
	return []struct {
		name string
		done []Run
	}{
		{"half-24k", atRandom(1, 10, 24_000, 12_000)},
		{"tenth-50k", atRandom(1, 10, 50_000, 5_000)},
		{"hundredth-290k", atRandom(1, 10, 290_000, 2_900)},
		{"thousandth-2M", atRandom(1, 10, 2_000_000, 2_000)},
		{"bursts-1.2M", inBursts(1, 10, 1_200_000, 12_000, 8)},
		{"half-1M", atRandom(1, 10, 1_000_000, 500_000)},
		{"tenth-1M", atRandom(1, 10, 1_000_000, 100_000)},
		{"hundredth-1M", atRandom(1, 10, 1_000_000, 10_000)},
		{"thousandth-1M", atRandom(1, 10, 1_000_000, 1_000)},
		{"ten-1M", atRandom(1, 10, 1_000_000, 10)},
		{"one-1M", atRandom(1, 10, 1_000_000, 1)},
	}
}

func BenchmarkMapEncode(b *testing.B) {
	for _, w := range benchWindows() {
		b.Run(w.name, func(b *testing.B) {
			m := full(w.done)
			var text string
			b.ReportAllocs()
			for b.Loop() {
				text, _ = m.Encode(10, MaxMetadata)
			}
			b.ReportMetric(float64(len(text)), "chars")
		})
	}
}

func BenchmarkMapDecode(b *testing.B) {
	for _, w := range benchWindows() {
		b.Run(w.name, func(b *testing.B) {
			text, _ := full(w.done).Encode(10, MaxMetadata)
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := DecodeMap(text, 10, -1); !ok {
					b.Fatal("it does not decode")
				}
			}
		})
	}
}

func BenchmarkBound(b *testing.B) {
	sum := 0
	for b.Loop() {
		sum += Bound(2_900, 290_000, 0)
	}
	_ = sum
}
