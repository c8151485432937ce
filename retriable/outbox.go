package retriable

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// What a handler produces through its message is acked before the message completes, whether the handler waited for it or not.

// outlet is where messages produce to: their partition's client, or in a test of a handler a list.
type outlet struct {
	p    *partition  // nil in a test
	used atomic.Bool // a handler has produced

	mu    *sync.Mutex       // the partition's
	boxes map[int64]*outbox // by the tracked offset
	sent  []*kgo.Record     // in a test
}

// outbox is what one message's handler has produced and is not settled. The outlet's lock guards it.
type outbox struct {
	pending int
	err     error         // of a produce for which nobody waits any more
	closing bool          // the handler has returned
	settled chan struct{} // closed when, closing, none is pending
}

var (
	errNotDelivered = errors.New("retriable: Produce of a message that no consumer has delivered; tests make theirs with NewMessage")
	errHandlerOver  = errors.New("retriable: Produce of a message whose handler has returned")
)

// Produce writes a record, of any topic, through the consumer's own client and returns once it is acked, with the partition and offset it
// got in r. The message completes only after that: should the process die first it is delivered again and produces again, so the record is
// written at least once, like everything here. A produce that the handler did not wait for (it was begun in another goroutine,
// or ctx ended first) is awaited when the handler returns; if it fails then, so has the attempt. An error that Produce itself returned
// while the handler ran is the handler's to judge.
//
// What kgo takes for final (no right to write, no such topic, too large) is returned at once, all else after a few tries. ctx bounds the
// waiting, not the write. Once the partition was taken away nothing is produced any more: the error
// is [ErrRevoked], at a stop [ErrShutdown] as well (I3). After the handler has returned it is an error, too.
//
// Of a message made by [NewMessage] nothing is written: the record is kept, for the test to look at it with [Message.Produced].
func (m *Message) Produce(ctx context.Context, r *kgo.Record) error {
	o := m.out
	switch {
	case o == nil:
		return errNotDelivered
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case o.p == nil:
		o.mu.Lock()
		defer o.mu.Unlock()
		o.sent = append(o.sent, r)
		return nil
	}
	return o.produce(ctx, m.at, r)
}

// Produced returns what was produced of a message made by [NewMessage], in turn, for tests of handlers; nil of any other.
func (m *Message) Produced() []*kgo.Record {
	if m.out == nil || m.out.p != nil {
		return nil
	}
	m.out.mu.Lock()
	defer m.out.mu.Unlock()
	return slices.Clone(m.out.sent)
}

func (o *outlet) produce(ctx context.Context, offset int64, r *kgo.Record) error {
	p := o.p
	box, err := o.open(offset)
	if err != nil {
		return err
	}
	buffering, cancel := context.WithCancel(p.writes)
	abandon := context.AfterFunc(ctx, cancel) // as long as kgo has no room for it
	rec := *r
	rec.Context = valuesOf{p.writes, ctx}
	acked := make(chan error, 1)
	left := false // guarded by the lock: nobody waits here any more
	p.c.cl.Produce(buffering, &rec, func(_ *kgo.Record, err error) {
		cancel()
		o.mu.Lock()
		defer o.mu.Unlock()
		if err != nil && (left || box.closing) {
			box.err = errors.Join(box.err, fmt.Errorf("retriable: a produce of the handler, to %s: %w", rec.Topic, err))
		}
		o.ended(offset, box)
		acked <- err
	})
	abandon()
	select {
	case err := <-acked:
		if err == nil {
			rec.Context = r.Context
			*r = rec
		}
		return o.because(err)
	case <-ctx.Done():
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case err := <-acked: // at the same moment
		return o.because(err)
	default:
		left = true
		return context.Cause(ctx)
	}
}

// open registers a produce with its message. After the fence there is none (I3): what is registered before counts as in flight.
func (o *outlet) open(offset int64) (*outbox, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.p.stage.Load() >= cancelled {
		return nil, o.because(context.Canceled)
	}
	box := o.boxes[offset]
	if o.p.window.State(offset) != watermark.Running || box != nil && box.closing {
		return nil, errHandlerOver
	}
	if box == nil {
		box = &outbox{}
		if o.boxes == nil {
			o.boxes = map[int64]*outbox{}
		}
		o.boxes[offset] = box
	}
	o.used.Store(true)
	box.pending++
	return box, nil
}

// ended settles one produce. The lock is held.
func (o *outlet) ended(offset int64, box *outbox) {
	box.pending--
	switch {
	case box.pending > 0:
	case box.closing:
		close(box.settled)
	case box.err == nil && o.boxes[offset] == box:
		delete(o.boxes, offset)
	}
}

// because is the error of a produce: why the partition was given up, if that is the reason.
func (o *outlet) because(err error) error {
	if err == nil || o.p.stage.Load() < cancelled {
		return err
	}
	if why := context.Cause(o.p.ctx); why != nil && !errors.Is(why, ErrRevoked) {
		return fmt.Errorf("%w (%w)", ErrRevoked, why)
	}
	return ErrRevoked
}

// flush waits for what the handler has produced and is not acked, and returns the attempt's error. The worker waits as it would if the
// handler did.
func (o *outlet) flush(ctx context.Context, offset int64, err error) error {
	if !o.used.Load() {
		return err
	}
	o.mu.Lock()
	box := o.boxes[offset]
	delete(o.boxes, offset)
	if box == nil {
		o.mu.Unlock()
		return err
	}
	box.closing, box.settled = true, make(chan struct{})
	pending := box.pending
	o.mu.Unlock()
	if pending > 0 {
		select {
		case <-box.settled:
		case <-ctx.Done(): // what is returned then does not count as success
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if box.err == nil {
		return err
	}
	return errors.Join(err, box.err)
}
