package kfake_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// keyed is n records over k keys, in turn, with values "key:number".
func keyed(n, k int) (vs []string) {
	for i := range n {
		vs = append(vs, fmt.Sprintf("k%d=k%d:%d", i%k, i%k, i))
	}
	return vs
}

// orders notes, by key and partition, which offsets started and whether two ran at once.
type starts struct {
	mu    sync.Mutex
	last  map[string]int64
	wrong []string
	n     int
}

func (s *starts) note(lane string, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = map[string]int64{}
	}
	if last, ok := s.last[lane]; ok && offset <= last {
		s.wrong = append(s.wrong, fmt.Sprintf("%s: %d after %d", lane, offset, last))
	}
	s.last[lane] = offset
	s.n++
}

func (s *starts) check(t *testing.T, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wrong) > 0 {
		t.Errorf("%d started out of order, as %s", len(s.wrong), s.wrong[0])
	}
	if s.n != n {
		t.Errorf("%d deliveries, want %d", s.n, n)
	}
}

func TestRecordsOfAKeyRunInTurnAndOthersMeanwhile(t *testing.T) { // I6
	const n, keys = 1200, 19 // few more than workers: the next of a key is at hand while one runs
	bubble(t, "orders:3", func(b *bed) {
		var s starts
		var c crowd
		r := b.begin("g", retriable.Concurrency(16), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			lane := fmt.Sprintf("%d/%s", m.Partition, m.Key)
			leave := c.enter(lane)
			s.note(lane, m.Offset)
			time.Sleep(rand.N(20 * time.Millisecond))
			if m.Offset%7 == 0 {
				time.Sleep(20 * time.Millisecond)
			}
			leave()
			return nil
		}), none()))
		for p := range int32(3) {
			b.produce("orders", p, keyed(n/3, keys)...)
			time.Sleep(100 * time.Millisecond) // lanes end and begin again
		}
		b.until("all handled", time.Minute, func() bool { return r.Stats().Handled == n })
		s.check(t, n)
		for lane, most := range c.most {
			if most != 1 {
				t.Errorf("%d records of %s ran at once", most, lane)
			}
		}
		if c.peak != 16 {
			t.Errorf("%d handlers ran at once, want all 16", c.peak)
		}
		r.clean()
	})
}

// The same key in two partitions is two lanes: the library promises order within a topic-partition only.
func TestAKeyIsALaneInEachPartition(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		gate := b.gate()
		var c crowd
		r := b.begin("g", retriable.Topic("orders", handles(func(m *retriable.Message) error {
			defer c.enter(strconv.Itoa(int(m.Partition)))()
			gate.wait()
			return nil
		}), none()))
		b.produce("orders", 0, "k=a", "k=b")
		b.produce("orders", 1, "k=c", "k=d")
		time.Sleep(time.Second)
		wantEqual(t, "running in 0, in 1", fmt.Sprint(c.now("0"), c.now("1")), "1 1")
		gate.open()
		b.until("all handled", time.Second, func() bool { return r.Stats().Handled == 4 })
		r.clean()
	})
}

// The items of a batch are used again once it is done: what a lane knows of its last record may be about another key's by then.
func TestALaneThatEndedWaitsForNoOther(t *testing.T) { // I6, I11
	const batch, batches = 256, 16
	bubble(t, "orders", func(b *bed) {
		gate := b.gate()
		var slow atomic.Int32
		r := b.begin("g", retriable.MaxPending(4*batch*batches), retriable.Concurrency(2*batch*batches), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			if m.Key[0] == 's' {
				slow.Add(1)
				gate.wait()
			}
			return nil
		}), none()))
		round := func(kind string) (vs []string) {
			for i := range batch * batches {
				vs = append(vs, fmt.Sprintf("%s%d=", kind, i))
			}
			return vs
		}
		b.produce("orders", 0, round("k")...)
		b.until("all lanes are ended", time.Minute, func() bool { return b.committed("g", "orders", 0) == batch*batches })
		b.produce("orders", 0, round("slow")...)
		b.until("the slow ones run", time.Minute, func() bool { return slow.Load() == batch*batches })
		b.produce("orders", 0, round("k")...)
		b.until("the lanes go on", time.Minute, func() bool { return r.Stats().Handled == 2*batch*batches })
		gate.open()
		b.until("all handled", time.Minute, func() bool { return r.Stats().Handled == 3*batch*batches })
		r.clean()
	})
}

