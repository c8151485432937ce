package stories_test

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/integration/broker"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// What is finished above the watermark is not delivered again after a stop: the commit's metadata says it. Here every other record, at
// random, waits. A broker that allows less metadata gets less, and its commits are accepted all the same.
func TestWhatIsFinishedAboveTheWatermarkIsNotRepeated(t *testing.T) {
	t.Run("with a broker as it comes", func(t *testing.T) {
		again := finishedAbove(story(t, time.Minute), 10_000, 4096)
		if again > 0 {
			t.Errorf("%d finished records were delivered again", again)
		}
	})
	t.Run("with a broker that allows less metadata", func(t *testing.T) {
		leavesNothing(t)
		b := newBed(t, broker.For(t, broker.Config{Properties: map[string]string{"offset.metadata.max.bytes": "512"}}), time.Minute)
		// It is the last commit that learns it: by then all is read.
		again := finishedAbove(b, 10_000, 512, retriable.CommitInterval(time.Hour))
		if again == 0 || again > 4_800 {
			t.Errorf("%d of some 5,000 finished records were delivered again; 512 characters can tell of some 2,500 offsets", again)
		}
	})
}

// finishedAbove tells the story with n records and returns how many of those that were finished before the stop were delivered after it.
func finishedAbove(b *bed, n, limit int, more ...retriable.Option) (again int) {
	b.Helper()
	topic, group := b.topic("orders", 1), b.name("group")
	b.send(topic, numbered("", n)...)
	var mu sync.Mutex
	waits, finished := make([]bool, n), make([]int, n)
	for i := range waits {
		waits[i] = i == 0 || rand.IntN(2) == 0
	}
	second := false
	opts := append([]retriable.Option{retriable.Topic(topic, handles(func(m *retriable.Message) error {
		i, err := strconv.Atoi(string(m.Value))
		if err != nil {
			return retriable.Permanent(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if waits[i] && !second {
			return retriable.Postpone(time.Hour)
		}
		finished[i]++
		return nil
	}), retriable.NoDeadLetters())}, more...)
	c := b.start(group, opts...)
	b.await("all have been handled or postponed", 20*time.Second, func() bool {
		p, ok := c.part(topic, 0)
		return ok && p.Pending == 0 && p.Watermark == 0 && p.Held+int(c.Stats().Handled) == n
	})
	first := c.Stats().Handled
	c.clean()

	os, err := b.adm.FetchOffsets(b.limit, group)
	if err != nil {
		b.Fatal(err)
	}
	o, _ := os.Lookup(topic, 0)
	b.Logf("committed %d with %d characters", o.At, len(o.Metadata))
	b.wantEqual("committed", o.At, 0)
	if len(o.Metadata) > limit || len(o.Metadata) < limit/4 {
		b.Errorf("%d characters of metadata, the broker allows %d", len(o.Metadata), limit)
	}
	mu.Lock()
	second = true
	mu.Unlock()

	c = b.start(group, opts...)
	b.await("the rest is handled", 20*time.Second, func() bool {
		p, ok := c.part(topic, 0)
		return ok && p.Watermark == int64(n)
	})
	s := c.Stats()
	c.clean()
	b.wantAllCommitted(group, topic)
	mu.Lock()
	defer mu.Unlock()
	for i, times := range finished {
		if times == 0 {
			b.Errorf("record %d was not handled", i)
		}
		again += times - 1
	}
	b.wantEqual("skipped", s.Skipped, int(first)-again)
	return again
}
