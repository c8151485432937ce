package kfake_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
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
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// brokers is an option for more than one.
func brokers(n int) []kfake.Opt {
	ports := make([]int, n)
	for i := range ports {
		ports[i] = 9092 + i
	}
	return []kfake.Opt{kfake.NumBrokers(n), kfake.Ports(ports...)}
}

// latency has every fetch take a millisecond. Where leaders move it must: kgo fetches in a tight loop until its metadata are there, some
// ten milliseconds later, and in a bubble no time would pass meanwhile.
func (b *bed) latency() {
	b.Cleanup(func() { time.Sleep(10 * time.Millisecond) })
	b.cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		b.cluster.SleepControl(func() { time.Sleep(time.Millisecond) })
		return nil, nil, false
	})
}

// renew replaces the bed's client, which remembers topics that are gone.
func (b *bed) renew(opts ...kgo.Opt) {
	b.Helper()
	b.cl.Close()
	var err error
	b.cl, err = kgo.NewClient(append(append(b.dial(), kgo.SeedBrokers("127.0.0.1:9092"), kgo.RecordPartitioner(byHand{}), kgo.MetadataMinAge(50*time.Millisecond)), opts...)...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(b.cl.Close)
}

// epochsHold has the broker say that nothing was cut at a change of leaders, as Kafka does when nothing was: this kfake says that all was,
// until a batch exists at the new epoch.
func (b *bed) epochsHold() {
	b.cluster.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		req := kreq.(*kmsg.OffsetForLeaderEpochRequest)
		resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		for _, rt := range req.Topics {
			t := kmsg.NewOffsetForLeaderEpochResponseTopic()
			t.Topic = rt.Topic
			for _, rp := range rt.Partitions {
				p := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
				p.Partition, p.LeaderEpoch, p.EndOffset = rp.Partition, rp.LeaderEpoch, 1<<40
				t.Partitions = append(t.Partitions, p)
			}
			resp.Topics = append(resp.Topics, t)
		}
		return resp, nil, true
	})
}

func (b *bed) deleteTopic(topic string) {
	b.Helper()
	if err := b.cluster.DeleteTopic(topic); err != nil {
		b.Fatal(err)
	}
}

func (b *bed) createTopic(topic string, partitions int32, configs map[string]string) {
	b.Helper()
	if err := b.cluster.CreateTopic(topic, partitions, configs); err != nil {
		b.Fatal(err)
	}
}

// calmFetches fails the story if there are more fetches than n, and slows them down from there on lest the story never ends. With after they
// count from the moment that the log says so: a topic id that is gone kgo asks for by itself at first, as fast as it is answered.
func (b *bed) calmFetches(n int, after string) (check func()) {
	var seen atomic.Int64
	b.Cleanup(func() { time.Sleep(2 * time.Second) }) // for those that sleep below
	b.cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		switch { // the whole broker waits: kfake's own way to let one request wait is not free of races
		case !strings.Contains(b.log.String(), after):
			time.Sleep(50 * time.Millisecond)
		case seen.Add(1) > int64(n):
			time.Sleep(time.Second)
		}
		return nil, nil, false
	})
	return func() {
		b.Helper()
		if seen.Load() > int64(n) {
			b.Errorf("a storm of fetches: more than %d", n)
		}
	}
}

func TestATopicDeletedAndMadeAnewIsReadFromItsStart(t *testing.T) {
	skipForKgosRace(t)
	eachProtocol(t, "orders:2 payments", func(b *bed, kafka retriable.Option) {
		var d diary
		c := b.start("g", kafka, retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()),
			retriable.Topic("payments", d.handler("", done), retriable.NoDeadLetters()))
		defer c.end()
		b.produce("orders", 0, "a0", "a1", "a2", "a3", "a4")
		b.produce("orders", 1, "a5")
		time.Sleep(5 * time.Second)
		calm := b.calmFetches(3000, "a topic was deleted")
		b.deleteTopic("orders")
		time.Sleep(time.Minute)
		calm()
		var gone *retriable.TopicError
		if err := c.Health(b.Context()); !errors.As(err, &gone) || gone.Topic != "orders" {
			b.Errorf("Health while the topic is gone: %v", err)
		}
		b.produce("payments", 0, "p0")
		time.Sleep(5 * time.Second)
		wantEqual(b.T, "deliveries of the other topic", len(d.of(func(v visit) bool { return v.value == "p0" })), 1)
		b.createTopic("orders", 2, nil)
		b.renew()
		b.produce("orders", 0, "b0", "b1", "b2")
		b.produce("orders", 1, "b3")
		time.Sleep(15 * time.Minute)
		d.once(b.T, 11)
		if err := c.Health(b.Context()); err != nil {
			b.Errorf("Health once the topic is back: %v", err)
		}
		wantEqual(b.T, "committed", fmt.Sprint(b.committed("g", "orders", 0), b.committed("g", "orders", 1)), "3 1")
		c.clean()
	})
}

