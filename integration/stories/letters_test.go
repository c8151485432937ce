package stories_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/broker"
	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

// What the replayer, a process of its own that is killed, is told: brokers and an admin.Replay.
const (
	replayerBrokers = "RETRIABLE_TEST_REPLAYER_BROKERS"
	replayerReplay  = "RETRIABLE_TEST_REPLAYER_REPLAY"
)

// replayer sends letters back and prints how many it has sent.
func replayer() {
	var r admin.Replay
	if err := json.Unmarshal([]byte(os.Getenv(replayerReplay)), &r); err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	r.Progress = func(res admin.ReplayResult) { fmt.Println("sent", res.Sent) }
	c, err := admin.New(kgo.SeedBrokers(strings.Split(os.Getenv(replayerBrokers), ",")...))
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	res, err := c.Replay(context.Background(), r)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("done", res.Sent)
}

// outside makes a client that looks from outside.
func (b *bed) outside() *admin.Client {
	b.Helper()
	c, err := admin.New(kgo.SeedBrokers(b.cluster.Addrs()...), kgo.DisableClientMetrics())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c
}

// Ten thousand dead letters, listed, counted, tried dry, and sent back by a process that is killed again and again in the middle: the consumer, which runs
// all the while, handles each exactly once more.
func TestTenThousandLettersGoBack(t *testing.T) {
	const all = 10_000
	b := story(t, 3*time.Minute)
	orders, retry, dead, group := b.topic("orders", 4), b.topic("orders.retry", 3), b.topic("orders.dead", 2), b.name("billing")

	var mu sync.Mutex
	mended, handled := false, map[string]int{}
	c := b.start(group, retriable.Concurrency(64), retriable.Topic(orders, handles(func(m *retriable.Message) error {
		mu.Lock()
		defer mu.Unlock()
		if !mended {
			n, err := strconv.Atoi(string(m.Value))
			if err == nil && n%2 == 1 {
				return retriable.Permanent(errors.New("an odd one"))
			}
			return errors.New("the bank said no")
		}
		if m.Topic != orders || m.Attempt != 1 || string(m.Key) != "k"+string(m.Value) {
			t.Errorf("%s came back as %s/%d/%d, attempt %d, key %s", m.Value, m.Topic, m.Partition, m.Offset, m.Attempt, m.Key)
		}
		handled[string(m.Value)]++
		return nil
	}), retriable.RetryTopic(retry), retriable.DeadLetterTopic(dead), retriable.MaxAttempts(2), retriable.Backoff(retriable.Constant(0))))
	for i := range all {
		b.cl.Produce(b.limit, &kgo.Record{Topic: orders, Partition: -1, Key: fmt.Appendf(nil, "k%d", i), Value: []byte(strconv.Itoa(i))}, nil)
	}
	if err := b.cl.Flush(b.limit); err != nil {
		t.Fatal(err)
	}
	b.await("all are dead letters", time.Minute, func() bool { return c.Stats().DeadLettered == all })

	a := b.outside()
	began, n := time.Now(), 0
	for l, err := range a.List(b.limit, dead, admin.Filter{Group: group}) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; l.Origin.Topic != orders || l.Group != group || l.Sent {
			t.Fatalf("the letter %+v", l)
		}
	}
	listed := time.Since(began)
	b.wantEqual("letters listed", n, all)
	s, err := a.Summary(b.limit, dead, admin.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, r := range s.Reasons {
		reasons = append(reasons, fmt.Sprintf("%d %s", r.Letters, r.Reason))
	}
	b.wantEqual("summary", strings.Join(reasons, ", "), "5000 all 2 attempts failed, 5000 permanent failure")
	r := admin.Replay{From: dead, To: retry, Group: group, Topic: orders, DryRun: true, Filter: admin.Filter{Reason: "permanent"}}
	res, err := a.Replay(b.limit, r)
	b.wantEqual("a filtered dry run", fmt.Sprint(res.Sent, res.Unmatched, err), "5000 5000 <nil>")
	mu.Lock()
	b.wantEqual("handled by then", len(handled), 0)
	mended = true
	mu.Unlock()

	// The odd ones first, then all, at a pace that leaves time to be killed.
	kills := 0
	for _, filter := range []admin.Filter{{Reason: "permanent"}, {}} {
		r.DryRun, r.Filter, r.Rate, r.Page = false, filter, 1000, 50
		for try := 0; ; try++ {
			out, killed := b.replay(r, 400+try*300, try < 4)
			if !killed {
				if !strings.Contains(out, "done ") {
					t.Fatalf("the replay failed:\n%s", out)
				}
				break
			}
			kills++
		}
	}
	if kills < 6 {
		t.Errorf("it was killed %d times, want more", kills)
	}
	b.await("all are handled", 30*time.Second, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(handled) == all
	})
	res, err = a.Replay(b.limit, admin.Replay{From: dead, To: retry, Group: group, Topic: orders})
	b.wantEqual("sent by one more replay, and kept", fmt.Sprint(res.Sent, res.Kept, err), "0 true <nil>")
	b.await("the retry topic is finished", 30*time.Second, func() bool {
		g, err := a.Status(b.limit, group)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range g.Partitions {
			if p.Oldest != nil {
				return false
			}
		}
		return true
	})
	c.clean()
	for v, n := range handled {
		if n != 1 {
			t.Errorf("%s was handled %d times after it was sent back", v, n)
		}
	}
	t.Logf("%d letters listed in %v; killed %d times", all, listed.Round(time.Millisecond), kills)

	below, err := a.Sent(b.limit, dead, group)
	if err != nil {
		t.Fatal(err)
	}
	begin, err := a.Purge(b.limit, dead, below)
	if err != nil {
		t.Fatal(err)
	}
	b.wantEqual("it begins where all was sent", begin, below)
	b.wantEqual("which is its end", begin, b.ends(dead))
}

