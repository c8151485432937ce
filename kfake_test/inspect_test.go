package kfake_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// inspection returns what Inspect says of one partition.
func (r *running) inspection(limit int, topic string, partition int32) retriable.Inspection {
	r.b.Helper()
	for _, in := range r.Inspect(limit) {
		if in.Topic == topic && in.Partition == partition {
			return in
		}
	}
	r.b.Fatalf("%s/%d is not assigned", topic, partition)
	return retriable.Inspection{}
}

// words prints values with a space between any two.
func words(vs ...any) string { return strings.TrimSpace(fmt.Sprintln(vs...)) }

func TestInspectShowsWhatRunsWaitsAndIsWritten(t *testing.T) {
	bubble(t, "orders:2 orders.retry", func(b *bed) {
		fault := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: -1})
		blocked := b.gate()
		r := b.begin("g", patient(), retriable.StuckAfter(30*time.Minute), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			switch {
			case string(m.Value) == "blocked" && m.Attempt == 1:
				blocked.wait()
			case string(m.Value) == "inplace" && m.Attempt == 1, string(m.Value) == "fails" && m.Attempt < 3:
				return errNo
			case string(m.Value) == "later" && time.Since(m.Timestamp) < time.Minute:
				return retriable.Postpone(2 * time.Hour)
			}
			return nil
		}), none(), retriable.RetryTopic("orders.retry"), retriable.MaxAttempts(5), retriable.Backoff(retriable.Constant(time.Hour)),
			retriable.BlockingRetries(1, retriable.Constant(40*time.Minute))))
		began := time.Now()
		b.produce("orders", 0, "a=done", "b=blocked", "c=inplace", "d=done", "b=queued", "e=later", "f=done", "f=done")
		time.Sleep(20 * time.Minute)

		in := r.inspection(8, "orders", 0)
		wantEqual(t, "watermark, next, end, retry", fmt.Sprint(in.Watermark, in.Next, in.End, in.Retry), "1 8 8 false")
		wantEqual(t, "running", len(in.Running), 1)
		run := in.Running[0]
		wantEqual(t, "what runs", fmt.Sprint(run.Offset, run.Attempt, run.Read.Sub(began) < time.Minute), "1 1 true")
		if seen := run.Since.Sub(run.Read); seen < 0 || seen > 5*time.Second {
			t.Errorf("it was first seen to run %v after it came in, want 5s at most", seen)
		}
		var waits []string
		for _, w := range in.Waiting {
			waits = append(waits, words(w.Offset, w.Attempt, w.Reason, w.InPlace, w.Due.Sub(began).Round(time.Minute)))
		}
		wantEqual(t, "what waits, by due time", waits, []string{"2 2 held true 40m0s", "5 1 postponed false 2h0m0s"})
		var cells []string
		for _, c := range in.Window {
			cells = append(cells, fmt.Sprint(c.From, c.To, c.Queued, c.Running, c.Held, c.Pending()))
		}
		wantEqual(t, "the window", cells, []string{"1 2 0 1 0 1", "2 3 0 0 1 1", "3 4 0 0 0 0", "4 5 1 0 0 1", "5 6 0 0 1 1", "6 7 0 0 0 0", "7 8 0 0 0 0"})

		// Two cells for seven offsets, one record of two that wait.
		in = r.inspection(2, "orders", 0)
		cells = nil
		for _, c := range in.Window {
			cells = append(cells, fmt.Sprint(c.From, c.To, c.Queued, c.Running, c.Held))
		}
		wantEqual(t, "a coarse window", cells, []string{"1 5 1 1 1", "5 8 0 0 1"})
		wantEqual(t, "the first to be due", r.inspection(1, "orders", 0).Waiting[0].Offset, 2)
		in = r.inspection(0, "orders", 0)
		wantEqual(t, "nothing asked for", fmt.Sprint(len(in.Window), len(in.Running), len(in.Waiting), len(in.Writing), in.Next), "0 0 0 0 8")

		// A copy that is refused.
		b.produce("orders", 1, "g=fails")
		time.Sleep(90 * time.Minute)
		in = r.inspection(8, "orders", 1)
		wantEqual(t, "writing", len(in.Writing), 1)
		w := in.Writing[0]
		wantEqual(t, "what is written", words(w.Offset, w.Topic, w.Refused > 100, w.Again.After(time.Now()), time.Since(w.Since) > 45*time.Minute), "0 orders.retry true true true")
		wantEqual(t, "its cell", fmt.Sprint(in.Window), "[{0 1 0 0 0 1 0}]")
		fault.Remove()
		blocked.open()
		pass(time.Minute)
		in = r.inspection(8, "orders.retry", 0)
		wantEqual(t, "the retry topic", words(in.Retry, len(in.Waiting), in.Waiting[0].Attempt, in.Waiting[0].Reason), "true 1 3 held")
		r.clean()
		wantEqual(t, "after the end", len(r.Inspect(8)), 0)
	})
}

func TestTheNamesOfTheTopicsAreTold(t *testing.T) {
	t.Parallel()
	h := handles(func(*retriable.Message) error { return nil })
	c, err := retriable.New("g", retriable.Brokers("127.0.0.1:9092"),
		retriable.Topic("orders", h, retriable.RetryTopic("orders.retry"), retriable.RetryTier("orders.retry.1h", time.Hour), retriable.DeadLetterTopic("orders.dead")),
		retriable.TopicRegexp("mail-.*", h, retriable.NoDeadLetters()))
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "group", c.Group(), "g")
	wantEqual(t, "topics", fmt.Sprintf("%+v", c.Topics()),
		"[{Base:orders Pattern:false Retries:[orders.retry orders.retry.1h] Dead:orders.dead} {Base:mail-.* Pattern:true Retries:[] Dead:}]")
}
