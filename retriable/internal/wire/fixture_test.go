package wire_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// The files in testdata are records as the Python client 0.7.0 wrote them to a
// real broker, byte for byte. Values of more than 4 KiB are not in them, but
// made again: see [blob].

type fixtureRecord struct {
	Topic     string
	Partition int32
	Offset    int64
	Timestamp int64       `json:"timestamp_ms"`
	Key       string      `json:"key_hex"`
	Headers   [][2]string // name, value in hex
	Len       int         `json:"value_len"`
	SHA256    string      `json:"value_sha256"`
	Value     string      `json:"value_b64"`
}

// fixture returns the records of a file, by topic in the file's order.
func fixture(t *testing.T, name string) (records []*kgo.Record, raw []fixtureRecord) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Records []fixtureRecord }
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for _, f := range file.Records {
		records = append(records, f.record(t))
	}
	return records, file.Records
}

func (f fixtureRecord) record(t *testing.T) *kgo.Record {
	r := &kgo.Record{
		Topic: f.Topic, Partition: f.Partition, Offset: f.Offset,
		Timestamp: time.UnixMilli(f.Timestamp), Key: unhex(t, f.Key),
	}
	for _, h := range f.Headers {
		r.Headers = append(r.Headers, header(h[0], unhex(t, h[1])))
	}
	if f.Value == "" {
		return r
	}
	value, err := base64.StdEncoding.DecodeString(f.Value)
	if err != nil || len(value) != f.Len || sum(value) != f.SHA256 {
		t.Fatalf("%s/%d/%d: value does not match its length and sum (%v)", f.Topic, f.Partition, f.Offset, err)
	}
	r.Value = value
	return r
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// fill gives records without a value theirs: consecutive pieces of body, which
// each topic's chunks (or retry copies) begin anew.
func fill(t *testing.T, records []*kgo.Record, raw []fixtureRecord, body []byte) {
	t.Helper()
	rest := body
	for i, r := range records {
		r.Value, rest = rest[:raw[i].Len], rest[raw[i].Len:]
		if sum(r.Value) != raw[i].SHA256 {
			t.Fatalf("record %d: value does not match its sum", i)
		}
		if len(rest) == 0 {
			rest = body
		}
	}
}

// TestFixtures reads all that the Python client wrote: every message comes out
// whole, with the attempt and due time it was written with.
func TestFixtures(t *testing.T) {
	type message struct {
		attempt int
		due     int64 // the second in the header
		sum     string
	}
	const (
		sum77 = "5fadf82fc03d6eaa5a891f758e7a85640ed9c58643db28fe068511226b0d0a99"
		sum78 = "73bb5f7c77dde074574e9aadcfa00d84efcb7ffd84f31c858ff05c0d253680b6"
		sum79 = "b62b4dcaf613730071ba0f52c398dc4dee653fc7403ce848b029c1933ad66289"
		sum80 = "fd5511db5c388aa2fa0d93e1bbd3e908c1cb6c4b26e8c0c674c74beac7260446"
		sum81 = "8cd32b6ac833066cc1e252d73d0a3420f2d1574a2667bb5e32437f9e9d638134"
		sum82 = "522ba569c8957e659f25ee750074f9a0c02b5b9fe4f33fb62af50757e5428539"
		fails = "461de70302ee69bac843be2b28b78012f3b30982c81bef135715ba3a142cd3dc"
	)
	tests := []struct {
		name string
		body []byte // of values that the file does not hold
		want []message
	}{
		{"plain_send", nil, []message{
			{1, 0, "4edbed4a6bd38c628d6369d2d5ba040f26763bf6072143044e290bc3e5428f65"},
			{1, 0, "ffe71a4e03c43dcd27dc5499f94725425964b2e0ecb67eefdda97da150934578"},
			{1, 0, "836e775b36776814b30a9d4e2f4df63b0844d071edc83e75ea0b8fada891e7c5"},
			{1, 0, "aa0f4bd082d78733ba4cdbc6b215ac4df482f17027fe0e54dfb3199730dc1071"},
			{1, 0, "7b3c3c6b9bea284bb3320243bef6db2192cb6d44572462f8cfcba94a25830be5"},
		}},
		{"split_send_single_chunk", nil, []message{
			{1, 0, "f23c59d841d11c8bc516d6c847b747fa3d57e7b8c5fc3738903dba6d6b876b85"},
		}},
		{"split_send", blob(77, 2_500_000), []message{{1, 0, sum77}}},
		{"split_send_small_chunks", nil, []message{{1, 0, sum78}}},
		{"retry_resend", nil, []message{{1, 0, fails}, {2, 0x6b03ac4f, fails}, {3, 0x6b03ac50, fails}}},
		{"retry_chunked", blob(79, 2_500_000), []message{{1, 0, sum79}, {2, 0x6b03ac55, sum79}, {3, 0x6b03ac56, sum79}}},
		{"retry_chunked_small", nil, []message{{1, 0, sum80}, {2, 0x6b03ac5a, sum80}, {3, 0x6b03ac5c, sum80}}},
		{"retry_unsplit_to_chunked", blob(81, 990_000), []message{{1, 0, sum81}, {2, 0x6b03ac60, sum81}}},
		{"delayed_send", nil, []message{
			{2, 1795405322, "86783f688ffca3f98283293c0e2f617dc881a6bfeca9b013d37246c3b3338c99"},
			{1, 1795405322, sum82},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			records, raw := fixture(t, test.name)
			if test.body != nil {
				fill(t, records, raw, test.body)
			}
			joiner := wire.NewJoiner(wire.DefaultLimits())
			var got []message
			for _, r := range records {
				result := joiner.Add(time.Now(), r)
				if result.Kind == wire.Rejected || result.Kind == wire.Repeat {
					t.Fatalf("offset %d: %+v", r.Offset, result)
				}
				if result.Kind == wire.Part {
					continue
				}
				m := result.Record
				if !bytes.Equal(m.Key, r.Key) || !m.Timestamp.Equal(r.Timestamp) {
					t.Errorf("offset %d: key or timestamp differs from its chunks'", m.Offset)
				}
				retry := wire.ParseRetry(m.Headers)
				if retry.Bad != 0 {
					t.Errorf("offset %d: %d headers malformed", m.Offset, retry.Bad)
				}
				got = append(got, message{retry.Attempt, max(retry.Due/1000-1, 0), sum(m.Value)})
			}
			if joiner.Open() != 0 || joiner.Bytes() != 0 {
				t.Errorf("%d messages open, %d bytes", joiner.Open(), joiner.Bytes())
			}
			if len(got) != len(test.want) {
				t.Fatalf("got %d messages, want %d: %v", len(got), len(test.want), got)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("message %d: got %v, want %v", i, got[i], test.want[i])
				}
			}
		})
	}
}

