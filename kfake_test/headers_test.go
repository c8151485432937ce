package kfake_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// be64 is an integer in the encoding of the shared headers.
func be64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// be64s is the same as headers() prints it.
func be64s(n uint64) string { return fmt.Sprintf("%q", be64(n)) }

func kv(key string, value []byte) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: value} }

// users is headers as users have them: repeated, null, empty, and with names that only resemble ours.
var users = []kgo.RecordHeader{kv("a", []byte("1")), kv("b", nil), kv("a", []byte("2")), kv("c", []byte{}), kv("retriable_mine", []byte("x"))}

var usersPrinted = []string{`a="1"`, `b=null`, `a="2"`, `c=""`, `retriable_mine="x"`}

// messages keeps copies of what handlers were given.
type messages struct {
	mu sync.Mutex
	ms []retriable.Message
}

func (s *messages) keep(m *retriable.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := *m
	r := *m.Record
	r.Headers = slices.Clone(r.Headers)
	c.Record = &r
	s.ms = append(s.ms, c)
}

func (s *messages) all() []retriable.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ms)
}

// of returns those with a value.
func (s *messages) of(value string) (ms []retriable.Message) {
	for _, m := range s.all() {
		if string(m.Value) == value {
			ms = append(ms, m)
		}
	}
	return ms
}

func TestCopiesSayExactlyThis(t *testing.T) {
	bubble(t, "orders:5 orders.retry orders.dead:3", func(b *bed) {
		var n atomic.Int32
		r := b.begin("billing", patient(), all(handles(func(*retriable.Message) error {
			return fmt.Errorf("failure %d", n.Add(1))
		}), retriable.MaxAttempts(3), retriable.Backoff(func(attempt int) time.Duration { return time.Duration(attempt) * 1234 * time.Millisecond })))
		produced := time.Now().Add(-time.Hour)
		b.produce("orders", 4, "before")
		b.until("before is retried", time.Second, func() bool { return r.Stats().Retried == 1 })
		time.Sleep(10 * time.Second)
		n.Store(0)
		b.send(&kgo.Record{Topic: "orders", Partition: 4, Key: []byte("k"), Value: []byte("v"), Timestamp: produced, Headers: users})
		first := time.Now() // its delivery and its failure, in fake time
		time.Sleep(time.Minute)

		own := func(attempt uint64, due time.Time, text string) []string {
			return slices.Concat(usersPrinted, []string{
				"retriable_kafka_attempt=" + be64s(attempt),
				"retriable_kafka_timestamp=" + be64s(uint64(due.UnixMilli()+999)/1000),
				fmt.Sprintf("retriable_due=\"%d\"", due.UnixMilli()),
				`retriable_group="billing"`, `retriable_topic="orders"`, `retriable_partition="4"`, `retriable_offset="1"`,
				fmt.Sprintf("retriable_time=\"%d\"", produced.UnixMilli()),
				fmt.Sprintf("retriable_first_failure=\"%d\"", first.UnixMilli()),
				fmt.Sprintf("retriable_error=%q", text),
			})
		}
		copies := slices.DeleteFunc(b.read("orders.retry"), func(r *kgo.Record) bool { return string(r.Value) != "v" })
		if len(copies) != 2 {
			t.Fatalf("%d copies, want 2", len(copies))
		}
		due := first.Add(1234 * time.Millisecond)
		wantEqual(t, "the first copy", strings.Join(headers(copies[0]), "\n"), strings.Join(own(1, due, "failure 1"), "\n"))
		due = due.Add(2 * 1234 * time.Millisecond)
		wantEqual(t, "the second copy", strings.Join(headers(copies[1]), "\n"), strings.Join(own(2, due, "failure 2"), "\n"))

		letters := slices.DeleteFunc(b.read("orders.dead"), func(r *kgo.Record) bool { return string(r.Value) != "v" })
		if len(letters) != 1 {
			t.Fatalf("%d letters, want 1", len(letters))
		}
		wantEqual(t, "the letter", strings.Join(headers(letters[0]), "\n"), strings.Join(slices.Concat(usersPrinted, []string{
			`__dlq.errors.topic="orders"`, `__dlq.errors.partition="4"`, `__dlq.errors.offset="1"`, `__dlq.errors.group="billing"`,
			`__dlq.errors.delivery.count="3"`, `__dlq.errors.message="all 3 attempts failed"`,
			`retriable_group="billing"`, `retriable_topic="orders"`, `retriable_partition="4"`, `retriable_offset="1"`,
			fmt.Sprintf("retriable_time=\"%d\"", produced.UnixMilli()),
			fmt.Sprintf("retriable_first_failure=\"%d\"", first.UnixMilli()),
			`retriable_error="failure 3"`,
		}), "\n"))
		wantEqual(t, "the letter's partition, 4 mod 3", letters[0].Partition, 1)
		for _, c := range append(copies, letters...) {
			wantEqual(t, "key and value", fmt.Sprintf("%s=%s", c.Key, c.Value), "k=v")
		}
		r.clean()
	})
}

