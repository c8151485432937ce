package kfake_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// scissors cut connections: after a request of the armed kind was delivered, and before its answer comes back.
type scissors struct {
	b   *bed
	key atomic.Int32 // the armed request key plus one
	cut atomic.Int32 // how often it happened
}

// arm has the next request of a kind lose its answer.
func (s *scissors) arm(key kmsg.Key) { s.key.Store(int32(key) + 1) }

func (s *scissors) dialer() retriable.Option {
	return retriable.Kafka(kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
		c, err := s.b.net.DialContext(ctx, network, host)
		return &scissorConn{c, s}, err
	}))
}

type scissorConn struct {
	net.Conn
	s *scissors
}

func (c *scissorConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if len(p) < 6 {
		return n, err
	}
	if key := int32(binary.BigEndian.Uint16(p[4:])) + 1; c.s.key.CompareAndSwap(key, 0) {
		time.Sleep(10 * time.Millisecond) // the broker does what it is told
		c.s.cut.Add(1)
		_ = c.Conn.Close()
	}
	return n, err
}

func (c *scissorConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.ErrClosedPipe) { // as a real network says it
		err = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	}
	return n, err
}

// admin is an admin client of the bed.
func (b *bed) admin() *kadm.Client { return kadm.NewClient(b.cl) }

// commitAs writes an offset into an empty group, as some other client would.
func (b *bed) commitAs(group, topic string, partition int32, offset int64, metadata string) {
	b.Helper()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: offset, LeaderEpoch: -1, Metadata: metadata})
	rs, err := b.admin().CommitOffsets(b.Context(), group, offsets)
	if err == nil {
		err = rs.Error()
	}
	if err != nil {
		b.Fatal(err)
	}
}

func done(context.Context, *retriable.Message) error { return nil }

// resolutions notes when each offset of the base topic was resolved, as seen from outside: its handler succeeded, or its copy was acked.
type resolutions struct {
	mu sync.Mutex
	at map[retriable.Position]time.Time
}

func (r *resolutions) note(p retriable.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at == nil {
		r.at = map[retriable.Position]time.Time{}
	}
	if _, ok := r.at[p]; !ok {
		r.at[p] = time.Now()
	}
}

func (r *resolutions) OnRetried(e retriable.Retried)           { r.note(e.Message.Source) }
func (r *resolutions) OnDeadLettered(e retriable.DeadLettered) { r.note(e.Message.Source) }

func TestTheCommittedOffsetNeverPassesAnUnresolvedRecordNorGoesBack(t *testing.T) {
	bubble(t, "orders:3 orders.retry:2 orders.dead", func(b *bed) {
		const n = 400
		var r resolutions
		w := b.watchCommits()
		// Writes to the retry topic are refused now and then: their records must hold the watermark meanwhile.
		var produces atomic.Int64
		refused := b.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.InvalidRecord, Count: -1,
			When: func(kmsg.Request) bool { return produces.Add(1)%3 == 0 },
		})
		c := b.start("g", retriable.CommitInterval(100*time.Millisecond), retriable.Hooks(&r), retriable.Concurrency(12),
			retriable.Topic("orders", retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
				var i int
				if _, err := fmt.Sscan(string(m.Value), &i); err != nil {
					return err
				}
				time.Sleep(time.Duration(i*7919%31) * 20 * time.Millisecond)
				switch {
				case i%7 == 0 && m.Attempt == 1:
					return errors.New("not yet")
				case i%11 == 0:
					return retriable.Permanent(errors.New("never"))
				}
				r.note(m.Source)
				return nil
			}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(3*time.Second))))
		defer c.end()
		for i := 0; i < n; i += 4 { // so that the watermark stands within what was read at once, too
			var four []string
			for k := i; k < i+4; k++ {
				four = append(four, fmt.Sprintf("k%d=%d", k%50, k))
			}
			b.produce("orders", int32(i%3), four...)
			time.Sleep(40 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		c.clean()
		if refused.Hits() == 0 {
			b.Error("no write was refused: the story shows less than it could")
		}
		last := map[retriable.Position]int64{}
		moved := 0
		for _, s := range w.all() {
			name := retriable.Position{Topic: s.topic, Partition: s.part}
			if at, ok := last[name]; ok && s.offset < at {
				b.Errorf("I2: %s/%d went back from %d to %d", s.topic, s.part, at, s.offset)
			}
			last[name] = s.offset
			for o := range s.offset {
				p := retriable.Position{Topic: s.topic, Partition: s.part, Offset: o}
				if at, ok := r.at[p]; !ok || at.After(s.at) {
					b.Fatalf("I2: %s/%d was committed at %d while %d was unresolved", s.topic, s.part, s.offset, o)
				}
			}
			moved++
		}
		if moved < 50 {
			b.Errorf("%d commits: the story shows nothing", moved)
		}
		for p := range int32(3) {
			wantEqual(b.T, "committed", b.committed("g", "orders", p), b.cluster.PartitionInfo("orders", p).HighWatermark)
		}
	})
}

