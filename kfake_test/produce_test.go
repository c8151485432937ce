package kfake_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
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

// headerOf returns the first header of a name, "" if there is none.
func headerOf(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// failing is a topic whose handler fails "bad" records for good and others on their first attempt if they begin with "retry".
func (d *diary) failing(opts ...retriable.TopicOption) retriable.Option {
	return retriable.Topic("orders", d.handler("", func(_ context.Context, m *retriable.Message) error {
		switch v := string(m.Value); {
		case strings.HasPrefix(v, "bad"):
			return retriable.Permanent(errors.New("secret"))
		case strings.HasPrefix(v, "retry") && m.Attempt == 1:
			return errors.New("secret")
		}
		return nil
	}), append([]retriable.TopicOption{
		retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(time.Second)),
	}, opts...)...)
}

func TestARefusedWriteKeepsItsRecordPendingUntilItIsAccepted(t *testing.T) {
	for _, to := range []struct{ topic, value string }{{"orders.retry", "retry"}, {"orders.dead", "bad"}} {
		for _, refusal := range []*kerr.Error{
			kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.NotEnoughReplicas, kerr.UnknownTopicOrPartition, kerr.InvalidRecord,
			kerr.InvalidTimestamp, kerr.InvalidTopicException, kerr.KafkaStorageError, kerr.PolicyViolation, kerr.UnknownServerError, kerr.CorruptMessage,
			kerr.NotLeaderForPartition, kerr.InvalidRequiredAcks, kerr.UnsupportedForMessageFormat,
		} {
			t.Run(to.topic+"/"+refusal.Message, func(t *testing.T) {
				bubble(t, "orders:2 orders.retry orders.dead", func(b *bed) {
					var d diary
					var e events
					c := b.start("g", retriable.Hooks(&e), d.failing())
					defer c.end()
					time.Sleep(2 * time.Second)
					refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: to.topic, Err: refusal, Count: -1})
					b.produce("orders", 0, "0", to.value, "2")
					b.produce("orders", 1, "3")
					time.Sleep(time.Minute)
					b.produce("orders", 0, "4")
					time.Sleep(time.Minute)

					wantEqual(b.T, "committed while it is refused", b.committed("g", "orders", 0), 1)
					wantEqual(b.T, "committed beside it", b.committed("g", "orders", 1), 1)
					s := c.part("orders", 0)
					if s.Pending != 1 || s.Oldest.Reason != retriable.ReasonProducing || s.Oldest.Offset != 1 || s.Watermark != 1 {
						b.Errorf("Stats while it is refused: %+v", s)
					}
					if n := c.Stats().ProduceFailures; n < 10 || n > 200 {
						b.Errorf("%d refusals in two minutes", n)
					}
					var failed *retriable.ProduceError
					if err := c.Health(b.Context()); !errors.As(err, &failed) || failed.Topic != to.topic || !errors.Is(failed, refusal) {
						b.Errorf("Health while it is refused: %v", err)
					} else if since := time.Since(failed.Since); since < 90*time.Second || since > 2*time.Minute {
						b.Errorf("refused for %v", since)
					}
					tries := list(&e, &e.refusals)
					for i, f := range tries {
						if f.Try != i+1 || f.Topic != to.topic || f.Source != (retriable.Position{Topic: "orders", Offset: 1}) || !errors.Is(f.Err, refusal) || f.NextTry > 5*time.Second {
							b.Errorf("the hook was told %+v", f)
						}
					}
					if n := strings.Count(b.log.String(), "level=WARN"); n > 2 { // the other is that of the record that is stuck
						b.Errorf("%d warnings for one incident", n)
					}
					refused.Remove()
					time.Sleep(20 * time.Second)
					wantEqual(b.T, "copies", len(b.read(to.topic)), 1)
					wantEqual(b.T, "committed afterwards", b.committed("g", "orders", 0), 4)
					if err := c.Health(b.Context()); err != nil {
						b.Errorf("Health afterwards: %v", err)
					}
					want := 1
					if to.value == "retry" {
						want = 2
					}
					wantEqual(b.T, "deliveries of the record", len(d.of(func(v visit) bool { return v.value == to.value })), want)
					wantEqual(b.T, "deliveries of the others", len(d.of(func(v visit) bool { return v.value != to.value })), 4)
					if strings.Contains(b.log.String(), "secret") {
						b.Error("the log has the text of a handler's error")
					}
					c.clean()
				})
			})
		}
	}
}

