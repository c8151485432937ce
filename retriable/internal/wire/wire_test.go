package wire_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

type headers = []kgo.RecordHeader

func header(key string, value []byte) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: value}
}

func textHeader(key, value string) kgo.RecordHeader { return header(key, []byte(value)) }

func numberHeader(key string, value uint64) kgo.RecordHeader { return header(key, number(value)) }

// number encodes as the shared format does.
func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// sameHeaders compares to the byte, and tells a null from an empty value.
func sameHeaders(a, b headers) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Key != b[i].Key || !bytes.Equal(a[i].Value, b[i].Value) || (a[i].Value == nil) != (b[i].Value == nil) {
			return false
		}
	}
	return true
}

func wantHeaders(t *testing.T, got, want headers) {
	t.Helper()
	if !sameHeaders(got, want) {
		t.Errorf("headers:\ngot  %s\nwant %s", show(got), show(want))
	}
}

func show(h headers) string {
	var b strings.Builder
	for _, header := range h {
		fmt.Fprintf(&b, "%s=%.80q ", header.Key, header.Value)
	}
	return b.String()
}

// unknownRetry is what no headers at all say.
func unknownRetry() wire.Retry {
	return wire.Retry{Origin: wire.Origin{Partition: -1, Offset: -1}, Attempt: 1}
}

// many returns n headers of the user.
func many(n int) headers {
	h := make(headers, n)
	for i := range h {
		h[i] = textHeader(fmt.Sprintf("user-%d", i), "value")
	}
	return h
}

const maxUint64 uint64 = math.MaxUint64