// refusals are the broker's answers to one partition's part of a commit.
var refusals = []struct {
	err   *kerr.Error
	times int
	quiet bool // it means not yet: nobody needs to hear of it
}{
	{kerr.RebalanceInProgress, 3, true},
	{kerr.RequestTimedOut, 3, true},
	{kerr.CoordinatorLoadInProgress, 3, true},
	{kerr.CoordinatorNotAvailable, 3, true},
	{kerr.NotCoordinator, 3, true},
	{kerr.IllegalGeneration, 1, false}, // kgo joins again at once: a second refusal could be of a revoke's last commit
	{kerr.UnknownMemberID, 1, false},
	{kerr.FencedInstanceID, 3, false},
	{kerr.StaleMemberEpoch, 3, false},
	{kerr.UnknownTopicOrPartition, 3, false},
	{kerr.TopicAuthorizationFailed, 3, false},
	{kerr.GroupAuthorizationFailed, 3, false},
	{kerr.OffsetMetadataTooLarge, 3, false},
	{kerr.MessageTooLarge, 3, false},
	{kerr.InvalidCommitOffsetSize, 3, false},
	{kerr.UnknownServerError, 3, false},
}

func TestARefusedCommitIsMadeUpForAndHoldsUpNothing(t *testing.T) {
	for _, p := range protocols {
		for _, refusal := range refusals {
			t.Run(p.name+"/"+refusal.err.Message, func(t *testing.T) {
				bubble(t, "orders:2", func(b *bed) {
					var d diary
					var e events
					c := b.start("g", retriable.Kafka(p.opts...), retriable.Hooks(&e), retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
					defer c.end()
					b.produce("orders", 0, seq(5)...)
					b.produce("orders", 1, "a", "b", "c", "d", "e")
					time.Sleep(3 * time.Second)
					wantEqual(b.T, "committed before", b.committed("g", "orders", 0), 5)
					refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Topic: "orders", Partitions: []int32{0}, Err: refusal.err, Count: refusal.times})
					b.produce("orders", 0, "5", "6", "7", "8", "9")
					b.produce("orders", 1, "f", "g", "h", "i", "j")
					time.Sleep(30 * time.Second)
					if refused.Hits() == 0 {
						b.Error("no commit was refused: the story shows nothing")
					}
					for p := range int32(2) {
						wantEqual(b.T, "committed", b.committed("g", "orders", p), 10)
						wantEqual(b.T, "Stats' Committed", c.part("orders", p).Committed, 10)
					}
					d.once(b.T, 20)
					if n := strings.Count(b.log.String(), "level=WARN"); n > 1 {
						b.Errorf("%d warnings for one incident", n)
					} else if n > 0 && refusal.quiet {
						b.Error("a warning for what only means not yet")
					}
					if err := c.Health(b.Context()); err != nil {
						b.Errorf("Health: %v", err)
					}
					c.clean()
				})
			})
		}
	}
}

