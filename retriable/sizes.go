package retriable

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// unknownLimit is taken where a topic does not tell how large its records may be: kgo's own bound, a little below Kafka's default.
const unknownLimit = 1_000_012

// sizes is how large a record each topic takes, in bytes of a batch with that one record: what its max.message.bytes says, or what
// refusals taught.
type sizes struct {
	most int // what one request can carry

	mu    sync.Mutex // guards the rest. A leaf
	of    map[string]int
	queue map[string]*oneByOne // of topics that have refused a record
}

// oneByOne is the queue of a topic that refused a record as too large. For a while its records are written one by one: the answer is
// for all of a batch, and kgo keeps the bound of batches that it was first told.
type oneByOne struct {
	until   time.Time
	busy    bool
	waiting []func()
}

// cautious is how long after a refusal a topic's records are written one by one.
const cautious = time.Minute

func newSizes(f *clientFacts) *sizes {
	return &sizes{most: f.maxWrite, of: map[string]int{}, queue: map[string]*oneByOne{}}
}

// queued reports whether a topic's records are written one by one now.
func (s *sizes) queued(topic string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue[topic] != nil
}

// enter runs write, which must call leave once it is answered: at once, or if records are written one by one when it is its turn.
func (s *sizes) enter(topic string, write func(leave func())) {
	s.mu.Lock()
	q := s.queue[topic]
	if q == nil {
		s.mu.Unlock()
		write(func() {})
		return
	}
	leave := func() { s.leave(topic, q) }
	if q.busy {
		q.waiting = append(q.waiting, func() { write(leave) })
		s.mu.Unlock()
		return
	}
	q.busy = true
	s.mu.Unlock()
	write(leave)
}

// leave lets the next one in. With nobody waiting, and no refusal for a while, the queue ends.
func (s *sizes) leave(topic string, q *oneByOne) {
	s.mu.Lock()
	if len(q.waiting) == 0 {
		q.busy = false
		if time.Now().After(q.until) && s.queue[topic] == q {
			delete(s.queue, topic)
		}
		s.mu.Unlock()
		return
	}
	next := q.waiting[0]
	q.waiting = q.waiting[1:]
	s.mu.Unlock()
	next()
}

// tooLarge notes a refusal and reports whether it is the first for a while.
func (s *sizes) tooLarge(topic string) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queue[topic]
	if first = q == nil; first {
		q = &oneByOne{}
		s.queue[topic] = q
	}
	q.until = time.Now().Add(cautious)
	return first
}

// limit returns how large a record the topic takes, and whether that is known.
func (s *sizes) limit(topic string) (n int, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, known = s.of[topic]
	if !known {
		n = unknownLimit
	}
	return min(n, s.most), known
}

// set notes what the topic says.
func (s *sizes) set(topic string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[topic] = int(min(n, int64(s.most)))
}

// refused learns that a record of so many bytes is too large: half of it may do.
func (s *sizes) refused(topic string, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, known := s.of[topic]; !known || n >= size {
		s.of[topic] = size / 2
	}
}

// batchBytes bounds a produced batch by what its topic takes, for the broker's answer to one too large is for all that is in it.
func (s *sizes) batchBytes(topic string) int32 {
	n, _ := s.limit(topic)
	return int32(min(max(n, 512), 1<<30))
}

// ask asks the brokers for the topic's limit. That they do not tell is no error: refusals will.
func (s *sizes) ask(ctx context.Context, cl *kgo.Client, topic string) error {
	rs, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, topic)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var denied *kadm.AuthError
	if err != nil && !errors.As(err, &denied) || slices.ContainsFunc(rs, func(r kadm.ResourceConfig) bool { return errors.Is(r.Err, kerr.UnknownTopicOrPartition) }) {
		return nil // asked again the next time
	}
	all := topicConfigs{topic: configsOf(rs)}
	s.set(topic, all.number(topic, maxMessageBytes, unknownLimit))
	return nil
}
