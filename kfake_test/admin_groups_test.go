package kfake_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

// balancing are the ways a group is balanced: what it is called from outside, and what a member needs for it.
var balancing = map[admin.Protocol][]kgo.Opt{
	admin.Classic:  nil,
	admin.Consumer: {kgo.ServerSideBalancer()},
}

// From outside, with no access to the process: one blocked record is named with its offset and age, and so is what finished above it, and what waits.
func TestStatusNamesTheBlockedRecord(t *testing.T) {
	for protocol, opts := range balancing {
		t.Run(string(protocol), func(t *testing.T) {
			bubble(t, "orders:2 orders.retry orders.dead", func(b *bed) {
				open := b.gate()
				b.produce("orders", 0, "k0=a", "k1=b", "blocked=wait", "k2=c", "k3=fail", "k4=d")
				b.produce("orders", 1, "k5=fail", "k6=e")
				c := b.begin("billing", retriable.Kafka(opts...), retriable.Topic("orders", handles(func(m *retriable.Message) error {
					switch string(m.Value) {
					case "wait":
						open.wait()
					case "fail":
						return retriable.RetryAfter(errors.New("the bank said no"), time.Duration(m.Partition+1)*time.Hour)
					}
					return nil
				}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
				pass(10 * time.Minute)
				a, done := b.outside()
				defer done()
				g, err := a.Status(b.Context(), "billing")
				if err != nil {
					t.Fatal(err)
				}
				wantEqual(t, "group", spaced(g.Name, g.Protocol, g.State, len(g.Members)), spaced("billing", protocol, "Stable", 1))
				if protocol == admin.Classic {
					wantEqual(t, "the member has", g.Members[0].Partitions, 3)
				}
				var lines []string
				for _, p := range g.Partitions {
					line := fmt.Sprintf("%s/%d committed %d of %d, lag %d, finished %d", p.Topic, p.Partition, p.Committed, p.End, p.Lag, p.Finished)
					if p.Oldest != nil {
						line += fmt.Sprintf(", oldest %d attempt %d since %v", p.Oldest.Position.Offset, p.Oldest.Attempt, time.Since(p.Oldest.Time).Round(time.Minute))
					}
					if p.Retry {
						line += fmt.Sprintf(", held %d, next in %v", p.Held, time.Until(p.NextDue).Round(time.Minute))
					}
					if p.Member != g.Members[0].ID && protocol == admin.Classic { // kfake names no topics in a KIP-848 group's description
						t.Errorf("%s/%d is assigned to %q, want %q", p.Topic, p.Partition, p.Member, g.Members[0].ID)
					}
					if p.Err != nil {
						t.Error(p.Err)
					}
					lines = append(lines, line)
				}
				wantEqual(t, "status", strings.Join(lines, "\n"), strings.Join([]string{
					"orders/0 committed 2 of 6, lag 4, finished 3, oldest 2 attempt 1 since 10m0s",
					"orders/1 committed 2 of 2, lag 0, finished 0",
					"orders.retry/0 committed 0 of 2, lag 2, finished 0, oldest 0 attempt 2 since 10m0s, held 2, next in 50m0s",
				}, "\n"))

				var waiting []string
				for w, err := range a.Waiting(b.Context(), "billing", "orders.retry") {
					if err != nil {
						t.Fatal(err)
					}
					waiting = append(waiting, fmt.Sprintf("%v of %v key %s attempt %d in %v: %s", w.Position, w.Origin, w.Key, w.Attempt, time.Until(w.Due).Round(time.Minute), w.LastError))
				}
				want := []string{"of orders/0/4 key k3 attempt 2 in 50m0s: the bank said no", "of orders/1/0 key k5 attempt 2 in 1h50m0s: the bank said no"}
				for i, w := range want {
					if !strings.Contains(strings.Join(waiting, "\n"), w) {
						t.Errorf("%d. of what waits is missing: %s in\n%s", i, w, strings.Join(waiting, "\n"))
					}
				}
				wantEqual(t, "what waits", len(waiting), 2)

				// The broker would refuse it too.
				if _, err := a.Skip(b.Context(), admin.Skip{Group: "billing", Past: retriable.Position{Topic: "orders", Offset: 2}}); !errors.Is(err, admin.ErrGroupActive) {
					t.Errorf("Skip under a running consumer: %v, want ErrGroupActive", err)
				}
				open.open()
				c.clean()
			})
		})
	}
}

// A stopped group is moved past a record, and what its map said of the offsets above is kept.
func TestSkipFromOutside(t *testing.T) {
	bubble(t, "orders orders.dead", func(b *bed) {
		var l ledger
		b.produce("orders", 0, "a=0", "b=wait", "c=2", "d=wait", "e=4", "f=5")
		c := b.begin("billing", retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			if string(m.Value) == "wait" {
				return retriable.Postpone(time.Hour)
			}
			return nil
		}), retriable.DeadLetterTopic("orders.dead")))
		pass(time.Minute)
		c.clean()
		a, done := b.outside()
		defer done()
		past := func(offset int64) admin.Skip {
			return admin.Skip{Group: "billing", Past: retriable.Position{Topic: "orders", Offset: offset}}
		}
		for offset, want := range map[int64]string{0: "at offset 1 already", 6: "ends at offset 6"} {
			if _, err := a.Skip(b.Context(), past(offset)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Skip past %d: %v, want %s", offset, err, want)
			}
		}
		if _, err := a.Skip(b.Context(), admin.Skip{Group: "nobody", Past: retriable.Position{Topic: "orders"}}); !errors.Is(err, admin.ErrNoGroup) {
			t.Errorf("Skip of a group that is not there: %v", err)
		}
		s := past(1)
		s.DryRun = true
		res, err := a.Skip(b.Context(), s)
		wantEqual(t, "a dry run", fmt.Sprint(res, err), "{1 3 1} <nil>") // what is finished right behind it goes with it
		wantEqual(t, "committed after it", b.committed("billing", "orders", 0), 1)
		s.DryRun = false
		res, err = a.Skip(b.Context(), s)
		wantEqual(t, "skipped", fmt.Sprint(res, err), "{1 3 1} <nil>")
		g, err := a.Status(b.Context(), "billing")
		if err != nil {
			t.Fatal(err)
		}
		p := g.Partitions[0]
		wantEqual(t, "status", spaced(g.State, p.Committed, p.Finished, p.Oldest.Position.Offset), "Empty 3 2 3")

		before := len(l.all())
		c = b.begin("billing", retriable.Topic("orders", noting(&l), retriable.DeadLetterTopic("orders.dead")))
		pass(time.Minute)
		wantEqual(t, "delivered then", l.values()[before:], []string{"wait"})
		wantEqual(t, "from", l.all()[before].source.Offset, 3)
		c.clean()
	})
}

