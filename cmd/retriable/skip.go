package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

func (a *app) skip() *cobra.Command {
	yes, dry := false, false
	c := &cobra.Command{
		Use:   "skip GROUP TOPIC/PARTITION/OFFSET",
		Short: "Move a stopped group past what cannot be read",
		Long: `Moves the committed offset of a group behind this one, which must be the last offset of what cannot be fetched: a batch that unpacks to more than
is allowed, as Health and status name it. All that is not finished below goes with it and is not handled: it says how much that is, and asks. What
the commit says is finished above stays so.

The group must have no members, and the broker sees to that too. Where the consumer runs, its own Consumer.Skip does the same without a stop.`,
		Example: "  retriable skip billing orders/3/10422 --dry-run\n  retriable skip billing orders/3/10422",
		Args:    exactly("GROUP", "TOPIC/PARTITION/OFFSET"), ValidArgsFunction: a.complete(groupNames),
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be given up")
	c.RunE = a.with(func(ctx context.Context, c *admin.Client, args []string) error {
		past, err := position(args[1])
		if err != nil {
			return err
		}
		s := admin.Skip{Group: args[0], Past: past, DryRun: true}
		plan, err := c.Skip(ctx, s)
		if err != nil {
			return err
		}
		what := fmt.Sprintf("move group %s from offset %d to %d of %s/%d, and give up %s that %s not finished", safe([]byte(s.Group)), plan.From, plan.To,
			past.Topic, past.Partition, many(plan.To-plan.From-plan.Finished, "offset", "offsets"), isAre(plan.To-plan.From-plan.Finished))
		if !dry {
			if err := a.confirm(yes, what); err != nil {
				return err
			}
			s.DryRun = false
			if plan, err = c.Skip(ctx, s); err != nil {
				return err
			}
		}
		switch {
		case a.json:
			return a.object(skipObject{From: plan.From, To: plan.To, Finished: plan.Finished, DryRun: dry})
		case dry:
			fmt.Fprintf(a.out, "It would %s.\n", what)
		default:
			fmt.Fprintf(a.out, "Group %s is at offset %d of %s/%d now.\n", safe([]byte(s.Group)), plan.To, past.Topic, past.Partition)
		}
		return nil
	})
	return c
}

func isAre(n int64) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
