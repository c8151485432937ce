package kfake_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// protocols are the three ways in which a group shares out its partitions.
var protocols = []struct {
	name string
	opts []kgo.Opt
}{
	{"cooperative", []kgo.Opt{kgo.Balancers(kgo.CooperativeStickyBalancer())}},
	{"eager", []kgo.Opt{kgo.Balancers(kgo.RangeBalancer())}},
	{"KIP-848", []kgo.Opt{kgo.ServerSideBalancer()}},
}

// eachProtocol tells a story once for each.
func eachProtocol(t *testing.T, topics string, story func(b *bed, kafka retriable.Option)) {
	t.Helper()
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			bubble(t, topics, func(b *bed) { story(b, retriable.Kafka(p.opts...)) })
		})
	}
}

// visit is one call of a handler.
type visit struct {
	member       string
	source       retriable.Position
	key, value   string
	attempt      int
	began, ended time.Time // ended is zero while it runs
	cause        error     // of its context, when it ended
}

// diary notes the calls of all members' handlers, and which ran at once or out of turn.
type diary struct {
	mu   sync.Mutex
	vs   []*visit
	open map[string]int   // running, by partition and key
	last map[string]int64 // the last offset begun, by the same
	bad  []string
}

// handler wraps a member's handler.
func (d *diary) handler(member string, h retriable.HandlerFunc) retriable.Handler {
	return retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
		v := &visit{member: member, source: m.Source, key: string(m.Key), value: string(m.Value), attempt: m.Attempt, began: time.Now()}
		lane := fmt.Sprintf("%s/%d/%s", m.Source.Topic, m.Source.Partition, m.Key)
		d.mu.Lock()
		if d.open == nil {
			d.open, d.last = map[string]int{}, map[string]int64{}
		}
		if m.Key != nil {
			if d.open[lane] > 0 {
				d.bad = append(d.bad, fmt.Sprintf("%v ran beside another record of its key, %s", m.Source, m.Key))
			}
			if last, ok := d.last[lane]; ok && last >= m.Source.Offset {
				d.bad = append(d.bad, fmt.Sprintf("%v began after offset %d of its key, %s", m.Source, last, m.Key))
			}
			d.last[lane] = m.Source.Offset
		}
		d.open[lane]++
		d.vs = append(d.vs, v)
		d.mu.Unlock()
		err := h(ctx, m)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.open[lane]--
		v.ended, v.cause = time.Now(), context.Cause(ctx)
		return err
	})
}

func (d *diary) all() (vs []visit) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range d.vs {
		vs = append(vs, *v)
	}
	return vs
}

// of returns the visits that keep says yes to.
func (d *diary) of(keep func(visit) bool) []visit {
	return slices.DeleteFunc(d.all(), func(v visit) bool { return !keep(v) })
}

// orderly fails if records of a key ran at once or out of offset order: for stories in which nothing may be delivered again (I6).
func (d *diary) orderly(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, s := range d.bad {
		if t.Error(s); i == 10 {
			break
		}
	}
}

// once fails unless exactly n values were delivered, each once.
func (d *diary) once(t *testing.T, n int) {
	t.Helper()
	var l ledger
	for _, v := range d.all() {
		l.ds = append(l.ds, delivery{value: v.value})
	}
	l.once(t, n)
}

// events is a hook that notes what one member tells.
type events struct {
	mu        sync.Mutex
	drains    []drainEvent
	assigns   []assignEvent
	commits   []retriable.Committed
	refusals  []retriable.ProduceFailed
	drops     []retriable.Dropped
	stucks    []retriable.Stuck
	onDrained func(retriable.Drained)
}

type drainEvent struct {
	retriable.Drained
	at time.Time
}

// began is when the partition was taken away; what had begun by then had the drain to end.
func (e drainEvent) began() time.Time { return e.at.Add(-e.Took) }

type assignEvent struct {
	retriable.Assigned
	at time.Time
}

func (e *events) OnDrained(d retriable.Drained) {
	e.mu.Lock()
	e.drains = append(e.drains, drainEvent{d, time.Now()})
	e.mu.Unlock()
	if e.onDrained != nil {
		e.onDrained(d)
	}
}

func (e *events) OnAssigned(a retriable.Assigned) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.assigns = append(e.assigns, assignEvent{a, time.Now()})
}

