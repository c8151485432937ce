package kfake_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// peaks is the most that was ever seen of what is bounded.
type peaks struct {
	pending, held int // of one partition
	bytes         int64
	paused        bool
}

// watchBounds looks at the statistics, at first every millisecond, until ok, for at most d.
func (r *running) watchBounds(d time.Duration, ok func() bool) (p peaks) {
	r.b.Helper()
	r.b.until("done", d, func() bool {
		st := r.Stats()
		p.bytes = max(p.bytes, st.PendingBytes)
		for _, ps := range st.Partitions {
			p.pending = max(p.pending, ps.Pending)
			p.held = max(p.held, ps.Held)
			p.paused = p.paused || ps.Paused
		}
		return ok()
	})
	return p
}

// sendFew writes records a few at a time, so that batches are small: a batch is fetched whole.
func (b *bed) sendFew(rs []*kgo.Record, few int) {
	b.Helper()
	for len(rs) > 0 {
		n := min(few, len(rs))
		b.send(rs[:n]...)
		rs = rs[n:]
	}
}

// big is n records of so many bytes, of keys in turn.
func big(topic string, partition int32, n, size, keys int) []*kgo.Record {
	rs := make([]*kgo.Record, n)
	for i := range rs {
		v := bytes.Repeat([]byte{'x'}, size)
		copy(v, fmt.Sprintf("%d:%d ", partition, i))
		rs[i] = &kgo.Record{Topic: topic, Partition: partition, Key: []byte("k" + strconv.Itoa(i%keys)), Value: v}
	}
	return rs
}

func TestMaxPendingIsNeverExceededAndWhatIsPausedResumes(t *testing.T) { // I10
	const n, most = 1500, 50
	bubble(t, "orders:3", func(b *bed) {
		var l ledger
		var over atomic.Int64
		var r *running
		ready := make(chan struct{})
		r = b.begin("g", retriable.MaxPending(most), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			<-ready
			l.note(m)
			if m.Offset%20 == 0 { // seen from inside, too
				over.Store(max(over.Load(), int64(r.partition("orders", m.Partition).Pending)))
			}
			time.Sleep(rand.N(2 * time.Millisecond))
			return nil
		}), none()))
		close(ready)
		for p := range int32(3) {
			var vs []string
			for i := range n {
				vs = append(vs, fmt.Sprintf("k%d=%d:%d", i%40, p, i))
			}
			b.produce("orders", p, vs[:n/2]...)
			b.produce("orders", p, vs[n/2:]...)
		}
		p := r.watchBounds(time.Minute, func() bool { return r.Stats().Handled == 3*n })
		if m := max(p.pending, int(over.Load())); m > most {
			t.Errorf("%d records of one partition were pending, want at most %d", m, most)
		}
		l.once(t, 3*n)
		time.Sleep(3 * time.Second)
		for i := range int32(3) {
			wantEqual(t, "committed", b.committed("g", "orders", i), n)
			wantEqual(t, "paused in the end", r.partition("orders", i).Paused, false)
		}
		r.clean()
	})
}

func TestAPartitionAtItsBoundDoesNotStopTheOthers(t *testing.T) { // I11
	bubble(t, "orders:3", func(b *bed) {
		var l ledger
		blocked := b.gate()
		r := b.begin("g", retriable.MaxPending(30), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			if m.Partition == 0 {
				blocked.wait()
			}
			return nil
		}), none()))
		for p := range int32(3) {
			var vs []string
			for i := range 500 {
				vs = append(vs, fmt.Sprintf("k%d=%d:%d", i%60, p, i))
			}
			b.produce("orders", p, vs...)
		}
		p := r.watchBounds(5*time.Second, func() bool { return r.Stats().Handled == 1000 })
		time.Sleep(time.Second)
		wantEqual(t, "most pending", p.pending <= 30, true)
		ps := r.partition("orders", 0)
		wantEqual(t, "the blocked one", fmt.Sprint(ps.Paused, ps.Pending, ps.Watermark, ps.End), "true 30 0 500")
		b.produce("orders", 1, "more")
		b.until("more of another", time.Second, func() bool { return r.Stats().Handled == 1001 })
		blocked.open()
		p = r.watchBounds(5*time.Second, func() bool { return r.Stats().Handled == 1501 })
		wantEqual(t, "most pending", p.pending <= 30, true)
		l.once(t, 1501)
		r.clean()
	})
}

