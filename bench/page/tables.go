package page

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
	"github.com/retriable-kafka/retriable-go/bench/internal/result"
)

// titles are the contestants' names for readers.
var titles = map[string]string{
	"serial":                      "bare serial kgo loop",
	"partition":                   "kgo, a goroutine per partition",
	"pool":                        "kgo, naive pool (loses records)",
	"barrier":                     "kgo, pool that waits for each poll",
	"unordered":                   "**retriable, Unordered**",
	"bypartition":                 "**retriable, ByPartition**",
	"bykey":                       "**retriable, ByKey**",
	"unordered-recycle":           "**retriable, Unordered, Recycle**",
	"bypartition-recycle":         "**retriable, ByPartition, Recycle**",
	"bykey-recycle":               "**retriable, ByKey, Recycle**",
	"serial-6m":                   "bare serial kgo loop, 6 MiB at once",
	"unordered-free":              "retriable, Unordered, nothing stuck",
	"bykey-free":                  "retriable, ByKey, nothing stuck",
	"kafka-go":                    "kafka-go, Reader of a group",
	"watermill":                   "watermill-kafka, Router",
	"parallel-consumer-unordered": "parallel-consumer (Java), UNORDERED",
	"parallel-consumer-key":       "parallel-consumer (Java), KEY",
	"python":                      "retriable-kafka-client (Python)",
	"hoard":                       "bare kgo client that keeps them",
}

func title(name string) string { return cmp.Or(titles[name], name) }

func rate(f *job.Figures) float64        { return f.Rate() }
func cpu(f *job.Figures) float64         { return f.CPUPerMillion() }
func rss(f *job.Figures) float64         { return f.RSS }
func allocations(f *job.Figures) float64 { return f.Allocations }
func join(f *job.Figures) float64        { return f.Join }

func extra(name string) func(*job.Figures) float64 {
	return func(f *job.Figures) float64 { return f.Extra[name] }
}

// throughput is the table of those who are measured by records a second.
func throughput(inv *result.Invocation) string {
	var g grid
	base := inv.Of("serial")
	heads := []string{"", "records", "records/s", "CPU-s per million", "peak RSS, MiB", "allocations a record", "start, s"}
	if base != nil {
		heads = append(heads, "records/s to serial", "CPU to serial")
	}
	g.head(append(heads, "rounds")...)
	for i := range inv.Contestants {
		c := &inv.Contestants[i]
		if len(c.Rounds) == 0 {
			if c.Missing != "" {
				g.row(append([]string{title(c.Name), "missing: " + oneLine(c.Missing)}, slices.Repeat([]string{""}, len(heads)-1)...)...)
			}
			continue
		}
		allocated := "not known"
		if a := c.Over(allocations).Median; a > 0 {
			allocated = short(a)
		}
		cells := []string{
			title(c.Name), whole(float64(c.Rounds[0].Figures.Records)), wide(c.Over(rate), whole), wide(c.Over(cpu), short), whole(c.Over(rss).Max), allocated,
			short(c.Over(join).Median),
		}
		if base != nil {
			cells = append(cells, wide(c.Ratio(base, rate), short), wide(c.Ratio(base, cpu), short))
		}
		g.row(append(cells, counted(c))...)
	}
	return g.end()
}

// ideal is the least time that a contestant's handlers could take, in seconds: all workers always busy, or the longest lane without a gap.
func ideal(inv *result.Invocation, c *result.Contestant, byKey bool) func(*job.Figures) float64 {
	return func(f *job.Figures) float64 {
		least := float64(f.Records) * f.Handler / float64(c.Workers)
		if byKey {
			least = math.Max(least, float64(inv.Longest)*f.Handler)
		}
		return 100 * least / f.Seconds
	}
}

func (r *Results) sleeping(name string) string {
	inv := r.last(name)
	if inv == nil {
		return notMeasured
	}
	var g grid
	g.head("", "records", "records/s", "of the ideal, %", "a handler takes, ms", "CPU-s per million", "peak RSS, MiB", "rounds")
	for i := range inv.Contestants {
		c := &inv.Contestants[i]
		if len(c.Rounds) == 0 {
			if c.Missing != "" {
				g.row(title(c.Name), "missing: "+oneLine(c.Missing), "", "", "", "", "", "")
			}
			continue
		}
		handler := func(f *job.Figures) float64 { return f.Handler * 1000 }
		g.row(title(c.Name), whole(float64(c.Rounds[0].Figures.Records)), wide(c.Over(rate), whole), wide(c.Over(ideal(inv, c, name == "zipf")), one),
			short(c.Over(handler).Median), wide(c.Over(cpu), short), whole(c.Over(rss).Max), counted(c))
	}
	return g.end()
}

func (r *Results) held() string {
	var g grid
	g.head("held", "most at once", "late by, median, ms", "p99, ms", "p99.9, ms", "longest, ms", "CPU-s per million", "peak RSS, MiB", "foreign cores")
	for _, n := range []string{"held10000", "held100000"} {
		for _, inv := range r.runs(n) {
			for _, round := range inv.Contestants[0].Rounds {
				f := &round.Figures
				g.row(whole(float64(f.Records)), whole(f.Extra["held_most"]), short(f.Extra["late_p50_ms"]), short(f.Extra["late_p99_ms"]),
					short(f.Extra["late_p999_ms"]), short(f.Extra["late_max_ms"]), short(f.CPUPerMillion()), whole(f.RSS), short(round.Foreign))
			}
		}
	}
	return g.end()
}

// levels of the two curves.
var (
	partitionLevels = []int{1, 10, 100, 1000}
	pendingLevels   = []int{100, 10_000, 100_000, 1_000_000}
)

