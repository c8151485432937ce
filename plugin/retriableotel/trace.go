package retriableotel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// trail is the context of a record that was read. The library hands its values on to the handler's context and to the contexts of the record's copies:
// so the attempt can leave there what its copies are to carry.
type trail struct {
	context.Context //nolint:containedctx // it is one

	mu   sync.Mutex
	last trace.SpanContext // of the last attempt in this process
}

type (
	trailKey  struct{}
	insideKey struct{} // of a handler's context: what is produced with it is the handler's own
	sendKey   struct{} // of a record that is produced: its span
)

// Value implements context.Context.
func (t *trail) Value(key any) any {
	if key == (trailKey{}) {
		return t
	}
	return t.Context.Value(key)
}

func trailOf(ctx context.Context) *trail {
	if ctx == nil {
		return nil
	}
	t, _ := ctx.Value(trailKey{}).(*trail)
	return t
}

func (t *trail) leave(s trace.SpanContext) {
	if t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.last = s
	}
}

func (t *trail) at() trace.SpanContext {
	if t == nil {
		return trace.SpanContext{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// headers carries trace context in a record's headers. Get is of the first of a name, Set leaves one; names are as they are written.
type headers []kgo.RecordHeader

// Get implements propagation.TextMapCarrier.
func (h *headers) Get(name string) string {
	for i := range *h {
		if strings.EqualFold((*h)[i].Key, name) {
			return string((*h)[i].Value)
		}
	}
	return ""
}

// Set implements propagation.TextMapCarrier. What is replaced may be shared with other copies of the record: it is not written to.
func (h *headers) Set(name, value string) {
	rest := make(headers, 0, len(*h)+1)
	for _, one := range *h {
		if !strings.EqualFold(one.Key, name) {
			rest = append(rest, one)
		}
	}
	rest = append(rest, kgo.RecordHeader{Key: name, Value: []byte(value)})
	*h = rest
}

// Keys implements propagation.TextMapCarrier.
func (h *headers) Keys() (names []string) {
	for i := range *h {
		names = append(names, (*h)[i].Key)
	}
	return names
}

// creation is the context in which a record was written, as it says itself.
func (t *Telemetry) creation(r *kgo.Record) trace.SpanContext {
	if r == nil || len(r.Headers) == 0 {
		return trace.SpanContext{}
	}
	h := headers(r.Headers)
	return trace.SpanContextFromContext(t.carry.Extract(context.Background(), &h))
}

// middleware makes a span of each attempt, and one of each batch.
func (t *Telemetry) middleware(next retriable.Handler) retriable.Handler {
	return retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) (err error) {
		ctx, span := t.begin(ctx, m)
		defer span.End()
		defer func() {
			if v := recover(); v != nil { // a middleware's; a handler's is an error already
				span.SetStatus(codes.Error, "panic")
				panic(v)
			}
		}()
		err = next.Handle(context.WithValue(ctx, insideKey{}, true), m)
		if span.IsRecording() {
			tell(span, ctx, err)
		}
		return err
	})
}

// begin starts the span of an attempt. Its parent is the attempt before it in this process, or else who wrote the record; a batch has several of those,
// and so none. It is linked to all.
func (t *Telemetry) begin(ctx context.Context, m *retriable.Message) (context.Context, trace.Span) {
	batch := retriable.Batch(ctx)
	messages := batch
	if batch == nil {
		messages = []*retriable.Message{m}
	}
	ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{}) // whatever Run was called in is not what this attempt is about
	var links []trace.Link
	var parent trace.SpanContext
	for _, one := range messages {
		created, before := t.creation(one.Record), trailOf(one.Context).at()
		if parent = before; !before.IsValid() {
			parent = created
		}
		for _, s := range []trace.SpanContext{created, before} {
			if s.IsValid() {
				links = append(links, trace.Link{SpanContext: s})
			}
		}
	}
	if len(messages) == 1 {
		h := headers(m.Headers)
		ctx = t.carry.Extract(ctx, &h) // for its baggage
		ctx = trace.ContextWithSpanContext(ctx, parent)
	}
	ctx, span := t.tracer.Start(ctx, "process "+m.Source.Topic, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...),
		trace.WithAttributes(t.about(m, len(batch))...))
	for _, one := range messages {
		trailOf(one.Context).leave(span.SpanContext())
	}
	return ctx, span
}

