package retriabletest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

type dialer = func(ctx context.Context, network, host string) (net.Conn, error)

// network is one consumer's, which can be cut.
type network struct {
	dial dialer

	mu    sync.Mutex
	conns map[*conn]struct{}
	gone  bool
	trap  *trap // nil mostly
}

// trap goes off once, at a request.
type trap struct {
	key    kmsg.Key
	before bool // it is not delivered
	spring func(c *conn)
}

// set has a trap go off at the next request of its kind.
func (n *network) set(t trap) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trap = &t
}

// sprung returns the trap that a request has met. A request is written in one piece, its length and its key first.
func (n *network) sprung(request []byte) *trap {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.trap
	if t == nil || len(request) < 6 || kmsg.Key(binary.BigEndian.Uint16(request[4:])) != t.key {
		return nil
	}
	n.trap = nil
	return t
}

func (n *network) dialContext(ctx context.Context, network, host string) (net.Conn, error) {
	n.mu.Lock()
	gone := n.gone
	n.mu.Unlock()
	if gone {
		return nil, refused("dial", syscall.ECONNREFUSED)
	}
	inner, err := n.dial(ctx, network, host)
	if err != nil {
		return nil, err
	}
	c := &conn{inner, n}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone {
		_ = inner.Close()
		return nil, refused("dial", syscall.ECONNREFUSED)
	}
	if n.conns == nil {
		n.conns = map[*conn]struct{}{}
	}
	n.conns[c] = struct{}{}
	return c, nil
}

func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone = true
	for c := range n.conns {
		_ = c.Conn.Close()
	}
	clear(n.conns)
}

func (n *network) mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone = false
}

// conn fails as a real network's does.
type conn struct {
	net.Conn
	n *network
}

func (c *conn) Read(p []byte) (int, error) {
	k, err := c.Conn.Read(p)
	return k, reset("read", err)
}

// served is how long the broker has to do what it is told, before the answer is lost.
const served = 10 * time.Millisecond

func (c *conn) Write(p []byte) (int, error) {
	t := c.n.sprung(p)
	if t != nil && t.before {
		t.spring(c)
	}
	k, err := c.Conn.Write(p)
	if t != nil && !t.before {
		time.Sleep(served) //nolint:forbidigo // in a bubble this is how time passes
		t.spring(c)
	}
	return k, reset("write", err)
}

func (c *conn) Close() error {
	c.n.mu.Lock()
	delete(c.n.conns, c)
	c.n.mu.Unlock()
	return c.Conn.Close()
}

func reset(op string, err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return refused(op, syscall.ECONNRESET)
	}
	return err
}

func refused(op string, why syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Err: os.NewSyscallError(op, why)}
}
