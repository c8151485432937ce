package soak

import (
	"fmt"
	"slices"
	"time"
)

// Bounds are what a run must keep. A zero one is not asked for.
type Bounds struct {
	RSS            int64         // at any moment
	Growth         int64         // of the memory, per hour
	Late50, Late99 time.Duration // in half of the samples
}

// slack is what counts of goroutines and files may differ by chance: kgo opens and closes connections.
const slack = 8

// Judge says what is wrong with a run: a bound that was exceeded, or something that grows. The first quarter, in which caches and pools fill, does
// not count for what grows.
func Judge(samples []Sample, b Bounds) (wrong []string) {
	if len(samples) < 8 {
		return []string{fmt.Sprintf("%d samples tell nothing: it takes 8", len(samples))}
	}
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for _, s := range samples {
		if b.RSS > 0 && s.RSS > b.RSS {
			bad("after %v the process had %d MiB of memory; %d are allowed", s.At, s.RSS>>20, b.RSS>>20)
			break
		}
	}
	n := len(samples)
	early, late := samples[n/4:n/2], samples[n*3/4:]
	change := func(of func(Sample) int64) int64 { return median(late, of) - median(early, of) }
	// From the middle of the one to the middle of the other is half the run.
	took := samples[n-1].At - samples[0].At
	if grown := change(func(s Sample) int64 { return s.RSS }); b.Growth > 0 {
		if allowed := max(int64(float64(b.Growth)*took.Hours()/2), 8<<20); grown > allowed {
			bad("the memory grew by %d MiB in half of %v; %d are allowed", grown>>20, took, allowed>>20)
		}
	}
	if grown := change(func(s Sample) int64 { return s.Goroutines }); grown > slack {
		bad("there are %d goroutines more than at the beginning", grown)
	}
	if grown := change(func(s Sample) int64 { return s.Files }); grown > slack {
		bad("there are %d open files more than at the beginning", grown)
	}
	if l := micros(median(samples, func(s Sample) int64 { return s.Late50 })); b.Late50 > 0 && l > b.Late50 {
		bad("in the middle attempts are %v late; %v is allowed", l, b.Late50)
	}
	if l := micros(median(samples, func(s Sample) int64 { return s.Late99 })); b.Late99 > 0 && l > b.Late99 {
		bad("one attempt in a hundred is %v late; %v is allowed", l, b.Late99)
	}
	if median(samples, func(s Sample) int64 { return s.Handled }) == 0 {
		bad("nothing was handled")
	}
	return wrong
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

func median(samples []Sample, of func(Sample) int64) int64 {
	ns := make([]int64, len(samples))
	for i, s := range samples {
		ns[i] = of(s)
	}
	slices.Sort(ns)
	return ns[len(ns)/2]
}
