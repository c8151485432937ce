package stories_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/interop"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// fixtureInputs are the messages that the Python client was given for the fixtures of package wire, whole, with the user's headers, but for those
// larger than 4 KiB, whose bytes are not in them.
func fixtureInputs(t *testing.T) (inputs []*kgo.Record) {
	t.Helper()
	names, err := filepath.Glob("../../retriable/internal/wire/testdata/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var file struct {
			Retry   string `json:"retry_topic"`
			Records []struct {
				Topic   string
				Key     string `json:"key_hex"`
				Headers [][2]string
				Value   string `json:"value_b64"`
			}
		}
		if err := json.Unmarshal(text, &file); err != nil {
			t.Fatal(err)
		}
		whole := map[string]*kgo.Record{} // by key: each send has one
		for _, r := range file.Records {
			if r.Topic == file.Retry || r.Value == "" {
				continue
			}
			if whole[r.Key] == nil {
				key, _ := hex.DecodeString(r.Key)
				whole[r.Key] = &kgo.Record{Key: key}
				for _, h := range r.Headers {
					if value, _ := hex.DecodeString(h[1]); !strings.HasPrefix(h[0], "retriable_kafka_") {
						whole[r.Key].Headers = append(whole[r.Key].Headers, kgo.RecordHeader{Key: h[0], Value: value})
					}
				}
				inputs = append(inputs, whole[r.Key])
			}
			value, err := base64.StdEncoding.DecodeString(r.Value)
			if err != nil {
				t.Fatal(err)
			}
			whole[r.Key].Value = append(whole[r.Key].Value, value...)
		}
	}
	return inputs
}

// What we write for the same inputs is read exactly by Python: on a base topic, and as retry copies, on topics so small that most of them are in
// chunks. (That what Python wrote is read exactly here is in package wire's TestFixtures, and with it what of ours is the same to the byte.)
func TestPythonReadsWhatGoWritesOfItsFixtures(t *testing.T) {
	b := beside(t, time.Minute)
	base, retry, group := b.topic("orders", 1, "max.message.bytes=600"), b.topic("retry", 1, "max.message.bytes=900"), b.name("group")
	inputs := fixtureInputs(t)
	var want []string
	p := b.producer()
	for _, r := range inputs {
		r.Topic = base
		if err := p.Produce(b.limit, r); err != nil {
			t.Fatal(err)
		}
		want = append(want, compact(t, r.Value))
	}
	slices.Sort(want)
	if records := b.ends(base)[0]; int(records) < len(inputs)+10 {
		t.Errorf("%d records of %d messages: this shows little", records, len(inputs))
	}

	wantAll := func(what string, m *interop.Member) {
		t.Helper()
		b.await("Python has handled all, "+what, 20*time.Second, func() bool { return len(m.Events("done")) == len(inputs) })
		b.leave(m)
		var got []string
		for _, e := range m.Events("done") {
			got = append(got, compact(t, []byte(e.Message)))
		}
		slices.Sort(got)
		b.wantEqual("what Python handled, "+what, got, want)
	}
	wantAll("as first produced", b.join(1, interop.Consuming{Group: b.name("others"), Topic: base, Whole: true}))

	c := b.start(group, retriable.Topic(base, handles(func(m *retriable.Message) error {
		if m.Attempt > 1 {
			return retriable.Postpone(time.Hour)
		}
		return errors.New("not yet")
	}), retriable.RetryTopic(retry), retriable.NoDeadLetters(), retriable.Backoff(retriable.Constant(time.Second))))
	b.await("all copies are written", 20*time.Second, func() bool { return int(c.Stats().Retried) == len(inputs) })
	c.clean()
	m := b.join(1, interop.Consuming{Group: group, Topic: base, Retry: retry, Retries: 4, Raw: true, Whole: true})
	wantAll("as retry copies", m)
	for _, e := range m.Events("raw") {
		if attempt := "retriable_kafka_attempt=" + hex.EncodeToString(eightBytes(1)); !strings.Contains(e.PrintHeaders(), attempt) {
			t.Errorf("Python polled a copy with %s", e.PrintHeaders())
		}
	}
	b.wantAllCommitted(group, base)
	b.wantAllCommitted(group, retry)
}

// compact is a JSON text in one way of writing it.
func compact(t *testing.T, text []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Errorf("%.100q: %v", text, err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}
