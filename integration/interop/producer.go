package interop

import (
	"crypto/sha3"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"
)

//go:embed produce.py
var produceScript string

// Sending is what a Python producer is made of; its zero value but for the first two is the client's default.
type Sending struct {
	Brokers []string `json:"brokers"`
	Topics  []string `json:"topics"`
	Split   bool     `json:"split"`   // split_messages
	Retries int      `json:"retries"` // of a refused send
	// Kafka are settings of librdkafka; message.max.bytes (1,000,000) tells how large chunks are.
	Kafka map[string]any `json:"kafka"`
}

// Message is one to send: Body as JSON; or else Raw; or else an id and so many characters of filler, as Filler makes it.
type Message struct {
	Body    any               `json:"body,omitempty"`
	Raw     []byte            `json:"raw,omitempty"`
	ID      int               `json:"id"`
	Size    int               `json:"size,omitempty"`
	Headers map[string][]byte `json:"headers,omitempty"`
}

// Producer is a process with a BaseProducer.
type Producer struct {
	*process
	answers chan []byte
}

// SendError is what the client raised.
type SendError struct {
	Text      string `json:"error"`
	Retriable bool   `json:"retriable"`
}

func (e *SendError) Error() string { return "the Python producer: " + e.Text }

// Producer starts a producer. It ends with the test.
func (p *Python) Producer(tb testing.TB, s Sending) *Producer {
	tb.Helper()
	if s.Kafka == nil {
		s.Kafka = map[string]any{}
	}
	c := &Producer{answers: make(chan []byte, 1)}
	c.process = p.start(tb, produceScript, s, func(line []byte) { c.answers <- line })
	if err := c.answer(); err != nil {
		tb.Fatal(err)
	}
	return c
}

// Send sends messages, one after another, until one is refused: then the error is a *SendError.
func (p *Producer) Send(messages ...Message) error {
	for _, m := range messages {
		if err := p.tell(m); err != nil {
			return fmt.Errorf("the Python producer: %w", err)
		}
		if err := p.answer(); err != nil {
			return err
		}
	}
	return nil
}

// answer waits for the next.
func (p *Producer) answer() error {
	select {
	case line := <-p.answers:
		var refused SendError
		if err := json.Unmarshal(line, &refused); err != nil {
			return err
		}
		if refused.Text != "" {
			return &refused
		}
		return nil
	case <-p.ended:
		return fmt.Errorf("the Python producer has ended: %w", p.err)
	case <-time.After(time.Minute):
		return errors.New("the Python producer does not answer")
	}
}

// Close ends the producer.
func (p *Producer) Close() error { return p.end(10 * time.Second) }

// Filler is the message that the Python producer sends for an id and a size, as it writes it.
func Filler(id, size int) []byte {
	return fmt.Appendf(nil, `{"id": %d, "blob": "%s"}`, id, Blob(id, size))
}

// Blob is the filler of that message.
func Blob(id, size int) []byte {
	random := sha3.NewSHAKE256()
	_, _ = random.Write(strconv.AppendInt(nil, int64(id), 10)) // never fails
	raw := make([]byte, size/2)
	_, _ = random.Read(raw)
	return hex.AppendEncode(nil, raw)
}
