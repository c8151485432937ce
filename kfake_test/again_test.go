package kfake_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// moves is a HookRewritten that keeps what it is told, and when.
type moves struct {
	mu sync.Mutex
	ms []move
}

type move struct {
	retriable.Rewritten
	at time.Time
}

func (m *moves) OnRewritten(r retriable.Rewritten) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ms = append(m.ms, move{r, time.Now()})
}

func (m *moves) all() []move {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]move(nil), m.ms...)
}

// What waits for long does not pin its partition: once it is half full the oldest move to the tail, and all start when they are due, once.
func TestLongHoldsMoveToTheTail(t *testing.T) {
	const n, wait = 100, 2 * time.Hour
	for _, c := range []struct {
		name string
		opt  retriable.Option
	}{
		{"MaxHeld is half full", retriable.MaxHeld(60)},
		{"MaxWindow is half full", retriable.MaxWindow(60)},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, "orders orders.retry orders.dead", func(b *bed) {
				var l ledger
				var m moves
				var seen messages
				r := b.begin("g", retriable.Kafka(kgo.HeartbeatInterval(20*time.Second), kgo.SessionTimeout(2*time.Minute)), c.opt, retriable.Hooks(&m), retriable.Topic("orders", handles(func(msg *retriable.Message) error {
					l.note(msg)
					if msg.Attempt == 1 {
						return retriable.RetryAfter(errNo, wait)
					}
					seen.keep(msg)
					return nil
				}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
				var rs []*kgo.Record
				for i := range n {
					rs = append(rs, &kgo.Record{Topic: "orders", Key: fmt.Append(nil, "k", i), Value: strconv.AppendInt(nil, int64(i), 10), Headers: users})
				}
				began := time.Now()
				b.send(rs...)
				time.Sleep(time.Minute)
				at := r.partition("orders.retry", 0)
				if at.Watermark < n/4 || r.Stats().Rewritten == 0 {
					t.Errorf("after a minute the watermark is at %d, %d were written again", at.Watermark, r.Stats().Rewritten)
				}
				last := at.Committed
				for range 5 {
					time.Sleep(20 * time.Minute)
					p := r.partition("orders.retry", 0)
					if p.Committed <= last {
						t.Errorf("the committed offset stays at %d", p.Committed)
					}
					last = p.Committed
				}
				time.Sleep(30 * time.Minute)

				for i := range n {
					ds := l.of(strconv.Itoa(i))
					if len(ds) != 2 || ds[1].attempt != 2 {
						t.Fatalf("%d: deliveries %+v", i, ds)
					}
					if late := ds[1].at.Sub(ds[0].at) - wait; late < 0 || late > 5*time.Second {
						t.Errorf("%d started %v after it was due", i, late)
					}
				}
				for _, msg := range seen.all() {
					wantEqual(t, "as it was produced", fmt.Sprint(msg.Topic, msg.Partition, msg.Offset == atoi(string(msg.Value)), msg.LastError, msg.FirstFailure.Sub(began) < time.Second, headers(msg.Record)),
						fmt.Sprint("orders", 0, true, errNo.Error(), true, usersPrinted))
				}
				for _, e := range m.all() {
					if e.Attempt != 2 || e.Topic != "orders.retry" || e.at.After(e.Due.Add(-time.Minute)) {
						t.Errorf("%+v at %v", e.Rewritten, e.at)
					}
				}
				most := 0
				for _, rec := range b.read("orders.retry") {
					if _, ok := header(rec, "retriable_rewritten"); ok {
						most++
					}
				}
				wantEqual(t, "copies that say that they were written again", most, r.Stats().Rewritten)
				t.Logf("%d copies of %d were written again", most, n)
				if most > 30*n {
					t.Errorf("%d rewrites", most)
				}
				r.clean()
				wantEqual(t, "committed", b.committed("g", "orders.retry", 0), int64(n+most))
			})
		})
	}
}

