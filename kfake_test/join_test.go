package kfake_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// part is chunk id of count of a message.
func part(group string, count, id uint64, value string, more ...kgo.RecordHeader) *kgo.Record {
	return &kgo.Record{Topic: "orders", Key: []byte("k"), Value: []byte(value), Headers: slices.Concat(more, []kgo.RecordHeader{
		kv("retriable_kafka_chunk_group", []byte(group)), kv("retriable_kafka_number_of_chunks", be64(count)), kv("retriable_kafka_chunk_id", be64(id)),
	})}
}

// reasons are those of dead letters, in order.
func reasons(letters []*kgo.Record) (rs []string) {
	for _, r := range letters {
		rs = append(rs, headerOf(r, "__dlq.errors.message"))
	}
	return rs
}

func TestChunksBecomeOneMessage(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var seen messages
		var asked atomic.Int32 // workers ask beside each other
		r := b.begin("g", all(handles(func(m *retriable.Message) error { seen.keep(m); return nil }), retriable.Filter(func(r *kgo.Record) bool {
			asked.Add(1)
			return string(r.Value) != "rejected"
		})))
		user := kv("mine", []byte("x"))
		nokey := func(id uint64, value string) *kgo.Record {
			r := part("nokey", 2, id, value, kv("retriable_key", []byte("null")))
			r.Key = []byte("nokey")
			return r
		}
		b.send( // three messages between each other, in any order, some chunks twice, and an ordinary record
			part("a", 3, 2, "a3", user), nokey(0, "n1"), part("a", 3, 2, "a3", user), part("b", 2, 1, "ected"),
			part("a", 3, 0, "a1", user), part("one", 1, 0, "one"),
			&kgo.Record{Topic: "orders", Value: []byte("plain")},
			nokey(1, "n2"), part("a", 3, 1, "a2", user), part("b", 2, 0, "rej"), part("b", 2, 1, "ected"), part("a", 3, 1, "a2", user),
		)
		pass(5 * time.Second)
		got := map[string]retriable.Message{}
		for _, m := range seen.all() {
			got[string(m.Value)] = m
		}
		wantEqual(b.T, "messages", len(seen.all()), 4)
		wantEqual(b.T, "times the filter was asked", asked.Load(), 5)
		for value, want := range map[string]string{"a1a2a3": `0 k [mine="x"]`, "n1n2": `1  []`, "one": `5 k []`, "plain": `6  []`} {
			m := got[value]
			if m.Record == nil {
				b.Errorf("%s was not delivered", value)
				continue
			}
			wantEqual(b.T, value, fmt.Sprintf("%d %s %v", m.Offset, m.Key, headers(m.Record)), want)
			wantEqual(b.T, value+": source", fmt.Sprint(m.Source, m.Attempt), fmt.Sprint(retriable.Position{Topic: "orders", Offset: m.Offset}, 1))
		}
		if got["n1n2"].Record != nil && got["n1n2"].Key != nil {
			b.Error("a message without a key has one")
		}
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 12)
		s := r.Stats()
		wantEqual(b.T, "handled, filtered, dead", fmt.Sprint(s.Handled, s.Filtered, s.DeadLettered), "4 1 0")
		r.clean()
	})
}

func TestAnIncompleteMessageHoldsTheCommittedOffsetAndNothingElse(t *testing.T) { // I2, I11
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var l ledger
		r := b.begin("g", retriable.MaxPending(2), retriable.MaxWindow(8), retriable.StuckAfter(time.Second), all(handles(func(m *retriable.Message) error { l.note(m); return nil })))
		b.produce("orders", 0, "k=before")
		b.send(part("a", 5, 0, "1"), part("a", 5, 1, "2"), part("a", 5, 2, "3"), part("a", 5, 3, "4"))
		b.produce("orders", 0, seq(50)...)
		pass(10 * time.Second)
		l.once(b.T, 51)
		s := r.partition("orders", 0)
		if s.Watermark != 1 || s.Oldest.Reason != retriable.ReasonJoining || s.Oldest.Offset != 1 || s.Pending != 4 || s.Paused {
			b.Errorf("Stats: %+v", s)
		}
		if err := r.Health(b.Context()); err != nil {
			b.Errorf("it has a deadline of its own and is no fault: %v", err)
		}
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 1)
		b.send(part("a", 5, 4, "5"))
		pass(3 * time.Second)
		wantEqual(b.T, "joined", len(l.of("12345")), 1)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 56)
		r.clean()
	})
}

