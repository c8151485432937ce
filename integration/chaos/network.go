package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Mode is a way in which the network fails.
type Mode string

// The modes.
const (
	Reset   Mode = "reset"    // connections are reset, and new ones refused
	Hole    Mode = "hole"     // nothing comes through, and nobody says so; what was open then is dead
	Slow    Mode = "slow"     // each request waits for 200 ms
	Half    Mode = "half"     // requests are cut in their middle
	LostAck Mode = "lost ack" // the requests of one key are carried out, and their answers lost
)

// Modes are all modes.
var Modes = []Mode{Reset, Hole, Slow, Half, LostAck}

var errCut = errors.New("chaos: the connection was cut")

// Network is a network that fails on order.
type Network struct {
	mu    sync.Mutex
	fault Order
	over  chan struct{} // closed when the fault is
	conns map[*conn]bool
}

// NewNetwork returns a network that works.
func NewNetwork() *Network {
	over := make(chan struct{})
	close(over)
	return &Network{over: over, conns: map[*conn]bool{}}
}

// Fail lets the network fail for a while. It replaces a failure before it.
func (n *Network) Fail(o Order) {
	n.mu.Lock()
	defer n.mu.Unlock()
	over := make(chan struct{})
	n.fault, n.over = o, over
	time.AfterFunc(o.For, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.over == over {
			n.fault = Order{}
		}
		close(over)
	})
	if o.Net == Reset {
		for c := range n.conns {
			if o.Port == 0 || o.Port == c.port {
				c.cut()
			}
		}
	}
}

// now returns what is wrong with the way to a port, and what is closed when that is over.
func (n *Network) now(port int) (o Order, over <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fault.Port != 0 && n.fault.Port != port {
		return Order{}, n.over
	}
	return n.fault, n.over
}

// Dial is for kgo.Dialer.
func (n *Network) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(p)
	if err != nil {
		return nil, err
	}
	switch o, over := n.now(port); o.Net {
	case Reset:
		return nil, errCut
	case Hole:
		select {
		case <-over:
		case <-ctx.Done():
		}
		return nil, errors.Join(errCut, ctx.Err())
	default:
	}
	var d net.Dialer
	inner, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, n: n, port: port, closed: make(chan struct{})}
	n.mu.Lock()
	n.conns[c] = true
	n.mu.Unlock()
	return c, nil
}

// conn is a connection that the network's faults reach.
type conn struct {
	net.Conn
	n      *Network
	port   int
	once   sync.Once
	closed chan struct{}
	dead   atomic.Bool // it fell into a hole
	mute   atomic.Bool // what comes next is lost, and with it the connection
	until  atomic.Int64
}

// cut ends the connection without a word to the other side but a reset.
func (c *conn) cut() {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Conn.Close()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.n.mu.Lock()
	delete(c.n.conns, c)
	c.n.mu.Unlock()
	return c.Conn.Close()
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.until.Store(nanos(t))
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.until.Store(nanos(t))
	return c.Conn.SetReadDeadline(t)
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Write implements net.Conn. kgo writes a request by one call: its size, then its key.
func (c *conn) Write(b []byte) (int, error) {
	o, over := c.n.now(c.port)
	switch {
	case c.dead.Load() || o.Net == Hole:
		c.dead.Store(true)
		return len(b), nil
	case o.Net == Reset:
		c.cut()
		return 0, errCut
	case o.Net == Half:
		k, _ := c.Conn.Write(b[:len(b)/2])
		c.cut()
		return k, errCut
	case o.Net == Slow:
		select {
		case <-time.After(200 * time.Millisecond):
		case <-over:
		case <-c.closed:
		}
	case o.Net == LostAck && len(b) > 6 && int16(binary.BigEndian.Uint16(b[4:])) == o.Key:
		c.mute.Store(true)
	}
	return c.Conn.Write(b)
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	k, err := c.Conn.Read(b)
	o, over := c.n.now(c.port)
	if err == nil && c.mute.Load() {
		c.cut()
		return 0, errCut
	}
	if o.Net != Hole && !c.dead.Load() {
		return k, err
	}
	c.dead.Store(true)
	// Whatever came, came to nobody.
	var deadline <-chan time.Time
	if at := c.until.Load(); at != 0 {
		t := time.NewTimer(time.Until(time.Unix(0, at)))
		defer t.Stop()
		deadline = t.C
	}
	if o.Net != Hole {
		over = nil // a dead connection does not come to life when the hole is over
	}
	select {
	case <-over:
		return 0, errCut
	case <-c.closed:
		return 0, net.ErrClosed
	case <-deadline:
		return 0, os.ErrDeadlineExceeded
	}
}

// ports are the ports of addresses.
func ports(addrs []string) (ps []int) {
	for _, a := range addrs {
		if _, p, err := net.SplitHostPort(a); err == nil {
			if n, err := strconv.Atoi(p); err == nil && !slices.Contains(ps, n) {
				ps = append(ps, n)
			}
		}
	}
	return ps
}
