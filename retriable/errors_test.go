package retriable_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

func TestNoErrorIsNoVerdict(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"Permanent":  retriable.Permanent(nil),
		"RetryAfter": retriable.RetryAfter(nil, time.Hour),
		"Drop":       retriable.Drop(nil),
		"Abort":      retriable.Abort(nil),
	} {
		if err != nil {
			t.Errorf("%s(nil) is %v, want nil: a handler that wraps what it got would fail", name, err)
		}
	}
	if retriable.Postpone(0) == nil {
		t.Error("Postpone(0) is nil: the record would be done")
	}
}

func TestAVerdictKeepsTheErrorItWraps(t *testing.T) {
	t.Parallel()
	cause := &fs.PathError{Op: "open", Path: "x", Err: io.ErrUnexpectedEOF}
	for name, err := range map[string]error{
		"Permanent":            retriable.Permanent(cause),
		"RetryAfter":           retriable.RetryAfter(cause, time.Hour),
		"Drop":                 retriable.Drop(cause),
		"Abort":                retriable.Abort(cause),
		"a verdict in another": retriable.Drop(fmt.Errorf("charging: %w", retriable.Permanent(cause))),
		"one joined":           errors.Join(io.EOF, retriable.Permanent(cause)),
	} {
		var path *fs.PathError
		if !errors.Is(err, cause) || !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &path) {
			t.Errorf("%s hides the tree of its error", name)
		}
		if !strings.Contains(err.Error(), cause.Error()) {
			t.Errorf("%s: its text is %q, want that of its error", name, err)
		}
	}
	if text := retriable.Permanent(cause).Error(); text != cause.Error() {
		t.Errorf("Permanent changes the text to %q", text)
	}
	if text := retriable.Postpone(90 * time.Second).Error(); !strings.Contains(text, "1m30s") {
		t.Errorf("Postpone's text does not say for how long: %q", text)
	}
}

func TestAPanicIsAnErrorByPointer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value any
		text  string
		is    error
	}{
		{"boom", "boom", nil},
		{fmt.Errorf("reading: %w", io.EOF), "reading: EOF", io.EOF},
		{42, "42", nil},
		{nil, "ended its goroutine", nil},
	} {
		err := fmt.Errorf("outside: %w", &retriable.PanicError{Value: c.value, Stack: []byte("stack")})
		var p *retriable.PanicError
		if !errors.As(err, &p) || p.Value != c.value || string(p.Stack) != "stack" {
			t.Fatalf("errors.As finds %v", p)
		}
		if !strings.Contains(p.Error(), c.text) || !strings.HasPrefix(p.Error(), "retriable: ") {
			t.Errorf("text %q, want one with %q", p, c.text)
		}
		if c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%v hides that it is %v", err, c.is)
		}
		if c.is == nil && errors.Unwrap(p) != nil {
			t.Errorf("%v unwraps to %v", p, errors.Unwrap(p))
		}
	}
}

func TestAPositionNamesOneRecord(t *testing.T) {
	t.Parallel()
	p := retriable.Position{Topic: "orders", Partition: 3, Offset: 17}
	if p.String() != "orders/3/17" || p.LogValue().String() != "orders/3/17" {
		t.Errorf("%v, %v, want orders/3/17", p.String(), p.LogValue())
	}
	m := retriable.NewMessage(&kgo.Record{Topic: "orders", Partition: 3, Offset: 17, Value: []byte("v")})
	if m.Source != p || m.Attempt != 1 || string(m.Value) != "v" || !m.FirstFailure.IsZero() || m.LastError != "" {
		t.Errorf("NewMessage: %+v", m)
	}
}

func TestErrorsTellTheirFactsAndTheirCause(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for _, c := range []struct {
		err   error
		words string
	}{
		{&retriable.AbandonedError{Records: []retriable.Position{{Topic: "orders", Partition: 1, Offset: 5}, {Topic: "b", Offset: 6}}, Running: 1}, "2 orders/1/5 1"},
		{&retriable.CommitError{Topic: "orders", Partition: 1, Offset: 5, Err: io.EOF}, "orders/1 5 EOF"},
		{&retriable.TopicError{Topic: "orders", Err: io.EOF}, "orders EOF"},
		{&retriable.BrokerError{Brokers: []string{"a:9092"}, Err: io.EOF}, "a:9092 EOF"},
		{&retriable.GroupError{Group: "billing", Err: io.EOF}, "billing EOF"},
		{
			&retriable.StuckError{Topic: "orders", Partition: 1, Oldest: retriable.Oldest{Offset: 5, Attempt: 2, Since: at, Reason: retriable.ReasonRunning}},
			"orders/1 5 running 2026-05-04T03:02:01Z 2",
		},
		{&retriable.ProduceError{Topic: "orders.retry", Since: at, Err: io.EOF}, "orders.retry 2026-05-04T03:02:01Z EOF"},
		{
			&retriable.FetchError{Topic: "orders", Partition: 1, Offset: 5, Past: retriable.Position{Topic: "orders", Partition: 1, Offset: 9}, Err: io.EOF},
			"orders/1 5 EOF Skip orders/1/9",
		},
	} {
		text := c.err.Error()
		if !strings.HasPrefix(text, "retriable: ") {
			t.Errorf("%T: %q does not say whose it is", c.err, text)
		}
		for _, w := range strings.Fields(c.words) {
			if !strings.Contains(text, w) {
				t.Errorf("%T: %q does not tell %s", c.err, text, w)
			}
		}
		if strings.Contains(c.words, "EOF") && !errors.Is(c.err, io.EOF) {
			t.Errorf("%T hides its cause", c.err)
		}
	}
	if text := (&retriable.FetchError{Topic: "orders", Err: io.EOF}).Error(); strings.Contains(text, "Skip") {
		t.Errorf("%q recommends Skip where it does not help", text)
	}
	if text := (&retriable.AbandonedError{}).Error(); text == "" { // as a test of a caller's may make one
		t.Error("an empty AbandonedError has no text")
	}
}
