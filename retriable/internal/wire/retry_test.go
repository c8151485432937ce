package wire_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

func fullRetry() wire.Retry {
	return wire.Retry{
		Origin:       wire.Origin{Topic: "orders", Partition: 7, Offset: 1 << 40, Time: time.UnixMilli(1795402825981)},
		Attempt:      3,
		Due:          1795402836001,
		Group:        "billing",
		FirstFailure: 1795402826000,
		Error:        "no route\nto the bank",
		Moved:        1795402830000,
	}
}

func TestAppendRetryWritesTheHeadersInOrder(t *testing.T) {
	got := wire.AppendRetry(headers{textHeader("user", "1")}, fullRetry())
	wantHeaders(t, got, headers{
		textHeader("user", "1"),
		numberHeader("retriable_kafka_attempt", 2),            // the coming retry, not the coming delivery
		numberHeader("retriable_kafka_timestamp", 1795402837), // rounded up: never early (I7)
		textHeader("retriable_due", "1795402836001"),
		textHeader("retriable_group", "billing"),
		textHeader("retriable_topic", "orders"),
		textHeader("retriable_partition", "7"),
		textHeader("retriable_offset", "1099511627776"),
		textHeader("retriable_time", "1795402825981"),
		textHeader("retriable_first_failure", "1795402826000"),
		textHeader("retriable_error", "no route\nto the bank"),
		textHeader("retriable_rewritten", "1795402830000"),
	})
}

func TestAppendRetryLeavesOutWhatIsUnknown(t *testing.T) {
	wantHeaders(t, wire.AppendRetry(nil, unknownRetry()), headers{numberHeader(wire.AttemptHeader, 0)})
	wantHeaders(t, wire.AppendRetry(nil, wire.Retry{}), headers{numberHeader(wire.AttemptHeader, 0)})
}

func TestRetryRoundTrip(t *testing.T) {
	for name, change := range map[string]func(*wire.Retry){
		"all":                func(*wire.Retry) {},
		"first attempt":      func(r *wire.Retry) { r.Attempt = 1 },
		"last attempt":       func(r *wire.Retry) { r.Attempt = math.MaxInt32 },
		"not due":            func(r *wire.Retry) { r.Due = 0 },
		"due at once":        func(r *wire.Retry) { r.Due = 1 },
		"due on a second":    func(r *wire.Retry) { r.Due = 1795402836000 },
		"due in year 9999":   func(r *wire.Retry) { r.Due = wire.MaxTime },
		"unknown origin":     func(r *wire.Retry) { r.Origin = wire.Origin{Partition: -1, Offset: -1} },
		"time alone":         func(r *wire.Retry) { r.Origin = wire.Origin{Partition: -1, Offset: -1, Time: r.Time} },
		"first offset":       func(r *wire.Retry) { r.Partition, r.Offset = 0, 0 },
		"last offset":        func(r *wire.Retry) { r.Partition, r.Offset = math.MaxInt32, math.MaxInt64-1 },
		"longest topic":      func(r *wire.Retry) { r.Topic = strings.Repeat("t", 249) },
		"time 1970":          func(r *wire.Retry) { r.Time = time.UnixMilli(0) },
		"no timestamp":       func(r *wire.Retry) { r.Time = time.UnixMilli(-1) },
		"longest group":      func(r *wire.Retry) { r.Group = strings.Repeat("é", 16383) },
		"longest error":      func(r *wire.Retry) { r.Error = strings.Repeat("x", 1024) },
		"no error, no group": func(r *wire.Retry) { r.Error, r.Group = "", "" },
	} {
		t.Run(name, func(t *testing.T) {
			want := fullRetry()
			change(&want)
			user := many(3)
			h := wire.AppendRetry(wire.User(user), want)
			if got := wire.ParseRetry(h); got != want {
				t.Errorf("\ngot  %+v\nwant %+v", got, want)
			}
			wantHeaders(t, wire.User(h), user)
		})
	}
}

func TestWhatCannotBeWrittenIsBounded(t *testing.T) {
	r := fullRetry()
	r.Attempt, r.Due, r.FirstFailure = -5, math.MaxInt64, math.MaxInt64
	r.Time = time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)
	r.Error = strings.Repeat("é", 1000)
	got := wire.ParseRetry(wire.AppendRetry(nil, r))
	if got.Attempt != 1 || got.Due != wire.MaxTime || got.FirstFailure != wire.MaxTime || !got.Time.IsZero() || got.Bad != 0 {
		t.Errorf("got %+v", got)
	}
	if want := strings.Repeat("é", 510) + "…"; got.Error != want {
		t.Errorf("error of %d bytes", len(got.Error))
	}
}

