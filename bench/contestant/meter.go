package main

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
)

// meter measures this process, from the client's making to the end of the last handler.
type meter struct {
	started    time.Time
	cpu        float64
	mem        runtime.MemStats
	begun      atomic.Bool
	first      sync.Once
	began      time.Time
	ended      time.Time
	slept      atomic.Int64 // nanoseconds, of all handlers
	end        sync.Once
	endCPU     float64
	endMem     runtime.MemStats
	endRecords int64
	extra      map[string]float64
}

func newMeter() *meter {
	m := &meter{extra: map[string]float64{}}
	debug.FreeOSMemory()
	runtime.ReadMemStats(&m.mem)
	m.cpu, m.started = cpuSeconds(), time.Now()
	return m
}

// begin is called with records in hand, as often as one likes, by those who do not set the clock.
func (m *meter) begin() {
	if !m.begun.Load() {
		m.first.Do(func() {
			m.began = time.Now()
			m.begun.Store(true)
		})
	}
}

// clock is for clients of kgo's: it begins when the first fetch that has records is read, and has yet to be unpacked. One whose fetches are larger
// has no more done by then than another.
func (m *meter) clock() kgo.Opt { return kgo.WithHooks(m) }

// full is more than a fetch without records has.
const full = 64 << 10

// OnBrokerRead implements kgo.HookBrokerRead.
func (m *meter) OnBrokerRead(_ kgo.BrokerMetadata, key int16, size int, _, _ time.Duration, err error) {
	if kmsg.Key(key) == kmsg.Fetch && size >= full && err == nil {
		m.begin()
	}
}

// stop is called once the last of n records is handled.
func (m *meter) stop(n int64) {
	m.end.Do(func() {
		m.ended = time.Now()
		m.endCPU = cpuSeconds()
		runtime.ReadMemStats(&m.endMem)
		m.endRecords = n
	})
}

// sleep is a handler that takes its time.
func (m *meter) sleep(d time.Duration) {
	begin := time.Now()
	time.Sleep(d)
	m.slept.Add(int64(time.Since(begin)))
}

func (m *meter) figures() *job.Figures {
	n := float64(m.endRecords)
	return &job.Figures{
		Records:     m.endRecords,
		Seconds:     m.ended.Sub(m.began).Seconds(),
		Join:        m.began.Sub(m.started).Seconds(),
		CPU:         m.endCPU - m.cpu,
		RSS:         peakRSS(),
		Handler:     time.Duration(m.slept.Load()).Seconds() / n,
		Allocations: float64(m.endMem.Mallocs-m.mem.Mallocs) / n,
		Bytes:       float64(m.endMem.TotalAlloc-m.mem.TotalAlloc) / n,
		Extra:       m.extra,
	}
}

func cpuSeconds() float64 {
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return float64(ru.Utime.Sec+ru.Stime.Sec) + float64(ru.Utime.Usec+ru.Stime.Usec)/1e6
}

// peakRSS is in MiB. Where there is a /proc it is asked, for the maximum that getrusage tells is never less than the parent's size when it
// started this process.
func peakRSS() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		var ru syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
		return float64(ru.Maxrss) / 1024
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kib, _ := strconv.ParseFloat(string(bytes.Fields(rest)[0]), 64)
			return kib / 1024
		}
	}
	return 0
}
