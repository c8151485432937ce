package kfake_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// producer makes a Producer; the story closes it.
func (b *bed) producer(opts ...retriable.ProducerOption) *retriable.Producer {
	b.Helper()
	p, err := retriable.NewProducer(append([]retriable.ProducerOption{
		retriable.Brokers("127.0.0.1:9092"), retriable.Kafka(b.dial()...),
		retriable.Logger(slog.New(slog.NewTextHandler(io.MultiWriter(b.log, writer{b.T}), nil))),
	}, opts...)...)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// small makes a topic that takes records of so many bytes.
func (b *bed) small(topic string, partitions int32, most string) {
	b.Helper()
	if err := b.cluster.CreateTopic(topic, partitions, map[string]string{"max.message.bytes": most}); err != nil {
		b.Fatal(err)
	}
}

// chunk is what a record says of itself as a chunk.
type chunk struct {
	group     string
	count, id uint64
}

func chunkOf(r *kgo.Record) (c chunk, ok bool) {
	group, g := header(r, "retriable_kafka_chunk_group")
	count, n := header(r, "retriable_kafka_number_of_chunks")
	id, i := header(r, "retriable_kafka_chunk_id")
	if !g || !n || !i || len(group) != 16 || len(count) != 8 || len(id) != 8 {
		return c, false
	}
	return chunk{group, binary.BigEndian.Uint64([]byte(count)), binary.BigEndian.Uint64([]byte(id))}, true
}

// whole joins records that must be the chunks of one message, in order, on one partition.
func (b *bed) whole(rs []*kgo.Record) []byte {
	b.Helper()
	var value []byte
	var group string
	for i, r := range rs {
		c, ok := chunkOf(r)
		if i == 0 {
			group = c.group
		}
		if !ok || c.group != group || c.count != uint64(len(rs)) || c.id != uint64(i) || r.Partition != rs[0].Partition || r.Timestamp != rs[0].Timestamp || !bytes.Equal(r.Key, rs[0].Key) {
			b.Errorf("record %d is no chunk of this message: %+v %v", i, c, headers(r))
		}
		value = append(value, r.Value...)
	}
	return value
}

// text is n bytes that no compression makes smaller.
func text(n int) []byte {
	b := make([]byte, n)
	random := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = random.Read(b)
	return b
}

func TestProduceReturnsOnceItsRecordIsAcked(t *testing.T) {
	bubble(t, "orders:3", func(b *bed) {
		p := b.producer()
		defer p.Close()
		refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders", Err: kerr.NotEnoughReplicas, Count: -1})
		r := &kgo.Record{Topic: "orders", Key: []byte("k"), Value: []byte("v"), Headers: users}
		done := make(chan error)
		go func() { done <- p.Produce(b.Context(), r) }()
		pass(time.Minute)
		select {
		case err := <-done:
			b.Fatalf("Produce returned while its record was refused: %v", err)
		default:
		}
		refused.Remove()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		rs := b.read("orders")
		wantEqual(b.T, "records", len(rs), 1)
		wantEqual(b.T, "written", fmt.Sprintf("%s %s %v", rs[0].Key, rs[0].Value, headers(rs[0])), fmt.Sprintf("k v %v", usersPrinted))
		wantEqual(b.T, "where, as its record says", fmt.Sprint(r.Partition, r.Offset, r.Timestamp.UnixMilli()), fmt.Sprint(rs[0].Partition, rs[0].Offset, rs[0].Timestamp.UnixMilli()))
	})
}

func TestWhatIsTooLargeForItsTopicIsSplit(t *testing.T) {
	bubble(t, "", func(b *bed) {
		b.small("orders", 7, "1000")
		p := b.producer()
		defer p.Close()
		for i, r := range []*kgo.Record{
			{Topic: "orders", Value: text(10_000)},
			{Topic: "orders", Key: []byte("k"), Value: text(10_000), Headers: users},
			{Topic: "orders", Key: []byte{}, Value: text(10_000)},
		} {
			before := len(b.read("orders"))
			r := *r
			if err := p.Produce(b.Context(), &r); err != nil {
				b.Fatal(err)
			}
			rs := b.read("orders")
			rs = rs[:0:0]
			for _, w := range b.read("orders") {
				if w.Partition == r.Partition && w.Offset >= r.Offset {
					rs = append(rs, w)
				}
			}
			wantEqual(b.T, "records of nothing else", len(b.read("orders"))-before, len(rs))
			if len(rs) < 11 {
				b.Errorf("%d chunks of 10 kB", len(rs))
			}
			wantEqual(b.T, "joined", string(b.whole(rs)), string(r.Value))
			_, marked := header(rs[0], "retriable_key")
			wantEqual(b.T, "has no key of its own", marked, i == 0)
			c, _ := chunkOf(rs[0])
			wantEqual(b.T, "its key", string(rs[0].Key), map[int]string{0: c.group, 1: "k", 2: ""}[i])
		}
		if p.Produce(b.Context(), &kgo.Record{Topic: "orders", Value: text(500)}) != nil {
			b.Error("what fits is not written")
		}
		for _, r := range b.read("orders") {
			if _, ok := chunkOf(r); ok == (len(r.Value) == 500) {
				b.Errorf("only what is split has chunk headers: %v", headers(r))
			}
		}
	})
}

func TestWhatCannotBeSplitIsRefusedAndLeavesNothingBehind(t *testing.T) {
	bubble(t, "", func(b *bed) {
		b.small("orders", 1, "1000")
		p := b.producer()
		defer p.Close()
		for name, r := range map[string]*kgo.Record{
			"too many chunks": {Topic: "orders", Value: text(1024 * 1000)},
			"a key too large": {Topic: "orders", Key: text(2000), Value: []byte("v")},
			"no value":        {Topic: "orders", Key: text(2000)},
		} {
			if err := p.Produce(b.Context(), r); !errors.Is(err, kerr.MessageTooLarge) || !strings.Contains(err.Error(), `topic "orders"`) {
				b.Errorf("%s: %v", name, err)
			}
		}
		wantEqual(b.T, "records", len(b.read("orders")), 0)
		if err := p.Produce(b.Context(), nil); err == nil {
			b.Error("a nil record is no error")
		}
		if err := p.Produce(b.Context(), &kgo.Record{Topic: "nowhere", Value: []byte("v")}); !errors.Is(err, kerr.UnknownTopicOrPartition) {
			b.Errorf("a missing topic: %v", err)
		}
	})
}

func TestARefusalTeachesWhatATopicTakes(t *testing.T) {
	bubble(t, "", func(b *bed) {
		b.small("orders", 1, "1000")
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		p := b.producer()
		defer p.Close()
		r := &kgo.Record{Topic: "orders", Value: text(60_000)}
		if err := p.Produce(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		wantEqual(b.T, "joined", string(b.whole(b.read("orders"))), string(r.Value))
		if n := len(b.log.lines("level=WARN")); n != 1 {
			b.Errorf("%d warnings", n)
		}
		// Many at once: batches of several are refused, but each of them is written.
		var wg sync.WaitGroup
		before := len(b.read("orders"))
		for range 50 {
			wg.Go(func() {
				if err := p.Produce(b.Context(), &kgo.Record{Topic: "orders", Value: text(200)}); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		wantEqual(b.T, "records", len(b.read("orders"))-before, 50)
	})
}

func TestATopicThatTakesLessThanBeforeIsAskedAgain(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		p := b.producer()
		defer p.Close()
		if err := p.Produce(b.Context(), &kgo.Record{Topic: "orders", Value: text(10_000)}); err != nil {
			b.Fatal(err)
		}
		wantEqual(b.T, "records", len(b.read("orders")), 1)
		b.alter("orders", "max.message.bytes", "2000")
		r := &kgo.Record{Topic: "orders", Value: text(10_000)}
		if err := p.Produce(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		rs := b.read("orders")[1:]
		wantEqual(b.T, "joined", string(b.whole(rs)), string(r.Value))
		if len(rs) > 7 {
			b.Errorf("%d chunks of 10 kB in a topic that takes 2 kB: it was not asked", len(rs))
		}
	})
}

// alter sets one configuration of a topic.
func (b *bed) alter(topic, key, value string) {
	b.Helper()
	rs, err := kadm.NewClient(b.cl).AlterTopicConfigs(b.Context(), []kadm.AlterConfig{{Name: key, Value: &value}}, topic)
	if err == nil {
		_, err = rs.On(topic, nil)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// onWritten is a hook of kgo's that is told of the first record that was acked.
type onWritten struct {
	sync.Once
	f func()
}

func (h *onWritten) OnProduceRecordUnbuffered(_ *kgo.Record, _ error) { h.Do(h.f) }

func TestChunksStayTogetherWhenATopicGetsMorePartitions(t *testing.T) {
	bubble(t, "", func(b *bed) {
		b.small("orders", 2, "1000")
		for i := range 10 {
			key := fmt.Append(nil, i)
			p := b.producer(retriable.Kafka(kgo.MetadataMinAge(10*time.Millisecond), kgo.MetadataMaxAge(50*time.Millisecond), kgo.WithHooks(&onWritten{f: func() {
				if _, err := kadm.NewClient(b.cl).UpdatePartitions(b.Context(), 10*(i+1), "orders"); err != nil {
					b.Error(err)
				}
				time.Sleep(time.Second)
			}})))
			r := &kgo.Record{Topic: "orders", Key: key, Value: text(5000)}
			if err := p.Produce(b.Context(), r); err != nil {
				b.Fatal(err)
			}
			p.Close()
			var rs []*kgo.Record
			for _, w := range b.read("orders") {
				if bytes.Equal(w.Key, key) {
					rs = append(rs, w)
				}
			}
			wantEqual(b.T, "joined", string(b.whole(rs)), string(r.Value))
		}
	})
}

// mute is a connection on which nothing is sent any more from some time on.
type mute struct {
	net.Conn
	on *atomic.Bool
}

func (c mute) Write(p []byte) (int, error) {
	if c.on.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func TestProduceEndsWithItsContext(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var muted atomic.Bool
		p := b.producer(retriable.Kafka(kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
			conn, err := b.net.DialContext(ctx, network, host)
			return mute{conn, &muted}, err
		})))
		defer p.Close()
		if err := p.Produce(b.Context(), &kgo.Record{Topic: "orders", Value: []byte("0")}); err != nil {
			b.Fatal(err)
		}
		muted.Store(true)
		ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		err := p.Produce(ctx, &kgo.Record{Topic: "orders", Value: []byte("1")})
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 6*time.Second {
			b.Errorf("after %v: %v", took, err)
		}
	})
}

// A broker that hangs up on new connections wants TLS, or ends: once it has answered it is the latter.
func TestProduceOutlivesABrokerThatHangsUp(t *testing.T) {
	bubble(t, "orders:1", func(b *bed) {
		var hangsUp atomic.Bool
		b.cluster.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			return nil, errors.New("the broker ends"), hangsUp.Load()
		})
		produce := func(p *retriable.Producer) (time.Duration, error) {
			ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
			defer cancel()
			began := time.Now()
			err := p.Produce(ctx, &kgo.Record{Topic: "orders", Value: []byte("v")})
			return time.Since(began), err
		}
		p := b.producer()
		defer p.Close()
		hangsUp.Store(true)
		var eof *kgo.ErrFirstReadEOF
		if took, err := produce(p); !errors.As(err, &eof) || took > time.Second {
			t.Errorf("the first Produce: %v after %v, want kgo's words on TLS at once", err, took)
		}
		hangsUp.Store(false)
		if _, err := produce(p); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute) // until kgo has closed its idle connections
		hangsUp.Store(true)
		time.AfterFunc(5*time.Second, func() { hangsUp.Store(false) })
		if took, err := produce(p); err != nil || took < 5*time.Second {
			t.Errorf("a later Produce: %v after %v, want it written once the broker is back", err, took)
		}
	})
}

