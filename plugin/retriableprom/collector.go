// Package retriableprom measures consumers for Prometheus.
//
//	metrics, err := retriableprom.New("billing")
//	…
//	prometheus.MustRegister(metrics)
//	c, err := retriable.New("billing", …, retriable.Hooks(metrics))
//	…
//	metrics.Observe(c)
//
// docs/metrics.md lists every name. The labels are group, topic, verdict and reason: nothing that a producer could make more of, as keys or
// partitions. The topic is the one that a record was read from, so a retry topic has measures of its own.
package retriableprom

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Collector measures the consumers of one group in this process. It is a [prometheus.Collector] and a [retriable.Hook]; make it with [New]. What
// happens it is told by hooks; how things stand it asks the consumers (Stats) when Prometheus asks it.
type Collector struct {
	events *events
	gauges *gauges

	mu        sync.Mutex
	consumers []*retriable.Consumer
}

// Option configures a Collector.
type Option func(*config)

type config struct{ durations, ages []float64 }

// DurationBuckets sets the buckets of the histograms for how long handlers, queueing and drains take: upper bounds in seconds, rising. The default
// is 16 from 1 ms to 5 min. Fewer make fewer series. Native histograms, where Prometheus asks for them, have buckets of their own.
func DurationBuckets(seconds ...float64) Option {
	return func(c *config) { c.durations = slices.Clone(seconds) }
}

// AgeBuckets sets the buckets of the histograms for lateness and for the age of records at their end: upper bounds in seconds, rising. The default is 13
// from 10 ms to 7 days.
func AgeBuckets(seconds ...float64) Option {
	return func(c *config) { c.ages = slices.Clone(seconds) }
}

// New makes a Collector, to be registered with Prometheus, given to [retriable.Hooks] and told of its consumers with Observe. The group is the label by
// which it is told from others in the same registry; use the consumer group's name. What is wrong with the options is reported all at once,
// each wrapping [retriable.ErrInvalidOption].
func New(group string, opts ...Option) (*Collector, error) {
	c := config{durations: durations, ages: ages}
	for _, o := range opts {
		if o != nil {
			o(&c)
		}
	}
	var errs []error
	if group == "" {
		errs = append(errs, fmt.Errorf("%w: retriableprom: the group is empty", retriable.ErrInvalidOption))
	}
	errs = append(errs, rising("DurationBuckets", c.durations), rising("AgeBuckets", c.ages))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Collector{events: newEvents(group, &c), gauges: newGauges(group)}, nil
}

func rising(name string, buckets []float64) error {
	for i := 1; i < len(buckets); i++ {
		if buckets[i] <= buckets[i-1] {
			return fmt.Errorf("%w: retriableprom: %s(%v): they must rise", retriable.ErrInvalidOption, name, buckets)
		}
	}
	if len(buckets) == 0 {
		return fmt.Errorf("%w: retriableprom: %s: there are none", retriable.ErrInvalidOption, name)
	}
	return nil
}

// Observe adds consumers whose state the gauges tell, all of the same group. Without it there are only counters and histograms. A consumer whose
// Run has returned has no partitions any more, and counts as nothing.
func (c *Collector) Observe(consumers ...*retriable.Consumer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consumers = append(c.consumers, consumers...)
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, part := range c.events.all() {
		part.Describe(to)
	}
	for _, d := range c.gauges.all() {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	for _, part := range c.events.all() {
		part.Collect(to)
	}
	c.mu.Lock()
	consumers := slices.DeleteFunc(c.consumers, ended)
	c.consumers = consumers
	all := make([]retriable.Stats, 0, len(consumers))
	for _, one := range consumers {
		all = append(all, one.Stats())
	}
	c.mu.Unlock()
	if len(all) > 0 {
		c.gauges.collect(to, merge(all))
	}
}

func ended(c *retriable.Consumer) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// merge makes one snapshot of those of several members in one process.
func merge(all []retriable.Stats) (s retriable.Stats) {
	for _, one := range all {
		s.Workers += one.Workers
		s.PendingBytes += one.PendingBytes
		s.Partitions = append(s.Partitions, one.Partitions...)
	}
	slices.SortStableFunc(s.Partitions, func(a, b retriable.PartitionStats) int {
		switch {
		case a.Topic < b.Topic:
			return -1
		case a.Topic > b.Topic:
			return 1
		}
		return 0
	})
	return s
}

func (g *gauges) collect(to chan<- prometheus.Metric, s retriable.Stats) {
	tell := func(d *prometheus.Desc, v float64, by ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, by...)
	}
	now := time.Now()
	tell(g.workers, float64(s.Workers))
	tell(g.pendingBytes, float64(s.PendingBytes))
	for _, t := range s.Topics() {
		tell(g.partitions, float64(t.Partitions), t.Topic)
		tell(g.pausedPartitions, float64(t.Paused), t.Topic)
		tell(g.careful, float64(t.Careful), t.Topic)
		tell(g.running, float64(t.Running), t.Topic)
		tell(g.pending, float64(t.Pending), t.Topic)
		tell(g.held, float64(t.Held), t.Topic)
		tell(g.watermarkLag, float64(t.Unfinished), t.Topic)
		tell(g.commitLag, float64(t.Lag), t.Topic)
		tell(g.mapFill, t.MapFill, t.Topic)
		for _, why := range reasons {
			age := 0.0
			if since, ok := t.Since[why]; ok {
				age = max(now.Sub(since).Seconds(), 0)
			}
			tell(g.oldestPending, age, t.Topic, string(why))
		}
	}
}