func TestWhatIsNullStaysNull(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		r := b.begin("g", patient(), all(handles(func(*retriable.Message) error { return errNo }), retriable.MaxAttempts(2)))
		b.send(
			&kgo.Record{Topic: "orders"},
			&kgo.Record{Topic: "orders", Key: []byte{}, Value: []byte{}},
			&kgo.Record{Topic: "orders", Key: []byte("k")},
			&kgo.Record{Topic: "orders", Value: []byte("v")},
		)
		time.Sleep(3 * time.Hour)
		for _, topic := range []string{"orders.retry", "orders.dead"} {
			var got []string
			for _, c := range b.read(topic) {
				got = append(got, fmt.Sprintf("%#v=%#v", c.Key, c.Value))
			}
			slices.Sort(got)
			var want []string
			for _, c := range b.read("orders") {
				want = append(want, fmt.Sprintf("%#v=%#v", c.Key, c.Value))
			}
			slices.Sort(want)
			wantEqual(t, topic, got, want)
		}
		r.clean()
	})
}

func TestTheReasonOfALetterIsItsOwn(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error {
			switch {
			case string(m.Value) == "permanent":
				return retriable.Permanent(errNo)
			case string(m.Value) == "permanent at last" && m.Attempt == 2:
				return retriable.Permanent(errNo)
			}
			return errNo
		}), retriable.MaxAttempts(3), retriable.MaxElapsed(90*time.Minute)))
		b.produce("orders", 0, "permanent", "permanent at last", "over")
		time.Sleep(5 * time.Hour)
		got := map[string]string{}
		for _, letter := range b.read("orders.dead") {
			n, _ := header(letter, "__dlq.errors.delivery.count")
			why, _ := header(letter, "__dlq.errors.message")
			got[string(letter.Value)] = n + " " + why
		}
		wantEqual(t, "letters", got, map[string]string{
			"permanent":         "1 permanent failure",
			"permanent at last": "2 permanent failure",
			"over":              "2 its time was over (MaxElapsed)",
		})
		r.clean()
	})
}

func TestTheMessageIsTheSameOnEveryAttempt(t *testing.T) {
	bubble(t, "orders:3 orders.retry:2 orders.dead", func(b *bed) {
		var seen messages
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error {
			seen.keep(m)
			time.Sleep(time.Second)
			return fmt.Errorf("failure %d", m.Attempt)
		}), retriable.MaxAttempts(4)))
		b.produce("orders", 2, "x")
		produced := time.Now().Add(-24 * time.Hour)
		b.send(&kgo.Record{Topic: "orders", Partition: 2, Key: []byte("k"), Value: []byte("v"), Timestamp: produced, Headers: users})
		began := time.Now()
		time.Sleep(10 * time.Hour)
		ms := seen.of("v")
		if len(ms) != 4 {
			t.Fatalf("%d deliveries, want 4", len(ms))
		}
		for i, m := range ms {
			wantEqual(t, "attempt", m.Attempt, i+1)
			wantEqual(t, "record", fmt.Sprintf("%s=%s %s/%d/%d at %v with %v", m.Key, m.Value, m.Topic, m.Partition, m.Offset, m.Timestamp.UnixMilli(), headers(m.Record)),
				fmt.Sprintf("k=v orders/2/1 at %v with %v", produced.UnixMilli(), usersPrinted))
			if i == 0 {
				wantEqual(t, "source", m.Source, "orders/2/1")
				wantEqual(t, "first failure, last error", fmt.Sprintf("%v %q", m.FirstFailure.IsZero(), m.LastError), `true ""`)
				continue
			}
			wantEqual(t, "source topic", m.Source.Topic, "orders.retry")
			wantEqual(t, "first failure", m.FirstFailure.Sub(began), time.Second)
			wantEqual(t, "last error", m.LastError, fmt.Sprintf("failure %d", i))
			if i > 1 && (m.Source.Partition != ms[1].Source.Partition || m.Source.Offset <= ms[i-1].Source.Offset) {
				t.Errorf("source %v after %v", m.Source, ms[i-1].Source)
			}
		}
		r.clean()
	})
}

