// Package soak runs a consumer on a real Kafka for minutes or hours, without faults, and watches what it takes: memory, goroutines, open
// files, and how late attempts are. A [Sample] is one line of a CSV file, [Judge] says what is wrong with a run, [Plot] draws it.
package soak

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Sample is what a consumer took at one moment, and did since the one before.
type Sample struct {
	At         time.Duration // since the beginning
	RSS        int64         // bytes of memory that the process has
	Heap       int64         // of them in use by Go's heap
	Goroutines int64
	Files      int64 // open
	Handled    int64 // records, since the one before
	Held       int64 // records that wait in memory
	Behind     int64 // records in the log that are not resolved
	// How long attempts waited since they could have started, in microseconds: in the middle, at 99 %, at most.
	Late50, Late99, LateMax int64
}

// columns names a sample's fields, in their order.
var columns = []string{"seconds", "rss", "heap", "goroutines", "files", "handled", "held", "behind", "late50", "late99", "latemax"}

func (s *Sample) fields() []*int64 {
	return []*int64{&s.RSS, &s.Heap, &s.Goroutines, &s.Files, &s.Handled, &s.Held, &s.Behind, &s.Late50, &s.Late99, &s.LateMax}
}

// Header is the first line of a file of samples.
func Header() string { return strings.Join(columns, ",") }

// String is a sample's line, without its end.
func (s Sample) String() string {
	line := strconv.FormatFloat(s.At.Seconds(), 'f', 1, 64)
	for _, f := range s.fields() {
		line += "," + strconv.FormatInt(*f, 10)
	}
	return line
}

// Read reads a file of samples.
func Read(r io.Reader) ([]Sample, error) {
	rows, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 || strings.Join(rows[0], ",") != Header() {
		return nil, fmt.Errorf("soak: the first line is not %q", Header())
	}
	samples := make([]Sample, len(rows)-1)
	for i, row := range rows[1:] {
		s := &samples[i]
		at, err := strconv.ParseFloat(row[0], 64)
		if err != nil {
			return nil, fmt.Errorf("soak: line %d: %w", i+2, err)
		}
		s.At = time.Duration(at * float64(time.Second))
		for j, f := range s.fields() {
			if *f, err = strconv.ParseInt(row[j+1], 10, 64); err != nil {
				return nil, fmt.Errorf("soak: line %d, %s: %w", i+2, columns[j+1], err)
			}
		}
	}
	return samples, nil
}

// measure fills in what this process takes.
func (s *Sample) measure() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.RSS, s.Heap, s.Goroutines = resident(), int64(m.HeapAlloc), int64(runtime.NumGoroutine())
	if s.RSS == 0 {
		s.RSS = int64(m.Sys - m.HeapReleased) // where there is no /proc
	}
	if files, err := os.ReadDir("/dev/fd"); err == nil {
		s.Files = int64(len(files))
	}
}

// resident is the memory that this process has, 0 if the system does not tell it in the way of Linux.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