func atoi(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// A copy is never written again twice within the longer of a minute and an eighth of what remains, in whatever hands it is meanwhile.
func TestACopyIsNotWrittenAgainTooSoon(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		topic := retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), none(), retriable.RetryTopic("orders.retry"))
		for i := range 12 { // each has a due time of its own, by which it is known
			b.send(retry(strconv.Itoa(i), 5*time.Hour+time.Duration(i)*time.Second))
		}
		var m moves
		for range 16 {
			r := b.begin("g", patient(), retriable.MaxHeld(10), retriable.Hooks(&m), topic)
			time.Sleep(20 * time.Minute)
			r.clean()
		}
		last, times := map[int64]time.Time{}, 0
		for _, e := range m.all() {
			k := e.Due.UnixMilli()
			left := e.Due.Sub(e.at)
			if before, ok := last[k]; ok {
				times++
				if since := e.at.Sub(before); since < max(time.Minute, left/8)-time.Second { // headers tell milliseconds, and hooks hear of a copy when it is acked
					t.Errorf("written again %v after it was, with %v left", since, left)
				}
			}
			if left < time.Minute {
				t.Errorf("written again %v before it is due", left)
			}
			last[k] = e.at
		}
		if len(last) < 12 || times < 50 {
			t.Errorf("%d records were written again, %d times more than once: the story shows nothing", len(last), times)
		}
	})
}

// While its retry topic refuses writes what waits stays held, and starts when it is due.
func TestAMoveThatIsRefusedMakesNothingLate(t *testing.T) { // I7, I9
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		var l ledger
		began := time.Now()
		for i := range 20 {
			b.send(retry(strconv.Itoa(i), 10*time.Minute+time.Duration(i)*time.Second))
		}
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: -1})
		r := b.begin("g", patient(), retriable.MaxHeld(30), retriable.Topic("orders", handles(func(m *retriable.Message) error { l.note(m); return nil }), none(), retriable.RetryTopic("orders.retry")))
		time.Sleep(5 * time.Minute)
		st := r.Stats()
		if st.ProduceFailures == 0 || st.ProduceFailures > 20*61 || st.Rewritten != 0 {
			t.Errorf("%d refused writes, %d rewritten", st.ProduceFailures, st.Rewritten)
		}
		wantEqual(t, "warnings", len(b.log.lines("level=WARN", "writes are refused")), 1)
		wantEqual(t, "held", r.partition("orders.retry", 0).Held, 20)
		time.Sleep(6 * time.Minute)
		l.once(t, 20)
		for i := range 20 {
			wantEqual(t, "started after", l.of(strconv.Itoa(i))[0].at.Sub(began).Truncate(time.Second), 10*time.Minute+time.Duration(i)*time.Second)
		}
		r.clean()
		wantEqual(t, "committed", b.committed("g", "orders.retry", 0), 20)
	})
}

// Tiers.

const tiered = "orders:2 orders.retry:2 orders.1m:2 orders.10m:2 orders.1h:2 orders.dead"

func tiers(more ...retriable.TopicOption) []retriable.TopicOption {
	return append([]retriable.TopicOption{
		retriable.RetryTopic("orders.retry"), retriable.RetryTier("orders.10m", 10*time.Minute),
		retriable.RetryTier("orders.1m", time.Minute), retriable.RetryTier("orders.1h", time.Hour), retriable.DeadLetterTopic("orders.dead"),
	}, more...)
}

