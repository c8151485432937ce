package kfake_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

const letterTopics = "orders orders.retry:2 orders.dead:2"

// The whole way: letters that a consumer wrote are sent back while it runs, and it handles each once more, as first produced and with attempts
// counted anew. What fails again is a letter again, and is sent back by the next replay alone.
func TestLettersGoBackToTheirConsumer(t *testing.T) {
	bubble(t, letterTopics, func(b *bed) {
		var l ledger
		var mended atomic.Bool
		c := b.begin("billing", retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			switch {
			case string(m.Value) == "never" || !mended.Load():
				return errors.New("the bank said no")
			case m.Attempt != 1 || !m.FirstFailure.IsZero() || m.LastError != "":
				t.Errorf("%s: attempt %d, first failure %v, last error %q, want a first attempt", m.Value, m.Attempt, m.FirstFailure, m.LastError)
			case m.Topic != "orders" || m.Partition != 0 || string(m.Key) != "k" || len(m.Headers) != 1 || m.Timestamp.UnixMilli() != 946684800001:
				t.Errorf("%s: %s/%d, key %q, headers %v, time %v, want it as first produced", m.Value, m.Topic, m.Partition, m.Key, m.Headers, m.Timestamp)
			}
			return nil
		}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.MaxAttempts(2), retriable.MaxElapsed(time.Minute)))
		for _, v := range []string{"a", "b", "never"} {
			b.send(&kgo.Record{
				Topic: "orders", Key: []byte("k"), Value: []byte(v), Headers: []kgo.RecordHeader{textHeader("tenant", "x")},
				Timestamp: time.UnixMilli(946684800001),
			})
		}
		pass(2 * time.Minute)
		a, done := b.outside()
		defer done()
		n := 0
		for letter, err := range a.List(b.Context(), "orders.dead", admin.Filter{Group: "billing"}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			wantEqual(t, "letter", fmt.Sprint(letter.Reason, "|", letter.Error, "|", letter.Attempts, "|", letter.Group, "|", letter.Origin.Topic, "|", string(letter.Key), "|", len(letter.Headers), "|", letter.OriginTime.UnixMilli(), "|", letter.Sent),
				"all 2 attempts failed|the bank said no|2|billing|orders|k|1|946684800001|false")
			if letter.FirstFailure.IsZero() {
				t.Error("the letter has no first failure")
			}
		}
		wantEqual(t, "letters", n, 3)

		mended.Store(true)
		wantEqual(t, "a dry run: sent", b.replay(a, admin.Replay{From: "orders.dead", To: "orders.retry", Group: "billing", Topic: "orders", DryRun: true}).Sent, 3)
		pass(10 * time.Second)
		wantEqual(t, "deliveries after a dry run", len(l.all()), 6)
		wantEqual(t, "sent", b.replay(a, sendBack()).Sent, 3)
		pass(2 * time.Minute)
		wantEqual(t, "deliveries", fmt.Sprint(len(l.of("a")), len(l.of("b")), len(l.of("never"))), "3 3 4")
		wantEqual(t, "sent by the next replay", b.replay(a, sendBack()).Sent, 1)
		pass(2 * time.Minute)
		wantEqual(t, "deliveries", fmt.Sprint(len(l.of("a")), len(l.of("b")), len(l.of("never"))), "3 3 6")
		c.clean()
	})
}

