package chaos

import (
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// MaxAttempts is that of every chaos topic.
const MaxAttempts = 4

// Result is what a handler returns.
type Result string

// The results.
const (
	OK        Result = "ok"
	Fails     Result = "fails"
	Panics    Result = "panics"
	Permanent Result = "permanent"
	Drops     Result = "drops"
	Postpones Result = "postpones"
	Cancelled Result = "cancelled" // its context ended first: what it returns does not count
)

// Fate is what becomes of a record: its number foretells it, so that workers and the check need not talk to each other.
type Fate struct {
	Work     time.Duration // what each of its attempts takes
	Deaf     bool          // and its context does not end it
	Postpone time.Duration // what it asks for when a process meets it for the first time; none for most
	Attempts int           // after which it ends
	Last     Result        // of the last of them
}

// FateOf tells the fate of a record.
func FateOf(id int64) Fate {
	f := Fate{Attempts: 1, Last: OK, Work: time.Duration(1+id*7919%8) * time.Millisecond}
	if id%20 == 9 {
		f.Work = time.Duration(50+id%100) * time.Millisecond
	}
	switch {
	case id%500 == 157:
		f.Work, f.Deaf = 1400*time.Millisecond, true
	case id%100 == 7:
		f.Attempts, f.Last = MaxAttempts, Fails
	case id%100 == 17:
		f.Last = Permanent
	case id%100 == 27:
		f.Attempts = 2
	case id%100 == 37:
		f.Last = Drops
	case id%100 == 47:
		f.Postpone = 150 * time.Millisecond
	case id%10 == 3:
		f.Attempts = 3
	}
	return f
}

// Result tells what one of its attempts returns, but for a postponement.
func (f Fate) Result(id int64, attempt int) Result {
	switch {
	case attempt >= f.Attempts:
		return f.Last
	case id%100 == 27:
		return Panics
	}
	return Fails
}

// Letter reports whether it ends as a dead letter.
func (f Fate) Letter() bool { return f.Last == Permanent || f.Last == Fails }

// newRecord makes the record of a number: one of so many keys, or none, and headers in which order, repetition and null values matter.
func newRecord(topic string, id, keys int64) *kgo.Record {
	r := &kgo.Record{
		Topic: topic, Value: fmt.Appendf(nil, "%d|%s", id, strings.Repeat("x", rand.IntN(200))),
		Headers: []kgo.RecordHeader{{Key: "tenant", Value: []byte("blue")}, {Key: "none"}, {Key: "tenant", Value: []byte{0xff, 0}}},
	}
	if id%50 != 0 {
		r.Key = fmt.Appendf(nil, "key-%d", id%keys)
	}
	return r
}

// idOf returns a record's number.
func idOf(r *kgo.Record) (int64, error) {
	s, _, _ := strings.Cut(string(r.Value), "|")
	return strconv.ParseInt(s, 10, 64)
}

// sum stands for all that must be the same on every attempt.
func sum(r *kgo.Record, origin retriable.Position) int64 {
	h := crc32.NewIEEE()
	fmt.Fprintf(h, "%q %t %q %d %v", r.Key, r.Key == nil, r.Value, r.Timestamp.UnixMilli(), origin)
	writeHeaders(h, r)
	return int64(h.Sum32())
}

// body stands for what must be the same in every copy.
func body(r *kgo.Record) int64 {
	h := crc32.NewIEEE()
	fmt.Fprintf(h, "%q %t %q", r.Key, r.Key == nil, r.Value)
	writeHeaders(h, r)
	return int64(h.Sum32())
}

// writeHeaders writes the headers that the producer gave.
func writeHeaders(to io.Writer, r *kgo.Record) {
	for _, x := range r.Headers {
		if !strings.HasPrefix(x.Key, "retriable_") && !strings.HasPrefix(x.Key, "__dlq.") {
			fmt.Fprintf(to, " %q %q %t", x.Key, x.Value, x.Value == nil)
		}
	}
}