func TestATopicMadeAnewAtOnceIsReadFromItsStart(t *testing.T) {
	skipForKgosRace(t)
	for _, v := range []struct {
		name   string
		max    *kversion.Versions
		byName bool // only a commit's answer tells that the topic is another: what was read of it until then is delivered again
	}{
		{"the newest brokers", kversion.Stable(), false},
		{"brokers of 3.6", kversion.V3_6_0(), false},
		{"brokers of 2.8, which fetch by name", kversion.V2_8_0(), true},
	} {
		t.Run(v.name, func(t *testing.T) {
			bubble(t, "orders", func(b *bed) {
				var d diary
				free := make(chan struct{})
				topic := retriable.Topic("orders", d.handler("", func(ctx context.Context, m *retriable.Message) error {
					if string(m.Value) == "slow" {
						select {
						case <-free:
						case <-ctx.Done():
						}
					}
					return nil
				}), retriable.NoDeadLetters())
				c := b.start("g", topic)
				defer c.end()
				defer close(free)
				b.produce("orders", 0, "a0", "a1", "a2", "slow", "a4")
				time.Sleep(5 * time.Second)
				wantEqual(b.T, "committed before", b.committed("g", "orders", 0), 3)
				calm := b.calmFetches(5000, "a topic was made anew")
				b.deleteTopic("orders")
				b.createTopic("orders", 1, nil)
				b.renew()
				for i := range 10 { // more than there were: an old commit would hide some
					b.produce("orders", 0, fmt.Sprint("b", i))
				}
				time.Sleep(15 * time.Minute)
				calm()
				handled := func(n int) {
					if !v.byName {
						d.once(b.T, n)
						return
					}
					seen := map[string]bool{}
					for _, x := range d.all() {
						seen[x.value] = true
					}
					wantEqual(b.T, "values delivered", len(seen), n)
				}
				handled(15)
				wantEqual(b.T, "committed", b.committed("g", "orders", 0), 10)
				if err := c.Health(b.Context()); err != nil {
					b.Errorf("Health: %v", err)
				}
				c.clean()
				b.produce("orders", 0, "b10")
				c = b.start("g", topic)
				defer c.end()
				time.Sleep(3 * time.Second)
				handled(16)
				c.clean()
			}, kfake.MaxVersions(v.max))
		})
	}
}

func TestACopyWaitsForItsTopicToBeMadeAnew(t *testing.T) {
	skipForKgosRace(t)
	for _, to := range []struct{ topic, value string }{{"orders.retry", "retry"}, {"orders.dead", "bad"}} {
		t.Run(to.topic, func(t *testing.T) {
			bubble(t, "orders orders.retry orders.dead", func(b *bed) {
				var d diary
				c := b.start("g", d.failing())
				defer c.end()
				b.produce("orders", 0, to.value+"0")
				time.Sleep(5 * time.Second)
				calm := b.calmFetches(3000, "a topic was deleted")
				b.deleteTopic(to.topic)
				b.produce("orders", 0, to.value+"1")
				time.Sleep(2 * time.Minute)
				calm()
				wantEqual(b.T, "committed while the topic is gone", b.committed("g", "orders", 0), 1)
				err := c.Health(b.Context())
				if !errors.As(err, new(*retriable.ProduceError)) || !errors.As(err, new(*retriable.TopicError)) {
					b.Errorf("Health while the topic is gone: %v", err)
				}
				b.createTopic(to.topic, 1, nil)
				time.Sleep(15 * time.Minute)
				wantEqual(b.T, "committed once it is back", b.committed("g", "orders", 0), 2)
				wantEqual(b.T, "copies", len(b.read(to.topic)), 1)
				if to.value == "retry" {
					wantEqual(b.T, "deliveries of the record", len(d.of(func(v visit) bool { return v.value == "retry1" })), 2)
				}
				if err := c.Health(b.Context()); err != nil {
					b.Errorf("Health once it is back: %v", err)
				}
				c.clean()
			})
		})
	}
}

func TestAnOffsetResetBelowTheWatermarkDeliversNothingTwice(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var d diary
		b.latency()
		c := b.start("g", retriable.Topic("orders", d.handler("", func(_ context.Context, m *retriable.Message) error {
			if string(m.Value) == "slow" {
				time.Sleep(20 * time.Second)
			}
			return nil
		}), retriable.NoDeadLetters()))
		defer c.end()
		b.produce("orders", 0, "k=0", "k=1", "k=2", "j=slow", "j=4", "k=5")
		time.Sleep(3 * time.Second)
		leader := b.cluster.LeaderFor("orders", 0)
		if err := b.cluster.MoveTopicPartition("orders", 0, 1-leader); err != nil { // kgo is told that all was cut, and starts at 0 again
			b.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		b.produce("orders", 0, "k=6", "k=7")
		time.Sleep(time.Minute)
		if !strings.Contains(b.log.String(), "data loss") {
			b.Error("kgo reported no data loss: the story shows nothing")
		}
		d.once(b.T, 8)
		d.orderly(b.T)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 8)
		if err := c.Health(b.Context()); err != nil {
			b.Errorf("Health: %v", err)
		}
		c.clean()
	}, brokers(2)...)
}