func (e *events) OnCommitted(c retriable.Committed) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.commits = append(e.commits, c)
}

func (e *events) OnProduceFailed(f retriable.ProduceFailed) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refusals = append(e.refusals, f)
}

func (e *events) OnDropped(d retriable.Dropped) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drops = append(e.drops, d)
}

func (e *events) OnStuck(s retriable.Stuck) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stucks = append(e.stucks, s)
}

// list copies one of the lists.
func list[T any](e *events, of *[]T) []T {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(*of)
}

// seenCommit is one partition's part of an OffsetCommit request, as the broker got it.
type seenCommit struct {
	member string
	topic  string
	part   int32
	offset int64
	at     time.Time
}

// wire notes the requests that reach the broker.
type wire struct {
	mu      sync.Mutex
	commits []seenCommit
}

// watchCommits notes every commit that the broker gets from now on, whatever it answers.
func (b *bed) watchCommits() *wire {
	w := &wire{}
	b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		req := kreq.(*kmsg.OffsetCommitRequest)
		for _, t := range req.Topics {
			name := t.Topic
			if name == "" {
				if info := b.cluster.TopicIDInfo(t.TopicID); info != nil {
					name = info.Topic
				}
			}
			for _, p := range t.Partitions {
				w.mu.Lock()
				w.commits = append(w.commits, seenCommit{req.MemberID, name, p.Partition, p.Offset, time.Now()})
				w.mu.Unlock()
			}
		}
		return nil, nil, false
	})
	return w
}

func (w *wire) all() []seenCommit {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.commits)
}

// member returns the group's name for a consumer.
func (r *running) member() string {
	id, _ := r.Client().GroupMetadata()
	return id
}

// part returns a partition's snapshot; its Topic is empty if the member does not have it.
func (r *running) part(topic string, partition int32) retriable.PartitionStats {
	for _, p := range r.Stats().Partitions {
		if p.Topic == topic && p.Partition == partition {
			return p
		}
	}
	return retriable.PartitionStats{}
}

// eventually waits, in fake time, until f says yes.
func (b *bed) eventually(within time.Duration, what string, f func() bool) {
	b.Helper()
	for end := time.Now().Add(within); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("not within %v: %s", within, what)
		}
	}
}

func TestMembersComeAndGoUnderRunningHandlers(t *testing.T) {
	eachProtocol(t, "orders:6", func(b *bed, kafka retriable.Option) {
		const n = 1000
		var d diary
		var hooks []*events
		names := map[*events]string{}
		join := func(name string) *running {
			e := &events{}
			hooks, names[e] = append(hooks, e), name
			return b.start("g", kafka, retriable.Hooks(e), retriable.Concurrency(8),
				retriable.Topic("orders", d.handler(name, func(_ context.Context, m *retriable.Message) error {
					time.Sleep(time.Duration(crc32.ChecksumIEEE(m.Value)%10) * 40 * time.Millisecond)
					return nil
				}), retriable.NoDeadLetters()))
		}
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for i := range n {
				b.produce("orders", int32(i%40%6), fmt.Sprintf("k%d=%d", i%40, i))
				time.Sleep(20 * time.Millisecond)
			}
		})
		ma := join("a")
		defer ma.end()
		time.Sleep(3 * time.Second)
		mb := join("b")
		defer mb.end()
		time.Sleep(3 * time.Second)
		mc := join("c")
		defer mc.end()
		time.Sleep(3 * time.Second)
		ma.clean()
		time.Sleep(3 * time.Second)
		md := join("d")
		defer md.end()
		time.Sleep(2 * time.Second)
		mb.clean()
		mc.clean()
		b.eventually(2*time.Minute, "all are handled", func() bool { return len(d.all()) >= n })
		time.Sleep(2 * time.Second)
		md.clean()

		d.once(b.T, n)
		d.orderly(b.T)
		met, committed := 0, int64(0)
		for _, e := range hooks {
			for _, drained := range list(e, &e.drains) {
				met += len(d.of(func(v visit) bool {
					return v.member == names[e] && v.source.Partition == drained.Partition && !v.began.After(drained.began()) && v.ended.After(drained.began())
				}))
			}
		}
		for p := range int32(6) {
			committed += b.committed("g", "orders", p)
		}
		wantEqual(b.T, "committed over all", committed, n)
		if met == 0 {
			b.Error("no hand-over met a running handler: the story shows nothing")
		}
		b.Logf("%d handlers ran across a hand-over", met)
	})
}

