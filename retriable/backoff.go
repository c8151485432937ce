package retriable

import (
	"math/rand/v2"
	"time"
)

// BackoffFunc returns how long a record waits after a failed attempt: attempt is the one that just failed, 1-based. It is called
// once for each failed record, from many goroutines.
type BackoffFunc func(attempt int) time.Duration

// Constant waits d after every attempt.
func Constant(d time.Duration) BackoffFunc {
	return func(int) time.Duration { return d }
}

// Exponential waits initial after the first attempt and twice as long after each further one, up to limit; every wait is drawn
// at random, for each record, from the upper half of that: so that what failed together does not come back together.
func Exponential(initial, limit time.Duration) BackoffFunc {
	return func(attempt int) time.Duration {
		d := min(initial, limit)
		for i := 1; i < attempt && d < limit; i++ {
			d = min(limit, d+min(d, limit-d))
			if d <= 0 {
				break
			}
		}
		if d <= 0 {
			return 0
		}
		return d - rand.N(d/2+1) //nolint:gosec // jitter needs no secrecy
	}
}