func TestHealthTellsOfARefusalFromTheFirst(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var d diary
		c := b.start("g", d.failing())
		defer c.end()
		refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.InvalidRecord, Count: 3})
		b.produce("orders", 0, "retry")
		if err := refused.Wait(b.Context(), 1); err != nil {
			b.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		if err := c.Health(b.Context()); !errors.As(err, new(*retriable.ProduceError)) {
			b.Errorf("Health: %v", err)
		}
		time.Sleep(5 * time.Second)
		if err := c.Health(b.Context()); err != nil {
			b.Errorf("Health afterwards: %v", err)
		}
		wantEqual(b.T, "refusals", c.Stats().ProduceFailures, 3)
		wantEqual(b.T, "copies", len(b.read("orders.retry")), 1)
		c.clean()
	})
}

func TestHealthForgetsARefusalWhoseRecordsWereHandedOver(t *testing.T) {
	bubble(t, "orders:4 orders.retry orders.dead", func(b *bed) {
		var d diary
		join := func(name string) *running { // the range balancer serves static members by name
			return b.start("g", retriable.Kafka(kgo.Balancers(kgo.RangeBalancer()), kgo.InstanceID(name)), retriable.DrainTimeout(time.Second), d.failing())
		}
		mz := join("z")
		defer mz.end()
		refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.dead", Err: kerr.InvalidRecord, Count: -1})
		b.produce("orders", 0, "bad")
		time.Sleep(5 * time.Second)
		ma := join("a")
		defer ma.end()
		time.Sleep(20 * time.Second)
		if ma.part("orders", 0).Topic == "" {
			b.Fatal("a does not have the partition: the story shows nothing")
		}
		if err := mz.Health(b.Context()); err != nil {
			b.Errorf("Health of the member that had the partition: %v", err)
		}
		if err := ma.Health(b.Context()); !errors.As(err, new(*retriable.ProduceError)) {
			b.Errorf("Health of the member that has it: %v", err)
		}
		refused.Remove()
		time.Sleep(20 * time.Second)
		wantEqual(b.T, "dead letters", len(b.read("orders.dead")), 1)
		for _, c := range []*running{mz, ma} {
			if err := c.Health(b.Context()); err != nil {
				b.Errorf("Health afterwards: %v", err)
			}
			c.clean()
		}
	})
}

func TestAnAckThatIsLostMakesNoSecondCopy(t *testing.T) {
	for _, to := range []struct{ topic, value string }{{"orders.retry", "retry"}, {"orders.dead", "bad"}} {
		for _, how := range []struct {
			name string
			lose func(b *bed, s *scissors)
		}{
			{"it timed out but was applied", func(b *bed, _ *scissors) {
				b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: to.topic, Err: kerr.RequestTimedOut, Count: 3})
			}},
			{"it timed out many times but was applied", func(b *bed, _ *scissors) {
				b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: to.topic, Err: kerr.RequestTimedOut, Count: 20})
			}},
			{"it lacked replicas after it was applied", func(b *bed, _ *scissors) {
				b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: to.topic, Err: kerr.NotEnoughReplicasAfterAppend, Count: 20})
			}},
			{"the connection broke", func(_ *bed, s *scissors) { s.arm(kmsg.Produce) }},
		} {
			t.Run(to.topic+"/"+how.name, func(t *testing.T) {
				bubble(t, "orders:2 orders.retry orders.dead", func(b *bed) {
					var d diary
					s := &scissors{b: b}
					c := b.start("g", s.dialer(), d.failing())
					defer c.end()
					how.lose(b, s)
					for i := range 20 {
						b.produce("orders", int32(i%2), fmt.Sprint(to.value, i))
					}
					time.Sleep(3 * time.Minute)
					wantEqual(b.T, "copies", len(b.read(to.topic)), 20)
					for p := range int32(2) {
						wantEqual(b.T, "committed", b.committed("g", "orders", p), 10)
					}
					n := 20
					if to.value == "retry" {
						n = 40
					}
					wantEqual(b.T, "deliveries", len(d.all()), n)
					if err := c.Health(b.Context()); err != nil {
						b.Errorf("Health: %v", err)
					}
					c.clean()
				})
			})
		}
	}
}

func TestAFullProducerBufferIsNoRefusal(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var d diary
		c := b.start("g", retriable.Kafka(kgo.MaxBufferedRecords(2)), d.failing())
		defer c.end()
		vs := make([]string, 50)
		for i := range vs {
			vs[i] = fmt.Sprint("retry", i)
		}
		b.produce("orders", 0, vs...)
		time.Sleep(time.Minute)
		wantEqual(b.T, "copies", len(b.read("orders.retry")), 50)
		wantEqual(b.T, "deliveries", len(d.all()), 100)
		wantEqual(b.T, "refusals", c.Stats().ProduceFailures, 0)
		wantEqual(b.T, "warnings", strings.Count(b.log.String(), "level=WARN"), 0)
		c.clean()
	})
}

