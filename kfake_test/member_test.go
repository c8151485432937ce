package kfake_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
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
				b.countOut("g", first, false)
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

// refusal is a hook that notes when a commit was refused first.
type refusal struct {
	mu sync.Mutex
	at time.Time
}

// OnCommitted implements retriable.HookCommitted.
func (r *refusal) OnCommitted(c retriable.Committed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.Err != nil && r.at.IsZero() {
		r.at = time.Now()
	}
}

// A member that was counted out starts nothing more once a commit has told it so, however long it takes to join again: another handles the same.
func TestAMemberThatWasCountedOutStartsNothingOnceACommitHasToldIt(t *testing.T) { // I5
	for _, p := range protocols[:2] { // in a KIP-848 group a heartbeat tells it
		t.Run(p.name, func(t *testing.T) {
			bubble(t, "orders", func(b *bed) {
				var d diary
				var r refusal
				began := time.Now()
				topic := func(name string) retriable.Option {
					return retriable.Topic("orders", d.handler(name, func(context.Context, *retriable.Message) error {
						time.Sleep(100 * time.Millisecond)
						return nil
					}), retriable.NoDeadLetters(), retriable.Ordering(retriable.ByPartition))
				}
				beats := func(every time.Duration) retriable.Option {
					return retriable.Kafka(append([]kgo.Opt{kgo.HeartbeatInterval(every), kgo.SessionTimeout(2 * time.Minute), kgo.RebalanceTimeout(3 * time.Minute)}, p.opts...)...)
				}
				first := b.start("g", beats(40*time.Second), retriable.CommitInterval(30*time.Second), retriable.Hooks(&r), topic("first"))
				defer first.end()
				b.produce("orders", 0, seq(500)...)
				time.Sleep(2 * time.Second)
				b.countOut("g", first, false)
				second := b.start("g", beats(13*time.Second), topic("second")) // so it joins the first's next rebalance 11 s late
				defer second.end()
				time.Sleep(38*time.Second - time.Since(began))
				r.mu.Lock()
				told := r.at
				r.mu.Unlock()
				wantEqual(t, "when the first is told", told.Sub(began).Round(time.Second), "30s")
				if late := d.of(func(v visit) bool { return v.member == "first" && v.began.After(told) }); len(late) > 0 {
					t.Errorf("the first began %d records after it was told, the last of them %v later", len(late), late[len(late)-1].began.Sub(told))
				}
				if len(d.of(func(v visit) bool { return v.member == "first" && told.Sub(v.began) < time.Second })) == 0 {
					t.Error("the first had nothing more to begin: the story shows nothing")
				}
				time.Sleep(2 * time.Minute)
				wantEqual(t, "committed", b.committed("g", "orders", 0), 500)
				for _, c := range []*running{first, second} {
					if err := c.Health(b.Context()); err != nil {
						t.Errorf("Health: %v", err)
					}
				}
				first.clean()
				second.clean()
			})
		})
	}
}

// A commit that is refused as if the member were none, though it is one, stops it for no longer than until it has joined again, or where it does not until
// the next commit is accepted.
func TestARefusalThatIsNotTrueStopsAMemberForAMomentOnly(t *testing.T) { // I1
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			bubble(t, "orders", func(b *bed) {
				var d diary
				began := time.Now()
				c := b.start("g", retriable.Kafka(p.opts...), retriable.Concurrency(1), retriable.CommitInterval(5*time.Second),
					retriable.Topic("orders", d.handler("", func(context.Context, *retriable.Message) error {
						time.Sleep(100 * time.Millisecond)
						return nil
					}), retriable.NoDeadLetters()))
				defer c.end()
				b.produce("orders", 0, seq(100)...)
				refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Topic: "orders", Err: kerr.UnknownMemberID})
				time.Sleep(time.Minute)
				wantEqual(t, "refusals", refused.Hits(), 1)
				wantEqual(t, "committed", b.committed("g", "orders", 0), 100)
				meanwhile := d.of(func(v visit) bool { at := v.began.Sub(began); return at > 6*time.Second && at < 9*time.Second })
				if joins := p.name != "KIP-848"; (len(meanwhile) > 0) != joins {
					t.Errorf("%d records were begun between the refused commit and the next", len(meanwhile))
				}
				c.clean()
			})
		})
	}
}