func TestACommitThatIsRefusedForLongIsToldOfOnceAndMadeUpFor(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		var d diary
		var e events
		c := b.start("g", retriable.Hooks(&e), retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
		defer c.end()
		time.Sleep(2 * time.Second)
		refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Topic: "orders", Partitions: []int32{0}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		for i := range 60 {
			b.produce("orders", int32(i%2), fmt.Sprint(i))
			time.Sleep(time.Second)
		}
		d.once(b.T, 60)
		wantEqual(b.T, "committed while it is refused", b.committed("g", "orders", 0), 0)
		wantEqual(b.T, "committed beside it", b.committed("g", "orders", 1), 30)
		if s := c.part("orders", 0); s.Committed != 0 || s.Watermark != 30 || s.Lag != 30 {
			b.Errorf("Stats while it is refused: %+v", s)
		}
		told := 0
		for _, e := range list(&e, &e.commits) {
			if e.Err != nil {
				told++
				if !errors.Is(e.Err, kerr.TopicAuthorizationFailed) || e.Partition != 0 {
					b.Errorf("the hook was told %+v", e)
				}
			}
		}
		if told < 20 {
			b.Errorf("the hook was told of %d refusals in a minute", told)
		}
		wantEqual(b.T, "warnings", strings.Count(b.log.String(), "level=WARN"), 1)
		refused.Remove()
		time.Sleep(3 * time.Second)
		wantEqual(b.T, "committed afterwards", b.committed("g", "orders", 0), 30)
		c.clean()
	})
}

func TestACommitRequestThatIsTooLargeIsHalved(t *testing.T) {
	for _, err := range []*kerr.Error{kerr.UnknownServerError, kerr.MessageTooLarge, kerr.InvalidCommitOffsetSize} {
		t.Run(err.Message, func(t *testing.T) {
			bubble(t, "orders:16", func(b *bed) {
				// What Kafka does with a request whose records do not fit into one batch of its offsets topic.
				refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Err: err, Count: -1, When: func(kreq kmsg.Request) bool {
					n := 0
					for _, t := range kreq.(*kmsg.OffsetCommitRequest).Topics {
						n += len(t.Partitions)
					}
					return n > 3
				}})
				c := b.start("g", retriable.Topic("orders", retriable.HandlerFunc(done), retriable.NoDeadLetters()))
				defer c.end()
				for p := range int32(16) {
					b.produce("orders", p, "x")
				}
				time.Sleep(20 * time.Second)
				committed := 0
				for p := range int32(16) {
					committed += int(max(b.committed("g", "orders", p), 0))
				}
				wantEqual(b.T, "partitions committed", committed, 16)
				if refused.Hits() == 0 {
					b.Error("no commit was refused: the story shows nothing")
				}
				if err := c.end(); err != nil {
					b.Error("Run failed")
				}
			})
		})
	}
}

func TestACommitWhoseAnswerIsLostIsNoLossAndNoSecondDelivery(t *testing.T) {
	eachProtocol(t, "orders:2", func(b *bed, kafka retriable.Option) {
		var d diary
		s := &scissors{b: b}
		topic := retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters())
		c := b.start("g", kafka, s.dialer(), topic)
		defer c.end()
		for round := range 5 {
			s.arm(kmsg.OffsetCommit)
			b.produce("orders", 0, fmt.Sprint("a", round))
			b.produce("orders", 1, fmt.Sprint("b", round))
			time.Sleep(5 * time.Second)
		}
		wantEqual(b.T, "answers lost", s.cut.Load(), 5)
		b.produce("orders", 0, "last")
		time.Sleep(50 * time.Millisecond)
		s.arm(kmsg.OffsetCommit)
		c.clean()
		wantEqual(b.T, "answers lost", s.cut.Load(), 6)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 6)
		wantEqual(b.T, "committed", b.committed("g", "orders", 1), 5)
		c = b.start("g", kafka, topic)
		defer c.end()
		time.Sleep(5 * time.Second)
		d.once(b.T, 11)
		c.clean()
	})
}