// A poll that has nothing to bring must not keep the loop from seeing a resume.
func TestWhenAllPartitionsArePausedTheyResume(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		var l ledger
		blocked := b.gate()
		r := b.begin("g", retriable.MaxPending(10), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			blocked.wait()
			return nil
		}), none()))
		for p := range int32(2) {
			var vs []string
			for i := range 200 {
				vs = append(vs, fmt.Sprintf("%d:%d", p, i))
			}
			b.produce("orders", p, vs...)
		}
		time.Sleep(time.Minute)
		wantEqual(t, "paused", fmt.Sprint(r.partition("orders", 0).Paused, r.partition("orders", 1).Paused), "true true")
		blocked.open()
		b.until("all handled", 5*time.Second, func() bool { return r.Stats().Handled == 400 })
		l.once(t, 400)
		r.clean()
	})
}

// The smallest bounds that are allowed still let everything through.
func TestTheSmallestBoundsLetEverythingThrough(t *testing.T) {
	bubble(t, "orders:2 orders.retry", func(b *bed) {
		var l ledger
		r := b.begin("g", retriable.Concurrency(1), retriable.MaxPending(1), retriable.MaxHeld(1), retriable.MaxPendingBytes(1), retriable.MaxWindow(1),
			retriable.Topic("orders", handles(func(m *retriable.Message) error {
				l.note(m)
				time.Sleep(2 * time.Millisecond)
				if m.Attempt == 1 && m.Source.Offset%5 == 0 {
					return errNo
				}
				return nil
			}), none(), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(time.Second))))
		for p := range int32(2) {
			var vs []string
			for i := range 50 {
				vs = append(vs, fmt.Sprintf("k%d=%d:%d", i%4, p, i))
			}
			b.produce("orders", p, vs...)
		}
		p := r.watchBounds(2*time.Minute, func() bool { return r.Stats().Handled == 100 })
		wantEqual(t, "most pending, held", fmt.Sprint(p.pending, p.held), "1 1")
		wantEqual(t, "deliveries", len(l.all()), 120)
		time.Sleep(2 * time.Second)
		wantEqual(t, "committed", fmt.Sprint(b.committed("g", "orders", 0), b.committed("g", "orders", 1), b.committed("g", "orders.retry", 0)), "50 50 20")
		r.clean()
	})
}

// Records that were held and come due together become pending no faster than the bound lets them.
func TestWhatComesDueTogetherDoesNotExceedMaxPending(t *testing.T) { // I10
	bubble(t, "orders orders.retry", func(b *bed) {
		var l ledger
		r := b.begin("g", retriable.Concurrency(2), retriable.MaxPending(20), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			time.Sleep(10 * time.Millisecond)
			return nil
		}), none(), retriable.RetryTopic("orders.retry")))
		var rs []*kgo.Record
		for i := range 200 {
			rs = append(rs, retry(strconv.Itoa(i), time.Minute))
		}
		b.send(rs...)
		time.Sleep(55 * time.Second)
		wantEqual(t, "held", r.partition("orders.retry", 0).Held, 200)
		p := r.watchBounds(time.Minute, func() bool { return r.Stats().Handled == 200 })
		if p.pending > 20 {
			t.Errorf("%d records were pending, want at most 20", p.pending)
		}
		l.once(t, 200)
		r.clean()
	})
}

// small has kgo fetch little at a time, so that what it has buffered adds little to what the library counts.
func small(partition, all int32) retriable.Option {
	return retriable.Kafka(kgo.FetchMaxPartitionBytes(partition), kgo.FetchMaxBytes(all), kgo.MaxConcurrentFetches(1))
}

// What is not yet due is held, not pending: however much of it lies in front, what is behind it is read.
func TestHeldRecordsDoNotKeepTheRestUnread(t *testing.T) { // I7, I11
	bubble(t, "orders orders.retry", func(b *bed) {
		var l ledger
		r := b.begin("g", patient(), retriable.MaxPending(20), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			return nil
		}), none(), retriable.RetryTopic("orders.retry")))
		began := time.Now()
		var rs []*kgo.Record
		for i := range 200 {
			rs = append(rs, retry(strconv.Itoa(i), time.Hour))
		}
		b.send(append(rs, retry("soon", time.Minute))...)
		time.Sleep(30 * time.Second)
		wantEqual(t, "held", r.partition("orders.retry", 0).Held, 201)
		time.Sleep(2 * time.Hour)
		l.once(t, 201)
		wantEqual(t, "the one behind them", l.of("soon")[0].at.Sub(began), time.Minute)
		r.clean()
	})
}

