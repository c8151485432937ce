package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// Replay says which letters to send back, and where to.
type Replay struct {
	// From is the dead-letter topic.
	From string
	// To is the retry topic of the base topic in that group. Its other readers pass what is sent over, for the copies name the group.
	To string
	// Group is the consumer group that gave the letters up and is to handle them once more. Letters of other groups are left alone.
	Group string
	// Topic is the base topic: letters that come from another are left alone, for the handler is that of To.
	Topic string
	// TopicRegexp is instead of Topic where the consumer has a pattern (retriable.TopicRegexp): it matches the whole name.
	TopicRegexp string
	// Foreign takes letters that name no group as meant, those of other tools: they come back without an origin, unless they name one in Kafka's
	// own headers.
	Foreign bool
	// Filter leaves more of them alone. Its Group is not looked at.
	Filter Filter

	// Rate is how many letters a second to send at most; 0 for no limit.
	Rate float64
	// Page is how many letters go in one transaction at most; 0 for 500. A page of a limited rate is a quarter of a second's worth.
	Page int
	// Until ends the letters that are looked at, by partition, as [ReplayResult.Until] of a dry run gave it. The default is the present end.
	Until map[int32]int64
	// Again has what was sent before count as not sent. A replay with it that was cut off goes on without it.
	Again bool
	// DryRun sends nothing and writes nothing: it tells what would be sent.
	DryRun bool
	// Progress is told after each page, and now and then while letters are read.
	Progress func(ReplayResult)
}

// ReplayResult counts letters, in whole messages. What a replay leaves alone stays where it is, and may be sent by another one.
type ReplayResult struct {
	Sent    int // sent back; of a dry run: would be
	Already int // sent back before; those below [Client.Sent] are read by a dry run only, and counted by it alone

	OtherGroups int // they name another group
	OtherTopics int // they come from another base topic
	Foreign     int // they name no group
	Unmatched   int // the filter does not mean them
	Incomplete  int // parts of messages that are not whole
	TooLarge    int // key and headers leave no room in a record of the retry topic, or the value is too large to be joined again

	Until map[int32]int64 // letters were looked at up to here

	// Kept says that the note of what was sent stays for ten years. If not, Kafka forgets it offsets.retention.minutes (7 days) after the last
	// replay, and what still lies there would be sent again. Of a dry run it says nothing.
	Kept bool
}

// ErrProgressFull says that the letters to send lie so scattered that what was sent cannot be written down, in the 4,096 characters that a
// commit has for it. Nothing is wrong: what was sent is written down. Send back, or purge, more of the older letters first.
var ErrProgressFull = errors.New("admin: what was sent back is too scattered to be remembered")

// Check returns what is wrong with r, without asking a broker.
func (r *Replay) Check() error {
	_, err := r.check()
	return err
}

// check returns the pattern of base topics too.
func (r *Replay) check() (*regexp.Regexp, error) {
	var errs []error
	for _, f := range []struct{ name, value string }{{"From", r.From}, {"To", r.To}, {"Group", r.Group}} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("admin: Replay.%s is empty", f.name))
		}
	}
	var re *regexp.Regexp
	switch {
	case (r.Topic == "") == (r.TopicRegexp == ""):
		errs = append(errs, errors.New("admin: Replay needs one of Topic and TopicRegexp"))
	case r.Topic != "":
		re = regexp.MustCompile("^" + regexp.QuoteMeta(r.Topic) + "$")
	default:
		var err error
		if re, err = regexp.Compile("^(?:" + r.TopicRegexp + ")$"); err != nil {
			errs = append(errs, fmt.Errorf("admin: Replay.TopicRegexp: %w", err))
		}
	}
	if r.To != "" && (r.To == r.From || r.To == r.Topic) {
		errs = append(errs, fmt.Errorf("admin: Replay.To is %s, not a retry topic", r.To))
	}
	if r.Rate < 0 || r.Page < 0 {
		errs = append(errs, fmt.Errorf("admin: Replay.Rate %v and Replay.Page %d must not be negative", r.Rate, r.Page))
	}
	return re, errors.Join(errs...)
}

