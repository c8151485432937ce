package main

import (
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

// meter measures one contestant: from the first records it sees to the last it has handled.
type meter struct {
	started, began, ended time.Time
	cpu0, cpu1            float64
	mem0, mem1            runtime.MemStats
	n                     int64
}

func newMeter() *meter {
	m := &meter{}
	debug.FreeOSMemory()
	runtime.ReadMemStats(&m.mem0)
	m.cpu0, m.started = cpuSeconds(), time.Now()
	return m
}

func (m *meter) begin() {
	if m.began.IsZero() {
		m.began = time.Now()
	}
}

func (m *meter) end(n int64) {
	m.ended, m.n = time.Now(), n
	m.cpu1 = cpuSeconds()
	runtime.ReadMemStats(&m.mem1)
}

// figures is what a contestant reports.
type figures struct {
	Records       int64   `json:"records"`
	RecordsPerSec float64 `json:"records_per_second"`
	CPUPerMillion float64 `json:"cpu_seconds_per_million"`
	AllocsPerRec  float64 `json:"allocations_per_record"`
	BytesPerRec   float64 `json:"bytes_per_record"`
	PeakRSS       float64 `json:"peak_rss_mib"`
	Join          float64 `json:"join_seconds"`
}

func (m *meter) figures() figures {
	n := float64(m.n)
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return figures{
		Records:       m.n,
		RecordsPerSec: n / m.ended.Sub(m.began).Seconds(),
		CPUPerMillion: (m.cpu1 - m.cpu0) / n * 1e6,
		AllocsPerRec:  float64(m.mem1.Mallocs-m.mem0.Mallocs) / n,
		BytesPerRec:   float64(m.mem1.TotalAlloc-m.mem0.TotalAlloc) / n,
		PeakRSS:       float64(ru.Maxrss) / 1024,
		Join:          m.began.Sub(m.started).Seconds(),
	}
}

func cpuSeconds() float64 {
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return float64(ru.Utime.Sec+ru.Stime.Sec) + float64(ru.Utime.Usec+ru.Stime.Usec)/1e6
}