func TestPendingBytesAreBounded(t *testing.T) { // I10
	const n, size, most, fetch = 300, 4 << 10, 128 << 10, 32 << 10
	bubble(t, "orders:4", func(b *bed) {
		blocked := b.gate()
		r := b.begin("g", small(fetch/4, fetch), retriable.MaxPendingBytes(most), retriable.Topic("orders", handles(func(*retriable.Message) error {
			blocked.wait()
			return nil
		}), none()))
		var rs []*kgo.Record
		for p := range int32(4) {
			rs = append(rs, big("orders", p, n, size, n)...)
		}
		slices.SortStableFunc(rs, func(a, b *kgo.Record) int { return bytes.Compare(a.Key[1:], b.Key[1:]) }) // all partitions fill at once
		b.sendFew(rs, 8)
		bound := int64(2 * most) // what is promised: where some filled the budget alone, the others have their fair share yet
		p := r.watchBounds(5*time.Second, func() bool { return r.Stats().PendingBytes > most/2 })
		time.Sleep(10 * time.Second)
		if st := r.Stats(); st.PendingBytes < most/2 || st.PendingBytes > bound {
			t.Errorf("with all blocked %d bytes are pending, want near %d", st.PendingBytes, most)
		}
		for _, ps := range r.Stats().Partitions {
			if ps.Pending == 0 {
				t.Errorf("%s/%d has no part of the budget", ps.Topic, ps.Partition)
			}
		}
		blocked.open()
		q := r.watchBounds(time.Minute, func() bool { return r.Stats().Handled == 4*n })
		if m := max(p.bytes, q.bytes); m > bound {
			t.Errorf("%d bytes were pending, want at most %d and one fetch", m, most)
		}
		time.Sleep(time.Second)
		wantEqual(t, "bytes in the end", r.Stats().PendingBytes, 0)
		r.clean()
	})
}

func TestARecordLargerThanTheWholeBudgetGetsIn(t *testing.T) { // I10
	const n, size = 20, 50 << 10
	bubble(t, "orders:2 orders.dead", func(b *bed) {
		r := b.begin("g", small(size, 2*size), retriable.MaxPendingBytes(1000), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			time.Sleep(20 * time.Millisecond)
			if len(m.Value) != size {
				return retriable.Permanent(errNo)
			}
			return nil
		}), retriable.DeadLetterTopic("orders.dead")))
		for p := range int32(2) {
			b.sendFew(big("orders", p, n, size, n), 1)
		}
		p := r.watchBounds(time.Minute, func() bool { return r.Stats().Handled == 2*n })
		if most := int64(2 * 3 * (size + 1000)); p.bytes > most {
			t.Errorf("%d bytes were pending, want at most %d: a few records a partition", p.bytes, most)
		}
		r.clean()
	})
}

func TestABlockedPartitionLeavesTheOthersTheirShareOfTheBytes(t *testing.T) { // I10, I11
	const n, size, most = 200, 2 << 10, 64 << 10
	bubble(t, "orders:3", func(b *bed) {
		blocked := b.gate()
		r := b.begin("g", small(8<<10, 24<<10), retriable.MaxPendingBytes(most), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			if m.Partition == 0 {
				blocked.wait()
			}
			return nil
		}), none()))
		b.sendFew(big("orders", 0, n, size, n), 4)
		p := r.watchBounds(5*time.Second, func() bool { return r.partition("orders", 0).Paused })
		b.sendFew(append(big("orders", 1, n, size, n), big("orders", 2, n, size, n)...), 4)
		// Without a pause on the way, which would cost them a fetch each time.
		b.until("the others are handled", time.Second, func() bool { return r.Stats().Handled == 2*n })
		wantEqual(t, "the blocked partition is paused", r.partition("orders", 0).Paused, true)
		blocked.open()
		q := r.watchBounds(10*time.Second, func() bool { return r.Stats().Handled == 3*n })
		if m := max(p.bytes, q.bytes); m > most+2*24<<10 {
			t.Errorf("%d bytes were pending, want near %d", m, most)
		}
		r.clean()
	})
}