func TestLeadersMoveUnderRunningHandlers(t *testing.T) {
	bubble(t, "orders:3 orders.retry:2 orders.dead", func(b *bed) {
		const n = 300
		var d diary
		b.latency()
		b.epochsHold()
		c := b.start("g", retriable.Topic("orders", d.handler("", func(_ context.Context, m *retriable.Message) error {
			time.Sleep(time.Duration(crc32.ChecksumIEEE(m.Value)%10) * 50 * time.Millisecond)
			if m.Attempt == 1 && strings.HasSuffix(string(m.Value), "3") {
				return errors.New("not yet")
			}
			return nil
		}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(2*time.Second))))
		defer c.end()
		for i := range n {
			b.produce("orders", int32(i%3), fmt.Sprintf("k%d=%d", i%30, i))
			if i%20 == 10 {
				b.cluster.ShufflePartitionLeaders()
			}
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		attempts := map[string]int{}
		for _, v := range d.all() {
			attempts[v.value]++
			wantEqual(b.T, "attempt of "+v.value, v.attempt, attempts[v.value])
		}
		wantEqual(b.T, "deliveries", len(d.all()), n+n/10)
		d.orderly(b.T)
		for p := range int32(3) {
			wantEqual(b.T, "committed", b.committed("g", "orders", p), n/3)
		}
		wantEqual(b.T, "copies", len(b.read("orders.retry")), n/10)
		c.clean()
	}, brokers(3)...)
}

func TestCoordinatorsMoveUnderRunningHandlers(t *testing.T) {
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			bubble(t, "orders:4", func(b *bed) {
				const n = 300
				var d diary
				var e events
				b.latency()
				join := func(name string) *running {
					return b.start("g", retriable.Kafka(p.opts...), retriable.Hooks(&e), retriable.Topic("orders", d.handler(name, func(_ context.Context, m *retriable.Message) error {
						time.Sleep(time.Duration(crc32.ChecksumIEEE(m.Value)%10) * 50 * time.Millisecond)
						return nil
					}), retriable.NoDeadLetters()))
				}
				ma, mb := join("a"), join("b")
				defer ma.end()
				defer mb.end()
				time.Sleep(10 * time.Second)
				for i := range n {
					b.produce("orders", int32(i%4), fmt.Sprintf("k%d=%d", i%40, i))
					if i%20 == 10 {
						b.cluster.RehashCoordinators()
					}
					time.Sleep(50 * time.Millisecond)
				}
				time.Sleep(10 * time.Second)
				d.once(b.T, n)
				d.orderly(b.T)
				for p := range int32(4) {
					wantEqual(b.T, "committed", b.committed("g", "orders", p), n/4)
				}
				for _, e := range list(&e, &e.drains) {
					if e.Lost {
						b.Errorf("%s/%d was lost", e.Topic, e.Partition)
					}
				}
				ma.clean()
				mb.clean()
			}, brokers(3)...)
		})
	}
}

func TestConnectionsThatBreakCostNothing(t *testing.T) {
	eachProtocol(t, "orders:3 orders.retry:2 orders.dead", func(b *bed, kafka retriable.Option) {
		const n = 300
		var d diary
		var mu sync.Mutex
		var conns []net.Conn
		dialer := retriable.Kafka(kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
			c, err := b.net.DialContext(ctx, network, host)
			if err != nil {
				return nil, err
			}
			c = &scissorConn{c, &scissors{b: b}}
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, c)
			return c, nil
		}))
		c := b.start("g", kafka, dialer, retriable.Topic("orders", d.handler("", func(_ context.Context, m *retriable.Message) error {
			time.Sleep(time.Duration(crc32.ChecksumIEEE(m.Value)%10) * 50 * time.Millisecond)
			if m.Attempt == 1 && strings.HasSuffix(string(m.Value), "3") {
				return errors.New("not yet")
			}
			return nil
		}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(2*time.Second))))
		defer c.end()
		broken := 0
		for i := range n {
			b.produce("orders", int32(i%3), fmt.Sprintf("k%d=%d", i%30, i))
			if i%15 == 10 {
				mu.Lock()
				for _, c := range conns {
					_ = c.Close()
					broken++
				}
				conns = nil
				mu.Unlock()
			}
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if broken < 20 {
			b.Errorf("%d connections broke: the story shows nothing", broken)
		}
		wantEqual(b.T, "deliveries", len(d.all()), n+n/10)
		d.orderly(b.T)
		for p := range int32(3) {
			wantEqual(b.T, "committed", b.committed("g", "orders", p), n/3)
		}
		wantEqual(b.T, "copies", len(b.read("orders.retry")), n/10)
		if err := c.Health(b.Context()); err != nil {
			b.Errorf("Health: %v", err)
		}
		c.clean()
	})
}

// rewriting serves a partition whose log was cut at an offset and goes on with other values there, at a newer leader epoch.
type rewriting struct {
	topic  string
	at     int64
	values []string
	epoch  int32
}