func TestASlowCommitHoldsUpNothing(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		var d diary
		c := b.start("g", retriable.Topic("orders", d.handler("", func(context.Context, *retriable.Message) error {
			time.Sleep(100 * time.Millisecond)
			return nil
		}), retriable.NoDeadLetters()))
		defer c.end()
		time.Sleep(2 * time.Second)
		b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			b.cluster.SleepControl(func() { time.Sleep(3 * time.Second) })
			return nil, nil, false
		})
		sent := map[string]time.Time{}
		for i := range 100 {
			sent[fmt.Sprint(i)] = time.Now()
			b.produce("orders", int32(i%2), fmt.Sprint(i))
			time.Sleep(200 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		d.once(b.T, 100)
		for _, v := range d.all() {
			if late := v.began.Sub(sent[v.value]); late > time.Second {
				b.Errorf("%s waited for %v", v.value, late)
			}
		}
		for p := range int32(2) {
			wantEqual(b.T, "committed", b.committed("g", "orders", p), 50)
		}
		c.clean()
	})
}

func TestALastCommitThatIsNeverAnsweredDoesNotHoldRun(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		c := b.start("g", retriable.DrainTimeout(5*time.Second), retriable.CommitInterval(time.Hour),
			retriable.Topic("orders", retriable.HandlerFunc(done), retriable.NoDeadLetters()))
		defer c.end()
		b.produce("orders", 0, seq(5)...)
		time.Sleep(2 * time.Second)
		b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			return nil, nil, true
		})
		stopped := time.Now()
		err := c.end()
		var failed *retriable.CommitError
		if !errors.As(err, &failed) || failed.Offset != 5 {
			b.Errorf("Run: %v", err)
		}
		if took := time.Since(stopped); took > 20*time.Second {
			b.Errorf("Run took %v", took)
		}
	})
}

func TestForeignCommitMetadataIsHarmless(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		b.produce("orders", 0, seq(10)...)
		for i, metadata := range []string{
			"", "kgo-0badcafe", "v1", "v1:", "v1:AAAA", "1", "{}", "\x00\x01\xff\xfe", strings.Repeat("A", 4096), strings.Repeat("=", 100),
			strings.Repeat("/", 4000), "rtr1" + strings.Repeat("A", 64), "日本語",
		} {
			group := fmt.Sprint("g", i)
			b.commitAs(group, "orders", 0, 4, metadata)
			var d diary
			c := b.start(group, retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
			time.Sleep(3 * time.Second)
			d.once(b.T, 6)
			wantEqual(b.T, "skipped", c.Stats().Skipped, 0)
			c.clean()
			wantEqual(b.T, "committed", b.committed(group, "orders", 0), 10)
		}
	})
}

func TestADamagedMapIsNoMap(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		b.produce("orders", 0, seq(10)...)
		free := make(chan struct{})
		c := b.start("g", retriable.Topic("orders", retriable.HandlerFunc(func(_ context.Context, m *retriable.Message) error {
			if m.Offset == 0 {
				<-free
			}
			return nil
		}), retriable.NoDeadLetters()))
		defer c.end()
		defer close(free)
		time.Sleep(3 * time.Second)
		text := b.cluster.GroupInfo("g").Commits["orders"][0].Metadata
		if text == "" {
			b.Fatal("no map: the story shows nothing")
		}
		damaged := []string{text[:len(text)-1], text + "A", text[1:], strings.ToLower(text), strings.Repeat(text, 2)}
		for i := range len(text) {
			other := byte('A')
			if text[i] == other {
				other = 'B'
			}
			damaged = append(damaged, text[:i]+string(other)+text[i+1:])
		}
		for i, metadata := range append(damaged, text) {
			if metadata == text && i < len(damaged) {
				continue
			}
			group := fmt.Sprint("g", i)
			b.commitAs(group, "orders", 0, 0, metadata)
			var d diary
			c := b.start(group, retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
			time.Sleep(2 * time.Second)
			if want := map[bool]int{false: 10, true: 1}[metadata == text]; len(d.all()) != want {
				b.Errorf("with %q, of %q: %d deliveries, want %d", metadata, text, len(d.all()), want)
			}
			c.clean()
			wantEqual(b.T, "committed", b.committed(group, "orders", 0), 10)
		}
	})
}

