package probe_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/probe"
)

// The two endpoints that a pod's probes ask.
func Example() {
	charge := retriable.HandlerFunc(func(context.Context, *retriable.Message) error { return nil })
	c, err := retriable.New("billing", retriable.Brokers("localhost:9092"),
		retriable.Topic("orders", charge, retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /livez", probe.Live(c))
	mux.Handle("GET /readyz", probe.Ready(c))
	// go http.ListenAndServe(":8080", mux); c.Run(ctx)

	for _, path := range []string{"/livez", "/readyz"} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		fmt.Print(path, " ", w.Code, " ", w.Body)
	}
	// Output:
	// /livez 200 ok
	// /readyz 503 starting: the member has not joined its group yet
}