// A batch that unpacks to more than is allowed: status names it and goes on elsewhere, and once the group is stopped it is moved past it.
func TestSkipPastABatchThatCannotBeRead(t *testing.T) {
	bubble(t, "orders:2 orders.dead", func(b *bed) {
		var l ledger
		consume := func() *running {
			return b.begin("billing", retriable.Kafka(kgo.MaxDecompressBatchBytes(100_000)),
				retriable.Topic("orders", noting(&l), retriable.DeadLetterTopic("orders.dead")))
		}
		c := consume()
		b.produce("orders", 0, "before")
		b.renew(kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerLinger(100*time.Millisecond))
		zeros := strings.Repeat("0", 50_000)
		b.produce("orders", 0, zeros, zeros, zeros, zeros) // a batch, of offsets 1 to 4
		b.renew()
		b.produce("orders", 0, "behind")
		b.produce("orders", 1, "beside")
		pass(time.Minute)
		c.clean()

		a, done := b.outside(kgo.MaxDecompressBatchBytes(100_000))
		defer done()
		g, err := a.Status(b.Context(), "billing")
		if err != nil {
			t.Fatal(err)
		}
		var large *kgo.ErrDecompressTooLarge
		if p := g.Partitions[0]; !errors.As(p.Err, &large) || large.NextOffset != 5 || p.Committed != 1 || p.Oldest != nil {
			t.Errorf("status of the blocked partition: %+v", p)
		}
		if p := g.Partitions[1]; p.Err != nil || p.Committed != 1 {
			t.Errorf("status of the other: %+v", p)
		}
		res, err := a.Skip(b.Context(), admin.Skip{Group: "billing", Past: retriable.Position{Topic: "orders", Offset: large.NextOffset - 1}})
		wantEqual(t, "skipped", fmt.Sprint(res, err), "{1 5 0} <nil>")
		c = consume()
		pass(time.Minute)
		wantEqual(t, "delivered", fmt.Sprint(len(l.of("before")), len(l.of("behind")), len(l.of("beside")), len(l.of(zeros))), "1 1 1 0")
		wantEqual(t, "committed", b.committed("billing", "orders", 0), 6)
		c.clean()
	})
}

