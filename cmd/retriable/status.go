package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

func (a *app) status() *cobra.Command {
	var maxAge time.Duration
	var members bool
	c := &cobra.Command{
		Use:   "status GROUP",
		Short: "Where a group stands, and which records hold it",
		Long: `Shows where a consumer group stands, classic or KIP-848, from outside: by partition what is committed, the log's end and the lag; how many offsets
above the committed one are finished, as the commit's map says; the oldest record that is not, with its age (since it was written there) and
the attempt that comes; and of retry topics how many wait, and when the first is due. A record that waits for its due time holds the committed
offset of a retry topic: that is as it should be, and --max-age does not count it. Below the table it says what the commits tell of owners that died: how
often in a row without getting on, which record is suspected, and, of a group without members, what was not given up in order.`,
		Example: "  retriable status billing\n  retriable status billing --max-age 10m --json",
		Args:    exactly("GROUP"), ValidArgsFunction: a.complete(groupNames),
	}
	c.Flags().DurationVar(&maxAge, "max-age", 0, "exit with 3 if a record that is due is older")
	c.Flags().BoolVar(&members, "members", false, "list the members too")
	c.RunE = a.with(func(ctx context.Context, c *admin.Client, args []string) error {
		g, err := c.Status(ctx, args[0])
		if err != nil {
			return err
		}
		now := time.Now()
		if a.json {
			err = a.object(groupObject(g, now))
		} else {
			a.showGroup(g, now, members)
		}
		if err == nil && tooOld(g, now, maxAge) {
			err = errFound
		}
		return err
	})
	return c
}

func tooOld(g *admin.Group, now time.Time, limit time.Duration) bool {
	for i := range g.Partitions {
		p := &g.Partitions[i]
		if limit > 0 && (p.Err != nil || p.Oldest != nil && overdue(p.Oldest, now) > limit) {
			return true
		}
	}
	return false
}

// overdue is for how long a record could have been handled: since it was written, or is due.
func overdue(w *admin.Waiting, now time.Time) time.Duration {
	since := w.Time
	if w.Due.After(since) {
		since = w.Due
	}
	return now.Sub(since)
}

func (a *app) showGroup(g *admin.Group, now time.Time, members bool) {
	fmt.Fprintf(a.out, "%s: %s, %s", safe([]byte(g.Name)), or(g.State, "-"), many(len(g.Members), "member", "members"))
	if g.Protocol != "" {
		fmt.Fprintf(a.out, ", %s protocol", g.Protocol)
	}
	fmt.Fprint(a.out, "\n\n")
	t := a.table("TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "FINISHED", "OLDEST", "AGE", "ATTEMPT", "HELD", "NEXT DUE")
	for i := range g.Partitions {
		p := &g.Partitions[i]
		committed, oldest, age, attempt, held, next := "-", "-", "-", "-", "-", "-"
		if p.Committed >= 0 {
			committed = number(p.Committed)
		}
		if w := p.Oldest; w != nil {
			oldest, age, attempt = number(w.Position.Offset), span(now.Sub(w.Time)), number(w.Attempt)
		}
		if p.Retry {
			held = number(p.Held)
			if p.HeldMore {
				held += "+"
			}
			if !p.NextDue.IsZero() {
				next = "in " + span(p.NextDue.Sub(now))
			}
		}
		t.row(p.Topic, number(p.Partition), committed, number(p.End), number(p.Lag), number(p.Finished), oldest, age, attempt, held, next)
	}
	t.flush()
	for i := range g.Partitions {
		p := &g.Partitions[i]
		a.showCrashes(g, p)
		if p.Err == nil {
			continue
		}
		fmt.Fprintf(a.out, "\n%s/%d: %s\n", p.Topic, p.Partition, plainly(p.Err))
		var large *kgo.ErrDecompressTooLarge
		if errors.As(p.Err, &large) {
			fmt.Fprintf(a.out, "The way out, once the group is stopped: retriable skip %s %s/%d/%d\n", safe([]byte(g.Name)), p.Topic, p.Partition, large.NextOffset-1)
		}
	}
	if !members || len(g.Members) == 0 {
		return
	}
	fmt.Fprintln(a.out)
	t = a.table("MEMBER", "CLIENT", "HOST", "INSTANCE", "PARTITIONS")
	for _, m := range g.Members {
		t.row(safe([]byte(m.ID)), safe([]byte(m.ClientID)), safe([]byte(m.Host)), or(safe([]byte(m.InstanceID)), "-"), number(m.Partitions))
	}
	t.flush()
}

// showCrashes tells what the commit says of the ends of a partition's owners: nothing if all is in order.
func (a *app) showCrashes(g *admin.Group, p *admin.Partition) {
	if p.Map != nil && p.Map.Crashes > 0 {
		fmt.Fprintf(a.out, "\n%s/%d: taken over %s in a row from an owner that had died, without getting on", p.Topic, p.Partition, many(p.Map.Crashes, "time", "times"))
		if p.Map.Alone >= 0 {
			fmt.Fprintf(a.out, "; record %d was run alone, for it may be the cause", p.Map.Alone)
		}
		fmt.Fprintln(a.out)
	}
	if len(g.Members) == 0 && p.Committed >= 0 && p.Lag > 0 && (p.Map == nil || !p.Map.Clean) {
		fmt.Fprintf(a.out, "\n%s/%d: not given up in order: what ran is delivered again, and what finished since the last commit\n", p.Topic, p.Partition)
	}
}
