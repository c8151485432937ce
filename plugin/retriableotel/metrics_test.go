package retriableotel_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/retriable-kafka/retriable-go/plugin/retriableotel"
	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

// names are what the labels of the documents are called here.
var names = map[string]string{
	"group": "messaging.consumer.group.name", "topic": "messaging.destination.name", "verdict": "retriable.verdict", "reason": "retriable.reason",
}

// documented reads the tables of docs/metrics.md: of each name, kind and attributes.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\|(?: `retriable_\\w+` \\|)? `((?:retriable|messaging)\\.[a-z_.]+)` \\| (counter|histogram|gauge) \\| ([a-z, ]*)\\|").FindAllStringSubmatch(string(text), -1) {
		with := []string{"messaging.system", names["group"]}
		for label := range strings.SplitSeq(row[3], ",") {
			if label = strings.TrimSpace(label); label != "" {
				with = append(with, names[label])
			}
		}
		if strings.HasPrefix(row[1], "messaging.") {
			with = append(with, "messaging.operation.name")
		}
		slices.Sort(with)
		found[row[1]] = row[2] + " " + strings.Join(with, ",")
	}
	return found
}

// exports is what was collected: of each name, kind and attributes; and of each series its value, of a histogram the count.
type exports struct {
	kinds  map[string]string
	series map[string]float64
}

// note takes one series in. That an attempt failed may be said beside what is documented of all.
func (e *exports) note(t *testing.T, name, kind string, set attribute.Set, value float64) {
	var keys, says []string
	for _, kv := range set.ToSlice() {
		if string(kv.Key) != "error.type" {
			keys = append(keys, string(kv.Key))
		}
		if kv.Key != "messaging.system" && string(kv.Key) != names["group"] {
			says = append(says, string(kv.Key)+"="+kv.Value.String())
		}
	}
	slices.Sort(keys)
	is := kind + " " + strings.Join(keys, ",")
	if before, ok := e.kinds[name]; ok && before != is {
		t.Errorf("%s is both %s and %s", name, before, is)
	}
	e.kinds[name] = is
	e.series[name+"{"+strings.Join(says, ",")+"}"] = value
}

func (s *scene) collect(t *testing.T) *exports {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := s.reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	e := &exports{kinds: map[string]string{}, series: map[string]float64{}}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Unit == "" || m.Description == "" {
				t.Errorf("%s has no unit, or says not what it is", m.Name)
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				kind := "gauge" // an up-down counter
				if data.IsMonotonic {
					kind = "counter"
				}
				for _, p := range data.DataPoints {
					e.note(t, m.Name, kind, p.Attributes, float64(p.Value))
				}
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					e.note(t, m.Name, "gauge", p.Attributes, p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					e.note(t, m.Name, "histogram", p.Attributes, float64(p.Count))
				}
			default:
				t.Errorf("%s is a %T", m.Name, data)
			}
		}
	}
	return e
}