func TestStartAtIsResolvedAndCommittedWithTheAssignment(t *testing.T) {
	for _, s := range []struct {
		name string
		at   func(b *bed, fifth time.Time) kgo.Offset
		want int64
	}{
		{"the earliest", func(*bed, time.Time) kgo.Offset { return kgo.NewOffset().AtStart() }, 2},
		{"the latest", func(*bed, time.Time) kgo.Offset { return kgo.NewOffset().AtEnd() }, 10},
		{"an offset", func(*bed, time.Time) kgo.Offset { return kgo.NewOffset().At(5) }, 5},
		{"an offset before the log", func(*bed, time.Time) kgo.Offset { return kgo.NewOffset().At(1) }, 2},
		{"an offset past the log", func(*bed, time.Time) kgo.Offset { return kgo.NewOffset().At(100) }, 10},
		{"a time", func(_ *bed, fifth time.Time) kgo.Offset { return kgo.NewOffset().AfterMilli(fifth.UnixMilli()) }, 5},
		{"a time before all", func(*bed, time.Time) kgo.Offset { return kgo.NewOffset().AfterMilli(1) }, 2},
		{"a time after all", func(_ *bed, fifth time.Time) kgo.Offset {
			return kgo.NewOffset().AfterMilli(fifth.Add(time.Hour).UnixMilli())
		}, 10},
		{"before the end", func(*bed, time.Time) kgo.Offset { return kgo.NewOffset().AtEnd().Relative(-3) }, 7},
		{"behind the start", func(*bed, time.Time) kgo.Offset { return kgo.NewOffset().AtStart().Relative(3) }, 5},
		{"far before the end", func(*bed, time.Time) kgo.Offset { return kgo.NewOffset().AtEnd().Relative(-100) }, 2},
		{"around an offset", func(*bed, time.Time) kgo.Offset { return kgo.NewOffset().At(6).Relative(-2) }, 4},
	} {
		t.Run(s.name, func(t *testing.T) {
			bubble(t, "orders orders.retry orders.dead", func(b *bed) {
				var d diary
				var fifth time.Time
				for i := range 10 {
					time.Sleep(time.Second)
					if i == 5 {
						fifth = time.Now()
					}
					b.produce("orders", 0, fmt.Sprint(i))
				}
				b.produce("orders.retry", 0, "a retry from before")
				if err := b.cluster.DeleteRecords("orders", 0, 2); err != nil {
					b.Fatal(err)
				}
				slow := retriable.Topic("orders", d.handler("a", func(ctx context.Context, m *retriable.Message) error {
					if m.Source.Topic == "orders" {
						<-ctx.Done()
					}
					return nil
				}), retriable.StartAt(s.at(b, fifth)), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"))
				c := b.start("g", retriable.CommitInterval(time.Hour), retriable.DrainTimeout(time.Second), slow)
				defer c.end()
				time.Sleep(time.Second)
				wantEqual(b.T, "committed with the assignment", b.committed("g", "orders", 0), s.want)
				wantEqual(b.T, "committed in the retry topic", b.committed("g", "orders.retry", 0), 0)
				wantEqual(b.T, "retries from before", len(d.of(func(v visit) bool { return v.source.Topic == "orders.retry" })), 1)
				_ = c.end()
				b.produce("orders", 0, "10", "11")
				c = b.start("g", retriable.Topic("orders", d.handler("b", done), retriable.StartAt(kgo.NewOffset().AtEnd()),
					retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
				defer c.end()
				time.Sleep(2 * time.Second)
				var want, got []int64
				for o := s.want; o < 12; o++ {
					want = append(want, o)
				}
				for _, v := range d.of(func(v visit) bool { return v.member == "b" && v.source.Topic == "orders" }) {
					got = append(got, v.source.Offset)
				}
				wantEqual(b.T, "read after a restart", len(got), len(want))
				c.clean()
				wantEqual(b.T, "committed in the end", b.committed("g", "orders", 0), 12)
			})
		})
	}
}

func TestACommitPastTheEndOfTheLogStartsAtItsStart(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var d diary
		b.produce("orders", 0, seq(10)...)
		b.commitAs("g", "orders", 0, 50, "")
		c := b.start("g", retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters(), retriable.StartAt(kgo.NewOffset().AtEnd())))
		defer c.end()
		time.Sleep(3 * time.Second)
		d.once(b.T, 10)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 10)
		if !strings.Contains(b.log.String(), "beyond the log's end") {
			b.Error("the log does not say so")
		}
		c.clean()
	})
}

