package kfake_test

import (
	"context"
	"encoding/binary"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// brake halts a member just before it sends a request of one kind: nothing it has written after reaches anybody until it goes on.
type brake struct {
	b      *bed
	key    kmsg.Key
	halts  chan struct{} // closed when it has
	goesOn chan struct{} // closed by the story
	once   sync.Once
}

func newBrake(b *bed, key kmsg.Key) *brake {
	return &brake{b: b, key: key, halts: make(chan struct{}), goesOn: make(chan struct{})}
}

func (k *brake) dialer() kgo.Opt {
	return kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
		c, err := k.b.net.DialContext(ctx, network, host)
		return &brakeConn{c, k}, err
	})
}

type brakeConn struct {
	net.Conn
	k *brake
}

func (c *brakeConn) Write(p []byte) (int, error) {
	if len(p) >= 6 && kmsg.Key(binary.BigEndian.Uint16(p[4:])) == c.k.key {
		c.k.once.Do(func() { close(c.k.halts) })
	}
	select {
	case <-c.k.halts:
		<-c.k.goesOn
	default:
	}
	return c.Conn.Write(p)
}

// countOut has the group go on without a member.
func (b *bed) countOut(group string, c *running, serverSide bool) {
	b.Helper()
	member, _ := c.Client().GroupMetadata()
	if serverSide {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.MemberEpoch = group, member, -1
		if _, err := req.RequestWith(b.Context(), b.cl); err != nil {
			b.Fatal(err)
		}
		return
	}
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = group
	leaving := kmsg.NewLeaveGroupRequestMember()
	leaving.MemberID = member
	req.Members = append(req.Members, leaving)
	if _, err := req.RequestWith(b.Context(), b.cl); err != nil {
		b.Fatal(err)
	}
}

// A member is halted between its assignment and the answer that would confirm it, and counted out. When it goes on it is told its commits all the same,
// while another handles what lies above them. It starts nothing of it, and then is a member like any other.
func TestAMemberThatIsCountedOutBeforeItBeginsStartsNothing(t *testing.T) { // I5
	for _, p := range protocols {
		for _, s := range []struct {
			name string
			opt  retriable.Option
			key  kmsg.Key // before which it is halted
			held time.Duration
		}{
			{"before it asks", retriable.MaxCrashes(3), kmsg.OffsetFetch, 50 * time.Millisecond},
			{"before it asks, and with no takeover to note", retriable.MaxCrashes(0), kmsg.OffsetFetch, 50 * time.Millisecond},
			{"before it commits", retriable.MaxCrashes(0), kmsg.OffsetCommit, 50 * time.Millisecond},
			{"for longer than the commit's time", retriable.MaxCrashes(0), kmsg.OffsetCommit, 6 * time.Second},
		} {
			t.Run(p.name+"/"+s.name, func(t *testing.T) {
				bubble(t, "orders:2", func(b *bed) {
					var d diary
					b.produce("orders", 0, seq(20)...)
					b.produce("orders", 1, "a", "b", "c")
					b.commitAs("g", "orders", 0, 5, "")
					b.commitAs("g", "orders", 1, 1, "")
					k := newBrake(b, s.key)
					topic := func(name string) retriable.Option {
						return retriable.Topic("orders", d.handler(name, done), retriable.NoDeadLetters())
					}
					quiet := append([]kgo.Opt{k.dialer(), kgo.HeartbeatInterval(20 * time.Second), kgo.SessionTimeout(time.Minute)}, p.opts...)
					first := b.launch("g", retriable.Kafka(quiet...), s.opt, retriable.CommitInterval(time.Hour), topic("first"))
					defer first.end()
					<-k.halts
					b.countOut("g", first, p.name == "KIP-848")
					second := b.start("g", retriable.Kafka(p.opts...), s.opt, retriable.CommitInterval(time.Hour), topic("second"))
					defer second.end()
					time.Sleep(s.held)
					d.once(b.T, 17)
					wantEqual(b.T, "committed when the first goes on", b.committed("g", "orders", 0), 5)

					close(k.goesOn)
					time.Sleep(2 * time.Minute)
					d.once(b.T, 17)
					// A heartbeat may tell it too, in time.
					if n := strings.Count(b.log.String(), "counted out"); n != 1 && (p.name == "eager" || p.name == "cooperative" && s.held < 500*time.Millisecond) {
						t.Errorf("the log tells %d times that a member was counted out", n)
					}
					b.produce("orders", 0, "later")
					b.produce("orders", 1, "later too")
					time.Sleep(10 * time.Second)
					d.once(b.T, 19)
					for _, c := range []*running{first, second} {
						wantEqual(b.T, "partitions of each", len(c.Stats().Partitions), 1)
						if err := c.Health(b.Context()); err != nil {
							t.Errorf("Health: %v", err)
						}
					}
					first.clean()
					second.clean()
					wantEqual(b.T, "committed", b.committed("g", "orders", 0), 21)
					wantEqual(b.T, "committed", b.committed("g", "orders", 1), 4)
				})
			})
		}
	}
}

// A rebalance comes in the middle of a takeover, while the commit that confirms it is not answered: what is still the member's is taken up again.
func TestARebalanceInTheMiddleOfATakeoverLeavesNoPartitionUnread(t *testing.T) { // I1
	eachProtocol(t, "orders:4", func(b *bed, kafka retriable.Option) {
		var d diary
		topic := func(name string) retriable.Option {
			return retriable.Topic("orders", d.handler(name, done), retriable.NoDeadLetters())
		}
		b.flood("orders", 4, 20)
		b.silence("", 4*time.Second)
		first := b.launch("g", kafka, topic("first"))
		defer first.end()
		time.Sleep(100 * time.Millisecond) // no heartbeat is on its way yet, whose answer would come after that of the commit
		first.Client().ForceRebalance()
		second := b.launch("g", kafka, topic("second"))
		defer second.end()
		time.Sleep(30 * time.Second)
		d.once(b.T, 20)
		for _, c := range []*running{first, second} {
			wantEqual(b.T, "partitions of each", len(c.Stats().Partitions), 2)
			if err := c.Health(b.Context()); err != nil {
				b.Errorf("Health: %v", err)
			}
		}
		first.clean()
		second.clean()
		for p := range int32(4) {
			wantEqual(b.T, "committed", b.committed("g", "orders", p), 5)
		}
	})
}