func TestExportsAreAsDocumented(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		s := newScene(t)
		k.Topic("orders", 1)
		release := make(chan struct{})
		handler := retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
			switch string(m.Value) {
			case "fails":
				return errDown
			case "fails once":
				if m.Attempt == 1 {
					time.Sleep(2 * time.Second) // not in one batch with the other
					return fmt.Errorf("charging: %w", errDown)
				}
			case "drop":
				return retriable.Drop(errDown)
			case "waits":
				return retriable.Postpone(time.Hour)
			case "runs":
				<-release
			}
			return nil
		})
		start := func() *retriabletest.Member {
			m := k.Start("billing", s.Option(), retriable.StuckAfter(30*time.Second), retriable.Topic("orders", handler,
				retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.MaxAttempts(2), retriable.Backoff(retriable.Constant(time.Minute))))
			s.Observe(m.Consumer)
			return m
		}
		m := start()
		fault := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: 1})
		k.Produce("orders", "", "waits", "fails once", "fails", "drop", "1", "2", "3", "4")
		m.Await(retriabletest.Handled(5), retriabletest.DeadLettered(1), retriabletest.Dropped(1))
		fault.Remove()
		m.Pause("orders")
		m.Resume("orders")
		time.Sleep(2 * time.Second)
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
		start()
		k.Produce("orders", "", "runs")
		time.Sleep(2 * time.Minute)

		got, want := s.collect(t), documented(t)
		if len(want) < 25 {
			t.Fatalf("the documents name %d measures", len(want))
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if got.kinds[name] != want[name] {
				t.Errorf("%s is exported as %q, documented as %q", name, got.kinds[name], want[name])
			}
		}
		for _, name := range slices.Sorted(maps.Keys(got.kinds)) {
			if _, ok := want[name]; !ok {
				t.Errorf("%s is exported and not documented", name)
			}
		}
		for name, want := range map[string]float64{
			"retriable.attempts{messaging.destination.name=orders,retriable.verdict=done}":              4,
			"retriable.attempts{messaging.destination.name=orders,retriable.verdict=retry}":             2,
			"retriable.attempts{messaging.destination.name=orders,retriable.verdict=abort}":             0,
			"retriable.attempts{messaging.destination.name=orders.retry,retriable.verdict=dead-letter}": 1,
			"retriable.retried{messaging.destination.name=orders}":                                      2,
			"retriable.dead_lettered{messaging.destination.name=orders.retry}":                          1,
			"retriable.dropped{messaging.destination.name=orders}":                                      1,
			"retriable.skipped{messaging.destination.name=orders}":                                      7,
			"retriable.produce_failures{messaging.destination.name=orders.retry}":                       1,
			"retriable.pauses{messaging.destination.name=orders,retriable.reason=user}":                 1,
			"retriable.stuck{messaging.destination.name=orders,retriable.reason=postponed}":             2,
			"retriable.lateness{messaging.destination.name=orders.retry}":                               2,
			"retriable.age{messaging.destination.name=orders.retry,retriable.verdict=dead-letter}":      1,
			"retriable.drain.duration{messaging.destination.name=orders}":                               1,
			"retriable.workers{}": 16,
			"retriable.running{messaging.destination.name=orders}":                                                                                                  1,
			"retriable.held{messaging.destination.name=orders}":                                                                                                     1,
			"retriable.watermark.lag{messaging.destination.name=orders}":                                                                                            9,
			"messaging.client.consumed.messages{messaging.destination.name=orders.retry,messaging.operation.name=process}":                                          2,
			"messaging.client.sent.messages{messaging.destination.name=orders.retry,messaging.operation.name=send}":                                                 2,
			"messaging.client.sent.messages{error.type=TOPIC_AUTHORIZATION_FAILED,messaging.destination.name=orders.retry,messaging.operation.name=send}":           1,
			"messaging.process.duration{messaging.destination.name=orders,messaging.operation.name=process,retriable.verdict=done}":                                 4,
			"messaging.process.duration{error.type=*errors.errorString,messaging.destination.name=orders,messaging.operation.name=process,retriable.verdict=retry}": 2,
		} {
			if value, ok := got.series[name]; !ok || value != want {
				t.Errorf("%s is %v (%v), want %v", name, value, ok, want)
			}
		}
		if text := fmt.Sprint(got.series); strings.Contains(text, "4111") || strings.Contains(text, "10.1.2.3") {
			t.Error("an error's text is exported")
		}
		close(release)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, ok := s.collect(t).kinds["retriable.running"]; ok {
			t.Error("after Close states are still measured")
		}
	})
}

func TestOptionsAreCheckedTogether(t *testing.T) {
	t.Parallel()
	_, err := retriableotel.New("", retriableotel.TracerProvider(nil), retriableotel.MeterProvider(nil), retriableotel.Propagator(nil))
	if !errors.Is(err, retriable.ErrInvalidOption) {
		t.Fatal(err)
	}
	for _, part := range []string{"the group is empty", "TracerProvider(nil)", "MeterProvider(nil)", "Propagator(nil)"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
}