// ours is all headers that the library and its peers write, with values that would do harm if they were believed.
func ours() []kgo.RecordHeader {
	return []kgo.RecordHeader{
		kv("retriable_kafka_attempt", be64(4)), kv("retriable_kafka_timestamp", be64(1<<40)), kv("retriable_due", []byte("99999999999999")),
		kv("retriable_group", []byte("another")), kv("retriable_topic", []byte("elsewhere")), kv("retriable_partition", []byte("7")),
		kv("retriable_offset", []byte("77")), kv("retriable_time", []byte("5")), kv("retriable_first_failure", []byte("5")),
		kv("retriable_error", []byte("made up")), kv("retriable_key", []byte("null")), kv("retriable_kafka_later", []byte("of a newer member")),
	}
}

func TestOurHeadersOnABaseTopicMeanNothing(t *testing.T) { // I12
	bubble(t, allTopics, func(b *bed) {
		var seen messages
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error { seen.keep(m); return errNo }), retriable.MaxAttempts(2)))
		letter := kv("__dlq.errors.topic", []byte("a letter that was sent back"))
		spoofed := slices.Concat(ours(), users, []kgo.RecordHeader{letter}, ours())
		b.send(&kgo.Record{Topic: "orders", Key: []byte("k"), Value: []byte("v"), Headers: spoofed})
		now := time.Now()
		time.Sleep(5 * time.Hour)
		ms := seen.all()
		if len(ms) != 2 {
			t.Fatalf("%d deliveries, want 2", len(ms))
		}
		withLetter := append(slices.Clone(usersPrinted), `__dlq.errors.topic="a letter that was sent back"`)
		for i, m := range ms {
			wantEqual(t, "attempt", m.Attempt, i+1)
			wantEqual(t, "headers", headers(m.Record), withLetter)
			wantEqual(t, "origin", fmt.Sprint(m.Topic, "/", m.Partition, "/", m.Offset), "orders/0/0")
		}
		wantEqual(t, "first failure, last error", fmt.Sprintf("%v %q", ms[0].FirstFailure.IsZero(), ms[0].LastError), `true ""`)
		wantEqual(t, "first failure, last error", fmt.Sprintf("%v %q", ms[1].FirstFailure.Sub(now), ms[1].LastError), `0s "no"`)

		c := b.read("orders.retry")[0]
		for name, want := range map[string]string{
			"retriable_kafka_attempt": string(be64(1)), "retriable_group": "g", "retriable_topic": "orders", "retriable_partition": "0", "retriable_offset": "0",
		} {
			got, _ := header(c, name)
			wantEqual(t, name, got, want)
		}
		dead := b.read("orders.dead")[0]
		wantEqual(t, "the letter's first own header", headers(dead)[len(users)], `__dlq.errors.topic="orders"`)
		for _, r := range []*kgo.Record{c, dead} {
			names := map[string]int{}
			for _, h := range r.Headers[len(users):] {
				names[h.Key]++
				if names[h.Key] > 1 {
					t.Errorf("%s: %s comes twice", r.Topic, h.Key)
				}
				if h.Key == "retriable_key" || h.Key == "retriable_kafka_later" {
					t.Errorf("%s: %s is left over", r.Topic, h.Key)
				}
			}
		}
		r.clean()
	})
}

// Without a retry topic of its own too a base record's headers are not shown, and a record without any of ours keeps them all.
func TestHandlersNeverSeeOurHeaders(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var seen messages
		r := b.begin("g", retriable.Topic("orders", handles(func(m *retriable.Message) error { seen.keep(m); return nil }), none()))
		b.send(
			&kgo.Record{Topic: "orders", Value: []byte("spoofed"), Headers: append(ours(), users...)},
			&kgo.Record{Topic: "orders", Value: []byte("only ours"), Headers: ours()},
			&kgo.Record{Topic: "orders", Value: []byte("plain"), Headers: users},
			&kgo.Record{Topic: "orders", Value: []byte("none")},
		)
		time.Sleep(time.Second)
		for value, want := range map[string][]string{"spoofed": usersPrinted, "only ours": nil, "plain": usersPrinted, "none": nil} {
			ms := seen.of(value)
			if len(ms) != 1 {
				t.Fatalf("%s: %d deliveries", value, len(ms))
			}
			wantEqual(t, value, headers(ms[0].Record), want)
		}
		r.clean()
	})
}

