package simulation

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/internal/clock"
	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

// world is one run of a plan.
type world struct {
	*testing.T
	plan
	ledger
	k       *retriabletest.Kafka
	cl      *kgo.Client
	members []*member
	leaving sync.WaitGroup
	back    time.Time // when the last that was cut off is, or was, back

	mu      sync.Mutex
	records map[string]record
	owners  map[string]int           // lives by their group member id
	topics  map[[16]byte]string      // names of topics, by id: "orders#1" is the second of that name
	current atomic.Pointer[string]   // of the base topic
	left    map[string]*atomic.Int32 // postponements, by id
	base    []written
	copies  map[place]record // hostile ones
	met     map[string]int   // what has happened that a run is to show
}

// member is one life of a consumer.
type member struct {
	*retriabletest.Member
	w     *world
	no    int
	skew  time.Duration
	ended bool // by the plan

	launched chan struct{} // closed when Member is set, which its hooks may be ahead of
	running  atomic.Int32
	stopped  atomic.Bool // by Pause
}

// run has a plan run, and returns its history.
func (p plan) run(t *testing.T) (h *history, met map[string]int) {
	ports := []int{9092, 9093, 9094}[:p.brokers]
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		w := &world{
			T: t, plan: p, k: k, records: map[string]record{}, owners: map[string]int{}, topics: map[[16]byte]string{}, left: map[string]*atomic.Int32{},
			copies: map[place]record{}, met: map[string]int{},
		}
		w.ledger.began = time.Now()
		h = w.live()
		met = w.met
	}, kfake.NumBrokers(p.brokers), kfake.Ports(ports...), kfake.BrokerConfigs(map[string]string{
		"group.consumer.heartbeat.interval.ms": "500", "group.consumer.session.timeout.ms": fmt.Sprint(p.session.Milliseconds()),
	}))
	return h, met
}

func (w *world) live() *history {
	w.k.Members = []retriable.Option{
		retriable.Logger(logger()), retriable.Kafka(w.protocol.opts...), retriable.Kafka(kgo.HeartbeatInterval(500*time.Millisecond), kgo.SessionTimeout(w.session)),
		retriable.Concurrency(w.workers), retriable.DrainTimeout(w.drain), retriable.CommitInterval(w.plan.commit), retriable.MaxPending(w.maxPending),
		retriable.MaxHeld(w.maxHeld), retriable.Kafka(kgo.MaxDecompressBatchBytes(50_000)), retriable.MaxCrashes(w.crashes),
	}
	for topic, n := range map[string]int32{"orders": w.partitions, "orders.retry": w.retries, tierTopic: w.retries, "orders.dead": 1} {
		if topic == tierTopic && w.tier == 0 {
			continue
		}
		w.k.Topic(topic, n)
		w.topics[w.k.Cluster.TopicInfo(topic).TopicID] = topic
	}
	w.current.Store(new("orders"))
	w.open()
	defer func() { w.cl.Close() }()
	w.watch()
	w.aroundKfake()
	for range w.plan.members {
		w.join()
	}
	w.play()
	wedged := w.heal()
	parked := wedged != "" && w.parked()
	for _, m := range w.members {
		if !m.ended && !m.crashed() {
			// One that was cut off may not know yet that its session is over; its last commit is refused, and says nothing new.
			if err := m.Stop(); errors.As(err, new(*retriable.AbandonedError)) && wedged == "" {
				wedged = fmt.Sprintf("m%d stopped with %v", m.no, err)
			}
		}
	}
	w.leaving.Wait()
	h := w.history()
	h.wedged, h.parked, h.events = wedged, parked, slices.Clone(w.ledger.events)
	return h
}

// open makes the client that produces, each record where its Partition says.
func (w *world) open() {
	var err error
	w.cl, err = kgo.NewClient(append(w.k.ClientOptions(), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerLinger(0))...)
	if err != nil {
		w.Fatal(err)
	}
}