// Whatever the filters, no letter is sent twice, and none is left out.
func TestEachLetterIsSentOnceWhateverTheFilters(t *testing.T) {
	bubble(t, letterTopics, func(b *bed) {
		const all = 3000
		var rs []*kgo.Record
		for i := range all {
			r := deadLetter(int32(i%2), "billing", i, fmt.Sprintf("all %d attempts failed", 1+i%3), textHeader("tenant", fmt.Sprint(i%7)))
			r.Timestamp = time.UnixMilli(946684800000 + int64(i))
			rs = append(rs, r)
		}
		b.send(rs...)
		a, done := b.outside()
		defer done()
		sent := 0
		for _, f := range []admin.Filter{
			{Headers: []admin.Header{{Name: "tenant", Value: []byte("3")}}},
			{Reason: "all 2"},
			{Since: time.UnixMilli(946684800500), Until: time.UnixMilli(946684800700)},
			{Key: []byte("k17")},
			{Error: "said no", Match: func(l *admin.Letter) bool { return l.Origin.Offset%11 == 0 }},
			{Origin: "elsewhere"},
			{},
			{},
		} {
			r := sendBack()
			r.Filter, r.Page = f, 100
			want := 0
			seen := map[string]bool{}
			for _, r := range b.stable("orders.retry") {
				seen[string(r.Value)] = true
			}
			for i, r := range rs {
				if !seen[fmt.Sprint(i)] && meantBy(f, i, r) {
					want++
				}
			}
			r.DryRun = true
			wantEqual(t, "a dry run", b.replay(a, r).Sent, want)
			r.DryRun = false
			n := b.replay(a, r).Sent
			wantEqual(t, "sent", n, want)
			sent += n
		}
		wantEqual(t, "sent in all", sent, all)
		onceEach(t, b.stable("orders.retry"), all)
		s, err := a.Summary(b.Context(), "orders.dead", admin.Filter{Group: "billing"})
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "the summary", fmt.Sprintf("%d %d %d %s: %d %d", s.Letters, s.Sent, len(s.Reasons), s.Reasons[0].Reason, s.Reasons[0].Letters, s.Reasons[0].Sent), "3000 3000 3 all 1 attempts failed: 1000 1000")
		below, err := a.Sent(b.Context(), "orders.dead", "billing")
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "sent below", below, map[int32]int64{0: all / 2, 1: all / 2})

		if err := a.Forget(b.Context(), "orders.dead", "billing"); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "sent once more after Forget", b.replay(a, sendBack()).Sent, all)
	})
}

func meantBy(f admin.Filter, i int, r *kgo.Record) bool {
	switch {
	case f.Origin != "":
		return false
	case f.Headers != nil:
		return i%7 == 3
	case f.Reason != "":
		return i%3 == 1
	case !f.Since.IsZero():
		return 500 <= i && i < 700
	case f.Key != nil:
		return i == 17
	case f.Match != nil:
		return i%11 == 0
	}
	return true
}

// onceEach fails unless n different values are there, each once.
func onceEach(t *testing.T, rs []*kgo.Record, n int) {
	t.Helper()
	seen := map[string]int{}
	for _, r := range rs {
		seen[string(r.Value)]++
	}
	for v, k := range seen {
		if k != 1 {
			t.Errorf("%s is there %d times", v, k)
		}
	}
	if len(seen) != n {
		t.Errorf("%d are there, want %d", len(seen), n)
	}
}

// A replay is cut off in the middle of a page, before, during or after its commit, and run again until it is through.
func TestAReplayThatIsCutOffGoesOn(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.AddOffsetsToTxn, kmsg.TxnOffsetCommit, kmsg.EndTxn} {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprint(key.Name(), applied), func(t *testing.T) {
				bubble(t, letterTopics, func(b *bed) {
					const all = 500
					for i := range all {
						b.cl.Produce(b.Context(), deadLetter(int32(i%2), "billing", i, "permanent failure"), nil)
					}
					if err := b.cl.Flush(b.Context()); err != nil {
						t.Fatal(err)
					}
					cuts, pages := 0, 0
					for {
						a, done := b.outside(kgo.RequestRetries(0), kgo.RecordRetries(0))
						ctx, cancel := context.WithCancelCause(b.Context())
						n := 0
						b.cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
							b.cluster.KeepControl()
							if n++; n != 3 {
								return nil, nil, false
							}
							b.cluster.DropControl()
							cuts++
							cancel(errCrash)
							a.Close()
							// What came of it the client never learns: nothing, or, since nobody hears the answer, all of it.
							return nil, errCrash, !applied
						})
						r := sendBack()
						r.Page = 50
						res, err := a.Replay(ctx, r)
						done()
						pages++
						if err == nil {
							break
						}
						if res.Sent == all && applied {
							t.Error("cut off at its end, but all was sent")
						}
						if pages > 30 {
							t.Fatalf("no end: %v", err)
						}
					}
					if cuts < 3 {
						t.Errorf("it was cut off %d times, want more", cuts)
					}
					onceEach(t, b.stable("orders.retry"), all)
				})
			})
		}
	}
}