// drainOverrun is how a handler may behave whose partition is taken away for longer than it wants to run.
var drainOverrun = []struct {
	name string
	end  func() error
}{
	{"the handler fails when its context ends", func() error { return errors.New("interrupted") }},
	{"the handler succeeds all the same", func() error { return nil }},
	{"the handler ignores its context for a while", func() error { time.Sleep(5 * time.Second); return errors.New("late") }},
}

func TestADrainThatTakesTooLongLeavesTheRecordToTheNewOwner(t *testing.T) {
	for _, how := range drainOverrun {
		t.Run(how.name, func(t *testing.T) {
			eachProtocol(t, "orders:4 orders.retry orders.dead", func(b *bed, kafka retriable.Option) {
				var d diary
				var ea events
				free := make(chan struct{})
				var blocked sync.Map
				topic := func(member string, h retriable.HandlerFunc) retriable.Option {
					return retriable.Topic("orders", d.handler(member, h), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"))
				}
				w := b.watchCommits()
				opts := []retriable.Option{kafka, retriable.DrainTimeout(2 * time.Second), retriable.CommitInterval(100 * time.Millisecond)}
				ma := b.start("g", append(opts, retriable.Hooks(&ea), topic("a", func(ctx context.Context, m *retriable.Message) error {
					if _, before := blocked.LoadOrStore(string(m.Value), true); before || !strings.HasPrefix(string(m.Value), "slow") {
						return nil
					}
					select {
					case <-free:
						return nil
					case <-ctx.Done():
						return how.end()
					}
				}))...)
				defer ma.end()
				release := sync.OnceFunc(func() { close(free) })
				defer release()
				for p := range int32(4) {
					b.produce("orders", p, fmt.Sprintf("q=quick%d", p), fmt.Sprintf("k=slow%d", p), fmt.Sprintf("k=next%d", p), fmt.Sprintf("q=other%d", p))
				}
				time.Sleep(3 * time.Second)
				id := ma.member()
				mb := b.start("g", append(opts, topic("b", func(context.Context, *retriable.Message) error { return nil }))...)
				defer mb.end()
				time.Sleep(30 * time.Second)

				taken := 0
				for _, e := range list(&ea, &ea.drains) {
					if e.Topic != "orders" {
						continue
					}
					taken++
					wantEqual(b.T, "abandoned", e.Abandoned, 1)
					wantEqual(b.T, "dropped", e.Dropped, 1)
					if e.Took < 2*time.Second || e.Took > 4*time.Second {
						b.Errorf("the drain took %v", e.Took)
					}
					back := time.Now()
					for _, a := range list(&ea, &ea.assigns) {
						if a.Topic == e.Topic && a.Partition == e.Partition && a.at.After(e.began()) {
							back = a.at
						}
					}
					for _, v := range d.of(func(v visit) bool { return v.member == "a" && v.source.Partition == e.Partition }) {
						if v.began.After(e.began()) && v.began.Before(back) {
							b.Errorf("I3: %s began %v after its partition was taken away", v.value, v.began.Sub(e.began()))
						}
						if v.value == fmt.Sprintf("slow%d", e.Partition) && v.began.Before(e.began()) && !errors.Is(v.cause, retriable.ErrRevoked) {
							b.Errorf("the context of %s ended with cause %v", v.value, v.cause)
						}
					}
					for _, c := range w.all() {
						if c.member == id && c.topic == e.Topic && c.part == e.Partition && c.at.After(e.at) && c.at.Before(back) {
							b.Errorf("I3: offset %d of partition %d committed %v after the fence", c.offset, c.part, c.at.Sub(e.at))
						}
					}
					slow := d.of(func(v visit) bool { return v.value == fmt.Sprintf("slow%d", e.Partition) })
					wantEqual(b.T, "deliveries of a slow record that was taken away", len(slow), 2)
					for _, v := range slow {
						wantEqual(b.T, "its attempt", v.attempt, 1)
					}
					wantEqual(b.T, "deliveries of the one behind it", len(d.of(func(v visit) bool { return v.value == fmt.Sprintf("next%d", e.Partition) })), 1)
					wantEqual(b.T, "deliveries of the one that was finished beyond it", len(d.of(func(v visit) bool { return v.value == fmt.Sprintf("other%d", e.Partition) })), 1)
				}
				if taken == 0 {
					b.Error("no partition was taken away: the story shows nothing")
				}
				release()
				time.Sleep(2 * time.Second)
				wantEqual(b.T, "retry copies", len(b.read("orders.retry")), 0)
				wantEqual(b.T, "dead letters", len(b.read("orders.dead")), 0)
				for p := range int32(4) {
					wantEqual(b.T, "committed", b.committed("g", "orders", p), 4)
				}
				mb.clean()
				ma.clean()
			})
		})
	}
}

func TestQueuedRecordsAreDroppedAtAHandOverAndDeliveredByTheNewOwner(t *testing.T) {
	eachProtocol(t, "orders:4", func(b *bed, kafka retriable.Option) {
		var d diary
		var ea events
		for p := range int32(4) {
			for i := range 10 {
				b.produce("orders", p, fmt.Sprintf("k%d=%d/%d", i%3, p, i))
			}
		}
		topic := func(member string) retriable.Option {
			return retriable.Topic("orders", d.handler(member, func(context.Context, *retriable.Message) error {
				time.Sleep(2 * time.Second)
				return nil
			}), retriable.NoDeadLetters())
		}
		ma := b.start("g", kafka, retriable.Concurrency(1), retriable.Hooks(&ea), topic("a"))
		defer ma.end()
		time.Sleep(5 * time.Second)
		mb := b.start("g", kafka, retriable.Concurrency(1), topic("b"))
		defer mb.end()
		b.eventually(5*time.Minute, "all are handled", func() bool { return len(d.all()) == 40 })
		time.Sleep(5 * time.Second)
		d.once(b.T, 40)
		d.orderly(b.T)
		dropped := 0
		for _, e := range list(&ea, &ea.drains) {
			wantEqual(b.T, "abandoned", e.Abandoned, 0)
			dropped += e.Dropped
		}
		if dropped == 0 {
			b.Error("nothing was queued when partitions were taken away: the story shows nothing")
		}
		mb.clean()
		ma.clean()
	})
}

// slowPoll holds up the poll that brings a record with the value "hold", once.
type slowPoll struct {
	once sync.Once
	held atomic.Bool
}

// OnFetchRecordUnbuffered implements kgo.HookFetchRecordUnbuffered.
func (s *slowPoll) OnFetchRecordUnbuffered(r *kgo.Record, polled bool) {
	if polled && string(r.Value) == "hold" {
		s.once.Do(func() {
			s.held.Store(true)
			time.Sleep(10 * time.Second)
		})
	}
}

func TestAPollThatIsUnderWayBringsNothingToALaterAssignment(t *testing.T) {
	bubble(t, "orders:4", func(b *bed) {
		var d diary
		s := &slowPoll{}
		eager := kgo.Balancers(kgo.RangeBalancer())
		opts := func(name string, took time.Duration, kafka ...kgo.Opt) []retriable.Option {
			return []retriable.Option{
				retriable.Kafka(append(kafka, eager)...), retriable.DrainTimeout(time.Second),
				retriable.Topic("orders", d.handler(name, func(ctx context.Context, m *retriable.Message) error {
					if took > 0 && strings.HasPrefix(string(m.Value), "slow") {
						select {
						case <-ctx.Done():
						case <-time.After(took):
						}
					}
					return nil
				}), retriable.NoDeadLetters()),
			}
		}
		ma := b.start("g", opts("a", 8*time.Second, kgo.WithHooks(s))...)
		defer ma.end()
		for p := range int32(4) { // all are revoked when b joins, and two come back
			b.produce("orders", p, fmt.Sprint("slow", p), fmt.Sprint("fine", p))
		}
		time.Sleep(time.Second)
		for p := range int32(4) {
			b.produce("orders", p, "hold", fmt.Sprint("last", p))
		}
		b.eventually(10*time.Second, "a poll is held up", s.held.Load)
		mb := b.start("g", opts("b", 0)...)
		defer mb.end()
		time.Sleep(time.Minute)
		got := map[string]int{}
		for _, v := range d.of(func(v visit) bool { return v.cause == nil }) {
			got[v.value]++
		}
		for p := range int32(4) {
			for _, v := range []string{"slow", "fine", "last"} {
				wantEqual(b.T, fmt.Sprint("deliveries to an end of ", v, p), got[fmt.Sprint(v, p)], 1)
			}
			wantEqual(b.T, "committed", b.committed("g", "orders", p), 4)
		}
		wantEqual(b.T, "deliveries of those that were held up", got["hold"], 4)
		mb.clean()
		ma.clean()
	})
}

func TestHeldRecordsAreDroppedAtAHandOverAndDeliveredByTheNewOwner(t *testing.T) {
	eachProtocol(t, "orders orders.retry:8 orders.dead", func(b *bed, kafka retriable.Option) {
		const n = 40
		var d diary
		var ea, eb events
		join := func(member string, e *events) *running {
			return b.start("g", kafka, retriable.Hooks(e), retriable.Topic("orders", d.handler(member, func(_ context.Context, m *retriable.Message) error {
				if m.Attempt == 1 {
					return errors.New("not yet")
				}
				return nil
			}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(3*time.Minute))))
		}
		ma := join("a", &ea)
		defer ma.end()
		for i := range n {
			b.produce("orders", 0, fmt.Sprintf("k%d=%d", i, i))
		}
		time.Sleep(5 * time.Second)
		held := func(rs ...*running) (n int) {
			for _, r := range rs {
				for _, p := range r.Stats().Partitions {
					n += p.Held
				}
			}
			return n
		}
		wantEqual(b.T, "held by a", held(ma), n)
		mb := join("b", &eb)
		defer mb.end()
		time.Sleep(time.Minute)
		wantEqual(b.T, "held by both", held(ma, mb), n)
		if held(mb) == 0 {
			b.Error("b holds nothing: the story shows nothing")
		}
		dropped := 0
		for _, e := range list(&ea, &ea.drains) {
			wantEqual(b.T, "abandoned", e.Abandoned, 0)
			dropped += e.Dropped
		}
		if dropped < held(mb) {
			b.Errorf("a dropped %d records, b holds %d", dropped, held(mb))
		}
		time.Sleep(3 * time.Minute)
		first := map[string]time.Time{}
		for _, v := range d.all() {
			switch at, seen := first[v.value]; {
			case v.attempt == 1 && !seen:
				first[v.value] = v.began
			case v.attempt == 2 && seen && v.began.Sub(at) >= 3*time.Minute:
				first[v.value] = time.Time{}.Add(1)
			default:
				b.Errorf("%s: attempt %d by %s, %v after its first", v.value, v.attempt, v.member, v.began.Sub(at))
			}
		}
		wantEqual(b.T, "deliveries", len(d.all()), 2*n)
		mb.clean()
		ma.clean()
	})
}

func TestAPartitionThatWasPausedComesBackFreshAndIsRead(t *testing.T) {
	eachProtocol(t, "orders:4", func(b *bed, kafka retriable.Option) {
		var d diary
		var ea events
		gate := make(chan struct{})
		open := sync.OnceFunc(func() { close(gate) })
		opts := []retriable.Option{kafka, retriable.MaxPending(4), retriable.DrainTimeout(time.Second)}
		topic := func(member string, h retriable.HandlerFunc) retriable.Option {
			return retriable.Topic("orders", d.handler(member, h), retriable.NoDeadLetters())
		}
		ma := b.start("g", append(opts, retriable.Hooks(&ea), topic("a", func(ctx context.Context, _ *retriable.Message) error {
			select {
			case <-gate:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}))...)
		defer ma.end()
		defer open()
		fill := func(round, n int) {
			for p := range int32(4) {
				for i := range n {
					b.produce("orders", p, fmt.Sprintf("%d: %d/%d", round, p, i))
				}
			}
		}
		fill(1, 20)
		b.eventually(10*time.Second, "all of a's partitions are paused", func() bool {
			for p := range int32(4) {
				if !ma.part("orders", p).Paused {
					return false
				}
			}
			return true
		})
		mb := b.start("g", append(opts, topic("b", func(context.Context, *retriable.Message) error { return nil }))...)
		defer mb.end()
		b.eventually(time.Minute, "b has two partitions", func() bool { return len(mb.Stats().Partitions) == 2 })
		open()
		handled := func(round, n int) func() bool {
			return func() bool {
				seen := map[string]bool{}
				for _, v := range d.of(func(v visit) bool {
					return strings.HasPrefix(v.value, fmt.Sprint(round, ":")) && v.cause == nil && !v.ended.IsZero()
				}) {
					seen[v.value] = true
				}
				return len(seen) == n
			}
		}
		b.eventually(time.Minute, "the first round is handled", handled(1, 80))
		mb.clean()
		b.eventually(time.Minute, "a has all partitions again", func() bool { return len(ma.Stats().Partitions) == 4 })
		fill(2, 20)
		b.eventually(time.Minute, "the second round is handled", handled(2, 80))
		back := 0
		for _, a := range list(&ea, &ea.assigns) {
			if a.Offset > 0 {
				back++ // it goes on where b or an earlier assignment ended
			}
		}
		if back < 2 {
			b.Error("no partition came back: the story shows nothing")
		}
		time.Sleep(2 * time.Second)
		for p := range int32(4) {
			s := ma.part("orders", p)
			if s.Paused || s.Pending != 0 || s.Committed != 40 {
				b.Errorf("partition %d in the end: %+v", p, s)
			}
		}
		ma.clean()
	})
}

func TestARetryPartitionAtMaxHeldComesBackFreshAndIsRead(t *testing.T) {
	eachProtocol(t, "orders orders.retry:4 orders.dead", func(b *bed, kafka retriable.Option) {
		const n = 60
		var d diary
		join := func(member string) *running {
			return b.start("g", kafka, retriable.MaxHeld(4), retriable.Topic("orders", d.handler(member, func(_ context.Context, m *retriable.Message) error {
				if m.Attempt == 1 {
					return errors.New("not yet")
				}
				return nil
			}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(time.Minute))))
		}
		ma := join("a")
		defer ma.end()
		for i := range n {
			b.produce("orders", 0, fmt.Sprintf("k%d=%d", i, i))
		}
		paused := func(r *running) (n int) {
			for _, p := range r.Stats().Partitions {
				if p.Paused && p.Topic == "orders.retry" {
					n++
				}
			}
			return n
		}
		b.eventually(time.Minute, "a's retry partitions are paused", func() bool { return paused(ma) == 4 })
		mb := join("b")
		defer mb.end()
		time.Sleep(15 * time.Second)
		if paused(mb) == 0 || paused(ma)+paused(mb) != 4 {
			b.Errorf("paused retry partitions: %d of a, %d of b", paused(ma), paused(mb))
		}
		mb.clean()
		time.Sleep(15 * time.Second)
		wantEqual(b.T, "a's paused retry partitions", paused(ma), 4)
		time.Sleep(10 * time.Minute)
		second := d.of(func(v visit) bool { return v.attempt == 2 })
		wantEqual(b.T, "second attempts", len(second), n)
		wantEqual(b.T, "first attempts", len(d.of(func(v visit) bool { return v.attempt == 1 })), n)
		wantEqual(b.T, "paused in the end", paused(ma), 0)
		ma.clean()
	})
}

func TestWhatIsLostIsNeitherCommittedNorDispatched(t *testing.T) {
	for _, p := range []struct {
		name string
		opts []kgo.Opt
		beat kmsg.Key
		join kmsg.Key
	}{
		{"cooperative", protocols[0].opts, kmsg.Heartbeat, kmsg.JoinGroup},
		{"eager", protocols[1].opts, kmsg.Heartbeat, kmsg.JoinGroup},
		{"KIP-848", protocols[2].opts, kmsg.ConsumerGroupHeartbeat, kmsg.ConsumerGroupHeartbeat},
	} {
		t.Run(p.name, func(t *testing.T) {
			bubble(t, "orders:2 orders.retry:2 orders.dead", func(b *bed) {
				var d diary
				var e events
				w := b.watchCommits()
				c := b.start("g", retriable.Kafka(p.opts...), retriable.Hooks(&e), retriable.CommitInterval(time.Minute),
					retriable.Topic("orders", d.handler("a", func(ctx context.Context, m *retriable.Message) error {
						if string(m.Value) != "slow" {
							return nil
						}
						select {
						case <-ctx.Done():
							return nil // I4: it does not count
						case <-time.After(20 * time.Second):
							return nil
						}
					}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
				defer c.end()
				b.produce("orders", 0, "q=quick", "k=slow", "k=next")
				time.Sleep(2 * time.Second)
				wantEqual(b.T, "deliveries before", len(d.all()), 2)
				before := len(w.all())
				// The member is unknown all of a sudden, and may not join again for a while.
				refused := b.cluster.Fault(kfake.Fault{
					Keys: []kmsg.Key{p.join}, Group: "g", TopLevel: true, Err: kerr.CoordinatorLoadInProgress, Count: -1,
					When: func(req kmsg.Request) bool {
						h, ok := req.(*kmsg.ConsumerGroupHeartbeatRequest)
						return !ok || h.MemberEpoch == 0
					},
				})
				unknown := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{p.beat}, Group: "g", TopLevel: true, Err: kerr.UnknownMemberID})
				b.eventually(10*time.Second, "the partitions are lost", func() bool { return len(list(&e, &e.drains)) == 4 })
				lost := time.Now()
				unknown.Remove()
				time.Sleep(10 * time.Second)
				wantEqual(b.T, "deliveries while nothing is owned", len(d.all()), 2)
				wantEqual(b.T, "commits while nothing is owned", len(w.all()), before)
				wantEqual(b.T, "partitions while nothing is owned", len(c.Stats().Partitions), 0)
				if err := c.Health(b.Context()); !errors.As(err, new(*retriable.GroupError)) {
					b.Errorf("Health while nothing is owned: %v", err)
				}
				for _, v := range d.of(func(v visit) bool { return v.value == "slow" }) {
					if !errors.Is(v.cause, retriable.ErrRevoked) || v.ended.After(lost) {
						b.Errorf("the slow handler ended with cause %v, %v after the loss", v.cause, v.ended.Sub(lost))
					}
				}
				for _, e := range list(&e, &e.drains) {
					if !e.Lost {
						b.Errorf("%+v", e)
					}
				}
				refused.Remove()
				time.Sleep(time.Minute)
				got := map[string]int{}
				for _, v := range d.all() {
					got[v.value]++
					wantEqual(b.T, "attempt", v.attempt, 1)
				}
				wantEqual(b.T, "deliveries in the end", got, map[string]int{"quick": 2, "slow": 2, "next": 1})
				if err := c.Health(b.Context()); err != nil {
					b.Errorf("Health in the end: %v", err)
				}
				c.clean()
				wantEqual(b.T, "committed", b.committed("g", "orders", 0), 3)
				wantEqual(b.T, "retry copies", len(b.read("orders.retry")), 0)
			})
		})
	}
}

func TestAStaticMemberComesBackWithoutARebalance(t *testing.T) {
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			bubble(t, "orders:4", func(b *bed) {
				var d diary
				var eb events
				join := func(name string, e *events) *running {
					return b.start("g", retriable.Kafka(append([]kgo.Opt{kgo.InstanceID(name), kgo.SessionTimeout(30 * time.Second)}, p.opts...)...), retriable.Hooks(e),
						retriable.Topic("orders", d.handler(name, func(context.Context, *retriable.Message) error {
							time.Sleep(100 * time.Millisecond)
							return nil
						}), retriable.NoDeadLetters()))
				}
				mb := join("b", &eb) // the leader: that one's return would be a rebalance on older brokers
				defer mb.end()
				ma := join("a", &events{})
				defer ma.end()
				time.Sleep(20 * time.Second)
				drains := len(list(&eb, &eb.drains))
				for p := range int32(4) {
					for i := range 10 {
						b.produce("orders", p, fmt.Sprintf("k%d=%d/%d", i, p, i))
					}
				}
				time.Sleep(5 * time.Second)
				ma.clean()
				for p := range int32(4) {
					for i := range 10 {
						b.produce("orders", p, fmt.Sprintf("k%d=again %d/%d", i, p, i))
					}
				}
				time.Sleep(5 * time.Second)
				wantEqual(b.T, "deliveries while a is away", len(d.all()), 60)
				ma2 := join("a", &events{})
				defer ma2.end()
				time.Sleep(10 * time.Second)
				d.once(b.T, 80)
				d.orderly(b.T)
				wantEqual(b.T, "partitions taken from b meanwhile", len(list(&eb, &eb.drains)), drains)
				ma2.clean()
				mb.clean()
			})
		})
	}
}