// play does what the plan says, each at its time.
func (w *world) play() {
	records, steps := w.plan.records, w.steps
	for len(records)+len(steps) > 0 {
		var at time.Duration
		switch {
		case len(steps) == 0 || len(records) > 0 && records[0].at <= steps[0].at:
			at = records[0].at
		default:
			at = steps[0].at
		}
		time.Sleep(at - time.Since(w.ledger.began))
		if w.crashes > 0 && len(w.alive()) == 0 {
			w.join()
		}
		switch {
		case len(records) > 0 && records[0].at == at:
			w.produce(records[0])
			records = records[1:]
		default:
			w.do(steps[0])
			steps = steps[1:]
		}
	}
}

// produce writes a record, or a copy that no member wrote.
func (w *world) produce(rec record) {
	left := new(atomic.Int32)
	left.Store(int32(rec.postpones))
	w.mu.Lock()
	w.records[rec.id], w.left[rec.id] = rec, left
	w.mu.Unlock()
	r := &kgo.Record{Topic: "orders", Partition: rec.partition, Value: []byte(rec.value()), Headers: []kgo.RecordHeader{{Key: "mine", Value: []byte("1")}, {Key: "mine"}}}
	if rec.key != "" {
		r.Key = []byte(rec.key)
	}
	if rec.spoofed {
		r.Headers = slices.Clone(spoofs)
	}
	if rec.hostile > 0 {
		r.Topic = "orders.retry"
		r.Headers = append(r.Headers, hostileHeaders[rec.hostile-1]...)
	}
	rs, due := []*kgo.Record{r}, int64(0)
	if rec.delay > 0 || rec.parts > 0 {
		var opts []retriable.SendOption
		if rec.delay > 0 {
			at := time.Now().Add(rec.delay)
			opts, due = append(opts, retriable.DeliverAt(at)), at.UnixMilli()
		}
		rs = retriable.Split(r, 1500, opts...)
		for _, part := range rs {
			part.Partition = rec.partition
		}
		if len(rs) > 1 {
			w.meet("chunks")
		}
	}
	if err := w.cl.ProduceSync(w.Context(), rs...).FirstErr(); err != nil {
		w.Logf("seed %d: %s is not produced: %v", w.seed, rec.id, err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if rec.hostile > 0 {
		w.copies[place{"orders.retry", r.Partition, r.Offset}] = rec
		return
	}
	w.base = append(w.base, written{
		place: place{*w.current.Load(), rec.partition, rs[0].Offset}, id: rec.id, attempt: 1, first: 1, fate: rec.fate, at: time.Since(w.ledger.began),
		due: due, batch: int64(len(rs)), kills: rec.kills,
	})
}

// blockingPause is between two attempts in place.
const blockingPause = 200 * time.Millisecond

// join starts a member, with a clock of its own.
func (w *world) join() {
	m := &member{w: w, no: len(w.members) + 1, launched: make(chan struct{})}
	m.skew = w.skews[len(w.members)%len(w.skews)]
	opts := []retriable.TopicOption{
		retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.MaxAttempts(w.maxAttempts),
		retriable.Backoff(retriable.Constant(w.backoff)), retriable.Ordering(w.order),
	}
	if w.blocking > 0 {
		opts = append(opts, retriable.BlockingRetries(w.blocking, retriable.Constant(blockingPause)))
	}
	if w.tier > 0 {
		opts = append(opts, retriable.RetryTier(tierTopic, w.tier))
	}
	if w.scheduled > 0 {
		opts = append(opts, retriable.Scheduled(w.scheduled))
	}
	if m.no%2 == 0 {
		opts = append(opts, retriable.Recycle())
	}
	m.Member = w.k.Launch("g", retriable.Hooks(m), retriable.Topic("orders", retriable.HandlerFunc(m.handle), opts...))
	close(m.launched)
	w.members = append(w.members, m)
	w.leaving.Go(func() {
		select {
		case <-m.Crashed():
			w.write(event{kind: crashed, life: m.no})
			if m.running.Load() > 0 {
				w.meet("a crash met running handlers")
			}
		case <-m.Done():
		}
	})
}

func (m *member) crashed() bool {
	<-m.launched
	select {
	case <-m.Crashed():
		return true
	default:
		return false
	}
}

// write writes the ledger, unless the member has crashed: what it does then a process could not do.
func (m *member) write(e event) {
	if !m.crashed() {
		m.w.write(e)
	}
}

// alive are the members that neither crashed nor left.
func (w *world) alive() (ms []*member) {
	for _, m := range w.members {
		if !m.ended && !m.crashed() {
			ms = append(ms, m)
		}
	}
	return ms
}

func (w *world) do(s step) {
	w.write(event{kind: fault, text: s.String()})
	alive := w.alive()
	var m *member
	if len(alive) > 0 {
		m = alive[s.member%len(alive)]
	}
	switch s.what {
	case join:
		if len(alive) < 4 {
			w.join()
		}
		return
	case refuse:
		w.refuse(s)
		return
	case shuffle:
		if raceEnabled {
			return
		}
		w.k.Cluster.ShufflePartitionLeaders()
		return
	case rehash:
		w.k.Cluster.RehashCoordinators()
		return
	case bomb:
		w.bomb()
		return
	case giveUp:
		w.skipUnread()
		return
	case renew:
		if raceEnabled {
			return
		}
		w.renew(s)
		return
	default:
	}
	if m == nil {
		return
	}
	switch s.what {
	case leave:
		m.ended = true
		w.leaving.Go(func() { _ = m.Stop() }) // it may have to abandon what does not end
	case crash:
		m.Crash()
	case crashBefore:
		m.CrashBefore(s.key)
	case crashAfter:
		m.CrashAfter(s.key)
	case loseAnswer:
		m.LoseAnswer(s.key)
	case disconnect:
		w.write(event{kind: cut, life: m.no})
		m.Disconnect()
		if back := time.Now().Add(s.takes); back.After(w.back) {
			w.back = back
		}
		time.AfterFunc(s.takes, m.Reconnect)
	case pause:
		w.pause(m, s)
	default:
	}
}

// pause stops topics of a member for a while, unless something of it is stopped already.
func (w *world) pause(m *member, s step) {
	if m.stopped.Swap(true) {
		return
	}
	var topics []string
	if s.topic != "" {
		topics = []string{s.topic}
	}
	m.Pause(topics...)
	m.write(event{kind: pausing, life: m.no, place: place{topic: s.topic}})
	w.leaving.Go(func() {
		time.Sleep(s.takes)
		m.write(event{kind: resuming, life: m.no, place: place{topic: s.topic}})
		m.Resume(topics...)
		m.stopped.Store(false)
		w.meet("paused")
	})
}

func (w *world) refuse(s step) {
	f := kfake.Fault{Keys: []kmsg.Key{s.key}, Topic: s.topic, Err: s.err, Count: s.times}
	if s.topic == "" {
		f.Group, f.TopLevel = "g", true
	}
	h := w.k.Fault(f)
	time.AfterFunc(5*time.Second, func() {
		if h.Hits() > 0 {
			w.meet("refused " + s.key.Name())
		}
		h.Remove()
	})
}

// bombSize is how many records a bomb has.
const bombSize = 3

// bomb writes a batch that unpacks to more than members accept, behind records that wait.
func (w *world) bomb() {
	var rs []*kgo.Record
	for range bombSize {
		rs = append(rs, &kgo.Record{Topic: "orders", Partition: 0, Value: bytes.Repeat([]byte("0"), 60_000)}) // each by itself too, should they be written in several batches
	}
	if err := w.cl.ProduceSync(w.Context(), rs...).FirstErr(); err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.base = append(w.base, written{place: place{*w.current.Load(), 0, rs[0].Offset}, batch: bombSize, at: time.Since(w.ledger.began)})
}

// renew deletes the base topic and makes it anew, at once or a while later.
func (w *world) renew(s step) {
	if err := w.k.Cluster.DeleteTopic("orders"); err != nil {
		w.Fatal(err)
	}
	w.mu.Lock()
	for i := range w.base {
		w.base[i].gone = true
	}
	w.mu.Unlock()
	time.Sleep(s.takes)
	w.k.Topic("orders", w.partitions)
	w.mu.Lock()
	name := fmt.Sprintf("orders#%d", len(w.topics)-2)
	w.topics[w.k.Cluster.TopicInfo("orders").TopicID] = name
	w.current.Store(&name)
	w.mu.Unlock()
	w.cl.Close()
	w.open()
	w.meet(string(renew))
}

// settles is how long a member that is back from a cut may take to write what it had to, and to be in its group again.
const settles = 15 * time.Second

// heal ends all faults, and waits until everyone is back and everything is committed; it says what is missing, if that is never so.
func (w *world) heal() (missing string) {
	w.write(event{kind: fault, text: "all is well again"})
	var strangers []string
	for i := range 3600 { // with clocks ten minutes apart each attempt may wait for so long
		if len(w.alive()) == 0 { // the last has met the crash that waited for it
			w.join()
		}
		time.Sleep(time.Second)
		w.skip()
		if missing = w.uncommitted(); missing == "" && time.Since(w.back) > settles {
			return ""
		}
		if i%60 == 59 {
			strangers = w.bury(strangers)
		}
	}
	for _, m := range w.alive() {
		missing += fmt.Sprintf("\nm%d: %v %+v", m.no, m.Health(w.Context()), m.Stats().Partitions)
	}
	return missing
}

// bury takes those out of a classic group that are none of the living, and were there a minute ago already. kfake sets a member's session timer
// only with an answer that it could send: one that crashed while its join was parked stays in the group for ever, and keeps what it is assigned.
func (w *world) bury(before []string) (strangers []string) {
	info := w.k.Cluster.GroupInfo("g")
	if info == nil || w.protocol.name == "KIP-848" {
		return nil
	}
	living := map[string]bool{}
	for _, m := range w.alive() {
		id, _ := m.Client().GroupMetadata()
		living[id] = true
	}
	for _, m := range info.Members {
		if living[m.MemberID] {
			continue
		}
		if strangers = append(strangers, m.MemberID); !slices.Contains(before, m.MemberID) {
			continue
		}
		req, gone := kmsg.NewPtrLeaveGroupRequest(), kmsg.NewLeaveGroupRequestMember()
		gone.MemberID = m.MemberID
		req.Group, req.Members = "g", append(req.Members, gone)
		if _, err := req.RequestWith(w.Context(), w.cl); err == nil {
			w.meet("buried")
		}
	}
	return strangers
}

// parked reports whether no member could join: kfake, about once in some hundred plans with members cut off, parks the joins of a classic group
// for ever. Nothing can be said of such a run.
func (w *world) parked() bool {
	for _, m := range w.alive() {
		if err := m.Health(w.Context()); !errors.As(err, new(*retriable.GroupError)) {
			return false
		}
	}
	return len(w.alive()) > 0
}

// consumed are the topics that members read.
func (w *world) consumed() []string {
	if w.tier > 0 {
		return []string{"orders", "orders.retry", tierTopic}
	}
	return []string{"orders", "orders.retry"}
}

func (w *world) uncommitted() string {
	info := w.k.Cluster.GroupInfo("g")
	for _, topic := range w.consumed() {
		for _, p := range w.k.Cluster.PartitionInfos(topic) {
			if info == nil || info.Commits[topic][p.Partition].Offset < p.HighWatermark {
				return fmt.Sprintf("%s/%d: %v of %d", topic, p.Partition, info.Commits[topic][p.Partition].Offset, p.HighWatermark)
			}
		}
	}
	return ""
}

// skip gives up on what Health says cannot be read.
func (w *world) skip() {
	if !w.has(bomb) {
		return
	}
	for _, m := range w.alive() {
		joined, _ := m.Health(w.Context()).(interface{ Unwrap() []error })
		if joined == nil {
			continue
		}
		for _, err := range joined.Unwrap() { // another partition may have another reason
			var blocked *retriable.FetchError
			if errors.As(err, &blocked) && blocked.Past.Topic != "" && m.Skip(w.Context(), blocked.Past) == nil {
				w.meet("skip")
			}
		}
	}
}

// skipUnread gives up on what cannot be unpacked as one who knows where it lies, without having asked Health: at members that have read all below
// it, which may still wait there for room. What they know of the log's end is then from a fetch, for they had the partition before.
func (w *world) skipUnread() {
	w.mu.Lock()
	base := slices.Clone(w.base)
	w.mu.Unlock()
	for _, b := range base {
		if b.id != "" || b.gone {
			continue
		}
		past := retriable.Position{Topic: "orders", Partition: b.place.partition, Offset: b.place.offset + bombSize - 1}
		for _, m := range w.alive() {
			at, ok := w.assignedAt(m.no, past.Partition)
			for _, s := range m.Stats().Partitions {
				if ok && at < b.at && s.Topic == past.Topic && s.Partition == past.Partition && s.End > past.Offset && m.Skip(w.Context(), past) == nil && s.Pending > 0 {
					w.meet("skip over what waits")
				}
			}
		}
	}
}

// assignedAt is when a member was last given a partition of the base topic.
func (w *world) assignedAt(life int, partition int32) (at time.Duration, ok bool) {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	for _, e := range slices.Backward(w.ledger.events) {
		if e.kind == assigned && e.life == life && e.place.partition == partition && based(e.place.topic) {
			return e.at, true
		}
	}
	return 0, false
}

func (w *world) meet(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.met[what]++
}

// history reads what the broker has.
func (w *world) history() *history {
	w.mu.Lock()
	base := slices.Clone(w.base)
	w.mu.Unlock()
	h := &history{
		most: w.maxAttempts, keyed: w.order == retriable.ByKey, inTurn: w.order == retriable.ByPartition, moves: w.maxHeld < 100 || w.tier > 0, base: base, drain: w.drain,
		blocking: w.blocking, pause: blockingPause, tier: w.tier, crashes: w.crashes,
		narrow: slices.ContainsFunc(w.steps, func(s step) bool { return s.err == kerr.OffsetMetadataTooLarge }),
	}
	copies := w.k.Records("orders.retry")
	if w.tier > 0 {
		copies = append(copies, w.k.Records(tierTopic)...)
	}
	for _, r := range copies {
		at := place{r.Topic, r.Partition, r.Offset}
		if rec, ok := w.copies[at]; ok {
			first := min(wire.ParseRetry(r.Headers).Attempt, w.maxAttempts)
			h.copies = append(h.copies, written{place: at, id: rec.id, attempt: first, first: first, fate: rec.fate, forged: true})
			continue
		}
		p := wire.ParseRetry(r.Headers)
		h.copies = append(h.copies, written{place: at, id: idOf(r.Value), attempt: p.Attempt, due: p.Due, hop: p.Moved > 0, at: r.Timestamp.Sub(w.ledger.began)})
	}
	for _, l := range w.k.DeadLetters("orders.dead") {
		h.letters = append(h.letters, written{
			place: place{l.Topic, l.Partition, l.Record.Offset}, id: idOf(l.Value), attempt: l.Attempts,
			origin: place{l.Origin.Topic, l.Origin.Partition, l.Origin.Offset}, at: l.Timestamp.Sub(w.ledger.began),
		})
	}
	return h
}

// where names the place of a position: base topics by what is current for the record.
func (w *world) where(p retriable.Position, id string) place {
	at := place{p.Topic, p.Partition, p.Offset}
	if p.Topic != "orders" {
		return at
	}
	at.topic = *w.current.Load()
	if id == "" {
		return at
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.base {
		if b.id == id {
			at.topic = b.place.topic
		}
	}
	return at
}

// handle is every member's handler. What it does is in the plan.
func (m *member) handle(ctx context.Context, msg *retriable.Message) error {
	w, id := m.w, idOf(msg.Value)
	w.mu.Lock()
	rec, known := w.records[id]
	left := w.left[id]
	w.mu.Unlock()
	e := event{
		life: m.no, place: w.where(msg.Source, id), id: id, key: string(msg.Key), attempt: msg.Attempt, clock: time.Now().Add(m.skew).UnixMilli(),
	}
	m.running.Add(1)
	defer m.running.Add(-1)
	start := e
	start.kind, start.text = began, rec.compare(msg, known)
	m.write(start)
	if rec.kills {
		w.meet("killed")
		m.Crash()
		<-ctx.Done()
		return ctx.Err()
	}
	e.kind, e.outcome = ended, rec.fate.outcome(msg.Attempt, w.maxAttempts)
	postponed := left != nil && left.Add(-1) >= 0
	if postponed {
		e.outcome = "postponed"
	}
	wait := time.NewTimer(rec.takes)
	defer wait.Stop()
	if rec.deaf {
		<-wait.C
	} else {
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
	}
	if e.flag = ctx.Err() != nil; e.flag {
		e.text = fmt.Sprint(context.Cause(ctx))
		w.meet("a handler's context ended")
	}
	if start.text = rec.compare(msg, known); start.text != "" { // it was used again too soon
		m.write(start)
	}
	m.write(e)
	switch e.outcome {
	case "postponed":
		return retriable.Postpone(300 * time.Millisecond)
	case fails:
		return errors.New("not yet")
	case refused:
		if msg.Attempt <= rec.fate.fails {
			return errors.New("not yet")
		}
		return retriable.Permanent(errors.New("never"))
	case dropped:
		return retriable.Drop(errors.New("nobody wants it"))
	default:
		return nil
	}
}

// compare says what of a message is not as it was produced.
func (rec record) compare(m *retriable.Message, known bool) string {
	var hs []string
	for _, h := range m.Headers {
		hs = append(hs, fmt.Sprintf("%s=%q", h.Key, h.Value))
	}
	switch got := strings.Join(hs, " "); {
	case !known:
		return "nobody produced it"
	case string(m.Key) != rec.key, (m.Key == nil) != (rec.key == ""):
		return fmt.Sprintf("its key is %q", m.Key)
	case string(m.Value) != rec.value():
		return fmt.Sprintf("its value has %d bytes", len(m.Value))
	case got != `mine="1" mine=""`:
		return "its headers are " + got
	}
	return ""
}

// Skew implements clock.Skewed.
func (m *member) Skew() clock.Skew { return clock.Skew(m.skew) }

// OnAssigned notes what the group has committed for the partition, for this is what the member read.
func (m *member) OnAssigned(a retriable.Assigned) {
	w := m.w
	<-m.launched
	if id, _ := m.Client().GroupMetadata(); id != "" {
		w.mu.Lock()
		w.owners[id] = m.no
		w.mu.Unlock()
	}
	e := event{kind: assigned, life: m.no, place: w.where(retriable.Position(a), "")}
	if info := w.k.Cluster.GroupInfo("g"); info != nil {
		if c, ok := info.Commits[a.Topic][a.Partition]; ok && c.Offset == a.Offset && w.current.Load() != nil && *w.current.Load() == "orders" {
			e.runs = decode(c.Metadata, c.Offset)
		}
	}
	m.write(e)
}

// decode reads a commit's map.
func decode(text string, offset int64) (runs []run) {
	if m, ok := watermark.DecodeMap(text, offset, -1); ok {
		for _, r := range m.Done {
			runs = append(runs, run{r.From, r.To})
		}
	}
	return runs
}

// noted reads which record a commit says is about to run, see crash.go.
func noted(text string, offset int64) (above int64, ok bool) {
	if m, ok := watermark.DecodeMap(text, offset, -1); ok && len(m.Notes) > 2 {
		n, _ := binary.Uvarint(m.Notes[2:])
		return int64(n), true
	}
	return 0, false
}

// OnDrained and the others write the ledger, until the member has crashed.
func (m *member) OnDrained(d retriable.Drained) {
	m.write(event{kind: drained, life: m.no, place: m.w.owned(m.no, d.Topic, d.Partition), flag: d.Lost, count: int64(d.Took), text: fmt.Sprintf("after %v, abandoned %d", d.Took, d.Abandoned)})
	if d.Abandoned > 0 {
		m.w.meet("abandoned")
	}
	m.w.meet(map[bool]string{true: "lost", false: "revoked"}[d.Lost])
}

func (m *member) OnRetried(e retriable.Retried) {
	m.write(event{kind: retried, life: m.no, place: m.w.where(e.Message.Source, idOf(e.Message.Value))})
}

func (m *member) OnDeadLettered(d retriable.DeadLettered) {
	e := event{kind: buried, life: m.no, place: m.w.where(d.Message.Source, idOf(d.Message.Value))}
	if errors.As(d.Err, new(*retriable.CrashError)) {
		e.id, e.outcome = idOf(d.Message.Value), condemned
		m.w.meet("condemned")
	}
	m.write(e)
}

func (m *member) OnRewritten(r retriable.Rewritten) {
	m.write(event{kind: moved, life: m.no, place: m.w.where(r.Source, "")})
	m.w.meet("moved")
}

func (m *member) OnDropped(d retriable.Dropped) {
	e := event{kind: gaveUp, life: m.no, count: d.Records}
	if e.place = m.w.where(d.Source, ""); d.Message != nil {
		e.place = m.w.where(d.Source, idOf(d.Message.Value))
	}
	m.write(e)
}

func (m *member) OnCommitted(c retriable.Committed) {
	at := m.w.owned(m.no, c.Topic, c.Partition)
	at.offset = c.Offset
	e := event{kind: committed, life: m.no, place: at, flag: c.Err != nil, cut: c.Cut}
	if c.Err != nil {
		e.text = c.Err.Error()
		m.w.meet("a commit was refused")
	}
	m.write(e)
}

func (m *member) OnProduceFailed(retriable.ProduceFailed) { m.w.meet("a write was refused") }

// owned is a partition as its member was assigned it.
func (w *world) owned(life int, topic string, partition int32) place {
	if topic != "orders" {
		return place{topic, partition, 0}
	}
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	for _, e := range slices.Backward(w.ledger.events) {
		if e.kind == assigned && e.life == life && e.place.partition == partition && based(e.place.topic) {
			return place{e.place.topic, partition, 0}
		}
	}
	return place{topic, partition, 0}
}

// watch notes every commit that the broker gets, whatever it answers.
func (w *world) watch() {
	w.k.Cluster.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		w.k.Cluster.KeepControl()
		req := kreq.(*kmsg.OffsetCommitRequest)
		w.mu.Lock()
		life := w.owners[req.MemberID]
		topics := maps.Clone(w.topics)
		w.mu.Unlock()
		for _, t := range req.Topics {
			name := t.Topic
			if name == "" {
				name = topics[t.TopicID]
			}
			for _, p := range t.Partitions {
				if based(name) && name != *w.current.Load() {
					continue // of a topic that is gone: it is refused
				}
				e := event{kind: commits, life: life, place: place{name, p.Partition, p.Offset}}
				if p.Metadata != nil {
					e.runs = decode(*p.Metadata, p.Offset)
					e.count, e.noted = noted(*p.Metadata, p.Offset)
				}
				if len(e.runs) > 0 {
					w.meet("a map")
				}
				w.write(e)
			}
		}
		return nil, nil, false
	})
}

// aroundKfake works around two things that kfake does otherwise than Kafka where leaders move: it says that all of the log was cut until
// there is a batch at the new epoch, and answers fetches in no time, in which kgo asks again and again until its metadata are there.
func (w *world) aroundKfake() {
	w.Cleanup(func() { time.Sleep(10 * time.Millisecond) })
	w.k.Cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.k.Cluster.KeepControl()
		w.k.Cluster.SleepControl(func() { time.Sleep(time.Millisecond) })
		return nil, nil, false
	})
	w.k.Cluster.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		w.k.Cluster.KeepControl()
		req := kreq.(*kmsg.OffsetForLeaderEpochRequest)
		resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		for _, rt := range req.Topics {
			t := kmsg.NewOffsetForLeaderEpochResponseTopic()
			t.Topic = rt.Topic
			for _, rp := range rt.Partitions {
				p := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
				p.Partition, p.LeaderEpoch, p.EndOffset = rp.Partition, rp.LeaderEpoch, 1<<40
				t.Partitions = append(t.Partitions, p)
			}
			resp.Topics = append(resp.Topics, t)
		}
		return resp, nil, true
	})
}