// about is what is said of an attempt: which record, by its place.
func (t *Telemetry) about(m *retriable.Message, batch int) []attribute.KeyValue {
	kv := []attribute.KeyValue{
		semconv.MessagingSystemKafka, semconv.MessagingOperationName("process"), semconv.MessagingOperationTypeProcess,
		semconv.MessagingDestinationName(m.Source.Topic), semconv.MessagingDestinationPartitionID(strconv.Itoa(int(m.Source.Partition))),
		semconv.MessagingConsumerGroupName(t.group),
	}
	if batch > 0 {
		return append(kv, semconv.MessagingBatchMessageCount(batch))
	}
	kv = append(kv, semconv.MessagingKafkaOffset(int(m.Source.Offset)), attribute.Int("retriable.attempt", m.Attempt))
	if m.Value == nil {
		kv = append(kv, semconv.MessagingKafkaMessageTombstone(true))
	}
	if m.Partition >= 0 && m.Topic != m.Source.Topic {
		kv = append(kv, attribute.String("retriable.origin", retriable.Position{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset}.String()))
	}
	return kv
}

// tell says how an attempt ended, as far as its error tells: whether a retry became a dead letter is decided later.
func tell(span trace.Span, ctx context.Context, err error) { //nolint:revive // the span comes first: it is what this is about
	if errors.Is(context.Cause(ctx), retriable.ErrTimeout) && err == nil {
		err = retriable.ErrTimeout
	}
	verdict := retriable.VerdictOf(err)
	span.SetAttributes(attribute.String("retriable.verdict", string(verdict)))
	if verdict == retriable.VerdictDone || verdict == retriable.VerdictPostpone {
		return
	}
	why := errorType(err)
	span.SetAttributes(semconv.ErrorTypeKey.String(why))
	span.SetStatus(codes.Error, why)
}

// errorType names an error by what it is, never by what it says.
func errorType(err error) string {
	var (
		panicked *retriable.PanicError
		decode   *retriable.DecodeError
	)
	switch {
	case errors.Is(err, retriable.ErrTimeout):
		return "timeout"
	case errors.As(err, &panicked):
		return "panic"
	case errors.As(err, &decode):
		return "decode"
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return fmt.Sprintf("%T", err)
		}
		err = inner
	}
}

// clientHooks are kgo's: they see what is read and written.
type clientHooks struct{ t *Telemetry }

// OnFetchRecordBuffered implements kgo.HookFetchRecordBuffered.
func (clientHooks) OnFetchRecordBuffered(r *kgo.Record) {
	ctx := r.Context
	if ctx == nil {
		ctx = context.Background()
	}
	r.Context = &trail{Context: ctx}
}

// OnProduceRecordBuffered implements kgo.HookProduceRecordBuffered. A copy belongs to the attempt that wrote it; what a handler or somebody else
// produces to what it was produced in.
func (h clientHooks) OnProduceRecordBuffered(r *kgo.Record) {
	ctx := r.Context
	if ctx == nil {
		ctx = context.Background()
	}
	parent := trace.SpanContextFromContext(ctx)
	if tr := trailOf(ctx); tr != nil && ctx.Value(insideKey{}) == nil {
		if parent = tr.at(); !parent.IsValid() {
			parent = h.t.creation(r) // no attempt was made: it waits on
		}
	}
	in := trace.ContextWithSpanContext(context.Background(), parent)
	in, span := h.t.tracer.Start(in, "send "+r.Topic, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
		semconv.MessagingSystemKafka, semconv.MessagingOperationName("send"), semconv.MessagingOperationTypeSend, semconv.MessagingDestinationName(r.Topic)))
	if span.SpanContext().IsValid() {
		out := headers(slices.Clone(r.Headers))
		h.t.carry.Inject(in, &out)
		r.Headers = out
	}
	r.Context = context.WithValue(ctx, sendKey{}, span)
}

// OnProduceRecordUnbuffered implements kgo.HookProduceRecordUnbuffered.
func (clientHooks) OnProduceRecordUnbuffered(r *kgo.Record, err error) {
	if r.Context == nil {
		return
	}
	span, ok := r.Context.Value(sendKey{}).(trace.Span)
	if !ok {
		return
	}
	if err != nil {
		span.SetAttributes(semconv.ErrorTypeKey.String(kafkaError(err)))
		span.SetStatus(codes.Error, kafkaError(err))
	} else {
		span.SetAttributes(semconv.MessagingDestinationPartitionID(strconv.Itoa(int(r.Partition))), semconv.MessagingKafkaOffset(int(r.Offset)))
	}
	span.End()
}