// pageLetters is the size of a page.
func (r *Replay) pageLetters() int {
	n := r.Page
	if n == 0 {
		n = 500
	}
	if r.Rate > 0 {
		n = min(n, max(1, int(r.Rate/4)))
	}
	return n
}

// pageBytes ends a page before it has all its letters.
const pageBytes = 4 << 20

// Replay sends dead letters back: into the retry topic, as copies due at once, with attempts counted anew, for one group alone. The letters
// stay where they are.
//
// Each page of letters is one transaction together with the note that they were sent ([ReplayGroup]). So a replay can be cut off at any
// moment, by a crash or by ctx, and run again: no letter is sent twice, by this or by any other replay for the group, until Kafka forgets the note
// ([ReplayGroup] says when), or [Replay.Again] or [Client.Forget] has it forgotten. A second replay for the group that starts meanwhile makes this one fail. Consumers
// must read committed, as they do by default. After a crash in the middle of a page they wait up to 15 s for it to be aborted, or until the
// replay is run again.
func (c *Client) Replay(ctx context.Context, r Replay) (ReplayResult, error) {
	re, err := r.check()
	if err != nil {
		return ReplayResult{}, err
	}
	limit, err := c.recordLimit(ctx, r.To)
	if err != nil {
		return ReplayResult{}, err
	}
	run := &replaying{Replay: r, c: c, base: re, limit: limit, began: time.Now(), settled: map[string]bool{}}
	if !r.DryRun {
		if run.tx, err = c.transactor(ctx, &r, limit); err != nil {
			return run.result, err
		}
		defer run.tx.close()
	}
	// Only now, with earlier replays fenced, does what they have sent stand still.
	if r.Again && !r.DryRun {
		if err := c.Forget(ctx, r.From, r.Group); err != nil {
			return run.result, err
		}
	}
	bounds, err := c.Bounds(ctx, r.From)
	if err != nil {
		return run.result, err
	}
	for p, b := range bounds {
		if until, ok := r.Until[p]; ok {
			b.To = min(b.To, max(until, b.From))
			bounds[p] = b
		}
	}
	run.result.Until = map[int32]int64{}
	for p, b := range bounds {
		run.result.Until[p] = b.To
	}
	if run.sent, err = c.progress(ctx, r.From, r.Group, bounds); err != nil {
		return run.result, err
	}
	if r.Again && r.DryRun {
		for p, b := range bounds {
			run.sent[p] = &progress{base: b.From}
		}
	}
	err = run.all(ctx, bounds)
	if !r.DryRun && !errors.Is(err, ErrReplaced) {
		run.result.Kept = c.keep(ctx, r.From, r.Group, run.sent) == nil
	}
	return run.result, err
}

// replaying is one replay at work.
type replaying struct {
	Replay
	c       *Client
	base    *regexp.Regexp
	limit   int // bytes of a record of the retry topic
	tx      *transactor
	sent    map[int32]*progress
	began   time.Time
	result  ReplayResult
	read    int
	settled map[string]bool // ids of chunks whose message was sent
	page    page
}

// page is what goes in one transaction, all of one partition.
type page struct {
	letters   []*sending
	repeats   []watermark.Run // of messages that were sent: they go with them
	bytes     int
	partition int32
}

// sending is a letter on its way: the records it becomes, and the offsets that are sent with it.
type sending struct {
	records []*kgo.Record
	covers  []watermark.Run
	group   string
}

func (run *replaying) all(ctx context.Context, bounds map[int32]Span) error {
	s, err := run.c.scanner()
	if err != nil {
		return err
	}
	defer s.close()
	for _, p := range run.Filter.narrow(bounds) {
		b := bounds[p]
		if !run.DryRun {
			b.From = run.sent[p].base
		}
		run.page = page{partition: p}
		clear(run.settled)
		err := s.messages(ctx, topicPartition{run.From, p}, b, func(m *message) (bool, error) { return true, run.visit(ctx, m) })
		if err == nil {
			err = run.flush(ctx)
		}
		if err != nil {
			return err
		}
	}
	run.tell()
	return nil
}

