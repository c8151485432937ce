package retriable_test

import (
	"math"
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
)

func TestConstantIsConstant(t *testing.T) {
	t.Parallel()
	f := retriable.Constant(7 * time.Second)
	for _, attempt := range []int{1, 2, 100, math.MaxInt} {
		if d := f(attempt); d != 7*time.Second {
			t.Errorf("after attempt %d: %v", attempt, d)
		}
	}
}

// wantUpperHalf fails unless a wait is above half of d and at most d.
func wantUpperHalf(t *testing.T, f retriable.BackoffFunc, attempt int, d time.Duration) {
	t.Helper()
	if w := f(attempt); w <= d/2 || w > d {
		t.Fatalf("after attempt %d: %v, want more than %v and at most %v", attempt, w, d/2, d)
	}
}

func TestExponentialDoublesUpToItsLimit(t *testing.T) {
	t.Parallel()
	f := retriable.Exponential(time.Second, time.Minute)
	for attempt, d := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4: 8 * time.Second, 5: 16 * time.Second, 6: 32 * time.Second,
		7: time.Minute, 8: time.Minute, 70: time.Minute, math.MaxInt32: time.Minute, math.MaxInt: time.Minute,
	} {
		for range 200 {
			wantUpperHalf(t, f, attempt, d)
		}
	}
}

func TestJitterUsesAllOfTheUpperHalf(t *testing.T) {
	t.Parallel()
	f := retriable.Exponential(8*time.Second, time.Minute)
	var eighths [8]int
	for range 2000 {
		eighths[min(int(f(1)/time.Second), 7)]++
	}
	for i, n := range eighths {
		if (n > 0) != (i >= 4) {
			t.Errorf("%d of 2000 waits lie in second %d of 8: %v", n, i, eighths)
		}
	}
}

func TestHugeWaitsDoNotOverflow(t *testing.T) {
	t.Parallel()
	const most = time.Duration(math.MaxInt64)
	for _, c := range []struct {
		name           string
		initial, limit time.Duration
		attempt        int
		want           time.Duration
	}{
		{"the longest there is", most, most, 1, most},
		{"doubled beyond it", most/2 + 1, most, 2, most},
		{"doubled beyond it, again and again", most/2 + 1, most, math.MaxInt, most},
		{"from a nanosecond", 1, most, 64, most},
		{"from a nanosecond for ever", 1, most, math.MaxInt, most},
		{"a limit just above", time.Hour, time.Hour + 1, 5, time.Hour + 1},
		{"a limit below the first", time.Hour, time.Minute, 1, time.Minute},
	} {
		f := retriable.Exponential(c.initial, c.limit)
		for range 50 {
			if w := f(c.attempt); w < c.want/2 || w > c.want {
				t.Fatalf("%s: %v, want the upper half of %v", c.name, w, c.want)
			}
		}
	}
}

func TestWhatIsNoWaitIsNone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ initial, limit time.Duration }{
		{0, time.Minute}, {-time.Second, time.Minute}, {time.Second, 0}, {time.Second, -time.Minute}, {math.MinInt64, math.MaxInt64}, {math.MinInt64, math.MinInt64},
	} {
		for _, attempt := range []int{-1, 0, 1, 2, 100, math.MaxInt} {
			if w := retriable.Exponential(c.initial, c.limit)(attempt); w != 0 {
				t.Errorf("Exponential(%v, %v) after attempt %d: %v, want 0", c.initial, c.limit, attempt, w)
			}
		}
	}
	for _, attempt := range []int{math.MinInt, -1, 0} { // never asked by the library
		wantUpperHalf(t, retriable.Exponential(time.Second, time.Minute), attempt, time.Second)
	}
}

func TestAWaitOfNanosecondsIsOne(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{1, 2, 3} { // a nanosecond or two leave nothing to draw from
		if w := retriable.Exponential(d, d)(1); w < 1 || w > d {
			t.Errorf("%d ns: %d", d, w)
		}
	}
}
