package kfake_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// handles makes a handler of a function that does without the context.
func handles(f func(m *retriable.Message) error) retriable.HandlerFunc {
	return func(_ context.Context, m *retriable.Message) error { return f(m) }
}

// patient is for stories of many hours: a member that asks seldom, and so costs little in fake time.
func patient() retriable.Option {
	return retriable.Kafka(kgo.HeartbeatInterval(20*time.Second), kgo.SessionTimeout(2*time.Minute), kgo.FetchMaxWait(20*time.Second), atOnce)
}

// atOnce has kgo not wait for more to write.
var atOnce = kgo.ProducerLinger(0)

// begin is start for stories that may fail halfway: whatever happens the consumer is stopped before the bubble ends.
func (b *bed) begin(group string, opts ...retriable.Option) *running {
	b.Helper()
	r := b.start(group, opts...)
	b.Cleanup(func() {
		r.stop()
		<-r.done
	})
	return r
}

// gate is what handlers wait at until the story opens it, at its end at the latest.
type gate struct {
	ch   chan struct{}
	once sync.Once
}

func (b *bed) gate() *gate {
	g := &gate{ch: make(chan struct{})}
	b.Cleanup(g.open)
	return g
}

func (g *gate) wait() { <-g.ch }
func (g *gate) open() { g.once.Do(func() { close(g.ch) }) }

// pass lets time pass. What was done in it has happened before what the story does next, as the race detector sees it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// until waits for something to become true, for at most d of fake time.
func (b *bed) until(what string, d time.Duration, ok func() bool) {
	b.Helper()
	began := time.Now()
	for step := time.Millisecond; ; time.Sleep(step) {
		synctest.Wait()
		if ok() {
			return
		}
		if time.Since(began) > time.Second {
			step = 20 * time.Millisecond
		}
		if time.Since(began) >= d {
			b.Fatalf("after %v still not: %s", d, what)
		}
	}
}

// partition returns the statistics of one partition.
func (r *running) partition(topic string, partition int32) retriable.PartitionStats {
	r.b.Helper()
	for _, p := range r.Stats().Partitions {
		if p.Topic == topic && p.Partition == partition {
			return p
		}
	}
	r.b.Fatalf("%s/%d is not assigned", topic, partition)
	return retriable.PartitionStats{}
}

// crowd counts what is inside at once: of each name, and of all.
type crowd struct {
	mu     sync.Mutex
	inside map[string]int
	most   map[string]int
	all    int
	peak   int // the most of all
}

// enter counts one in and returns its way out.
func (c *crowd) enter(name string) (leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inside == nil {
		c.inside, c.most = map[string]int{}, map[string]int{}
	}
	c.inside[name]++
	c.all++
	c.most[name] = max(c.most[name], c.inside[name])
	c.peak = max(c.peak, c.all)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.inside[name]--
		c.all--
	}
}

// now returns how many of a name are inside.
func (c *crowd) now(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inside[name]
}

// mostOf returns the most of a name that were inside at once, and the most of all.
func (c *crowd) mostOf(name string) (of, all int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.most[name], c.peak
}

// headers prints headers in their order, with a length for what is not text and null for what is not there.
func headers(r *kgo.Record) []string {
	var hs []string
	for _, h := range r.Headers {
		v := fmt.Sprintf("%q", h.Value)
		if h.Value == nil {
			v = "null"
		}
		hs = append(hs, h.Key+"="+v)
	}
	return hs
}

// header returns the value of the first header of a name, and whether there is one.
func header(r *kgo.Record, name string) (string, bool) {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value), true
		}
	}
	return "", false
}

// lines returns those of the log that contain all the words.
func (l *logs) lines(words ...string) (found []string) {
next:
	for line := range strings.Lines(l.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// ended reports whether Run has returned.
func (r *running) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// none is the option of topics whose records must not be given up in a story; what is given up is dropped.
func none() retriable.TopicOption { return retriable.NoDeadLetters() }

// quiet is a logger that writes nothing.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