func TestWhatDoesNotBecomeAMessageBecomesDeadLetters(t *testing.T) { // I1, I10, I12
	bubble(t, "orders:3 orders.retry orders.dead:2", func(b *bed) {
		var l ledger
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error { l.note(m); return nil })))
		began := time.Now()
		at := func(rs ...*kgo.Record) {
			for _, r := range rs {
				r.Partition, r.Timestamp = 2, began
			}
			b.send(rs...)
		}
		at(
			part("huge", 1<<62, 0, "h"), part("none", 0, 0, "n"), part("past", 3, 3, "p"), part("many", 1025, 1, "m"), part(strings.Repeat("g", 65), 2, 0, "g"),
			part("late", 3, 0, "l1"), part("late", 3, 2, "l3"), // the second never comes
			part("odd", 2, 0, "o1"), part("odd", 3, 1, "o2"), part("odd", 2, 1, "o3"),
			part("two", 2, 0, "t1"), part("two", 2, 0, "t2"), part("two", 2, 1, "t3"),
		)
		at(&kgo.Record{Topic: "orders", Value: []byte("plain")})
		pass(time.Minute)
		before := b.read("orders.dead")
		wantEqual(b.T, "dead letters at once", len(before), 11)
		wantEqual(b.T, "committed", b.committed("g", "orders", 2), 5)
		pass(13*time.Minute + 50*time.Second)
		wantEqual(b.T, "dead letters before the deadline", len(b.read("orders.dead")), 11)
		pass(time.Minute) // idle: nothing is read any more
		letters := b.read("orders.dead")
		want := map[string]string{
			"h": "message has too many chunks", "n": "malformed chunk headers", "p": "malformed chunk headers", "m": "message has too many chunks", "g": "malformed chunk headers",
			"o1": "chunks disagree about their number", "o2": "chunks disagree about their number", "o3": "chunks disagree about their number",
			"t1": "chunk repeated with another value", "t2": "chunk repeated with another value", "t3": "chunk repeated with another value",
			"l1": "chunks missing at the deadline", "l3": "chunks missing at the deadline",
		}
		for _, r := range letters {
			wantEqual(b.T, string(r.Value), headerOf(r, "__dlq.errors.message"), want[string(r.Value)])
			delete(want, string(r.Value))
			wantEqual(b.T, "its partition", r.Partition, 0)
			if c := headerOf(r, "retriable_kafka_number_of_chunks"); c == "" || headerOf(r, "__dlq.errors.topic") != "orders" || headerOf(r, "__dlq.errors.partition") != "2" ||
				headerOf(r, "__dlq.errors.delivery.count") != "0" || headerOf(r, "__dlq.errors.group") != "g" || string(r.Key) != "k" {
				b.Errorf("a letter: %v", headers(r))
			}
		}
		wantEqual(b.T, "not kept", want, map[string]string{})
		wantEqual(b.T, "committed", b.committed("g", "orders", 2), 14)
		wantEqual(b.T, "handled", fmt.Sprint(l.values()), "[plain]")
		wantEqual(b.T, "counted", r.Stats().DeadLettered, 13)
		if n := len(b.log.lines("level=WARN", "chunks missing at the deadline", "orders/2/5", "chunks=2")); n != 1 {
			b.Errorf("%d warnings of the deadline", n)
		}
		r.clean()
	})
}

func TestWithoutADeadLetterTopicChunksThatCannotBeJoinedAreDropped(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var drops dropped
		r := b.begin("g", retriable.Hooks(&drops), retriable.JoinTimeout(10*time.Second), retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), none()))
		b.send(part("a", 3, 0, "1"), part("a", 3, 1, "2"), part("a", 3, 0, "1"))
		pass(20 * time.Second)
		ds := drops.all()
		if len(ds) != 1 || ds[0].Records != 2 || ds[0].Source != (retriable.Position{Topic: "orders"}) || ds[0].Err == nil {
			b.Errorf("OnDropped: %+v", ds)
		}
		wantEqual(b.T, "counted", r.Stats().Dropped, 2)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 3)
		wantEqual(b.T, "logged", len(b.log.lines("level=WARN", "cannot be joined", "missing")), 1)
		r.clean()
	})
}

