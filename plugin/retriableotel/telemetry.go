// Package retriableotel measures and traces consumers with OpenTelemetry.
//
//	telemetry, err := retriableotel.New("billing")
//	…
//	c, err := retriable.New("billing", telemetry.Option(), …)
//	…
//	telemetry.Observe(c)
//
// Each attempt is a span, in the trace of the record's producer if the record says which that is. A copy in the retry or dead-letter topic carries the
// context of the attempt that wrote it, in place of the one that was there: so the attempts at a record are one trace, whichever process makes
// them. The names are those of the semantic conventions for messaging, and docs/metrics.md lists all. No key, value, header or error text is in a
// span or a label.
package retriableotel

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/retriable-kafka/retriable-go/retriable"
)

const scope = "github.com/retriable-kafka/retriable-go/plugin/retriableotel"

// Telemetry measures and traces the consumers of one group in this process. Make it with [New]. It has no goroutine; Close ends its measuring.
type Telemetry struct {
	group  string
	tracer trace.Tracer
	carry  propagation.TextMapPropagator
	events *events
	states metric.Registration

	mu        sync.Mutex
	consumers []*retriable.Consumer
}

// Option configures a Telemetry.
type Option func(*config)

type config struct {
	traces  trace.TracerProvider
	metrics metric.MeterProvider
	carry   propagation.TextMapPropagator
}

// TracerProvider sets where spans go. The default is the global one (otel.GetTracerProvider).
func TracerProvider(p trace.TracerProvider) Option { return func(c *config) { c.traces = p } }

// MeterProvider sets where measures go. The default is the global one (otel.GetMeterProvider).
func MeterProvider(p metric.MeterProvider) Option { return func(c *config) { c.metrics = p } }

// Propagator sets how trace context is read from and written to a record's headers. The default is W3C's traceparent, tracestate and baggage, whatever
// the global one is: without a propagator the attempts at a record would not find each other.
func Propagator(p propagation.TextMapPropagator) Option { return func(c *config) { c.carry = p } }

// New makes a Telemetry for the consumers of a group, whose name is a label of every measure. It fails for an empty group or a nil provider
// ([retriable.ErrInvalidOption]), and if the meter refuses an instrument.
func New(group string, opts ...Option) (*Telemetry, error) {
	c := config{
		traces: otel.GetTracerProvider(), metrics: otel.GetMeterProvider(),
		carry: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	}
	for _, o := range opts {
		if o != nil {
			o(&c)
		}
	}
	if err := c.check(group); err != nil {
		return nil, err
	}
	t := &Telemetry{group: group, carry: c.carry, tracer: c.traces.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL))}
	meter := c.metrics.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))
	var err error
	if t.events, err = newEvents(meter, group); err != nil {
		return nil, fmt.Errorf("retriableotel: making the instruments: %w", err)
	}
	if t.states, err = t.observe(meter); err != nil {
		return nil, fmt.Errorf("retriableotel: making the instruments: %w", err)
	}
	return t, nil
}

func (c *config) check(group string) error {
	var errs []error
	want := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%w: retriableotel: %s", retriable.ErrInvalidOption, what))
		}
	}
	want(group != "", "the group is empty")
	want(c.traces != nil, "TracerProvider(nil)")
	want(c.metrics != nil, "MeterProvider(nil)")
	want(c.carry != nil, "Propagator(nil)")
	return errors.Join(errs...)
}

// Option is what a consumer must be given. Put it before other middleware that is to be within the attempt's span. It brings hooks of kgo along, which see
// every record: do not give the same consumer the tracer of another plugin for kgo (kotel's meter is well beside it).
func (t *Telemetry) Option() retriable.Option {
	return retriable.Options(retriable.Kafka(kgo.WithHooks(clientHooks{t})), retriable.Use(t.middleware), retriable.Hooks(hooks{t}))
}

// Observe adds consumers whose state is measured, all of the same group. Without it there is only what happens. A consumer whose Run has returned counts
// as nothing.
func (t *Telemetry) Observe(consumers ...*retriable.Consumer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.consumers = append(t.consumers, consumers...)
}

// Close ends the measuring of states. Spans and counters are the providers' to flush.
func (t *Telemetry) Close() error { return t.states.Unregister() }

// observed returns the consumers that are still there.
func (t *Telemetry) observed() []*retriable.Consumer {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.consumers = slices.DeleteFunc(t.consumers, func(c *retriable.Consumer) bool {
		select {
		case <-c.Done():
			return true
		default:
			return false
		}
	})
	return slices.Clone(t.consumers)
}
