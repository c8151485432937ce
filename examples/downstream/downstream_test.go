package downstream_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/examples/downstream"
	"github.com/retriable-kafka/retriable-go/plugin/breaker"
	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

// bank is the service on the other side, reached without a socket, whose waiting would stop the test's time.
type bank struct {
	mu      sync.Mutex
	down    bool
	calls   int
	charged map[string]int // by idempotency key
}

func (b *bank) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if b.down {
		return nil, errors.New("connection refused")
	}
	body, _ := io.ReadAll(r.Body)
	key := r.Header.Get("Idempotency-Key")
	switch {
	case string(body) == "bad":
		w.WriteHeader(http.StatusUnprocessableEntity)
	case string(body) == "busy" && b.charged[key+" asked"] == 0:
		b.charged[key+" asked"]++
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(http.StatusTooManyRequests)
	case string(body) == "forbidden":
		w.WriteHeader(http.StatusForbidden)
	default:
		b.charged[key]++
	}
	return w.Result(), nil
}

func (b *bank) setDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}

func (b *bank) called() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

func start(t *testing.T, k *retriabletest.Kafka, b *bank) (*retriabletest.Member, *breaker.Breaker) {
	t.Helper()
	b.charged = map[string]int{}
	opts, br, err := (&downstream.Bank{Client: &http.Client{Transport: b}, Address: "http://bank.example"}).Options()
	if err != nil {
		t.Fatal(err)
	}
	k.Topic("orders", 2)
	return k.Start("billing", opts...), br
}

// An outage of five minutes costs a call a second and no dead letter, though five attempts would be over in fifteen seconds.
func TestAnOutageMakesNoDeadLetters(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		var b bank
		service, br := start(t, k, &b)
		b.setDown(true)
		for i := range 200 {
			k.Produce("orders", fmt.Sprint("customer-", i), "order")
		}
		time.Sleep(time.Minute)
		if br.State() == breaker.Closed {
			t.Error("the breaker is closed though nothing answers")
		}
		before := b.called()
		time.Sleep(4 * time.Minute)
		if n := b.called() - before; n < 100 || n > 300 {
			t.Errorf("%d calls in four minutes of outage, want about one a second", n)
		}
		b.setDown(false)
		service.Await(retriabletest.Handled(200), retriabletest.Committed())
		if n := len(k.DeadLetters("orders.dead")); n != 0 {
			t.Errorf("%d dead letters", n)
		}
		for key, n := range b.charged {
			if n != 1 {
				t.Errorf("%s was charged %d times", key, n)
			}
		}
		if br.State() != breaker.Closed || len(b.charged) != 200 {
			t.Errorf("%s, %d charged", br.State(), len(b.charged))
		}
	})
}

// What the bank says of a record decides what becomes of it.
func TestAnswersAreVerdicts(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		var b bank
		service, _ := start(t, k, &b)
		began := time.Now()
		k.Produce("orders", "a", "good", "bad", "busy")
		service.Await(retriabletest.Handled(2), retriabletest.DeadLettered(1), retriabletest.Committed())
		if took := time.Since(began); took < 2*time.Minute || took > 3*time.Minute {
			t.Errorf("the busy one was done after %v, want the two minutes that the bank asked for", took)
		}
		if letters := k.DeadLetters("orders.dead"); len(letters) != 1 || string(letters[0].Value) != "bad" || letters[0].Attempts != 1 {
			t.Errorf("letters: %v", letters)
		}
	})
}

// With wrong credentials nothing is tried, and nothing lost: the consumer ends and says why.
func TestWrongCredentialsStopTheService(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		var b bank
		service, _ := start(t, k, &b)
		k.Produce("orders", "a", "forbidden", "good")
		if err := service.Wait(); retriable.VerdictOf(err) == retriable.VerdictDone || b.called() != 1 {
			t.Errorf("Run returned %v after %d calls", err, b.called())
		}
		if n := len(k.Records("orders.dead")) + len(k.Records("orders.retry")); n != 0 {
			t.Errorf("%d records were given up", n)
		}
	})
}
