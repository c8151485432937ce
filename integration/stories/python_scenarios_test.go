package stories_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/interop"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// The scenarios that the Python client tests itself with, told with its own producer and a consumer of this library: what it promises holds here
// too. Topics have one partition, as there. docs/migrating.md lists them, and what is better.

// tried is what a scenario's handler saw: when each id was called, and which it handled with success.
type tried struct {
	mu    sync.Mutex
	calls map[int][]time.Time
	done  map[int]int
}

func newTried() *tried { return &tried{calls: map[int][]time.Time{}, done: map[int]int{}} }

// handler is one that notes its calls. fails says whether one fails, counted from 1 for each id.
func (a *tried) handler(t *testing.T, takes func() time.Duration, fails func(call int) bool) retriable.Handler {
	return handles(func(m *retriable.Message) error {
		began := time.Now()
		var body struct{ ID int }
		if err := json.Unmarshal(m.Value, &body); err != nil {
			t.Errorf("a value is no JSON: %.100q", m.Value)
			return retriable.Permanent(err)
		}
		time.Sleep(takes())
		a.mu.Lock()
		defer a.mu.Unlock()
		a.calls[body.ID] = append(a.calls[body.ID], began)
		if n := len(a.calls[body.ID]); fails(n) {
			return fmt.Errorf("call %d fails", n)
		}
		a.done[body.ID]++
		return nil
	})
}

func (a *tried) of(id int) (calls []time.Time, done int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls[id]), a.done[id]
}

// count returns how many ids were called, and how many were handled.
func (a *tried) count() (called, done int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.calls), len(a.done)
}

// want fails unless each of n ids was handled with success, so many times.
func (a *tried) want(t *testing.T, n, times int) {
	t.Helper()
	for id := range n {
		if _, done := a.of(id); done != times {
			t.Errorf("id %d succeeded %d times, want %d", id, done, times)
		}
	}
	if _, done := a.count(); done != n {
		t.Errorf("%d ids, want %d", done, n)
	}
}

func atOnce() time.Duration     { return 0 }
func upTo50ms() time.Duration   { return rand.N(50 * time.Millisecond) }
func never(int) bool            { return false }
func firstOnly(call int) bool   { return call == 1 }
func firstMostly(call int) bool { return call == 1 && rand.N(10) < 7 }

// withIDs are n messages, {"id": 0} and so on.
func withIDs(n int) (ms []interop.Message) {
	for id := range n {
		ms = append(ms, interop.Message{Body: map[string]any{"id": id}})
	}
	return ms
}

// send has a Python producer send messages to topics.
func (b *peers) send(s interop.Sending, messages ...interop.Message) {
	b.Helper()
	if err := b.sender(s).Send(messages...); err != nil {
		b.Fatal(err)
	}
}

// "large": 30 messages of which most fail at their first call; each succeeds exactly once.
func TestPythonScenarioManyMessages(t *testing.T) {
	b := beside(t, time.Minute)
	base, retry, dead, group, a := b.topic("base", 1), b.topic("retry", 1), b.topic("dead", 1), b.name("group"), newTried()
	c := b.start(group, retriable.Concurrency(4), retriable.Topic(base, a.handler(t, upTo50ms, firstMostly), retriable.RetryTopic(retry),
		retriable.DeadLetterTopic(dead), retriable.MaxAttempts(4), retriable.Backoff(retriable.Constant(500*time.Millisecond))))
	b.send(interop.Sending{Topics: []string{base}}, withIDs(30)...)
	b.await("all have succeeded", 30*time.Second, func() bool { _, done := a.count(); return done == 30 })
	c.clean()
	a.want(t, 30, 1)
	b.wantAllCommitted(group, base)
	b.wantAllCommitted(group, retry)
}

// "multiple topics": two base topics in one consumer; each message is handled once for each, and the lag of both goes down to 0.
func TestPythonScenarioMultipleTopics(t *testing.T) {
	b := beside(t, time.Minute)
	one, two, group, a := b.topic("one", 1), b.topic("two", 1), b.name("group"), newTried()
	b.send(interop.Sending{Topics: []string{one, two}}, withIDs(3)...)
	h := a.handler(t, atOnce, never)
	c := b.start(group, retriable.CommitInterval(100*time.Millisecond), retriable.Defaults(retriable.NoDeadLetters()), retriable.Topic(one, h), retriable.Topic(two, h))
	for _, topic := range []string{one, two} {
		b.await("nothing is left of "+topic, 20*time.Second, func() bool {
			p, ok := c.part(topic, 0)
			return ok && p.End == 3 && p.Committed == 3 && p.Lag == 0
		})
	}
	c.clean()
	a.want(t, 3, 2)
}

// "rebalance": a second consumer joins under load; each of 50 messages succeeds exactly once.
func TestPythonScenarioRebalance(t *testing.T) {
	b := beside(t, time.Minute)
	base, group, a := b.topic("base", 1), b.name("group"), newTried()
	join := func() *running {
		return b.start(group, retriable.Concurrency(3), retriable.Topic(base,
			a.handler(t, func() time.Duration { return 200 * time.Millisecond }, never), retriable.NoDeadLetters()))
	}
	first := join()
	b.send(interop.Sending{Topics: []string{base}}, withIDs(50)...)
	b.await("five are called", 20*time.Second, func() bool { called, _ := a.count(); return called >= 5 })
	second := join()
	b.await("all have succeeded", 30*time.Second, func() bool { _, done := a.count(); return done == 50 })
	second.clean()
	first.clean()
	a.want(t, 50, 1)
	for id := range 50 {
		if calls, _ := a.of(id); len(calls) != 1 {
			t.Errorf("id %d was called %d times", id, len(calls))
		}
	}
	b.wantAllCommitted(group, base)
}

