package stories_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/broker"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// whisper keeps all that is said, and is every hook there is to say it.
type whisper struct {
	mu sync.Mutex
	b  strings.Builder
}

// Write implements io.Writer.
func (w *whisper) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *whisper) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func (w *whisper) say(v any) { fmt.Fprintf(w, "%T %v %+v\n", v, v, v) }

func (w *whisper) OnHandled(e retriable.Handled)             { w.say(e) }
func (w *whisper) OnRetried(e retriable.Retried)             { w.say(e) }
func (w *whisper) OnDeadLettered(e retriable.DeadLettered)   { w.say(e) }
func (w *whisper) OnDropped(e retriable.Dropped)             { w.say(e) }
func (w *whisper) OnHeld(e retriable.Held)                   { w.say(e) }
func (w *whisper) OnCommitted(e retriable.Committed)         { w.say(e) }
func (w *whisper) OnAssigned(e retriable.Assigned)           { w.say(e) }
func (w *whisper) OnDrained(e retriable.Drained)             { w.say(e) }
func (w *whisper) OnStuck(e retriable.Stuck)                 { w.say(e) }
func (w *whisper) OnProduceFailed(e retriable.ProduceFailed) { w.say(e) }

// On a real broker with SASL and ACLs, with logs at their most talkative, kgo's too: what is a secret is in no log, no error, no hook's text and
// no snapshot, whatever becomes of the records.
func TestNothingSecretIsTold(t *testing.T) {
	const password, key, value, head, failure = "canary-password", "canary-key", "canary-value", "canary-header", "canary-error"
	user := broker.SASL{User: "canary", Password: password}
	cluster := broker.For(t, broker.Config{SASL: &user})
	b := storyOn(t, cluster, 2*time.Minute)
	base, retry, dead := b.topic("orders", 2), b.topic("retry", 1), b.topic("dead", 1)
	b.permit(user.User, retry, kadm.OpAll) // with the first rule all other rights end
	told, hooks := &whisper{}, &whisper{}
	c := b.start(b.name("group"), b.login(user.User, password), retriable.Hooks(hooks), retriable.StuckAfter(time.Second),
		retriable.Logger(slog.New(slog.NewTextHandler(told, &slog.HandlerOptions{Level: slog.LevelDebug}))),
		retriable.Kafka(kgo.WithLogger(kgo.BasicLogger(told, kgo.LogLevelDebug, nil))),
		retriable.Topic(base, retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			bad := errors.New(failure)
			_, what, _ := strings.Cut(string(m.Value), ":")
			switch what {
			case "fails":
				return bad
			case "permanent":
				return retriable.Permanent(bad)
			case "drops":
				return retriable.Drop(bad)
			case "panics":
				panic(failure)
			case "late":
				<-ctx.Done()
				return bad
			}
			return nil
		}), retriable.RetryTopic(retry), retriable.DeadLetterTopic(dead), retriable.MaxAttempts(2), retriable.HandlerTimeout(3*time.Second),
			retriable.Backoff(retriable.Constant(100*time.Millisecond))))
	look := func() {
		told.say(c.Stats())
		if err := c.health(); err != nil {
			told.say(err)
		}
	}
	send := func(topic, what string, headers ...kgo.RecordHeader) {
		b.produce(&kgo.Record{
			Topic: topic, Key: []byte(key), Value: []byte(value + ":" + what), Headers: append(headers, kgo.RecordHeader{Key: "tenant", Value: []byte(head)}),
		})
	}
	b.deny(user.User, retry, kadm.OpWrite)
	for _, what := range []string{"done", "fails", "permanent", "drops", "panics", "late"} {
		send(base, what)
	}
	b.await("writes are refused", 20*time.Second, func() bool { return c.Stats().ProduceFailures > 3 })
	look()
	b.allow(user.User, retry)
	send(retry, "done", kgo.RecordHeader{Key: "retriable_kafka_attempt", Value: []byte(head)}, kgo.RecordHeader{Key: "retriable_due", Value: []byte(head)})
	// Of "fails", "panics" and "late" both attempts fail, "permanent" has one.
	b.await("all has come to its end", 60*time.Second, func() bool { return b.ends(dead)[0] == 4 && c.Stats().Handled == 2 })
	look()
	told.say(c.end())
	refused := b.launch(b.name("group"), b.login(user.User, password+"-wrong"), retriable.Topic(base, done(), retriable.NoDeadLetters()),
		retriable.Logger(slog.New(slog.NewTextHandler(told, &slog.HandlerOptions{Level: slog.LevelDebug}))),
		retriable.Kafka(kgo.WithLogger(kgo.BasicLogger(told, kgo.LogLevelDebug, nil))))
	<-refused.done
	told.say(refused.err)

	for _, w := range []string{"a handler panicked", "dropped by its handler", "writes are refused", "accepted again", "malformed", "does not move", "SASL_AUTHENTICATION_FAILED", "OffsetCommit"} {
		if !strings.Contains(told.String(), w) {
			t.Errorf("nothing of %q was told: this run shows nothing of it", w)
		}
	}
	for _, w := range []string{"Handled", "Retried", "DeadLettered", "Dropped", "Held", "Committed", "Assigned", "Drained", "Stuck", "ProduceFailed"} {
		if !strings.Contains(hooks.String(), "retriable."+w+" ") {
			t.Errorf("nothing was %s: this run shows nothing of it", w)
		}
	}
	for _, canary := range []string{password, key, value, head, failure} {
		for line := range strings.Lines(told.String()) {
			if strings.Contains(line, canary) {
				t.Errorf("%s is told: %.300s", canary, line)
			}
		}
		if canary == failure {
			continue // hooks are given the handler's error
		}
		for line := range strings.Lines(hooks.String()) {
			if strings.Contains(line, canary) {
				t.Errorf("%s is in a hook's text: %.300s", canary, line)
			}
		}
	}
}
