// Package job is what the command and its contestants, which are processes of their own, tell each other: a [Job] as the only argument, and
// [Figures] as the only line of output.
package job

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Job is what a contestant is to do.
type Job struct {
	Contestant string   `json:"contestant"`
	Brokers    []string `json:"brokers"`
	Topic      string   `json:"topic"`
	Retry      string   `json:"retry"` // its retry topic, there and empty
	Dead       string   `json:"dead"`  // its dead-letter topic, there and empty
	Group      string   `json:"group"` // a new one each time
	Records    int64    `json:"records"`
	Workers    int      `json:"workers"` // handlers at once, where that can be said

	SleepMS  int    `json:"sleep_ms"`  // what a handler takes; 0: it does nothing
	FailOnce bool   `json:"fail_once"` // the first attempt at each record fails
	Poison   int64  `json:"poison"`    // records whose offset is divisible by it can never be handled; none if 0
	Stuck    string `json:"stuck"`     // the records with this key wait until all others are handled; none if empty
	Waiting  int64  `json:"waiting"`   // how many have that key
	Profile  string `json:"profile"`   // file for a CPU profile, of Go contestants
}

// Sleep is what a handler takes.
func (j *Job) Sleep() time.Duration { return time.Duration(j.SleepMS) * time.Millisecond }

// Figures is what a contestant measured of itself. Times are in seconds.
type Figures struct {
	Records int64   `json:"records"` // handled with success
	Seconds float64 `json:"seconds"` // from the first fetch it has read, or record it has in hand, to the end of the last handler
	Join    float64 `json:"join"`    // from making the client to that
	CPU     float64 `json:"cpu"`     // of the whole process, from making the client to the end of the last handler
	RSS     float64 `json:"rss_mib"` // the most it had, from its start on
	Handler float64 `json:"handler"` // what a handler took on average; 0 if it was not measured

	Allocations float64            `json:"allocations"` // a record, from making the client on; 0 if not known
	Bytes       float64            `json:"bytes"`       // allocated a record, likewise
	Extra       map[string]float64 `json:"extra,omitempty"`
}

// Rate is records a second.
func (f *Figures) Rate() float64 { return float64(f.Records) / f.Seconds }

// CPUPerMillion is CPU-seconds for a million records.
func (f *Figures) CPUPerMillion() float64 { return f.CPU / float64(f.Records) * 1e6 }

// Print writes the one line.
func (f *Figures) Print(w io.Writer) error { return json.NewEncoder(w).Encode(f) }

// Parse reads a job from the arguments of a process.
func Parse(args []string) (*Job, error) {
	if len(args) != 2 {
		return nil, fmt.Errorf("usage: %s JOB, which is what `go run .` starts", args[0])
	}
	j := &Job{}
	return j, json.Unmarshal([]byte(args[1]), j)
}

// LatenessBuckets are the upper ends, in milliseconds, of what Extra["late_below_NN"] counts.
var LatenessBuckets = []float64{0.5, 1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 50, 100, 1000}
