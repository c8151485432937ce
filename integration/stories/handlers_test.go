package stories_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Batches with poison, half of them told of and half failing as a whole, while another member joins and the first one leaves: everything else
// succeeds once, the poison is dead after its attempts.
func TestBatchesGoThroughARebalance(t *testing.T) {
	const n, partitions, every, attempts = 10_000, 4, 500, 3
	b := story(t, time.Minute)
	base, retry, dead, group := b.topic("orders", partitions), b.topic("retry", 2), b.topic("dead", 1), b.name("group")
	poison := func(i int) bool { return i%every == every-1 }
	var mu sync.Mutex
	succeeded, tried := make([]int, n), map[int][]int{}
	settle := func(_ context.Context, ms []*retriable.Message) error {
		b.pass(30 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		failed := map[int]error{}
		var well []int
		for at, m := range ms {
			i, _ := strconv.Atoi(string(m.Value))
			if !poison(i) {
				well = append(well, i)
				continue
			}
			failed[at] = errors.New("poison")
			if !slices.Contains(tried[i], m.Attempt) {
				tried[i] = append(tried[i], m.Attempt)
			}
		}
		if len(failed) > 0 && ms[0].Source.Partition%2 == 1 {
			return errors.New("poison, somewhere")
		}
		for _, i := range well {
			succeeded[i]++
		}
		if len(failed) > 0 {
			return &retriable.BatchError{Errs: failed}
		}
		return nil
	}
	join := func(workers int) *running {
		return b.start(group, retriable.Concurrency(workers), retriable.BatchTopic(base, settle, retriable.BatchSize(50), retriable.RetryTopic(retry),
			retriable.DeadLetterTopic(dead), retriable.MaxAttempts(attempts), retriable.Backoff(retriable.Constant(100*time.Millisecond))))
	}
	half := func(from int) {
		var rs []*kgo.Record
		for i := from; i < from+n/2; i++ {
			rs = append(rs, &kgo.Record{Topic: base, Partition: int32(i / every % partitions), Key: fmt.Appendf(nil, "k%d", i%every/2), Value: []byte(strconv.Itoa(i))})
		}
		b.produce(rs...)
	}
	one := join(1)
	half(0)
	b.await("batches run", 20*time.Second, func() bool { return one.Stats().Handled > 0 })
	two := join(4)
	b.await("both have partitions", 20*time.Second, func() bool { return len(two.Stats().Partitions) > 0 && len(one.Stats().Partitions) > 0 })
	handled := one.Stats().Handled
	half(n / 2)
	b.await("the other works", 20*time.Second, func() bool { return two.Stats().Handled > 0 })
	one.clean()
	total := func() (handled, dead uint64) {
		s, o := one.Stats(), two.Stats()
		return s.Handled + o.Handled, s.DeadLettered + o.DeadLettered
	}
	b.await("all are settled", 30*time.Second, func() bool { h, d := total(); return h+d >= n })
	two.clean()

	t.Logf("%d handled when the second had partitions, %d by the first in all", handled, one.Stats().Handled)
	if handled >= n/2 {
		t.Error("the first half was done before the hand-over, which shows nothing")
	}
	h, d := total()
	b.wantEqual("handled and dead-lettered", fmt.Sprint(h, d), fmt.Sprint(n-n/every, n/every))
	for i, times := range succeeded {
		if times != b2i(!poison(i)) {
			t.Errorf("%d succeeded %d times", i, times)
		}
		if poison(i) && !counts(tried[i], attempts) {
			t.Errorf("%d: attempts %v", i, tried[i])
		}
	}
	letters := b.read(dead)
	b.wantEqual("dead letters", len(letters), n/every)
	for _, r := range letters {
		b.wantHeader(r, "__dlq.errors.delivery.count", attempts)
	}
	b.wantAllCommitted(group, base)
	b.wantAllCommitted(group, retry)
}

// Retries in place, without a retry topic, across a hand-over: each key's records succeed once and in their order.
func TestRetriesInPlaceKeepTheOrder(t *testing.T) {
	const keys, each, partitions = 40, 20, 4
	b := story(t, time.Minute)
	topic, group := b.topic("orders", partitions), b.name("group")
	var mu sync.Mutex
	done, failures, ended := map[string][]int{}, map[string]int{}, 0
	h := handles(func(m *retriable.Message) error {
		b.pass(2 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		key, at := string(m.Key), string(m.Key)+":"+string(m.Value)
		i, _ := strconv.Atoi(string(m.Value))
		if i%5 == 2 && failures[at] < 2 {
			failures[at]++
			return errors.New("not yet")
		}
		done[key] = append(done[key], i)
		ended++
		return nil
	})
	count := func() int { mu.Lock(); defer mu.Unlock(); return ended }
	join := func() *running {
		return b.start(group, retriable.Concurrency(8), retriable.Topic(topic, h, retriable.NoDeadLetters(),
			retriable.BlockingRetries(3, retriable.Constant(150*time.Millisecond))))
	}
	one := join()
	half := func(from int) {
		var rs []*kgo.Record
		for i := from; i < from+each/2; i++ {
			for k := range keys {
				rs = append(rs, &kgo.Record{Topic: topic, Partition: int32(k % partitions), Key: fmt.Appendf(nil, "k%d", k), Value: []byte(strconv.Itoa(i))})
			}
		}
		b.produce(rs...)
	}
	half(0)
	two := join()
	b.await("both have partitions", 20*time.Second, func() bool { return len(two.Stats().Partitions) == partitions/2 })
	half(each / 2)
	b.await("the second works", 20*time.Second, func() bool { return two.Stats().Handled > 0 })
	one.clean()
	b.await("all are handled", 20*time.Second, func() bool { return count() >= keys*each })
	two.clean()
	var want []int
	for i := range each {
		want = append(want, i)
	}
	for k := range keys {
		b.wantEqual(fmt.Sprintf("what succeeded of key %d", k), done[fmt.Sprintf("k%d", k)], want)
	}
	s, o := one.Stats(), two.Stats()
	b.wantEqual("failed, retried, dead, dropped", fmt.Sprint(s.Failed+o.Failed, s.Retried+o.Retried, s.DeadLettered+o.DeadLettered, s.Dropped+o.Dropped),
		fmt.Sprint(keys*each/5*2, 0, 0, 0))
	b.wantAllCommitted(group, topic)
}

// A rate of 200 a second with a burst of 100, over four seconds in which there is always more: within 3 % of what it lets through, and another topic
// does not wait for it. The burst makes up for half a second in which this process gets no processor.
func TestARateIsKeptOverSecondsOfRealTime(t *testing.T) {
	const rate, burst, span = 200.0, 100, 4 * time.Second
	b := story(t, time.Minute)
	limited, free, group := b.topic("limited", 4), b.topic("free", 4), b.name("group")
	b.send(limited, numbered("l", 2_000)...)
	b.send(free, numbered("f", 5_000)...)
	var mu sync.Mutex
	var starts []time.Time
	var others atomic.Int64
	began := time.Now()
	var freeTook atomic.Int64
	c := b.start(group, retriable.Concurrency(8), retriable.Defaults(retriable.NoDeadLetters()),
		retriable.Topic(limited, handles(func(*retriable.Message) error {
			mu.Lock()
			defer mu.Unlock()
			starts = append(starts, time.Now())
			return nil
		}), retriable.RateLimit(rate, burst)),
		retriable.Topic(free, handles(func(*retriable.Message) error {
			if others.Add(1) == 5_000 {
				freeTook.Store(int64(time.Since(began)))
			}
			return nil
		})))
	b.await("the first starts", 20*time.Second, func() bool { mu.Lock(); defer mu.Unlock(); return len(starts) > 0 })
	b.pass(span + 100*time.Millisecond)
	c.clean()
	n, _ := slices.BinarySearchFunc(starts, starts[0].Add(span), time.Time.Compare)
	want := burst + rate*span.Seconds()
	t.Logf("%d starts in %v, want %.0f; 5,000 of the other topic took %v with the start", n, span, want, time.Duration(freeTook.Load()).Round(time.Millisecond))
	if off := float64(n)/want - 1; off < -0.03 || off > 0.03 {
		t.Errorf("%d starts in %v are %.1f %% off %.0f", n, span, 100*off, want)
	}
	if others.Load() != 5_000 {
		t.Errorf("%d of the other topic's records were handled beside it", others.Load())
	}
}

// A member that has paused a topic keeps it paused through hand-overs, while another one goes on with its own share.
func TestAPauseLastsThroughARebalance(t *testing.T) {
	const n = 200
	b := story(t, time.Minute)
	topic, group := b.topic("orders", 4), b.name("group")
	var l tally
	h := handles(func(m *retriable.Message) error { l.note(m); return nil })
	one := b.start(group, retriable.Topic(topic, h, retriable.NoDeadLetters()))
	b.send(topic, numbered("before-", n)...)
	b.await("it works", 20*time.Second, func() bool { return one.Stats().Handled == n })
	one.Pause(topic)
	b.send(topic, numbered("paused-", n)...)
	b.pass(500 * time.Millisecond)
	b.wantEqual("handled while it is paused", one.Stats().Handled, n)

	two := b.start(group, retriable.Topic(topic, h, retriable.NoDeadLetters()))
	b.await("the other has handled its share", 20*time.Second, func() bool {
		return len(two.Stats().Partitions) == 2 && !slices.ContainsFunc(two.Stats().Partitions, func(p retriable.PartitionStats) bool { return p.Watermark < p.End })
	})
	share := two.Stats().Handled
	if share == 0 || share == n {
		t.Errorf("the other handled %d of %d", share, n)
	}
	two.clean()
	b.send(topic, numbered("late-", n)...)
	b.await("all is back", 20*time.Second, func() bool { return len(one.Stats().Partitions) == 4 })
	b.pass(500 * time.Millisecond)
	b.wantEqual("handled while it is paused and has all", one.Stats().Handled, n)
	for _, p := range one.Stats().Partitions {
		b.wantEqual(fmt.Sprintf("partition %d is paused", p.Partition), p.Paused, true)
	}
	if err := one.health(); err != nil {
		t.Errorf("Health: %v", err)
	}
	one.Resume(topic)
	b.await("the rest is handled", 20*time.Second, func() bool { return one.Stats().Handled+share == 3*n })
	one.clean()
	l.each(b, slices.Concat(numbered("before-", n), numbered("paused-", n), numbered("late-", n)), 1)
	b.wantAllCommitted(group, topic)
}

// What a handler writes is acked before its record is committed, waited for or not, and a handler whose partition is another's by now writes nothing.
func TestWhatAHandlerProducesIsFenced(t *testing.T) {
	b := story(t, time.Minute)
	orders, invoices, group := b.topic("orders", 2), b.topic("invoices", 1), b.name("group")
	var l tally
	var begun atomic.Int64
	release := make(chan struct{})
	defer func() { // before the consumers are stopped, whatever happens
		select {
		case <-release:
		default:
			close(release)
		}
	}()
	var mu sync.Mutex
	said := map[int32]error{} // by the handlers that were slow
	h := retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
		first := l.note(m) == 1
		switch v := string(m.Value); {
		case strings.HasPrefix(v, "slow") && first:
			begun.Add(1)
			<-release
			err := m.Produce(context.WithoutCancel(ctx), &kgo.Record{Topic: invoices, Value: m.Value})
			mu.Lock()
			defer mu.Unlock()
			said[m.Partition] = err
			return err
		case strings.HasPrefix(v, "hasty"):
			short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			defer cancel()
			if err := m.Produce(short, &kgo.Record{Topic: invoices, Value: m.Value}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Produce with little time: %v", err)
			}
			return nil
		}
		return m.Produce(ctx, &kgo.Record{Topic: invoices, Value: m.Value})
	})
	join := func() *running {
		return b.start(group, retriable.Kafka(kgo.ProducerLinger(300*time.Millisecond)), retriable.DrainTimeout(time.Second),
			retriable.CommitInterval(50*time.Millisecond), retriable.Topic(orders, h, retriable.NoDeadLetters()))
	}
	one := join()
	b.produce(&kgo.Record{Topic: orders, Partition: 0, Key: []byte("a"), Value: []byte("hasty-0")})
	for b.committed(group, orders)[0] < 1 {
		if err := context.Cause(b.limit); err != nil {
			t.Fatal(err)
		}
		b.pass(20 * time.Millisecond)
	}
	b.wantEqual("invoices once the first order is committed", b.ends(invoices), map[int32]int64{0: 1})
	b.produce(&kgo.Record{Topic: orders, Partition: 0, Key: []byte("a"), Value: []byte("slow-0")}, &kgo.Record{Topic: orders, Partition: 1, Key: []byte("b"), Value: []byte("slow-1")})
	b.await("both slow ones run", 20*time.Second, func() bool { return begun.Load() == 2 })
	two := join()
	b.await("one of them is begun again elsewhere", 30*time.Second, func() bool { return two.Stats().Handled == 1 })
	taken := two.Stats().Partitions[0].Partition
	b.wantEqual("invoices", b.ends(invoices), map[int32]int64{0: 2})
	close(release)
	b.await("both have come back", 20*time.Second, func() bool { mu.Lock(); defer mu.Unlock(); return len(said) == 2 })
	if err := said[taken]; !errors.Is(err, retriable.ErrRevoked) || errors.Is(err, retriable.ErrShutdown) {
		t.Errorf("Produce after the fence: %v, want ErrRevoked alone", err)
	}
	if err := said[1-taken]; err != nil {
		t.Errorf("Produce of a partition that stayed: %v", err)
	}
	one.clean()
	two.clean()
	var got []string
	for _, r := range b.read(invoices) {
		got = append(got, string(r.Value))
	}
	slices.Sort(got)
	b.wantEqual("invoices", got, []string{"hasty-0", "slow-0", "slow-1"})
	b.wantAllCommitted(group, orders)
}

