package stories_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/interop"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// peers is a bed with the Python client beside.
type peers struct {
	*bed
	python *interop.Python
}

// beside is a story with the Python client. Stories of this kind mostly wait, and run side by side.
func beside(t *testing.T, within time.Duration) *peers {
	t.Helper()
	t.Parallel()
	python := interop.Need(t)
	return &peers{newBed(t, quickGroups(t), within), python}
}

// sender starts a Python producer.
func (b *peers) sender(s interop.Sending) *interop.Producer {
	b.Helper()
	s.Brokers = b.cluster.Addrs()
	return b.python.Producer(b, s)
}

// join starts a Python member and waits until the group has so many members and is at rest.
func (b *peers) join(members int, s interop.Consuming) *interop.Member {
	b.Helper()
	s.Brokers = b.cluster.Addrs()
	m := b.python.Member(b, s)
	b.grown(s.Group, members)
	b.Cleanup(func() {
		for _, e := range m.Events("crash") {
			b.Errorf("the Python member has crashed: %s", e.Error)
		}
		if b.Failed() {
			told := m.Events("log")
			for _, e := range told[max(0, len(told)-20):] {
				b.Logf("a Python member: %s %s", e.Level, e.Text)
			}
		}
	})
	return m
}

// grown waits until a group has so many members and is at rest.
func (b *peers) grown(group string, members int) {
	b.Helper()
	b.await(fmt.Sprintf("group %s has %d members", group, members), 30*time.Second, func() bool {
		found, err := b.adm.DescribeGroups(b.limit, group)
		return err == nil && found[group].State == "Stable" && len(found[group].Members) == members
	})
}

// leave stops a Python member.
func (b *peers) leave(m *interop.Member) {
	b.Helper()
	if err := m.Stop(); err != nil {
		b.Errorf("a Python member on its stop: %v", err)
	}
}

// number reads one of the Python client's headers: 8 bytes, big-endian. -1 is none.
func number(r *kgo.Record, name string) int64 {
	v, ok := header(r, name)
	if !ok || len(v) != 8 {
		return -1
	}
	return int64(binary.BigEndian.Uint64([]byte(v)))
}

// (a), for plain records: what Python produces handlers here get as it was sent.
func TestPythonProducesAndGoHandles(t *testing.T) {
	b := beside(t, time.Minute)
	topic, group := b.topic("orders", 3), b.name("group")
	bodies := []any{
		map[string]any{"id": 1, "text": "plain"},
		map[string]any{"id": 2, "text": "ünï\u2028<&>", "deep": []any{nil, true, 1.5, map[string]any{}}},
		map[string]any{},
	}
	var sent []interop.Message
	for _, body := range bodies {
		sent = append(sent, interop.Message{Body: body, Headers: map[string][]byte{"tenant": []byte("blue"), "binary": {0, 0xff, 10}}})
	}
	raw := []byte("no JSON at all\x00\xff")
	sent = append(sent, interop.Message{Raw: raw, Headers: map[string][]byte{"tenant": []byte("blue"), "binary": {0, 0xff, 10}}})
	p := b.sender(interop.Sending{Topics: []string{topic}})
	if err := p.Send(sent...); err != nil {
		t.Fatal(err)
	}

	got := make(chan *retriable.Message, len(sent)+1)
	c := b.start(group, retriable.Topic(topic, handles(func(m *retriable.Message) error {
		got <- m
		return nil
	}), retriable.NoDeadLetters()))
	var values []string
	for range sent {
		select {
		case m := <-got:
			values = append(values, string(m.Value))
			var tenant, bin []byte
			for _, h := range m.Headers {
				switch h.Key {
				case "tenant":
					tenant = h.Value
				case "binary":
					bin = h.Value
				}
			}
			b.wantEqual("headers", fmt.Sprintf("%d %s %x", len(m.Headers), tenant, bin), "2 blue 00ff0a")
			b.wantEqual("attempt and length of the key", fmt.Sprint(m.Attempt, len(m.Key)), "1 16")
		case <-time.After(20 * time.Second):
			t.Fatalf("only %d of %d arrive", len(values), len(sent))
		}
	}
	for i, body := range bodies {
		if !slices.ContainsFunc(values, func(v string) bool { return sameJSON([]byte(v), body) }) {
			t.Errorf("message %d, %v, is not among %q", i, body, values)
		}
	}
	if !slices.Contains(values, string(raw)) {
		t.Errorf("what is no JSON is not among %q", values)
	}
	c.clean()
	b.wantAllCommitted(group, topic)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// sameJSON reports whether a text is the JSON of a value.
func sameJSON(text []byte, value any) bool {
	var read any
	if json.Unmarshal(text, &read) != nil {
		return false
	}
	want, err := json.Marshal(value)
	if err != nil {
		return false
	}
	got, err := json.Marshal(read)
	return err == nil && bytes.Equal(got, want)
}

// (b), for plain records: what Go produces a Python handler gets, once each, whatever key and headers it has.
func TestGoProducesAndPythonHandles(t *testing.T) {
	b := beside(t, time.Minute)
	topic, group := b.topic("orders", 3), b.name("group")
	const n = 60
	want := map[string]string{}
	for i := range n {
		r := &kgo.Record{Topic: topic, Partition: -1, Value: fmt.Appendf(nil, `{"id":%d,"text":"ü\u2028 %d"}`, i, i)}
		if i%2 == 0 {
			r.Key = fmt.Appendf(nil, "key-%d", i%7)
		}
		if i%3 == 0 {
			r.Headers = []kgo.RecordHeader{{Key: "tenant", Value: []byte("blue")}, {Key: "none"}, {Key: "tenant", Value: []byte{0xff}}}
		}
		want[fmt.Sprint(i)] = string(r.Value)
		b.produce(r)
	}
	m := b.join(1, interop.Consuming{Group: group, Topic: topic, Raw: true})
	b.await("Python has handled all", 20*time.Second, func() bool { return m.Handled() == n })
	b.leave(m)
	for _, e := range m.Events("done") {
		var value any
		if err := json.Unmarshal([]byte(want[e.ID]), &value); err != nil || !sameJSON([]byte(e.Message), value) || e.N != 1 {
			t.Errorf("call %d of %s with %s, want %s", e.N, e.ID, e.Message, want[e.ID])
		}
	}
	b.wantAllCommitted(group, topic)
	records := b.read(topic)
	raw := m.Events("raw")
	b.wantEqual("records that Python polled", len(raw), len(records))
	for _, e := range raw {
		i := slices.IndexFunc(records, func(r *kgo.Record) bool { return r.Partition == e.Partition && r.Offset == e.Offset })
		b.wantEqual("a record's headers at Python", e.PrintHeaders(), printHeaders(records[i].Headers))
	}
}

// printHeaders prints headers as interop's events have them.
func printHeaders(headers []kgo.RecordHeader) (s string) {
	for _, h := range headers {
		if h.Value == nil {
			s += h.Key + "=null "
			continue
		}
		s += h.Key + "=" + hex.EncodeToString(h.Value) + " "
	}
	return s
}