func TestDeliverAtIsWrittenInBothEncodings(t *testing.T) {
	bubble(t, "", func(b *bed) {
		b.small("orders", 1, "1000")
		p := b.producer()
		defer p.Close()
		due := time.UnixMilli(1_795_402_836_001).Add(time.Microsecond) // rounded up
		stale := []kgo.RecordHeader{kv("retriable_due", []byte("1")), kv("mine", []byte("x")), kv("retriable_kafka_timestamp", be64(1))}
		if err := p.Produce(b.Context(), &kgo.Record{Topic: "orders", Value: text(2000), Headers: stale}, retriable.DeliverAt(due)); err != nil {
			b.Fatal(err)
		}
		if err := p.Produce(b.Context(), &kgo.Record{Topic: "orders", Value: []byte("v"), Headers: stale[1:2]}, retriable.DeliverAt(time.Time{})); err != nil {
			b.Fatal(err)
		}
		rs := b.read("orders")
		for _, r := range rs[:len(rs)-1] {
			sec, _ := header(r, "retriable_kafka_timestamp")
			ms, _ := header(r, "retriable_due")
			wantEqual(b.T, "due", sec+ms, string(be64(1_795_402_837))+"1795402836002")
			wantEqual(b.T, "the user's", headerOf(r, "mine"), "x")
		}
		wantEqual(b.T, "not asked for", headers(rs[len(rs)-1]), []string{`mine="x"`})
	})
}