// breadth counts who is inside at once.
type breadth struct {
	mu       sync.Mutex
	now, top map[string]int
}

func (c *breadth) enter(names ...string) (leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil {
		c.now, c.top = map[string]int{}, map[string]int{}
	}
	for _, name := range names {
		c.now[name]++
		c.top[name] = max(c.top[name], c.now[name])
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, name := range names {
			c.now[name]--
		}
	}
}

// tops is the most of each so far.
func (c *breadth) tops() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.top)
}

// A topic's own bound holds beneath the member's, its retry topic included, and its neighbour has the other workers.
func TestATopicHasItsOwnConcurrency(t *testing.T) {
	const n = 100
	b := story(t, time.Minute)
	narrow, retry, wide, group := b.topic("narrow", 4), b.topic("retry", 2), b.topic("wide", 4), b.name("group")
	var c breadth
	h := func(name string) retriable.Handler {
		return handles(func(m *retriable.Message) error {
			defer c.enter(name)()
			b.pass(10 * time.Millisecond)
			if name == "narrow" && m.Attempt == 1 && m.Offset%2 == 0 {
				return errors.New("not yet")
			}
			return nil
		})
	}
	b.send(narrow, numbered("n", n)...)
	b.send(wide, numbered("w", 4*n)...)
	r := b.start(group, retriable.Concurrency(8), retriable.Defaults(retriable.NoDeadLetters()),
		retriable.Topic(narrow, h("narrow"), retriable.TopicConcurrency(2), retriable.RetryTopic(retry), retriable.Backoff(retriable.Constant(0))),
		retriable.Topic(wide, h("wide")))
	b.await("all are handled", 30*time.Second, func() bool { return r.Stats().Handled == 5*n })
	r.clean()
	t.Logf("at once: %v", c.top)
	if c.top["narrow"] != 2 || c.top["wide"] < 6 {
		t.Errorf("at once: %v, want 2 of the narrow and at least 6 of the wide", c.top)
	}
	for _, topic := range []string{narrow, retry, wide} {
		b.wantAllCommitted(group, topic)
	}
}

