package page

import (
	"fmt"
	"math"

	"github.com/retriable-kafka/retriable-go/bench/internal/result"
)

// target is a figure that the library is to reach.
type target struct {
	what     string
	scenario string
	limit    float64
	least    bool // it is to be at least the limit, not at most
	of       func(*result.Invocation) float64
}

// NaN where there is no figure.
func ratio(name, to string, of func(*result.Invocation, *result.Contestant, *result.Contestant) float64) func(*result.Invocation) float64 {
	return func(inv *result.Invocation) float64 {
		c, base := inv.Of(name), inv.Of(to)
		if c == nil || base == nil || len(c.Rounds) == 0 || len(base.Rounds) == 0 {
			return math.NaN()
		}
		return of(inv, c, base)
	}
}

func alone(name string, of func(*result.Invocation, *result.Contestant) float64) func(*result.Invocation) float64 {
	return ratio(name, name, func(inv *result.Invocation, c, _ *result.Contestant) float64 { return of(inv, c) })
}

func rates(_ *result.Invocation, c, base *result.Contestant) float64 {
	return c.Ratio(base, rate).Median
}

func cpus(_ *result.Invocation, c, base *result.Contestant) float64 { return c.Ratio(base, cpu).Median }

func sizes(_ *result.Invocation, c, base *result.Contestant) float64 {
	return c.Over(rss).Max / base.Over(rss).Max
}

func toIdeal(byKey bool) func(*result.Invocation, *result.Contestant) float64 {
	return func(inv *result.Invocation, c *result.Contestant) float64 { return c.Over(ideal(inv, c, byKey)).Median }
}

func allTargets() []target {
	var all []target
	for _, o := range []struct {
		name, title string
		rate, cpu   float64
	}{
		{"unordered", "Unordered", 1, 1.15},
		{"bypartition", "ByPartition", 1, 1.15},
		{"bykey", "ByKey", 0.8, 1.6},
		{"unordered-recycle", "Unordered with Recycle", 1, 1.15},
		{"bypartition-recycle", "ByPartition with Recycle", 1, 1.15},
		{"bykey-recycle", "ByKey with Recycle", 0.8, 1.6},
	} {
		all = append(all,
			target{o.title + ", no-op: records/s to the serial loop's", "noop", o.rate, true, ratio(o.name, "serial", rates)},
			target{o.title + ", no-op: CPU to the serial loop's", "noop", o.cpu, false, ratio(o.name, "serial", cpus)},
			target{o.title + ", no-op: allocations a record", "noop", 0.05, false, alone(o.name, func(_ *result.Invocation, c *result.Contestant) float64 {
				return c.Over(allocations).Median
			})},
			target{o.title + ", no-op: peak RSS to the serial loop's", "noop", 1.5, false, ratio(o.name, "serial", sizes)},
		)
	}
	for _, o := range []struct{ name, title string }{{"unordered", "Unordered"}, {"bykey", "ByKey"}} {
		all = append(all,
			target{o.title + ", 5 ms, 100 at once: % of the ideal", "sleep100", 97, true, alone(o.name, toIdeal(false))},
			target{o.title + ", 5 ms, 1,000 at once: % of the ideal", "sleep1000", 92, true, alone(o.name, toIdeal(false))},
		)
	}
	retried := func(of func(*result.Contestant) float64) func(*result.Invocation, *result.Contestant) float64 {
		return func(_ *result.Invocation, c *result.Contestant) float64 { return of(c) }
	}
	late := func(inv *result.Invocation) float64 {
		return inv.Contestants[0].Over(extra("late_p99_ms")).Median
	}
	return append(all,
		target{"ByKey, 5 ms, 100 at once, Zipf's keys: % of what the keys allow", "zipf", 97, true, alone("bykey", toIdeal(true))},
		target{"every record fails once: records/s", "retry", 100_000, true, alone("unordered", retried(func(c *result.Contestant) float64 { return c.Over(rate).Median }))},
		target{"every record fails once: CPU-s per million", "retry", 6, false, alone("unordered", retried(func(c *result.Contestant) float64 { return c.Over(cpu).Median }))},
		target{"100,000 held: lateness p99, ms", "held100000", 20, false, late},
		target{"a stuck record, Unordered: records/s to without", "stuck", 0.99, true, ratio("unordered", "unordered-free", rates)},
		target{"a stuck record, ByKey: records/s to without", "stuck", 0.99, true, ratio("bykey", "bykey-free", rates)},
		target{"a commit at a window of a million, ms", "commit", 1, false, func(inv *result.Invocation) float64 {
			if v, ok := inv.Contestants[0].Rounds[0].Figures.Extra["1M"]; ok {
				return v / 1e6
			}
			return math.NaN()
		}},
		target{"Unordered: bytes a pending record", "memory", 200, false, func(inv *result.Invocation) float64 { return besides(inv, "unordered") }},
		target{"ByKey: bytes a pending record", "memory", 200, false, func(inv *result.Invocation) float64 { return besides(inv, "bykey") }},
	)
}

// targets is the table of all, with each of the last runs.
func (r *Results) targets() string {
	const most = 3
	var g grid
	g.head("", "wanted", "run 1", "run 2", "run 3", "met")
	for _, t := range allTargets() {
		sign, runs := "≤", r.runs(t.scenario)
		if t.least {
			sign = "≥"
		}
		cells := []string{t.what, sign + " " + limit(t.limit)}
		runs = runs[max(0, len(runs)-most):]
		met, missed := 0, 0
		for i := range most {
			if i >= len(runs) || math.IsNaN(t.of(&runs[i])) {
				cells = append(cells, "–")
				continue
			}
			v := t.of(&runs[i])
			mark := ""
			if noisy(&runs[i]) {
				mark = " †"
			}
			cells = append(cells, short(v)+mark)
			if t.least == (v >= t.limit) || v == t.limit {
				met++
			} else {
				missed++
			}
		}
		verdict := "not measured"
		switch {
		case missed > 0 && met > 0:
			verdict = fmt.Sprintf("%d of %d", met, met+missed)
		case missed > 0:
			verdict = "**no**"
		case met > 0:
			verdict = "yes"
		}
		g.row(append(cells, verdict)...)
	}
	return g.end()
}

// noisy reports whether no round of it was quiet.
func noisy(inv *result.Invocation) bool {
	rounds := 0
	for _, c := range inv.Contestants {
		for i := range c.Rounds {
			if !c.Rounds[i].Noisy() {
				return false
			}
			rounds++
		}
	}
	return rounds > 0
}

func limit(v float64) string {
	if v >= 1000 {
		return whole(v)
	}
	return fmt.Sprint(v)
}