func (r *Results) cost() string {
	var g grid
	g.head("CPU-s per million", "serial", "Unordered", "ByPartition", "ByKey")
	rows := func(kind, what string, levels []int) {
		for _, n := range levels {
			inv := r.last(fmt.Sprintf("cost-%s-%d", kind, n))
			if inv == nil {
				continue
			}
			cells := []string{whole(float64(n)) + what}
			for _, name := range []string{"serial", "unordered", "bypartition", "bykey"} {
				cell := "–"
				if c := inv.Of(name); c != nil && len(c.Rounds) > 0 {
					cell = wide(c.Over(cpu), short)
				}
				cells = append(cells, cell)
			}
			g.row(cells...)
		}
	}
	rows("partitions", " partitions", partitionLevels)
	rows("pending", " pending", pendingLevels)
	return g.end()
}

func (r *Results) memory() string {
	inv := r.last("memory")
	if inv == nil {
		return notMeasured
	}
	var g grid
	g.head("", "pending", "heap a record, bytes", "beside kgo's own, bytes")
	for _, c := range inv.Contestants {
		if len(c.Rounds) == 0 {
			continue
		}
		g.row(title(c.Name), whole(float64(c.Rounds[0].Figures.Records)), one(c.Over(extra("bytes_per_pending")).Median), one(besides(inv, c.Name)))
	}
	return g.end()
}

// besides is what a pending record takes beside what the bare client keeps of it.
func besides(inv *result.Invocation, name string) float64 {
	c, bare := inv.Of(name), inv.Of("hoard")
	if c == nil || bare == nil {
		return math.NaN()
	}
	return c.Over(extra("bytes_per_pending")).Median - bare.Over(extra("bytes_per_pending")).Median
}

func (r *Results) commit() string {
	inv := r.last("commit")
	if inv == nil {
		return notMeasured
	}
	var g grid
	g.head("window, offsets", "time a commit, ms")
	figures := inv.Contestants[0].Rounds[0].Figures.Extra
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		g.row(strings.ReplaceAll(name, "_", " "), short(figures[name]/1e6))
	}
	return g.end()
}

func (r *Results) takeover() string {
	inv := r.last("takeover")
	if inv == nil {
		return notMeasured
	}
	var g grid
	g.head("", "first member's first record after, s", "second's, s", "longest wait of a record while it joins, ms", "and while the first leaves, ms", "handled again", "rounds")
	for i := range inv.Contestants {
		c := &inv.Contestants[i]
		if len(c.Rounds) == 0 {
			g.row(title(c.Name), "missing: "+oneLine(c.Missing), "", "", "", "", "")
			continue
		}
		of := func(name string) string { return wide(c.Over(extra(name)), short) }
		g.row(title(c.Name), of("start_s"), of("second_start_s"), of("join_wait_ms"), of("leave_wait_ms"), of("handled_again"), counted(c))
	}
	return g.end()
}

// machine tells on what and by which commands.
func (r *Results) machine() string {
	var g grid
	var newest *result.Invocation
	g.head("scenario", "command", "date (UTC)", "commit", "rounds dropped")
	for _, s := range Scenarios {
		for _, inv := range r.runs(s) {
			rounds, dropped := 0, 0
			for _, c := range inv.Contestants {
				for _, round := range c.Rounds {
					rounds++
					if round.Noisy() {
						dropped++
					}
				}
			}
			g.row(s, "`"+inv.Command+"`", inv.Date, inv.Commit, fmt.Sprintf("%d of %d", dropped, rounds))
			if newest == nil || inv.Date >= newest.Date {
				newest = &inv
			}
		}
	}
	if newest == nil {
		return notMeasured
	}
	var b strings.Builder
	m := newest.Machine
	fmt.Fprintf(&b, "\n%s, %d cores, %s of memory, %s; client and broker share them. ", m.CPU, m.Cores, m.Memory, m.System)
	var versions []string
	for _, name := range slices.Sorted(maps.Keys(m.Versions)) {
		if v := m.Versions[name]; v != "" {
			versions = append(versions, name+" "+v)
		}
	}
	fmt.Fprintf(&b, "%s.\n", strings.Join(versions, "; "))
	return b.String() + g.end()
}

// Scenarios are those that the page knows, in its order.
var Scenarios = []string{
	"noop", "peers", "sleep100", "sleep1000", "zipf", "hotkey", "retry", "retry-peers", "poison", "stuck", "partitions100", "size1k", "size100k", "memory",
	"cost-partitions-1", "cost-partitions-10", "cost-partitions-100", "cost-partitions-1000",
	"cost-pending-100", "cost-pending-10000", "cost-pending-100000", "cost-pending-1000000", "held10000", "held100000", "takeover", "commit",
}

// counted says how many rounds the medians are of.
func counted(c *result.Contestant) string {
	s := c.Over(rate)
	switch {
	case s.All:
		return fmt.Sprintf("%d, all noisy", s.Used)
	case s.Dropped > 0:
		return fmt.Sprintf("%d, %d dropped", s.Used, s.Dropped)
	}
	return strconv.Itoa(s.Used)
}

// wide is a median with its extremes.
func wide(s result.Spread, number func(float64) string) string {
	if s.Used == 0 {
		return "–"
	}
	if s.Used == 1 {
		return number(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.Median), number(s.Min), number(s.Max))
}

// whole has commas.
func whole(v float64) string {
	s := strconv.FormatInt(int64(math.Round(v)), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func one(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

// short has three digits that tell.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return whole(v)
	case a >= 10:
		return one(v)
	case a >= 0.095 || a == 0:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 4, 64)
}

func oneLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return strings.ReplaceAll(s, "|", "/")
}
