package retriableotel_test

import (
	"context"
	"fmt"
	"log"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/retriable-kafka/retriable-go/plugin/retriableotel"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// A consumer whose attempts are spans, with measures beside them.
func Example() {
	reader := metric.NewManualReader() // in earnest a metric.NewPeriodicReader with an exporter
	telemetry, err := retriableotel.New("billing",
		retriableotel.TracerProvider(sdktrace.NewTracerProvider()), // without these two: the global providers
		retriableotel.MeterProvider(metric.NewMeterProvider(metric.WithReader(reader))))
	if err != nil {
		log.Fatal(err)
	}
	charge := retriable.HandlerFunc(func(context.Context, *retriable.Message) error { return nil })
	c, err := retriable.New("billing", retriable.Brokers("localhost:9092"), telemetry.Option(),
		retriable.Topic("orders", charge, retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
	if err != nil {
		log.Fatal(err)
	}
	telemetry.Observe(c)
	// c.Run(ctx)

	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		log.Fatal(err)
	}
	for _, m := range all.ScopeMetrics[0].Metrics {
		fmt.Println(m.Name, m.Unit)
	}
	// Output:
	// retriable.workers {handler}
	// retriable.pending.bytes By
}