func TestAMemberWithoutPartitionsIsReadyAndHealthy(t *testing.T) {
	eachProtocol(t, "orders:2", func(b *bed, kafka retriable.Option) {
		var d diary
		var cs []*running
		for i := range 3 {
			c := b.launch("g", kafka, retriable.Topic("orders", d.handler(fmt.Sprint(i), done), retriable.NoDeadLetters()))
			defer c.end()
			cs = append(cs, c)
			select {
			case <-c.Ready():
			case <-time.After(time.Minute):
				b.Error("a member is not ready within a minute")
			}
		}
		time.Sleep(20 * time.Second)
		b.produce("orders", 0, seq(10)...)
		time.Sleep(5 * time.Second)
		idle := 0
		for _, c := range cs {
			if len(c.Stats().Partitions) == 0 {
				idle++
			}
			if err := c.Health(b.Context()); err != nil {
				b.Errorf("with %d partitions: %v", len(c.Stats().Partitions), err)
			}
		}
		wantEqual(b.T, "members without partitions", idle, 1)
		d.once(b.T, 10)
		for _, c := range cs {
			c.clean()
		}
	})
}

func TestAMemberThatJoinsWhileAnotherDrainsGetsTheRestOnce(t *testing.T) {
	eachProtocol(t, "orders:4", func(b *bed, kafka retriable.Option) {
		var d diary
		for p := range int32(4) {
			for i := range 5 {
				b.produce("orders", p, fmt.Sprintf("k=%d/%d", p, i))
			}
		}
		topic := func(member string, took time.Duration) retriable.Option {
			return retriable.Topic("orders", d.handler(member, func(context.Context, *retriable.Message) error {
				time.Sleep(took)
				return nil
			}), retriable.NoDeadLetters())
		}
		ma := b.start("g", kafka, topic("a", 15*time.Second))
		defer ma.end()
		time.Sleep(time.Second)
		ma.stop()
		time.Sleep(2 * time.Second)
		mb := b.launch("g", kafka, topic("b", 100*time.Millisecond))
		defer mb.end()
		ma.clean()
		b.eventually(time.Minute, "all are handled", func() bool { return len(d.all()) == 20 })
		time.Sleep(3 * time.Second)
		d.once(b.T, 20)
		d.orderly(b.T)
		wantEqual(b.T, "handled by a", len(d.of(func(v visit) bool { return v.member == "a" })), 4)
		for p := range int32(4) {
			wantEqual(b.T, "committed", b.committed("g", "orders", p), 5)
		}
		mb.clean()
	})
}

