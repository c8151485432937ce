package stories_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

// commitTells is what a group's commit of one partition says: its offset, -1 while there is none, and which above it are done.
func (b *bed) commitTells(group, topic string, partition int32) (offset int64, done map[int64]bool) {
	b.Helper()
	commits, err := b.adm.FetchOffsets(b.limit, group)
	o, ok := commits.Lookup(topic, partition)
	if err != nil || !ok { // the group's first member has not found the coordinator yet
		return -1, nil
	}
	m, _ := admin.DecodeMap(o.Metadata, o.At, b.ends(topic)[partition])
	done = map[int64]bool{}
	for _, s := range m.Finished {
		for at := s.From; at < s.To; at++ {
			done[at] = true
		}
	}
	return o.At, done
}

// One record blocks for ever, all others finish; the process is killed once the commit tells so. After the restart that one is delivered again,
// and no other.
func TestAKillRepeatsNothingThatTheMapTells(t *testing.T) {
	const n = 20_000
	b := story(t, 2*time.Minute)
	topic, dead, group := b.topic("orders", 1), b.topic("dead", 1), b.name("group")
	b.send(topic, numbered("", n)...)
	w := worker{Group: group, Topic: topic, Dead: dead, Instance: "one", Concurrency: 16, Handler: "blocks"}
	first := b.launchWorker(w)
	b.await("the committed map names all but one", time.Minute, func() bool {
		at, done := b.commitTells(group, topic, 0)
		return at == 0 && len(done) == n-1
	})
	first.kill()

	w.Handler = "quick"
	second := b.launchWorker(w)
	b.await("all is committed", 30*time.Second, func() bool { at, _ := b.commitTells(group, topic, 0); return at == n })
	second.clean(b)
	b.wantEqual("delivered again", second.deliveries(b), []delivery{{0, 0, false}, {0, 0, true}})
}

// Killed at any moment: what the last accepted commit tells of is not delivered again, and all else is.
func TestAKillRepeatsWhatTheLastCommitDoesNotTell(t *testing.T) {
	const n = 30_000 // more than 16 handlers of 5 ms get through in five lives, or one would have nothing to do
	b := story(t, 3*time.Minute)
	topic, dead, group := b.topic("orders", 1), b.topic("dead", 1), b.name("group")
	b.send(topic, numbered("", n)...)
	w := worker{Group: group, Topic: topic, Dead: dead, Instance: "one", Concurrency: 16, Handler: "sleeps", Commit: 100 * time.Millisecond}
	ended := map[int64]bool{}
	var offset int64
	done := map[int64]bool{}
	repeated := 0
	for life := 0; ; life++ {
		p := b.launchWorker(w)
		if life < 5 {
			b.await("it works", 30*time.Second, func() bool { info, err := os.Stat(p.Ledger); return err == nil && info.Size() > 0 })
			b.pass(time.Duration(300+rand.IntN(900)) * time.Millisecond)
			p.kill()
			b.pass(300 * time.Millisecond) // what it had sent arrives
		} else {
			b.await("all is committed", time.Minute, func() bool { at, _ := b.commitTells(group, topic, 0); return at == n })
			p.clean(b)
		}
		for _, d := range p.deliveries(b) {
			if d.offset < offset || done[d.offset] {
				t.Fatalf("life %d: %d is delivered again although the commit at %d told that it was done", life, d.offset, offset)
			}
			if d.ended {
				if ended[d.offset] {
					repeated++
				}
				ended[d.offset] = true
			}
		}
		offset, done = b.commitTells(group, topic, 0)
		for o := range done {
			if !ended[o] {
				t.Fatalf("the map tells that %d is done", o)
			}
		}
		if life == 5 {
			break
		}
	}
	b.wantEqual("handled", len(ended), n)
	t.Logf("five kills repeated %d records", repeated)
}

// The same when another member takes a partition over from one that lives.
func TestATakeoverRepeatsOnlyWhatRuns(t *testing.T) {
	const n = 10_000
	cluster := quickGroups(t)
	leavesNothing(t)
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			b := newBed(t, cluster, 2*time.Minute)
			topic, group := b.topic("orders", 2), b.name("group")
			var rs []*kgo.Record
			for i := range 2 * n {
				rs = append(rs, &kgo.Record{Topic: topic, Partition: int32(i % 2), Value: fmt.Append(nil, i)})
			}
			b.produce(rs...)
			var mu sync.Mutex
			got := map[string][]retriable.Position{}
			join := func(name string) *running {
				return b.start(group, retriable.Kafka(p.opts...), retriable.DrainTimeout(time.Second), retriable.Topic(topic,
					retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
						mu.Lock()
						got[name] = append(got[name], m.Source)
						mu.Unlock()
						if m.Offset == 0 {
							<-ctx.Done()
							return ctx.Err()
						}
						return nil
					}), retriable.NoDeadLetters()))
			}
			a := join("a")
			b.await("all but the first of each are done", time.Minute, func() bool { return a.Stats().Handled == 2*(n-1) })
			c := join("b")
			b.await("one partition has changed hands", 30*time.Second, func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(c.Stats().Partitions) == 1 && len(got["b"]) > 0
			})
			b.pass(2 * time.Second)
			mu.Lock()
			if ps := got["b"]; len(ps) != 1 || ps[0].Offset != 0 {
				t.Errorf("delivered again: %d records, %v", len(ps), ps[:min(len(ps), 3)])
			}
			mu.Unlock()
			b.wantEqual("skipped", c.Stats().Skipped, n-1)
			_ = a.end() // the blocked ones are given up
			_ = c.end()
		})
	}
}

// A record ends its process: it alone is dead-lettered, and all others are handled.
func TestARecordThatExitsIsDeadLetteredAndNoOther(t *testing.T) {
	const n, partitions = 2_400, 12
	b := story(t, 3*time.Minute)
	topic, dead, group := b.topic("orders", partitions), b.topic("dead", 1), b.name("group")
	var rs []*kgo.Record
	for i := range n {
		rs = append(rs, &kgo.Record{Topic: topic, Partition: int32(i % partitions), Key: fmt.Append(nil, "key ", i%100), Value: fmt.Append(nil, i)})
	}
	rs[1000].Value = []byte("killer")
	b.produce(rs...)
	w := worker{Group: group, Topic: topic, Dead: dead, Instance: "one", Concurrency: 16, Handler: "exits"}
	handled := map[string]bool{}
	lives := 0
	for over := false; !over; {
		if lives++; lives > 12 {
			t.Fatal("there is no end to it")
		}
		p := b.launchWorker(w)
		b.await("it ends, or all is committed", time.Minute, func() bool {
			over = true
			for p, end := range b.ends(topic) {
				at, _ := b.commitTells(group, topic, p)
				over = over && at == end
			}
			return over || p.ended()
		})
		if over {
			p.clean(b)
		}
		for _, d := range p.deliveries(b) {
			if d.ended {
				handled[fmt.Sprint(d.partition, d.offset)] = true
			}
		}
	}
	t.Logf("%d deaths", lives-1)
	b.wantEqual("handled", len(handled), n-1)
	letters := b.read(dead)
	if len(letters) != 1 || string(letters[0].Value) != "killer" {
		t.Fatalf("%d dead letters", len(letters))
	}
	b.wantHeader(letters[0], "__dlq.errors.message", "killed its process (3 crashes)")
	b.wantHeader(letters[0], "__dlq.errors.partition", 1000%partitions)
	b.wantHeader(letters[0], "__dlq.errors.offset", rs[1000].Offset)
}
