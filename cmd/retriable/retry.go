package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

func (a *app) retry() *cobra.Command {
	return group("retry", "Retries that wait", "  retriable retry list billing", a.retryList())
}

func (a *app) retryList() *cobra.Command {
	var topics []string
	limit := 0
	c := &cobra.Command{
		Use:   "list GROUP",
		Short: "List what waits in a group's retry topics, and until when",
		Long: `Lists what a group has not finished in its retry topics: where each copy lies, when it is due, the attempt that comes, where its record was
first produced, its key, and why the attempt before failed. Without --topic these are the topics of the group in which a retry waits.`,
		Example: "  retriable retry list billing\n  retriable retry list billing --topic orders.retry --limit 20 --json",
		Args:    exactly("GROUP"), ValidArgsFunction: a.complete(groupNames),
	}
	c.Flags().StringSliceVar(&topics, "topic", nil, "these retry topics")
	c.Flags().IntVar(&limit, "limit", 0, "end after so many (default all)")
	c.RunE = a.with(func(ctx context.Context, c *admin.Client, args []string) error {
		if len(topics) == 0 {
			g, err := c.Status(ctx, args[0])
			if err != nil {
				return err
			}
			for i := range g.Partitions {
				if p := &g.Partitions[i]; p.Retry && !slices.Contains(topics, p.Topic) {
					topics = append(topics, p.Topic)
				}
			}
		}
		return a.listWaiting(ctx, c, args[0], topics, limit)
	})
	return c
}

func (a *app) listWaiting(ctx context.Context, c *admin.Client, group string, topics []string, limit int) error {
	var t *table
	n, now := 0, time.Now()
	for _, topic := range topics {
		for w, err := range c.Waiting(ctx, group, topic) {
			if err != nil {
				return err
			}
			if n++; limit > 0 && n > limit {
				break
			}
			if a.json {
				if err := a.object(waitingObject(w)); err != nil {
					return err
				}
				continue
			}
			if t == nil {
				t = a.table("RETRY", "DUE", "ATTEMPT", "ORIGIN", "KEY", "FIRST FAILURE (UTC)", "LAST ERROR")
			}
			t.row(w.Position.String(), due(w.Due, now), number(w.Attempt), origin(w.Origin), key(w.Key), moment(w.FirstFailure), or(short([]byte(w.LastError), 60), "-"))
		}
	}
	switch {
	case t != nil:
		t.flush()
	case !a.json:
		fmt.Fprintln(a.out, "Nothing waits.")
	}
	return nil
}

func due(t, now time.Time) string {
	if !t.After(now) {
		return "now"
	}
	return "in " + span(t.Sub(now))
}
