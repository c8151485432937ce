package retriable

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Every offset of the consumer is written by one goroutine, the committer: at each interval for all partitions, and on request of a
// hook or a stop that waits for the answer. So a commit in flight is awaited by asking for the next.

// commitRequest asks the committer for a commit of some partitions now.
type commitRequest struct {
	ctx   context.Context //nolint:containedctx // it is a message; its sender waits
	parts []*partition
	last  bool // the fence's own: nothing commits after it
	done  chan error
}

// snapshot is what one commit says of one partition: one look gives both the offset and the map of what is finished above it.
type snapshot struct {
	p    *partition
	at   kgo.EpochOffset
	text string // the map, for the commit's metadata
	cut  bool   // not all of it fits
	last bool   // the partition is given up with it
	mark bool   // it tells no more than the last accepted one, but for marks
}

// maxCommitBytes bounds the metadata of one request: brokers refuse larger ones as a whole, for ever.
const maxCommitBytes = 256 << 10

func (c *Consumer) commitLoop(ctx context.Context) {
	tick := time.NewTicker(c.set.commitInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			timed, cancel := context.WithTimeout(ctx, c.set.commitTimeout())
			if err := c.commit(timed, c.partitions(), false); err != nil {
				c.log.Debug("retriable: a commit was refused; the next one carries what it did", "error", err)
			}
			cancel()
		case r := <-c.commits:
			r.done <- c.commit(r.ctx, r.parts, r.last)
		}
	}
}

// commitNow has the committer commit these partitions and waits for the answer.
func (c *Consumer) commitNow(ctx context.Context, parts []*partition, last bool) error {
	ctx, cancel := context.WithTimeout(ctx, c.set.commitTimeout())
	defer cancel()
	r := &commitRequest{ctx: ctx, parts: parts, last: last, done: make(chan error, 1)}
	select {
	case c.commits <- r:
		return <-r.done
	case <-ctx.Done():
		return errNotAsked
	}
}

// errNotAsked is that the committer was busy for all of the time that a commit had.
var errNotAsked = fmt.Errorf("the commits before it have not been answered: %w", context.DeadlineExceeded)

// notAsked is the error of a last commit to which the committer has not come.
func (c *Consumer) notAsked(parts []*partition) error {
	var errs []error
	for _, p := range parts {
		if s, ok := p.snapshot(true); ok {
			errs = append(errs, &CommitError{Topic: p.topic, Partition: p.partition, Offset: s.at.Offset, Err: errNotAsked, mark: s.mark})
			p.answered(s, errNotAsked, 0)
		}
	}
	return errors.Join(errs...)
}

// lastCommit commits what was finished when the partitions were fenced. While a rebalance is under way the broker may say not yet, and it, or the
// committer, may be too busy: then again, within the time that is left, or at least once.
func (c *Consumer) lastCommit(parts []*partition, left time.Duration) error {
	ctx, cancel := context.WithTimeout(c.base, max(left, 0)+c.set.commitTimeout())
	defer cancel()
	began := time.Now()
	for {
		err := c.commitNow(ctx, parts, true)
		if err == errNotAsked { //nolint:errorlint // our own, from commitNow
			err = c.notAsked(parts)
		}
		serious := withoutMarks(err)
		if err == nil || !again(err) && !unanswered(err) || serious == nil && time.Since(began) >= c.set.commitTimeout() {
			return serious
		}
		select {
		case <-ctx.Done():
			return serious
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// withoutMarks is the error without the refusals of commits that told nothing new but the clean mark: nothing is delivered again for want of it.
func withoutMarks(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	return errors.Join(slices.DeleteFunc(slices.Clone(joined.Unwrap()), func(err error) bool {
		e, ok := err.(*CommitError) //nolint:errorlint // the same
		return ok && e.mark
	})...)
}

// again reports whether the same commit may be accepted a little later.
func again(err error) bool {
	return errors.Is(err, kerr.RebalanceInProgress) || errors.Is(err, kerr.CoordinatorLoadInProgress) ||
		errors.Is(err, kerr.CoordinatorNotAvailable) || errors.Is(err, kerr.NotCoordinator) || errors.Is(err, kerr.RequestTimedOut)
}

// unanswered reports whether nobody knows what came of a commit.
func unanswered(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || kgo.IsRetryableBrokerErr(err)
}

// commit writes the watermarks that have moved. It runs on the committer alone.
func (c *Consumer) commit(ctx context.Context, parts []*partition, last bool) error {
	var snaps []snapshot
	for _, p := range parts {
		if s, ok := p.snapshot(last); ok {
			snaps = append(snaps, s)
		}
	}
	var errs []error
	for len(snaps) > 0 {
		n, bytes := 0, 0
		for n < len(snaps) && (n == 0 || bytes+len(snaps[n].text) <= maxCommitBytes) {
			bytes += len(snaps[n].text)
			n++
		}
		errs = append(errs, c.commitAll(ctx, snaps[:n])...)
		snaps = snaps[n:]
	}
	return errors.Join(errs...)
}

// commitAll sends one request, and what is too large for one in halves.
func (c *Consumer) commitAll(ctx context.Context, snaps []snapshot) (errs []error) {
	began := time.Now()
	answers := c.request(ctx, snaps)
	var large []snapshot
	for i, err := range answers {
		if err != nil && tooLarge(err) && len(snaps) > 1 {
			large = append(large, snaps[i])
			continue
		}
		if errors.Is(err, kerr.OffsetMetadataTooLarge) && snaps[i].text != "" {
			errs = append(errs, c.commitAll(ctx, []snapshot{c.shorten(snaps[i])})...)
			continue
		}
		if err != nil {
			err = &CommitError{Topic: snaps[i].p.topic, Partition: snaps[i].p.partition, Offset: snaps[i].at.Offset, Err: err, mark: snaps[i].mark}
			errs = append(errs, err)
		}
		snaps[i].p.answered(snaps[i], err, time.Since(began))
	}
	if n := len(large); n > 0 {
		errs = append(errs, c.commitAll(ctx, large[:(n+1)/2])...)
		if n > 1 {
			errs = append(errs, c.commitAll(ctx, large[(n+1)/2:])...)
		}
	}
	return errs
}

// tooLarge reports whether a broker answers so to a request with too much in it.
func tooLarge(err error) bool {
	return errors.Is(err, kerr.UnknownServerError) || errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.InvalidCommitOffsetSize)
}

// request commits and returns the answer for each partition.
func (c *Consumer) request(ctx context.Context, snaps []snapshot) []error {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for _, s := range snaps {
		if offsets[s.p.topic] == nil {
			offsets[s.p.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[s.p.topic][s.p.partition] = s.at
	}
	texts := map[topicPartition]*string{}
	for i := range snaps {
		texts[snaps[i].p.topicPartition] = &snaps[i].text
	}
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		if err := c.mayCommit(req.MemberID); err != nil {
			return err
		}
		for i := range req.Topics {
			t := &req.Topics[i]
			for j := range t.Partitions {
				t.Partitions[j].Metadata = texts[topicPartition{t.Topic, t.Partitions[j].Partition}]
			}
		}
		return nil
	})
	answers := map[topicPartition]error{}
	var failed error
	c.cl.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if failed = err; err == nil {
			readAnswers(req, resp, answers)
		}
	})
	errs := make([]error, len(snaps))
	for i, s := range snaps {
		err, ok := answers[s.p.topicPartition]
		switch {
		case failed != nil:
			err = failed
		case !ok:
			err = errNoAnswer
		}
		errs[i] = err
	}
	return errs
}

