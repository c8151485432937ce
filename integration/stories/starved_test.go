package stories_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// What the member that has one processor and little memory, a process of its own, is told.
const (
	starvedBrokers  = "RETRIABLE_TEST_STARVED_BROKERS"
	starvedGroup    = "RETRIABLE_TEST_STARVED_GROUP"
	starvedTopic    = "RETRIABLE_TEST_STARVED_TOPIC"
	starvedProtocol = "RETRIABLE_TEST_STARVED_PROTOCOL"

	starvedSession = 5 * time.Second
	starvedHandler = 6 * time.Second // longer than the session
	starvedWorkers = 16
)

// garbage is what the starved member's handlers leave behind.
var garbage atomic.Pointer[[]byte]

// spin takes the processor for so long and calls nothing meanwhile that could give it away; every other one makes garbage instead, which nothing but the
// garbage collector's own use of the processor slows.
func spin(offset int64) {
	var over atomic.Bool
	time.AfterFunc(starvedHandler, func() { over.Store(true) })
	for n := 0; !over.Load(); n++ {
		if offset%2 == 1 && n%100_000 == 0 {
			b := make([]byte, 64<<10)
			garbage.Store(&b)
		}
	}
}

// tells is the starved member's hook: it prints what is taken away from it, and measures how far its heartbeats were apart.
type tells struct {
	mu         sync.Mutex
	last       time.Time
	longest    time.Duration
	heartbeats int
}

func (s *tells) OnAssigned(a retriable.Assigned) { fmt.Printf("assigned %d\n", a.Partition) }
func (s *tells) OnDrained(d retriable.Drained) {
	fmt.Printf("drained %d lost=%v\n", d.Partition, d.Lost)
}

func (s *tells) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if k := kmsg.Key(key); k != kmsg.Heartbeat && k != kmsg.ConsumerGroupHeartbeat || e2e.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.heartbeats++; s.heartbeats > 1 {
		s.longest = max(s.longest, now.Sub(s.last))
	}
	s.last = now
}

// starve is the starved member's main.
func starve() {
	var opts []kgo.Opt
	for _, p := range protocols {
		if p.name == os.Getenv(starvedProtocol) {
			opts = p.opts
		}
	}
	s := &tells{}
	opts = append(opts, kgo.SessionTimeout(starvedSession), kgo.HeartbeatInterval(500*time.Millisecond), kgo.WithHooks(s), kgo.DisableClientMetrics())
	c, err := retriable.New(os.Getenv(starvedGroup), retriable.Brokers(strings.Split(os.Getenv(starvedBrokers), ",")...), retriable.Kafka(opts...),
		retriable.Concurrency(starvedWorkers), retriable.Hooks(s),
		retriable.Topic(os.Getenv(starvedTopic), retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
			fmt.Printf("begins %d/%d\n", m.Partition, m.Offset)
			spin(m.Offset)
			fmt.Printf("ends %d/%d\n", m.Partition, m.Offset)
			return nil
		}), retriable.NoDeadLetters()))
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := c.Run(ctx); err != nil {
		log.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("%d heartbeats, at most %v apart\n", s.heartbeats, s.longest.Round(time.Millisecond))
}

// A member on one processor, with less memory than what it reads takes, so that it collects garbage without end, and with sixteen handlers that each take
// the processor for longer than the session: its heartbeats go on, it keeps its partitions, and each record is handled once.
func TestAMemberWithOneProcessorAndLittleMemoryStaysAMember(t *testing.T) { // I5
	cluster := quickGroups(t)
	leavesNothing(t)
	for _, p := range []int{0, 2} { // classic and KIP-848
		p := protocols[p]
		t.Run(p.name, func(t *testing.T) {
			b := newBed(t, cluster, 2*time.Minute)
			topic, group := b.topic("orders", 4), b.name("group")
			b.sessions(group, starvedSession)
			var well tally
			c := b.start(group, retriable.Kafka(p.opts...), retriable.Topic(topic, handles(func(m *retriable.Message) error {
				well.note(m)
				return nil
			}), retriable.NoDeadLetters()))
			owned := func() (ps []int32) {
				for _, p := range c.Stats().Partitions {
					ps = append(ps, p.Partition)
				}
				slices.Sort(ps)
				return ps
			}

			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			out := &lines{}
			cmd := exec.CommandContext(b.limit, self)
			cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOMEMLIMIT=16MiB", starvedBrokers+"="+strings.Join(cluster.Addrs(), ","),
				starvedGroup+"="+group, starvedTopic+"="+topic, starvedProtocol+"="+p.name)
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			exited := false
			defer func() {
				if !exited {
					_ = cmd.Process.Kill()
					_ = cmd.Wait()
				}
				if t.Failed() {
					t.Logf("the member:\n%s", out)
				}
			}()
			b.await("it has two of the partitions", 30*time.Second, func() bool {
				return strings.Count(out.String(), "assigned") == 2 && len(owned()) == 2
			})
			mine := owned()
			const n = 2 * starvedWorkers
			given, sent := map[int32]int{}, 0
			var rs []*kgo.Record
			for i := range 2 * n { // as many for either
				p := int32(i % 4)
				r := &kgo.Record{Topic: topic, Partition: p, Key: fmt.Append(nil, i), Value: fmt.Append(nil, i)}
				if !slices.Contains(mine, p) {
					r.Value = append(make([]byte, 512<<10), r.Value...)
					given[p]++
					sent++
				}
				rs = append(rs, r)
			}
			began := time.Now()
			b.produce(rs...)
			b.await("all is handled and committed", time.Minute, func() bool {
				committed := b.committed(group, topic)
				for p, end := range b.ends(topic) {
					if committed[p] != end {
						return false
					}
				}
				return true
			})
			took := time.Since(began)
			b.wantEqual("the other's partitions", owned(), mine)
			if s := out.String(); strings.Contains(s, "drained") {
				t.Error("it lost a partition")
			}
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			exited = true
			if err := cmd.Wait(); err != nil {
				t.Errorf("it ended with %v", err)
			}
			c.clean()

			s := out.String()
			for p, n := range given {
				for o := range n {
					for _, what := range []string{"begins", "ends"} {
						if k := strings.Count(s, fmt.Sprintf("%s %d/%d\n", what, p, o)); k != 1 {
							t.Errorf("%d/%d %s %d times", p, o, what, k)
						}
					}
				}
			}
			b.wantEqual("handled by the other", well.len(), 2*n-sent)
			if took < 2*starvedHandler {
				t.Errorf("all was handled in %v: the story shows nothing", took)
			}
			cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			t.Logf("%d records in %v, %v of processor time; %s", sent, took.Round(time.Millisecond), cpu.Round(time.Millisecond), s[strings.LastIndex(strings.TrimSpace(s), "\n")+1:])
		})
	}
}
