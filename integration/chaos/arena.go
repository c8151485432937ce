package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/integration/broker"
)

// Setup says what an arena is like.
type Setup struct {
	Name     string // no other arena of the cluster has it
	Protocol string
	Members  int
	Rate     int // records a second
	Dir      string
	SASL     *broker.SASL // of the members; this process goes in by the plain listener
	Session  time.Duration
	Limit    time.Duration // for healing, at the end
	Logf     func(format string, args ...any)
}

// Arena is a group under faults: its topics, its members, and a producer.
type Arena struct {
	Setup
	cluster           *broker.Cluster
	cl                *kgo.Client
	adm               *kadm.Client
	base, retry, dead string
	slots             []*slot
	nodes             []int32 // the brokers' ids
	denying           sync.Mutex
	barred            atomic.Int64 // until when no member could start, in ns; in the far future while none can

	mu      sync.Mutex
	all     []*process
	applied map[FaultKind]int
	faults  []string
	gone    []Gone
	failed  []error
	wg      sync.WaitGroup

	produced atomic.Int64
	refused  atomic.Pointer[error]
}

// slot is the place of a member, which a new process takes when the one before it has died.
type slot struct {
	n      int
	busy   sync.Mutex // held while a fault is at work on it
	count  int
	member *process
}

const (
	partitions = 6
	keys       = 60
)

// NewArena makes the topics and starts the members. The caller closes it.
func NewArena(ctx context.Context, cluster *broker.Cluster, s Setup) (_ *Arena, err error) {
	a := &Arena{Setup: s, cluster: cluster, applied: map[FaultKind]int{}, base: s.Name + ".orders", retry: s.Name + ".retry", dead: s.Name + ".dead"}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	a.cl, err = kgo.NewClient(kgo.SeedBrokers(cluster.Addrs()...), kgo.DisableClientMetrics(), kgo.MetadataMinAge(200*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.AlwaysRetryEOF()) // a broker that ends may hang up on a new connection
	if err != nil {
		return nil, err
	}
	a.adm = kadm.NewClient(a.cl)
	for topic, n := range map[string]int32{a.base: partitions, a.retry: partitions / 2, a.dead: partitions} {
		if _, err := a.adm.CreateTopic(ctx, n, -1, nil, topic); err != nil {
			a.cl.Close()
			return nil, fmt.Errorf("making topic %s: %w", topic, err)
		}
	}
	nodes, err := a.adm.ListBrokers(ctx)
	a.nodes = nodes.NodeIDs()
	if err := errors.Join(err, a.sessions(ctx), a.allow(ctx)); err != nil {
		a.cl.Close()
		return nil, err
	}
	for i := range s.Members {
		a.slots = append(a.slots, &slot{n: i})
	}
	for _, s := range a.slots {
		a.fill(s)
	}
	return a, a.err()
}

// sessions has the members of a KIP-848 group counted out after the session; in the others they say so themselves.
func (a *Arena) sessions(ctx context.Context) error {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeGroupConfig, a.Name
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Value = "consumer.session.timeout.ms", kmsg.StringPtr(fmt.Sprint(a.Session.Milliseconds()))
	r.Configs = append(r.Configs, c)
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(ctx, a.cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.Resources[0].ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("setting the session timeout of group %s: %w", a.Name, err)
	}
	return nil
}

// allow gives the members the rights on the retry topic that everybody has where there is no rule: with the first rule they would lose them.
func (a *Arena) allow(ctx context.Context) error {
	if a.SASL == nil {
		return nil
	}
	made, err := a.adm.CreateACLs(ctx, kadm.NewACLs().Topics(a.retry).ResourcePatternType(kadm.ACLPatternLiteral).
		Allow("User:"+a.SASL.User).AllowHosts("*").Operations(kadm.OpAll))
	for _, r := range made {
		err = errors.Join(err, r.Err)
	}
	return err
}

// config is what a member is told.
func (a *Arena) config(name string) Config {
	c := Config{
		Name: name, Brokers: a.cluster.Addrs(), Group: a.Name, Base: a.base, Retry: a.retry, Dead: a.dead,
		Protocol: a.Protocol, Session: a.Session, Drain: time.Second,
	}
	if a.SASL != nil {
		c.Brokers, c.User, c.Password = a.cluster.SASLAddrs(), a.SASL.User, a.SASL.Password
	}
	return c
}

// fill puts a new process into a slot.
func (a *Arena) fill(s *slot) {
	s.member = a.join(fmt.Sprintf("m%d.%d", s.n, s.count))
	s.count++
}

// join starts one more member.
func (a *Arena) join(name string) *process {
	p, err := launch(a.config(name), a.Dir)
	if err != nil {
		a.fail(fmt.Errorf("starting %s: %w", name, err))
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, p)
	return p
}

func (a *Arena) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = append(a.failed, err)
}