func (r rewriting) batch() []byte {
	var recs []byte
	for i, v := range r.values {
		rec := kmsg.Record{OffsetDelta: int32(i), Value: []byte(v)}
		rec.Length = int32(len(rec.AppendTo(nil)) - 1)
		recs = append(recs, rec.AppendTo(nil)...)
	}
	n := int32(len(r.values))
	now := time.Now().UnixMilli()
	raw := (&kmsg.RecordBatch{
		FirstOffset: r.at, PartitionLeaderEpoch: r.epoch, Magic: 2, LastOffsetDelta: n - 1, FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: n, Records: recs,
	}).AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// rewrite cuts the log of a topic's only partition, with a change of its leader.
func (b *bed) rewrite(r rewriting) {
	b.Helper()
	end := r.at + int64(len(r.values))
	b.latency()
	b.Cleanup(func() { time.Sleep(time.Second) }) // for those that sleep below
	b.cluster.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		req := kreq.(*kmsg.OffsetForLeaderEpochRequest)
		resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		t := kmsg.NewOffsetForLeaderEpochResponseTopic()
		t.Topic = req.Topics[0].Topic
		p := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
		p.LeaderEpoch, p.EndOffset = req.Topics[0].Partitions[0].LeaderEpoch, r.at
		if p.LeaderEpoch >= r.epoch {
			p.EndOffset = end
		}
		t.Partitions = append(t.Partitions, p)
		resp.Topics = append(resp.Topics, t)
		return resp, nil, true
	})
	b.cluster.ControlKey(int16(kmsg.Fetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		req := kreq.(*kmsg.FetchRequest)
		if len(req.Topics) != 1 || len(req.Topics[0].Partitions) != 1 || b.cluster.CurrentNode() != b.cluster.LeaderFor(r.topic, 0) {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		t := kmsg.NewFetchResponseTopic()
		t.Topic, t.TopicID = req.Topics[0].Topic, req.Topics[0].TopicID
		p := kmsg.NewFetchResponseTopicPartition()
		p.HighWatermark, p.LastStableOffset, p.LogStartOffset = end, end, 0
		if req.Topics[0].Partitions[0].FetchOffset < end {
			p.RecordBatches = r.batch()
		} else {
			b.cluster.SleepControl(func() { time.Sleep(500 * time.Millisecond) })
		}
		t.Partitions = append(t.Partitions, p)
		resp.Topics = append(resp.Topics, t)
		return resp, nil, true
	})
	if err := b.cluster.MoveTopicPartition(r.topic, 0, 1-b.cluster.LeaderFor(r.topic, 0)); err != nil {
		b.Fatal(err)
	}
	r.epoch = b.cluster.PartitionInfo(r.topic, 0).Epoch
}

// skipForKgosRace leaves a story out under the race detector: kgo 1.22.2 writes a cursor's offset from two goroutines when it finds that a log
// was cut or made anew (cursor.setOffset, in source.fetch and in handleListOrEpochResults).
func skipForKgosRace(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("kgo's own data race when a log is cut")
	}
}

func TestALogThatWasCutAndRewrittenIsReadAnewFromTheCut(t *testing.T) {
	skipForKgosRace(t)
	bubble(t, "orders", func(b *bed) {
		var d diary
		free := make(chan struct{})
		c := b.start("g", retriable.Concurrency(2), retriable.Topic("orders", d.handler("", func(_ context.Context, m *retriable.Message) error {
			if string(m.Value) == "3" {
				<-free
			}
			return nil
		}), retriable.Ordering(retriable.ByPartition), retriable.NoDeadLetters()))
		defer c.end()
		release := sync.OnceFunc(func() { close(free) })
		defer release()
		b.produce("orders", 0, seq(10)...) // 0 to 2 are done, 3 runs, 4 to 9 wait behind it
		time.Sleep(3 * time.Second)
		wantEqual(b.T, "committed before", b.committed("g", "orders", 0), 3)
		b.rewrite(rewriting{"orders", 5, []string{"new 5", "new 6", "new 7"}, 1})
		time.Sleep(10 * time.Second)
		release()
		time.Sleep(10 * time.Second)
		var got []string
		for _, v := range d.all() {
			got = append(got, v.value)
		}
		wantEqual(b.T, "deliveries", strings.Join(got, ", "), "0, 1, 2, 3, 4, new 5, new 6, new 7")
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 8)
		if err := c.Health(b.Context()); err != nil {
			b.Errorf("Health: %v", err)
		}
		c.clean()
	}, brokers(2)...)
}

func TestALogThatWasCutBelowTheWatermarkIsReadAnewFromTheCut(t *testing.T) {
	skipForKgosRace(t)
	bubble(t, "orders", func(b *bed) {
		var d diary
		c := b.start("g", retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
		defer c.end()
		b.produce("orders", 0, seq(10)...)
		time.Sleep(3 * time.Second)
		wantEqual(b.T, "committed before", b.committed("g", "orders", 0), 10)
		b.rewrite(rewriting{"orders", 5, []string{"new 5", "new 6", "new 7"}, 1})
		time.Sleep(10 * time.Second)
		got := map[string]int{}
		for _, v := range d.all() {
			got[v.value]++
		}
		for _, v := range append(seq(10), "new 5", "new 6", "new 7") {
			wantEqual(b.T, "deliveries of "+v, got[v], 1)
		}
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 8)
		c.clean()
	}, brokers(2)...)
}

func TestALogThatWasCutWhileNobodyReadIsReadAnewFromTheCut(t *testing.T) {
	skipForKgosRace(t)
	bubble(t, "orders", func(b *bed) {
		var d diary
		topic := retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters())
		c := b.start("g", topic)
		defer c.end()
		b.produce("orders", 0, seq(10)...)
		time.Sleep(3 * time.Second)
		c.clean()
		wantEqual(b.T, "committed before", b.committed("g", "orders", 0), 10)
		values := []string{"new 5", "new 6", "new 7", "new 8", "new 9", "new 10", "new 11"}
		b.rewrite(rewriting{"orders", 5, values, 1})
		c = b.start("g", topic)
		defer c.end()
		time.Sleep(10 * time.Second)
		got := map[string]int{}
		for _, v := range d.all() {
			got[v.value]++
		}
		for _, v := range append(seq(10), values...) {
			wantEqual(b.T, "deliveries of "+v, got[v], 1)
		}
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 12)
		c.clean()
	}, brokers(2)...)
}

