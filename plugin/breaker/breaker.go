// Package breaker keeps the outage of a downstream from flushing a topic into its retry topic and then into the dead letters. While a handler's
// failures pass a threshold nothing of its topic starts; one record at a time tests the water; when one succeeds all goes on.
// What fails meanwhile spends no attempt.
//
//	b, err := breaker.New()
//	…
//	retriable.Topic("orders", handler, retriable.With(b.Middleware), retriable.Gate(b.Gate), …)
//
// It stands on sony/gobreaker, and on nothing of retriable that is not public: a [retriable.Middleware], a [retriable.Gate] and the verdict
// [retriable.Postpone]. One Breaker may serve several topics that call the same downstream.
package breaker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// State says whether records start.
type State string

// The states.
const (
	Closed  State = "closed"  // all is well: records start
	Open    State = "open"    // nothing starts
	Probing State = "probing" // one record at a time starts, to see whether the downstream is back
)

var states = map[gobreaker.State]State{gobreaker.StateClosed: Closed, gobreaker.StateOpen: Open, gobreaker.StateHalfOpen: Probing}

// Breaker is a circuit breaker around handlers. Make it with [New]. It has no goroutine and needs no closing.
type Breaker struct {
	cb    *gobreaker.TwoStepCircuitBreaker[struct{}]
	probe time.Duration
	fails func(error) bool
	next  atomic.Int64 // when the gate may let a probe start, in ns
}

// Option configures a Breaker.
type Option func(*config)

type config struct {
	consecutive int
	ratio       float64
	requests    int
	window      time.Duration
	probe       time.Duration
	fails       func(error) bool
	change      func(from, to State)
}

// ConsecutiveFailures opens the breaker after n failures without a success in between. The default is 10. Up to then a failure is an ordinary one
// and spends its attempt: keep it low where attempts are few, and above [retriable.Concurrency] where single records often fail.
func ConsecutiveFailures(n int) Option { return func(c *config) { c.consecutive = n } }

// FailureRatio opens the breaker, too, when of at least so many attempts within the window that share has failed. There is no default.
func FailureRatio(ratio float64, attempts int, window time.Duration) Option {
	return func(c *config) { c.ratio, c.requests, c.window = ratio, attempts, window }
}

// ProbeEvery is how long after a failure the next probe starts while the breaker is open. The default is 1 s. It is also about how long a topic
// may still stand still after the downstream has come back.
func ProbeEvery(d time.Duration) Option { return func(c *config) { c.probe = d } }

// Failure says which errors of a handler speak against its downstream. The default: those without a verdict, and RetryAfter. All others
// (Permanent, Drop, Postpone, Abort: the record's own affair) count neither as failures nor as successes.
func Failure(f func(error) bool) Option { return func(c *config) { c.fails = f } }

// OnChange is called when the state changes, on the goroutine of a handler: it must be quick.
func OnChange(f func(from, to State)) Option { return func(c *config) { c.change = f } }

// New makes a closed Breaker. What is wrong with the options is reported all at once, each wrapping [retriable.ErrInvalidOption].
func New(opts ...Option) (*Breaker, error) {
	c := config{consecutive: 10, probe: time.Second, fails: failed}
	for _, o := range opts {
		if o != nil {
			o(&c)
		}
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	b := &Breaker{probe: c.probe, fails: c.fails}
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  1, // one probe at a time
		Timeout:      c.probe,
		Interval:     c.window,
		BucketPeriod: c.window / 10,
		ReadyToTrip:  c.trips,
		IsExcluded:   func(err error) bool { return err != nil && !b.fails(err) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			if c.change != nil {
				c.change(states[from], states[to])
			}
		},
	})
	return b, nil
}

func (c *config) check() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%w: breaker: "+format, append([]any{retriable.ErrInvalidOption}, args...)...))
		}
	}
	want(c.consecutive >= 1, "ConsecutiveFailures(%d): less than 1", c.consecutive)
	want(c.probe > 0, "ProbeEvery(%v): not above 0", c.probe)
	want(c.fails != nil, "Failure(nil)")
	if c.window != 0 || c.requests != 0 || c.ratio != 0 {
		ok := c.ratio > 0 && c.ratio <= 1 && c.requests >= 1 && c.window >= 10*time.Millisecond
		want(ok, "FailureRatio(%v, %d, %v): not a share above 0 up to 1, of 1 or more, within 10ms or more", c.ratio, c.requests, c.window)
	}
	return errors.Join(errs...)
}

func (c *config) trips(n gobreaker.Counts) bool {
	if int64(n.ConsecutiveFailures) >= int64(c.consecutive) {
		return true
	}
	ended := int64(n.TotalSuccesses) + int64(n.TotalFailures)
	return c.requests > 0 && ended >= int64(c.requests) && float64(n.TotalFailures) >= c.ratio*float64(ended)
}

// failed is the default of Failure.
func failed(err error) bool {
	return retriable.VerdictOf(err) == retriable.VerdictRetry && !errors.Is(err, retriable.ErrShutdown) && !errors.Is(err, retriable.ErrRevoked)
}

// State returns the breaker's state.
func (b *Breaker) State() State { return states[b.cb.State()] }

// ask is how long a barred topic waits before its gate is asked again: a probe may have succeeded meanwhile.
const ask = 50 * time.Millisecond

// Gate is for [retriable.Gate]: it lets nothing start while the breaker is open, and one record at a time while it probes.
func (b *Breaker) Gate() time.Duration {
	switch b.cb.State() {
	case gobreaker.StateOpen:
		return min(b.probe, ask)
	case gobreaker.StateHalfOpen:
		// One: not while a probe is under way, nor while one that was let start may be about to.
		now, next := time.Now().UnixNano(), b.next.Load()
		if b.cb.Counts().Requests > 0 || now < next || !b.next.CompareAndSwap(next, now+int64(ask)) {
			return min(b.probe, ask)
		}
	case gobreaker.StateClosed:
	}
	return 0
}

// Middleware is for [retriable.With], or [retriable.Use] where all topics have one downstream: it tells the breaker how attempts end. An attempt that
// fails while the breaker opens or is open is postponed, so that it spends none: such a record leaves the order of its key, as after any Postpone. The
// first outside it sees is the postponement, with the handler's error beside it.
func (b *Breaker) Middleware(next retriable.Handler) retriable.Handler {
	return retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) (err error) {
		done, refused := b.cb.Allow()
		if refused != nil {
			return retriable.Postpone(b.probe) // it came between the gate's answer and a change of state
		}
		returned := false
		defer func() {
			if !returned { // it panics, or ends its goroutine
				done(errPanicked)
			}
		}()
		err = next.Handle(ctx, m)
		returned = true
		done(err)
		if err != nil && b.fails(err) && b.cb.State() != gobreaker.StateClosed {
			return errors.Join(err, retriable.Postpone(b.probe))
		}
		return err
	})
}

var errPanicked = errors.New("breaker: the handler panicked")