func TestASlowKeyStopsOnlyItsLane(t *testing.T) { // I11
	bubble(t, "orders", func(b *bed) {
		slow := b.gate()
		var l ledger
		r := b.begin("g", retriable.Concurrency(4), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			if string(m.Key) == "slow" {
				slow.wait()
			}
			return nil
		}), none()))
		var vs []string
		for i := range 300 {
			vs = append(vs, fmt.Sprintf("slow=s%d", i), fmt.Sprintf("k%d=q%d", i%7, i))
		}
		b.produce("orders", 0, vs...)
		b.until("all others handled", time.Second, func() bool { return r.Stats().Handled == 300 })
		wantEqual(t, "deliveries of the slow key", len(l.of("s0")), 1)
		wantEqual(t, "deliveries of the one behind it", len(l.of("s1")), 0)
		p := r.partition("orders", 0)
		wantEqual(t, "running, pending, watermark", fmt.Sprint(p.Running, p.Pending, p.Watermark), "1 300 0")
		slow.open()
		b.until("all handled", time.Second, func() bool { return r.Stats().Handled == 600 })
		l.once(t, 600)
		r.clean()
	})
}

// Lanes of 1 to 200 records, some of which come while their lane runs, some after it has ended, and all verdicts among them.
func TestALaneKeepsItsOrderWhateverItsRecordsSay(t *testing.T) { // I6
	const n = 2000
	bubble(t, "orders orders.retry:2", func(b *bed) {
		var s starts
		var c crowd
		mix := rand.New(rand.NewPCG(1, 2))
		r := b.begin("g", retriable.Concurrency(8), retriable.MaxPending(150), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			lane := fmt.Sprintf("%s/%d/%s", m.Source.Topic, m.Source.Partition, m.Key)
			defer c.enter(lane)()
			what, _ := strconv.Atoi(strings.Split(string(m.Value), ":")[1])
			if m.Source.Topic == "orders" && what%11 != 5 { // what is postponed comes back later, out of turn
				s.note(lane, m.Source.Offset)
			}
			if what%3 == 0 {
				time.Sleep(time.Duration(what%7) * time.Millisecond)
			}
			switch {
			case m.Attempt > 1:
				return nil
			case what%11 == 2:
				return fmt.Errorf("again")
			case what%11 == 3:
				return retriable.Drop(fmt.Errorf("away"))
			case what%11 == 4:
				panic("no")
			case what%11 == 5 && rand.N(3) > 0:
				return retriable.Postpone(time.Duration(what%50) * time.Millisecond)
			}
			return nil
		}), none(), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(100*time.Millisecond))))
		var vs []string
		for i := range n {
			k := mix.IntN(60)
			if k > 20 {
				k %= 3 // three keys have two thirds of it
			}
			vs = append(vs, fmt.Sprintf("k%d=k%d:%d", k, k, i))
			if len(vs) == 200 {
				b.produce("orders", 0, vs...)
				vs = nil
				time.Sleep(time.Duration(mix.IntN(100)) * time.Millisecond)
			}
		}
		done := func() bool { st := r.Stats(); return st.Handled+st.Dropped == n }
		b.until("all resolved", 5*time.Minute, done)
		for lane, most := range c.most {
			if most != 1 {
				t.Errorf("%d records of %s ran at once", most, lane)
			}
		}
		if len(s.wrong) > 0 {
			t.Errorf("%d started out of order, as %s", len(s.wrong), s.wrong[0])
		}
		time.Sleep(2 * time.Second)
		wantEqual(t, "committed", b.committed("g", "orders", 0), n)
		r.clean()
	})
}

func TestRecordsWithoutAKeyRunInParallel(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var c crowd
		all := b.gate()
		r := b.begin("g", retriable.Concurrency(16), retriable.Topic("orders", handles(func(*retriable.Message) error {
			defer c.enter("")()
			all.wait()
			return nil
		}), none()))
		b.produce("orders", 0, seq(40)...)
		time.Sleep(time.Second)
		wantEqual(t, "running", c.now(""), 16)
		all.open()
		b.until("all handled", time.Second, func() bool { return r.Stats().Handled == 40 })
		r.clean()
	})
}

