package kfake_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Canaries: words that must not come out of where they were put.
const (
	canaryPassword = "canary-password"
	canaryKey      = "canary-key"
	canaryValue    = "canary-value"
	canaryHeader   = "canary-header"
	canaryError    = "canary-error" // what a handler's error, or its panic, says: for the retry topic, the dead letter and the hooks alone
)

// told is all that a consumer lets out, by where it came out.
type told struct {
	mu sync.Mutex
	by map[string]*bytes.Buffer
}

func (s *told) say(where, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[string]*bytes.Buffer{}
	}
	if s.by[where] == nil {
		s.by[where] = &bytes.Buffer{}
	}
	s.by[where].WriteString(text + "\n")
}

func (s *told) at(where string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[where] == nil {
		return ""
	}
	return s.by[where].String()
}

// to is an io.Writer for one place.
type to struct {
	s     *told
	where string
}

func (w to) Write(p []byte) (int, error) {
	w.s.say(w.where, string(p))
	return len(p), nil
}

// tellAll is every hook. It keeps what one would see who prints what they are given.
type tellAll struct{ s *told }

func (h tellAll) tell(e any) { h.s.say("hooks", fmt.Sprintf("%T %v %+v", e, e, e)) }

func (h tellAll) OnHandled(e retriable.Handled)             { h.tell(e) }
func (h tellAll) OnRetried(e retriable.Retried)             { h.tell(e) }
func (h tellAll) OnDeadLettered(e retriable.DeadLettered)   { h.tell(e) }
func (h tellAll) OnDropped(e retriable.Dropped)             { h.tell(e) }
func (h tellAll) OnHeld(e retriable.Held)                   { h.tell(e) }
func (h tellAll) OnCommitted(e retriable.Committed)         { h.tell(e) }
func (h tellAll) OnAssigned(e retriable.Assigned)           { h.tell(e) }
func (h tellAll) OnDrained(e retriable.Drained)             { h.tell(e) }
func (h tellAll) OnStuck(e retriable.Stuck)                 { h.tell(e) }
func (h tellAll) OnProduceFailed(e retriable.ProduceFailed) { h.tell(e) }

