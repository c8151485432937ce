package retriableotel_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/retriable-kafka/retriable-go/plugin/retriableotel"
	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

var errDown = errors.New("connection refused by 10.1.2.3, card 4111")

// scene is a telemetry whose spans and measures are kept.
type scene struct {
	*retriableotel.Telemetry
	spans  *tracetest.InMemoryExporter
	tracer trace.Tracer
	reader *sdkmetric.ManualReader
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{spans: tracetest.NewInMemoryExporter(), reader: sdkmetric.NewManualReader()}
	traces := sdktrace.NewTracerProvider(sdktrace.WithSyncer(s.spans))
	s.tracer = traces.Tracer("shop")
	var err error
	s.Telemetry, err = retriableotel.New("billing", retriableotel.TracerProvider(traces), retriableotel.MeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(s.reader))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkout is the span in which an order was made, and the header that says so.
func (s *scene) checkout() (trace.SpanContext, kgo.RecordHeader) {
	_, span := s.tracer.Start(context.Background(), "checkout")
	defer span.End()
	sc := span.SpanContext()
	return sc, kgo.RecordHeader{Key: "traceparent", Value: fmt.Appendf(nil, "00-%s-%s-01", sc.TraceID(), sc.SpanID())}
}

// named returns the spans of a name, as they began.
func (s *scene) named(name string) (found []tracetest.SpanStub) {
	for _, span := range s.spans.GetSpans() {
		if span.Name == name {
			found = append(found, span)
		}
	}
	slices.SortStableFunc(found, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	return found
}

// says returns what a span says under a name, as text.
func says(s tracetest.SpanStub, name string) string {
	for _, kv := range s.Attributes {
		if string(kv.Key) == name {
			return kv.Value.String()
		}
	}
	return ""
}

func wantEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}

// links are the spans that one is linked to.
func links(s tracetest.SpanStub) (ids []trace.SpanID) {
	for _, l := range s.Links {
		ids = append(ids, l.SpanContext.SpanID())
	}
	return ids
}

// parents returns the values of a record's traceparent headers.
func parents(r *kgo.Record) (values []string) {
	for _, h := range r.Headers {
		if strings.EqualFold(h.Key, "traceparent") {
			values = append(values, string(h.Value))
		}
	}
	return values
}

func TestARecordThatFailedTwiceIsOneTraceOfThreeLinkedAttempts(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		s := newScene(t)
		k.Topic("orders", 1)
		m := k.Start("billing", s.Option(), retriable.Topic("orders", retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			_, span := s.tracer.Start(ctx, "charge")
			defer span.End()
			if m.Attempt < 3 {
				return errDown
			}
			return nil
		}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(time.Hour))))
		origin, header := s.checkout()
		user := kgo.RecordHeader{Key: "tenant", Value: []byte("blue")}
		k.ProduceRecords(&kgo.Record{Topic: "orders", Value: []byte("1"), Headers: []kgo.RecordHeader{user, header}})
		m.Await(retriabletest.Retried(1))
		m.Restart() // the attempts find each other whoever makes them
		m.Await(retriabletest.Handled(1))
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}

		first, again, sent, charged := s.named("process orders"), s.named("process orders.retry"), s.named("send orders.retry"), s.named("charge")
		if len(first) != 1 || len(again) != 2 || len(sent) != 2 || len(charged) != 3 {
			t.Fatalf("spans: %d %d %d %d", len(first), len(again), len(sent), len(charged))
		}
		attempts := slices.Concat(first, again)
		before := origin.SpanID()
		for i, a := range attempts {
			wantEqual(t, "trace", a.SpanContext.TraceID(), origin.TraceID())
			wantEqual(t, "attempt", says(a, "retriable.attempt"), i+1)
			wantEqual(t, "its parent is who wrote the record", a.Parent.SpanID(), before)
			wantEqual(t, "and it is linked", links(a), []trace.SpanID{before})
			wantEqual(t, "what the handler did is inside", charged[i].Parent.SpanID(), a.SpanContext.SpanID())
			if i < 2 {
				wantEqual(t, "the copy is the attempt's", sent[i].Parent.SpanID(), a.SpanContext.SpanID())
				before = sent[i].SpanContext.SpanID()
			}
		}
		wantEqual(t, "of the last, its origin", says(attempts[2], "retriable.origin"), "orders/0/0")
		for name, want := range map[string]string{
			"messaging.system": "kafka", "messaging.operation.name": "process", "messaging.operation.type": "process", "messaging.destination.name": "orders.retry",
			"messaging.destination.partition.id": "0", "messaging.kafka.offset": "0", "messaging.consumer.group.name": "billing", "retriable.verdict": "retry",
			"error.type": "*errors.errorString",
		} {
			wantEqual(t, name, says(attempts[1], name), want)
		}
		wantEqual(t, "verdict of the last", says(attempts[2], "retriable.verdict"), "done")

		// Replaced, never appended; the user's own stay.
		for i, r := range k.Records("orders.retry") {
			sc := sent[i].SpanContext
			wantEqual(t, "traceparent", parents(r), []string{fmt.Sprintf("00-%s-%s-01", sc.TraceID(), sc.SpanID())})
			if !slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == "tenant" && string(h.Value) == "blue" }) {
				t.Error("a header of the user's is gone")
			}
		}
		if text := fmt.Sprint(s.spans.GetSpans()); strings.Contains(text, "4111") || strings.Contains(text, "10.1.2.3") {
			t.Error("an error's text is in a span")
		}
	})
}