// Of a group that nobody knows, of one that never committed, of a topic that is gone, and of metadata that is none of ours.
func TestStatusOfOddGroups(t *testing.T) {
	bubble(t, "orders orders.retry gone", func(b *bed) {
		a, done := b.outside()
		defer done()
		if _, err := a.Status(b.Context(), "nobody"); !errors.Is(err, admin.ErrNoGroup) {
			t.Errorf("Status of nobody: %v, want ErrNoGroup", err)
		}
		b.produce("orders", 0, seq(10)...)
		b.commitAs("tool", "orders", 0, 4, "set by hand")
		b.commitAs("tool", "gone", 0, 0, "")
		b.deleteTopic("gone")
		g, err := a.Status(b.Context(), "tool")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range g.Partitions {
			if p.Topic == "gone" {
				if p.Err == nil {
					t.Error("a topic that is gone has no Err")
				}
				continue
			}
			wantEqual(t, "status", spaced(p.Topic, p.Committed, p.Lag, p.Map, p.Oldest.Position.Offset, p.Err), "orders 4 6 <nil> 4 <nil>")
		}

		// Copies for others on a retry topic are no work of this group.
		b.send(&kgo.Record{Topic: "orders.retry", Value: []byte("x"), Headers: []kgo.RecordHeader{numberHeader("retriable_kafka_attempt", 1), textHeader("retriable_group", "other")}},
			&kgo.Record{Topic: "orders.retry", Value: []byte("y"), Headers: []kgo.RecordHeader{
				numberHeader("retriable_kafka_attempt", 2), textHeader("retriable_group", "tool"), textHeader("retriable_due", "946771200000"),
			}})
		b.commitAs("tool", "orders.retry", 0, 0, "")
		g, err = a.Status(b.Context(), "tool")
		if err != nil {
			t.Fatal(err)
		}
		p := g.Partitions[len(g.Partitions)-1]
		wantEqual(t, "status of the retry topic", spaced(p.Topic, p.Oldest.Position.Offset, p.Oldest.Attempt, p.Held, p.NextDue.UTC().Format(time.DateOnly)), "orders.retry 1 3 1 2000-01-02")
	})
}

func TestCheckTopicsAndCreate(t *testing.T) {
	bubble(t, "", func(b *bed) {
		b.createTopic("orders", 4, map[string]string{"max.message.bytes": "2000000"})
		b.createTopic("bad.retry", 2, map[string]string{"cleanup.policy": "compact", "retention.ms": "3600000"})
		b.createTopic("bad.dead", 2, map[string]string{"retention.bytes": "1000", "max.message.bytes": "3000000"})
		a, done := b.outside()
		defer done()
		find := func(ts admin.Topics) (lines []string) {
			t.Helper()
			fs, err := a.CheckTopics(b.Context(), ts)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range fs {
				lines = append(lines, fmt.Sprintf("%s %v %v %s", f.Topic, f.Missing, f.Loses, f.Problem))
			}
			return lines
		}
		wantEqual(t, "findings", strings.Join(find(admin.Topics{Base: "orders", Retry: "bad.retry", Dead: "bad.dead"}), "\n"), strings.Join([]string{
			"bad.retry false true it is compacted: of copies with the same key one is kept",
			"bad.retry false true it takes records of 1048588 bytes and orders of 2000000: a copy that is too large stays pending",
			"bad.retry false true it forgets records after 1h0m0s, before the longest wait of 168h0m0s is over",
			"bad.dead false false it forgets dead letters after 168h0m0s, whether or not somebody has looked",
			"bad.dead false false it forgets records when a partition has more than 1000 bytes",
			"bad.retry false false it has 2 partitions and orders has 4: fewer members can share the retries",
		}, "\n"))
		ts := admin.Topics{Base: "orders", Retry: "orders.retry", Dead: "orders.dead", MaxDelay: time.Hour}
		wantEqual(t, "findings", strings.Join(find(ts), "\n"), "orders.retry true true there is no such topic\norders.dead true true there is no such topic")
		made, err := a.CreateTopics(b.Context(), ts, admin.NewTopics{Replicas: 1})
		wantEqual(t, "made", fmt.Sprint(made, err), "[orders.retry orders.dead] <nil>")
		wantEqual(t, "findings then", strings.Join(find(ts), "\n"), "")
		made, err = a.CreateTopics(b.Context(), ts, admin.NewTopics{})
		wantEqual(t, "made then", fmt.Sprint(made, err), "[] <nil>")
		if _, err := a.CreateTopics(b.Context(), admin.Topics{Base: "nowhere", Retry: "x"}, admin.NewTopics{}); err == nil {
			t.Error("topics were made for a base topic that is not there")
		}
	})
}

// spaced is the values with a space between any two.
func spaced(vs ...any) string { return strings.TrimSuffix(fmt.Sprintln(vs...), "\n") }