func TestTheLimitsOfJoiningAreOptions(t *testing.T) { // I10
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var l ledger
		r := b.begin("g", retriable.MaxChunks(3), retriable.MaxMessageBytes(10), retriable.MaxJoining(2), retriable.JoinTimeout(time.Minute),
			all(handles(func(m *retriable.Message) error { l.note(m); return nil })))
		b.send(part("four", 4, 0, "x"))
		b.send(part("big", 2, 0, "123456"), part("big", 2, 1, "78901"))
		b.send(part("a", 2, 0, "a"), part("b", 2, 0, "b"), part("c", 2, 0, "c"), part("a", 2, 1, "a"), part("b", 2, 1, "b"))
		pass(10 * time.Second)
		got := reasons(b.read("orders.dead"))
		slices.Sort(got)
		wantEqual(b.T, "reasons", got, []string{
			"message has too many chunks", "message too large to be joined", "message too large to be joined", "too many incomplete messages",
		})
		wantEqual(b.T, "joined", l.values(), []string{"aa", "bb"})
		r.clean()
	})
}

func TestTheBytesOfJoiningAreBounded(t *testing.T) { // I10
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		r := b.begin("g", retriable.MaxJoiningBytes(20_000), all(handles(func(*retriable.Message) error { return nil })))
		b.send(part("a", 3, 0, strings.Repeat("a", 15_000)), part("b", 3, 0, strings.Repeat("b", 15_000)))
		pass(10 * time.Second)
		wantEqual(b.T, "reasons", reasons(b.read("orders.dead")), []string{"no memory left for chunks of incomplete messages"})
		r.clean()
	})
}

func TestNothingOfAMessageInChunksIsDoneBeforeAllOfItIs(t *testing.T) { // I1, I5
	for _, dies := range []bool{true, false} {
		t.Run(fmt.Sprintf("crash %v", dies), func(t *testing.T) {
			bubble(t, "orders orders.retry orders.dead", func(b *bed) {
				k := &cable{b: b, dumb: -1, deaf: -1}
				gate := b.gate()
				var l ledger
				h := handles(func(m *retriable.Message) error {
					l.note(m)
					if len(m.Value) == 3 {
						gate.wait()
					}
					return nil
				})
				first := b.start("g", k.dialer(), retriable.DrainTimeout(2*time.Second), all(h))
				// One is complete and runs, of the other a chunk is missing; in between are others, which are done.
				b.send(part("run", 3, 1, "2"), part("wait", 3, 0, "a"))
				b.produce("orders", 0, "p=0", "p=1")
				b.send(part("run", 3, 0, "1"), part("wait", 3, 2, "c"))
				b.produce("orders", 0, "p=2")
				b.send(part("run", 3, 2, "3"), part("run", 3, 2, "3"))
				b.produce("orders", 0, "p=3", "p=4")
				pass(5 * time.Second)
				wantEqual(b.T, "committed", b.committed("g", "orders", 0), 0)
				if s := first.partition("orders", 0); s.Oldest.Reason != retriable.ReasonRunning || s.Oldest.Offset != 0 {
					b.Errorf("the first chunk of what runs: %+v", s.Oldest)
				}
				wantEqual(b.T, "delivered", fmt.Sprint(len(l.of("123")), len(l.values())), "1 6")
				if dies {
					k.cut()
				}
				err := first.end() // abandoned
				var abandoned *retriable.AbandonedError
				if !dies && (!errors.As(err, &abandoned) || fmt.Sprint(abandoned.Records) != "[orders/0/0]") {
					b.Errorf("Run: %v", err)
				}
				pass(10 * time.Second)
				gate.open()

				second := b.begin("g", all(h))
				pass(5 * time.Second)
				wantEqual(b.T, "joined anew", len(l.of("123")), 2)
				for i := range 5 {
					wantEqual(b.T, "delivered once", len(l.of(strconv.Itoa(i))), 1)
				}
				wantEqual(b.T, "committed", b.committed("g", "orders", 0), 1) // the other one's
				b.send(part("wait", 3, 1, "b"))
				pass(5 * time.Second)
				wantEqual(b.T, "joined over both members", len(l.of("abc")), 1)
				wantEqual(b.T, "committed", b.committed("g", "orders", 0), 12)
				wantEqual(b.T, "dead letters", len(b.read("orders.dead")), 0)
				second.clean()
			})
		})
	}
}

