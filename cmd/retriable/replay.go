package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

func (a *app) deadReplay() *cobra.Command {
	var f filter
	var r admin.Replay
	yes := false
	c := &cobra.Command{
		Use:   "replay TOPIC --group GROUP --topic BASE --to RETRY",
		Short: "Send letters back into their retry topic, each once",
		Long: `Sends letters of a dead-letter topic back into the retry topic of the group that gave them up, as copies that are due at once, with attempts
counted anew. No other group sees them. The letters stay where they are.

A page of letters and the note that they were sent are one transaction: a replay that was cut off, by Ctrl-C or a crash, is run again and goes on
where it was, and no letter is sent twice, whatever the filters. It looks first, says what it would send, and asks.`,
		Example: "  retriable dead replay orders.dead --group billing --topic orders --to orders.retry --dry-run\n" +
			"  retriable dead replay orders.dead --group billing --topic orders --to orders.retry --reason 'all 5 attempts' --since 24h --rate 50 --yes",
		Args: exactly("TOPIC"), ValidArgsFunction: a.complete(topicNames),
	}
	s := c.Flags()
	s.StringVar(&r.Group, "group", "", "the consumer group to handle them once more; letters of others are left alone")
	s.StringVar(&r.Topic, "topic", "", "the base topic; letters that come from others are left alone")
	s.StringVar(&r.TopicRegexp, "topic-regexp", "", "instead of --topic, for consumers of a pattern")
	s.StringVar(&r.To, "to", "", "the retry topic of that base topic in that group")
	s.Float64Var(&r.Rate, "rate", 0, "letters a second at most (default no limit)")
	s.IntVar(&r.Page, "page", 0, "letters in a transaction at most (default 500)")
	s.BoolVar(&r.Foreign, "foreign", false, "send also letters that name no group, those of other tools")
	s.BoolVar(&r.Again, "again", false, "forget first what was sent before, and send it again")
	s.BoolVar(&r.DryRun, "dry-run", false, "only say what would be sent")
	s.BoolVarP(&yes, "yes", "y", false, "do not ask")
	f.flags(s)
	c.RunE = a.with(func(ctx context.Context, c *admin.Client, args []string) error {
		r.From = args[0]
		var err error
		if r.Filter, err = f.filter(); err != nil {
			return err
		}
		if err := r.Check(); err != nil {
			return usageError{err}
		}
		return a.replay(ctx, c, r, yes)
	})
	return c
}

func (a *app) replay(ctx context.Context, c *admin.Client, r admin.Replay, yes bool) error {
	look := r
	look.DryRun = true
	looking := a.bar("looking", -1)
	look.Progress = func(res admin.ReplayResult) { looking.set(total(res)) }
	plan, err := c.Replay(ctx, look)
	looking.end(a)
	if err != nil {
		return err
	}
	if r.DryRun {
		if a.json {
			return a.object(replayObject(plan, true))
		}
		fmt.Fprintf(a.out, "%s would be sent to %s for group %s.\n", many(plan.Sent, "letter", "letters"), r.To, safe([]byte(r.Group)))
		a.leftAlone(plan)
		return nil
	}
	if plan.Sent > 0 {
		what := fmt.Sprintf("send %s to %s for group %s", many(plan.Sent, "letter", "letters"), r.To, safe([]byte(r.Group)))
		if err := a.confirm(yes, what); err != nil {
			return err
		}
	}
	r.Until = plan.Until // the letters that were asked about, and no others
	sending := a.bar("sending", plan.Sent)
	r.Progress = func(res admin.ReplayResult) { sending.set(res.Sent) }
	res, err := c.Replay(ctx, r)
	sending.end(a)
	switch {
	case a.json:
		if e := a.object(replayObject(res, false)); err == nil {
			err = e
		}
	case err != nil:
		fmt.Fprintf(a.out, "%d of %s were sent to %s; the same command sends the rest.\n", res.Sent, many(plan.Sent, "letter", "letters"), r.To)
	default:
		fmt.Fprintf(a.out, "%s sent to %s for group %s.\n", were(res.Sent), r.To, safe([]byte(r.Group)))
		plan.Sent = res.Sent
		a.leftAlone(plan)
	}
	if !res.Kept && res.Sent > 0 && !a.json {
		fmt.Fprintln(a.out, "The broker forgets what was sent after offsets.retention.minutes: purge it before, or it may be sent again.")
	}
	return err
}

func were(n int) string {
	if n == 1 {
		return "1 letter was"
	}
	return number(n) + " letters were"
}

