package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

func (a *app) topics() *cobra.Command {
	return group("topics", "Check or create retry and dead-letter topics",
		"  retriable topics check orders --retry orders.retry --dead orders.dead", a.topicsCheck(), a.topicsCreate())
}

func topicFlags(c *cobra.Command, ts *admin.Topics) {
	c.Flags().StringVar(&ts.Retry, "retry", "", "its retry topic")
	c.Flags().StringVar(&ts.Dead, "dead", "", "its dead-letter topic")
	c.Flags().DurationVar(&ts.MaxDelay, "max-delay", 7*24*time.Hour, "the longest wait for a retry, the consumer's MaxDelay")
	c.MarkFlagsOneRequired("retry", "dead")
}

func (a *app) topicsCheck() *cobra.Command {
	var ts admin.Topics
	c := &cobra.Command{
		Use:   "check BASE",
		Short: "Find what does not fit between a topic, its retry topic and its dead-letter topic",
		Long: `Finds what is missing, what may lose records and what is worth a thought: replication, compaction, retention, sizes of records, partitions. It exits
with 3 if anything is missing or may lose records.`,
		Example: "  retriable topics check orders --retry orders.retry --dead orders.dead --max-delay 24h",
		Args:    exactly("BASE"), ValidArgsFunction: a.complete(topicNames),
	}
	topicFlags(c, &ts)
	c.RunE = a.with(func(ctx context.Context, c *admin.Client, args []string) error {
		ts.Base = args[0]
		fs, err := c.CheckTopics(ctx, ts)
		if err != nil {
			return err
		}
		bad := false
		var t *table
		for _, f := range fs {
			bad = bad || f.Loses
			if a.json {
				if err := a.object(findingObject(f)); err != nil {
					return err
				}
				continue
			}
			if t == nil {
				t = a.table("", "TOPIC", "PROBLEM", "WHAT TO DO")
			}
			kind := "consider"
			if f.Loses {
				kind = "wrong"
			}
			t.row(kind, f.Topic, f.Problem, f.Fix)
		}
		switch {
		case t != nil:
			t.flush()
		case !a.json:
			fmt.Fprintln(a.out, "All fits.")
		}
		if bad {
			return errFound
		}
		return nil
	})
	return c
}

func (a *app) topicsCreate() *cobra.Command {
	var ts admin.Topics
	var n admin.NewTopics
	yes := false
	c := &cobra.Command{
		Use:   "create BASE",
		Short: "Create the retry and dead-letter topics of a topic that are missing",
		Long: `Creates those of the topics that are missing: with room for the base topic's records and their headers, retries kept a week longer than
--max-delay, dead letters for ever, and partitions and replicas as the base topic has. What is there stays as it is. It asks.`,
		Example: "  retriable topics create orders --retry orders.retry --dead orders.dead --yes",
		Args:    exactly("BASE"), ValidArgsFunction: a.complete(topicNames),
	}
	topicFlags(c, &ts)
	c.Flags().Int32Var(&n.Partitions, "partitions", 0, "partitions of each (default as many as BASE has)")
	c.Flags().Int16Var(&n.Replicas, "replicas", 0, "replicas of each; -1 for the broker's default (default as BASE has)")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.RunE = a.with(func(ctx context.Context, c *admin.Client, args []string) error {
		ts.Base = args[0]
		fs, err := c.CheckTopics(ctx, ts)
		if err != nil {
			return err
		}
		var missing []string
		for _, f := range fs {
			if f.Missing && f.Topic != ts.Base {
				missing = append(missing, f.Topic)
			}
		}
		var made []string
		if len(missing) > 0 {
			if err := a.confirm(yes, "create "+strings.Join(missing, " and ")); err != nil {
				return err
			}
			if made, err = c.CreateTopics(ctx, ts, n); err != nil {
				return err
			}
		}
		switch {
		case a.json:
			return a.object(createdObject{Created: made})
		case len(made) == 0:
			fmt.Fprintln(a.out, "Nothing is missing.")
		default:
			fmt.Fprintf(a.out, "Created %s.\n", strings.Join(made, " and "))
		}
		return nil
	})
	return c
}