func TestAMessageIsJoinedThoughItsPartitionChangesHandsBetweenItsChunks(t *testing.T) {
	bubble(t, "orders:2 orders.retry:2 orders.dead", func(b *bed) {
		var l ledger
		h := all(handles(func(m *retriable.Message) error { l.note(m); return nil }))
		a := b.begin("g", h, retriable.CommitInterval(24*time.Hour))
		send := func(id uint64) {
			for p := range int32(2) {
				for m := range 5 {
					r := part(fmt.Sprint(p, m), 3, id, fmt.Sprint(p, m, id, ";"))
					r.Partition = p
					b.send(r)
				}
			}
		}
		send(1)
		pass(3 * time.Second)
		c := b.begin("g", h, retriable.CommitInterval(24*time.Hour))
		pass(10 * time.Second)
		send(2)
		pass(3 * time.Second)
		a.clean()
		pass(10 * time.Second)
		send(0)
		pass(10 * time.Second)
		for p := range 2 {
			for m := range 5 {
				wantEqual(b.T, "joined", len(l.of(fmt.Sprint(p, m, 0, ";")+fmt.Sprint(p, m, 1, ";")+fmt.Sprint(p, m, 2, ";"))), 1)
			}
		}
		l.once(b.T, 10)
		c.clean()
		wantEqual(b.T, "committed", b.committed("g", "orders", 0)+b.committed("g", "orders", 1), 30)
	})
}

func TestAJoinedMessageTakesItsLaneWhenItIsComplete(t *testing.T) { // I6
	for _, order := range []retriable.Order{retriable.ByKey, retriable.ByPartition} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			bubble(t, "orders orders.retry orders.dead", func(b *bed) {
				var l ledger
				var in crowd
				r := b.begin("g", all(handles(func(m *retriable.Message) error {
					defer in.enter(string(m.Key))()
					l.note(m)
					time.Sleep(time.Second)
					return nil
				}), retriable.Ordering(order)))
				b.produce("orders", 0, "k=0")
				b.send(part("a", 2, 0, "a"))
				b.produce("orders", 0, "k=1")
				b.send(part("a", 2, 1, "b"))
				b.produce("orders", 0, "k=2", "k=3")
				b.send(part("c", 3, 1, "d"), part("c", 3, 2, "e"), part("c", 3, 0, "c"), &kgo.Record{Topic: "orders", Key: []byte("k"), Value: []byte("4")})
				pass(time.Minute)
				wantEqual(b.T, "order", l.values(), []string{"0", "1", "ab", "2", "3", "cde", "4"})
				if most, _ := in.mostOf("k"); most != 1 {
					b.Errorf("%d at once", most)
				}
				r.clean()
			})
		})
	}
}