// An empty key is a key.
func TestAnEmptyKeyIsALane(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var c crowd
		r := b.begin("g", retriable.Topic("orders", handles(func(*retriable.Message) error {
			defer c.enter("")()
			time.Sleep(time.Millisecond)
			return nil
		}), none()))
		for i := range 10 {
			b.send(&kgo.Record{Topic: "orders", Key: []byte{}, Value: []byte(strconv.Itoa(i))})
		}
		b.until("all handled", time.Second, func() bool { return r.Stats().Handled == 10 })
		wantEqual(t, "at once", c.most[""], 1)
		r.clean()
	})
}

func TestByPartitionRunsAPartitionInTurn(t *testing.T) { // I6
	const n = 150
	bubble(t, "orders:3", func(b *bed) {
		var s starts
		var c crowd
		r := b.begin("g", retriable.Concurrency(8), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			lane := strconv.Itoa(int(m.Partition))
			defer c.enter(lane)()
			s.note(lane, m.Offset)
			time.Sleep(rand.N(10 * time.Millisecond))
			return nil
		}), none(), retriable.Ordering(retriable.ByPartition)))
		for p := range int32(3) {
			b.produce("orders", p, keyed(n, 9)...)
		}
		b.until("all handled", time.Minute, func() bool { return r.Stats().Handled == 3*n })
		s.check(t, 3*n)
		for p, most := range c.most {
			if most != 1 {
				t.Errorf("%d records of partition %s ran at once", most, p)
			}
		}
		wantEqual(t, "handlers at once", c.peak, 3)
		r.clean()
	})
}

// A failed record leaves the turn and waits in the retry topic; what is postponed waits in memory: neither holds the partition up.
func TestByPartitionGoesOnBehindWhatWaits(t *testing.T) {
	bubble(t, "orders orders.retry", func(b *bed) {
		var l ledger
		r := b.begin("g", retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			switch {
			case m.Attempt == 1 && string(m.Value) == "1":
				return fmt.Errorf("again")
			case len(l.of("2")) == 1 && string(m.Value) == "2":
				return retriable.Postpone(time.Minute)
			}
			return nil
		}), none(), retriable.Ordering(retriable.ByPartition), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(2*time.Minute))))
		b.produce("orders", 0, seq(5)...)
		time.Sleep(3 * time.Minute)
		wantEqual(t, "deliveries", l.values(), []string{"0", "1", "2", "3", "4", "2", "1"})
		r.clean()
	})
}

func TestUnorderedRunsAllAtOnce(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var barrier sync.WaitGroup
		barrier.Add(16)
		r := b.begin("g", retriable.Concurrency(16), retriable.Topic("orders", handles(func(*retriable.Message) error {
			barrier.Done()
			barrier.Wait() // until all sixteen are here: one key, one partition
			return nil
		}), none(), retriable.Ordering(retriable.Unordered)))
		b.produce("orders", 0, keyed(16, 1)...)
		b.until("all handled", time.Second, func() bool { return r.Stats().Handled == 16 })
		r.clean()
	})
}

func TestConcurrencyIsNeverExceeded(t *testing.T) {
	const n = 1500
	bubble(t, "orders:4 payments:2 orders.retry", func(b *bed) {
		var c crowd
		h := handles(func(m *retriable.Message) error {
			defer c.enter("")()
			time.Sleep(rand.N(10 * time.Millisecond))
			if m.Attempt == 1 && rand.N(10) == 0 {
				return fmt.Errorf("again")
			}
			return nil
		})
		r := b.begin("g", retriable.Concurrency(5),
			retriable.Topic("orders", h, none(), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(10*time.Millisecond))),
			retriable.Topic("payments", h, none(), retriable.Ordering(retriable.Unordered), retriable.Filter(func(*kgo.Record) bool { return true })))
		for p := range int32(4) {
			b.produce("orders", p, keyed(n/6, 50)...)
			b.produce("payments", p%2, keyed(n/12, 50)...)
			wantEqual(t, "workers", r.Stats().Workers, 5)
			if n := r.Stats().Running; n > 5 {
				t.Errorf("Stats.Running: %d", n)
			}
		}
		b.until("all handled", time.Minute, func() bool { st := r.Stats(); return st.Handled+st.Dropped == n })
		wantEqual(t, "handlers at once", c.peak, 5)
		r.clean()
	})
}

