package stories_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/interop"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// (a), (e) Large messages of three Python producers, interleaved on one partition with small ones and with each other: a handler here gets each once
// and whole, with the user's headers and no others.
func TestPythonSplitsAndGoJoins(t *testing.T) {
	b := beside(t, 2*time.Minute)
	topic, group := b.topic("orders", 1), b.name("group")
	sizes := []int{huge, large, large, small, large, large}
	slow := b.sender(interop.Sending{Topics: []string{topic}, Split: true, Kafka: map[string]any{"message.max.bytes": 100_000}}) // 300 chunks
	others := []*interop.Producer{b.sender(interop.Sending{Topics: []string{topic}, Split: true}), b.sender(interop.Sending{Topics: []string{topic}, Split: true})}
	message := func(id int) interop.Message {
		return interop.Message{ID: id, Size: sizes[id], Headers: map[string][]byte{"tenant": []byte("blue")}}
	}
	var wg sync.WaitGroup
	send := func(p *interop.Producer, ids ...int) {
		wg.Go(func() {
			for _, id := range ids {
				if err := p.Send(message(id)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	send(slow, 0)
	b.await("the first chunk is there", 20*time.Second, func() bool { return b.ends(topic)[0] > 0 })
	send(others[0], 1, 3, 4)
	send(others[1], 2, 5)
	wg.Wait()
	if n := interleaved(b.read(topic)); n < 10 {
		t.Errorf("only %d chunks lie between chunks of another message: this shows nothing", n)
	}

	var mu sync.Mutex
	var got []string
	c := b.start(group, retriable.Topic(topic, handles(func(m *retriable.Message) error {
		mu.Lock()
		defer mu.Unlock()
		for id, size := range sizes {
			if bytes.Equal(m.Value, interop.Filler(id, size)) {
				got = append(got, fmt.Sprintf("%d: attempt %d, key of %d, %s", id, m.Attempt, len(m.Key), printHeaders(m.Headers)))
			}
		}
		return nil
	}), retriable.NoDeadLetters()))
	b.await("all are committed", time.Minute, func() bool { return b.committed(group, topic)[0] == b.ends(topic)[0] })
	c.clean()
	b.wantEqual("handled", c.Stats().Handled, len(sizes))
	for id := range sizes {
		want := fmt.Sprintf("%d: attempt 1, key of 16, tenant=626c7565 ", id)
		if n := count(got, want); n != 1 {
			t.Errorf("%q is among what was handled %d times: %q", want, n, got)
		}
	}
}

func count(all []string, one string) (n int) {
	for _, s := range all {
		n += b2i(s == one)
	}
	return n
}

// (c), (e) A message of 3 MB that fails at Python comes to Go, whose copy Python joins, and the reverse.
func TestLargeRetriesAreTakenOver(t *testing.T) {
	b := beside(t, 2*time.Minute)
	base, retry, group := b.topic("orders", 1), b.topic("retry", 1), b.name("group")
	want := string(interop.Filler(1, large))
	if err := b.producer().Produce(b.limit, &kgo.Record{Topic: base, Value: []byte(want)}); err != nil {
		t.Fatal(err)
	}
	copies := func(n int) func() bool { // so many whole copies
		return func() bool {
			whole := 0
			for _, r := range b.read(retry) {
				whole += b2i(number(r, "retriable_kafka_chunk_id") == number(r, "retriable_kafka_number_of_chunks")-1)
			}
			return whole == n
		}
	}
	python := func(fail int) *interop.Member {
		return b.join(1, interop.Consuming{Group: group, Topic: base, Retry: retry, Retries: 4, Delay: 3, Fail: fail})
	}
	here := func(attempt int) {
		c := b.start(group, retriable.Topic(base, handles(func(m *retriable.Message) error {
			if m.Attempt != attempt || string(m.Value) != want {
				t.Errorf("attempt %d, want %d, with %d bytes", m.Attempt, attempt, len(m.Value))
			}
			return errors.New("not yet")
		}), retriable.RetryTopic(retry), retriable.NoDeadLetters(), retriable.MaxAttempts(5), retriable.Backoff(retriable.Constant(3*time.Second))))
		b.await("Go has written its copy", 20*time.Second, copies(attempt))
		c.clean()
	}

	m := python(9)
	b.await("Python has written its copy", 20*time.Second, copies(1))
	b.noted()
	b.leave(m)
	here(2)
	m = python(9)
	b.await("Python has written its copy", 20*time.Second, copies(3))
	b.noted()
	b.leave(m)
	here(4)
	m = python(0)
	b.await("Python has handled it", 20*time.Second, func() bool { return m.Handled() == 1 })
	b.leave(m)
	b.wantEqual("what Python handled", m.Events("done")[0].Message, blobAt(1, large))
	b.wantAllCommitted(group, base)
	b.wantAllCommitted(group, retry)
}

// eightBytes is a number as the Python client writes it.
func eightBytes(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// "scheduled", and (a) for delayed messages: what a Python producer wants later, whole or split, is handled then if Scheduled allows it, and at
// once without. The number of the attempt that a producer may write on a base topic means nothing.
func TestPythonScenarioScheduled(t *testing.T) {
	b := beside(t, time.Minute)
	topic := b.topic("orders", 1)
	p := b.sender(interop.Sending{Topics: []string{topic}, Split: true})
	due := time.Now().Add(8 * time.Second).Truncate(time.Second)
	headers := map[string][]byte{"retriable_kafka_timestamp": eightBytes(due.Unix()), "retriable_kafka_attempt": eightBytes(1)}
	if err := p.Send(interop.Message{ID: 1, Size: small, Headers: headers}, interop.Message{ID: 2, Size: large, Headers: headers}); err != nil {
		t.Fatal(err)
	}
	began := make(chan time.Time, 4)
	join := func(name string, opts ...retriable.TopicOption) *running {
		return b.start(b.name(name), retriable.Topic(topic, handles(func(m *retriable.Message) error {
			if m.Attempt != 1 || len(m.Headers) != 0 {
				t.Errorf("attempt %d, %d headers", m.Attempt, len(m.Headers))
			}
			began <- time.Now()
			return nil
		}), append(opts, retriable.NoDeadLetters())...))
	}
	now := join("now")
	b.await("both are handled at once", 8*time.Second, func() bool { return len(began) == 2 })
	if at := time.Now(); !at.Before(due) {
		t.Fatalf("it was too late to see that nobody waits, by %v", at.Sub(due))
	}
	now.clean()
	<-began
	<-began
	later := join("later", retriable.Scheduled(time.Hour))
	b.await("both are handled", 20*time.Second, func() bool { return len(began) == 2 })
	later.clean()
	for range 2 {
		if at := <-began; at.Before(due) {
			t.Errorf("handled %v too early", due.Sub(at))
		}
	}
	b.wantAllCommitted(b.name("later"), topic)
}

// "chunking": messages in chunks of less than 1,000 bytes, and a retry topic that takes no more: each succeeds exactly once.
func TestPythonScenarioSmallChunks(t *testing.T) {
	const n, size = 5, 10_000
	b := beside(t, time.Minute)
	base, retry, group, a := b.topic("base", 1, "max.message.bytes=1000"), b.topic("retry", 1, "max.message.bytes=1000"), b.name("group"), newTried()
	c := b.start(group, retriable.Concurrency(4), retriable.Topic(base, a.handler(t, upTo50ms, firstMostly), retriable.RetryTopic(retry), retriable.NoDeadLetters(),
		retriable.MaxAttempts(4), retriable.Backoff(retriable.Constant(500*time.Millisecond))))
	var sent []interop.Message
	for id := range n {
		sent = append(sent, interop.Message{ID: id, Size: size})
	}
	b.send(interop.Sending{Topics: []string{base}, Split: true, Kafka: map[string]any{"message.max.bytes": 1000}}, sent...)
	b.await("all have succeeded", 30*time.Second, func() bool { _, done := a.count(); return done == n })
	c.clean()
	a.want(t, n, 1)
	if end := b.ends(base)[0]; end < 10*n {
		t.Errorf("%d records: these are no small chunks", end)
	}
	b.wantAllCommitted(group, base)
	b.wantAllCommitted(group, retry)
}

// "lost chunk": of a message one chunk never comes. It is given up in time, though nothing else arrives, and is no obstacle. What came of
// it is not lost but a dead letter.
func TestPythonScenarioLostChunk(t *testing.T) {
	b := beside(t, time.Minute)
	base, dead, group, a := b.topic("base", 1), b.topic("dead", 1), b.name("group"), newTried()
	c := b.start(group, retriable.CommitInterval(100*time.Millisecond), retriable.JoinTimeout(time.Second),
		retriable.Topic(base, a.handler(t, atOnce, never), retriable.DeadLetterTopic(dead)))
	p := b.sender(interop.Sending{Topics: []string{base}})
	lost := interop.Message{Raw: []byte(`{"id": `), Headers: map[string][]byte{
		"retriable_kafka_chunk_group": []byte("0123456789abcdef"), "retriable_kafka_number_of_chunks": eightBytes(2), "retriable_kafka_chunk_id": eightBytes(1),
	}}
	if err := p.Send(lost); err != nil {
		t.Fatal(err)
	}
	b.await("it is a dead letter, and its offset committed", 10*time.Second, func() bool { return b.ends(dead)[0] == 1 && b.committed(group, base)[0] == 1 })
	if err := p.Send(withIDs(1)...); err != nil {
		t.Fatal(err)
	}
	b.await("the other is handled", 10*time.Second, func() bool { _, done := a.of(0); return done == 1 })
	c.clean()
	a.want(t, 1, 1)
	letter := b.read(dead)[0]
	b.wantEqual("the letter", string(letter.Value), string(lost.Raw))
	b.wantHeader(letter, "__dlq.errors.offset", 0)
	b.wantAllCommitted(group, base)
}

// "send error": what is larger than its topic takes is refused there; a Producer splits it, and refuses only what cannot be split.
func TestPythonScenarioTooLarge(t *testing.T) {
	b := beside(t, time.Minute)
	topic, group := b.topic("base", 1, "max.message.bytes=1000"), b.name("group")
	body := map[string]any{"id": 1, "text": string(make([]byte, 2_000))}
	var refused *interop.SendError
	if err := b.sender(interop.Sending{Topics: []string{topic}}).Send(interop.Message{Body: body}); !errors.As(err, &refused) || refused.Retriable {
		t.Errorf("unsplit, at Python: %v", err)
	}
	p := b.producer()
	r := &kgo.Record{Topic: topic, Headers: []kgo.RecordHeader{{Key: "large", Value: make([]byte, 2_000)}}}
	if err := p.Produce(b.limit, r); !errors.Is(err, kerr.MessageTooLarge) {
		t.Errorf("what cannot be split: %v", err)
	}
	b.wantEqual("records", b.ends(topic)[0], 0)

	want := string(interop.Filler(1, 10_000))
	if err := p.Produce(b.limit, &kgo.Record{Topic: topic, Value: []byte(want)}); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 10)
	c := b.start(group, retriable.Topic(topic, handles(func(m *retriable.Message) error {
		got <- string(m.Value)
		return nil
	}), retriable.NoDeadLetters()))
	b.await("it is handled", 20*time.Second, func() bool { return len(got) == 1 })
	c.clean()
	if s := <-got; s != want {
		t.Errorf("%d bytes arrive", len(s))
	}
}