func (a *Arena) err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return errors.Join(a.failed...)
}

// note keeps that a fault began or ended, for the timeline.
func (a *Arena) note(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = append(a.faults, fmt.Sprintf("%d %s", time.Now().UnixNano(), fmt.Sprintf(format, args...)))
}

func (a *Arena) count(k FaultKind) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.applied[k]++
}

// Applied returns how many faults of each kind there were.
func (a *Arena) Applied() map[FaultKind]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := map[FaultKind]int{}
	for k, n := range a.applied {
		m[k] = n
	}
	return m
}

// Produce writes records at the arena's rate until the context ends, and waits until all are acked.
func (a *Arena) Produce(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	began, id := time.Now(), int64(0)
	for ctx.Err() == nil {
		for due := int64(time.Since(began).Seconds() * float64(a.Rate)); id < due; id++ {
			a.cl.Produce(context.WithoutCancel(ctx), newRecord(a.base, id, keys), func(_ *kgo.Record, err error) {
				if err != nil {
					a.refused.Store(&err)
					return
				}
				a.produced.Add(1)
			})
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.Limit)
	defer cancel()
	if err := a.cl.Flush(flush); err != nil {
		return err
	}
	if err := a.refused.Load(); err != nil {
		return fmt.Errorf("producing: %w", *err)
	}
	return nil
}

// Settle waits until the group has committed all there is, and then stops the members, who must do so cleanly.
func (a *Arena) Settle(ctx context.Context) error {
	a.wg.Wait() // for what faults are still at work
	ctx, cancel := context.WithTimeout(ctx, a.Limit)
	defer cancel()
	for _, s := range a.slots {
		a.revive(s)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		behind, err := a.behind(ctx)
		if err == nil && behind == "" {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not all is committed %v after the last fault: %s (%w)", a.Limit, behind, errors.Join(err, a.err()))
		}
	}
	for _, s := range a.slots {
		s.member.terminate()
	}
	for _, s := range a.slots {
		if !s.member.endsWithin(30 * time.Second) {
			a.fail(fmt.Errorf("%s does not stop:\n%s", s.member.Name, a.LogOf(s.member.Name)))
		} else if s.member.err != nil {
			a.fail(fmt.Errorf("%s, with nothing left to do, did not stop cleanly: %w: %s", s.member.Name, s.member.err, s.member.stderr.String()))
		}
	}
	return a.err()
}

// behind says which partition is not committed to its end, "" if all are.
func (a *Arena) behind(ctx context.Context) (string, error) {
	commits, ends, err := a.offsets(ctx)
	if err != nil {
		return "", err
	}
	var b []string
	for p, end := range ends {
		if end > 0 && commits[p] != end {
			b = append(b, fmt.Sprintf("%s/%d at %d of %d", p.Topic, p.Partition, commits[p], end))
		}
	}
	return strings.Join(b, ", "), nil
}

// Close ends what is left of the members.
func (a *Arena) Close() {
	a.end()
	a.cl.Close()
}

func (a *Arena) end() {
	a.mu.Lock()
	all := a.all
	a.mu.Unlock()
	for _, p := range all {
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// Judge collects what the run left behind and checks it. It ends what is left of the members.
func (a *Arena) Judge(ctx context.Context) (*Report, error) {
	a.end()
	h, err := a.collect(ctx)
	if err != nil {
		return nil, err
	}
	return Check(h), nil
}

// LogOf returns the end of a member's log.
func (a *Arena) LogOf(name string) string {
	b, err := os.ReadFile(filepath.Join(a.Dir, name+".log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}