func TestPartitionsTakeTurnsHoweverSlowTheirHandlersAre(t *testing.T) { // I11
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders:4", func(b *bed) {
				var l ledger
				r := b.begin("g", retriable.Concurrency(1), retriable.Topic("orders", handles(func(m *retriable.Message) error {
					l.note(m)
					time.Sleep(100 * time.Millisecond)
					return nil
				}), none(), retriable.Ordering(order)))
				b.produce("orders", 0, keyed(40, 40)...)
				pass(time.Second) // it is in the middle of a long turn
				for p := range int32(3) {
					b.produce("orders", p+1, keyed(40, 40)...)
				}
				b.until("all handled", time.Minute, func() bool { return r.Stats().Handled == 160 })
				ds := l.all()[15:]
				for i := range 25 * 4 { // while all have some
					if seen := distinct(ds[i : i+4]); seen < 3 {
						t.Errorf("%d to %d: of four partitions %d had a turn", i, i+3, seen)
					}
				}
				r.clean()
			})
		})
	}
}

// distinct returns of how many partitions they are.
func distinct(ds []delivery) int {
	parts := map[int32]struct{}{}
	for _, d := range ds {
		parts[d.source.Partition] = struct{}{}
	}
	return len(parts)
}

// stuckIn is a handler that blocks in some partitions, until end, and is quick in the others.
func stuckIn(b *bed, c *crowd, stuck func(partition int32) bool) (h retriable.HandlerFunc, end func()) {
	gate := b.gate()
	return func(_ context.Context, m *retriable.Message) error {
		defer c.enter(strconv.Itoa(int(m.Partition)))()
		if stuck(m.Partition) {
			gate.wait()
		}
		return nil
	}, gate.open
}

func TestAStuckPartitionLeavesAQuarterOfTheWorkersToTheOthers(t *testing.T) { // I11
	for workers, share := range map[int]int{2: 1, 4: 3, 16: 12} {
		t.Run(strconv.Itoa(workers), func(t *testing.T) {
			bubble(t, "orders:4", func(b *bed) {
				var c crowd
				h, end := stuckIn(b, &c, func(p int32) bool { return p == 0 })
				r := b.begin("g", retriable.Concurrency(workers), retriable.Topic("orders", h, none()))
				b.produce("orders", 0, keyed(60, 30)...)
				for p := range int32(3) {
					b.produce("orders", p+1, keyed(200, 30)...)
				}
				b.until("the others are handled", time.Second, func() bool { return r.Stats().Handled == 600 })
				time.Sleep(3 * time.Minute) // and long after StuckAfter
				most, all := c.mostOf("0")
				wantEqual(t, "workers at the stuck partition", most, share)
				if all > workers {
					t.Errorf("%d handlers at once, want at most %d", all, workers)
				}
				b.produce("orders", 2, keyed(200, 30)...)
				b.until("more of the others", time.Second, func() bool { return r.Stats().Handled == 800 })
				end()
				b.until("all", time.Second, func() bool { return r.Stats().Handled == 860 })
				r.clean()
			})
		})
	}
}

func TestAPartitionAloneMayHaveAllWorkers(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var c crowd
		h, end := stuckIn(b, &c, func(int32) bool { return true })
		r := b.begin("g", retriable.Concurrency(8), retriable.Topic("orders", h, none()))
		b.produce("orders", 0, keyed(20, 20)...)
		time.Sleep(time.Second)
		wantEqual(t, "running", c.now("0"), 8)
		end()
		r.clean()
	})
}

