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