var errCrash = errors.New("a crash")

// What was sent is kept for longer than commits are: as the version of the request can say that still could.
func TestWhatWasSentIsKept(t *testing.T) {
	bubble(t, letterTopics, func(b *bed) {
		for i := range 10 {
			b.send(deadLetter(int32(i%2), "billing", i, "permanent failure"))
		}
		kept := map[int32]int64{}
		b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			req := kreq.(*kmsg.OffsetCommitRequest)
			if req.RetentionTimeMillis > 9*365*24*3600*1000 && req.GetVersion() <= 4 && req.Group == admin.ReplayGroup("billing") {
				kept[req.Topics[0].Partitions[0].Partition] = req.Topics[0].Partitions[0].Offset
			}
			return nil, nil, false
		})
		a, done := b.outside()
		defer done()
		res := b.replay(a, sendBack())
		wantEqual(t, "kept", spaced(res.Kept, kept), "true map[0:5 1:5]")
		clear(kept)
		r := sendBack()
		r.DryRun = true
		b.replay(a, r)
		wantEqual(t, "kept by a dry run", len(kept), 0)
		b.replay(a, sendBack())
		wantEqual(t, "kept by a replay that had nothing to send", kept, map[int32]int64{0: 5, 1: 5})

		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.GroupAuthorizationFailed, Count: -1})
		b.send(deadLetter(0, "billing", 11, "permanent failure"))
		res = b.replay(a, sendBack())
		wantEqual(t, "sent and kept where it may not be", spaced(res.Sent, res.Kept), "1 false")
	})
}

func TestWhatWasSentIsNotForgottenByABrokerThatLeavesItOut(t *testing.T) {
	bubble(t, letterTopics, func(b *bed) {
		a, done := b.outside()
		defer done()
		b.send(deadLetter(0, "billing", 1, "permanent failure"))
		b.send(deadLetter(0, "billing", 2, "permanent failure"))
		wantEqual(t, "sent", b.replay(a, sendBack()).Sent, 2)
		b.leaveTopicsOut()
		wantEqual(t, "sent again", b.replay(a, sendBack()).Sent, 0)
	})
}

// Two replays at once: the second cuts the first off, and each letter is sent once.
func TestASecondReplayCutsTheFirstOff(t *testing.T) {
	bubble(t, letterTopics, func(b *bed) {
		const all = 400
		for i := range all {
			b.cl.Produce(b.Context(), deadLetter(0, "billing", i, "permanent failure"), nil)
		}
		if err := b.cl.Flush(b.Context()); err != nil {
			t.Fatal(err)
		}
		a, done := b.outside()
		defer done()
		r := sendBack()
		r.Rate = 40 // pages of 10
		first := make(chan error, 1)
		var sent int
		go func() {
			res, err := a.Replay(b.Context(), r)
			sent = res.Sent
			first <- err
		}()
		pass(5 * time.Second)
		second := b.replay(a, sendBack())
		if err := <-first; !errors.Is(err, admin.ErrReplaced) {
			t.Errorf("the first ended with %v, want ErrReplaced", err)
		}
		wantEqual(t, "sent by both", sent+second.Sent, all)
		if sent < 150 || sent > 250 {
			t.Errorf("the first sent %d in 5s at 40 a second", sent)
		}
		onceEach(t, b.stable("orders.retry"), all)
	})
}

// Ctrl-C between two pages, and the pace: what was sent is sent.
func TestAReplayKeepsItsPaceAndStops(t *testing.T) {
	bubble(t, letterTopics, func(b *bed) {
		for i := range 100 {
			b.cl.Produce(b.Context(), deadLetter(0, "billing", i, "permanent failure"), nil)
		}
		if err := b.cl.Flush(b.Context()); err != nil {
			t.Fatal(err)
		}
		a, done := b.outside()
		defer done()
		ctx, cancel := context.WithCancel(b.Context())
		r := sendBack()
		r.Rate = 2
		r.Progress = func(res admin.ReplayResult) {
			if res.Sent == 20 {
				cancel()
			}
		}
		began := time.Now()
		res, err := a.Replay(ctx, r)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled replay returned %v", err)
		}
		wantEqual(t, "sent", res.Sent, 20)
		r.Progress = nil
		wantEqual(t, "sent then", b.replay(a, r).Sent, 80)
		if took := time.Since(began); took < 48*time.Second || took > 55*time.Second {
			t.Errorf("100 letters at 2 a second took %v", took)
		}
		onceEach(t, b.stable("orders.retry"), 100)
	})
}

