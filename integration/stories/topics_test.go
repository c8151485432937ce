package stories_test

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// tally counts deliveries by the value of the record, and knows the attempts.
type tally struct {
	mu sync.Mutex
	n  map[string]int
	at map[string]retriable.Position // of the last delivery
}

func (l *tally) note(m *retriable.Message) (deliveries int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == nil {
		l.n, l.at = map[string]int{}, map[string]retriable.Position{}
	}
	v := string(m.Value)
	l.n[v]++
	l.at[v] = m.Source
	return l.n[v]
}

func (l *tally) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.n)
}

// each fails for every value that was not delivered so often, or should not have been at all.
func (l *tally) each(b *bed, values []string, times int) {
	b.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	known := map[string]bool{}
	for _, v := range values {
		if known[v] = true; l.n[v] != times {
			b.Errorf("%s was delivered %d times, want %d", v, l.n[v], times)
		}
	}
	for v, n := range l.n {
		if !known[v] {
			b.Errorf("%s was delivered %d times, want 0", v, n)
		}
	}
}

// numbered is the values prefix0, prefix1…
func numbered(prefix string, n int) (vs []string) {
	for i := range n {
		vs = append(vs, prefix+strconv.Itoa(i))
	}
	return vs
}

// send writes values to a topic, each its own key.
func (b *bed) send(topic string, values ...string) {
	b.Helper()
	var rs []*kgo.Record
	for _, v := range values {
		rs = append(rs, &kgo.Record{Topic: topic, Partition: -1, Key: []byte(v), Value: []byte(v)})
	}
	b.produce(rs...)
}

// remove deletes a topic and waits until it is gone.
func (b *bed) remove(topic string) {
	b.Helper()
	if _, err := b.adm.DeleteTopic(b.limit, topic); err != nil {
		b.Fatalf("deleting %s: %v", topic, err)
	}
	b.await("it is gone", 20*time.Second, func() bool {
		ts, err := b.adm.ListTopics(b.limit, topic)
		return err == nil && !ts.Has(topic)
	})
	b.cl.PurgeTopicsFromProducing(topic) // kgo would go on with the old one's id
}

func TestARetryTopicIsDeletedAndMadeAnew(t *testing.T) {
	b := story(t, 2*time.Minute)
	base, retry, group := b.topic("orders", 2), b.topic("retry", 2), b.name("group")
	var l tally
	c := b.start(group, retriable.Topic(base, handles(func(m *retriable.Message) error {
		l.note(m)
		if m.Attempt == 1 {
			return errors.New("not yet")
		}
		return nil
	}), retriable.RetryTopic(retry), retriable.NoDeadLetters(), retriable.Backoff(retriable.Constant(100*time.Millisecond))))
	before, during, after := numbered("before-", 50), numbered("during-", 50), numbered("after-", 50)
	b.send(base, before...)
	b.await("all are retried", 20*time.Second, func() bool { return c.Stats().Handled == 50 })
	b.await("and committed", 10*time.Second, func() bool {
		p, _ := c.part(retry, 0)
		q, _ := c.part(retry, 1)
		return p.Committed+q.Committed == 50
	})

	b.remove(retry)
	b.send(base, during...)
	b.await("Health names the topic", 60*time.Second, func() bool {
		e, ok := is[*retriable.ProduceError](c.health())
		return ok && e.Topic == retry
	})
	t.Logf("while it is gone: %v", c.health())
	b.wantEqual("failed once each", c.Stats().Failed, 100)
	p, _ := c.part(base, 0)
	q, _ := c.part(base, 1)
	b.wantEqual("resolved, and pending", fmt.Sprint(p.Watermark+q.Watermark, p.Pending+q.Pending), "50 50")

	b.create(retry, 2)
	b.send(base, after...)
	began := time.Now()
	ok := b.comesTrue(30*time.Second, func() bool { return c.Stats().Handled == 150 })
	t.Logf("%d of 150 handled %v after it was made anew; Health: %v", c.Stats().Handled, time.Since(began).Round(time.Millisecond), c.health())
	if !ok {
		t.Error("the records of the new retry topic are not handled")
	}
	b.await("Health is nil again", 10*time.Second, func() bool { return c.health() == nil })
	c.clean()
	l.each(b, append(append(before, during...), after...), 2)
	b.wantAllCommitted(group, base)
	b.wantAllCommitted(group, retry)
}

