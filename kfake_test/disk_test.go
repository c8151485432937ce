package kfake_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// The brokers' disks are full: copies, dead letters and commits are refused, and nothing else. Then they run out of memory and are gone for a while, and come back
// with their disks as they were. All of that time what could not be written stays pending, Health and the hooks say what is wrong, and the other records are
// handled, once; again only those that no commit could tell of when the session ended. Once there is room all goes on, and there is one copy and one dead letter.
func TestBrokersWithoutDiskOrMemoryLoseNothing(t *testing.T) { // I1, I2, I5, I9
	for _, says := range []struct {
		name            string
		produce, commit *kerr.Error
	}{
		// What Kafka's coordinators make of either when their own topic cannot be written.
		{"the log cannot be written", kerr.KafkaStorageError, kerr.NotCoordinator},
		{"too few replicas have room", kerr.NotEnoughReplicas, kerr.CoordinatorNotAvailable},
		{"the same is said of commits", kerr.KafkaStorageError, kerr.KafkaStorageError},
		{"the same is said of commits, of replicas", kerr.NotEnoughReplicas, kerr.NotEnoughReplicas},
	} {
		t.Run(says.name, func(t *testing.T) {
			bubble(t, "orders:2 orders.retry orders.dead", func(b *bed) {
				var d diary
				var e events
				k := &cable{b: b, dumb: -1, deaf: -1}
				topic, session := d.failing(), retriable.Kafka(kgo.ServerSideBalancer()) // in a classic group a join waits for the refused commit on a mutex, which stops the bubble's time
				c := b.start("g", k.dialer(), session, retriable.Hooks(&e), topic)
				defer c.end()
				b.produce("orders", 0, "0", "1", "2")
				b.produce("orders", 1, "3")
				time.Sleep(3 * time.Second)
				wantEqual(b.T, "committed before", b.committed("g", "orders", 0), 3)

				full := []*kfake.FaultHandle{
					b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: says.produce, Count: -1}),
					b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.dead", Err: says.produce, Count: -1}),
					b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Err: says.commit, Count: -1}),
				}
				b.produce("orders", 0, "retry", "4", "5")
				b.produce("orders", 1, "bad", "6")
				pends := func(when string, handled int) {
					b.Helper()
					wantEqual(b.T, "handled "+when, len(d.all()), handled)
					for p, at := range map[int32]int64{0: 3, 1: 1} {
						wantEqual(b.T, "committed "+when, b.committed("g", "orders", p), at)
						s := c.part("orders", p)
						if s.Pending != 1 || s.Watermark != at || s.Oldest.Offset != at || s.Oldest.Reason != retriable.ReasonProducing {
							b.Errorf("Stats %s: %+v", when, s)
						}
					}
				}
				time.Sleep(2 * time.Minute)
				pends("while the disks are full", 9)
				told := map[string]bool{}
				for _, f := range list(&e, &e.refusals) {
					told[f.Topic] = told[f.Topic] || errors.Is(f.Err, says.produce)
				}
				for _, m := range list(&e, &e.commits) {
					told["a commit"] = told["a commit"] || errors.Is(m.Err, says.commit)
				}
				wantEqual(b.T, "the hooks told of", fmt.Sprint(told), "map[a commit:true orders.dead:true orders.retry:true]")
				if n := len(list(&e, &e.stucks)); n != 2 {
					b.Errorf("OnStuck was called %d times for two partitions", n)
				}
				var failed *retriable.ProduceError
				if err := c.Health(b.Context()); !errors.As(err, &failed) || !errors.Is(err, says.produce) || !errors.As(err, new(*retriable.StuckError)) {
					b.Errorf("Health while the disks are full: %v", err)
				}

				k.cut()
				b.produce("orders", 0, "7")
				time.Sleep(20 * time.Second)
				wantEqual(b.T, "handled while they are gone", len(d.all()), 9)
				if err := c.Health(b.Context()); !errors.As(err, new(*retriable.BrokerError)) {
					b.Errorf("Health while they are gone: %v", err)
				}
				k.arm(func() { k.dead, k.conns = false, nil })
				time.Sleep(time.Minute)
				pends("once they are back", 9+5+1) // what could not be committed comes once more, as kgo ended its session

				for _, f := range full {
					f.Remove()
				}
				time.Sleep(30 * time.Second)
				wantEqual(b.T, "copies", len(b.read("orders.retry")), 1)
				wantEqual(b.T, "dead letters", len(b.read("orders.dead")), 1)
				wantEqual(b.T, "deliveries", len(d.all()), 16)
				wantEqual(b.T, "of the one that failed", len(d.of(func(v visit) bool { return v.value == "retry" })), 3)
				if err := c.Health(b.Context()); err != nil {
					b.Errorf("Health afterwards: %v", err)
				}
				c.clean()
				for topic, ends := range map[string][]int64{"orders": {7, 3}, "orders.retry": {1}} {
					for p, end := range ends {
						wantEqual(b.T, "committed in "+topic, b.committed("g", topic, int32(p)), end)
					}
				}
				c = b.start("g", session, topic)
				defer c.end()
				time.Sleep(10 * time.Second)
				wantEqual(b.T, "deliveries after a restart", len(d.all()), 16)
				c.clean()
			}, kfake.BrokerConfigs(map[string]string{"group.consumer.heartbeat.interval.ms": "500", "group.consumer.session.timeout.ms": "60000"}))
		})
	}
}
