package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
)

// scenario is a topic and those who consume it.
type scenario struct {
	name        string
	about       string
	data        data
	job         job.Job
	contestants []entry
	rounds      int // the most; 0: as many as asked for
	micro       bool
}

// entry is a contestant in a scenario. What is zero is the scenario's.
type entry struct {
	name    string
	as      string // what the results call it; its name if empty
	records int64
	rounds  int
	job     func(*job.Job)
}

func (e entry) called() string {
	if e.as != "" {
		return e.as
	}
	return e.name
}

// data is what is produced once.
type data struct {
	topic      string // scenarios that name the same share it
	partitions int32
	records    int64
	size       int // of a value, in bytes
	keys       func(records int64) func(i int64) int64
	waiting    int64 // the first so many of them, over all partitions, have the key "stuck"
	dueIn      bool  // values are times within a minute, and the records are due then; each round gets new ones
}

const manyKeys = 12_000

// uniform goes through the keys in turn, scattered.
func uniform(int64) func(int64) int64 {
	return func(i int64) int64 { return i * 7919 % manyKeys }
}

// zipf draws keys with probabilities like 1, 1/2, 1/3 and so on.
func zipf(int64) func(int64) int64 {
	sums := make([]float64, manyKeys)
	total := 0.0
	for i := range sums {
		total += 1 / float64(i+1)
		sums[i] = total
	}
	draw := rand.New(rand.NewPCG(1, 2))
	return func(int64) int64 { return int64(sort.SearchFloat64s(sums, draw.Float64()*total)) }
}

// hot gives every second record the same key.
func hot(int64) func(int64) int64 {
	return func(i int64) int64 {
		if i%2 == 0 {
			return 0
		}
		return i * 7919 % manyKeys
	}
}

// longest is how many records the most frequent key has.
func (d data) longest() int64 {
	of := d.keys(d.records)
	counts := make([]int64, manyKeys)
	for i := range d.records {
		counts[of(i)]++
	}
	return slices.Max(counts)
}

var main100 = data{topic: "main", partitions: 12, records: 2_000_000, size: 100, keys: uniform}

func (d data) with(topic string, change func(*data)) data {
	d.topic = topic
	change(&d)
	return d
}