func TestGarbageOnARetryTopicIsAtWorstIgnored(t *testing.T) { // I12
	origin := func(topic, partition, offset string) []kgo.RecordHeader {
		return []kgo.RecordHeader{kv("retriable_topic", []byte(topic)), kv("retriable_partition", []byte(partition)), kv("retriable_offset", []byte(offset))}
	}
	due := func(text string) []kgo.RecordHeader { return []kgo.RecordHeader{kv("retriable_due", []byte(text))} }
	att := func(v []byte) []kgo.RecordHeader { return []kgo.RecordHeader{kv("retriable_kafka_attempt", v)} }
	stamp := func(v []byte) []kgo.RecordHeader { return []kgo.RecordHeader{kv("retriable_kafka_timestamp", v)} }
	const longest = 2 * time.Hour // MaxDelay
	rows := []struct {
		name    string
		hs      []kgo.RecordHeader
		attempt int
		wait    time.Duration
		origin  string
	}{
		{"no headers", nil, 1, 0, ""},
		{"attempt: the 2nd retry", att(be64(2)), 3, 0, ""},
		{"attempt: none yet", att(be64(0)), 1, 0, ""},
		{"attempt: the last", att(be64(4)), 5, 0, ""},
		{"attempt: one past the last", att(be64(5)), 5, 0, ""},
		{"attempt: the largest", att(be64(math.MaxUint64)), 5, 0, ""},
		{"attempt: the largest signed", att(be64(math.MaxInt64)), 5, 0, ""},
		{"attempt: null", att(nil), 1, 0, ""},
		{"attempt: empty", att([]byte{}), 1, 0, ""},
		{"attempt: 7 bytes", att(be64(3)[1:]), 1, 0, ""},
		{"attempt: 9 bytes", att(append(be64(3), 0)), 1, 0, ""},
		{"attempt: text", att([]byte("3")), 1, 0, ""},
		{"attempt: the first of two wins", append(att(be64(1)), att(be64(3))...), 2, 0, ""},
		{"attempt: a malformed first one wins too", append(att([]byte("x")), att(be64(3))...), 1, 0, ""},
		{"timestamp: null", stamp(nil), 1, 0, ""},
		{"timestamp: 4 bytes", stamp(be64(1 << 40)[4:]), 1, 0, ""},
		{"timestamp: 0", stamp(be64(0)), 1, 0, ""},
		{"timestamp: the largest", stamp(be64(math.MaxUint64)), 1, longest, ""},
		{"timestamp: beyond milliseconds", stamp(be64(math.MaxInt64/1000 + 1)), 1, longest, ""},
		{"due: long ago", due("1"), 1, 0, ""},
		{"due: never", due("9223372036854775807"), 1, longest, ""},
		{"due: more than never", due("99999999999999999999"), 1, longest, ""},
		{"due: too many digits", due("999999999999999999999"), 1, 0, ""},
		{"due: negative", due("-9223372036854775808"), 1, 0, ""},
		{"due: signed", due("+9223372036854775807"), 1, 0, ""},
		{"due: blank in front", due(" 9223372036854775807"), 1, 0, ""},
		{"due: a float", due("9e18"), 1, 0, ""},
		{"due: hexadecimal", due("0x7fffffffffffffff"), 1, 0, ""},
		{"due: empty", due(""), 1, 0, ""},
		{"group: empty", []kgo.RecordHeader{kv("retriable_group", []byte{})}, 1, 0, ""},
		{"group: null", []kgo.RecordHeader{kv("retriable_group", nil)}, 1, 0, ""},
		{"group: not text", []kgo.RecordHeader{kv("retriable_group", []byte("\xff\xfe"))}, 1, 0, ""},
		{"group: too long", []kgo.RecordHeader{kv("retriable_group", []byte(strings.Repeat("x", 40_000)))}, 1, 0, ""},
		{"origin: ours", origin("orders", "3", "1234"), 1, 0, "orders/3/1234"},
		{"origin: of another topic", origin("payments", "3", "1234"), 1, 0, ""},
		{"origin: the retry topic itself", origin("orders.retry", "0", "0"), 1, 0, ""},
		{"origin: a path", origin("../../etc/passwd", "3", "1234"), 1, 0, ""},
		{"origin: no topic", origin("", "3", "1234"), 1, 0, ""},
		{"origin: a negative partition", origin("orders", "-3", "1234"), 1, 0, ""},
		{"origin: a huge partition", origin("orders", "2147483648", "1234"), 1, 0, ""},
		{"origin: a negative offset", origin("orders", "3", "-1"), 1, 0, ""},
		{"origin: the largest offset", origin("orders", "3", "9223372036854775807"), 1, 0, ""},
		{"origin: words", origin("orders", "three", "four"), 1, 0, ""},
		{"origin: half of it", origin("orders", "3", "1234")[:2], 1, 0, ""},
		{"first failure: words", []kgo.RecordHeader{kv("retriable_first_failure", []byte("once"))}, 1, 0, ""},
		{"time: words", []kgo.RecordHeader{kv("retriable_time", []byte("once"))}, 1, 0, ""},
		{"error: not text", []kgo.RecordHeader{kv("retriable_error", []byte("a\xffb\x1b[31mc"))}, 1, 0, ""},
		{"error: huge", []kgo.RecordHeader{kv("retriable_error", []byte(strings.Repeat("é", 100_000)))}, 1, 0, ""},
	}
	bubble(t, "orders:4 orders.retry orders.dead", func(b *bed) {
		var seen messages
		at := map[string]time.Time{}
		r := b.begin("g", patient(), retriable.Concurrency(1), all(handles(func(m *retriable.Message) error {
			seen.keep(m)
			at[string(m.Value)] = time.Now()
			return nil
		}), retriable.MaxDelay(longest)))
		var rs []*kgo.Record
		for _, row := range rows {
			rs = append(rs, &kgo.Record{Topic: "orders.retry", Value: []byte(row.name), Headers: append(row.hs, users...)})
		}
		// Ten thousand headers cost one look at each.
		many := make([]kgo.RecordHeader, 10_000)
		for i := range many {
			many[i] = kv("retriable_kafka_attempt", be64(1))
		}
		rs = append(rs, &kgo.Record{Topic: "orders.retry", Value: []byte("many"), Headers: many})
		b.send(rs...)
		sent := time.Now()
		pass(5 * time.Hour)
		for _, row := range rows {
			ms := seen.of(row.name)
			if len(ms) != 1 {
				t.Errorf("%s: %d deliveries, want 1", row.name, len(ms))
				continue
			}
			m := ms[0]
			wantEqual(t, row.name+": attempt", m.Attempt, row.attempt)
			wantEqual(t, row.name+": wait", at[row.name].Sub(sent), row.wait)
			wantEqual(t, row.name+": origin", fmt.Sprintf("%s/%d/%d", m.Topic, m.Partition, m.Offset), or(row.origin, "orders/-1/-1"))
			wantEqual(t, row.name+": source", m.Source.Topic, "orders.retry")
			wantEqual(t, row.name+": headers", headers(m.Record), usersPrinted)
			wantEqual(t, row.name+": timestamp", m.Timestamp.IsZero(), false)
			if !utf8.ValidString(m.LastError) || len(m.LastError) > 1024 || strings.ContainsRune(m.LastError, '\x1b') {
				t.Errorf("%s: last error %q", row.name, m.LastError)
			}
			if m.Attempt == 1 != m.FirstFailure.IsZero() && !strings.HasPrefix(row.name, "first failure") {
				t.Errorf("%s: attempt %d, first failure %v", row.name, m.Attempt, m.FirstFailure)
			}
		}
		if ms := seen.of("many"); len(ms) != 1 || ms[0].Attempt != 2 || len(ms[0].Headers) != 0 {
			t.Errorf("the record with many headers: %d deliveries", len(ms))
		}
		wantEqual(t, "committed", b.committed("g", "orders.retry", 0), len(rows)+1)
		if n := len(b.log.lines("level=WARN", "malformed", "orders.retry")); n == 0 || n > 3 {
			t.Errorf("malformed headers were logged %d times, want it told, and seldom", n)
		}
		for _, text := range []string{"passwd", "three", "\x1b", "éé"} {
			if strings.Contains(b.log.String(), text) {
				t.Errorf("%q, of a header, is in the log", text)
			}
		}
		r.clean()
	})
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func TestTheAttemptOfARetryRecordIsItsLastAtTheLatest(t *testing.T) { // I8
	bubble(t, allTopics, func(b *bed) {
		var l ledger
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error { l.note(m); return errNo }), retriable.MaxAttempts(3)))
		b.send(&kgo.Record{Topic: "orders.retry", Value: []byte("a"), Headers: []kgo.RecordHeader{kv("retriable_kafka_attempt", be64(1<<63))}})
		time.Sleep(5 * time.Hour)
		wantEqual(t, "deliveries", len(l.all()), 1)
		wantEqual(t, "attempt", l.all()[0].attempt, 3)
		letter := b.read("orders.dead")[0]
		n, _ := header(letter, "__dlq.errors.delivery.count")
		wantEqual(t, "deliveries, as the letter says", n, 3)
		r.clean()
	})
}