// What is not this group's, or not this topic's, stays where it is. Copies say nothing that a first attempt must not.
func TestWhatIsSentBack(t *testing.T) {
	bubble(t, letterTopics, func(b *bed) {
		payments := deadLetter(0, "billing", 4, "permanent failure")
		for i := range payments.Headers {
			if string(payments.Headers[i].Value) == "orders" {
				payments.Headers[i].Value = []byte("payments")
			}
		}
		// Of a record that came over a Python member: only the base topic is known.
		unknown := &kgo.Record{Topic: "orders.dead", Key: []byte("random"), Value: []byte("5"), Headers: []kgo.RecordHeader{
			textHeader("__dlq.errors.topic", "orders"), textHeader("__dlq.errors.group", "billing"), textHeader("__dlq.errors.delivery.count", "3"),
			textHeader("__dlq.errors.message", "all 3 attempts failed"), textHeader("retriable_group", "billing"),
		}}
		// As Kafka itself writes them for a share group.
		kafkas := &kgo.Record{Topic: "orders.dead", Value: []byte("6"), Headers: []kgo.RecordHeader{
			textHeader("__dlq.errors.topic", "orders"), textHeader("__dlq.errors.partition", "1"), textHeader("__dlq.errors.offset", "66"), textHeader("__dlq.errors.group", "billing"),
		}}
		// Of another tool, and with what a Python producer writes on all that it splits.
		foreign := &kgo.Record{Topic: "orders.dead", Key: []byte("f"), Value: []byte("7"), Headers: []kgo.RecordHeader{
			textHeader("kafka_dlt-original-topic", "orders"), numberHeader("retriable_kafka_attempt", 9), numberHeader("retriable_kafka_timestamp", 1<<40),
			textHeader("retriable_kafka_chunk_group", "python's sixteen"), numberHeader("retriable_kafka_number_of_chunks", 1), numberHeader("retriable_kafka_chunk_id", 0),
		}}
		b.send(deadLetter(0, "billing", 1, "permanent failure", textHeader("tenant", "x")), deadLetter(1, "shipping", 2, "permanent failure"),
			deadLetter(0, "billing", 3, "all 5 attempts failed"), payments, unknown, kafkas, foreign)
		a, done := b.outside()
		defer done()
		res := b.replay(a, sendBack())
		wantEqual(t, "sent, other groups, other topics, foreign", fmt.Sprint(res.Sent, res.OtherGroups, res.OtherTopics, res.Foreign), "4 1 1 1")
		rs := b.stable("orders.retry")
		wantEqual(t, "values", valuesOf(rs), "1 3 5 6")
		for _, r := range rs {
			var names []string
			for _, h := range r.Headers {
				names = append(names, h.Key)
			}
			wantEqual(t, "group", headerOf(r, "retriable_group"), "billing")
			wantEqual(t, "attempt", []byte(headerOf(r, "retriable_kafka_attempt")), make([]byte, 8))
			want := map[string]string{
				"1": "tenant retriable_kafka_attempt retriable_group retriable_topic retriable_partition retriable_offset retriable_time",
				"3": "retriable_kafka_attempt retriable_group retriable_topic retriable_partition retriable_offset retriable_time",
				"5": "retriable_kafka_attempt retriable_group",
				"6": "retriable_kafka_attempt retriable_group retriable_topic retriable_partition retriable_offset",
			}[string(r.Value)]
			wantEqual(t, "headers of "+string(r.Value), strings.Join(names, " "), want)
		}
		r := sendBack()
		r.Foreign = true
		wantEqual(t, "sent with foreign ones", b.replay(a, r).Sent, 1)
		rs = b.stable("orders.retry")
		wantEqual(t, "values", valuesOf(rs), "1 3 5 6 7")
		for _, r := range rs {
			if string(r.Value) != "7" {
				continue
			}
			var names []string
			for _, h := range r.Headers {
				names = append(names, h.Key)
			}
			wantEqual(t, "headers of 7", strings.Join(names, " "), "kafka_dlt-original-topic retriable_kafka_attempt retriable_group")
			wantEqual(t, "attempt of 7", []byte(headerOf(r, "retriable_kafka_attempt")), make([]byte, 8))
		}

		// And the consumer makes of them what it should.
		var l ledger
		c := b.begin("billing", retriable.Topic("orders", noting(&l), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
		pass(5 * time.Second)
		l.once(t, 5)
		for _, d := range l.all() {
			wantEqual(t, "attempt of "+d.value, d.attempt, 1)
		}
		c.clean()
	})
}

// noting is a handler that notes and succeeds.
func noting(l *ledger) retriable.Handler {
	return handles(func(m *retriable.Message) error { l.note(m); return nil })
}

// A message whose parts were dead-lettered one by one goes back whole, once, wherever they lie; without one of them it stays.
func TestPartsGoBackAsOneMessage(t *testing.T) {
	bubble(t, letterTopics, func(b *bed) {
		b.send(
			deadPart(0, "AAAAAAAAAAAAAAAA", 0, 3, "one "), deadLetter(0, "billing", 1, "permanent failure"),
			deadPart(0, "BBBBBBBBBBBBBBBB", 1, 2, "never whole"), deadPart(0, "AAAAAAAAAAAAAAAA", 2, 3, "three"),
			deadPart(1, "CCCCCCCCCCCCCCCC", 0, 2, "left ", textHeader("retriable_key", "null")), deadPart(1, "CCCCCCCCCCCCCCCC", 1, 2, "right", textHeader("retriable_key", "null")),
		)
		a, done := b.outside()
		defer done()
		res := b.replay(a, sendBack())
		wantEqual(t, "sent and parts left alone", fmt.Sprint(res.Sent, res.Incomplete), "2 3")
		wantEqual(t, "values", valuesOf(b.stable("orders.retry")), "1 left right")
		for _, r := range b.stable("orders.retry") {
			if string(r.Value) == "left right" && r.Key != nil {
				t.Errorf("its key is %q, want none", r.Key)
			}
		}
		// The last part comes, and comes twice, as after a crash of the consumer; and all of one that was sent.
		b.send(deadPart(0, "AAAAAAAAAAAAAAAA", 1, 3, "two "), deadPart(0, "AAAAAAAAAAAAAAAA", 1, 3, "two "), deadPart(0, "AAAAAAAAAAAAAAAA", 0, 3, "one "),
			deadPart(0, "AAAAAAAAAAAAAAAA", 2, 3, "three"))
		s, err := a.Summary(b.Context(), "orders.dead", admin.Filter{Group: "billing"})
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "summary: letters, sent, parts", fmt.Sprint(s.Letters, s.Sent, s.Incomplete), "3 2 1")
		res = b.replay(a, sendBack())
		wantEqual(t, "sent then", fmt.Sprint(res.Sent, res.Incomplete), "1 1")
		res = b.replay(a, sendBack())
		wantEqual(t, "sent at last", fmt.Sprint(res.Sent, res.Incomplete), "0 1")
		wantEqual(t, "values", valuesOf(b.stable("orders.retry")), "1 left right one two three")
	})
}

// A letter larger than the retry topic's records goes back in parts of a new group, on one partition; where not even that can be it stays.
func TestALargeLetterGoesBackInParts(t *testing.T) {
	bubble(t, "orders orders.dead:2", func(b *bed) {
		a, done := b.outside()
		defer done()
		b.createTopic("orders.retry", 3, map[string]string{"max.message.bytes": "2000"})
		large, huge := deadLetter(0, "billing", 1, "permanent failure"), deadLetter(0, "billing", 2, "permanent failure")
		large.Value = []byte(strings.Repeat("0123456789", 500))
		huge.Key = []byte(strings.Repeat("k", 3000))
		b.send(large, huge, deadLetter(0, "billing", 3, "permanent failure"))
		res := b.replay(a, sendBack())
		wantEqual(t, "sent and too large", fmt.Sprint(res.Sent, res.TooLarge), "2 1")
		var value strings.Builder
		parts, at := 0, int32(-1)
		for _, r := range b.stable("orders.retry") {
			if headerOf(r, "retriable_kafka_chunk_group") == "" {
				continue
			}
			if at >= 0 && r.Partition != at {
				t.Error("the parts lie on different partitions")
			}
			parts, at = parts+1, r.Partition
			value.Write(r.Value)
			wantEqual(t, "group", headerOf(r, "retriable_group"), "billing")
		}
		wantEqual(t, "parts", parts > 2, true)
		wantEqual(t, "value", value.String() == string(large.Value), true)
	})
}

// A replay that cannot remember what it sent stops before it sends it.
func TestWhatCannotBeRememberedIsNotSent(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred thousand letters")
	}
	bubble(t, letterTopics, func(b *bed) {
		const all = 100_000
		for i := range all {
			b.cl.Produce(b.Context(), deadLetter(0, "billing", i, "permanent failure"), nil)
		}
		if err := b.cl.Flush(b.Context()); err != nil {
			t.Fatal(err)
		}
		a, done := b.outside()
		defer done()
		r := sendBack()
		r.Filter.Match = func(l *admin.Letter) bool { h := l.Origin.Offset * 0x9E3779B1; return h>>13&1 == 0 }
		res, err := a.Replay(b.Context(), r)
		if !errors.Is(err, admin.ErrProgressFull) {
			t.Fatalf("it sent %d and returned %v, want ErrProgressFull", res.Sent, err)
		}
		if res.Sent < 10_000 {
			t.Errorf("it sent %d, want more", res.Sent)
		}
		onceEach(t, b.stable("orders.retry"), res.Sent)
		all2 := b.replay(a, sendBack())
		wantEqual(t, "sent in all", res.Sent+all2.Sent, all)
		onceEach(t, b.stable("orders.retry"), all)
	})
}

