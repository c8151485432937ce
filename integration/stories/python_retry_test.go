package stories_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/interop"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// (c) Members of both kinds take each other's retries over, one attempt each in turn: the number goes up by one whoever failed, the value stays the
// same to the byte, and the last attempt is the last for both. What fails for the last time at Python is gone, what does so here is a dead letter.
func TestRetriesAreTakenOverInBothDirections(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"Python", "Go"} {
		t.Run(first+" fails first", func(t *testing.T) {
			b := beside(t, 2*time.Minute)
			h := &hops{
				peers: b, base: b.topic("orders", 1), retry: b.topic("retry", 1), dead: b.topic("dead", 1), group: b.name("group"),
				value: `{"id": 1, "text": "ü\u2028"}`, calls: make(chan string, 100),
			}
			b.produce(&kgo.Record{
				Topic: h.base, Key: []byte("key"), Value: []byte(h.value),
				Headers: []kgo.RecordHeader{{Key: "tenant", Value: []byte("blue")}, {Key: "none"}},
			})
			for attempt := 1; attempt <= hopAttempts; attempt++ {
				if (attempt%2 == 1) == (first == "Python") {
					h.atPython(attempt)
				} else {
					h.here(attempt)
				}
			}
			h.account(first)
		})
	}
}

const hopAttempts = 5

// hops is a record that goes from member to member.
type hops struct {
	*peers
	base, retry, dead, group string
	value                    string
	calls                    chan string
}

// atPython has a Python member fail at the record, and leave before it is due again.
func (h *hops) atPython(attempt int) {
	h.Helper()
	m := h.join(1, interop.Consuming{Group: h.group, Topic: h.base, Retry: h.retry, Retries: hopAttempts - 1, Delay: 3, Fail: 99, Raw: true})
	h.await(fmt.Sprintf("Python is through with attempt %d", attempt), 20*time.Second, func() bool {
		if attempt == hopAttempts {
			return m.Logged(fmt.Sprintf("exhausted all %d retry attempts", hopAttempts-1))
		}
		return h.ends(h.retry)[0] == int64(attempt)
	})
	h.noted()
	h.leave(m)
	for _, e := range m.Events("call") {
		h.calls <- fmt.Sprintf("Python's call %d of %s", e.N, e.ID)
	}
	for _, e := range m.Events("done") {
		if e.Message != `{"id": 1, "text": "\u00fc\u2028"}` {
			h.Errorf("attempt %d: Python has %s", attempt, e.Message)
		}
	}
}

// noted gives a Python member the time to note that a copy is written: it stops without waiting for that, and then has not committed.
func (b *peers) noted() {
	b.Helper()
	b.pass(300 * time.Millisecond)
}

// here is the same with a member of this library.
func (h *hops) here(attempt int) {
	h.Helper()
	c := h.start(h.group, retriable.Topic(h.base, handles(func(m *retriable.Message) error {
		h.calls <- fmt.Sprintf("Go's attempt %d", m.Attempt)
		switch {
		case string(m.Value) != h.value:
			h.Errorf("attempt %d: the value is %q", attempt, m.Value)
		case attempt == 1 && (string(m.Key) != "key" || len(m.Headers) != 2 || m.Offset != 0):
			h.Errorf("attempt 1 is %v", m.Record)
		case attempt > 1 && (len(m.Key) != 16 || len(m.Headers) != 0 || m.Topic != h.base || m.Partition != -1 || m.Offset != -1 || m.FirstFailure.IsZero()):
			h.Errorf("attempt %d, after Python's hop, is %v, first failed %v", attempt, m.Record, m.FirstFailure)
		}
		return errors.New("not yet")
	}), retriable.RetryTopic(h.retry), retriable.DeadLetterTopic(h.dead), retriable.MaxAttempts(hopAttempts),
		retriable.Backoff(retriable.Constant(3*time.Second))))
	h.await(fmt.Sprintf("Go is through with attempt %d", attempt), 20*time.Second, func() bool {
		return h.ends(h.retry)[0] == int64(attempt) || h.ends(h.dead)[0] == 1
	})
	c.clean()
}

// account checks what became of it all.
func (h *hops) account(first string) {
	h.Helper()
	close(h.calls)
	var calls, want []string
	for c := range h.calls {
		calls = append(calls, c)
	}
	for attempt := 1; attempt <= hopAttempts; attempt++ {
		if (attempt%2 == 1) == (first == "Python") {
			want = append(want, "Python's call 1 of 1")
		} else {
			want = append(want, fmt.Sprintf("Go's attempt %d", attempt))
		}
	}
	h.wantEqual("calls", calls, want)
	copies := h.read(h.retry)
	h.wantEqual("copies", len(copies), hopAttempts-1)
	for i, r := range copies {
		h.wantEqual("the number of a copy", number(r, "retriable_kafka_attempt"), i+1)
		h.wantEqual("the value of a copy", string(r.Value), h.value)
	}
	letters := h.ends(h.dead)[0]
	if first == "Python" {
		h.wantEqual("dead letters", letters, 0) // Python had the last attempt, and has none
	} else {
		h.wantEqual("dead letters", letters, 1)
		letter := h.read(h.dead)[0]
		h.wantEqual("the letter's value", string(letter.Value), h.value)
		h.wantHeader(letter, "__dlq.errors.delivery.count", hopAttempts)
	}
	h.wantAllCommitted(h.group, h.base)
	h.wantAllCommitted(h.group, h.retry)
}