func TestACommitBeforeTheStartOfTheLogGoesOnAtItsStart(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var d diary
		b.produce("orders", 0, seq(10)...)
		b.commitAs("g", "orders", 0, 3, "")
		if err := b.cluster.DeleteRecords("orders", 0, 6); err != nil {
			b.Fatal(err)
		}
		c := b.start("g", retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
		defer c.end()
		time.Sleep(3 * time.Second)
		d.once(b.T, 4)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 10)
		wantEqual(b.T, "lag", c.part("orders", 0).Lag, 0)
		c.clean()
	})
}

func TestALastCommitThatIsRefusedIsRunsError(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		for _, err := range []*kerr.Error{kerr.GroupAuthorizationFailed, kerr.TopicAuthorizationFailed, kerr.UnknownMemberID, kerr.UnknownServerError} {
			b.produce("orders", 0, seq(5)...)
			b.produce("orders", 1, seq(5)...)
			c := b.start("g", retriable.CommitInterval(time.Hour), retriable.Topic("orders", retriable.HandlerFunc(done), retriable.NoDeadLetters()))
			time.Sleep(2 * time.Second)
			end := b.cluster.PartitionInfo("orders", 1).HighWatermark
			refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Topic: "orders", Partitions: []int32{1}, Err: err, Count: -1})
			got := c.end()
			var failed *retriable.CommitError
			if !errors.As(got, &failed) || !errors.Is(got, err) || failed.Topic != "orders" || failed.Partition != 1 || failed.Offset != end {
				b.Errorf("%v: Run: %v", err.Message, got)
			}
			wantEqual(b.T, "committed beside it", b.committed("g", "orders", 0), b.cluster.PartitionInfo("orders", 0).HighWatermark)
			refused.Remove()
		}
	})
}

func TestALastCommitThatMustWaitIsTriedAgain(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		for _, err := range []*kerr.Error{kerr.RebalanceInProgress, kerr.RequestTimedOut, kerr.CoordinatorLoadInProgress} {
			b.produce("orders", 0, seq(5)...)
			c := b.start("g", retriable.CommitInterval(time.Hour), retriable.Topic("orders", retriable.HandlerFunc(done), retriable.NoDeadLetters()))
			time.Sleep(2 * time.Second)
			refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Topic: "orders", Partitions: []int32{0}, Err: err, Count: 5})
			c.clean()
			wantEqual(b.T, "refusals", refused.Hits(), 5)
			wantEqual(b.T, "committed", b.committed("g", "orders", 0), b.cluster.PartitionInfo("orders", 0).HighWatermark)
		}
	})
}

// silence has the broker answer no commit for so long: those of one member, or of all if it is empty.
func (b *bed) silence(member string, d time.Duration) {
	until := time.Now().Add(d)
	b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		if member == "" || kreq.(*kmsg.OffsetCommitRequest).MemberID == member {
			b.cluster.SleepControl(func() { time.Sleep(time.Until(until)) })
		}
		return nil, nil, false
	})
}

// behindOthers are the two ways in which a last commit may find the committer.
var behindOthers = map[string]time.Duration{"alone": time.Hour, "behind others": 100 * time.Millisecond}

// A last commit that is not answered within its own time is made again while there is time left of the drain.
func TestALastCommitThatIsNotAnsweredIsTriedAgain(t *testing.T) { // I5
	for name, interval := range behindOthers {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders:2", func(b *bed) {
				c := b.start("g", retriable.CommitInterval(interval), retriable.Kafka(kgo.SessionTimeout(time.Minute)),
					retriable.Topic("orders", retriable.HandlerFunc(done), retriable.NoDeadLetters()))
				b.silence("", 9*time.Second)
				b.flood("orders", 2, 20)
				pass(time.Second)
				began := time.Now()
				c.clean()
				if took := time.Since(began); took < 7*time.Second || took > 12*time.Second {
					t.Errorf("the stop took %v", took)
				}
				for p := range int32(2) {
					wantEqual(t, "committed", b.committed("g", "orders", p), 10)
				}
			})
		})
	}
}