func TestARetryRecordOfAnotherGroupIsPassedOver(t *testing.T) {
	bubble(t, "orders orders.retry:2", func(b *bed) {
		var l ledger
		r := b.begin("g", retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return nil }), none(), retriable.RetryTopic("orders.retry")))
		for i := range 10 {
			group := "g"
			if i%3 > 0 {
				group = "another"
			}
			b.send(&kgo.Record{Topic: "orders.retry", Key: []byte("k"), Value: []byte(group), Headers: []kgo.RecordHeader{kv("retriable_group", []byte(group))}})
		}
		// A whole batch of them, not yet due too.
		var rs []*kgo.Record
		for range 10 {
			rs = append(rs, &kgo.Record{Topic: "orders.retry", Partition: 1, Value: []byte("another"), Headers: []kgo.RecordHeader{
				kv("retriable_group", []byte("another")), kv("retriable_due", fmt.Append(nil, time.Now().Add(time.Hour).UnixMilli())),
			}})
		}
		b.send(rs...)
		time.Sleep(3 * time.Second)
		wantEqual(t, "deliveries", l.values(), []string{"g", "g", "g", "g"})
		wantEqual(t, "committed", fmt.Sprint(b.committed("g", "orders.retry", 0), b.committed("g", "orders.retry", 1)), "10 10")
		st := r.Stats()
		wantEqual(t, "handled, dropped, pending", fmt.Sprint(st.Handled, st.Dropped, st.Partitions[1].Pending, st.Partitions[2].Held), "4 0 0 0")
		r.clean()
	})
}

