package kfake_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// mortals are consumers whose process a record can end: it takes their network away, which is all that others see of a death.
type mortals struct {
	*bed
	d     diary
	lives int
	cared int // lives of which PartitionStats.Careful said so before they ended
	opts  []retriable.Option
	topic func(h retriable.Handler) retriable.Option
}

// live runs one life, until it dies, or for so long and then stops cleanly. It reports whether it died.
func (m *mortals) live(most time.Duration, h func(ctx context.Context, k *cable, msg *retriable.Message) error) (died bool) {
	m.Helper()
	m.lives++
	k := &cable{b: m.bed, dumb: -1, deaf: -1}
	handler := m.d.handler(fmt.Sprint("life ", m.lives), func(ctx context.Context, msg *retriable.Message) error { return h(ctx, k, msg) })
	r := m.launch("g", append([]retriable.Option{
		k.dialer(), retriable.DrainTimeout(time.Second), m.topic(handler),
		retriable.Kafka(kgo.HeartbeatInterval(500 * time.Millisecond)),
	}, m.opts...)...)
	defer r.end()
	began := time.Now()
	for time.Since(began) < most {
		time.Sleep(10 * time.Millisecond)
		if k.isCut() {
			if slices.ContainsFunc(r.Stats().Partitions, func(p retriable.PartitionStats) bool { return p.Careful }) {
				m.cared++
			}
			r.stop()
			time.Sleep(10 * time.Second) // its session ends
			return true
		}
	}
	r.clean()
	return false
}

// kills ends the process, and so never returns.
func kills(ctx context.Context, k *cable) error {
	k.cut()
	<-ctx.Done()
	return ctx.Err()
}

// deaths returns how many lives end before one lasts.
func (m *mortals) deaths(most int, lasts time.Duration, h func(ctx context.Context, k *cable, msg *retriable.Message) error) int {
	m.Helper()
	for n := range most {
		if !m.live(lasts, h) {
			return n
		}
	}
	m.Fatalf("after %d lives there is no end", most)
	return most
}

func TestARecordThatKillsItsProcessIsDeadLettered(t *testing.T) {
	for _, s := range []struct {
		name  string
		opts  []retriable.Option
		topic retriable.TopicOption
		dead  int
		slow  time.Duration
	}{
		{"the record alone, of many partitions", nil, retriable.DeadLetterTopic("orders.dead"), 1, 0},
		{"beside records that are slow", nil, retriable.DeadLetterTopic("orders.dead"), 1, 3 * time.Second},
		{"without dead letters", nil, retriable.NoDeadLetters(), 0, 0},
		{"one partition after the other", []retriable.Option{retriable.Concurrency(1)}, retriable.DeadLetterTopic("orders.dead"), 1, 0},
		{"at the fifth crash", []retriable.Option{retriable.MaxCrashes(5)}, retriable.DeadLetterTopic("orders.dead"), 1, 0},
		{"with so few that a second is needed all the same", []retriable.Option{retriable.MaxCrashes(1)}, retriable.DeadLetterTopic("orders.dead"), 1, 0},
	} {
		t.Run(s.name, func(t *testing.T) {
			bubble(t, "orders:12 orders.dead", func(b *bed) {
				const n = 240
				m := &mortals{bed: b, opts: s.opts, topic: func(h retriable.Handler) retriable.Option { return retriable.Topic("orders", h, s.topic) }}
				for i := range n {
					b.produce("orders", int32(i%12), fmt.Sprintf("k%d=%d", i%30, i))
				}
				deaths := m.deaths(12, 2*time.Minute, func(ctx context.Context, k *cable, msg *retriable.Message) error {
					switch v := string(msg.Value); {
					case v == "100":
						return kills(ctx, k)
					case s.slow > 0 && msg.Offset == 0:
						time.Sleep(s.slow)
					case ctx.Err() != nil || k.isCut():
						return ctx.Err()
					}
					return nil
				})
				t.Logf("%d deaths, %d deliveries", deaths, len(m.d.all()))
				got := map[string]bool{}
				for _, v := range m.d.all() {
					got[v.value] = true
				}
				wantEqual(t, "records seen by handlers", len(got), n)
				letters := b.read("orders.dead")
				wantEqual(t, "dead letters", len(letters), s.dead)
				for _, r := range letters {
					reason, _ := header(r, "__dlq.errors.message")
					count, _ := header(r, "__dlq.errors.delivery.count")
					if string(r.Value) != "100" || reason == "" || count != "1" {
						t.Errorf("dead letter %s: %q after %s deliveries", r.Value, reason, count)
					}
					t.Log(reason)
				}
				for p := range int32(12) {
					wantEqual(t, "committed", b.committed("g", "orders", p), n/12)
				}
				wantEqual(t, "told of", len(b.log.lines("level=ERROR", "given up", "orders/4/8")), 1)
			})
		})
	}
}

