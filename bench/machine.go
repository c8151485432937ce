package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/retriable-kafka/retriable-go/bench/internal/result"
	"github.com/retriable-kafka/retriable-go/bench/peers"
	"github.com/retriable-kafka/retriable-go/integration/broker"
)

// ticks of a second in /proc; Linux has no other value for programs.
const ticks = 100

// usage is CPU time in seconds: of the whole machine, of the brokers, of this process.
type usage struct {
	all, brokers, self float64
	known              bool
}

// others is what neither brokers nor this process spent.
func (u usage) others() float64 { return u.all - u.brokers - u.self }

// look reads /proc. Interrupts are left out, for most of them serve the loopback between broker and contestant.
func look(brokers []int) (u usage) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u
	}
	first, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(first)
	if len(fields) < 9 {
		return u
	}
	for _, i := range []int{1, 2, 3, 8} { // user, nice, system, steal
		n, _ := strconv.ParseFloat(fields[i], 64)
		u.all += n / ticks
	}
	for _, pid := range brokers {
		u.brokers += spent(strconv.Itoa(pid))
	}
	u.self = spent("self")
	u.known = true
	return u
}

// spent is a process's CPU time in seconds.
func spent(pid string) float64 {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	user, _ := strconv.ParseFloat(string(fields[11]), 64)
	system, _ := strconv.ParseFloat(string(fields[12]), 64)
	return (user + system) / ticks
}

// findBrokers returns the processes that run Kafka: those below this one, or if there are none all of the machine.
func findBrokers() (pids []int) {
	var others []int
	entries, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, e := range entries {
		line, err := os.ReadFile(e)
		if err != nil || !bytes.Contains(line, []byte("\x00kafka.Kafka\x00")) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(e)))
		if parent(pid) == os.Getpid() {
			pids = append(pids, pid)
		} else {
			others = append(others, pid)
		}
	}
	if len(pids) == 0 {
		return others
	}
	return pids
}

func parent(pid int) int {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	ppid, _ := strconv.Atoi(string(bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])[1]))
	return ppid
}

// machine tells on what and with what is measured.
func machine(ctx context.Context) result.Machine {
	m := result.Machine{Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Versions: map[string]string{
		"Go": strings.TrimPrefix(runtime.Version(), "go"), "Apache Kafka": broker.Version, "parallel-consumer": peers.ParallelConsumer,
		"kafka-clients": peers.KafkaClients, "retriable-kafka-client": peers.PythonClient, "Java": said(ctx, "java", "--version"),
	}}
	m.CPU = field("/proc/cpuinfo", "model name")
	m.Memory = field("/proc/meminfo", "MemTotal")
	if kernel := said(ctx, "uname", "-sr"); kernel != "" {
		m.System += ", " + kernel
	}
	for name, path := range map[string]string{
		"franz-go": "github.com/twmb/franz-go", "kafka-go": "github.com/segmentio/kafka-go", "watermill-kafka": "github.com/ThreeDotsLabs/watermill-kafka/v3",
		"watermill": "github.com/ThreeDotsLabs/watermill", "sarama": "github.com/IBM/sarama",
	} {
		m.Versions[name] = said(ctx, "go", "list", "-m", "-f", "{{.Version}}", path)
	}
	return m
}

// said is the first line of what a program says, or nothing.
func said(ctx context.Context, argv ...string) string {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

func field(file, name string) string {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