// What cannot be decoded is dead on its first attempt, byte for byte, and its reason holds nothing of it.
func TestUndecodableBodiesAreDeadLetteredAsTheyAre(t *testing.T) {
	b := story(t, time.Minute)
	base, retry, dead, group := b.topic("orders", 1), b.topic("retry", 1), b.topic("dead", 1), b.name("group")
	type order struct {
		ID int `json:"id"`
	}
	const secret = "4111-1111"
	bad := [][]byte{nil, {}, {0, 0xff, 0xfe, '{'}, []byte(`{"id":`), []byte(`{"id":"` + secret + `"}`), []byte(`[1]`), bytes.Repeat([]byte{0x80, 0}, 100_000)}
	var rs []*kgo.Record
	for i, v := range bad {
		rs = append(rs,
			&kgo.Record{Topic: base, Key: []byte{0xff, byte(i)}, Value: v, Headers: []kgo.RecordHeader{{Key: "twice", Value: []byte{0xfe}}, {Key: "twice"}}},
			&kgo.Record{Topic: base, Key: []byte{0xff, byte(i)}, Value: fmt.Appendf(nil, `{"id":%d}`, i)})
	}
	b.produce(rs...)
	var mu sync.Mutex
	var ids []int
	c := b.start(group, retriable.Topic(base, retriable.JSON(func(_ context.Context, o order, _ *retriable.Message) error {
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, o.ID)
		return nil
	}), retriable.RetryTopic(retry), retriable.DeadLetterTopic(dead)))
	b.await("all are settled", 20*time.Second, func() bool { s := c.Stats(); return int(s.Handled+s.DeadLettered) == len(rs) })
	c.clean()
	slices.Sort(ids)
	b.wantEqual("decoded", ids, []int{0, 1, 2, 3, 4, 5, 6})
	b.wantEqual("copies in the retry topic", b.ends(retry), map[int32]int64{0: 0})
	letters := b.read(dead)
	b.wantEqual("dead letters", len(letters), len(bad))
	for _, r := range letters {
		i := int(r.Key[1])
		if r.Key[0] != 0xff || !bytes.Equal(r.Value, bad[i]) || (r.Value == nil) != (bad[i] == nil) {
			t.Errorf("the letter of body %d has key %x and %d bytes, not those that were sent", i, r.Key, len(r.Value))
		}
		if h := r.Headers; len(h) < 2 || h[0].Key != "twice" || !bytes.Equal(h[0].Value, []byte{0xfe}) || h[1].Key != "twice" || h[1].Value != nil {
			t.Errorf("the letter of body %d has the headers %v", i, h)
		}
		b.wantHeader(r, "__dlq.errors.delivery.count", 1)
		for _, h := range r.Headers {
			if strings.Contains(string(h.Value), secret) {
				t.Errorf("header %s tells of the body: %s", h.Key, h.Value)
			}
		}
	}
	b.wantAllCommitted(group, base)
}