// python is a retry record as the Python client writes it: a random key, its headers and none of the user's.
func python(topic, value string, retry, due uint64) *kgo.Record {
	id := []byte("\x8d\x01\xff\x00rstuvwxyz+-=")
	return &kgo.Record{Topic: topic, Key: id, Value: []byte(value), Headers: []kgo.RecordHeader{
		kv("retriable_kafka_attempt", be64(retry)), kv("retriable_kafka_timestamp", be64(due)),
		kv("retriable_kafka_chunk_group", id), kv("retriable_kafka_number_of_chunks", be64(1)), kv("retriable_kafka_chunk_id", be64(0)),
	}}
}

func TestAfterAPythonMembersHopTheOriginIsUnknown(t *testing.T) {
	bubble(t, "orders:3 orders.retry:4 orders.dead:4", func(b *bed) {
		var seen messages
		var at time.Time
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error {
			seen.keep(m)
			at = time.Now()
			return errNo
		}), retriable.MaxAttempts(3), retriable.MaxElapsed(3*time.Hour)))
		due := time.Now().Add(time.Minute).Truncate(time.Second)
		rec := python("orders.retry", "v", 1, uint64(due.Unix()))
		rec.Partition = 3
		rec.Timestamp = time.Now().Add(-100 * time.Hour)
		b.send(rec)
		read := time.Now()
		pass(2 * time.Minute)
		ms := seen.all()
		if len(ms) != 1 {
			t.Fatalf("%d deliveries, want 1", len(ms))
		}
		m := ms[0]
		wantEqual(t, "its time, at the end of that second", at.Sub(due), time.Second)
		wantEqual(t, "origin", fmt.Sprintf("%s/%d/%d", m.Topic, m.Partition, m.Offset), "orders/-1/-1")
		wantEqual(t, "source", m.Source, "orders.retry/3/0")
		wantEqual(t, "attempt, last error", fmt.Sprintf("%d %q", m.Attempt, m.LastError), `2 ""`)
		wantEqual(t, "headers", len(m.Headers), 0)
		wantEqual(t, "first failure, anew", m.FirstFailure.Sub(read), "0s")
		time.Sleep(5 * time.Hour)
		wantEqual(t, "deliveries", len(seen.all()), 2)
		again := seen.all()[1]
		wantEqual(t, "origin of the next attempt", fmt.Sprintf("%s/%d/%d", again.Topic, again.Partition, again.Offset), "orders/-1/-1")

		var copies []*kgo.Record
		for _, c := range b.read("orders.retry") {
			if _, ok := header(c, "retriable_kafka_chunk_id"); !ok {
				copies = append(copies, c)
			}
		}
		if len(copies) != 1 {
			t.Fatalf("%d copies of ours, want 1", len(copies))
		}
		for _, name := range []string{"retriable_topic", "retriable_partition", "retriable_offset", "retriable_kafka_chunk_group", "retriable_kafka_number_of_chunks"} {
			if v, ok := header(copies[0], name); ok {
				t.Errorf("the copy says %s=%q", name, v)
			}
		}
		letter := b.read("orders.dead")[0]
		wantEqual(t, "the letter's partition: where it was read last", letter.Partition, copies[0].Partition)
		topic, _ := header(letter, "__dlq.errors.topic")
		_, known := header(letter, "__dlq.errors.offset")
		wantEqual(t, "the letter's origin", fmt.Sprint(topic, " ", known), "orders false")
		r.clean()
	})
}