// leaderless has the metadata say that a partition has no leader, until found.
func (b *bed) leaderless(topic string, partition int32) (found func()) {
	var has atomic.Bool
	b.cluster.ControlKey(int16(kmsg.Metadata), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		if has.Load() {
			return nil, nil, false
		}
		req := kreq.(*kmsg.MetadataRequest)
		resp := req.ResponseKind().(*kmsg.MetadataResponse)
		broker := kmsg.NewMetadataResponseBroker()
		broker.Host, broker.Port = "localhost", 9092
		resp.Brokers = append(resp.Brokers, broker)
		for _, rt := range req.Topics {
			info := b.cluster.TopicIDInfo(rt.TopicID)
			if rt.Topic != nil {
				info = b.cluster.TopicInfo(*rt.Topic)
			}
			t := kmsg.NewMetadataResponseTopic()
			t.Topic, t.TopicID = &info.Topic, info.TopicID
			for _, pi := range b.cluster.PartitionInfos(info.Topic) {
				p := kmsg.NewMetadataResponseTopicPartition()
				p.Partition, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR = pi.Partition, pi.Leader, pi.Epoch, []int32{0}, []int32{0}
				if info.Topic == topic && pi.Partition == partition {
					p.ErrorCode, p.Leader = kerr.LeaderNotAvailable.Code, -1
				}
				t.Partitions = append(t.Partitions, p)
			}
			resp.Topics = append(resp.Topics, t)
		}
		return resp, nil, true
	})
	refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch, kmsg.ListOffsets}, Topic: topic, Partitions: []int32{partition}, Err: kerr.NotLeaderForPartition, Count: -1})
	return func() {
		has.Store(true)
		refused.Remove()
	}
}

func TestAPartitionWithoutALeaderHoldsUpNoOther(t *testing.T) {
	for _, committed := range []bool{true, false} {
		t.Run(fmt.Sprintf("it has a commit: %v", committed), func(t *testing.T) {
			bubble(t, "orders:3", func(b *bed) {
				var d diary
				for p := range int32(3) {
					b.produce("orders", p, fmt.Sprint(p))
				}
				if committed {
					b.commitAs("g", "orders", 1, 0, "")
				}
				found := b.leaderless("orders", 1)
				c := b.launch("g", retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
				defer c.end()
				time.Sleep(3 * time.Minute)
				d.once(b.T, 2)
				if len(d.of(func(v visit) bool { return v.value == "1" })) > 0 {
					b.Error("the partition has no leader and is read: the story shows nothing")
				}
				found()
				time.Sleep(6 * time.Minute)
				d.once(b.T, 3)
				for p := range int32(3) {
					wantEqual(b.T, "committed", b.committed("g", "orders", p), 1)
				}
				c.clean()
			})
		})
	}
}

func TestAPartitionThatCannotBeReadCausesNoStormOfFetches(t *testing.T) {
	for _, err := range []*kerr.Error{kerr.TopicAuthorizationFailed, kerr.UnknownServerError, kerr.UnsupportedCompressionType} {
		for _, waits := range []bool{true, false} {
			t.Run(err.Message+map[bool]string{true: "/a record waits", false: "/nothing waits"}[waits], func(t *testing.T) {
				bubble(t, "orders:2", func(b *bed) {
					var d diary
					c := b.start("g", retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
					defer c.end()
					b.produce("orders", 0, "0")
					b.produce("orders", 1, "1")
					time.Sleep(5 * time.Second)
					calm := b.calmFetches(2000, "a partition cannot be read")
					failed := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "orders", Partitions: []int32{0}, Err: err, Count: -1})
					if waits {
						b.produce("orders", 0, "2")
					}
					b.produce("orders", 1, "3")
					time.Sleep(2 * time.Minute)
					calm()
					d.once(b.T, 3)
					var blocked *retriable.FetchError
					if got := c.Health(b.Context()); !errors.As(got, &blocked) || !errors.Is(got, err) || blocked.Partition != 0 || blocked.Offset != 1 || blocked.Past.Topic != "" {
						b.Errorf("Health: %v", got)
					}
					failed.Remove()
					time.Sleep(2 * time.Minute)
					if !waits {
						b.produce("orders", 1, "2")
						time.Sleep(time.Second)
					}
					d.once(b.T, 4)
					if err := c.Health(b.Context()); err != nil {
						b.Errorf("Health afterwards: %v", err)
					}
					c.clean()
				})
			})
		}
	}
}

// refuseOffsetFetch has the coordinator answer n look-ups of a group's commits with an error for the group as a whole.
func (b *bed) refuseOffsetFetch(group string, err *kerr.Error, n int) (hits func() int) {
	var seen atomic.Int64
	b.cluster.ControlKey(int16(kmsg.OffsetFetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		req := kreq.(*kmsg.OffsetFetchRequest)
		if len(req.Groups) != 1 || req.Groups[0].Group != group || seen.Add(1) > int64(n) {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		g := kmsg.NewOffsetFetchResponseGroup()
		g.Group, g.ErrorCode = group, err.Code
		resp.Groups = append(resp.Groups, g)
		return resp, nil, true
	})
	return func() int { return int(min(seen.Load(), int64(n))) }
}

func TestAnAssignmentWhoseLookUpsFailForAWhileIsMadeUpFor(t *testing.T) {
	for _, s := range []struct {
		key   kmsg.Key
		err   *kerr.Error
		whole bool
	}{
		{kmsg.ListOffsets, kerr.NotLeaderForPartition, false},
		{kmsg.ListOffsets, kerr.UnknownTopicOrPartition, false},
		{kmsg.ListOffsets, kerr.UnknownServerError, false},
		{kmsg.OffsetFetch, kerr.UnstableOffsetCommit, false},
		{kmsg.OffsetFetch, kerr.CoordinatorLoadInProgress, true},
		{kmsg.OffsetFetch, kerr.NotCoordinator, true},
		{kmsg.OffsetFetch, kerr.UnknownServerError, true},
	} {
		t.Run(s.key.Name()+"/"+s.err.Message, func(t *testing.T) {
			eachProtocol(t, "orders:2", func(b *bed, kafka retriable.Option) {
				var d diary
				b.produce("orders", 0, seq(3)...)
				b.produce("orders", 1, "a", "b", "c")
				var failed func() int
				if s.whole {
					failed = b.refuseOffsetFetch("g", s.err, 4)
				} else {
					failed = b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{s.key}, Topic: "orders", Err: s.err, Count: 4}).Hits
				}
				c := b.start("g", kafka, retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
				defer c.end()
				time.Sleep(time.Minute)
				if failed() == 0 {
					b.Error("nothing failed: the story shows nothing")
				}
				d.once(b.T, 6)
				if err := c.Health(b.Context()); err != nil {
					b.Errorf("Health: %v", err)
				}
				c.clean()
			})
		})
	}
}