func TestDueTime(t *testing.T) {
	const second = 1795402837
	peer := func(v uint64) headers { return headers{numberHeader(wire.TimestampHeader, v)} }
	own := func(v string) headers { return headers{textHeader(wire.DueHeader, v)} }
	both := func(v uint64, w string) headers { return append(peer(v), own(w)...) }
	tests := []struct {
		name string
		h    headers
		want int64
		ok   bool
		bad  int
	}{
		{"none", many(2), 0, false, 0},
		{"ours alone", own("1795402836001"), 1795402836001, true, 0},
		{"a peer's second ends first", peer(second), second*1000 + 1000, true, 0},
		{"both as we write them", both(second, "1795402836001"), 1795402836001, true, 0},
		{"both, on the second", both(second, "1795402837000"), 1795402837000, true, 0},
		{"ours a millisecond past the peer's second", both(second, "1795402837001"), second*1000 + 1000, true, 1},
		{"the peer later", both(second+60, "1795402836001"), second*1000 + 61000, true, 1},
		{"the peer earlier", both(second-60, "1795402836001"), second*1000 - 59000, true, 1},
		{"ours malformed", both(second, "soon"), second*1000 + 1000, true, 1},
		{"the peer's malformed", append(headers{textHeader(wire.TimestampHeader, "1795402837")}, own("1795402836001")...), 1795402836001, true, 1},
		{"both malformed", append(headers{header(wire.TimestampHeader, nil)}, own("-1")...), 0, false, 2},
		{"ours twice", append(own("1000"), own("2000")...), 1000, true, 0},
		{"ours twice, the first malformed", append(own("x"), own("2000")...), 0, false, 1},
		{"peer 0", peer(0), 1000, true, 0},
		{"peer milliseconds", peer(second * 1000), wire.MaxTime, true, 0},
		{"peer last second", peer(253402300799), wire.MaxTime, true, 0},
		{"peer second to last", peer(253402300798), wire.MaxTime - 999, true, 0},
		{"peer 2^63", peer(1 << 63), wire.MaxTime, true, 0},
		{"peer 2^64-1", peer(maxUint64), wire.MaxTime, true, 0},
		{"ours 0", own("0"), 0, true, 0},
		{"ours in seconds", own("1795402837"), 1795402837, true, 0},
		{"ours in microseconds", own("1795402837000000"), wire.MaxTime, true, 0},
		{"ours in nanoseconds", own("1795402837000000000"), wire.MaxTime, true, 0},
		{"ours 2^63", own("9223372036854775808"), wire.MaxTime, true, 0},
		{"ours 2^64-1", own("18446744073709551615"), wire.MaxTime, true, 0},
		{"ours with 21 digits", own("100000000000000000000"), 0, false, 1},
		{"ours negative", own("-1795402837000"), 0, false, 1},
		{"ours signed", own("+1795402837000"), 0, false, 1},
		{"ours with a space", own(" 1795402837000"), 0, false, 1},
		{"ours with a newline", own("1795402837000\n"), 0, false, 1},
		{"ours hexadecimal", own("0x10"), 0, false, 1},
		{"ours fractional", own("1795402837000.5"), 0, false, 1},
		{"ours in other digits", own("１７９５"), 0, false, 1},
		{"ours binary", headers{numberHeader(wire.DueHeader, second*1000)}, 0, false, 1},
		{"ours of 1 MiB", own(strings.Repeat("1", 1<<20)), 0, false, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, ok, bad := wire.ParseDue(test.h)
			if got != test.want || ok != test.ok || bad != test.bad {
				t.Errorf("ParseDue: got %d %v %d, want %d %v %d", got, ok, bad, test.want, test.ok, test.bad)
			}
			r := wire.ParseRetry(test.h)
			if r.Due != test.want || r.Bad != test.bad {
				t.Errorf("ParseRetry: got %d %d, want %d %d", r.Due, r.Bad, test.want, test.bad)
			}
		})
	}
}

