package rulestest_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/retriable-kafka/retriable-go/plugin/retriableprom"
	"github.com/retriable-kafka/retriable-go/retriable"
)

const docs = "../../../../docs/"

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(docs, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// metrics asks the collector for the labels of every series that it can export, by name.
func metrics(t *testing.T) map[string][]string {
	t.Helper()
	c, err := retriableprom.New("billing")
	if err != nil {
		t.Fatal(err)
	}
	histogram := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(retriable_\\w+)` \\|[^|]*\\| histogram ").FindAllStringSubmatch(read(t, "metrics.md"), -1) {
		histogram[m[1]] = true
	}
	descs := make(chan *prometheus.Desc, 1000)
	c.Describe(descs)
	close(descs)
	found := map[string][]string{}
	says := regexp.MustCompile(`fqName: "(\w+)".*constLabels: \{group="billing"\}, variableLabels: \{([^}]*)\}`)
	for d := range descs {
		m := says.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("a description that is not understood: %v", d)
		}
		by := []string{"group"}
		if m[2] != "" {
			by = append(by, strings.Split(m[2], ",")...)
		}
		if !histogram[m[1]] {
			found[m[1]] = by
			continue
		}
		found[m[1]+"_sum"], found[m[1]+"_count"], found[m[1]+"_bucket"] = by, by, append(slices.Clone(by), "le")
	}
	if len(found) < 30 {
		t.Fatalf("only %d series", len(found))
	}
	return found
}

// values are what the labels can say.
var values = map[string][]string{
	"verdict": {
		string(retriable.VerdictDone), string(retriable.VerdictRetry), string(retriable.VerdictDeadLetter), string(retriable.VerdictDrop),
		string(retriable.VerdictPostpone), string(retriable.VerdictAbort),
	},
	"reason": {
		string(retriable.ReasonQueued), string(retriable.ReasonRunning), string(retriable.ReasonHeld), string(retriable.ReasonProducing),
		string(retriable.ReasonJoining), string(retriable.ReasonPostponed),
		string(retriable.PauseBound), string(retriable.PauseStalled), string(retriable.PauseUser),
	},
}

// check parses an expression, and says what it names that is not exported. It returns the names of its series, and the labels of its result.
func check(t *testing.T, where, text string, known map[string][]string) (names, result []string) {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return nil, nil
	}
	have, grouped := map[string]bool{}, false
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		by, ok := known[s.Name]
		if !ok {
			t.Errorf("%s: there is no series %s", where, s.Name)
		}
		names = append(names, s.Name)
		for _, l := range by {
			have[l] = true
		}
		for _, m := range s.LabelMatchers {
			if m.Name != model.MetricNameLabel {
				checkMatcher(t, where, s.Name, m, by)
			}
		}
		return nil
	})
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		a, ok := n.(*parser.AggregateExpr)
		if !ok {
			return nil
		}
		if !grouped {
			grouped, result = true, a.Grouping // the outermost comes first
		}
		for _, l := range a.Grouping {
			if !have[l] {
				t.Errorf("%s: groups by %s, which no series of it has", where, l)
			}
		}
		return nil
	})
	if !grouped {
		for l := range have {
			result = append(result, l)
		}
	}
	return names, result
}

func checkMatcher(t *testing.T, where, series string, m *labels.Matcher, by []string) {
	t.Helper()
	if !slices.Contains(by, m.Name) {
		t.Errorf("%s: %s has no label %s", where, series, m.Name)
	}
	for value := range strings.SplitSeq(m.Value, "|") {
		if can, ok := values[m.Name]; ok && !slices.Contains(can, value) {
			t.Errorf("%s: no %s is ever %q", where, m.Name, value)
		}
	}
}

func TestAlertsAreAboutMetricsThatExist(t *testing.T) {
	t.Parallel()
	known := metrics(t)
	groups, errs := rulefmt.Parse([]byte(read(t, "alerts.yaml")), false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	n := 0
	label := regexp.MustCompile(`\$labels\.(\w+)`)
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			n++
			_, result := check(t, r.Alert, r.Expr, known)
			for _, text := range r.Annotations {
				for _, m := range label.FindAllStringSubmatch(text, -1) {
					if !slices.Contains(result, m[1]) {
						t.Errorf("%s tells of the label %s, which its expression does not keep", r.Alert, m[1])
					}
				}
			}
			checkRunbook(t, r.Alert, r.Annotations["runbook_url"])
		}
	}
	if n < 10 {
		t.Errorf("%d alerts", n)
	}
}

// checkRunbook follows the link to the heading that says what to do.
func checkRunbook(t *testing.T, alert, link string) {
	t.Helper()
	file, anchor, ok := strings.Cut(strings.TrimPrefix(link, "docs/"), "#")
	if !ok {
		t.Errorf("%s has no runbook", alert)
		return
	}
	anchors := []string{anchor}
	if anchor == "{{ $labels.reason }}" {
		anchors = []string{"queued", "running", "producing"}
	}
	for _, a := range anchors {
		if !slices.Contains(headings(t, file), a) {
			t.Errorf("%s: %s has no heading %q", alert, file, a)
		}
	}
}

// headings returns a document's headings as they are linked to.
func headings(t *testing.T, file string) (found []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(read(t, file), -1) {
		slug := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		found = append(found, strings.ReplaceAll(slug, " ", "-"))
	}
	return found
}

// dashboard is what is looked at of Grafana's JSON.
type dashboard struct {
	Title      string
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ H, W, X, Y int }
		Targets []struct{ Expr string }
	}
}

func TestTheDashboardShowsEveryMetric(t *testing.T) {
	t.Parallel()
	known := metrics(t)
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, "grafana-dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	shown, ids, places := map[string]bool{}, map[int]bool{}, map[[2]int]bool{}
	fill := strings.NewReplacer("$__rate_interval", "5m", "$group", "billing", "$topic", "orders")
	for _, p := range d.Panels {
		at := [2]int{p.GridPos.X, p.GridPos.Y}
		if ids[p.ID] || places[at] || p.GridPos.X+p.GridPos.W > 24 || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q: its number or place is taken, or it shows nothing", p.ID, p.Title)
		}
		ids[p.ID], places[at] = true, true
		for _, target := range p.Targets {
			names, _ := check(t, p.Title, fill.Replace(target.Expr), known)
			for _, name := range names {
				for _, suffix := range []string{"_bucket", "_sum", "_count"} {
					name = strings.TrimSuffix(name, suffix)
				}
				shown[name] = true
			}
		}
	}
	for name := range known {
		if trimmed, part := strings.CutSuffix(name, "_bucket"); part {
			name = trimmed
		} else if strings.HasSuffix(name, "_sum") || strings.HasSuffix(name, "_count") {
			continue
		}
		if !shown[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
	variables := map[string]bool{}
	of := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
	for _, v := range d.Templating.List {
		variables[v.Name] = true
		if v.Type != "query" {
			continue
		}
		m := of.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Errorf("variable %s: %s", v.Name, v.Definition)
			continue
		}
		_, have := check(t, "variable "+v.Name, fill.Replace(m[1]), known)
		if !slices.Contains(have, m[2]) {
			t.Errorf("variable %s asks for the label %s of %s", v.Name, m[2], m[1])
		}
	}
	if !variables["group"] || !variables["topic"] || !variables["datasource"] {
		t.Errorf("variables: %v", variables)
	}
}