func total(r admin.ReplayResult) int {
	return r.Sent + r.Already + r.OtherGroups + r.OtherTopics + r.Foreign + r.Unmatched + r.Incomplete + r.TooLarge
}

// leftAlone says what was not sent, and why.
func (a *app) leftAlone(r admin.ReplayResult) {
	for _, line := range []struct {
		n    int
		what string
	}{
		{r.Already, "sent before"},
		{r.Unmatched, "not meant by the filter"},
		{r.OtherGroups, "of other groups"},
		{r.OtherTopics, "from other base topics"},
		{r.Foreign, "without a group (--foreign sends them too)"},
		{r.TooLarge, "too large for the retry topic"},
	} {
		if line.n > 0 {
			fmt.Fprintf(a.out, "Left alone: %s %s.\n", many(line.n, "letter", "letters"), line.what)
		}
	}
	if r.Incomplete > 0 {
		fmt.Fprintf(a.out, "Left alone: %s of messages that are not whole.\n", many(r.Incomplete, "part", "parts"))
	}
}

func (a *app) deadPurge() *cobra.Command {
	var below []string
	var sent string
	var all, yes bool
	c := &cobra.Command{
		Use:   "purge TOPIC",
		Short: "Delete letters below an offset, for good",
		Long: `Deletes the letters of a dead-letter topic below an offset of each partition, for good. Which: up to where all were sent back to a group
(--sent), below offsets (--below), or all that are there now (--all). It says how many offsets that is, and asks.`,
		Example: "  retriable dead purge orders.dead --sent billing\n  retriable dead purge orders.dead --below 0:1200,3:800 --yes",
		Args:    exactly("TOPIC"), ValidArgsFunction: a.complete(topicNames),
	}
	c.Flags().StringVar(&sent, "sent", "", "as far as all letters were sent back to this group")
	c.Flags().StringSliceVar(&below, "below", nil, "below these offsets, as partition:offset,…")
	c.Flags().BoolVar(&all, "all", false, "all letters that are there now")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.MarkFlagsMutuallyExclusive("sent", "below", "all")
	c.MarkFlagsOneRequired("sent", "below", "all")
	c.RunE = a.with(func(ctx context.Context, c *admin.Client, args []string) error {
		bounds, err := c.Bounds(ctx, args[0])
		if err != nil {
			return err
		}
		var to map[int32]int64
		switch {
		case sent != "":
			to, err = c.Sent(ctx, args[0], sent)
		case all:
			to = map[int32]int64{}
			for p, b := range bounds {
				to[p] = b.To
			}
		default:
			to, err = offsets(below)
		}
		if err != nil {
			return err
		}
		return a.purge(ctx, c, args[0], bounds, to, yes)
	})
	return c
}

func (a *app) purge(ctx context.Context, c *admin.Client, topic string, bounds map[int32]admin.Span, to map[int32]int64, yes bool) error {
	var gone int64
	maps.DeleteFunc(to, func(p int32, at int64) bool {
		b, ok := bounds[p]
		gone += max(min(at, b.To)-b.From, 0)
		return ok && at >= 0 && at <= b.From
	})
	if len(to) == 0 {
		if a.json {
			return a.object(purgeObject{Topic: topic})
		}
		fmt.Fprintln(a.out, "There is nothing to delete.")
		return nil
	}
	if err := a.confirm(yes, fmt.Sprintf("delete %s of %s for good", many(gone, "offset", "offsets"), topic)); err != nil {
		return err
	}
	begin, err := c.Purge(ctx, topic, to)
	if err != nil {
		return err
	}
	if a.json {
		return a.object(purgeObject{Topic: topic, Offsets: gone, Begin: begin})
	}
	fmt.Fprintf(a.out, "Deleted %s.\n", many(gone, "offset", "offsets"))
	t := a.table("PARTITION", "BEGINS AT")
	for _, p := range slices.Sorted(maps.Keys(begin)) {
		t.row(number(p), number(begin[p]))
	}
	t.flush()
	return nil
}

// offsets reads partition:offset pairs.
func offsets(pairs []string) (map[int32]int64, error) {
	m := map[int32]int64{}
	for _, pair := range pairs {
		p, o, ok := strings.Cut(strings.TrimSpace(pair), ":")
		n, errP := strconv.ParseInt(p, 10, 32)
		at, errO := strconv.ParseInt(o, 10, 64)
		if !ok || errors.Join(errP, errO) != nil || n < 0 || n > math.MaxInt32 || at < 0 {
			return nil, usageError{fmt.Errorf("--below: %q is not partition:offset", pair)}
		}
		m[int32(n)] = at
	}
	return m, nil
}