func TestPartitionsThatComeDuringAStopAreLeftAlone(t *testing.T) {
	eachProtocol(t, "orders:4", func(b *bed, kafka retriable.Option) {
		var d diary
		topic := func(member string, took time.Duration) retriable.Option {
			return retriable.Topic("orders", d.handler(member, func(context.Context, *retriable.Message) error {
				time.Sleep(took)
				return nil
			}), retriable.NoDeadLetters())
		}
		ma := b.start("g", kafka, topic("a", 20*time.Second))
		defer ma.end()
		mb := b.start("g", kafka, topic("b", 10*time.Millisecond))
		defer mb.end()
		b.eventually(30*time.Second, "they share", func() bool { return len(ma.Stats().Partitions) == 2 && len(mb.Stats().Partitions) == 2 })
		mine := ma.Stats().Partitions
		b.produce("orders", mine[0].Partition, "k=slow", "k=next")
		time.Sleep(time.Second)
		ma.stop()
		time.Sleep(time.Second)
		mb.clean() // a gets all partitions while it drains
		for p := range int32(4) {
			b.produce("orders", p, fmt.Sprint("late ", p))
		}
		ma.clean()
		wantEqual(b.T, "deliveries", fmt.Sprint(d.of(func(v visit) bool { return v.value != "slow" })), "[]")
		mc := b.start("g", kafka, topic("c", 10*time.Millisecond))
		defer mc.end()
		time.Sleep(20 * time.Second)
		d.once(b.T, 6)
		mc.clean()
	})
}
