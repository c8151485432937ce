package retriableotel

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// durations are the semantic conventions' buckets for what takes moments, ages for what may take days: upper bounds, in seconds.
var (
	durations = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	ages      = []float64{0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600}
)

var (
	verdicts = []retriable.Verdict{
		retriable.VerdictDone, retriable.VerdictRetry, retriable.VerdictDeadLetter, retriable.VerdictDrop, retriable.VerdictPostpone, retriable.VerdictAbort,
	}
	reasons = []retriable.Reason{
		retriable.ReasonQueued, retriable.ReasonRunning, retriable.ReasonHeld, retriable.ReasonProducing, retriable.ReasonJoining, retriable.ReasonPostponed,
	}
	pauses = []retriable.PauseReason{retriable.PauseBound, retriable.PauseStalled, retriable.PauseUser}
)

// events is what hooks count and time.
type events struct {
	group string

	attempts, retried, deadLettered, dropped, rewritten, skipped metric.Int64Counter
	produceFailures, pauses, stuck, commitFailures, abandoned    metric.Int64Counter
	consumed, sent                                               metric.Int64Counter
	handlerTime, queueTime, lateness, age, drainTime             metric.Float64Histogram
	topics                                                       sync.Map // by name: *topic, so that a record costs no set of attributes
}

// maker makes instruments and remembers the first error.
type maker struct {
	metric.Meter
	err error
}

func (m *maker) counter(name, unit, what string) metric.Int64Counter {
	c, err := m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(what))
	m.note(err)
	return c
}

func (m *maker) histogram(name, what string, buckets []float64) metric.Float64Histogram {
	h, err := m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(buckets...))
	m.note(err)
	return h
}

func newEvents(meter metric.Meter, group string) (*events, error) {
	m := &maker{Meter: meter}
	e := &events{
		group:           group,
		attempts:        m.counter("retriable.attempts", "{attempt}", "Attempts that ended."),
		retried:         m.counter("retriable.retried", "{record}", "Failed records whose copy was acked by a retry topic."),
		deadLettered:    m.counter("retriable.dead_lettered", "{record}", "Records acked by a dead-letter topic."),
		dropped:         m.counter("retriable.dropped", "{record}", "Records that ended without success and are kept nowhere."),
		rewritten:       m.counter("retriable.rewritten", "{record}", "Records that wait and were written again, further up."),
		skipped:         m.counter("retriable.skipped", "{record}", "Records not delivered again thanks to the committed map."),
		produceFailures: m.counter("retriable.produce_failures", "{write}", "Refused writes, by the topic that was written to."),
		pauses:          m.counter("retriable.pauses", "{pause}", "Times that a partition was no longer fetched."),
		stuck:           m.counter("retriable.stuck", "{incident}", "Times that a watermark had not moved for StuckAfter."),
		commitFailures:  m.counter("retriable.commit_failures", "{commit}", "Commits of a partition that were refused."),
		abandoned:       m.counter("retriable.abandoned", "{record}", "Records whose handlers or writes did not end within the drain."),
		consumed:        m.counter("messaging.client.consumed.messages", "{message}", "Number of messages that were delivered to the application."),
		sent:            m.counter("messaging.client.sent.messages", "{message}", "Number of messages producer attempted to send to the broker."),
		handlerTime:     m.histogram("messaging.process.duration", "Duration of processing operation.", durations),
		queueTime:       m.histogram("retriable.queue.duration", "How long records waited for a worker once they could have started.", durations),
		lateness:        m.histogram("retriable.lateness", "How long after its due time an attempt began.", ages),
		age:             m.histogram("retriable.age", "Age of records at their end, since they were first produced.", ages),
		drainTime:       m.histogram("retriable.drain.duration", "How long it took to give partitions up.", durations),
	}
	return e, m.err
}

// The labels that are ours.
func verdictIs(v retriable.Verdict) attribute.KeyValue {
	return attribute.String("retriable.verdict", string(v))
}
func reasonIs(why string) attribute.KeyValue { return attribute.String("retriable.reason", why) }

var (
	process = semconv.MessagingOperationName("process")
	send    = semconv.MessagingOperationName("send")
)

// labels are those of a topic, with more.
func labels(group, topic string, more ...attribute.KeyValue) metric.MeasurementOption {
	kv := append([]attribute.KeyValue{semconv.MessagingSystemKafka, semconv.MessagingConsumerGroupName(group)}, more...)
	if topic != "" {
		kv = append(kv, semconv.MessagingDestinationName(topic))
	}
	return metric.WithAttributeSet(attribute.NewSet(kv...))
}

// topic holds the labels of a topic, made once.
type topic struct {
	plain, consumed metric.MeasurementOption
	verdict         map[retriable.Verdict]metric.MeasurementOption
	done            metric.MeasurementOption // of handler time
}

// of returns the labels of a topic. The first time it makes its counters known, at zero.
func (e *events) of(name string) *topic {
	if t, ok := e.topics.Load(name); ok {
		return t.(*topic)
	}
	t := &topic{
		plain: labels(e.group, name), consumed: labels(e.group, name, process),
		done:    labels(e.group, name, process, verdictIs(retriable.VerdictDone)),
		verdict: map[retriable.Verdict]metric.MeasurementOption{},
	}
	ctx := context.Background()
	for _, v := range verdicts {
		t.verdict[v] = labels(e.group, name, verdictIs(v))
		e.attempts.Add(ctx, 0, t.verdict[v])
	}
	for _, c := range []metric.Int64Counter{e.retried, e.deadLettered, e.dropped, e.rewritten, e.skipped, e.commitFailures, e.abandoned} {
		c.Add(ctx, 0, t.plain)
	}
	e.consumed.Add(ctx, 0, t.consumed)
	for _, why := range pauses {
		e.pauses.Add(ctx, 0, labels(e.group, name, reasonIs(string(why))))
	}
	for _, why := range reasons {
		e.stuck.Add(ctx, 0, labels(e.group, name, reasonIs(string(why))))
	}
	kept, _ := e.topics.LoadOrStore(name, t)
	return kept.(*topic)
}

// ended tells how old a record was in the end. One that says nothing of its time has no age.
func (e *events) ended(t *topic, v retriable.Verdict, m *retriable.Message) {
	if m != nil && m.Record != nil && m.Timestamp.UnixMilli() > 0 {
		e.age.Record(context.Background(), max(time.Since(m.Timestamp).Seconds(), 0), t.verdict[v])
	}
}

// kafkaError names the code of a broker's answer.
func kafkaError(err error) string {
	var code *kerr.Error
	if errors.As(err, &code) {
		return code.Message
	}
	return errorType(err)
}

func (m *maker) note(err error) { m.err = errors.Join(m.err, err) }