func TestAppendDue(t *testing.T) {
	h := wire.AppendDue(many(1), 1795402836001)
	wantHeaders(t, h, append(many(1),
		numberHeader(wire.TimestampHeader, 1795402837), textHeader(wire.DueHeader, "1795402836001")))
	if got := wire.AppendDue(nil, 0); got != nil {
		t.Errorf("not due: %v", got)
	}
	if ms, ok, bad := wire.ParseDue(wire.AppendDue(nil, math.MaxInt64)); ms != wire.MaxTime || !ok || bad != 0 {
		t.Errorf("due beyond year 9999: %d %v %d", ms, ok, bad)
	}
}

// TestHostileRetryHeaders has a row for each thing that a foreign writer got
// wrong or a hostile one may try (I12). What it changes is given; all else must
// be as if the header were not there.
func TestHostileRetryHeaders(t *testing.T) {
	mib := make([]byte, 1<<20)
	attempt := func(n int) func(*wire.Retry) { return func(r *wire.Retry) { r.Attempt = n } }
	bad := func(r *wire.Retry) { r.Bad = 1 }
	origin := func(topic, partition, offset string) headers {
		return headers{textHeader(wire.TopicHeader, topic), textHeader(wire.PartitionHeader, partition), textHeader(wire.OffsetHeader, offset)}
	}
	tests := []struct {
		name string
		h    headers
		want func(*wire.Retry)
	}{
		{"attempt of length 0", headers{header(wire.AttemptHeader, []byte{})}, bad},
		{"attempt of length 1", headers{header(wire.AttemptHeader, []byte{1})}, bad},
		{"attempt of length 7", headers{header(wire.AttemptHeader, mib[:7])}, bad},
		{"attempt of length 9", headers{header(wire.AttemptHeader, mib[:9])}, bad},
		{"attempt of 1 MiB", headers{header(wire.AttemptHeader, mib)}, bad},
		{"attempt null", headers{header(wire.AttemptHeader, nil)}, bad},
		{"attempt in text", headers{textHeader(wire.AttemptHeader, "1")}, bad},
		{"attempt 0", headers{numberHeader(wire.AttemptHeader, 0)}, attempt(1)},
		{"attempt 1", headers{numberHeader(wire.AttemptHeader, 1)}, attempt(2)},
		{"attempt 2^31", headers{numberHeader(wire.AttemptHeader, 1<<31)}, attempt(math.MaxInt32)},
		{"attempt 2^31-1", headers{numberHeader(wire.AttemptHeader, 1<<31-1)}, attempt(math.MaxInt32)},
		{"attempt -1, or 2^64-1", headers{numberHeader(wire.AttemptHeader, maxUint64)}, attempt(math.MaxInt32)},
		{"attempt twice", headers{numberHeader(wire.AttemptHeader, 4), numberHeader(wire.AttemptHeader, 9)}, attempt(5)},
		{"attempt twice, the first malformed", headers{header(wire.AttemptHeader, nil), numberHeader(wire.AttemptHeader, 9)}, bad},
		{"10,000 headers", append(many(10_000), numberHeader(wire.AttemptHeader, 4)), attempt(5)},
		{"10,000 attempts", func() headers {
			h := make(headers, 10_000)
			for i := range h {
				h[i] = numberHeader(wire.AttemptHeader, uint64(i+4))
			}
			return h
		}(), attempt(5)},
		{"with chunk headers", append(chunkHeaders("g", 3, 1), numberHeader(wire.AttemptHeader, 4)), attempt(5)},

		{"group empty", headers{textHeader(wire.GroupHeader, "")}, bad},
		{"group null", headers{header(wire.GroupHeader, nil)}, bad},
		{"group not UTF-8", headers{textHeader(wire.GroupHeader, "a\xff")}, bad},
		{"group of 32,768 bytes", headers{header(wire.GroupHeader, []byte(strings.Repeat("g", 32768)))}, bad},
		{"group of 1 MiB", headers{header(wire.GroupHeader, mib)}, bad},
		{"group with a newline", headers{textHeader(wire.GroupHeader, "a\nb")}, func(r *wire.Retry) { r.Group = "a\nb" }},

		{"topic empty", origin("", "1", "2"), bad},
		{"topic with a newline", origin("a\nb", "1", "2"), bad},
		{"topic not UTF-8", origin("a\xff", "1", "2"), bad},
		{"topic with a slash", origin("../x", "1", "2"), bad},
		{"topic of a dot", origin(".", "1", "2"), bad},
		{"topic of two dots", origin("..", "1", "2"), bad},
		{"topic of 249 characters", origin(strings.Repeat("t", 249), "1", "2"), func(r *wire.Retry) {
			r.Origin = wire.Origin{Topic: strings.Repeat("t", 249), Partition: 1, Offset: 2}
		}},
		{"topic of 250 characters", origin(strings.Repeat("t", 250), "1", "2"), bad},
		{"topic of 1 MiB", origin(strings.Repeat("t", 1<<20), "1", "2"), bad},
		{"topic missing", origin("t", "1", "2")[1:], func(*wire.Retry) {}},
		{"partition negative", origin("t", "-1", "2"), bad},
		{"partition 2^31", origin("t", "2147483648", "2"), bad},
		{"partition empty", origin("t", "", "2"), bad},
		{"offset negative", origin("t", "1", "-2"), bad},
		{"offset 2^63-1", origin("t", "1", "9223372036854775807"), bad},
		{"offset 2^63", origin("t", "1", "9223372036854775808"), bad},
		{"offset binary", append(origin("t", "1", "2")[:2], numberHeader(wire.OffsetHeader, 2)), bad},

		{"time negative", headers{textHeader(wire.TimeHeader, "-2")}, bad},
		{"time beyond year 9999", headers{textHeader(wire.TimeHeader, "253402300800000")}, bad},
		{"time null", headers{header(wire.TimeHeader, nil)}, bad},
		{"first failure negative", headers{textHeader(wire.FirstFailureHeader, "-1")}, bad},
		{"first failure in nanoseconds", headers{textHeader(wire.FirstFailureHeader, "1795402837000000000")}, bad},
		{"first failure 2^64", headers{textHeader(wire.FirstFailureHeader, "18446744073709551616")}, bad},
		{"error null", headers{header(wire.ErrorHeader, nil)}, bad},
		{"error empty", headers{textHeader(wire.ErrorHeader, "")}, func(*wire.Retry) {}},
		{"error not UTF-8", headers{textHeader(wire.ErrorHeader, "a\xffb")}, func(r *wire.Retry) { r.Error = "a\ufffdb" }},
		{"error with an escape", headers{textHeader(wire.ErrorHeader, "a\x1b[2Jb")}, func(r *wire.Retry) { r.Error = "a\ufffd[2Jb" }},
		{"error of 1 MiB", headers{header(wire.ErrorHeader, mib)}, func(r *wire.Retry) {
			r.Error = strings.Repeat("\ufffd", 340) + "…"
		}},
		{"everything malformed", headers{
			header(wire.AttemptHeader, nil), header(wire.TimestampHeader, nil), header(wire.DueHeader, nil),
			header(wire.GroupHeader, nil), header(wire.TopicHeader, nil), header(wire.PartitionHeader, nil),
			header(wire.OffsetHeader, nil), header(wire.TimeHeader, nil), header(wire.FirstFailureHeader, nil),
			header(wire.ErrorHeader, nil),
		}, func(r *wire.Retry) { r.Bad = 10 }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := unknownRetry()
			test.want(&want)
			var got wire.Retry
			allocated(t, test.h, func() { got = wire.ParseRetry(test.h) })
			if got != want {
				t.Errorf("\ngot  %.300v\nwant %.300v", got, want)
			}
		})
	}
}

func TestCleanError(t *testing.T) {
	long := strings.Repeat("x", 1024)
	tests := []struct{ name, text, want string }{
		{"empty", "", ""},
		{"plain", "no such account", "no such account"},
		{"joined errors", "a\nb\tc", "a\nb\tc"},
		{"control characters", "a\x00b\rc\x1bd\x7fe\u0085f", "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf"},
		{"invalid UTF-8", "a\xc3", "a\ufffd"},
		{"as long as may be", long, long},
		{"a byte longer", long + "y", long[:1021] + "…"},
		{"cut inside a character", long[:1020] + "éé", long[:1020] + "éé"},
		{"cut before a character", long[:1020] + "ééé", long[:1020] + "…"},
		{"grows beyond", strings.Repeat("\x00", 400), strings.Repeat("\ufffd", 340) + "…"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := wire.CleanError(test.text)
			if got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
			if again := wire.CleanError(got); again != got {
				t.Errorf("cleaned twice: %q", again)
			}
		})
	}
}