// tooLarge has the broker refuse n writes to a topic as too large.
func (b *bed) tooLarge(topic string, n int) *kfake.FaultHandle {
	return b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.MessageTooLarge, Count: n})
}

func TestACopyThatIsTooLargeIsSentAgainAsItIsFirst(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var d diary
		c := b.start("g", d.failing())
		defer c.end()
		b.tooLarge("orders.retry", 1) // perhaps it was only its batch
		b.produce("orders", 0, "retry")
		time.Sleep(10 * time.Second)
		copies := b.read("orders.retry")
		wantEqual(b.T, "copies", len(copies), 1)
		if len(copies) == 1 && (headerOf(copies[0], "retriable_error") != "secret" || headerOf(copies[0], "retriable_topic") != "orders") {
			b.Errorf("its headers: %v", copies[0].Headers)
		}
		wantEqual(b.T, "deliveries", len(d.all()), 2)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 1)
		c.clean()
	})
}

func TestACopyThatIsTooLargeShedsOurTextHeaders(t *testing.T) {
	bubble(t, "orders:3 orders.retry orders.dead", func(b *bed) {
		var d diary
		c := b.start("g", d.failing())
		defer c.end()
		b.tooLarge("orders.retry", 2)
		b.send(&kgo.Record{Topic: "orders", Partition: 2, Key: []byte("k"), Value: []byte("retry"), Headers: []kgo.RecordHeader{{Key: "mine", Value: []byte("1")}, {Key: "null"}}})
		time.Sleep(10 * time.Second)
		copies := b.read("orders.retry")
		wantEqual(b.T, "copies", len(copies), 1)
		if len(copies) == 1 {
			r := copies[0]
			wantEqual(b.T, "key and value", string(r.Key)+"="+string(r.Value), "k=retry")
			wantEqual(b.T, "a user's header", headerOf(r, "mine"), "1")
			wantEqual(b.T, "the attempt", binary.BigEndian.Uint64([]byte(headerOf(r, "retriable_kafka_attempt"))), 1)
			wantEqual(b.T, "the group", headerOf(r, "retriable_group"), "g")
			wantEqual(b.T, "the error", headerOf(r, "retriable_error"), "")
		}
		wantEqual(b.T, "attempts", fmt.Sprint(len(d.all()), d.all()[len(d.all())-1].attempt), "2 2")
		wantEqual(b.T, "dead letters", len(b.read("orders.dead")), 0)
		wantEqual(b.T, "committed", b.committed("g", "orders", 2), 1)
		c.clean()
	})
}

func TestACopyThatFitsNowhereElseIsDeadLettered(t *testing.T) {
	bubble(t, "orders:3 orders.retry orders.dead:4", func(b *bed) {
		var d diary
		c := b.start("g", retriable.Topic("orders", d.handler("", func(context.Context, *retriable.Message) error { return errors.New("secret") }),
			retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(time.Second))))
		defer c.end()
		b.send(&kgo.Record{Topic: "orders", Partition: 2, Key: []byte("k"), Value: []byte("first"), Headers: []kgo.RecordHeader{{Key: "mine", Value: []byte("1")}}})
		time.Sleep(500 * time.Millisecond) // its first attempt failed and is in the retry topic
		b.tooLarge("orders.retry", -1)
		b.send(&kgo.Record{Topic: "orders", Partition: 1, Key: []byte("k"), Value: []byte("second"), Headers: []kgo.RecordHeader{{Key: "mine", Value: []byte("1")}}})
		time.Sleep(20 * time.Second)
		letters := b.read("orders.dead")
		wantEqual(b.T, "dead letters", len(letters), 2)
		for _, r := range letters {
			partition, attempts := map[string]int32{"first": 2, "second": 1}[string(r.Value)], map[string]string{"first": "2", "second": "1"}[string(r.Value)]
			wantEqual(b.T, "its partition", r.Partition, partition)
			wantEqual(b.T, "its key", string(r.Key), "k")
			wantEqual(b.T, "a user's header", headerOf(r, "mine"), "1")
			wantEqual(b.T, "where it was produced", fmt.Sprint(headerOf(r, "__dlq.errors.topic"), headerOf(r, "__dlq.errors.partition"), headerOf(r, "__dlq.errors.offset")), fmt.Sprint("orders", partition, "0"))
			wantEqual(b.T, "attempts made", headerOf(r, "__dlq.errors.delivery.count"), attempts)
			if !strings.Contains(headerOf(r, "__dlq.errors.message"), "too large") {
				b.Errorf("the reason: %q", headerOf(r, "__dlq.errors.message"))
			}
			for _, h := range r.Headers {
				if strings.HasPrefix(h.Key, "retriable_kafka_") {
					b.Errorf("it still has %s", h.Key)
				}
			}
		}
		wantEqual(b.T, "committed", b.committed("g", "orders", 1), 1)
		wantEqual(b.T, "committed in the retry topic", b.committed("g", "orders.retry", 0), 1)
		if err := c.Health(b.Context()); err != nil {
			b.Errorf("Health, once nothing waits: %v", err)
		}
		c.clean()
	})
}