func TestOfAPatternsRetryTopicTheUnknownOriginIsThatTopic(t *testing.T) {
	bubble(t, "orders.eu orders.us other retry.orders", func(b *bed) {
		var seen messages
		r := b.begin("g", patient(), retriable.TopicRegexp(`orders\..*`, handles(func(m *retriable.Message) error {
			seen.keep(m)
			if m.Source.Topic == "orders.us" {
				return errNo
			}
			return nil
		}), none(), retriable.RetryTopic("retry.orders"), retriable.Backoff(retriable.Constant(time.Minute))))
		b.send(python("retry.orders", "unknown", 1, 1))
		b.send(&kgo.Record{Topic: "retry.orders", Value: []byte("foreign"), Headers: []kgo.RecordHeader{
			kv("retriable_topic", []byte("other")), kv("retriable_partition", []byte("0")), kv("retriable_offset", []byte("0")),
		}})
		b.produce("orders.us", 0, "known")
		time.Sleep(5 * time.Minute)
		for value, want := range map[string]string{"unknown": "retry.orders/-1/-1", "foreign": "retry.orders/-1/-1", "known": "orders.us/0/0"} {
			ms := seen.of(value)
			if len(ms) == 0 {
				t.Fatalf("%s was not delivered", value)
			}
			m := ms[len(ms)-1]
			wantEqual(t, value, fmt.Sprintf("%s/%d/%d", m.Topic, m.Partition, m.Offset), want)
			wantEqual(t, "source", m.Source.Topic, "retry.orders")
		}
		r.clean()
	})
}

func TestCopiesOfAKeyGoWhereKgoPutsThatKey(t *testing.T) {
	bubble(t, "orders orders.retry:7 other:7", func(b *bed) {
		r := b.begin("g", patient(), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			if m.Attempt < 3 {
				return errNo
			}
			return nil
		}), none(), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(time.Minute))))
		b.produce("orders", 0, keyed(20, 20)...)
		b.produce("other", -1, keyed(20, 20)...)
		time.Sleep(10 * time.Minute)
		want := map[string]int32{}
		for _, c := range b.read("other") {
			want[string(c.Key)] = c.Partition
		}
		copies := b.read("orders.retry")
		wantEqual(t, "copies", len(copies), 40)
		for _, c := range copies {
			wantEqual(t, "partition of "+string(c.Key), c.Partition, want[string(c.Key)])
		}
		r.clean()
	})
}

func TestErrorTextsAreCutAndCleaned(t *testing.T) {
	texts := map[string]string{
		"short":   "no such customer",
		"long":    strings.Repeat("é", 2000),
		"control": "a\x1b[31mb\x00c\nd\te\xff",
		"empty":   "",
	}
	bubble(t, allTopics, func(b *bed) {
		var seen messages
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error { seen.keep(m); return errors.New(texts[string(m.Value)]) }), retriable.MaxAttempts(2)))
		for name := range texts {
			b.produce("orders", 0, name)
		}
		time.Sleep(3 * time.Hour)
		written := map[string]string{}
		for _, c := range slices.Concat(b.read("orders.retry"), b.read("orders.dead")) {
			text, _ := header(c, "retriable_error")
			name := string(c.Value)
			if before, ok := written[name]; ok {
				wantEqual(t, name+": in the letter as in the copy", text, before)
			}
			written[name] = text
			if !utf8.ValidString(text) || len(text) > 1024 {
				t.Errorf("%s: %d bytes, valid %v", name, len(text), utf8.ValidString(text))
			}
			if ms := seen.of(name); len(ms) != 2 || ms[1].LastError != text {
				t.Errorf("%s: the next attempt is not told what was written", name)
			}
		}
		wantEqual(t, "short", written["short"], texts["short"])
		wantEqual(t, "long", written["long"], strings.Repeat("é", 510)+"…")
		wantEqual(t, "control", written["control"], "a\uFFFD[31mb\uFFFDc\nd\te\uFFFD")
		r.clean()
	})
}

