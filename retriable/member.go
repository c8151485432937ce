package retriable

import (
	"context"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
)

// A member that was counted out of its group, because it was halted for longer than its session, learns of it by a heartbeat or by a commit. By a
// heartbeat: kgo calls onLost. By a commit, or in the middle of a rebalance: kgo 1.22.2 joins again as a new member and, in a cooperative group, keeps
// all that it has, though others had it meanwhile. What we would commit then the broker accepts, over theirs. So partitions are ours
// only as the member that they were assigned to.

var errOtherMember = errors.New("the member was counted out of its group; whoever owned its partitions meanwhile may have committed more")

// estranged is no member: a generation has passed without us.
const estranged = "\x00"

// mayCommit refuses to commit as a member other than the one that the partitions were assigned to (I3).
func (c *Consumer) mayCommit(member string) error {
	if m := c.member.Load(); m != nil && *m != member {
		return errOtherMember
	}
	return nil
}

// refusedAs takes a commit's refusal. Whoever misses a generation comes back as another member, but for static ones: to them the group stays true, and
// yet others may have had their partitions. (Under KIP-848 kgo leaves this to the heartbeats, and those to onLost.)
func (c *Consumer) refusedAs(err error) {
	if c.set.client.instance != "" && !c.set.client.serverSide && errors.Is(err, kerr.IllegalGeneration) {
		m := estranged
		c.member.Store(&m)
	}
}

// heard takes what a commit's answer says of us. A member that was counted out starts nothing more: until it has joined again, which takes as long as
// a rebalance, others handle the same (I5). A session as the same member ends that, or the commit, which is tried at every interval, once it is accepted.
func (p *partition) heard(err error) {
	switch {
	case countedOut(err) != nil:
		p.barred.Or(barredNoMember)
	case err != nil || p.barred.And(^barredNoMember)&barredNoMember == 0:
		return
	}
	p.c.pool.wake(p)
}

// joinedAs begins a session as a member. What is still there of another is given up as lost, and begun again from its commits: kgo
// believes to have it still, so its topics are let go and taken up again.
func (c *Consumer) joinedAs(member string) {
	before := c.member.Swap(&member)
	kept := c.partitions()
	if before == nil || *before == member {
		for _, p := range kept {
			p.heard(nil)
		}
		return
	}
	if len(kept) == 0 {
		return
	}
	c.log.Warn("retriable: this member was counted out of its group and has joined again; what it owned is begun again from its commits", "group", c.set.group)
	c.giveUp(slices.Clone(kept), ErrRevoked, 0, true)
	for _, p := range kept {
		c.renewer.add(p.topic, &c.renewer.stale)
	}
}

// confirm has a commit tell where partitions begin, and returns why they are not ours, if that is what it is answered. A member that was halted between
// its assignment and its question for the commits may have been counted out meanwhile: a classic group's coordinator answers the question all the same,
// while others have the partitions and handle what lies above (I5). Had it been counted out before, this commit is refused; so if it is not, nobody
// else had them when the commits were told.
func (c *Consumer) confirm(ctx context.Context, made []*partition) error {
	if len(made) == 0 {
		return nil
	}
	var err error
	for range 2 { // a process that was halted may find the first one's time over and its answer there
		if err = c.commitNow(ctx, made, false); !unanswered(err) {
			break
		}
	}
	if err == nil {
		return nil
	}
	if why := countedOut(err); why != nil {
		c.log.Warn("retriable: this member was counted out of its group before it began to read what it was assigned; joining again", "group", c.set.group, "error", why)
		return why
	}
	if ctx.Err() == nil {
		c.log.Debug("retriable: where to start is not committed yet; it will be with the next commit", "error", err)
	}
	return ctx.Err() // the session is over, perhaps because another commit was answered so
}

// countedOut returns what a commit's refusal says of us, if it is that the group has gone on without us.
func countedOut(err error) error {
	for _, e := range []error{kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.FencedInstanceID, kerr.FencedMemberEpoch, errOtherMember} {
		if errors.Is(err, e) {
			return e
		}
	}
	return nil
}

// disown gives up what has just been made of partitions that are not ours. kgo tells their commits once more, unless the session ends with all lost.
func (c *Consumer) disown(made []*partition) {
	c.giveUp(made, ErrRevoked, 0, true)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range made {
		c.awaited[p.topicPartition] = struct{}{}
	}
}