func TestCopiesOfWhatIsTooLargeAreSplit(t *testing.T) {
	bubble(t, "", func(b *bed) {
		b.small("orders", 3, "4000")
		b.small("orders.retry", 3, "1000")
		b.small("orders.dead", 2, "1500")
		var seen messages
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error {
			seen.keep(m)
			if m.Attempt < 3 || m.Key == nil {
				return errNo
			}
			return nil
		}), retriable.MaxAttempts(3)))
		p := b.producer()
		defer p.Close()
		keyed := &kgo.Record{Topic: "orders", Key: []byte("k"), Value: text(20_000), Headers: users}
		keyless := &kgo.Record{Topic: "orders", Value: text(10_001)}
		whole := &kgo.Record{Topic: "orders", Key: []byte("w"), Value: text(2002)} // fits its own topic alone
		for _, rec := range []*kgo.Record{keyed, keyless, whole} {
			if err := p.Produce(b.Context(), rec); err != nil {
				b.Fatal(err)
			}
		}
		pass(3 * time.Hour)
		for _, rec := range []*kgo.Record{keyed, keyless, whole} {
			ms := seen.of(string(rec.Value))
			wantEqual(b.T, "attempts", len(ms), 3)
			for i, m := range ms {
				wantEqual(b.T, "the message", fmt.Sprint(m.Attempt, m.Topic, m.Partition, m.Offset, string(m.Key), m.Key == nil, headers(m.Record), m.Timestamp.UnixMilli()),
					fmt.Sprint(i+1, "orders", rec.Partition, rec.Offset, string(rec.Key), rec.Key == nil, headers(rec), rec.Timestamp.UnixMilli()))
			}
		}
		letters := b.read("orders.dead")
		wantEqual(b.T, "the letter", string(b.whole(letters)), string(keyless.Value))
		wantEqual(b.T, "its headers", headerOf(letters[0], "__dlq.errors.message")+headerOf(letters[0], "__dlq.errors.topic"), "all 3 attempts failedorders")
		wantEqual(b.T, "its partition", letters[0].Partition, keyless.Partition%2)
		s := r.Stats()
		wantEqual(b.T, "handled, failed, retried, dead", fmt.Sprint(s.Handled, s.Failed, s.Retried, s.DeadLettered, s.ProduceFailures), "2 7 6 1 0")
		for _, ps := range s.Partitions {
			if ps.Pending+ps.Held > 0 || ps.Lag > 0 {
				b.Errorf("%+v", ps)
			}
		}
		r.clean()
	})
}

func TestACopyIsSplitWhereItsTopicDoesNotTellItsSize(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		b.small("orders.retry", 2, "1000")
		b.small("orders.dead", 1, "1000")
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		var seen messages
		r := b.begin("g", patient(), all(handles(func(m *retriable.Message) error {
			seen.keep(m)
			if m.Attempt == 1 {
				return errNo
			}
			return nil
		})))
		values := []string{string(text(9000)), string(text(5001)), "small"}
		for _, v := range values {
			b.send(&kgo.Record{Topic: "orders", Value: []byte(v)})
		}
		pass(3 * time.Hour)
		for _, v := range values {
			wantEqual(b.T, "attempts", len(seen.of(v)), 2)
		}
		wantEqual(b.T, "dead letters", len(b.read("orders.dead")), 0)
		r.clean()
	})
}

func TestRefusedLettersOfChunksKeepThemPending(t *testing.T) { // I9
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		r := b.begin("g", retriable.JoinTimeout(5*time.Second), all(handles(func(*retriable.Message) error { return nil })))
		refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.dead", Err: kerr.NotEnoughReplicas, Count: -1})
		b.send(part("a", 4, 3, "4"), part("a", 4, 0, "1"), part("a", 4, 2, "3"))
		b.produce("orders", 0, "plain")
		pass(2 * time.Minute)
		wantEqual(b.T, "written meanwhile", len(b.read("orders.dead")), 0)
		wantEqual(b.T, "committed meanwhile", b.committed("g", "orders", 0), 0)
		if s := r.partition("orders", 0); s.Oldest.Reason != retriable.ReasonProducing || s.Oldest.Offset != 0 {
			b.Errorf("the oldest: %+v", s.Oldest)
		}
		if err := r.Health(b.Context()); !errors.As(err, new(*retriable.ProduceError)) {
			b.Errorf("Health: %v", err)
		}
		refused.Remove()
		pass(10 * time.Second)
		wantEqual(b.T, "dead letters", len(b.read("orders.dead")), 3)
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 4)
		if err := r.Health(b.Context()); err != nil {
			b.Errorf("Health: %v", err)
		}
		r.clean()
	})
}