// "reconnection": a consumer is stopped in the midst of its work, another goes on; nothing is lost and nothing repeated.
func TestPythonScenarioReconnection(t *testing.T) {
	b := beside(t, time.Minute)
	base, group, a := b.topic("base", 1), b.name("group"), newTried()
	join := func(takes time.Duration) *running {
		return b.start(group, retriable.Concurrency(2), retriable.Topic(base,
			a.handler(t, func() time.Duration { return takes }, never), retriable.NoDeadLetters()))
	}
	first := join(300 * time.Millisecond)
	b.send(interop.Sending{Topics: []string{base}}, withIDs(10)...)
	b.await("one has succeeded", 20*time.Second, func() bool { _, done := a.count(); return done >= 1 })
	first.clean()
	if _, done := a.count(); done == 0 || done == 10 {
		t.Fatalf("%d are done when the first has stopped: this shows nothing", done)
	}
	second := join(0)
	b.await("all have succeeded", 20*time.Second, func() bool { _, done := a.count(); return done == 10 })
	second.clean()
	a.want(t, 10, 1)
	b.wantAllCommitted(group, base)
}

// "retry": the base topic is given as a pattern; a message that fails at first comes back through the retry topic.
func TestPythonScenarioRetryOfAPattern(t *testing.T) {
	b := beside(t, time.Minute)
	base, retry, group, a := b.topic("base", 1), b.topic("retry", 1), b.name("group"), newTried()
	pattern := "[" + base[:1] + "]" + strings.ReplaceAll(base[1:], ".", `\.`)
	c := b.start(group, retriable.TopicRegexp(pattern, a.handler(t, atOnce, firstOnly), retriable.RetryTopic(retry), retriable.NoDeadLetters(),
		retriable.MaxAttempts(4), retriable.Backoff(retriable.Constant(time.Second))))
	b.send(interop.Sending{Topics: []string{base}}, withIDs(1)...)
	b.await("it has succeeded", 15*time.Second, func() bool { _, done := a.of(0); return done == 1 })
	c.clean()
	calls, _ := a.of(0)
	if len(calls) != 2 || calls[1].Sub(calls[0]) < time.Second {
		t.Errorf("called at %v: want twice, and a second between them at least", calls)
	}
	b.wantAllCommitted(group, retry)
}

// "exhausted": what always fails is called retries + 1 times, never again, and said to be given up. It is a dead letter.
func TestPythonScenarioExhausted(t *testing.T) {
	const retries = 2
	b := beside(t, time.Minute)
	base, retry, dead, group, a := b.topic("base", 1), b.topic("retry", 1), b.topic("dead", 1), b.name("group"), newTried()
	c := b.start(group, retriable.Topic(base, a.handler(t, atOnce, func(int) bool { return true }), retriable.RetryTopic(retry),
		retriable.DeadLetterTopic(dead), retriable.MaxAttempts(retries+1), retriable.Backoff(retriable.Constant(500*time.Millisecond))))
	b.send(interop.Sending{Topics: []string{base}}, interop.Message{Body: map[string]any{"id": 0}, Headers: map[string][]byte{"tenant": []byte("blue")}})
	b.await("it is a dead letter", 20*time.Second, func() bool { return b.ends(dead)[0] == 1 })
	b.pass(2 * time.Second)
	c.clean()
	if calls, done := a.of(0); len(calls) != retries+1 || done != 0 {
		t.Errorf("%d calls, %d successes, want %d and 0", len(calls), done, retries+1)
	}
	letter, sent := b.read(dead)[0], b.read(base)[0]
	b.wantEqual("the letter", fmt.Sprintf("%x %s", letter.Key, letter.Value), fmt.Sprintf("%x %s", sent.Key, sent.Value))
	b.wantHeader(letter, "tenant", "blue")
	b.wantHeader(letter, "__dlq.errors.message", fmt.Sprintf("all %d attempts failed", retries+1))
}

// "header filter": only what a header says is wanted is handled. The others are done, and what fails still passes when it comes back.
func TestPythonScenarioHeaderFilter(t *testing.T) {
	b := beside(t, time.Minute)
	base, retry, group, a := b.topic("base", 1), b.topic("retry", 1), b.name("group"), newTried()
	c := b.start(group, retriable.Topic(base, a.handler(t, atOnce, firstOnly), retriable.NoDeadLetters(), retriable.RetryTopic(retry),
		retriable.Backoff(retriable.Constant(100*time.Millisecond)), retriable.Filter(func(r *kgo.Record) bool {
			name, _ := header(r, "repository_name")
			return strings.Contains(name, "helm-charts")
		})))
	sent := withIDs(4)
	for id, name := range []string{"helm-charts", "other-repo", "my/helm-charts/repo"} {
		sent[id].Headers = map[string][]byte{"repository_name": []byte(name)}
	}
	b.send(interop.Sending{Topics: []string{base}}, sent...)
	b.await("two have succeeded", 20*time.Second, func() bool { _, done := a.count(); return done == 2 })
	b.await("the others are passed over", 20*time.Second, func() bool { return c.Stats().Filtered == 2 })
	c.clean()
	for id := range sent {
		calls, done := a.of(id)
		want := []int{2, 0, 2, 0}[id]
		b.wantEqual(fmt.Sprintf("calls and successes of %d", id), fmt.Sprint(len(calls), done), fmt.Sprint(want, want/2))
	}
	b.wantAllCommitted(group, base)
	b.wantAllCommitted(group, retry)
}