// Whatever happens to a record, and whatever goes wrong, no log (at its most talkative, kgo's too), no error, no hook's text and no snapshot holds a
// password, a key, a value or a header's value; and a handler's error text is in none but the hooks that hand on its error.
func TestNothingSecretIsTold(t *testing.T) {
	bubble(t, "orders:2 bodies orders.retry orders.dead", func(b *bed) {
		s := &told{}
		sasl := kgo.SASL(plain.Auth{User: "admin", Pass: canaryPassword}.AsMechanism())
		b.renew(sasl)
		secret := retriable.Kafka(sasl)
		talkative := []retriable.Option{
			secret,
			retriable.Logger(slog.New(slog.NewTextHandler(to{s, "log"}, &slog.HandlerOptions{Level: slog.LevelDebug}))),
			retriable.Kafka(kgo.WithLogger(kgo.BasicLogger(to{s, "kgo's log"}, kgo.LogLevelDebug, nil)), kgo.MaxDecompressBatchBytes(100_000)),
			retriable.Hooks(tellAll{s}), retriable.StuckAfter(10 * time.Second), retriable.DrainTimeout(5 * time.Second),
		}
		blocked := make(chan struct{})
		postponed := false
		dead := retriable.DeadLetterTopic("orders.dead")
		talkative = append(talkative,
			retriable.Topic("orders", retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
				_, what, _ := strings.Cut(string(m.Value), ":")
				bad := errors.New(canaryError)
				switch what {
				case "permanent":
					return retriable.Permanent(bad)
				case "drops":
					return retriable.Drop(bad)
				case "panics":
					panic(canaryError)
				case "panics with an error":
					panic(bad)
				case "late":
					<-ctx.Done()
					return bad
				case "blocks":
					<-blocked
				case "postpones":
					if !postponed {
						postponed = true
						return retriable.Postpone(time.Second)
					}
				case "fails":
					return bad
				}
				return nil
			}), retriable.RetryTopic("orders.retry"), dead, retriable.MaxAttempts(2), retriable.MaxDelay(10*time.Second),
				retriable.HandlerTimeout(time.Minute), retriable.Backoff(func(int) time.Duration { return time.Minute })),
			retriable.Topic("bodies", retriable.JSON(func(context.Context, struct{ N int }, *retriable.Message) error { return nil }), dead))

		c := b.start("g", talkative...)
		look := func() {
			s.say("stats", fmt.Sprintf("%v %+v", c.Stats(), c.Stats()))
			if err := c.Health(b.Context()); err != nil {
				s.say("health", fmt.Sprintf("%v %+v", err, err))
			}
		}
		send := func(topic, what string, headers ...kgo.RecordHeader) {
			b.send(&kgo.Record{
				Topic: topic, Key: []byte(canaryKey), Value: []byte(canaryValue + ":" + what),
				Headers: append(headers, kgo.RecordHeader{Key: "tenant", Value: []byte(canaryHeader)}),
			})
		}

		// Copies and commits are refused for a while.
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: 3})
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Err: kerr.InvalidCommitOffsetSize, Count: 3})
		for _, what := range []string{"done", "fails", "permanent", "drops", "panics", "panics with an error", "postpones", "late"} {
			send("orders", what)
			time.Sleep(100 * time.Millisecond)
			look()
		}
		// Nothing of this is what it should be.
		send("bodies", "{")
		for _, name := range []string{"retriable_kafka_attempt", "retriable_kafka_timestamp", "retriable_due", "retriable_origin", "retriable_first_failure", "retriable_offset", "retriable_group"} {
			send("orders.retry", "done", kgo.RecordHeader{Key: name, Value: []byte(canaryHeader)})
		}
		time.Sleep(2 * time.Minute)
		look()
		// A batch that cannot be unpacked, and is skipped.
		b.renew(sasl, kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerLinger(100*time.Millisecond))
		send("bodies", strings.Repeat("0", 200_000))
		time.Sleep(10 * time.Second)
		look()
		var unread *retriable.FetchError
		if !errors.As(c.Health(b.Context()), &unread) {
			b.Fatal("the batch is not named")
		}
		if err := c.Skip(b.Context(), unread.Past); err != nil {
			b.Fatal(err)
		}
		if err := c.Skip(b.Context(), unread.Past); err != nil {
			s.say("errors", err.Error())
		}
		// A record that holds its partition, a session that is lost, and another member.
		send("orders", "blocks")
		time.Sleep(20 * time.Second)
		look()
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: "g", Err: kerr.UnknownMemberID, Count: 1})
		time.Sleep(10 * time.Second)
		other := b.start("g", append(slices.Clone(talkative), retriable.Kafka(kgo.ClientID("other")))...)
		time.Sleep(10 * time.Second)
		look()
		s.say("errors", fmt.Sprint(other.end()))
		s.say("errors", fmt.Sprint(c.end())) // its handler still runs
		close(blocked)

		// What New and Run say of options and of passwords.
		_, err := retriable.New("", secret, retriable.Kafka(kgo.DisableAutoCommit()), retriable.Concurrency(0))
		s.say("errors", err.Error())
		b.cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			resp := kreq.ResponseKind().(*kmsg.SASLAuthenticateResponse)
			resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
			return resp, nil, true
		})
		refused := b.launch("g", talkative...)
		<-refused.done
		if refused.err == nil {
			b.Error("Run with a refused password: no error")
		}
		s.say("errors", refused.err.Error())

		for where, words := range map[string][]string{ // that it came to all of this
			"log": {
				"a handler panicked", "dropped by its handler", "writes are refused", "accepted again", "a commit is refused", "is cut", "malformed",
				"cannot be read on", "given up unread", "does not move", "session ended", "still run", "other groups",
			},
			"kgo's log": {"OffsetCommit"},
			"hooks": {
				"retriable.Handled", "retriable.Retried", "retriable.DeadLettered", "retriable.Dropped", "retriable.Held", "retriable.Committed",
				"retriable.Assigned", "retriable.Drained", "retriable.Stuck", "retriable.ProduceFailed", canaryError,
			},
			"stats":  {"Handled:1", "orders.retry"},
			"health": {"writes to orders.retry fail", "cannot be fetched", "is stuck"},
			"errors": {"abandoned", "Concurrency", "SASL"},
		} {
			text := s.at(where)
			for _, w := range words {
				if !strings.Contains(text, w) {
					b.Errorf("%s: nothing of %q, so this run shows nothing of it:\n%.6000s", where, w, text)
				}
			}
			for _, canary := range []string{canaryPassword, canaryKey, canaryValue, canaryHeader, canaryError} {
				if strings.Contains(text, canary) && (canary != canaryError || where != "hooks") {
					b.Errorf("%s: there is %s in it:\n%s", where, canary, lineOf(text, canary))
				}
			}
		}
	}, kfake.EnableSASL(), kfake.Superuser("PLAIN", "admin", canaryPassword))
}

// lineOf returns the first line of a text that holds a word.
func lineOf(text, word string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			return line
		}
	}
	return ""
}

// A batch that unpacks to more than 64 MiB is refused unless somebody allows it.
func TestBatchesAreBoundedByDefault(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		c := b.start("g", retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), retriable.NoDeadLetters()))
		defer c.clean()
		if n := c.Client().OptValue(kgo.MaxDecompressBatchBytes); n != int32(64<<20) && n != int64(64<<20) && n != 64<<20 {
			b.Errorf("MaxDecompressBatchBytes is %v (%T)", n, n)
		}
	})
}