func TestVerdictsOfAJoinedMessage(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var seen messages
		var drops dropped
		r := b.begin("g", retriable.Hooks(&drops), all(handles(func(m *retriable.Message) error {
			seen.keep(m)
			m.Source.Offset, m.Offset = 99, 99 // what a handler does to its message is not written
			switch {
			case len(seen.of(string(m.Value))) > 1:
				return nil
			case string(m.Value) == "postpone":
				return retriable.Postpone(5 * time.Second)
			case string(m.Value) == "permanent":
				return retriable.Permanent(errNo)
			case string(m.Value) == "drop":
				return retriable.Drop(errNo)
			}
			return nil
		})))
		for _, v := range []string{"postpone", "permanent", "drop"} {
			b.send(part(v, 3, 2, v[3:]), part(v, 3, 0, v[:1]), part(v, 3, 1, v[1:3]))
		}
		pass(3 * time.Second)
		wantEqual(b.T, "committed while one is postponed", b.committed("g", "orders", 0), 0)
		if s := r.partition("orders", 0); s.Held != 1 || s.Oldest.Reason != retriable.ReasonPostponed {
			b.Errorf("Stats: %+v", s)
		}
		pass(5 * time.Second)
		ms := seen.of("postpone")
		wantEqual(b.T, "postponed", fmt.Sprint(len(ms), ms[1].Attempt, ms[1].Source, ms[1].Offset), "2 1 orders/0/0 0")
		letter := b.read("orders.dead")[0]
		wantEqual(b.T, "the letter", fmt.Sprint(string(letter.Value), headerOf(letter, "__dlq.errors.offset")), "permanent3")
		wantEqual(b.T, "dropped", drops.all()[0].Source, "orders/0/6")
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 9)
		r.clean()
	})
}

// Whatever comes between each other, and however often members come and go, every message is handled once and none half.
func TestMessagesInChunksSurviveMembersThatComeAndGo(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			bubble(t, "orders:3 orders.retry:3 orders.dead", func(b *bed) {
				random := rand.New(rand.NewPCG(seed, 7))
				var l ledger
				h := all(handles(func(m *retriable.Message) error {
					l.note(m)
					time.Sleep(time.Duration(len(m.Value)%7) * 10 * time.Millisecond)
					if len(m.Value)%5 == 0 && m.Attempt == 1 {
						return errNo
					}
					return nil
				}), retriable.Backoff(retriable.Constant(time.Second)))
				var rs []*kgo.Record
				values := map[string]int{}
				for m := range 120 {
					count := 1 + random.IntN(6)
					var whole bytes.Buffer
					p := random.Int32N(3)
					for id := range count {
						piece := fmt.Sprintf("%d.%d;", m, id)
						whole.WriteString(piece)
						times := 1
						if id == 0 && count > 1 { // some twice
							times += random.IntN(4) / 3
						}
						for range times {
							r := part(fmt.Sprintf("group-%d", m), uint64(count), uint64(id), piece)
							r.Partition, r.Key = p, fmt.Append(nil, m%10)
							rs = append(rs, r)
						}
					}
					values[whole.String()] = 1
					if whole.Len()%5 == 0 {
						values[whole.String()] = 2
					}
				}
				for i := range rs { // a shuffle that keeps what belongs together somewhat near
					j := min(i+random.IntN(30), len(rs)-1)
					rs[i], rs[j] = rs[j], rs[i]
				}
				r := b.begin("g", h)
				for len(rs) > 0 {
					n := min(1+random.IntN(20), len(rs))
					b.send(rs[:n]...)
					rs = rs[n:]
					time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
					if random.IntN(6) == 0 {
						r.clean()
						r = b.begin("g", h)
					}
				}
				pass(20 * time.Minute)
				for value, n := range values {
					if got := len(l.of(value)); got != n {
						b.Errorf("%q was delivered %d times, want %d", value, got, n)
					}
					delete(values, value)
				}
				for _, v := range l.values() {
					if !strings.HasSuffix(v, ";") {
						b.Errorf("delivered: %q", v)
					}
				}
				r.clean()
				for p := range int32(3) {
					end := b.cluster.PartitionInfo("orders", p).HighWatermark
					wantEqual(b.T, "committed", b.committed("g", "orders", p), end)
				}
				for _, r := range b.read("orders.dead") { // a repeated chunk, read by another member than the one that joined its message
					if headerOf(r, "__dlq.errors.message") != "chunks missing at the deadline" {
						b.Errorf("a dead letter: %v", headers(r))
					}
				}
			})
		})
	}
}
