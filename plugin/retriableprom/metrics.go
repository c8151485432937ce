package retriableprom

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// durations are the buckets for what takes moments, ages for what may take days: upper bounds, in seconds.
var (
	durations = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}
	ages      = []float64{0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600}
)

// What each label may say, so that series are there before something happens: a rate knows of the first time, too.
var (
	verdicts = []retriable.Verdict{
		retriable.VerdictDone, retriable.VerdictRetry, retriable.VerdictDeadLetter, retriable.VerdictDrop, retriable.VerdictPostpone, retriable.VerdictAbort,
	}
	ends    = []retriable.Verdict{retriable.VerdictDone, retriable.VerdictDeadLetter, retriable.VerdictDrop}
	reasons = []retriable.Reason{
		retriable.ReasonQueued, retriable.ReasonRunning, retriable.ReasonHeld, retriable.ReasonProducing, retriable.ReasonJoining, retriable.ReasonPostponed,
	}
	pauses = []retriable.PauseReason{retriable.PauseBound, retriable.PauseStalled, retriable.PauseUser}
)

// events is what hooks count and time.
type events struct {
	attempts, retried, deadLettered, dropped, rewritten, skipped     *prometheus.CounterVec
	produceFailures, paused, stuck, commitFailures, abandoned        *prometheus.CounterVec
	handlerSeconds, queueSeconds, lateness, ageSeconds, drainSeconds *prometheus.HistogramVec

	topics sync.Map // by name: *topic, so that a record costs no lookup by labels
}

func newEvents(group string, c *config) *events {
	labels := prometheus.Labels{"group": group}
	counter := func(name, help string, by ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, append([]string{"topic"}, by...))
	}
	histogram := func(name, help string, buckets []float64, by ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, ConstLabels: labels, Buckets: buckets, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
		}, append([]string{"topic"}, by...))
	}
	return &events{
		attempts:        counter("retriable_attempts_total", "Attempts that ended.", "verdict"),
		retried:         counter("retriable_retried_total", "Failed records whose copy was acked by a retry topic."),
		deadLettered:    counter("retriable_dead_lettered_total", "Records acked by a dead-letter topic."),
		dropped:         counter("retriable_dropped_total", "Records that ended without success and are kept nowhere."),
		rewritten:       counter("retriable_rewritten_total", "Records that wait and were written again, further up."),
		skipped:         counter("retriable_skipped_total", "Records not delivered again thanks to the committed map."),
		produceFailures: counter("retriable_produce_failures_total", "Refused writes, by the topic that was written to."),
		paused:          counter("retriable_pauses_total", "Times that a partition was no longer fetched.", "reason"),
		stuck:           counter("retriable_stuck_total", "Times that a watermark had not moved for StuckAfter.", "reason"),
		commitFailures:  counter("retriable_commit_failures_total", "Commits of a partition that were refused."),
		abandoned:       counter("retriable_abandoned_total", "Records whose handlers or writes did not end within the drain."),
		handlerSeconds:  histogram("retriable_handler_seconds", "How long handlers took.", c.durations, "verdict"),
		queueSeconds:    histogram("retriable_queue_seconds", "How long records waited for a worker once they could have started.", c.durations),
		lateness:        histogram("retriable_lateness_seconds", "How long after its due time an attempt began.", c.ages),
		ageSeconds:      histogram("retriable_age_seconds", "Age of records at their end, since they were first produced.", c.ages, "verdict"),
		drainSeconds:    histogram("retriable_drain_seconds", "How long it took to give partitions up.", c.durations),
	}
}

func (e *events) all() []prometheus.Collector {
	return []prometheus.Collector{
		e.attempts, e.retried, e.deadLettered, e.dropped, e.rewritten, e.skipped, e.produceFailures, e.paused, e.stuck, e.commitFailures, e.abandoned,
		e.handlerSeconds, e.queueSeconds, e.lateness, e.ageSeconds, e.drainSeconds,
	}
}

// topic is what is measured of one topic.
type topic struct {
	attempts, handler, age map[retriable.Verdict]prometheus.Observer
	queue, lateness        prometheus.Observer
}

// counted makes a counter look like an Observer, so that one table serves both.
type counted struct{ prometheus.Counter }

func (c counted) Observe(float64) { c.Inc() }

// of returns what is measured of a topic. The first time it makes all its series.
func (e *events) of(name string) *topic {
	if t, ok := e.topics.Load(name); ok {
		return t.(*topic)
	}
	t := &topic{
		attempts: map[retriable.Verdict]prometheus.Observer{}, handler: map[retriable.Verdict]prometheus.Observer{}, age: map[retriable.Verdict]prometheus.Observer{},
		queue: e.queueSeconds.WithLabelValues(name), lateness: e.lateness.WithLabelValues(name),
	}
	for _, v := range verdicts {
		t.attempts[v] = counted{e.attempts.WithLabelValues(name, string(v))}
		t.handler[v] = e.handlerSeconds.WithLabelValues(name, string(v))
	}
	for _, v := range ends {
		t.age[v] = e.ageSeconds.WithLabelValues(name, string(v))
	}
	for _, counter := range []*prometheus.CounterVec{e.retried, e.deadLettered, e.dropped, e.rewritten, e.skipped, e.commitFailures, e.abandoned} {
		counter.WithLabelValues(name)
	}
	for _, why := range pauses {
		e.paused.WithLabelValues(name, string(why))
	}
	for _, why := range reasons {
		e.stuck.WithLabelValues(name, string(why))
	}
	e.drainSeconds.WithLabelValues(name)
	kept, _ := e.topics.LoadOrStore(name, t)
	return kept.(*topic)
}

// gauges is what a look at the consumers tells.
type gauges struct {
	workers, pendingBytes                                    *prometheus.Desc
	partitions, pausedPartitions, running, pending, held     *prometheus.Desc
	watermarkLag, commitLag, oldestPending, mapFill, careful *prometheus.Desc
}

func newGauges(group string) *gauges {
	desc := func(name, help string, by ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, by, prometheus.Labels{"group": group})
	}
	return &gauges{
		workers:          desc("retriable_workers", "Handlers that may run at once."),
		pendingBytes:     desc("retriable_pending_bytes", "Memory of what is pending and held."),
		partitions:       desc("retriable_partitions", "Partitions assigned to this process.", "topic"),
		pausedPartitions: desc("retriable_paused_partitions", "Of these, those that are not fetched.", "topic"),
		careful:          desc("retriable_careful_partitions", "Of these, those that run one record at a time, for one may have ended the process.", "topic"),
		running:          desc("retriable_running", "Records whose handler runs.", "topic"),
		pending:          desc("retriable_pending", "Records read, not resolved and not held; those that run are among them.", "topic"),
		held:             desc("retriable_held", "Records that wait in memory until they are due.", "topic"),
		watermarkLag:     desc("retriable_watermark_lag", "Offsets from the watermarks to the logs' ends.", "topic"),
		commitLag:        desc("retriable_commit_lag", "Offsets from what is committed to the logs' ends.", "topic"),
		oldestPending:    desc("retriable_oldest_pending_seconds", "For how long the oldest record at a watermark has been pending, by why it is.", "topic", "reason"),
		mapFill:          desc("retriable_map_fill_ratio", "Share used of what a commit's metadata can hold, of the fullest partition.", "topic"),
	}
}

func (g *gauges) all() []*prometheus.Desc {
	return []*prometheus.Desc{
		g.workers, g.pendingBytes, g.partitions, g.pausedPartitions, g.careful, g.running, g.pending, g.held, g.watermarkLag, g.commitLag, g.oldestPending, g.mapFill,
	}
}