func TestAPartitionWhoseCommitCannotBeFetchedIsNamed(t *testing.T) {
	eachProtocol(t, "orders:2", func(b *bed, kafka retriable.Option) {
		var d diary
		b.produce("orders", 0, seq(3)...)
		b.produce("orders", 1, "a", "b", "c")
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Topic: "orders", Partitions: []int32{1}, Err: kerr.TopicAuthorizationFailed})
		c := b.start("g", kafka, retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
		defer c.end()
		time.Sleep(time.Minute)
		if err := c.Health(b.Context()); len(d.all()) < 6 && !errors.Is(err, kerr.TopicAuthorizationFailed) {
			b.Errorf("partition 1 is not read, and Health says %v", err)
		}
		c.clean()
	})
}

// leaveTopicsOut has coordinators leave topics out where all of a group's commits are asked for, as those that have not heard of them yet do.
func (b *bed) leaveTopicsOut() {
	b.cluster.ControlKey(int16(kmsg.OffsetFetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		req := kreq.(*kmsg.OffsetFetchRequest)
		if len(req.Groups) != 1 || req.Groups[0].Topics != nil {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		g := kmsg.NewOffsetFetchResponseGroup()
		g.Group = req.Groups[0].Group
		resp.Groups = append(resp.Groups, g)
		return resp, nil, true
	})
}

// A broker that was just started coordinates a group before it has heard of the topics: asked for one it says so, asked for all of a group's commits it
// leaves out what it has not heard of, as if there were none.
func TestACommitThatABrokerLeavesOutIsNotNone(t *testing.T) {
	eachProtocol(t, "orders", func(b *bed, kafka retriable.Option) {
		var d diary
		b.produce("orders", 0, seq(5)...)
		b.commitAs("g", "orders", 0, 3, "")
		unheard := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Topic: "orders", Err: kerr.UnknownTopicID, Count: 5})
		b.leaveTopicsOut()
		c := b.start("g", kafka, retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
		defer c.end()
		time.Sleep(time.Minute)
		wantEqual(b.T, "answers of a broker that has not heard of the topic", unheard.Hits(), 5)
		d.once(b.T, 2)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 5)
		if err := c.Health(b.Context()); err != nil {
			b.Errorf("Health: %v", err)
		}
		c.clean()
	})
}

// What kgo asks for with the first write it asks for under a lock: two brokers' first writes, while a third broker is away, would halt a bubble's time.
func TestWritesHaveTheirProducerIDBeforeAnythingIsHandled(t *testing.T) {
	eachProtocol(t, "orders:2", func(b *bed, kafka retriable.Option) {
		b.produce("orders", 0, "a") // the bed's own producer has its id
		var refused, early atomic.Int64
		b.cluster.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			if refused.Add(1) > 3 {
				return nil, nil, false
			}
			return nil, errors.New("the broker goes away"), true
		})
		c := b.start("g", kafka, retriable.Topic("orders", handles(func(*retriable.Message) error {
			if refused.Load() <= 3 {
				early.Add(1)
			}
			return nil
		}), none()))
		b.until("handled", time.Minute, func() bool { return c.Stats().Handled == 1 })
		wantEqual(b.T, "handled before", early.Load(), 0)
		c.clean()
	})
}

func TestWhatRetentionTookIsPassedOver(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var d diary
		gate := make(chan struct{})
		c := b.start("g", retriable.MaxPending(4), retriable.Kafka(kgo.FetchMaxPartitionBytes(500)),
			retriable.Topic("orders", d.handler("", func(context.Context, *retriable.Message) error {
				<-gate
				return nil
			}), retriable.NoDeadLetters()))
		defer c.end()
		open := sync.OnceFunc(func() { close(gate) })
		defer open()
		for i := range 30 {
			b.produce("orders", 0, fmt.Sprintf("%02d%s", i, strings.Repeat(" ", 300))) // a batch each, and a fetch
		}
		time.Sleep(3 * time.Second)
		if !c.part("orders", 0).Paused {
			b.Fatalf("not paused: %+v", c.part("orders", 0))
		}
		if err := b.cluster.DeleteRecords("orders", 0, 20); err != nil {
			b.Fatal(err)
		}
		open()
		time.Sleep(20 * time.Second)
		got := map[string]int{}
		for _, v := range d.all() {
			got[v.value[:2]]++
		}
		for i := range 30 {
			if n := got[fmt.Sprintf("%02d", i)]; n > 1 || i >= 20 && n == 0 {
				b.Errorf("record %d was delivered %d times", i, n)
			}
		}
		if len(got) == 30 {
			b.Error("all were read before: the story shows nothing")
		}
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 30)
		if s := c.part("orders", 0); s.Lag != 0 || s.Pending != 0 || s.Paused {
			b.Errorf("in the end: %+v", s)
		}
		if err := c.Health(b.Context()); err != nil {
			b.Errorf("Health: %v", err)
		}
		c.clean()
	})
}