func TestARecordHopsThroughTheTiersUntilItIsDue(t *testing.T) { // I7, I8
	for _, c := range []struct {
		wait time.Duration
		path []string
	}{
		{0, []string{"retry"}},
		{59 * time.Second, []string{"retry"}},
		{time.Minute, []string{"1m"}},
		{3*time.Minute + 30*time.Second, []string{"1m", "1m", "1m", "retry"}},
		{10 * time.Minute, []string{"10m"}},
		{2*time.Hour + 21*time.Minute + 5*time.Second, []string{"1h", "1h", "10m", "10m", "1m", "retry"}},
	} {
		t.Run(c.wait.String(), func(t *testing.T) {
			bubble(t, tiered, func(b *bed) {
				var l ledger
				var m moves
				r := b.begin("g", patient(), retriable.Hooks(&m), retriable.Topic("orders", handles(func(msg *retriable.Message) error {
					l.note(msg)
					if msg.Attempt < 3 {
						return retriable.RetryAfter(errNo, c.wait)
					}
					return nil
				}), tiers()...))
				b.produce("orders", 1, "k=v")
				time.Sleep(3*c.wait + time.Minute)
				ds := l.all()
				if len(ds) != 3 {
					t.Fatalf("%d deliveries", len(ds))
				}
				for i, d := range ds[1:] {
					wantEqual(t, "attempt", d.attempt, i+2)
					wantEqual(t, "read from", d.source.Topic, "orders."+c.path[len(c.path)-1])
					if late := d.at.Sub(ds[i].at) - c.wait; late < 0 || late > 600*time.Millisecond {
						t.Errorf("attempt %d started %v after it was due", d.attempt, late)
					}
				}
				var path []string
				for _, e := range m.all() {
					if e.Attempt == 2 {
						path = append(path, e.Topic[len("orders."):])
					}
				}
				wantEqual(t, "hops", path, c.path[1:])
				wantEqual(t, "rewritten", r.Stats().Rewritten, 2*len(path))
				wantEqual(t, "retried", r.Stats().Retried, 2)
				r.clean()
				for _, topic := range []string{"orders", "orders.retry", "orders.1m", "orders.10m", "orders.1h"} {
					for p := range int32(2) {
						wantEqual(t, "committed in "+topic, max(b.committed("g", topic, p), 0), b.cluster.PartitionInfo(topic, p).HighWatermark)
					}
				}
			})
		})
	}
}

// However many wait in a tier, few are read ahead of the one that is due next, and all start in time.
func TestATierIsNotReadAhead(t *testing.T) {
	const n = 5000
	bubble(t, tiered, func(b *bed) {
		var l ledger
		r := b.begin("g", patient(), retriable.Concurrency(64), retriable.Topic("orders", handles(func(msg *retriable.Message) error {
			l.note(msg)
			if msg.Attempt == 1 {
				return retriable.RetryAfter(errNo, 10*time.Minute)
			}
			return nil
		}), tiers()...))
		began := time.Now()
		for i := range 50 {
			b.produce("orders", 0, seq(n)[i*100:(i+1)*100]...)
			time.Sleep(5 * time.Second)
		}
		for time.Since(began) < 9*time.Minute {
			time.Sleep(10 * time.Second)
			for p := range int32(2) {
				if held := r.partition("orders.10m", p).Held; held > 1000 {
					t.Fatalf("%d are held in a tier", held)
				}
			}
		}
		waits := 0
		for p := range int32(2) {
			waits += int(b.cluster.PartitionInfo("orders.10m", p).HighWatermark - b.committed("g", "orders.10m", p))
		}
		wantEqual(t, "wait", waits, n)
		time.Sleep(10 * time.Minute)
		firsts := map[string]time.Time{}
		for _, d := range l.all() {
			if d.attempt == 1 {
				firsts[d.value] = d.at
				continue
			}
			if late := d.at.Sub(firsts[d.value]) - 10*time.Minute; late < 0 || late > 50*time.Millisecond {
				t.Fatalf("%s started %v after it was due", d.value, late)
			}
		}
		wantEqual(t, "deliveries", len(l.all()), 2*n)
		r.clean()
	})
}

func TestTiersAreMadeAndChecked(t *testing.T) {
	bubble(t, "orders orders.dead", func(b *bed) {
		topic := retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), tiers()...)
		c, err := retriable.New("g", b.options(topic)...)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Run(b.Context()); err == nil || !contains(err.Error(), "orders.retry", "orders.1m", "orders.10m", "orders.1h") {
			t.Errorf("Run without the topics: %v", err)
		}
		r := b.begin("g", retriable.CreateTopics(3, 1), topic)
		for _, name := range []string{"orders.retry", "orders.1m", "orders.10m", "orders.1h"} {
			if b.cluster.PartitionInfo(name, 2) == nil || b.cluster.PartitionInfo(name, 3) != nil {
				t.Errorf("%s was not made with 3 partitions", name)
			}
		}
		wantEqual(t, "partitions", len(r.Stats().Partitions), 1+4*3)
		if err := r.Health(b.Context()); err != nil {
			t.Error(err)
		}
		r.clean()
	})
}

func contains(s string, all ...string) bool {
	return !slices.ContainsFunc(all, func(a string) bool { return !strings.Contains(s, a) })
}