func TestSplitIsForClientsOfOnesOwn(t *testing.T) {
	bubble(t, "", func(b *bed) {
		b.small("orders", 5, "2000")
		r := &kgo.Record{Topic: "orders", Value: text(10_000), Headers: users}
		parts := retriable.Split(r, 2000, retriable.DeliverAt(time.Now().Add(time.Hour)))
		if len(r.Headers) != len(users) || r.Key != nil || !r.Timestamp.IsZero() {
			b.Errorf("the record was changed: %+v", r)
		}
		own, err := kgo.NewClient(append(b.dial(), kgo.SeedBrokers("127.0.0.1:9092"), kgo.ProducerBatchMaxBytes(2000))...)
		if err != nil {
			b.Fatal(err)
		}
		defer own.Close()
		if err := own.ProduceSync(b.Context(), parts...).FirstErr(); err != nil {
			b.Fatal(err)
		}
		rs := b.read("orders")
		wantEqual(b.T, "joined", string(b.whole(rs)), string(r.Value))
		if headerOf(rs[0], "retriable_due") == "" {
			b.Error("not delayed")
		}
		small := retriable.Split(&kgo.Record{Topic: "orders", Value: text(1000)}, 2000)
		wantEqual(b.T, "what fits", fmt.Sprint(len(small), len(small[0].Headers)), "1 0")
		for _, r := range []*kgo.Record{{Key: text(3000), Value: text(10)}, {Value: text(2_000_000)}} {
			parts := retriable.Split(r, 1000)
			if _, ok := chunkOf(parts[0]); len(parts) != 1 || ok || len(parts[0].Value) != len(r.Value) {
				b.Errorf("what cannot be split: %d parts", len(parts))
			}
		}
	})
}