// A purge ends where it is told to, and takes nothing else.
func TestPurge(t *testing.T) {
	bubble(t, letterTopics, func(b *bed) {
		for i := range 20 {
			b.send(deadLetter(int32(i%2), "billing", i, "permanent failure"))
		}
		a, done := b.outside()
		defer done()
		for _, below := range []map[int32]int64{{0: -1}, {0: 11}, {2: 0}} {
			if _, err := a.Purge(b.Context(), "orders.dead", below); err == nil {
				t.Errorf("a purge below %v was not refused", below)
			}
		}
		begin, err := a.Purge(b.Context(), "orders.dead", map[int32]int64{0: 4})
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "it begins", begin, map[int32]int64{0: 4})
		wantEqual(t, "letters sent back of those that are left", b.replay(a, sendBack()).Sent, 16)
	})
}

func TestReplayRefusesWhatItCannotDo(t *testing.T) {
	bubble(t, letterTopics, func(b *bed) {
		a, done := b.outside()
		defer done()
		for _, c := range []struct {
			r    admin.Replay
			want string
		}{
			{admin.Replay{}, "Replay.From is empty\nadmin: Replay.To is empty\nadmin: Replay.Group is empty\nadmin: Replay needs one of Topic and TopicRegexp"},
			{admin.Replay{From: "orders.dead", To: "orders", Group: "billing", Topic: "orders"}, "Replay.To is orders, not a retry topic"},
			{admin.Replay{From: "orders.dead", To: "orders.retry", Group: "billing", TopicRegexp: "("}, "Replay.TopicRegexp"},
			{admin.Replay{From: "orders.dead", To: "orders.retry", Group: "billing", Topic: "orders", Rate: -1}, "must not be negative"},
			{admin.Replay{From: "orders.dead", To: "nowhere", Group: "billing", Topic: "orders"}, "UNKNOWN_TOPIC"},
			{admin.Replay{From: "nowhere", To: "orders.retry", Group: "billing", Topic: "orders"}, "UNKNOWN_TOPIC"},
		} {
			if _, err := a.Replay(b.Context(), c.r); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v: %v, want %s", c.r, err, c.want)
			}
		}
		// What may not be done says so.
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: -1})
		b.send(deadLetter(0, "billing", 1, "permanent failure"))
		if _, err := a.Replay(b.Context(), sendBack()); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("a replay that may not write returned %v", err)
		}
		below, err := a.Sent(b.Context(), "orders.dead", "billing")
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "sent below", below, map[int32]int64{0: 0, 1: 0})
	})
}