// A downstream is away for two seconds and a gate bars its topic meanwhile: no attempt is spent, nothing is dead, and all goes on once it is back.
func TestAGateWaitsForTheDownstream(t *testing.T) {
	const n, ask = 2_000, 100 * time.Millisecond
	b := story(t, time.Minute)
	base, retry, dead, other, group := b.topic("orders", 4), b.topic("retry", 2), b.topic("dead", 1), b.topic("other", 4), b.name("group")
	var l tally
	var down atomic.Bool
	var again, calls atomic.Int64
	c := b.start(group, retriable.Concurrency(8), retriable.Topic(base, handles(func(m *retriable.Message) error {
		calls.Add(1)
		b.pass(time.Millisecond)
		if down.Load() {
			return retriable.Postpone(ask)
		}
		if m.Attempt != 1 {
			again.Add(1)
		}
		l.note(m)
		return nil
	}), retriable.RetryTopic(retry), retriable.DeadLetterTopic(dead), retriable.MaxAttempts(1), retriable.Gate(func() time.Duration {
		if down.Load() {
			return ask
		}
		return 0
	})), retriable.Topic(other, handles(func(m *retriable.Message) error { l.note(m); return nil }), retriable.NoDeadLetters()))
	b.send(base, numbered("n", n)...)
	b.await("it works", 20*time.Second, func() bool { return c.Stats().Handled > 50 })
	down.Store(true)
	b.pass(200 * time.Millisecond) // what was let in has ended
	barred := calls.Load()
	if barred >= n {
		t.Fatal("all were called before the downstream went away, which shows nothing")
	}
	b.send(other, numbered("other-", 100)...)
	b.pass(2 * time.Second)
	b.wantEqual("calls while it is barred", calls.Load(), barred)
	var others int
	for _, p := range c.Stats().Partitions {
		if p.Topic == other {
			others += int(p.Watermark)
		}
	}
	b.wantEqual("handled of the other topic meanwhile", others, 100)
	down.Store(false)
	back := time.Now()
	b.await("all are handled", 20*time.Second, func() bool { return l.len() == n+100 })
	took := time.Since(back)
	c.clean()
	t.Logf("%d calls before it was barred; the rest within %v of its return", barred, took.Round(time.Millisecond))
	if took > 4*time.Second {
		t.Errorf("it took %v after the return", took)
	}
	b.wantEqual("second attempts", again.Load(), 0)
	b.wantEqual("dead letters", b.ends(dead), map[int32]int64{0: 0})
	l.each(b, slices.Concat(numbered("n", n), numbered("other-", 100)), 1)
	b.wantAllCommitted(group, base)
}

