package stories_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/integration/interop"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// (d) Members of both kinds share a group and come and go under load; one Python member is killed. One record in ten fails at first. The
// conditions hold under which a Python member loses nothing by itself: handlers take 20 ms or more, it waits for them for longer than they take,
// no more messages are given to its threads than there are threads, and no record needs all its retries.
//
// No record is lost, whoever had it. Every second delivery is explained (see mixed.explain).
func TestAGroupOfBothKindsLosesNothing(t *testing.T) {
	b := beside(t, 3*time.Minute)
	g := &mixed{
		peers: b, base: b.topic("orders", mixedPartitions), retry: b.topic("retry", 4), dead: b.topic("dead", 1), group: b.name("group"),
		failed: map[int]bool{},
	}
	stop := g.load()

	// One of each stays, the others come and go.
	first := g.goMember()
	g.pythonMember(2)
	for turn, guest := range []string{"Go", "Python", "Go", "Python, killed", "Go", "Python", "Go"} {
		b.pass(time.Second)
		if guest == "Go" {
			m := g.goMember()
			b.grown(g.group, 3)
			b.pass(2 * time.Second)
			m.clean()
		} else {
			m := g.pythonMember(3)
			b.pass(2 * time.Second)
			if guest == "Python" {
				b.leave(m)
			} else {
				g.killed = append(g.killed, mixedKill{pythonName(len(g.snakes) - 1), time.Now()})
				m.Kill()
			}
		}
		b.grown(g.group, 2)
		t.Logf("turn %d: %s came and went", turn+1, guest)
	}
	n := stop()

	complete := b.comesTrue(30*time.Second, func() bool { return len(g.succeeded()) == n })
	b.pass(2 * time.Second) // for what comes again
	for _, m := range g.snakes {
		select {
		case <-m.Ended():
		default:
			b.leave(m)
		}
	}
	first.clean()
	g.account(n, complete)
}

const (
	mixedPartitions = 8
	mixedTakes      = 25 * time.Millisecond
	mixedAttempts   = 10
)

// mixed is a group of both kinds.
type mixed struct {
	*peers
	base, retry, dead, group string
	snakes                   []*interop.Member
	killed                   []mixedKill

	mu      sync.Mutex
	members int
	calls   []mixedCall // here
	takes   []mixedTake // here
	failed  map[int]bool
}

type mixedKill struct {
	member string
	at     time.Time
}

// mixedTake is a partition that a member took up. What was committed before it asked was in force.
type mixedTake struct {
	member    string
	topic     string
	partition int32
	asked     time.Time
}

// mixedEar hears when a member of this library takes partitions up.
type mixedEar struct {
	*mixed
	member string
	asked  time.Time // for what is committed, last; guarded by mu
}

func (e *mixedEar) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, wait, took time.Duration, _ error) {
	if kmsg.Key(key) == kmsg.OffsetFetch {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.asked = time.Now().Add(-wait - took) // the broker looks no earlier
	}
}

func (e *mixedEar) OnAssigned(a retriable.Assigned) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.takes = append(e.takes, mixedTake{e.member, a.Topic, a.Partition, e.asked})
}

// mixedCall is one call of a handler, here or at Python.
type mixedCall struct {
	id           int
	member       string
	source       retriable.Position
	began, ended time.Time
	ok           bool
}

// goMember starts a member of this library.
func (g *mixed) goMember() *running {
	g.Helper()
	g.members++
	name := fmt.Sprintf("Go %d", g.members)
	ear := &mixedEar{mixed: g, member: name}
	return g.start(g.group, retriable.Topic(g.base, handles(func(m *retriable.Message) error {
		var body struct{ ID int }
		if err := json.Unmarshal(m.Value, &body); err != nil {
			return retriable.Permanent(err)
		}
		k := mixedCall{id: body.ID, member: name, source: m.Source, began: time.Now(), ok: true}
		g.pass(mixedTakes)
		g.mu.Lock()
		defer g.mu.Unlock()
		if body.ID%10 == 0 && !g.failed[body.ID] {
			g.failed[body.ID], k.ok = true, false
		}
		k.ended = time.Now()
		g.calls = append(g.calls, k)
		if !k.ok { // some are due sooner than others that failed before
			return retriable.RetryAfter(errors.New("not yet"), time.Duration(1+body.ID/10%4)*time.Second)
		}
		return nil
	}), retriable.RetryTopic(g.retry), retriable.DeadLetterTopic(g.dead), retriable.MaxAttempts(mixedAttempts)),
		retriable.Hooks(ear), retriable.Kafka(kgo.WithHooks(ear)))
}

// pythonMember starts a Python member; so many the group then has.
func (g *mixed) pythonMember(members int) *interop.Member {
	g.Helper()
	m := g.join(members, interop.Consuming{
		Group: g.group, Topic: g.base, Retry: g.retry, Retries: mixedAttempts - 1, Delay: 1, CancelWait: 10,
		Sleep: mixedTakes.Seconds(), Fail: 1, FailEvery: 10,
	})
	g.snakes = append(g.snakes, m)
	return m
}

// load produces some records a second until it is stopped, which returns how many there are.
func (g *mixed) load() (stop func() int) {
	end, ended := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { ended <- n }()
		tick := time.NewTicker(16 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				r := &kgo.Record{Topic: g.base, Partition: int32(n % mixedPartitions), Value: fmt.Appendf(nil, `{"id": %d}`, n)}
				g.cl.Produce(g.limit, r, nil)
				n++
			case <-end:
				return
			}
		}
	}()
	return func() int {
		g.Helper()
		close(end)
		n := <-ended
		if err := g.cl.Flush(g.limit); err != nil {
			g.Fatal(err)
		}
		return n
	}
}