// A topic that is deleted and made anew begins again at offset 0, below what was done of the old one: whether that was committed when it
// was deleted or not.
func TestABaseTopicIsDeletedAndMadeAnew(t *testing.T) {
	for _, how := range []struct {
		name     string
		interval time.Duration
	}{
		{"all was committed", 100 * time.Millisecond},
		{"nothing was committed", 3 * time.Second},
	} {
		t.Run(how.name, func(t *testing.T) {
			b := story(t, 2*time.Minute)
			base, other, group := b.topic("orders", 2), b.topic("other", 1), b.name("group")
			var l tally
			handler := handles(func(m *retriable.Message) error {
				l.note(m)
				return nil
			})
			opts := []retriable.Option{
				retriable.CommitInterval(how.interval),
				retriable.Topic(base, handler, retriable.NoDeadLetters()), retriable.Topic(other, handler, retriable.NoDeadLetters()),
			}
			c := b.start(group, opts...)
			old, fresh := numbered("old-", 100), numbered("fresh-", 300)
			b.send(base, old...)
			b.await("the old ones are handled", 20*time.Second, func() bool { return c.Stats().Handled == 100 })
			if how.interval < time.Second {
				b.await("and committed", 20*time.Second, func() bool {
					p, _ := c.part(base, 0)
					q, _ := c.part(base, 1)
					return p.Committed+q.Committed == 100
				})
			}

			b.remove(base)
			b.send(other, "other")
			b.await("other topics go on", 10*time.Second, func() bool { return l.len() == 101 })
			b.create(base, 2)
			b.send(base, fresh...)
			began := time.Now()
			if !b.comesTrue(20*time.Second, func() bool { return l.len() == 401 }) {
				t.Errorf("%d of 300 records of the new topic are handled %v after it was made; Health: %v", l.len()-101, time.Since(began).Round(time.Millisecond), c.health())
			} else {
				t.Logf("all of the new topic are handled %v after it was made", time.Since(began).Round(time.Millisecond))
			}
			if err := c.end(); err != nil {
				t.Errorf("Run: %v", err)
			}
			t.Logf("committed %v; the new topic's ends %v", b.committed(group, base), b.ends(base))
			c = b.start(group, opts...)
			b.await("nothing is left to do", 20*time.Second, func() bool {
				p, _ := c.part(base, 0)
				q, _ := c.part(base, 1)
				return p.Watermark+q.Watermark == 300
			})
			c.clean()
			l.each(b, append(append(old, fresh...), "other"), 1)
			b.wantAllCommitted(group, base)
		})
	}
}

