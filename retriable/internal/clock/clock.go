// Package clock lets the simulation give one consumer a clock that is wrong, as a host's may be. Nobody outside this module can.
package clock

import "time"

// Skew is how far a clock is ahead.
type Skew time.Duration

// Skewed is a hook of a consumer whose clock is wrong.
type Skewed interface{ Skew() Skew }