func TestAttemptsInPlacePostponementsAndLettersKeepTheirTrace(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		s := newScene(t)
		k.Topic("orders", 1)
		var postponed atomic.Bool
		m := k.Start("billing", s.Option(), retriable.Topic("orders", retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			switch {
			case string(m.Value) == "late" && m.Attempt == 1:
				<-ctx.Done()
				return nil
			case string(m.Value) == "panics":
				panic("4111")
			case postponed.CompareAndSwap(false, true):
				return retriable.Postpone(time.Minute)
			}
			return errDown
		}), retriable.BlockingRetries(1, retriable.Constant(time.Second)), retriable.HandlerTimeout(time.Minute), retriable.DeadLetterTopic("orders.dead")))
		_, header := s.checkout()
		k.ProduceRecords(&kgo.Record{Topic: "orders", Value: []byte("fails"), Headers: []kgo.RecordHeader{header}})
		m.Await(retriabletest.DeadLettered(1))
		attempts, sent := s.named("process orders"), s.named("send orders.dead")
		wantEqual(t, "attempts", len(attempts), 3)
		var verdicts []string
		for i, a := range attempts {
			verdicts = append(verdicts, says(a, "retriable.verdict")+" "+a.Status.Code.String())
			if i > 0 {
				before := attempts[i-1].SpanContext
				wantEqual(t, "the parent in place", a.Parent.SpanID(), before.SpanID())
				if !slices.Contains(links(a), before.SpanID()) {
					t.Error("it is not linked to the attempt before")
				}
			}
		}
		wantEqual(t, "verdicts", verdicts, []string{"postpone Unset", "retry Error", "retry Error"})
		wantEqual(t, "the letter is the last attempt's", sent[0].Parent.SpanID(), attempts[2].SpanContext.SpanID())
		wantEqual(t, "where it lies", says(sent[0], "messaging.kafka.offset"), "0")
		wantEqual(t, "the letter says so", parents(k.Records("orders.dead")[0]),
			[]string{fmt.Sprintf("00-%s-%s-01", sent[0].SpanContext.TraceID(), sent[0].SpanContext.SpanID())})

		// Without a context of its own a record begins a trace.
		s.spans.Reset()
		k.Produce("orders", "", "late", "panics")
		m.Await(retriabletest.DeadLettered(3))
		var roots []string
		for _, a := range s.named("process orders") {
			if !a.Parent.IsValid() {
				roots = append(roots, says(a, "error.type"))
			}
		}
		slices.Sort(roots)
		wantEqual(t, "errors of the two", roots, []string{"panic", "timeout"})
	})
}