func TestTransactionsLeaveGapsThatComplete(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var d diary
		c := b.start("g", retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
		defer c.end()
		b.renew(kgo.TransactionalID("tx"))
		for round := range 6 {
			if err := b.cl.BeginTransaction(); err != nil {
				b.Fatal(err)
			}
			end, word := kgo.TryCommit, "kept"
			if round%2 == 1 {
				end, word = kgo.TryAbort, "aborted"
			}
			b.produce("orders", 0, fmt.Sprint(word, round, "a"), fmt.Sprint(word, round, "b"))
			if err := b.cl.EndTransaction(b.Context(), end); err != nil {
				b.Fatal(err)
			}
		}
		b.renew()
		b.produce("orders", 0, "last")
		time.Sleep(5 * time.Second)
		d.once(b.T, 7)
		if n := len(d.of(func(v visit) bool { return strings.HasPrefix(v.value, "aborted") })); n > 0 {
			b.Errorf("%d records of aborted transactions were delivered", n)
		}
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 6*3+1)
		wantEqual(b.T, "lag", c.part("orders", 0).Lag, 0)
		c.clean()
	})
}

func TestAnOpenTransactionHoldsOnlyWhatIsBehindIt(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		var d diary
		c := b.start("g", retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
		defer c.end()
		b.produce("orders", 0, "before")
		b.renew(kgo.TransactionalID("tx"))
		if err := b.cl.BeginTransaction(); err != nil {
			b.Fatal(err)
		}
		b.produce("orders", 0, "open")
		time.Sleep(10 * time.Second)
		d.once(b.T, 1)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 1)
		if err := b.cl.EndTransaction(b.Context(), kgo.TryCommit); err != nil {
			b.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		d.once(b.T, 2)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 2)
		c.clean()
	})
}

func TestCompactionLeavesGapsThatComplete(t *testing.T) {
	bubble(t, "payments", func(b *bed) {
		b.createTopic("orders", 1, map[string]string{"cleanup.policy": "compact", "segment.bytes": "200", "segment.ms": "100", "min.cleanable.dirty.ratio": "0", "min.compaction.lag.ms": "0"})
		for i := range 50 {
			key := "again"
			if i%5 == 0 {
				key = fmt.Sprint("once", i) // what stays has gaps in between
			}
			b.produce("orders", 0, fmt.Sprintf("%s=%d", key, i))
			time.Sleep(200 * time.Millisecond)
		}
		b.cluster.Compact()
		left := b.read50()
		if left == 50 {
			b.Skip("this kfake does not compact")
		}
		var d diary
		slow := b.gate()
		c := b.start("g", retriable.Topic("orders", d.handler("", func(_ context.Context, m *retriable.Message) error {
			if string(m.Value) == "30" {
				slow.wait()
			}
			return nil
		}), retriable.NoDeadLetters()))
		defer c.end()
		time.Sleep(5 * time.Second)
		wantEqual(b.T, "committed while 30 is at work", b.committed("g", "orders", 0), 30)
		slow.open()
		time.Sleep(5 * time.Second)
		d.once(b.T, left)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 50)
		wantEqual(b.T, "lag", c.part("orders", 0).Lag, 0)
		c.clean()
	})
}

// read50 counts the records of orders/0 up to offset 49.
func (b *bed) read50() (n int) {
	cl, err := kgo.NewClient(append(b.dial(), kgo.SeedBrokers("127.0.0.1:9092"), kgo.ConsumeTopics("orders"))...)
	if err != nil {
		b.Fatal(err)
	}
	defer cl.Close()
	for {
		rs := cl.PollFetches(b.Context()).Records()
		n += len(rs)
		if len(rs) > 0 && rs[len(rs)-1].Offset >= 49 {
			return n
		}
	}
}