func TestACopyThatFitsNowhereAtAllStaysPendingAndIsToldOf(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var d diary
		var e events
		c := b.start("g", retriable.Hooks(&e), d.failing())
		defer c.end()
		retry, dead := b.tooLarge("orders.retry", -1), b.tooLarge("orders.dead", -1)
		b.produce("orders", 0, "0", "retry", "2", "bad", "4")
		time.Sleep(3 * time.Minute)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 1)
		wantEqual(b.T, "pending", c.part("orders", 0).Pending, 2)
		stucks := list(&e, &e.stucks)
		if len(stucks) != 1 || stucks[0].Oldest.Offset != 1 || stucks[0].Oldest.Reason != retriable.ReasonProducing {
			b.Errorf("OnStuck: %+v", stucks)
		}
		err := c.Health(b.Context())
		if !errors.As(err, new(*retriable.StuckError)) || !errors.As(err, new(*retriable.ProduceError)) {
			b.Errorf("Health: %v", err)
		}
		retry.Remove()
		dead.Remove()
		time.Sleep(20 * time.Second)
		wantEqual(b.T, "dead letters", len(b.read("orders.dead")), 2)
		wantEqual(b.T, "committed afterwards", b.committed("g", "orders", 0), 5)
		if err := c.Health(b.Context()); err != nil {
			b.Errorf("Health afterwards: %v", err)
		}
		c.clean()
	})
}

func TestARecordLargerThanItsRetryTopicTakesIsNotLost(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		small := "2000"
		for topic, configs := range map[string]map[string]string{"orders.retry": {"max.message.bytes": small}, "orders.dead": {}} {
			if err := b.cluster.CreateTopic(topic, 1, configs); err != nil {
				b.Fatal(err)
			}
		}
		var d diary
		c := b.start("g", retriable.Topic("orders", d.handler("", func(_ context.Context, m *retriable.Message) error {
			if m.Attempt == 1 {
				return errors.New(strings.Repeat("x", 2000)) // of which the copy has 1 KiB
			}
			return nil
		}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(time.Second))))
		defer c.end()
		values := []string{strings.Repeat("a", 100), strings.Repeat("b", 1500), strings.Repeat("c", 5000), strings.Repeat("d", 100)}
		b.produce("orders", 0, values...)
		time.Sleep(time.Minute)
		for _, v := range values {
			again := len(d.of(func(w visit) bool { return w.value == v && w.attempt == 2 }))
			dead := 0
			for _, r := range b.read("orders.dead") {
				if string(r.Value) == v {
					dead++
				}
			}
			if again+dead != 1 || len(v) < 1000 && dead > 0 {
				b.Errorf("of %d %s: delivered again %d times, %d dead letters", len(v), v[:1], again, dead)
			}
		}
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 4)
		c.clean()
	})
}

// cable is a member's network, which can be cut for good: so it looks as if its process had died.
type cable struct {
	b     *bed
	mu    sync.Mutex
	conns []net.Conn
	dead  bool
	// deaf and dumb die with the first request of their key: before it is delivered, and after.
	dumb, deaf kmsg.Key
}

func (k *cable) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dead = true
	for _, c := range k.conns {
		_ = c.Close()
	}
}

func (k *cable) isCut() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.dead
}

func (k *cable) dialer() retriable.Option {
	return retriable.Kafka(kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
		if k.isCut() {
			return nil, errors.New("the cable is cut")
		}
		c, err := k.b.net.DialContext(ctx, network, host)
		if err != nil {
			return nil, err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		k.conns = append(k.conns, c)
		return &cableConn{c, k}, nil
	}))
}

