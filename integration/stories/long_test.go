package stories_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Some thousand records wait for an hour in a retry partition, more come, and others are tried again there after a second: none of those is late,
// and the committed offset moves on, for what waits is written again to the tail. A clean restart in the middle loses and repeats nothing.
func TestLongHoldsMoveAsideWhileOthersPass(t *testing.T) {
	const (
		before, every = 10_000, 4 // so many lie there, of which one in four waits
		steps, step   = 200, 100 * time.Millisecond
		long, short   = 10, 30 // in a step
		most          = 16 << 20
	)
	b := story(t, 90*time.Second)
	base, retry, group := b.topic("orders", 1), b.topic("retry", 1), b.name("group")
	hour := time.Now().Add(time.Hour).Truncate(time.Second)
	var there []*kgo.Record
	for i, v := range numbered("there-", before) {
		r := &kgo.Record{Topic: retry, Value: []byte("short-" + v), Headers: retryHeaders(1, time.Now().Add(-time.Second))}
		if i%every == 0 {
			r.Value, r.Headers = []byte("long-"+v), retryHeaders(1, hour)
		}
		there = append(there, r)
	}
	b.produce(there...)

	w := &window{due: map[retriable.Position]time.Time{}}
	var mu sync.Mutex
	times := map[string][2]int{} // the first attempt and the second
	opts := []retriable.Option{
		retriable.MaxPendingBytes(most), retriable.Hooks(w), retriable.Topic(base, handles(func(m *retriable.Message) error {
			w.begins(m.Source)
			mu.Lock()
			defer mu.Unlock()
			v := string(m.Value)
			n := times[v]
			n[m.Attempt-1]++
			times[v] = n
			switch {
			case m.Attempt > 1:
				return nil
			case strings.HasPrefix(v, "long"):
				return retriable.RetryAfter(errors.New("not in this hour"), time.Until(hour))
			}
			return retriable.RetryAfter(errors.New("not yet"), time.Second)
		}), retriable.RetryTopic(retry), retriable.NoDeadLetters()),
	}
	c := b.start(group, opts...)
	b.await("what lies there is read", 20*time.Second, func() bool {
		p, ok := c.part(retry, 0)
		return ok && p.Held >= before/every && p.Pending == 0
	})

	var dues []time.Time
	for d := time.Duration(0); d < steps*step+5*time.Second; d += 5 * time.Millisecond {
		dues = append(dues, time.Now().Add(d))
	}
	noise := b.timers(dues)
	longs, shorts := numbered("long-", steps*long), numbered("short-", steps*short)
	var offsets []int64
	rewritten := uint64(0)
	tick := time.NewTicker(step)
	defer tick.Stop()
	for i := range steps {
		<-tick.C
		b.send(base, append(slices.Clone(longs[i*long:(i+1)*long]), shorts[i*short:(i+1)*short]...)...)
		if i == steps/2 {
			rewritten = c.Stats().Rewritten
			c.clean()
			w.clear()
			c = b.start(group, opts...)
		}
		if i%50 == 49 {
			p, _ := c.part(retry, 0)
			offsets = append(offsets, p.Committed)
		}
		if s := c.Stats(); s.PendingBytes > most {
			t.Errorf("%d bytes are pending and held", s.PendingBytes)
		}
	}
	b.await("all short ones are done", 10*time.Second, func() bool {
		p, ok := c.part(retry, 0)
		return ok && p.Pending == 0 && triedAgain(&mu, times, shorts)
	})
	rewritten += c.Stats().Rewritten
	c.clean()
	plain, late := noise(), w.late()
	t.Logf("committed %v; %d written again; %d of %d were in the window: p50 %v, p99 %v, max %v; plain timers: p99 %v, max %v", offsets, rewritten,
		len(late), len(shorts), late[len(late)/2], late[len(late)*99/100], late[len(late)-1], plain[len(plain)*99/100], plain[len(plain)-1])
	if len(late) < len(shorts)*9/10 {
		t.Error("this shows nothing")
	}
	if late[0] < 0 || late[len(late)-1] > 50*time.Millisecond+plain[len(plain)-1] {
		t.Errorf("one began %v after it was due, one %v", late[0], late[len(late)-1])
	}
	for i := 1; i < len(offsets); i++ {
		if offsets[i] <= offsets[i-1] {
			t.Errorf("the committed offset does not move on: %v", offsets)
		}
	}
	if rewritten < before/every/2 {
		t.Errorf("only %d were written again", rewritten)
	}

	mu.Lock()
	defer mu.Unlock()
	want := map[string][2]int{}
	var waits []string
	for _, r := range there {
		if v := string(r.Value); strings.HasPrefix(v, "long") {
			waits = append(waits, v)
		} else {
			want[v] = [2]int{0, 1}
		}
	}
	for _, v := range longs {
		want[v] = [2]int{1, 0}
	}
	for _, v := range shorts {
		want[v] = [2]int{1, 1}
	}
	for v, n := range times {
		if n != want[v] {
			t.Errorf("%s: attempts 1 and 2 were made %v times, want %v", v, n, want[v])
		}
	}
	b.wantEqual("delivered", len(times), len(want))
	b.wantEqual("wait", b.waits(group, retry, hour), slices.Sorted(slices.Values(append(waits, longs...))))
	b.wantAllCommitted(group, base)
}

// waits is what a group has not resolved of a retry topic's only partition, all of it due at a time; nothing may have been written again twice.
func (b *bed) waits(group, topic string, due time.Time) (vs []string) {
	b.Helper()
	at, done := b.commitTells(group, topic, 0)
	copies := map[string]int{}
	for _, r := range b.read(topic) {
		v := string(r.Value)
		if copies[v]++; copies[v] > 2 {
			b.Errorf("%s lies there %d times", v, copies[v])
		}
		if r.Offset < at || done[r.Offset] {
			continue
		}
		vs = append(vs, v)
		text, _ := header(r, "retriable_due")
		if ms, _ := strconv.ParseInt(text, 10, 64); ms < due.UnixMilli() || ms > due.UnixMilli()+1000 { // RetryAfter is from its attempt's end
			b.Errorf("%s is due at %s, want %d", v, text, due.UnixMilli())
		}
		if retry, _ := header(r, "retriable_kafka_attempt"); retry != string(binary.BigEndian.AppendUint64(nil, 1)) {
			b.Errorf("%s is retry %x", v, retry)
		}
	}
	slices.Sort(vs)
	return vs
}

// triedAgain reports whether all have had their second attempt.
func triedAgain(mu *sync.Mutex, times map[string][2]int, vs []string) bool {
	mu.Lock()
	defer mu.Unlock()
	return !slices.ContainsFunc(vs, func(v string) bool { return times[v][1] == 0 })
}

// window knows, as a HookHeld, which records are in memory and until when, and how late they began.
type window struct {
	mu    sync.Mutex
	due   map[retriable.Position]time.Time
	lates []time.Duration
}

func (w *window) OnHeld(h retriable.Held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Until(h.Due) > 0 {
		w.due[h.Source] = h.Due
	}
}

func (w *window) begins(p retriable.Position) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if due, ok := w.due[p]; ok {
		w.lates = append(w.lates, now.Sub(due))
		delete(w.due, p)
	}
}

// clear forgets what was in memory.
func (w *window) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.due)
}

func (w *window) late() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(slices.Values(w.lates))
}
