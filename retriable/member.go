package retriable

import (
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

// joinedAs begins a session as a member. What is still there of another is given up as lost, and begun again from its commits: kgo
// believes to have it still, so its topics are let go and taken up again.
func (c *Consumer) joinedAs(member string) {
	before := c.member.Swap(&member)
	if before == nil || *before == member {
		return
	}
	kept := c.partitions()
	if len(kept) == 0 {
		return
	}
	c.log.Warn("retriable: this member was counted out of its group and has joined again; what it owned is begun again from its commits", "group", c.set.group)
	c.giveUp(slices.Clone(kept), ErrRevoked, 0, true)
	for _, p := range kept {
		c.renewer.add(p.topic, &c.renewer.stale)
	}
}
