package chaos_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/integration/chaos"
)

// echo is a server that sends back what it gets; it counts the bytes.
func echo(t *testing.T) (string, *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got := &atomic.Int64{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, io.TeeReader(c, counter{got}))
			}()
		}
	}()
	return l.Addr().String(), got
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// request is a frame as Kafka's are: its length, then the key of the request.
func request(key int16) []byte {
	b := make([]byte, 64)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	binary.BigEndian.PutUint16(b[4:], uint16(key))
	return b
}

func dial(t *testing.T, n *chaos.Network, addr string) net.Conn {
	t.Helper()
	c, err := n.Dial(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends a request and returns what comes back.
func ask(c net.Conn, key int16) ([]byte, error) {
	if _, err := c.Write(request(key)); err != nil {
		return nil, err
	}
	b := make([]byte, 64)
	_, err := io.ReadFull(c, b)
	return b, err
}

func TestANetworkWithoutFaultsIsTransparent(t *testing.T) {
	addr, _ := echo(t)
	b, err := ask(dial(t, chaos.NewNetwork(), addr), 7)
	if err != nil || !bytes.Equal(b, request(7)) {
		t.Errorf("%x, %v", b, err)
	}
}

func TestAResetEndsConnectionsAndRefusesNewOnes(t *testing.T) {
	addr, _ := echo(t)
	n := chaos.NewNetwork()
	c := dial(t, n, addr)
	n.Fail(chaos.Order{Net: chaos.Reset, For: 300 * time.Millisecond})
	if _, err := ask(c, 7); err == nil {
		t.Error("the connection works")
	}
	if _, err := n.Dial(t.Context(), "tcp", addr); err == nil {
		t.Error("a new one is let in")
	}
	await(t, "a new one is let in when it is over", func() bool {
		c, err := n.Dial(t.Context(), "tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func TestAHoleSwallowsAll(t *testing.T) {
	addr, got := echo(t)
	n := chaos.NewNetwork()
	c := dial(t, n, addr)
	n.Fail(chaos.Order{Net: chaos.Hole, For: 400 * time.Millisecond})
	if _, err := c.Write(request(7)); err != nil {
		t.Errorf("the hole is told of: %v", err)
	}
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading in a hole: %v, want its deadline", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.Dial(ctx, "tcp", addr); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dialling into a hole: %v, want its deadline", err)
	}
	if got.Load() != 0 {
		t.Errorf("%d bytes came through", got.Load())
	}
	await(t, "a new connection works when it is over", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		c, err := n.Dial(ctx, "tcp", addr)
		if err != nil {
			return false
		}
		defer c.Close()
		_, err = ask(c, 7)
		return err == nil
	})
	if _, err := c.Write(request(7)); err == nil && got.Load() > 64 {
		t.Error("what fell into the hole came to life")
	}
}

func TestHalfARequest(t *testing.T) {
	addr, got := echo(t)
	n := chaos.NewNetwork()
	c := dial(t, n, addr)
	n.Fail(chaos.Order{Net: chaos.Half, For: time.Minute})
	if k, err := c.Write(request(7)); err == nil || k != 32 {
		t.Errorf("wrote %d, %v; want half of 64 and an error", k, err)
	}
	if got.Load() > 32 {
		t.Errorf("%d bytes came through", got.Load())
	}
}

func TestALostAck(t *testing.T) {
	addr, got := echo(t)
	n := chaos.NewNetwork()
	n.Fail(chaos.Order{Net: chaos.LostAck, Key: 8, For: time.Minute})
	c := dial(t, n, addr)
	if _, err := ask(c, 7); err != nil {
		t.Errorf("a request of another key: %v", err)
	}
	if _, err := ask(c, 8); err == nil {
		t.Error("the answer came")
	}
	if got.Load() != 128 {
		t.Errorf("%d bytes came through, want both requests", got.Load())
	}
}

func TestAFaultOfOneBrokerLeavesOthersAlone(t *testing.T) {
	bad, _ := echo(t)
	good, _ := echo(t)
	n := chaos.NewNetwork()
	_, port, err := net.SplitHostPort(bad)
	if err != nil {
		t.Fatal(err)
	}
	var o chaos.Order
	if o.Port, err = net.LookupPort("tcp", port); err != nil {
		t.Fatal(err)
	}
	o.Net, o.For = chaos.Reset, time.Minute
	n.Fail(o)
	if _, err := n.Dial(t.Context(), "tcp", bad); err == nil {
		t.Error("the bad one lets us in")
	}
	if _, err := ask(dial(t, n, good), 7); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestSlowIsNotBroken(t *testing.T) {
	addr, _ := echo(t)
	n := chaos.NewNetwork()
	c := dial(t, n, addr)
	n.Fail(chaos.Order{Net: chaos.Slow, For: time.Minute})
	began := time.Now()
	if _, err := ask(c, 7); err != nil || time.Since(began) < 200*time.Millisecond {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	over := time.After(10 * time.Second)
	for !so() {
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("not so: %s", what)
		}
	}
}
