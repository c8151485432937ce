package retriableprom_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/plugin/retriableprom"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// A service that Prometheus scrapes at /metrics.
func Example() {
	metrics, err := retriableprom.New("billing")
	if err != nil {
		log.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)

	charge := retriable.HandlerFunc(func(context.Context, *retriable.Message) error { return nil })
	c, err := retriable.New("billing", retriable.Brokers("localhost:9092"),
		retriable.Topic("orders", charge, retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")),
		retriable.Hooks(metrics))
	if err != nil {
		log.Fatal(err)
	}
	metrics.Observe(c)

	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	// go http.ListenAndServe(":9100", mux); c.Run(ctx)

	// What a consumer would tell of a record that it handled, and what a scrape then brings:
	metrics.OnHandled(retriable.Handled{Message: retriable.NewMessage(&kgo.Record{Topic: "orders"}), Verdict: retriable.VerdictDone})
	for line := range strings.Lines(scrape(mux)) {
		if strings.HasPrefix(line, "retriable_attempts_total") && strings.Contains(line, "done") || strings.HasPrefix(line, "retriable_workers") {
			fmt.Print(line)
		}
	}
	// Output:
	// retriable_attempts_total{group="billing",topic="orders",verdict="done"} 1
	// retriable_workers{group="billing"} 16
}

func scrape(h http.Handler) string {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		log.Fatal(err)
	}
	return string(body)
}
