package stories_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/integration/broker"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// quickGroups is a cluster whose groups may have sessions of a second, in the new protocol too: the shared one, unless that is others'.
func quickGroups(t *testing.T) *broker.Cluster {
	t.Helper()
	c := broker.Shared(t)
	if c.Source() == broker.External {
		c = broker.For(t, broker.Config{Properties: map[string]string{"group.consumer.heartbeat.interval.ms": "200"}})
	}
	return c
}

// sessions has members of a KIP-848 group counted out after d; in the others they say so themselves.
func (b *bed) sessions(group string, d time.Duration) {
	b.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Value = "consumer.session.timeout.ms", kmsg.StringPtr(fmt.Sprint(d.Milliseconds()))
	r.Configs = append(r.Configs, c)
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(b.limit, b.cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.Resources[0].ErrorCode)
	}
	if err != nil {
		b.Fatalf("setting the session timeout of group %s: %v", group, err)
	}
}

// A stop takes four sessions' time, since a handler does, while another member joins. The stopping one stays a member, its last commit is
// accepted, and the other takes over exactly where it ended.
func TestALongDrainIsCommitted(t *testing.T) {
	cluster := quickGroups(t)
	leavesNothing(t)
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			const session, n = time.Second, 40
			b := newBed(t, cluster, 90*time.Second)
			topic, group := b.topic("orders", 4), b.name("group")
			b.sessions(group, session)
			began := make(chan struct{})
			var l tally
			join := func(slow time.Duration) *running {
				var once sync.Once
				return b.launch(group, retriable.Kafka(append(p.opts, kgo.SessionTimeout(session))...), retriable.Topic(topic, handles(func(m *retriable.Message) error {
					l.note(m)
					if string(m.Value) == "slow-0" && slow > 0 {
						once.Do(func() { close(began) })
						b.pass(slow)
					}
					return nil
				}), retriable.NoDeadLetters()))
			}
			a := join(4 * session)
			b.send(topic, numbered("before-", n)...)
			b.send(topic, "slow-0")
			select {
			case <-began:
			case <-b.limit.Done():
				t.Fatal("nothing was delivered")
			}
			b.await("the others are handled", 20*time.Second, func() bool { return a.Stats().Handled == n })

			ended := make(chan error, 1)
			stop := time.Now()
			go func() { ended <- a.end() }()
			b.pass(session / 2)
			other := join(0)
			b.send(topic, numbered("after-", n)...)
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
			t.Logf("the stop took %v", time.Since(stop).Round(time.Millisecond))
			b.await("the other member handles the rest", 30*time.Second, func() bool { return l.len() == 2*n+1 })
			other.clean()
			l.each(b, append(append(numbered("before-", n), numbered("after-", n)...), "slow-0"), 1)
			b.wantAllCommitted(group, topic)
		})
	}
}

// A member with an instance id is stopped and comes back within its session: the other one is not touched.
func TestAStaticMemberComesBackWithoutARebalance(t *testing.T) {
	cluster := quickGroups(t)
	leavesNothing(t)
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			const n = 100
			b := newBed(t, cluster, 90*time.Second)
			topic, group := b.topic("orders", 4), b.name("group")
			b.sessions(group, 10*time.Second)
			d := newDiary()
			var l tally
			join := func(name string) *running {
				r := b.start(group, retriable.Kafka(append(p.opts, kgo.InstanceID(name), kgo.SessionTimeout(10*time.Second))...), retriable.Hooks(d.member(name)),
					retriable.Topic(topic, handles(func(m *retriable.Message) error {
						l.note(m)
						return nil
					}), retriable.NoDeadLetters()))
				return r
			}
			stays := join("b")
			comes := join("a")
			b.await("both have their share", 30*time.Second, func() bool {
				return len(stays.Stats().Partitions) == 2 && len(comes.Stats().Partitions) == 2
			})
			drains := len(d.drainsOf("b"))
			b.send(topic, numbered("before-", n)...)
			b.await("all are handled", 20*time.Second, func() bool { return l.len() == n })

			comes.clean()
			b.send(topic, numbered("away-", n)...)
			b.await("its partitions wait for it", 20*time.Second, func() bool {
				lag := int64(0)
				for _, p := range stays.Stats().Partitions {
					lag += p.End - p.Watermark
				}
				return lag == 0 && l.len() > n
			})
			b.pass(time.Second)
			if l.len() == 2*n {
				t.Error("nothing waits: its partitions were given away")
			}
			back := time.Now()
			comes = join("a")
			b.await("it goes on", 30*time.Second, func() bool { return l.len() == 2*n })
			took := time.Since(back).Round(time.Millisecond)
			t.Logf("back and done after %v", took)
			if took > 4*time.Second {
				t.Errorf("it took the member %v to come back", took)
			}
			b.wantEqual("partitions taken from the other meanwhile", len(d.drainsOf("b")), drains)
			comes.clean()
			stays.clean()
			l.each(b, append(numbered("before-", n), numbered("away-", n)...), 1)
			b.wantAllCommitted(group, topic)
		})
	}
}

// drainsOf returns what was taken from a member.
func (d *diary) drainsOf(member string) (spans []span) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at, s := range d.drains {
		if m, _, _ := strings.Cut(at, "/"); m == member {
			spans = append(spans, s...)
		}
	}
	return spans
}