func TestWhatAHandlerProducesIsTheHandlers(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		s := newScene(t)
		k.Topic("orders", 1)
		k.Topic("invoices", 1)
		m := k.Start("billing", s.Option(), retriable.Topic("orders", retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			ctx, span := s.tracer.Start(ctx, "charge")
			defer span.End()
			return m.Produce(ctx, &kgo.Record{Topic: "invoices", Headers: []kgo.RecordHeader{{Key: "Traceparent", Value: []byte("old")}}})
		}), retriable.NoDeadLetters()))
		k.Produce("orders", "", "1")
		m.Await(retriabletest.Handled(1))
		charge, sent := s.named("charge")[0].SpanContext, s.named("send invoices")[0]
		wantEqual(t, "parent", sent.Parent.SpanID(), charge.SpanID())
		wantEqual(t, "header", parents(k.Records("invoices")[0]), []string{fmt.Sprintf("00-%s-%s-01", sent.SpanContext.TraceID(), sent.SpanContext.SpanID())})
	})
}

func TestABatchIsOneSpanLinkedToEachProducer(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		s := newScene(t)
		k.Topic("orders", 1)
		m := k.Start("billing", s.Option(), retriable.BatchTopic("orders", func(context.Context, []*retriable.Message) error {
			return &retriable.BatchError{Errs: map[int]error{1: retriable.Permanent(errDown)}}
		}, retriable.BatchSize(3), retriable.DeadLetterTopic("orders.dead")))
		var rs []*kgo.Record
		var origins []trace.SpanID
		for range 3 {
			origin, header := s.checkout()
			origins = append(origins, origin.SpanID())
			rs = append(rs, &kgo.Record{Topic: "orders", Headers: []kgo.RecordHeader{header}})
		}
		k.ProduceRecords(rs...)
		m.Await(retriabletest.Handled(2), retriabletest.DeadLettered(1))
		batch := s.named("process orders")
		wantEqual(t, "spans", len(batch), 1)
		wantEqual(t, "messages", says(batch[0], "messaging.batch.message_count"), 3)
		wantEqual(t, "links", links(batch[0]), origins)
		wantEqual(t, "the letter is the batch's", s.named("send orders.dead")[0].Parent.SpanID(), batch[0].SpanContext.SpanID())
	})
}

// A copy that hops on without an attempt stays in its trace.
func TestARecordThatWaitsInTiersStaysInItsTrace(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		s := newScene(t)
		k.Topic("orders", 1)
		m := k.Start("billing", s.Option(), retriable.Topic("orders", retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
			if m.Attempt == 1 {
				return retriable.RetryAfter(errDown, 150*time.Minute)
			}
			return nil
		}), retriable.RetryTopic("orders.retry"), retriable.RetryTier("orders.retry.1h", time.Hour), retriable.DeadLetterTopic("orders.dead")))
		origin, header := s.checkout()
		k.ProduceRecords(&kgo.Record{Topic: "orders", Headers: []kgo.RecordHeader{header}})
		m.Await(retriabletest.Handled(1))
		var last tracetest.SpanStub
		hops := 0
		for _, span := range s.spans.GetSpans() {
			if strings.HasPrefix(span.Name, "send orders.retry") {
				hops++
			}
			if says(span, "retriable.attempt") == "2" {
				last = span
			}
			wantEqual(t, "trace of "+span.Name, span.SpanContext.TraceID(), origin.TraceID())
		}
		if hops < 2 || !last.Parent.IsValid() {
			t.Errorf("%d hops; the last attempt's parent is %v", hops, last.Parent)
		}
	})
}
