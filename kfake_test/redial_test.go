package kfake_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// door is a member's way to its brokers, which can be shut.
type door struct {
	b       *bed
	shut    atomic.Bool
	refused atomic.Int64
}

func (d *door) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	switch {
	case !d.shut.Load():
		return d.b.net.DialContext(ctx, network, address)
	case d.refused.Add(1) > 20_000: // in no time, or the test would not end
		d.shut.Store(false)
	}
	return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
}

// A member that was just given partitions asks its coordinator for their commits. If that is gone by then, kgo asks again and again.
func TestABrokerThatRefusesConnectionsIsNotDialedWithoutAPause(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		d := &door{b: b}
		b.cluster.ControlKey(int16(kmsg.OffsetFetch), func(kmsg.Request) (kmsg.Response, error, bool) {
			d.shut.Store(true)
			return nil, errors.New("the broker is gone"), true
		})
		r := b.launch("g", retriable.Kafka(kgo.ServerSideBalancer(), kgo.Dialer(d.DialContext)),
			retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), none()))
		b.until("refused", 10*time.Second, func() bool { return d.refused.Load() > 0 })
		time.Sleep(5 * time.Second)
		if n := d.refused.Load(); n > 300 {
			t.Errorf("%d dials in five seconds, want no more than some of each address each 50 ms", n)
		}
		d.shut.Store(false)
		b.produce("orders", 0, "a")
		b.produce("orders", 1, "b")
		b.until("all handled", time.Minute, func() bool { return r.Stats().Handled == 2 })
		r.clean()
	})
}

// A broker that ends takes connections and closes them without a word, which is also what one does that wants TLS. A member that has had answers has not got
// its options wrong: it asks again, and nothing is taken from it.
func TestABrokerThatHangsUpTakesNothingAway(t *testing.T) {
	for name, opts := range map[string][]kgo.Opt{"cooperative": nil, "KIP-848": {kgo.ServerSideBalancer()}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders:2 out:1", func(b *bed) {
				b.produce("orders", 0, "a")
				b.produce("orders", 1, "b")
				var e events
				started := make(chan struct{}, 10)
				r := b.launch("g", retriable.Kafka(opts...), retriable.Hooks(&e),
					retriable.Topic("orders", retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
						started <- struct{}{}
						time.Sleep(5 * time.Second)
						return m.Produce(ctx, &kgo.Record{Topic: "out", Value: m.Value})
					}), none()))
				<-started
				<-started
				var hangsUp atomic.Bool
				var asked atomic.Int64
				hangsUp.Store(true)
				b.cluster.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
					b.cluster.KeepControl()
					if !hangsUp.Load() {
						return nil, nil, false
					}
					asked.Add(1)
					return nil, errors.New("the broker ends"), true
				})
				time.Sleep(2 * time.Second)
				hangsUp.Store(false)
				if asked.Load() < 5 {
					t.Errorf("the broker was asked %d times in two seconds, so nothing is shown", asked.Load())
				}
				b.until("all handled", time.Minute, func() bool { return r.Stats().Handled == 2 })
				r.clean()
				if again := len(started); again > 0 {
					t.Errorf("%d records were delivered again", again)
				}
				for _, d := range list(&e, &e.drains) {
					if d.Lost {
						t.Errorf("%s/%d was lost", d.Topic, d.Partition)
					}
				}
			})
		})
	}
}
