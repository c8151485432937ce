package retriabletest

import (
	"context"
	"net"
	"testing"
)

// watched is a connection that says when it is closed.
type watched struct {
	net.Conn
	closed func()
}

func (w watched) Close() error {
	w.closed()
	return nil
}

// A crash breaks connections before handlers learn of it: what they return because of it must not reach the broker, as a retry copy, say.
func TestACrashBreaksConnectionsFirst(t *testing.T) {
	l := &life{network: &network{}, stop: func() {}}
	l.dying, l.crash = context.WithCancelCause(t.Context())
	closed := false
	c := &conn{watched{closed: func() {
		if closed = true; l.dying.Err() != nil {
			t.Error("handlers were told before the network was cut")
		}
	}}, l.network}
	l.network.conns = map[*conn]struct{}{c: {}}
	l.die()
	if !closed || l.dying.Err() == nil {
		t.Errorf("the connection is closed: %v; handlers are told: %v", closed, l.dying.Err())
	}
}