type cableConn struct {
	net.Conn
	k *cable
}

func (c *cableConn) Write(p []byte) (int, error) {
	var key kmsg.Key = -1
	if len(p) >= 6 {
		key = kmsg.Key(binary.BigEndian.Uint16(p[4:]))
	}
	c.k.mu.Lock()
	dumb, deaf := key == c.k.dumb && key >= 0, key == c.k.deaf && key >= 0
	c.k.mu.Unlock()
	if dumb {
		c.k.cut()
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Write(p)
	if deaf {
		time.Sleep(10 * time.Millisecond)
		c.k.cut()
	}
	return n, err
}

func (k *cable) arm(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

func TestACrashLosesNothing(t *testing.T) {
	for _, crash := range []struct {
		name string
		when func(b *bed, k *cable)
	}{
		{"before the copies are written", func(_ *bed, k *cable) { k.arm(func() { k.dumb = kmsg.Produce }) }},
		{"between their write and its ack", func(_ *bed, k *cable) { k.arm(func() { k.deaf = kmsg.Produce }) }},
		{"before the commit", func(b *bed, k *cable) {
			time.Sleep(500 * time.Millisecond)
			k.arm(func() { k.dumb = kmsg.OffsetCommit })
		}},
		{"between the commit and its answer", func(b *bed, k *cable) {
			time.Sleep(500 * time.Millisecond)
			k.arm(func() { k.deaf = kmsg.OffsetCommit })
		}},
		{"while the copies are refused", func(b *bed, k *cable) {
			refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.InvalidRecord, Count: -1})
			time.Sleep(5 * time.Second)
			k.cut()
			refused.Remove()
		}},
		{"while handlers run", func(_ *bed, k *cable) { time.Sleep(150 * time.Millisecond); k.cut() }},
		{"while retries are held", func(_ *bed, k *cable) { time.Sleep(4 * time.Second); k.cut() }},
	} {
		t.Run(crash.name, func(t *testing.T) {
			eachProtocol(t, "orders:2 orders.retry:2 orders.dead", func(b *bed, kafka retriable.Option) {
				var d diary
				k := &cable{b: b, dumb: -1, deaf: -1}
				opts := func(member string, more ...retriable.Option) []retriable.Option {
					return append(more, kafka, retriable.DrainTimeout(time.Second), retriable.Topic("orders", d.handler(member, func(_ context.Context, m *retriable.Message) error {
						time.Sleep(100 * time.Millisecond)
						switch v := string(m.Value); {
						case strings.HasPrefix(v, "bad"):
							return errors.New("never")
						case strings.HasPrefix(v, "retry") && m.Attempt < 3:
							return errors.New("not yet")
						}
						return nil
					}), retriable.MaxAttempts(4), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(5*time.Second))))
				}
				ma := b.start("g", opts("a", k.dialer())...)
				defer ma.end()
				var all []string
				for i := range 30 {
					v := fmt.Sprint([]string{"fine", "retry", "bad"}[i%3], i)
					all = append(all, v)
					b.produce("orders", int32(i%2), fmt.Sprintf("k%d=%s", i%7, v))
				}
				crash.when(b, k)
				b.eventually(10*time.Second, "the cable is cut", k.isCut)
				ma.stop()
				mb := b.start("g", opts("b")...)
				defer mb.end()
				time.Sleep(2 * time.Minute)
				<-ma.done

				dead := map[string]int{}
				for _, r := range b.read("orders.dead") {
					dead[string(r.Value)]++
				}
				for _, v := range all {
					var attempts []int
					ok := false
					for _, w := range d.of(func(w visit) bool { return w.value == v }) {
						attempts = append(attempts, w.attempt)
						ok = ok || strings.HasPrefix(v, "fine") || strings.HasPrefix(v, "retry") && w.attempt >= 3
					}
					if strings.HasPrefix(v, "bad") {
						ok = dead[v] > 0
					}
					if !ok {
						b.Errorf("I1: %s was lost: attempts %v, %d dead letters", v, attempts, dead[v])
					}
					if slices.Max(attempts) > 4 || slices.Min(attempts) < 1 {
						b.Errorf("I8: %s had attempts %v", v, attempts)
					}
				}
				for _, topic := range []string{"orders", "orders.retry"} {
					for p := range int32(2) {
						wantEqual(b.T, "committed in "+topic, b.committed("g", topic, p), b.cluster.PartitionInfo(topic, p).HighWatermark)
					}
				}
				mb.clean()
			})
		})
	}
}