// Offsets that hold no record for a consumer: markers of transactions, records of aborted ones, records that were deleted.
func TestOffsetsWithoutRecordsAreNoObstacle(t *testing.T) {
	b := story(t, time.Minute)
	topic, group := b.topic("orders", 1), b.name("group")
	tx := b.client(kgo.TransactionalID(b.name("producer")))
	transaction := func(values []string, how kgo.TransactionEndTry) {
		t.Helper()
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		var rs []*kgo.Record
		for _, v := range values {
			rs = append(rs, &kgo.Record{Topic: topic, Key: []byte(v), Value: []byte(v)})
		}
		if err := tx.ProduceSync(b.limit, rs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := tx.EndTransaction(b.limit, how); err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	deleted := numbered("deleted-", 20)
	transaction(deleted, kgo.TryCommit)
	low := b.ends(topic)[0]
	for i := range 10 {
		transaction(numbered(fmt.Sprintf("aborted-%d-", i), 20), kgo.TryAbort)
		vs := numbered(fmt.Sprintf("committed-%d-", i), 20)
		transaction(vs, kgo.TryCommit)
		want = append(want, vs...)
	}
	transaction(numbered("aborted-last-", 20), kgo.TryAbort)
	var below kadm.Offsets
	below.Add(kadm.Offset{Topic: topic, Partition: 0, At: low})
	if rs, err := b.adm.DeleteRecords(b.limit, below); err != nil || rs.Error() != nil {
		t.Fatal(err, rs.Error())
	}

	var l tally
	handler := handles(func(m *retriable.Message) error {
		l.note(m)
		return nil
	})
	opts := []retriable.Option{retriable.Topic(topic, handler, retriable.NoDeadLetters())}
	c := b.start(group, opts...)
	b.await("all are handled", 20*time.Second, func() bool { return c.Stats().Handled == 200 })
	c.clean()
	end, at := b.ends(topic)[0], b.committed(group, topic)[0]
	t.Logf("committed %d; the log ends at %d, behind 20 aborted records and markers", at, end)
	if at <= low {
		t.Errorf("committed %d", at)
	}

	c = b.start(group, opts...)
	transaction([]string{"new"}, kgo.TryCommit)
	b.await("the new one is handled", 20*time.Second, func() bool { return c.Stats().Handled == 1 })
	c.clean()
	l.each(b, append(want, "new"), 1)
}

// A batch that would be larger in memory than kgo.MaxDecompressBatchBytes stops its partition alone, says so, and can be given up.
func TestABatchPastItsBoundIsNamedAndCanBeSkipped(t *testing.T) {
	for name, codec := range map[string]kgo.CompressionCodec{"gzip": kgo.GzipCompression(), "zstd": kgo.ZstdCompression()} {
		t.Run(name, func(t *testing.T) {
			b := story(t, time.Minute)
			topic, group := b.topic("orders", 2), b.name("group")
			bomber := b.client(kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(8<<20), kgo.ProducerLinger(100*time.Millisecond))
			put := func(partition int32, values ...string) {
				t.Helper()
				for _, v := range values {
					b.produce(&kgo.Record{Topic: topic, Partition: partition, Key: []byte(v), Value: []byte(v)})
				}
			}
			put(0, "a0", "a1")
			zeros := make([]byte, 2<<20)
			var bomb []*kgo.Record
			for range 3 {
				bomb = append(bomb, &kgo.Record{Topic: topic, Partition: 0, Value: zeros})
			}
			if err := bomber.ProduceSync(b.limit, bomb...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			put(0, "b0", "b1")
			put(1, "c0", "c1")

			var l tally
			drops := make(dropped, 10)
			c := b.start(group, retriable.Kafka(kgo.MaxDecompressBatchBytes(1<<20)), retriable.Hooks(drops), retriable.Topic(topic,
				handles(func(m *retriable.Message) error {
					l.note(m)
					return nil
				}), retriable.NoDeadLetters()))
			b.await("all but what is at the batch and behind it are handled", 20*time.Second, func() bool { return l.len() == 4 })
			var e *retriable.FetchError
			b.await("Health names the batch", 20*time.Second, func() bool {
				var ok bool
				e, ok = is[*retriable.FetchError](c.health())
				return ok
			})
			t.Log(e)
			b.wantEqual("where it stands, and what to skip past", fmt.Sprint(e.Topic, e.Partition, e.Offset, e.Past), fmt.Sprint(topic, 0, 2, retriable.Position{Topic: topic, Partition: 0, Offset: 4}))
			put(1, "d0")
			b.await("the other partition goes on", 20*time.Second, func() bool { return l.len() == 5 })

			if err := c.Skip(b.limit, retriable.Position{Topic: topic, Partition: 0, Offset: 0}); err == nil {
				t.Error("Skip past what was read already did not refuse")
			}
			if err := c.Skip(b.limit, e.Past); err != nil {
				t.Fatal(err)
			}
			b.await("what is behind the batch is handled", 20*time.Second, func() bool { return l.len() == 7 })
			if err := c.health(); err != nil {
				t.Errorf("Health: %v", err)
			}
			b.wantEqual("dropped", c.Stats().Dropped, 3)
			d := <-drops
			b.wantEqual("OnDropped", fmt.Sprint(d.Source, d.Records, d.Message == nil), fmt.Sprint(retriable.Position{Topic: topic, Partition: 0, Offset: 2}, 3, true))
			c.clean()
			l.each(b, []string{"a0", "a1", "b0", "b1", "c0", "c1", "d0"}, 1)
			b.wantAllCommitted(group, topic)
		})
	}
}

// dropped is a hook.
type dropped chan retriable.Dropped

// OnDropped implements retriable.HookDropped.
func (c dropped) OnDropped(d retriable.Dropped) { c <- d }
