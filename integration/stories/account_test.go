package stories_test

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// account is what became of n numbered records: each one's attempts, as they began.
type account struct {
	mu       sync.Mutex
	attempts [][]int
	succeed  []int // how often
	wrong    []string
	ended    atomic.Int64 // records that succeeded
}

func newAccount(n int) *account { return &account{attempts: make([][]int, n), succeed: make([]int, n)} }

// begin notes an attempt of record i, and what it came with.
func (a *account) begin(i int, m *retriable.Message, sent *kgo.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.attempts[i] = append(a.attempts[i], m.Attempt)
	switch {
	case m.Topic != sent.Topic || m.Partition != sent.Partition || m.Offset != sent.Offset:
		a.wrongly("record %d says it is %s/%d/%d, not %s/%d/%d", i, m.Topic, m.Partition, m.Offset, sent.Topic, sent.Partition, sent.Offset)
	case !bytes.Equal(m.Key, sent.Key) || len(m.Headers) != len(sent.Headers) || m.Timestamp.UnixMilli() != sent.Timestamp.UnixMilli():
		a.wrongly("record %d is not as it was sent: %v", i, m.Record)
	case m.FirstFailure.IsZero() != (m.Attempt == 1) || (m.LastError == "") != (m.Attempt == 1):
		a.wrongly("attempt %d of record %d: first failure %v, last error %q", m.Attempt, i, m.FirstFailure, m.LastError)
	case (m.Source.Topic == sent.Topic) != (m.Attempt == 1):
		a.wrongly("attempt %d of record %d was read from %v", m.Attempt, i, m.Source)
	}
}

func (a *account) wrongly(format string, args ...any) {
	if len(a.wrong) < 10 {
		a.wrong = append(a.wrong, fmt.Sprintf(format, args...))
	}
}

// success notes that record i was handled.
func (a *account) success(i int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.succeed[i]++; a.succeed[i] == 1 {
		a.ended.Add(1)
	}
}

// Accounting: all of 50,000 records, one in ten of which fails twice and one in a hundred always, are handled or
// dead-lettered exactly once with their exact attempts, and committed.
func TestEveryRecordIsAccountedFor(t *testing.T) {
	const n, keys, attempts = 50_000, 5_000, 5
	b := story(t, 3*time.Minute)
	base, retry, dead := b.topic("orders", 12), b.topic("retry", 6), b.topic("dead", 4)

	sent := make([]*kgo.Record, n)
	for i := range sent {
		sent[i] = &kgo.Record{
			Topic: base, Partition: -1, Key: fmt.Appendf(nil, "key-%d", i%keys), Value: strconv.AppendInt(nil, int64(i), 10),
			Headers: []kgo.RecordHeader{{Key: "tenant", Value: []byte("blue")}, {Key: "none", Value: nil}},
		}
	}
	b.produce(sent...)

	a := newAccount(n)
	fails := func(i int) int { // so many times
		switch {
		case i%100 == 7:
			return attempts
		case i%10 == 3:
			return 2
		}
		return 0
	}
	began := time.Now()
	c := b.start(b.name("group"), retriable.Concurrency(32), retriable.Topic(base, handles(func(m *retriable.Message) error {
		i, err := strconv.Atoi(string(m.Value))
		if err != nil {
			return retriable.Permanent(err)
		}
		a.begin(i, m, sent[i])
		if m.Attempt <= fails(i) {
			return errors.New("not yet")
		}
		a.success(i)
		return nil
	}), retriable.RetryTopic(retry), retriable.DeadLetterTopic(dead), retriable.MaxAttempts(attempts),
		retriable.Backoff(retriable.Constant(50*time.Millisecond))))
	b.await("all records are handled or dead", time.Minute, func() bool {
		return a.ended.Load()+int64(c.Stats().DeadLettered) >= n
	})
	t.Logf("%d records in %v", n, time.Since(began).Round(time.Millisecond))
	c.clean()

	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.wrong {
		t.Error(w)
	}
	retries, deaths := 0, 0
	for i, got := range a.attempts {
		f := fails(i)
		want := min(f+1, attempts)
		retries += want - 1
		if f == attempts {
			deaths++
		}
		if !counts(got, want) || a.succeed[i] != b2i(f < attempts) {
			t.Errorf("record %d: attempts %v and %d successes, want 1 to %d", i, got, a.succeed[i], want)
		}
	}
	letters := b.read(dead)
	b.wantEqual("dead letters", len(letters), deaths)
	seen := map[int]bool{}
	for _, r := range letters {
		i, _ := strconv.Atoi(string(r.Value))
		if fails(i) < attempts || seen[i] {
			t.Errorf("record %d is dead, or twice", i)
		}
		seen[i] = true
		b.wantEqual("partition and key of a dead letter", fmt.Sprint(r.Partition, string(r.Key)), fmt.Sprint(sent[i].Partition%4, string(sent[i].Key)))
		b.wantHeader(r, "__dlq.errors.offset", sent[i].Offset)
		b.wantHeader(r, "__dlq.errors.delivery.count", attempts)
	}
	copies := int64(0)
	for _, end := range b.ends(retry) {
		copies += end
	}
	b.wantEqual("copies in the retry topic", copies, retries)
	s := c.Stats()
	b.wantEqual("handled, failed, retried, dead-lettered, dropped", fmt.Sprint(s.Handled, s.Failed, s.Retried, s.DeadLettered, s.Dropped),
		fmt.Sprint(n-deaths, retries+deaths, retries, deaths, 0))
	b.wantAllCommitted(b.name("group"), base)
	b.wantAllCommitted(b.name("group"), retry)
}

// counts reports whether the attempts are 1, 2, 3… n.
func counts(attempts []int, n int) bool {
	for i, a := range attempts {
		if a != i+1 {
			return false
		}
	}
	return len(attempts) == n
}

func b2i(v bool) int {
	if v {
		return 1
	}
	return 0
}