// scenarios in the order in which they run.
func scenarios() []scenario {
	three := []entry{{name: "serial"}, {name: "unordered"}, {name: "bypartition"}, {name: "bykey"}}
	less := func(n int64) func(*data) { return func(d *data) { d.records = n } }
	all := []scenario{
		{
			name: "noop", about: "A handler that does nothing", data: main100, job: job.Job{Workers: 16},
			contestants: append(slices.Clone(three),
				entry{name: "unordered-recycle"}, entry{name: "bypartition-recycle"}, entry{name: "bykey-recycle"}, entry{name: "serial-6m"}),
		},
		{
			name: "peers", about: "A handler that does nothing, with everybody", data: main100, job: job.Job{Workers: 16}, rounds: 3,
			contestants: append(slices.Clone(three),
				entry{name: "partition"},
				entry{name: "pool"},
				entry{name: "barrier"},
				entry{name: "kafka-go"},
				entry{name: "watermill", records: 1_000_000},
				entry{name: "parallel-consumer", as: "parallel-consumer-unordered", job: ordering("UNORDERED"), records: 300_000},
				entry{name: "parallel-consumer", as: "parallel-consumer-key", job: ordering("KEY"), records: 200_000},
				entry{name: "python", records: 5_000},
			),
		},
		{
			name: "sleep100", about: "A handler that sleeps for 5 ms, 100 at once", data: main100.with("sleep100", less(60_000)), rounds: 3,
			job: job.Job{Workers: 100, SleepMS: 5},
			contestants: []entry{
				{name: "pool"},
				{name: "barrier"},
				{name: "unordered"},
				{name: "bykey"},
				{name: "watermill", records: 10_000},
				{name: "parallel-consumer", as: "parallel-consumer-unordered", job: ordering("UNORDERED")},
				{name: "parallel-consumer", as: "parallel-consumer-key", job: ordering("KEY")},
				{name: "python", records: 10_000},
			},
		},
		{
			name: "sleep1000", about: "A handler that sleeps for 5 ms, 1,000 at once", data: main100.with("sleep1000", less(600_000)), rounds: 3,
			job: job.Job{Workers: 1000, SleepMS: 5},
			contestants: []entry{
				{name: "pool"},
				{name: "barrier"},
				{name: "unordered"},
				{name: "bykey"},
				{name: "parallel-consumer", as: "parallel-consumer-unordered", job: ordering("UNORDERED"), records: 200_000},
				{name: "parallel-consumer", as: "parallel-consumer-key", job: ordering("KEY"), records: 200_000},
			},
		},
		{
			name: "zipf", about: "A handler that sleeps for 5 ms, 100 at once, keys by Zipf's law (1.0)", rounds: 3,
			data: main100.with("zipf", func(d *data) { d.records, d.keys = 8_000, zipf }),
			job:  job.Job{Workers: 100, SleepMS: 5},
			contestants: []entry{
				{name: "bykey"}, {name: "parallel-consumer", as: "parallel-consumer-key", job: ordering("KEY")},
			},
		},
		{
			name: "hotkey", about: "Every second record has the same key; a handler that does nothing",
			data: main100.with("hotkey", func(d *data) { d.records, d.keys = 1_000_000, hot }), job: job.Job{Workers: 16},
			contestants: slices.Clone(three), rounds: 5,
		},
		{
			name: "retry", about: "Every record fails once and goes through the retry topic, backoff 0", rounds: 5,
			data: main100.with("retry", less(500_000)), job: job.Job{Workers: 16, FailOnce: true},
			contestants: append(slices.Clone(three), entry{name: "unordered-recycle"}),
		},
		{
			// A topic of their own: the Python client would go on to fail what comes after its part.
			name: "retry-peers", about: "The same with 5,000 records, for those who are slow", rounds: 3,
			data: main100.with("retry-peers", less(5_000)), job: job.Job{Workers: 16, FailOnce: true},
			contestants: []entry{
				{name: "unordered"},
				{name: "parallel-consumer", as: "parallel-consumer-unordered", job: ordering("UNORDERED")},
				{name: "python"},
			},
		},
		{
			name: "poison", about: "One record of a hundred can never be handled and goes to the dead-letter topic", rounds: 5,
			data: main100.with("million", less(1_000_000)), job: job.Job{Workers: 16, Poison: 100}, contestants: slices.Clone(three),
		},
		{
			name: "stuck", about: "The handler of one record does not return until all others are handled", rounds: 9,
			data: main100.with("stuck", func(d *data) { d.waiting = 1 }), job: job.Job{Workers: 16, Waiting: 1},
			contestants: []entry{
				{name: "unordered", as: "unordered-free", job: unstuck},
				{name: "unordered", job: stuck},
				{name: "bykey", as: "bykey-free", job: unstuck},
				{name: "bykey", job: stuck},
			},
		},
		{
			name: "partitions100", about: "100 partitions; a handler that does nothing", rounds: 5,
			data: main100.with("partitions100", func(d *data) { d.partitions, d.records = 100, 1_000_000 }), job: job.Job{Workers: 16},
			contestants: slices.Clone(three),
		},
		{
			name: "size1k", about: "Records of 1 KB; a handler that does nothing", rounds: 5,
			data: main100.with("size1k", func(d *data) { d.size, d.records = 1000, 500_000 }), job: job.Job{Workers: 16}, contestants: slices.Clone(three),
		},
		{
			name: "size100k", about: "Records of 100 KB; a handler that does nothing", rounds: 5,
			data: main100.with("size100k", func(d *data) { d.size, d.records = 100_000, 5_000 }), job: job.Job{Workers: 16}, contestants: slices.Clone(three),
		},
		{
			name: "memory", about: "A million records pending: what each takes beside kgo's own", rounds: 1,
			data: main100.with("memory", func(d *data) { d.partitions, d.records, d.waiting = 100, 1_000_000, 1_000_000 }),
			job:  job.Job{Workers: 16, Waiting: 1_000_000, Stuck: stuckKey},
			contestants: []entry{
				{name: "hoard"}, {name: "pending-unordered", as: "unordered"}, {name: "pending-bykey", as: "bykey"},
			},
		},
	}
	for _, p := range []int32{1, 10, 100, 1000} {
		all = append(all, scenario{
			name: fmt.Sprintf("cost-partitions-%d", p), about: fmt.Sprintf("Cost of a record at %d partitions", p), rounds: 3,
			data: main100.with(fmt.Sprintf("partitions-%d", p), func(d *data) { d.partitions, d.records = p, 1_000_000 }), job: job.Job{Workers: 16},
			contestants: slices.Clone(three),
		})
	}
	for _, n := range []int64{100, 10_000, 100_000, 1_000_000} {
		all = append(all, scenario{
			name: fmt.Sprintf("cost-pending-%d", n), about: fmt.Sprintf("Cost of a record at %d pending", n), rounds: 3,
			data:        main100.with(fmt.Sprintf("pending-%d", n), func(d *data) { d.partitions, d.records, d.waiting = 100, 1_000_000+n, n }),
			job:         job.Job{Workers: 128, Waiting: n, Stuck: stuckKey},
			contestants: []entry{{name: "pending-bykey", as: "bykey"}},
		})
	}
	for _, n := range []int64{10_000, 100_000} {
		all = append(all, scenario{
			name: fmt.Sprintf("held%d", n), about: fmt.Sprintf("%d records due over a minute: how late their attempts are", n), rounds: 1,
			data: data{topic: fmt.Sprintf("held%d", n), partitions: 12, records: n, keys: uniform, dueIn: true}, job: job.Job{Workers: 16},
			contestants: []entry{{name: "held", as: "bykey"}},
		})
	}
	return append(all,
		scenario{
			name: "takeover", about: "A second member joins under a steady load, then the first leaves", rounds: 3,
			data: data{topic: "takeover", partitions: 12}, job: job.Job{Workers: 16},
			contestants: []entry{{name: "takeover", as: "bykey"}, {name: "takeover-kgo", as: "serial"}},
		},
		scenario{name: "commit", about: "What a commit computes, at windows of 10,000 and 1,000,000 offsets", micro: true},
	)
}

const stuckKey = "stuck"

func stuck(j *job.Job)   { j.Stuck = stuckKey }
func unstuck(j *job.Job) { j.Stuck = "nobody"; j.Waiting = 0 }

// ordering is parallel-consumer's.
func ordering(o string) func(*job.Job) { return func(j *job.Job) { j.Contestant = o } }