// visit sorts a message into what is sent and what is left alone.
func (run *replaying) visit(ctx context.Context, m *message) error {
	if run.read++; run.read%1000 == 0 {
		run.tell()
	}
	n := &run.result
	if m.kind == repeat {
		if run.settled[m.group] {
			run.page.repeats = append(run.page.repeats, m.covers...)
		}
		return nil
	}
	l := letterOf(m)
	switch {
	case run.sent[run.page.partition].hasAll(m.covers):
		n.Already++
		run.settle(m.group)
	case l.Incomplete:
		n.Incomplete++
	case l.Group == "" && !run.Foreign:
		n.Foreign++
	case l.Group != "" && l.Group != run.Group:
		n.OtherGroups++
	case l.Origin.Topic != "" && l.Origin.Topic != run.To && !run.base.MatchString(l.Origin.Topic):
		n.OtherTopics++
	case !run.Filter.match(l):
		n.Unmatched++
	default:
		return run.send(ctx, l, m)
	}
	return nil
}

// settle remembers that the message of these chunks was sent.
func (run *replaying) settle(group string) {
	if group != "" {
		run.settled[group] = true
	}
}

// send puts a letter on the page.
func (run *replaying) send(ctx context.Context, l *Letter, m *message) error {
	r := &kgo.Record{
		Topic: run.To, Partition: -1, Key: l.Key, Value: l.Value, Timestamp: time.Now(),
		Headers: wire.AppendRetry(l.Headers, wire.Retry{
			Origin:  wire.Origin{Topic: l.Origin.Topic, Partition: l.Origin.Partition, Offset: l.Origin.Offset, Time: l.OriginTime},
			Attempt: 1, Group: run.Group,
		}),
	}
	// Chunks of a new group: readers remember the ids of those that have ended.
	var id [16]byte
	rand.Read(id[:])
	records, err := wire.SplitSparing(r, id, run.limit, joinLimits())
	if err != nil {
		run.result.TooLarge++
		return nil //nolint:nilerr // it stays where it is, and is counted
	}
	size := len(l.Key) + len(l.Value)
	if len(run.page.letters) > 0 && run.page.bytes+size > pageBytes {
		if err := run.flush(ctx); err != nil {
			return err
		}
	}
	run.page.letters = append(run.page.letters, &sending{records: records, covers: m.covers, group: m.group})
	run.page.bytes += size
	run.settle(m.group)
	if len(run.page.letters) >= run.pageLetters() {
		return run.flush(ctx)
	}
	return nil
}

// flush sends the page; in pieces if what was sent cannot be written down otherwise.
func (run *replaying) flush(ctx context.Context) error {
	pg := run.page
	run.page = page{partition: pg.partition}
	if run.DryRun {
		run.result.Sent += len(pg.letters)
		return nil
	}
	repeats := pg.repeats
	for len(pg.letters) > 0 || len(repeats) > 0 {
		n := len(pg.letters)
		next := run.sent[pg.partition].with(append(coversOf(pg.letters[:n]), repeats...))
		for !fits(next) && n > 1 {
			n /= 2
			next = run.sent[pg.partition].with(coversOf(pg.letters[:n]))
		}
		if !fits(next) {
			return fmt.Errorf("%w: letters of %s/%d from offset %d on were not sent", ErrProgressFull, run.From, pg.partition, next.base)
		}
		if err := run.pace(ctx); err != nil {
			return err
		}
		if err := run.tx.commit(ctx, pg.letters[:n], pg.partition, next); err != nil {
			return err
		}
		run.sent[pg.partition] = next
		run.result.Sent += n
		if n == len(pg.letters) {
			repeats = nil
		}
		pg.letters = pg.letters[n:]
		run.tell()
	}
	return nil
}

func fits(p *progress) bool {
	_, _, ok := p.encode()
	return ok
}

func coversOf(letters []*sending) (runs []watermark.Run) {
	for _, l := range letters {
		runs = append(runs, l.covers...)
	}
	return runs
}

// pace waits until the rate allows a page more.
func (run *replaying) pace(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if run.Rate == 0 || run.result.Sent == 0 {
		return nil
	}
	due := run.began.Add(time.Duration(float64(run.result.Sent) / run.Rate * float64(time.Second)))
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(time.Until(due)):
		return nil
	}
}

func (run *replaying) tell() {
	if run.Progress != nil {
		run.Progress(run.result)
	}
}
