package retriableotel

import (
	"context"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// states are instruments that ask how things stand when they are collected.
type states struct {
	workers, pendingBytes, partitions, paused, careful, running, pending, held, watermarkLag, commitLag metric.Int64ObservableUpDownCounter
	oldest, mapFill                                                                                     metric.Float64ObservableGauge
}

func (t *Telemetry) observe(meter metric.Meter) (metric.Registration, error) {
	m := &maker{Meter: meter}
	var all []metric.Observable
	number := func(name, unit, what string) metric.Int64ObservableUpDownCounter {
		c := m.upDown(name, unit, what)
		all = append(all, c)
		return c
	}
	gauge := func(name, unit, what string) metric.Float64ObservableGauge {
		g := m.gauge(name, unit, what)
		all = append(all, g)
		return g
	}
	s := &states{
		workers:      number("retriable.workers", "{handler}", "Handlers that may run at once."),
		pendingBytes: number("retriable.pending.bytes", "By", "Memory of what is pending and held."),
		partitions:   number("retriable.partitions", "{partition}", "Partitions assigned to this process."),
		paused:       number("retriable.paused_partitions", "{partition}", "Of these, those that are not fetched."),
		careful:      number("retriable.careful_partitions", "{partition}", "Of these, those that run one record at a time, for one may have ended the process."),
		running:      number("retriable.running", "{record}", "Records whose handler runs."),
		pending:      number("retriable.pending", "{record}", "Records read, not resolved and not held; those that run are among them."),
		held:         number("retriable.held", "{record}", "Records that wait in memory until they are due."),
		watermarkLag: number("retriable.watermark.lag", "{offset}", "Offsets from the watermarks to the logs' ends."),
		commitLag:    number("retriable.commit.lag", "{offset}", "Offsets from what is committed to the logs' ends."),
		oldest:       gauge("retriable.oldest_pending.age", "s", "For how long the oldest record at a watermark has been pending, by why it is."),
		mapFill:      gauge("retriable.map.fill", "1", "Share used of what a commit's metadata can hold, of the fullest partition."),
	}
	if m.err != nil {
		return nil, m.err
	}
	return meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		if consumers := t.observed(); len(consumers) > 0 {
			s.tell(to, t.group, merge(consumers))
		}
		return nil
	}, all...)
}

func (m *maker) upDown(name, unit, what string) metric.Int64ObservableUpDownCounter {
	c, err := m.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
	m.note(err)
	return c
}

func (m *maker) gauge(name, unit, what string) metric.Float64ObservableGauge {
	g, err := m.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(what))
	m.note(err)
	return g
}

// merge makes one snapshot of those of several members in one process.
func merge(consumers []*retriable.Consumer) (s retriable.Stats) {
	for _, c := range consumers {
		one := c.Stats()
		s.Workers += one.Workers
		s.PendingBytes += one.PendingBytes
		s.Partitions = append(s.Partitions, one.Partitions...)
	}
	slices.SortStableFunc(s.Partitions, func(a, b retriable.PartitionStats) int { return strings.Compare(a.Topic, b.Topic) })
	return s
}

func (s *states) tell(to metric.Observer, group string, now retriable.Stats) {
	of := labels(group, "")
	to.ObserveInt64(s.workers, int64(now.Workers), of)
	to.ObserveInt64(s.pendingBytes, now.PendingBytes, of)
	for _, t := range now.Topics() {
		of := labels(group, t.Topic)
		to.ObserveInt64(s.partitions, int64(t.Partitions), of)
		to.ObserveInt64(s.paused, int64(t.Paused), of)
		to.ObserveInt64(s.careful, int64(t.Careful), of)
		to.ObserveInt64(s.running, int64(t.Running), of)
		to.ObserveInt64(s.pending, int64(t.Pending), of)
		to.ObserveInt64(s.held, int64(t.Held), of)
		to.ObserveInt64(s.watermarkLag, t.Unfinished, of)
		to.ObserveInt64(s.commitLag, t.Lag, of)
		to.ObserveFloat64(s.mapFill, t.MapFill, of)
		for _, why := range reasons {
			age := 0.0
			if since, ok := t.Since[why]; ok {
				age = max(time.Since(since).Seconds(), 0)
			}
			to.ObserveFloat64(s.oldest, age, labels(group, t.Topic, reasonIs(string(why))))
		}
	}
}
