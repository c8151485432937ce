package retriabletest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// network is one consumer's, which can be cut.
type network struct {
	dial func(ctx context.Context, network, host string) (net.Conn, error)

	mu    sync.Mutex
	conns map[*conn]struct{}
	gone  bool
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

func (c *conn) Write(p []byte) (int, error) {
	k, err := c.Conn.Write(p)
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
