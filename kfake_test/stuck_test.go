package kfake_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// What holds the commit back is named once, by Stats, hook and log alike, with what it waits for.
func TestWhatHoldsTheCommitIsNamed(t *testing.T) {
	for _, c := range []struct {
		reason  retriable.Reason
		value   string
		attempt int
		log     []string // words of the line
	}{
		{retriable.ReasonRunning, "k=blocked", 1, []string{"level=WARN", "reason=running"}},
		{retriable.ReasonQueued, "k=queued", 1, []string{"level=WARN", "reason=queued"}},
		{retriable.ReasonProducing, "k=fails", 1, []string{"level=WARN", "reason=producing", "written to", "orders.retry"}},
		{retriable.ReasonPostponed, "k=later", 1, []string{"level=DEBUG", "reason=postponed", "until="}},
		{retriable.ReasonHeld, "k=held", 2, []string{"level=DEBUG", "reason=held", "until="}},
		{retriable.ReasonJoining, "k=half", 1, []string{"level=DEBUG", "reason=joining"}}, // a chunk waits for the rest of its message
	} {
		t.Run(string(c.reason), func(t *testing.T) {
			bubble(t, "orders:2 orders.retry:1", func(b *bed) {
				var e events
				blocked := b.gate()
				if c.reason == retriable.ReasonProducing {
					b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: 20})
				}
				r := b.begin("g", retriable.Logger(slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))), retriable.Hooks(&e), retriable.Concurrency(1), retriable.StuckAfter(30*time.Second),
					retriable.Topic("orders", handles(func(m *retriable.Message) error {
						switch string(m.Value) {
						case "blocked":
							blocked.wait()
						case "later":
							if time.Since(m.Timestamp) < time.Minute {
								return retriable.Postpone(2 * time.Minute)
							}
						case "fails":
							return errNo
						}
						return nil
					}), none(), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(time.Second))))
				topic := "orders"
				switch c.reason {
				case retriable.ReasonQueued: // behind all workers
					b.produce("orders", 1, "j=blocked")
					time.Sleep(time.Second)
					b.produce("orders", 0, c.value)
				case retriable.ReasonHeld:
					topic = "orders.retry"
					b.send(retry(c.value, 3*time.Minute))
				case retriable.ReasonJoining:
					b.send(part("m", 2, 0, c.value))
				case retriable.ReasonRunning, retriable.ReasonPostponed, retriable.ReasonProducing:
					b.produce("orders", 0, c.value)
				}
				began := time.Now()
				time.Sleep(50 * time.Second)

				var told []retriable.Stuck
				for _, s := range list(&e, &e.stucks) {
					if s.Topic == topic && s.Partition == 0 {
						told = append(told, s)
					}
				}
				if len(told) != 1 {
					t.Fatalf("the hook was told %+v", told)
				}
				for what, o := range map[string]retriable.Oldest{"the hook": told[0].Oldest, "Stats": r.partition(topic, 0).Oldest} {
					if o.Reason != c.reason || o.Offset != 0 || o.Attempt != c.attempt || o.KeyHash == 0 || o.Since.Sub(began).Abs() > time.Second || o.ReasonSince.Sub(began).Abs() > 6*time.Second {
						t.Errorf("%s: %+v, %v after it was read", what, o, began)
					}
					wantEqual(t, what+" tells until when", !o.Until.IsZero(), c.reason == retriable.ReasonHeld || c.reason == retriable.ReasonPostponed)
					wantEqual(t, what+" tells the topic", o.Topic, map[bool]string{true: "orders.retry"}[c.reason == retriable.ReasonProducing])
				}
				words := append([]string{"does not move", fmt.Sprintf("record=%s/0/0", topic), "age=", fmt.Sprint("attempt=", c.attempt), "since=", fmt.Sprintf("key hash\"=%04x", told[0].Oldest.KeyHash)}, c.log...)
				if lines := b.log.lines(words...); len(lines) != 1 {
					t.Errorf("%d lines with %q:\n%s", len(lines), words, strings.Join(b.log.lines("does not move"), ""))
				}
				blocked.open()
				time.Sleep(5 * time.Minute)
				wantEqual(t, "told in all", len(b.log.lines("does not move", topic+"/0/0")), 1)
				r.clean()
			})
		})
	}
}