func TestACopyThatIsTooLargeShedsOurTexts(t *testing.T) {
	bubble(t, "orders:3 orders.retry orders.dead:2", func(b *bed) {
		// Refused as it is, alone once more, and then without our texts it fits.
		fault := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.MessageTooLarge, Count: 2})
		defer fault.Remove()
		var seen messages
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error {
			seen.keep(m)
			if m.Attempt == 1 {
				return errNo
			}
			return nil
		})))
		b.send(&kgo.Record{Topic: "orders", Partition: 2, Key: []byte("k"), Value: []byte("v"), Headers: users})
		time.Sleep(3 * time.Hour)
		copies := b.read("orders.retry")
		if len(copies) != 1 {
			t.Fatalf("%d copies, want 1", len(copies))
		}
		var names []string
		for _, h := range copies[0].Headers {
			names = append(names, h.Key)
		}
		wantEqual(t, "headers", names, []string{"a", "b", "a", "c", "retriable_mine", "retriable_kafka_attempt", "retriable_kafka_timestamp", "retriable_due", "retriable_group"})
		ms := seen.all()
		if len(ms) != 2 {
			t.Fatalf("%d deliveries, want 2", len(ms))
		}
		wantEqual(t, "the next attempt", fmt.Sprintf("%d %s/%d/%d", ms[1].Attempt, ms[1].Topic, ms[1].Partition, ms[1].Offset), "2 orders/-1/-1")
		r.clean()
	})
}

func TestACopyThatNeverFitsBecomesALetter(t *testing.T) {
	bubble(t, "orders:3 orders.retry orders.dead:3", func(b *bed) {
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error {
			spoiled := *m.Record
			m.Record = &spoiled // what a handler does to its message is not written
			spoiled.Topic, spoiled.Partition, spoiled.Offset = "wrong", 1, 77
			return fmt.Errorf("failure %d", m.Attempt)
		}), retriable.MaxAttempts(5)))
		b.produce("orders", 2, "k=before")
		b.send(&kgo.Record{Topic: "orders", Partition: 2, Key: []byte("k"), Value: []byte("v"), Headers: users})
		first := time.Now()
		b.until("the first copies are written", time.Second, func() bool { return r.Stats().Retried == 2 })
		// From now on none fits: the second attempt's copy.
		fault := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.MessageTooLarge, Count: -1})
		defer fault.Remove()
		time.Sleep(3 * time.Hour)
		letters := b.read("orders.dead")
		if len(letters) != 2 {
			t.Fatalf("%d letters, want 2", len(letters))
		}
		letter := letters[1]
		wantEqual(t, "partition, key, value", fmt.Sprintf("%d %s %s", letter.Partition, letter.Key, letter.Value), "2 k v")
		wantEqual(t, "headers", strings.Join(headers(letter), "\n"), strings.Join(slices.Concat(usersPrinted, []string{
			`__dlq.errors.topic="orders"`, `__dlq.errors.partition="2"`, `__dlq.errors.offset="1"`, `__dlq.errors.group="g"`,
			`__dlq.errors.delivery.count="2"`, `__dlq.errors.message="too large for orders.retry"`,
			`retriable_group="g"`, `retriable_topic="orders"`, `retriable_partition="2"`, `retriable_offset="1"`,
			fmt.Sprintf("retriable_time=\"%d\"", first.UnixMilli()),
			fmt.Sprintf("retriable_first_failure=\"%d\"", first.UnixMilli()),
			`retriable_error="failure 2"`,
		}), "\n"))
		wantEqual(t, "dead-lettered", r.Stats().DeadLettered, 2)
		wantEqual(t, "committed", b.committed("g", "orders.retry", 0), 2)
		r.clean()
	})
}