// readAnswers takes the code of each partition; from version 10 on the answer names topics by id alone.
func readAnswers(req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, into map[topicPartition]error) {
	names := map[[16]byte]string{}
	for _, t := range req.Topics {
		names[t.TopicID] = t.Topic
	}
	for _, t := range resp.Topics {
		name := t.Topic
		if name == "" {
			name = names[t.TopicID]
		}
		for _, p := range t.Partitions {
			into[topicPartition{name, p.Partition}] = kerr.ErrorForCode(p.ErrorCode)
		}
	}
}

var errNoAnswer = errors.New("the broker's answer leaves it out")

// snapshot says what to commit, if anything: the watermark, and only upwards (I2), with the map; and after the fence only its own (I3).
func (p *partition) snapshot(last bool) (snapshot, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stage.Load() == fenced && !last || p.unread != nil {
		return snapshot{}, false
	}
	offset, epoch := p.window.Advance()
	if offset < 0 || offset < p.committed {
		return snapshot{}, false
	}
	s := snapshot{p: p, at: kgo.EpochOffset{Offset: offset, Epoch: epoch}, last: last}
	limit := int(p.c.mapLimit.Load())
	if last {
		text, _ := p.encodeMap(offset, limit, false)
		s.mark = offset <= p.committed && text == p.text
	}
	s.text, s.cut = p.encodeMap(offset, limit, last)
	return s, !p.confirmed || offset > p.committed || s.text != p.text || s.cut && !p.cutting // what is left out is told, though nothing else be new
}

// answered takes the broker's answer for one partition.
func (p *partition) answered(s snapshot, err error, took time.Duration) {
	p.mu.Lock()
	first, firstCut := false, false
	if err == nil {
		p.committed = max(p.committed, s.at.Offset)
		p.text = s.text
		p.confirmed = true
		p.refusals = 0
		firstCut, p.cutting = s.cut && !p.cutting, s.cut
	} else {
		first = p.refusals == 0
		p.refusals++
	}
	p.mu.Unlock()
	p.c.refusedAs(err)
	p.heard(err)
	if err == nil {
		p.tellCut(s, firstCut)
	}
	if errors.Is(err, kerr.UnknownTopicID) {
		p.c.renewer.add(p.topic, &p.c.renewer.consumed) // the topic was made anew; old brokers do not tell by a fetch
	}
	if first && !s.last && !again(err) {
		p.c.log.Warn("retriable: a commit is refused; it is tried again with every interval", "error", err)
	}
	e := Committed{Topic: p.topic, Partition: p.partition, Offset: s.at.Offset, Took: took, Cut: s.cut, Err: err}
	call(p.c, p.c.hook.committed, func(h HookCommitted) { h.OnCommitted(e) })
}
