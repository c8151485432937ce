// Package probe answers the probes of Kubernetes, and whoever else asks by HTTP whether a consumer is well.
//
//	mux.Handle("GET /livez", probe.Live(c))
//	mux.Handle("GET /readyz", probe.Ready(c))
//
// The two ask different things. [Live] asks whether only a restart can help: hardly ever. [Ready] asks whether the consumer can do its
// work now. A broker that is away makes a consumer unready, and restarting it would not bring the broker back.
//
// The answer is 200 with the line "ok", or 503 with a line for each reason; as JSON for those who accept application/json. Reasons name topics,
// partitions and offsets, and no key, value or handler's error.
package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Option configures a probe.
type Option func(*handler)

// Timeout bounds what Ready asks of the brokers. The default is 800 ms, for Kubernetes waits 1 s by itself (timeoutSeconds). Raise both
// where the brokers are far. No answer in time makes a consumer unready.
func Timeout(d time.Duration) Option { return func(h *handler) { h.timeout = d } }

// StuckFor has Live fail once one handler has run for so long that nothing but a restart can end it. There is no default, for a restart delivers
// its record again, and to restart over and over helps nobody: a HandlerTimeout, and handlers that heed their context, are better. Set
// it far above the slowest handler, StuckAfter included.
func StuckFor(d time.Duration) Option { return func(h *handler) { h.stuckFor = d } }

// Live is the liveness probe: it fails once Run has returned, for then the process consumes nothing any more, and with [StuckFor] when a handler hangs.
// It asks nothing of the network, and is well before Run has begun.
func Live(c *retriable.Consumer, opts ...Option) http.Handler {
	return newHandler((*handler).live, c, opts)
}

// Ready is the readiness probe: it fails before the member has joined its group, while [retriable.Consumer.Health] finds anything wrong, and once Run has
// returned. A deploy that waits for it goes on only with members that work. It asks the brokers, once a second at most however
// often it is called.
func Ready(c *retriable.Consumer, opts ...Option) http.Handler {
	return newHandler((*handler).ready, c, opts)
}

// Reason is why a probe fails.
type Reason struct {
	Kind      string `json:"kind"` // ended, hangs, starting, broker, topic, group, stuck, produce, fetch, other
	Topic     string `json:"topic,omitempty"`
	Partition *int32 `json:"partition,omitempty"`
	Text      string `json:"text"`
}

// Answer is what a probe says as JSON.
type Answer struct {
	OK      bool     `json:"ok"`
	Reasons []Reason `json:"reasons"` // none if it is ok
}

type handler struct {
	c        *retriable.Consumer
	ask      func(*handler, context.Context) []Reason
	timeout  time.Duration
	stuckFor time.Duration

	mu    sync.Mutex // held while the brokers are asked: once for all who wait
	last  []Reason
	until time.Time // last is good
}

// fresh is how long an answer of the brokers is good.
const fresh = time.Second

func newHandler(ask func(*handler, context.Context) []Reason, c *retriable.Consumer, opts []Option) *handler {
	h := &handler{c: c, ask: ask, timeout: 800 * time.Millisecond}
	for _, o := range opts {
		if o != nil {
			o(h)
		}
	}
	return h
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	reasons := h.ask(h, r.Context())
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	code := http.StatusOK
	if len(reasons) > 0 {
		code = http.StatusServiceUnavailable
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(Answer{OK: len(reasons) == 0, Reasons: append([]Reason{}, reasons...)}) // who asked has gone
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	if len(reasons) == 0 {
		fmt.Fprintln(w, "ok")
	}
	for _, reason := range reasons {
		fmt.Fprintf(w, "%s: %s\n", reason.Kind, strings.ReplaceAll(reason.Text, "\n", "; "))
	}
}

func (h *handler) live(context.Context) (reasons []Reason) {
	if h.ended() {
		return []Reason{{Kind: "ended", Text: "Run has returned: this process consumes nothing any more"}}
	}
	if h.stuckFor <= 0 {
		return nil
	}
	for _, p := range h.c.Stats().Partitions {
		o := p.Oldest
		if o.Reason != retriable.ReasonRunning || o.ReasonSince.IsZero() || time.Since(o.ReasonSince) < h.stuckFor {
			continue
		}
		reasons = append(reasons, Reason{
			Kind: "hangs", Topic: p.Topic, Partition: &p.Partition,
			Text: fmt.Sprintf("the handler of %s/%d/%d has been running since %s", p.Topic, p.Partition, o.Offset, o.ReasonSince.Format(time.RFC3339)),
		})
	}
	return reasons
}

func (h *handler) ended() bool {
	select {
	case <-h.c.Done():
		return true
	default:
		return false
	}
}

func (h *handler) ready(ctx context.Context) []Reason {
	if h.ended() {
		return []Reason{{Kind: "ended", Text: "Run has returned: this process consumes nothing any more"}}
	}
	select {
	case <-h.c.Ready():
	default:
		return []Reason{{Kind: "starting", Text: "the member has not joined its group yet"}}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Now().Before(h.until) {
		return h.last
	}
	// Not by the request's own end: others wait for the same answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.timeout)
	defer cancel()
	h.last = reasonsOf(h.c.Health(ctx))
	h.until = time.Now().Add(fresh)
	return h.last
}

// reasonsOf takes the joined errors of Health apart.
func reasonsOf(err error) (reasons []Reason) {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			reasons = append(reasons, reasonsOf(e)...)
		}
		return reasons
	}
	r := Reason{Kind: "other", Text: err.Error()}
	var (
		broker  *retriable.BrokerError
		topic   *retriable.TopicError
		group   *retriable.GroupError
		stuck   *retriable.StuckError
		produce *retriable.ProduceError
		fetch   *retriable.FetchError
	)
	switch {
	case errors.As(err, &broker):
		r.Kind = "broker"
	case errors.As(err, &topic):
		r.Kind, r.Topic = "topic", topic.Topic
	case errors.As(err, &group):
		r.Kind = "group"
	case errors.As(err, &stuck):
		r.Kind, r.Topic, r.Partition = "stuck", stuck.Topic, &stuck.Partition
	case errors.As(err, &produce):
		r.Kind, r.Topic = "produce", produce.Topic
	case errors.As(err, &fetch):
		r.Kind, r.Topic, r.Partition = "fetch", fetch.Topic, &fetch.Partition
	}
	return []Reason{r}
}