// replay has a process of its own send letters back, and kills it once it has sent so many. It returns what that printed.
func (b *bed) replay(r admin.Replay, after int, kill bool) (out string, killed bool) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	told, err := json.Marshal(struct {
		From, To, Group, Topic string
		Rate                   float64
		Page                   int
		Filter                 struct{ Reason string }
	}{r.From, r.To, r.Group, r.Topic, r.Rate, r.Page, struct{ Reason string }{r.Filter.Reason}})
	if err != nil {
		b.Fatal(err)
	}
	printed := &lines{}
	cmd := exec.CommandContext(b.limit, self)
	cmd.Env = append(os.Environ(), replayerBrokers+"="+strings.Join(b.cluster.Addrs(), ","), replayerReplay+"="+string(told))
	cmd.Stdout, cmd.Stderr = printed, printed
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // what it printed tells how it ended
		close(ended)
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return printed.String(), false
		case <-tick.C:
		}
		if kill && strings.Contains(printed.String(), fmt.Sprintf("sent %d\n", after)) {
			_ = cmd.Process.Kill() // wherever it is
			<-ended
			return printed.String(), true
		}
	}
}

// One record blocks; from outside its offset and age are named, whichever the group's protocol, and nothing of the process is asked.
func TestStatusNamesABlockedRecord(t *testing.T) {
	for name, opts := range map[string][]kgo.Opt{"classic": nil, "consumer": {kgo.ServerSideBalancer()}} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, broker.Shared(t), time.Minute)
			orders, retry, dead, group := b.topic("orders", 2), b.topic("retry", 1), b.topic("dead", 1), b.name("billing")
			release := make(chan struct{})
			c := b.start(group, retriable.Kafka(opts...), retriable.CommitInterval(100*time.Millisecond), retriable.Topic(orders, handles(func(m *retriable.Message) error {
				switch string(m.Value) {
				case "blocked":
					<-release
				case "fails":
					return retriable.RetryAfter(errors.New("the bank said no"), time.Hour)
				}
				return nil
			}), retriable.RetryTopic(retry), retriable.DeadLetterTopic(dead)))
			written := time.Now().Add(-10 * time.Minute).Truncate(time.Millisecond)
			for i, v := range []string{"fine", "blocked", "fine", "fails", "fine"} {
				b.produce(&kgo.Record{Topic: orders, Partition: 1, Key: fmt.Appendf(nil, "k%d", i), Value: []byte(v), Timestamp: written})
			}
			a := b.outside()
			var got string
			want := strings.Join([]string{
				name + " Stable, a member with 3 partitions",
				fmt.Sprintf("%s/0: committed 0 of 0", orders),
				fmt.Sprintf("%s/1: committed 1 of 5, 3 finished above, oldest 1 at attempt 1 since %s", orders, written.UTC().Format(time.RFC3339Nano)),
				fmt.Sprintf("%s/0: committed 0 of 1, oldest 0 at attempt 2, 1 held", retry),
			}, "\n")
			b.comesTrue(20*time.Second, func() bool { got = b.told(a, group); return got == want })
			close(release)
			b.wantEqual("status", got, want)
			c.clean()
			g, err := a.Status(b.limit, group)
			if err != nil {
				t.Fatal(err)
			}
			b.wantEqual("protocol and state of the stopped group", fmt.Sprintf("%s %s %d", g.Protocol, g.State, len(g.Members)), name+" Empty 0")
		})
	}
}

// told is what the status of a group tells, in one line.
func (b *bed) told(a *admin.Client, group string) string {
	b.Helper()
	g, err := a.Status(b.limit, group)
	if err != nil {
		b.Fatal(err)
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s", g.Protocol, g.State)
	for _, m := range g.Members {
		fmt.Fprintf(&s, ", a member with %d partitions", m.Partitions)
	}
	for _, p := range g.Partitions {
		fmt.Fprintf(&s, "\n%s/%d: committed %d of %d", p.Topic, p.Partition, p.Committed, p.End)
		if p.Finished > 0 {
			fmt.Fprintf(&s, ", %d finished above", p.Finished)
		}
		if w := p.Oldest; w != nil {
			fmt.Fprintf(&s, ", oldest %d at attempt %d", w.Position.Offset, w.Attempt)
			if !p.Retry {
				fmt.Fprintf(&s, " since %s", w.Time.UTC().Format(time.RFC3339Nano))
			}
		}
		if p.Held > 0 {
			fmt.Fprintf(&s, ", %d held", p.Held)
		}
		if len(g.Members) > 0 && p.Member != g.Members[0].ID {
			fmt.Fprintf(&s, ", of member %q", p.Member)
		}
		if p.Err != nil {
			fmt.Fprintf(&s, ", error %v", p.Err)
		}
	}
	return s.String()
}