func TestNewProducerChecksAllAtOnceAndTouchesNoNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialed := false
		dialer := kgo.Dialer(func(context.Context, string, string) (net.Conn, error) {
			dialed = true
			return nil, errors.New("no network here")
		})
		p, err := retriable.NewProducer(retriable.Brokers("127.0.0.1:9092"), retriable.Kafka(dialer, kgo.MetadataMinAge(10*time.Millisecond)))
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Minute) // later kgo would look after its metadata
		if dialed {
			t.Error("NewProducer dialed")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Produce(ctx, &kgo.Record{Topic: "orders", Value: []byte("v")}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without a broker: %v", err)
		}
		p.Close()
		p.Close()
		if err := p.Produce(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("v")}); err == nil {
			t.Error("a closed Producer writes")
		}
	})
	_, err := retriable.NewProducer(nil, retriable.Kafka(kgo.RequiredAcks(kgo.NoAck()), kgo.ManualFlushing(), kgo.RecordPartitioner(kgo.ManualPartitioner())), nil)
	for _, word := range []string{"2 options are nil", "kgo.RequiredAcks", "kgo.ManualFlushing", "kgo.RecordPartitioner", "Brokers: none given"} {
		if err == nil || !errors.Is(err, retriable.ErrInvalidOption) || !strings.Contains(err.Error(), word) {
			t.Errorf("no complaint of %s: %v", word, err)
		}
	}
}