// What kills has its own pace: slow records in another partition have counted more takeovers, and were noted, while it was not suspected
// yet. They are not given up.
// Attempts in place, and postponements, of records before it do not make the process look as if it had got over what kills it.
func TestARecordThatKillsIsFoundBehindOthersThatWaitInPlace(t *testing.T) {
	for name, fails := range map[string]error{"failing": errors.New("not yet"), "postponed": retriable.Postpone(500 * time.Millisecond)} {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders orders.dead", func(b *bed) {
				m := &mortals{bed: b, opts: []retriable.Option{retriable.MaxPending(3)}, topic: func(h retriable.Handler) retriable.Option {
					return retriable.Topic("orders", h, retriable.DeadLetterTopic("orders.dead"), retriable.BlockingRetries(5, retriable.Constant(200*time.Millisecond)))
				}}
				b.produce("orders", 0, "a=slow", "b=slow", "c=kills", "d=fine")
				var mu sync.Mutex
				tries := map[string]int{}
				try := func(offset int64) (n, first int) {
					mu.Lock()
					defer mu.Unlock()
					life := fmt.Sprint(m.lives, "/", offset)
					tries[life]++
					return tries[life], tries[fmt.Sprint(m.lives, "/0")]
				}
				m.deaths(6, time.Minute, func(ctx context.Context, k *cable, msg *retriable.Message) error {
					n, first := try(msg.Offset)
					switch string(msg.Value) {
					case "kills":
						if m.lives == 1 || first > 2 {
							return kills(ctx, k)
						}
						return retriable.Postpone(700 * time.Millisecond)
					case "slow":
						if n < 5 {
							return fails
						}
					}
					return nil
				})
				letters := b.read("orders.dead")
				wantEqual(t, "dead letters", len(letters), 1)
				for _, r := range letters {
					wantEqual(t, "the letter", string(r.Value), "kills")
				}
			})
		})
	}
}

// Each of several is found, one after the other: the end of the first is told before the next has its turn, or it would all begin again with every life.
func TestRecordsThatKillOneAfterTheOtherAreAllDeadLettered(t *testing.T) {
	bubble(t, "orders orders.dead", func(b *bed) {
		m := &mortals{bed: b, topic: func(h retriable.Handler) retriable.Option {
			return retriable.Topic("orders", h, retriable.DeadLetterTopic("orders.dead"))
		}}
		b.produce("orders", 0, "a=kills", "b=kills", "c=kills", "d=fine")
		m.deaths(20, time.Minute, func(ctx context.Context, k *cable, msg *retriable.Message) error {
			if string(msg.Value) == "kills" {
				return kills(ctx, k)
			}
			return nil
		})
		wantEqual(t, "dead letters", len(b.read("orders.dead")), 3)
		wantEqual(t, "committed", b.committed("g", "orders", 0), 4)
	})
}

func TestNoOtherRecordIsGivenUp(t *testing.T) {
	bubble(t, "orders:3 orders.dead", func(b *bed) {
		m := &mortals{bed: b, topic: func(h retriable.Handler) retriable.Option {
			return retriable.Topic("orders", h, retriable.DeadLetterTopic("orders.dead"))
		}}
		b.produce("orders", 0, "slow")
		for range 4 { // before it kills it gets on, once more after each takeover
			b.produce("orders", 1, "a", "b")
		}
		b.produce("orders", 1, "killer")
		b.produce("orders", 2, "later")
		runs := 0
		m.deaths(15, 5*time.Minute, func(ctx context.Context, k *cable, msg *retriable.Message) error {
			switch string(msg.Value) {
			case "slow":
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Second):
				}
				return ctx.Err()
			case "killer":
				runs++
				time.Sleep(time.Duration(4-min(runs, 3)) * time.Second) // at first late, then sooner
				return kills(ctx, k)
			}
			return nil
		})
		var letters []string
		for _, r := range b.read("orders.dead") {
			letters = append(letters, string(r.Value))
		}
		wantEqual(t, "dead letters", letters, []string{"killer"})
	})
}

func TestWhoeverGivesUpInOrderIsNoCrash(t *testing.T) {
	eachProtocol(t, "orders:2 orders.dead", func(b *bed, kafka retriable.Option) {
		var d diary
		b.produce("orders", 0, "waits", "x", "y")
		for range 6 { // stops and hand-overs, never a step of progress
			topic := retriable.Topic("orders", d.handler("", func(_ context.Context, m *retriable.Message) error {
				if string(m.Value) == "waits" {
					return retriable.Postpone(time.Hour)
				}
				return nil
			}), retriable.DeadLetterTopic("orders.dead"))
			c := b.start("g", kafka, topic)
			time.Sleep(3 * time.Second)
			c2 := b.start("g", kafka, topic)
			time.Sleep(10 * time.Second)
			for _, r := range []*running{c, c2} {
				for _, p := range r.Stats().Partitions {
					if p.Careful {
						t.Errorf("%s/%d is careful", p.Topic, p.Partition)
					}
				}
			}
			c.clean()
			time.Sleep(10 * time.Second)
			c2.clean()
		}
		wantEqual(t, "of the others", len(d.of(func(v visit) bool { return v.value != "waits" })), 2)
		wantEqual(t, "dead letters", len(b.read("orders.dead")), 0)
	})
}

