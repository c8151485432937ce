package retriable

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// fake brings up a broker with the topic "orders", within the bubble, and a client.
func fake(t *testing.T) (addrs []string, dial kgo.Opt, cl *kgo.Client) {
	t.Helper()
	net := new(kfake.VirtualNetwork)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"), kfake.ListenFn(net.Listen), kfake.Ports(9092))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	addrs, dial = cluster.ListenAddrs(), kgo.Dialer(net.DialContext)
	if cl, err = kgo.NewClient(kgo.SeedBrokers(addrs...), dial, kgo.DefaultProduceTopic("orders")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return addrs, dial, cl
}

// running starts a consumer of the topic, and returns once it has joined.
func running(t *testing.T, addrs []string, dial kgo.Opt, h Handler) (c *Consumer, stop func()) {
	t.Helper()
	member, err := New("g", Brokers(addrs...), Kafka(dial), Topic("orders", h, StartAt(kgo.NewOffset().AtStart()), NoDeadLetters()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- member.Run(ctx) }()
	<-member.Ready()
	return member, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// kgo may say a second time that a partition is ours, and from where it is to be read, and go on all the same where it was. Nothing in between may
// be passed by a commit (I2).
func TestAPartitionSaidTwiceIsReadFromWhereItWasSaidToBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		addrs, dial, cl := fake(t)
		produce := func(from, to int) {
			for i := from; i < to; i++ {
				if err := cl.ProduceSync(t.Context(), kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
		produce(0, 10)

		var mu sync.Mutex
		seen := map[int64]int{}
		h := HandlerFunc(func(_ context.Context, m *Message) error {
			mu.Lock()
			defer mu.Unlock()
			seen[m.Offset]++
			return nil
		})
		c, stop := running(t, addrs, dial, h)
		time.Sleep(time.Minute)
		if c.partition(topicPartition{"orders", 0}).topicID == 0 {
			t.Error("the topic's id is not known, so no map can name it")
		}

		name := topicPartition{"orders", 0}
		c.await(map[string][]int32{"orders": {0}})
		c.fetched = map[topicPartition]fetchedOffset{name: {offset: 4, epoch: -1}}
		if _, err := c.onOffsets(t.Context(), map[string]map[int32]kgo.Offset{"orders": {0: kgo.NewOffset().At(4)}}); err != nil {
			t.Fatal(err)
		}
		produce(10, 12)
		time.Sleep(time.Minute)
		stop()
		for at := range int64(12) {
			want := 1
			if at >= 4 && at < 10 {
				want = 2
			}
			if seen[at] != want {
				t.Errorf("offset %d was handled %d times, want %d", at, seen[at], want)
			}
		}
		committed, err := kadm.NewClient(cl).FetchOffsets(t.Context(), "g")
		if o, _ := committed.Lookup("orders", 0); err != nil || o.At != 12 {
			t.Errorf("committed %d (%v), want 12", o.At, err)
		}
	})
}

// What was assigned of a topic of which kgo is told to forget all is not taken up with the next assignment: it may be another member's by then.
func TestWhatIsAssignedOfATopicThatIsLetGoIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		addrs, dial, _ := fake(t)
		c, stop := running(t, addrs, dial, HandlerFunc(func(context.Context, *Message) error { return nil }))
		defer stop()
		c.await(map[string][]int32{"orders": {0}})
		c.letGoStale([]string{"orders"})
		for what, asked := range map[string]map[string]map[int32]kgo.Offset{
			"not asked for by kgo":      {},
			"asked for by kgo, in vain": {"orders": {0: kgo.NewOffset().At(0)}},
		} {
			given, err := c.onOffsets(t.Context(), asked)
			if err != nil || len(given["orders"]) > 0 || c.partition(topicPartition{"orders", 0}) != nil {
				t.Errorf("%s: %v are taken up (%v)", what, given, err)
			}
		}
	})
}

// A topic that kgo is told to forget is not consumed again before kgo has given up what it had of it: else it keeps that, in the eyes of the group too, and
// the group gives it to somebody else.
func TestATopicIsTakenUpAgainOnlyOnceItIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		addrs, dial, _ := fake(t)
		c, stop := running(t, addrs, dial, HandlerFunc(func(context.Context, *Message) error { return nil }))
		defer stop()
		time.Sleep(time.Minute)
		a := absence{"orders", c.takenAway.Load(), time.Now()}
		if c.isOver(a) {
			t.Error("it is taken up again before it is given up")
		}
		if gone := (absence{topic: "orders"}); !c.isOver(gone) {
			t.Error("one that is gone itself is to be taken up as soon as it is there")
		}
		c.renewer.add("orders", &c.renewer.stale)
		synctest.Wait()
		time.Sleep(100 * time.Millisecond)
		if !c.isOver(a) {
			t.Error("it is given up, and not taken up again")
		}
		a.taken = c.takenAway.Load()
		if time.Sleep(forgetWithin); !c.isOver(a) {
			t.Error("where there is no session nobody gives it up")
		}
		time.Sleep(time.Minute)
		if c.partition(topicPartition{"orders", 0}) == nil {
			t.Error("it is not assigned again")
		}
	})
}

// A leader that was just elected may tell a lower end of its log for a while. The map of the last commit stays good, if it is certain that it is about
// this log.
func TestAMapOutlivesALeaderThatKnowsLess(t *testing.T) {
	c, err := New("g", Brokers("localhost:1"), Topic("orders", HandlerFunc(func(context.Context, *Message) error { return nil }), NoDeadLetters()))
	if err != nil {
		t.Fatal(err)
	}
	c.base = t.Context()
	m := watermark.Map{Topic: 7, Epoch: 3, Done: []watermark.Run{{From: 12, To: 20}}}
	text, _ := m.Encode(10, watermark.MaxMetadata)
	unknown := watermark.Map{Epoch: 3, Done: m.Done}
	anonymous, _ := unknown.Encode(10, watermark.MaxMetadata)
	for _, x := range []struct {
		name    string
		f       fetchedOffset
		end     int64 // as listed when the partition was assigned, -1 if it could not be
		fetched int64
		want    int
	}{
		{"listed", fetchedOffset{10, 3, text, 7}, 20, 20, 1},
		{"listed, and lower", fetchedOffset{10, 3, text, 7}, 15, 20, 0},
		{"fetched", fetchedOffset{10, 3, text, 7}, -1, 20, 1},
		{"fetched, and lower", fetchedOffset{10, 3, text, 7}, -1, 15, 1},
		{"fetched, lower, of another topic", fetchedOffset{10, 3, text, 8}, -1, 15, 0},
		{"fetched, lower, of who knows which topic", fetchedOffset{10, 3, anonymous, 0}, -1, 15, 0},
	} {
		p := newPartition(c, topicPartition{"orders", 0}, c.set.topics[0], false, kgo.EpochOffset{Offset: 10, Epoch: 3})
		p.end = x.end
		p.readMap(x.f, false)
		p.accept(nil, x.fetched, time.Now())
		if len(p.claims) != x.want {
			t.Errorf("%s: %d claims, want %d", x.name, len(p.claims), x.want)
		}
	}
}