// One record that waits behind a slow one must not keep its whole batch in the budget: at the bound it is copied out.
func TestWhatWaitsIsCopiedOutOfItsBatch(t *testing.T) { // I10
	const batches, each, size, most = 30, 50, 1 << 10, 150 << 10
	bubble(t, "orders", func(b *bed) {
		blocked := b.gate()
		r := b.begin("g", small(64<<10, 64<<10), retriable.MaxPendingBytes(most), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			if string(m.Key) == "slow" {
				blocked.wait()
			}
			return nil
		}), none()))
		b.produce("orders", 0, "slow=first")
		for i := range batches { // all pinned together: 1.5 MB
			rs := big("orders", 0, each, size, each)
			rs[i%each].Key = []byte("slow")
			b.send(rs...)
			time.Sleep(100 * time.Millisecond)
		}
		p := r.watchBounds(time.Minute, func() bool { return r.Stats().Handled == batches*(each-1) })
		if p.bytes > most+2*64<<10 {
			t.Errorf("%d bytes were pending, want near %d", p.bytes, most)
		}
		ps := r.partition("orders", 0)
		wantEqual(t, "pending, running", fmt.Sprint(ps.Pending, ps.Running), fmt.Sprint(batches+1, 1))
		blocked.open()
		b.until("all handled", time.Second, func() bool { return r.Stats().Handled == batches*each+1 })
		r.clean()
	})
}

// Held records count as what they are, copied out of their batch.
func TestHeldBytesCountToo(t *testing.T) { // I10
	const n, size, most = 200, 2 << 10, 100 << 10
	bubble(t, "orders orders.retry", func(b *bed) {
		var l ledger
		r := b.begin("g", small(16<<10, 32<<10), retriable.MaxPendingBytes(most), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			return nil
		}), none(), retriable.RetryTopic("orders.retry")))
		began := time.Now()
		var rs []*kgo.Record
		for i := range n {
			c := retry(fmt.Sprintf("%d %s", i, bytes.Repeat([]byte{'x'}, size)), time.Duration(1+i)*3*time.Second)
			rs = append(rs, c)
		}
		b.sendFew(rs, 4)
		time.Sleep(5 * time.Second)
		st := r.Stats()
		if st.PendingBytes < most/2 || st.PendingBytes > most+2*32<<10 {
			t.Errorf("%d bytes are held, want near %d", st.PendingBytes, most)
		}
		p := r.watchHeld(n*3*time.Second + time.Hour)
		if p.bytes > most+2*32<<10 {
			t.Errorf("%d bytes were held, want near %d", p.bytes, most)
		}
		l.once(t, n)
		for _, d := range l.all() {
			var i int
			_, _ = fmt.Sscan(d.value, &i)
			if early := time.Duration(1+i)*3*time.Second - d.at.Sub(began); early > 0 {
				t.Errorf("record %d started %v early", i, early)
			}
		}
		r.clean()
	})
}

// watchHeld looks at the bounds every second, for d.
func (r *running) watchHeld(d time.Duration) (p peaks) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		p.bytes = max(p.bytes, r.Stats().PendingBytes)
		if len(r.Stats().Partitions) > 0 && r.Stats().Handled == 200 {
			return p
		}
	}
	return p
}

func TestMaxWindowBoundsHowFarReadingIsAhead(t *testing.T) { // I10
	const n, window = 2000, 100
	bubble(t, "orders", func(b *bed) {
		var l ledger
		blocked := b.gate()
		r := b.begin("g", retriable.MaxWindow(window), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			if m.Offset == 50 {
				blocked.wait()
			}
			return nil
		}), none()))
		b.produce("orders", 0, seq(n)...)
		time.Sleep(10 * time.Second)
		ps := r.partition("orders", 0)
		wantEqual(t, "watermark, pending, paused, end", fmt.Sprint(ps.Watermark, ps.Pending, ps.Paused, ps.End), fmt.Sprint(50, 1, true, n))
		ahead := int64(0)
		for _, d := range l.all() {
			ahead = max(ahead, d.source.Offset-50)
		}
		if ahead >= window {
			t.Errorf("offset %d was read while 50 was pending, want at most %d ahead", 50+ahead, window)
		}
		if ahead < window/2 {
			t.Errorf("only %d offsets were read ahead", ahead)
		}
		blocked.open()
		b.until("all handled", 10*time.Second, func() bool { return r.Stats().Handled == n })
		l.once(t, n)
		r.clean()
	})
}