// A member that is counted out because nothing of it reaches the brokers cannot give up in order. That is no crash, however often it happens.
func TestAMemberThatIsCutOffIsNoCrash(t *testing.T) {
	eachProtocol(t, "orders orders.dead", func(b *bed, kafka retriable.Option) {
		var d diary
		b.produce("orders", 0, "waits", "x", "y")
		var members []*running
		var cables []*cable
		for range 2 {
			k := &cable{b: b, dumb: -1, deaf: -1}
			topic := retriable.Topic("orders", d.handler("", func(_ context.Context, m *retriable.Message) error {
				if string(m.Value) == "waits" {
					return retriable.Postpone(12 * time.Hour)
				}
				return nil
			}), retriable.DeadLetterTopic("orders.dead"))
			members, cables = append(members, b.start("g", kafka, topic, k.dialer())), append(cables, k)
			time.Sleep(10 * time.Second)
		}
		has := func(i int) bool { return len(members[i].Stats().Partitions) > 0 }
		taken := 0
		for i := range 8 {
			owner := 0
			if has(1) {
				owner = 1
			}
			k := cables[owner]
			k.cut()
			time.Sleep(3 * time.Minute)
			if has(1 - owner) {
				taken++
			}
			k.arm(func() { k.dead = false })
			time.Sleep(3 * time.Minute)
			for _, r := range members {
				for _, p := range r.Stats().Partitions {
					if p.Careful {
						t.Errorf("after %d times %s/%d is careful", i+1, p.Topic, p.Partition)
					}
				}
			}
		}
		wantEqual(t, "partitions that changed hands", taken, 8)
		for _, r := range members {
			r.clean()
		}
		wantEqual(t, "dead letters", len(b.read("orders.dead")), 0)
	})
}

// A record that runs for long holds the others up for StuckAfter and no longer, and is not taken for the cause, however often the process
// is ended while it runs.
func TestARecordThatRunsForLongIsNoCause(t *testing.T) {
	bubble(t, "orders:2 orders.dead", func(b *bed) {
		m := &mortals{bed: b, opts: []retriable.Option{retriable.StuckAfter(30 * time.Second)}, topic: func(h retriable.Handler) retriable.Option {
			return retriable.Topic("orders", h, retriable.DeadLetterTopic("orders.dead"))
		}}
		b.produce("orders", 0, "a=stuck", "b=x")
		b.produce("orders", 1, "c=y")
		for life := range 6 { // each is ended from outside two minutes after it began
			b.produce("orders", 1, fmt.Sprint("new ", life))
			began := time.Now()
			died := m.live(10*time.Minute, func(ctx context.Context, k *cable, msg *retriable.Message) error {
				if string(msg.Value) == "stuck" {
					time.Sleep(2*time.Minute - time.Since(began))
					return kills(ctx, k)
				}
				return nil
			})
			if !died {
				t.Fatal("it was given up")
			}
			news := m.d.of(func(v visit) bool { return v.value == fmt.Sprint("new ", life) })
			if len(news) != 1 || news[0].began.Sub(began) > 40*time.Second {
				t.Errorf("life %d: the others waited: %+v", life, news)
			}
		}
		wantEqual(t, "dead letters", len(b.read("orders.dead")), 0)
	})
}

func TestWithoutMaxCrashesNothingIsCounted(t *testing.T) {
	bubble(t, "orders orders.dead", func(b *bed) {
		m := &mortals{bed: b, opts: []retriable.Option{retriable.MaxCrashes(0)}, topic: func(h retriable.Handler) retriable.Option {
			return retriable.Topic("orders", h, retriable.DeadLetterTopic("orders.dead"))
		}}
		b.produce("orders", 0, "killer")
		for range 8 {
			if !m.live(time.Minute, func(ctx context.Context, k *cable, _ *retriable.Message) error { return kills(ctx, k) }) {
				t.Fatal("it was given up")
			}
			wantEqual(t, "metadata", b.cluster.GroupInfo("g").Commits["orders"][0].Metadata, "")
		}
		m.live(time.Minute, func(context.Context, *cable, *retriable.Message) error { return nil })
		wantEqual(t, "metadata of a clean stop", b.cluster.GroupInfo("g").Commits["orders"][0].Metadata, "")
		wantEqual(t, "committed", b.committed("g", "orders", 0), 1)
	})
}
