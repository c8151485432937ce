package retriableprom_test

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/retriable-kafka/retriable-go/plugin/retriableprom"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// documented reads the tables of docs/metrics.md: of each name, kind and labels.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(retriable_\\w+)` \\| `[a-z_.]+` \\| (\\w+) \\| ([a-z, ]*)\\|").FindAllStringSubmatch(string(text), -1) {
		labels := []string{"group"}
		for label := range strings.SplitSeq(row[3], ",") {
			if label = strings.TrimSpace(label); label != "" {
				labels = append(labels, label)
			}
		}
		slices.Sort(labels)
		found[row[1]] = row[2] + " " + strings.Join(labels, ",")
	}
	return found
}

// exported reads what Prometheus would: of each name, kind and labels; and of each series its value.
func exported(t *testing.T, reg *prometheus.Registry) (names, series map[string]string) {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	names, series = map[string]string{}, map[string]string{}
	kinds := map[string]string{}
	line := regexp.MustCompile(`^(\w+?)(_bucket|_sum|_count)?\{(.*)\} (\S+)$`)
	label := regexp.MustCompile(`(\w+)="`)
	for text := range strings.Lines(w.Body.String()) {
		text = strings.TrimSpace(text)
		if rest, ok := strings.CutPrefix(text, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			kinds[name] = kind
			continue
		}
		m := line.FindStringSubmatch(text)
		if strings.HasPrefix(text, "#") || m == nil {
			if !strings.HasPrefix(text, "#") {
				t.Errorf("a line that is not understood: %s", text)
			}
			continue
		}
		labels := []string{}
		for _, l := range label.FindAllStringSubmatch(m[3], -1) {
			if l[1] != "le" {
				labels = append(labels, l[1])
			}
		}
		slices.Sort(labels)
		says := kinds[m[1]] + " " + strings.Join(labels, ",")
		if before, ok := names[m[1]]; ok && before != says {
			t.Errorf("%s is both %s and %s", m[1], before, says)
		}
		names[m[1]] = says
		series[m[1]+m[2]+"{"+m[3]+"}"] = m[4]
	}
	return names, series
}

func TestExportsAreAsDocumented(t *testing.T) {
	story(t, func(reg *prometheus.Registry) {
		names, series := exported(t, reg)
		want := documented(t)
		if len(want) < 20 {
			t.Fatalf("the documents name %d metrics", len(want))
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if names[name] != want[name] {
				t.Errorf("%s is exported as %q, documented as %q", name, names[name], want[name])
			}
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if _, ok := want[name]; !ok {
				t.Errorf("%s is exported and not documented", name)
			}
		}
		for name, want := range map[string]string{
			`retriable_attempts_total{group="billing",topic="orders",verdict="done"}`:                    "8",
			`retriable_attempts_total{group="billing",topic="orders",verdict="retry"}`:                   "2",
			`retriable_attempts_total{group="billing",topic="orders",verdict="drop"}`:                    "1",
			`retriable_attempts_total{group="billing",topic="orders",verdict="postpone"}`:                "2",
			`retriable_attempts_total{group="billing",topic="orders.retry",verdict="done"}`:              "1",
			`retriable_attempts_total{group="billing",topic="orders.retry",verdict="dead-letter"}`:       "1",
			`retriable_attempts_total{group="billing",topic="orders.retry",verdict="retry"}`:             "0",
			`retriable_retried_total{group="billing",topic="orders"}`:                                    "2",
			`retriable_dead_lettered_total{group="billing",topic="orders.retry"}`:                        "1",
			`retriable_dropped_total{group="billing",topic="orders"}`:                                    "1",
			`retriable_skipped_total{group="billing",topic="orders"}`:                                    "11",
			`retriable_produce_failures_total{group="billing",topic="orders.retry"}`:                     "1",
			`retriable_pauses_total{group="billing",reason="user",topic="orders"}`:                       "1",
			`retriable_stuck_total{group="billing",reason="postponed",topic="orders"}`:                   "2",
			`retriable_handler_seconds_sum{group="billing",topic="orders",verdict="retry"}`:              "2",
			`retriable_handler_seconds_count{group="billing",topic="orders",verdict="retry"}`:            "2",
			`retriable_lateness_seconds_count{group="billing",topic="orders.retry"}`:                     "2",
			`retriable_lateness_seconds_count{group="billing",topic="orders"}`:                           "0",
			`retriable_queue_seconds_count{group="billing",topic="orders.retry"}`:                        "2",
			`retriable_age_seconds_count{group="billing",topic="orders.retry",verdict="done"}`:           "1",
			`retriable_age_seconds_bucket{group="billing",topic="orders.retry",verdict="done",le="60"}`:  "0", // it waited a minute
			`retriable_age_seconds_bucket{group="billing",topic="orders.retry",verdict="done",le="300"}`: "1",
			`retriable_drain_seconds_count{group="billing",topic="orders"}`:                              "1",
			`retriable_workers{group="billing"}`:                                                         "16",
			`retriable_partitions{group="billing",topic="orders"}`:                                       "1",
			`retriable_paused_partitions{group="billing",topic="orders"}`:                                "0",
			`retriable_running{group="billing",topic="orders"}`:                                          "1",
			`retriable_pending{group="billing",topic="orders"}`:                                          "1",
			`retriable_held{group="billing",topic="orders"}`:                                             "1",
			`retriable_watermark_lag{group="billing",topic="orders"}`:                                    "13",
			`retriable_commit_lag{group="billing",topic="orders"}`:                                       "13",
			`retriable_oldest_pending_seconds{group="billing",reason="running",topic="orders"}`:          "0",
		} {
			if series[name] != want {
				t.Errorf("%s is %s, want %s", name, series[name], want)
			}
		}
		if age := series[`retriable_oldest_pending_seconds{group="billing",reason="postponed",topic="orders"}`]; !strings.HasPrefix(age, "12") { // two minutes
			t.Errorf("the oldest is pending for %s", age)
		}
		problems, err := testutil.GatherAndLint(reg)
		if err != nil || len(problems) > 0 {
			t.Errorf("lint: %v %v", problems, err)
		}
		if text := fmt.Sprint(series); strings.Contains(text, "4111") || strings.Contains(text, "10.1.2.3") {
			t.Error("an error's text is exported")
		}
	})
}

func TestOptionsAreCheckedTogether(t *testing.T) {
	t.Parallel()
	_, err := retriableprom.New("", retriableprom.DurationBuckets(1, 1), retriableprom.AgeBuckets())
	if !errors.Is(err, retriable.ErrInvalidOption) {
		t.Fatal(err)
	}
	for _, part := range []string{"the group is empty", "DurationBuckets([1 1])", "AgeBuckets"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
}