func TestWhatIsStuckInSeveralPartitionsDoesNotStopTheRest(t *testing.T) { // I11
	bubble(t, "orders:4", func(b *bed) {
		var c crowd
		h, end := stuckIn(b, &c, func(p int32) bool { return p < 3 })
		r := b.begin("g", retriable.Concurrency(8), retriable.StuckAfter(10*time.Second), retriable.Topic("orders", h, none()))
		for p := range int32(3) {
			b.produce("orders", p, keyed(3-int(p)/2, 3)...) // 3, 3, 2: each has some of the workers
		}
		pass(2 * time.Second)
		wantEqual(t, "stuck workers", c.all, 8)
		b.produce("orders", 3, keyed(500, 20)...)
		time.Sleep(2 * time.Second)
		wantEqual(t, "handled before anyone is known to be stuck", r.Stats().Handled, 0)
		b.until("the rest is handled", 15*time.Second, func() bool { return r.Stats().Handled == 500 })
		pass(5 * time.Minute)
		if c.peak > 10 {
			t.Errorf("%d handlers at once, want at most 8 and a quarter", c.peak)
		}
		b.produce("orders", 3, keyed(500, 20)...)
		b.until("more of the rest", time.Second, func() bool { return r.Stats().Handled == 1000 })

		// What was lent is given back once nothing is stuck any more.
		end()
		b.until("all", time.Second, func() bool { return r.Stats().Handled == 1008 })
		time.Sleep(time.Minute)
		c.mu.Lock()
		c.peak = 0
		c.mu.Unlock()
		b.produce("orders", 3, keyed(500, 20)...)
		b.until("all again", time.Second, func() bool { return r.Stats().Handled == 1508 })
		if c.peak > 8 {
			t.Errorf("%d handlers at once after the incident, want at most 8", c.peak)
		}
		r.clean()
	})
}

// One partition after the other gets stuck, also on the workers that were lent because of those before.
func TestPartitionsThatGetStuckOneByOneDoNotStopTheRest(t *testing.T) { // I11
	bubble(t, "orders:7", func(b *bed) {
		var c crowd
		h, end := stuckIn(b, &c, func(p int32) bool { return p < 6 })
		r := b.begin("g", retriable.Concurrency(8), retriable.StuckAfter(10*time.Second), retriable.Topic("orders", h, none()))
		for p := range int32(6) {
			b.produce("orders", p, keyed(20, 20)...)
			time.Sleep(time.Minute)
		}
		time.Sleep(10 * time.Minute) // what is stuck gets no more of what is lent, however long it lasts
		b.produce("orders", 6, keyed(500, 20)...)
		b.until("the rest is handled", 15*time.Second, func() bool { return r.Stats().Handled == 500 })
		end()
		r.clean()
	})
}

// Handlers that are slow but end, in all partitions, are not stuck: nobody is lent.
func TestSlowHandlersAreNotStuck(t *testing.T) {
	bubble(t, "orders:3", func(b *bed) {
		var c crowd
		r := b.begin("g", retriable.Concurrency(4), retriable.StuckAfter(10*time.Second), retriable.Topic("orders", handles(func(*retriable.Message) error {
			defer c.enter("")()
			time.Sleep(7 * time.Second)
			return nil
		}), none()))
		for p := range int32(3) {
			b.produce("orders", p, keyed(12, 12)...)
		}
		b.until("all handled", 5*time.Minute, func() bool { return r.Stats().Handled == 36 })
		wantEqual(t, "handlers at once", c.peak, 4)
		r.clean()
	})
}

func TestAHandlerThatIsStuckKeepsItsLaneOnly(t *testing.T) { // I11: with more keys behind it than workers
	bubble(t, "orders", func(b *bed) {
		var c crowd
		stuck := b.gate()
		r := b.begin("g", retriable.Concurrency(2), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			defer c.enter(string(m.Key))()
			if string(m.Key) == "k3" {
				stuck.wait()
			}
			return nil
		}), none()))
		b.produce("orders", 0, keyed(500, 10)...)
		b.until("all others handled", time.Second, func() bool { return r.Stats().Handled == 450 })
		stuck.open()
		synctest.Wait()
		b.until("all handled", time.Second, func() bool { return r.Stats().Handled == 500 })
		wantEqual(t, "of the stuck key at once", c.most["k3"], 1)
		r.clean()
	})
}