func TestABatchThatIsTooLargeToUnpackIsNamedAndCanBeSkipped(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		var d diary
		var e events
		c := b.start("g", retriable.Hooks(&e), retriable.Kafka(kgo.MaxDecompressBatchBytes(100_000)),
			retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
		defer c.end()
		b.produce("orders", 0, "before")
		b.renew(kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerLinger(100*time.Millisecond))
		zeros := strings.Repeat("0", 50_000)
		b.produce("orders", 0, zeros, zeros, zeros, zeros) // a batch, of offsets 1 to 4
		b.renew()
		b.produce("orders", 0, "behind")
		b.produce("orders", 1, "beside")
		time.Sleep(10 * time.Second)
		got := func() (vs []string) {
			for _, v := range d.all() {
				vs = append(vs, v.value)
			}
			slices.Sort(vs)
			return vs
		}
		wantEqual(b.T, "deliveries before", got(), []string{"before", "beside"})
		wantEqual(b.T, "committed before", b.committed("g", "orders", 0), 1)
		var blocked *retriable.FetchError
		err := c.Health(b.Context())
		if !errors.As(err, &blocked) {
			b.Fatalf("Health: %v", err)
		}
		past := retriable.Position{Topic: "orders", Partition: 0, Offset: 4}
		if blocked.Topic != "orders" || blocked.Partition != 0 || blocked.Offset != 1 || blocked.Past != past || !errors.Is(err, kgo.ErrMaxDecompress) {
			b.Errorf("Health: %+v", blocked)
		}
		if n := strings.Count(b.log.String(), "level=ERROR"); n != 1 {
			b.Errorf("%d errors in the log", n)
		}
		for _, wrong := range []retriable.Position{{Topic: "orders", Partition: 0, Offset: 0}, {Topic: "orders", Partition: 7, Offset: 4}, {Topic: "other", Partition: 0, Offset: 4}} {
			if err := c.Skip(b.Context(), wrong); err == nil {
				b.Errorf("Skip past %v: no error", wrong)
			}
		}
		if err := c.Skip(b.Context(), blocked.Past); err != nil {
			b.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		wantEqual(b.T, "deliveries afterwards", got(), []string{"before", "behind", "beside"})
		wantEqual(b.T, "committed afterwards", b.committed("g", "orders", 0), 6)
		wantEqual(b.T, "dropped", c.Stats().Dropped, 4)
		drops := list(&e, &e.drops)
		if len(drops) != 1 || drops[0].Records != 4 || drops[0].Source != (retriable.Position{Topic: "orders", Offset: 1}) {
			b.Errorf("OnDropped: %+v", drops)
		}
		if !strings.Contains(b.log.String(), "given up unread") {
			b.Error("the log does not say what was given up")
		}
		if err := c.Health(b.Context()); err != nil {
			b.Errorf("Health afterwards: %v", err)
		}
		c.clean()
	})
}

func TestASkipAtTheEndOfTheLogIsCommitted(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var d diary
		c := b.start("g", retriable.Kafka(kgo.MaxDecompressBatchBytes(100_000)), retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
		defer c.end()
		b.renew(kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerLinger(100*time.Millisecond))
		zeros := strings.Repeat("0", 50_000)
		b.produce("orders", 0, zeros, zeros, zeros, zeros)
		time.Sleep(3 * time.Second)
		if err := c.Skip(b.Context(), retriable.Position{Topic: "orders", Offset: 3}); err != nil {
			b.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 4)
		c.clean()
		c = b.start("g", retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters()))
		defer c.end()
		time.Sleep(3 * time.Second)
		wantEqual(b.T, "deliveries", len(d.all()), 0)
		c.clean()
	})
}

func TestPartitionsThatAreAddedAreConsumed(t *testing.T) {
	eachProtocol(t, "orders:2", func(b *bed, kafka retriable.Option) {
		var d diary
		c := b.start("g", kafka, retriable.Topic("orders", d.handler("", done), retriable.NoDeadLetters(), retriable.StartAt(kgo.NewOffset().AtStart())))
		defer c.end()
		rs, err := b.admin().CreatePartitions(b.Context(), 2, "orders")
		if err == nil {
			err = rs.Error()
		}
		if err != nil {
			b.Fatal(err)
		}
		b.renew()
		for p := range int32(4) {
			b.produce("orders", p, fmt.Sprint(p))
		}
		time.Sleep(6 * time.Minute)
		d.once(b.T, 4)
		c.clean()
	})
}

// Of a group's members only those that had some of a topic see at once that it was made anew. Another may be given it then, who knows only the topic that
// is gone, and asks for its commits in vain.
func TestATopicMadeAnewIsConsumedByWhoeverIsGivenIt(t *testing.T) {
	skipForKgosRace(t)
	for _, away := range []time.Duration{0, 2 * time.Second, time.Minute} {
		for name, kafka := range map[string]kgo.Opt{
			"cooperative": kgo.Balancers(kgo.CooperativeStickyBalancer()), "eager": kgo.Balancers(kgo.RoundRobinBalancer()), "KIP-848": kgo.ServerSideBalancer(),
		} {
			for who, had := range []string{"the first", "the second"} { // the first is the leader of a classic group
				t.Run(fmt.Sprintf("%s, gone for %v from %s", name, away, had), func(t *testing.T) {
					bubble(t, "orders payments", func(b *bed) {
						var d diary
						start := func() *running {
							return b.begin("g", retriable.Kafka(kafka), retriable.Defaults(retriable.NoDeadLetters()),
								retriable.Topic("orders", d.handler("", done)), retriable.Topic("payments", d.handler("", done)))
						}
						members := []*running{start(), start()}
						b.until("each has one", time.Minute, func() bool {
							return len(members[0].Stats().Partitions) == 1 && len(members[1].Stats().Partitions) == 1
						})
						topic := members[who].Stats().Partitions[0].Topic
						b.produce(topic, 0, "before")
						time.Sleep(3 * time.Second)
						calm := b.calmFetches(5000, "a topic was")
						b.deleteTopic(topic)
						time.Sleep(away)
						b.createTopic(topic, 1, nil)
						b.renew()
						b.produce(topic, 0, "after")
						b.until("it is consumed again", 10*time.Minute, func() bool { return len(d.of(func(v visit) bool { return v.value == "after" })) > 0 })
						calm()
						time.Sleep(time.Minute)
						for _, m := range members {
							if err := m.Health(b.Context()); err != nil {
								b.Errorf("Health: %v", err)
							}
						}
						d.once(t, 2)
					})
				})
			}
		}
	}
}