// Two consumers have one pool of four workers: never more than four run, never four of one beside the other, and who has little does not wait for who has much.
func TestTwoConsumersShareTheirWorkers(t *testing.T) {
	const much, little = 800, 40
	b := story(t, time.Minute)
	var c breadth
	w := retriable.NewWorkers(4)
	start := func(name string) (string, *running) {
		topic := b.topic(name, 4)
		return topic, b.start(b.name(name), retriable.SharedWorkers(w), retriable.Topic(topic, handles(func(*retriable.Message) error {
			defer c.enter(name, "all")()
			b.pass(10 * time.Millisecond)
			return nil
		}), retriable.NoDeadLetters()))
	}
	big, many := start("many")
	small, few := start("few")
	b.send(big, numbered("m", much)...)
	b.await("the many run", 20*time.Second, func() bool { return many.Stats().Handled > 20 })
	b.send(small, numbered("f", little)...)
	b.await("the few are done", 20*time.Second, func() bool { return few.Stats().Handled == little })
	before, beside := many.Stats().Handled, c.tops()
	few.clean() // from here on the many may have all
	b.await("the many are done", 30*time.Second, func() bool { return many.Stats().Handled == much })
	many.clean()
	t.Logf("the few were done when %d of %d of the many were; at once: %v beside each other, %v in all", before, much, beside, c.top)
	if before >= much {
		t.Error("the few waited for all of the many")
	}
	if beside["all"] != 4 || beside["many"] > 3 || beside["few"] > 3 {
		t.Errorf("at once: %v, want 4 in all and at most 3 of each", beside)
	}
	b.wantEqual("at once, in all", c.top["all"], 4)
	b.wantAllCommitted(b.name("many"), big)
	b.wantAllCommitted(b.name("few"), small)
}