// all returns every call of a handler, by its end.
func (g *mixed) all() []mixedCall {
	g.mu.Lock()
	cs := slices.Clone(g.calls)
	g.mu.Unlock()
	for i, m := range g.snakes {
		began := map[string]float64{}
		for _, e := range m.Events("call") {
			began[fmt.Sprint(e.ID, e.N)] = e.At
		}
		for _, e := range m.Events("done") {
			id, _ := strconv.Atoi(e.ID)
			cs = append(cs, mixedCall{
				id: id, member: pythonName(i), ok: e.OK,
				source: retriable.Position{Topic: e.Topic, Partition: e.Partition, Offset: e.Offset},
				began:  unix(began[fmt.Sprint(e.ID, e.N)]), ended: unix(e.At),
			})
		}
	}
	slices.SortFunc(cs, func(a, b mixedCall) int { return a.ended.Compare(b.ended) })
	return cs
}

func unix(at float64) time.Time { return time.UnixMicro(int64(at * 1e6)) }

// succeeded returns how often each record was handled with success.
func (g *mixed) succeeded() map[int]int {
	by := map[int]int{}
	for _, k := range g.all() {
		if k.ok {
			by[k.id]++
		}
	}
	return by
}

// account says what became of the records.
func (g *mixed) account(n int, complete bool) {
	g.Helper()
	succeeded := g.succeeded()
	if !complete {
		for id := range n {
			if succeeded[id] == 0 {
				g.Errorf("record %d, of partition %d, is lost", id, id%mixedPartitions)
			}
		}
	}
	last := map[retriable.Position]mixedCall{} // the last delivery from there
	shares, why, again := map[string]int{}, map[string]int{}, map[int]int{}
	for _, k := range g.all() {
		shares[strings.Fields(k.member)[0]]++
		before, is := last[k.source]
		last[k.source] = k
		if !is {
			continue
		}
		again[k.id]++ // and if both failed there are two copies, and two successes may come of it
		reason := g.explain(before, k)
		if why[reason]++; reason == "" {
			g.Errorf("delivered again for no reason: %+v, then %+v", before, k)
		}
	}
	for id, n := range succeeded {
		if n > 1+again[id] {
			g.Errorf("record %d has succeeded %d times, but only %d of its deliveries were second ones", id, n, again[id])
		}
	}
	g.Logf("%d records, calls by kind of member: %v; delivered again: %v", n, shares, why)
	if shares["Go"] < n/10 || shares["Python"] < n/10 {
		g.Error("one kind of member had next to nothing: this shows nothing")
	}
	g.wantEqual("dead letters", g.ends(g.dead)[0], 0)
}

// explain says why what lies somewhere was delivered a second time. There are three reasons, all of them a Python member's:
//
// One that is killed has not committed what it handled last: it commits when the next record comes.
//
// One that gives a partition up has not committed either what was refused while the group moved on, nor what ended just then: it waits for its
// handlers, and not for what it does after them, the write of a copy above all.
//
// One that does commit does without the map of what is finished above the offset, neither reading nor writing it, and at times commits late, what it
// was refused before. So what was finished above comes again.
func (g *mixed) explain(first, second mixedCall) string {
	for _, k := range g.killed {
		if first.member == k.member && second.began.After(k.at) {
			return "a Python member was killed"
		}
	}
	passed := func(offset int64) bool { return offset > first.source.Offset }
	below := func(offset int64) bool { return !passed(offset) }
	then := g.taken(second)
	if !then.After(first.began) {
		then = second.began // it was not taken up anew
	}
	if strings.HasPrefix(first.member, "Python") && !g.pythonCommits(first, then, passed) {
		return "a Python member had not committed it"
	}
	if first.source.Topic == g.retry && strings.HasPrefix(second.member, "Python") || g.pythonCommits(first, second.began, below) {
		return "a Python member does without the map"
	}
	return ""
}

// taken returns when the member of a call took the partition up that the call is about.
func (g *mixed) taken(k mixedCall) (asked time.Time) {
	for _, t := range g.takings() {
		if t.member == k.member && t.topic == k.source.Topic && t.partition == k.source.Partition && t.asked.After(asked) && t.asked.Before(k.began) {
			asked = t.asked
		}
	}
	return asked
}

// takings returns what members took up, of both kinds.
func (g *mixed) takings() []mixedTake {
	g.mu.Lock()
	ts := slices.Clone(g.takes)
	g.mu.Unlock()
	for i, m := range g.snakes {
		for _, e := range m.Events("assign") {
			for _, o := range e.Offsets {
				topic, partition, _ := place(o)
				ts = append(ts, mixedTake{pythonName(i), topic, partition, unix(e.At)})
			}
		}
	}
	return ts
}

// pythonCommits reports whether between a delivery from somewhere and then a Python member committed such an offset of the partition.
func (g *mixed) pythonCommits(first mixedCall, then time.Time, such func(offset int64) bool) bool {
	for _, m := range g.snakes {
		for _, e := range m.Events("commit") {
			if at := unix(e.At); e.Error != "" || at.Before(first.ended) || at.After(then) {
				continue
			}
			for _, o := range e.Offsets {
				topic, partition, offset := place(o)
				if topic == first.source.Topic && partition == first.source.Partition && such(offset) {
					return true
				}
			}
		}
	}
	return false
}

// place reads what a Python member told of: a topic, a partition and an offset.
func place(o [3]any) (topic string, partition int32, offset int64) {
	topic, _ = o[0].(string)
	p, _ := o[1].(float64)
	at, _ := o[2].(float64)
	return topic, int32(p), int64(at)
}

func pythonName(i int) string { return fmt.Sprintf("Python %d", i+1) }
