// Package downstream shows handlers that call another service by HTTP: which answers mean that the record is to blame, which that the service is, how
// long it asks to be left alone, and a circuit breaker that keeps an outage of it from flushing the topic into the dead letters.
package downstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/retriable-kafka/retriable-go/plugin/breaker"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// Bank calls the service at a base address.
type Bank struct {
	Client  *http.Client // without a timeout of its own: the handler's context has one
	Address string
}

// Options consume the orders. The breaker is returned for those who want to look at its state.
func (b *Bank) Options() ([]retriable.Option, *breaker.Breaker, error) {
	br, err := breaker.New(
		breaker.ConsecutiveFailures(5),
		breaker.FailureRatio(0.5, 20, 10*time.Second), // also where only half of the calls fail
	)
	if err != nil {
		return nil, nil, err
	}
	return []retriable.Option{
		retriable.Concurrency(32), // they wait for the network
		retriable.Topic("orders", retriable.HandlerFunc(b.charge),
			retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"),
			retriable.MaxAttempts(5),
			retriable.HandlerTimeout(5*time.Second),
			retriable.With(br.Middleware), retriable.Gate(br.Gate)), // both
	}, br, nil
}

// charge posts an order. The key makes a repeated call harmless: the bank charges once for each.
func (b *Bank) charge(ctx context.Context, m *retriable.Message) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.Address+"/charges", bytes.NewReader(m.Value))
	if err != nil {
		return retriable.Abort(err) // the address is wrong: no record would fare better
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", fmt.Sprintf("%s/%d/%d", m.Topic, m.Partition, m.Offset)) // the same on every attempt
	answer, err := b.Client.Do(r)
	if err != nil {
		return err // no answer: it may have been charged, and will not be again
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20)); err != nil { // so that the connection is used again
		return err
	}
	return verdict(answer)
}

// verdict says what an answer means for the record.
func verdict(answer *http.Response) error {
	err := fmt.Errorf("the bank answers %s", answer.Status)
	switch code := answer.StatusCode; {
	case code < 300, code == http.StatusConflict: // done before
		return nil
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable && answer.Header.Get("Retry-After") != "":
		return retriable.RetryAfter(err, after(answer.Header.Get("Retry-After")))
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return retriable.Abort(errors.Join(err, errors.New("look at the credentials"))) // all would fail: better nothing is tried
	case code == http.StatusRequestTimeout, code >= 500:
		return err // the bank's fault: another attempt
	default:
		return retriable.Permanent(err) // the record's fault: to the dead letters
	}
}

// after reads a Retry-After header: seconds, or a date. What is no such thing means a minute.
func after(header string) time.Duration {
	if s, err := strconv.Atoi(header); err == nil && s >= 0 {
		return min(time.Duration(s)*time.Second, time.Hour)
	}
	if t, err := http.ParseTime(header); err == nil {
		return min(max(time.Until(t), 0), time.Hour)
	}
	return time.Minute
}