func TestFixtureHeadersOfTheUser(t *testing.T) {
	plain, _ := fixture(t, "plain_send")
	want := headers{textHeader("repository_name", "helm-charts"), textHeader("strval", "text")}
	wantHeaders(t, wire.User(plain[0].Headers), want)

	split, _ := fixture(t, "split_send")
	for _, r := range split {
		wantHeaders(t, wire.User(r.Headers), headers{textHeader("tenant", "acme")})
	}
}

// TestWeWriteWhatPythonWrites takes what the Python client was given and
// compares our bytes with its own.
func TestWeWriteWhatPythonWrites(t *testing.T) {
	for _, name := range []string{"retry_resend", "retry_chunked_small", "retry_unsplit_to_chunked", "delayed_send"} {
		records, _ := fixture(t, name)
		for _, r := range records {
			retry := wire.ParseRetry(r.Headers)
			if retry.Attempt == 1 {
				continue
			}
			// It truncates the second it writes; on the second we agree.
			retry.Due -= 1000
			got := wire.AppendRetry(nil, retry)[:2]
			if name == "delayed_send" {
				got[0], got[1] = got[1], got[0] // the order of the user's program
			}
			wantHeaders(t, got, r.Headers[:2])
		}
	}
}

func TestWeSplitAsPythonSplits(t *testing.T) {
	tests := []struct {
		name        string
		first, last int // of the records that make the message
		body        []byte
	}{
		{"split_send", 0, 2, blob(77, 2_500_000)},
		{"split_send_small_chunks", 0, 4, nil},
		{"retry_chunked_small", 0, 4, nil},
		{"retry_chunked_small", 5, 10, nil},
		{"delayed_send", 1, 3, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			records, raw := fixture(t, test.name)
			if test.body != nil {
				fill(t, records, raw, test.body)
			}
			records = records[test.first : test.last+1]
			var value []byte
			for _, r := range records {
				value = append(value, r.Value...)
			}
			first := records[0]
			whole := &kgo.Record{
				Topic: first.Topic, Key: first.Key, Value: value, Timestamp: first.Timestamp,
				Headers: first.Headers[:len(first.Headers)-3],
			}
			// Its chunk sizes follow a rule of its own; under a limit that its
			// first chunk just meets ours are the same.
			parts, err := wire.SplitRecord(whole, [16]byte(first.Key), wire.RecordSize(first)+4)
			if err != nil || len(parts) != len(records) {
				t.Fatalf("%d chunks, want %d: %v", len(parts), len(records), err)
			}
			for i, part := range parts {
				wantHeaders(t, part.Headers, records[i].Headers)
				if !bytes.Equal(part.Key, records[i].Key) || !bytes.Equal(part.Value, records[i].Value) {
					t.Errorf("chunk %d differs", i)
				}
			}
		})
	}
}