// A last commit of a revoke that fails, be it that the committer never came to it, is told: by the hook and by the log.
func TestALastCommitOfARevokeThatFailsIsTold(t *testing.T) {
	for name, interval := range behindOthers {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders:2", func(b *bed) {
				var h events
				topic := retriable.Topic("orders", handles(func(m *retriable.Message) error {
					if string(m.Value) == "slow" {
						time.Sleep(1500 * time.Millisecond)
					}
					return nil
				}), retriable.NoDeadLetters())
				session := retriable.Kafka(kgo.SessionTimeout(time.Minute))
				one := b.begin("g", topic, session, retriable.CommitInterval(interval), retriable.DrainTimeout(3*time.Second), retriable.Hooks(&h))
				b.flood("orders", 2, 20)
				pass(time.Second)
				b.produce("orders", 0, "slow")
				b.produce("orders", 1, "slow")
				two := b.begin("g", topic, session)
				pass(500 * time.Millisecond) // one of the partitions drains
				b.silence(one.member(), 9*time.Second)
				b.produce("orders", 0, "more")
				b.produce("orders", 1, "more")
				b.until("both own one", time.Minute, func() bool { return len(one.Stats().Partitions) == 1 && len(two.Stats().Partitions) == 1 })
				taken := two.Stats().Partitions[0].Partition
				var last retriable.Committed
				for _, e := range list(&h, &h.commits) {
					if e.Partition == taken {
						last = e
					}
				}
				if last.Offset != 11 || last.Err == nil {
					t.Errorf("the hook was told %+v of the last commit", last)
				}
				if lines := b.log.lines("level=WARN", "the last commit of partitions that were taken away failed", fmt.Sprintf("orders/%d at offset 11", taken)); len(lines) != 1 {
					t.Errorf("%d lines tell of it: %s", len(lines), b.log)
				}
				two.clean()
				one.clean()
				for p := range int32(2) { // be it that the broker took it late
					wantEqual(t, "committed in the end", b.committed("g", "orders", p), 12)
				}
			})
		})
	}
}

// The group's offsets have expired, as they do after a while without a member: a base topic begins where StartAt says, a retry topic at its start.
func TestAGroupWhoseOffsetsExpiredBeginsAnew(t *testing.T) {
	for name, c := range map[string]struct {
		opts []retriable.TopicOption
		want string
	}{
		"by itself":  {want: "0 1 2 3 4 5 6 7 8 9 again new"},
		"at its end": {opts: []retriable.TopicOption{retriable.StartAt(kgo.NewOffset().AtEnd())}, want: "again new"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders orders.retry", func(b *bed) {
				var l ledger
				start := func() *running {
					return b.start("g", retriable.Topic("orders", handles(func(m *retriable.Message) error {
						l.note(m)
						if string(m.Value) == "again" && m.Attempt == 1 {
							return errNo
						}
						return nil
					}), append(c.opts, none(), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(time.Second)))...))
				}
				r := start()
				b.produce("orders", 0, append(seq(10), "again")...)
				pass(5 * time.Second)
				wantEqual(t, "deliveries before", len(l.all()), 12)
				r.clean()
				if _, err := b.admin().DeleteGroup(b.Context(), "g"); err != nil {
					t.Fatal(err)
				}
				wantEqual(t, "committed", b.committed("g", "orders", 0), -1)
				before := len(l.all())
				r = start()
				pass(3 * time.Second)
				b.produce("orders", 0, "new")
				pass(5 * time.Second)
				r.clean()
				second := map[string]bool{}
				for _, d := range l.all()[before:] {
					if d.value == "again" && d.attempt == 1 { // it fails once more
						wantEqual(t, "where it was read", d.source.Topic, "orders")
						continue
					}
					second[d.value] = true
				}
				wantEqual(t, "delivered after", strings.Join(slices.Sorted(maps.Keys(second)), " "), c.want)
				wantEqual(t, "committed", b.committed("g", "orders", 0), 12)
				wantEqual(t, "committed of the retry topic", b.committed("g", "orders.retry", 0), int64(len(b.read("orders.retry"))))
			})
		})
	}
}
