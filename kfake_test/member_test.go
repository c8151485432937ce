package kfake_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// accepted notes the commits that were accepted, of all members together.
type accepted struct {
	mu  sync.Mutex
	all []string
	at  map[string]int64
	bad []string
}

// by is one member's hook.
type acceptedBy struct {
	a    *accepted
	name string
}

// OnCommitted implements retriable.HookCommitted.
func (h acceptedBy) OnCommitted(c retriable.Committed) {
	h.a.mu.Lock()
	defer h.a.mu.Unlock()
	p := fmt.Sprintf("%s/%d", c.Topic, c.Partition)
	h.a.all = append(h.a.all, fmt.Sprintf("%s %s at %d: %v", h.name, p, c.Offset, c.Err))
	if c.Err != nil {
		return
	}
	if h.a.at == nil {
		h.a.at = map[string]int64{}
	}
	if c.Offset < h.a.at[p] {
		h.a.bad = append(h.a.bad, h.a.all[len(h.a.all)-1])
	}
	h.a.at[p] = max(h.a.at[p], c.Offset)
}

// A member is counted out of its group while it handles a record, and learns of it by its next commit. Another member has gone on meanwhile:
// the first commits nothing over it (I3), and then is a member like any other.
func TestAMemberThatWasCountedOutCommitsNothingOverItsSuccessor(t *testing.T) { // I2, I3
	for name, opts := range map[string][]kgo.Opt{
		"cooperative": {kgo.Balancers(kgo.CooperativeStickyBalancer())},
		"eager":       {kgo.Balancers(kgo.RangeBalancer())},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders", func(b *bed) {
				var a accepted
				var d diary
				held, longer := make(chan struct{}), make(chan struct{})
				quiet := retriable.Kafka(append(opts, kgo.HeartbeatInterval(20*time.Second), kgo.SessionTimeout(time.Minute))...)
				first := b.start("g", quiet, retriable.Hooks(acceptedBy{&a, "first"}), retriable.Topic("orders", handles(func(m *retriable.Message) error {
					switch string(m.Value) {
					case "5":
						<-held
					case "10":
						<-longer
					}
					return nil
				}), retriable.NoDeadLetters()))
				b.produce("orders", 0, seq(20)...)
				time.Sleep(5 * time.Second)
				wantEqual(t, "committed at first", b.committed("g", "orders", 0), 5)

				// It is counted out, and another takes over.
				member, _ := first.Client().GroupMetadata()
				req := kmsg.NewPtrLeaveGroupRequest()
				req.Group = "g"
				leaving := kmsg.NewLeaveGroupRequestMember()
				leaving.MemberID = member
				req.Members = append(req.Members, leaving)
				if _, err := req.RequestWith(b.Context(), b.cl); err != nil {
					t.Fatal(err)
				}
				second := b.start("g", retriable.Kafka(opts...), retriable.Hooks(acceptedBy{&a, "second"}), retriable.Topic("orders", d.handler("second", done), retriable.NoDeadLetters()))
				time.Sleep(3 * time.Second)
				wantEqual(t, "committed by the successor", b.committed("g", "orders", 0), 20)

				close(held) // the first has something to commit: 10
				time.Sleep(2 * time.Minute)
				close(longer)
				b.produce("orders", 0, seq(5)...)
				time.Sleep(10 * time.Second)
				if err := first.Health(b.Context()); err != nil {
					t.Errorf("Health of the first: %v", err)
				}
				second.clean()
				b.produce("orders", 0, seq(5)...)
				time.Sleep(time.Minute)
				wantEqual(t, "committed by the first, alone again", b.committed("g", "orders", 0), 30)
				first.clean()
				a.mu.Lock()
				defer a.mu.Unlock()
				if len(a.bad) > 0 {
					t.Errorf("commits over others':\n%s\nof\n%s", strings.Join(a.bad, "\n"), strings.Join(a.all, "\n"))
				}
			})
		})
	}
}
