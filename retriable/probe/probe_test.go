package probe_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/probe"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

// get asks a probe and returns the code and the first words of each line.
func get(h http.Handler) (code int, body string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
	return w.Code, w.Body.String()
}

func want(t *testing.T, what string, h http.Handler, code int, kinds ...string) {
	t.Helper()
	got, body := get(h)
	var found []string
	for line := range strings.Lines(body) {
		kind, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		found = append(found, kind)
	}
	if len(kinds) == 0 {
		kinds = []string{"ok"}
	}
	if got != code || fmt.Sprint(found) != fmt.Sprint(kinds) {
		t.Errorf("%s: %d %q, want %d %v", what, got, body, code, kinds)
	}
}

const (
	well   = http.StatusOK
	unwell = http.StatusServiceUnavailable
)

func TestALifeAsItsProbesSeeIt(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		k.Topic("orders", 1)
		var hang atomic.Bool
		release := make(chan struct{})
		m := k.Launch("billing", retriable.StuckAfter(30*time.Second), retriable.Topic("orders", retriable.HandlerFunc(func(context.Context, *retriable.Message) error {
			if hang.Load() {
				<-release
				return nil
			}
			return errors.New("no: 4111")
		}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.MaxAttempts(2), retriable.Backoff(retriable.Constant(time.Hour))))
		live, ready, patient := probe.Live(m.Consumer), probe.Ready(m.Consumer), probe.Live(m.Consumer, probe.StuckFor(10*time.Minute))
		want(t, "live, at the start", live, well)
		fresh, err := retriable.New("billing", append(k.Options(), retriable.Topic("orders", retriable.HandlerFunc(func(context.Context, *retriable.Message) error { return nil }),
			retriable.NoDeadLetters()))...)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "ready, before it runs", probe.Ready(fresh), unwell, "starting") // the other may have joined by now
		<-m.Ready()
		time.Sleep(time.Second)
		want(t, "live, once it has joined", live, well)
		want(t, "ready, once it has joined", ready, well)

		// Writes are refused: no restart would help.
		fault := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: -1})
		k.Produce("orders", "", "1")
		time.Sleep(10 * time.Second)
		want(t, "live, while writes are refused", live, well)
		want(t, "ready, while writes are refused", ready, unwell, "produce")
		fault.Remove()
		time.Sleep(10 * time.Second)
		want(t, "ready, when they are accepted", ready, well)

		// The brokers are away.
		m.Disconnect()
		time.Sleep(time.Minute)
		want(t, "live, without brokers", live, well)
		if code, body := get(ready); code != unwell || !strings.Contains(body, "broker: ") {
			t.Errorf("ready, without brokers: %d %s", code, body)
		}
		m.Reconnect()
		time.Sleep(time.Minute)
		want(t, "ready, when they are back", ready, well)

		// A handler hangs.
		hang.Store(true)
		k.Produce("orders", "", "2")
		time.Sleep(2 * time.Minute)
		want(t, "ready, while a handler hangs", ready, unwell, "stuck")
		want(t, "live, while a handler hangs", live, well)
		want(t, "live, with StuckFor, not yet", patient, well)
		time.Sleep(10 * time.Minute)
		want(t, "live, with StuckFor", patient, unwell, "hangs")
		if _, body := get(patient); !strings.Contains(body, "orders/0/1") {
			t.Errorf("which record hangs is not said: %s", body)
		}
		want(t, "live, still", live, well)
		hang.Store(false)
		close(release)
		time.Sleep(time.Minute)
		want(t, "ready, when it has returned", ready, well)
		want(t, "live, with StuckFor, when it has returned", patient, well)

		if err := m.Stop(); err != nil {
			t.Error(err)
		}
		want(t, "live, in the end", live, unwell, "ended")
		want(t, "ready, in the end", ready, unwell, "ended")
	})
}

func TestReasonsAsJSON(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		k.Topic("orders", 1)
		release := make(chan struct{})
		m := k.Start("billing", retriable.StuckAfter(10*time.Second), retriable.Topic("orders", retriable.HandlerFunc(func(context.Context, *retriable.Message) error {
			<-release
			return nil
		}), retriable.NoDeadLetters()))
		ask := func() (a probe.Answer, contentType string) {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
			r.Header.Set("Accept", "text/html, application/json;q=0.9")
			probe.Ready(m.Consumer).ServeHTTP(w, r)
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
				t.Fatal(err)
			}
			return a, w.Header().Get("Content-Type")
		}
		if a, kind := ask(); !a.OK || len(a.Reasons) != 0 || a.Reasons == nil || kind != "application/json" {
			t.Errorf("while it is well: %+v %s", a, kind)
		}
		k.Produce("orders", "", "1")
		time.Sleep(time.Minute)
		a, _ := ask()
		if a.OK || len(a.Reasons) != 1 || a.Reasons[0].Kind != "stuck" || a.Reasons[0].Topic != "orders" || *a.Reasons[0].Partition != 0 {
			t.Errorf("while it is stuck: %+v", a)
		}
		close(release)
	})
}

func TestProbesAskTheBrokersOnceASecond(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		k.Topic("orders", 1)
		m := k.Start("billing", retriable.Topic("orders", retriable.HandlerFunc(func(context.Context, *retriable.Message) error { return nil }), retriable.NoDeadLetters()))
		time.Sleep(10 * time.Second)
		var asked atomic.Int64
		k.Cluster.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
			k.Cluster.KeepControl()
			asked.Add(1)
			return nil, nil, false
		})
		h := probe.Ready(m.Consumer)
		for range 1000 {
			want(t, "ready", h, well)
		}
		if n := asked.Load(); n > 2 {
			t.Errorf("a thousand probes asked the brokers %d times", n)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", http.NoBody))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST: %d", w.Code)
		}
	})
}
