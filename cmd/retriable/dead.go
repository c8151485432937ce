package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

func (a *app) dead() *cobra.Command {
	return group("dead", "Dead letters: list, show, count, send back, delete", "  retriable dead summary orders.dead\n  retriable dead list orders.dead --since 24h",
		a.deadList(), a.deadShow(), a.deadSummary(), a.deadReplay(), a.deadPurge())
}

func (a *app) deadList() *cobra.Command {
	var f filter
	var group string
	limit := 0
	c := &cobra.Command{
		Use:   "list TOPIC",
		Short: "List the letters of a dead-letter topic",
		Long: `Lists the letters of a dead-letter topic by partition and offset: where each lies, when and why it was dead-lettered, after how many attempts,
where its record was first produced, the group that gave up, and the key. A message in several records is one letter. Values are shown by dead show alone.`,
		Example: "  retriable dead list orders.dead --since 24h --reason 'all 5 attempts' --limit 20\n  retriable dead list orders.dead --group billing --header tenant=acme --json",
		Args:    exactly("TOPIC"), ValidArgsFunction: a.complete(topicNames),
	}
	c.Flags().StringVar(&group, "group", "", "given up by this group; tells also which letters were sent back to it")
	c.Flags().IntVar(&limit, "limit", 0, "end after so many (default all)")
	f.flags(c.Flags())
	c.RunE = a.with(func(ctx context.Context, c *admin.Client, args []string) error {
		want, err := f.filter()
		if err != nil {
			return err
		}
		want.Group = group
		var t *table
		n := 0
		for l, err := range c.List(ctx, args[0], want) {
			if err != nil {
				return err
			}
			switch {
			case a.json:
				if err := a.object(letterObject(l, false)); err != nil {
					return err
				}
			default:
				if t == nil {
					t = a.table("LETTER", "TIME (UTC)", "REASON", "ATTEMPTS", "ORIGIN", "GROUP", "KEY", "")
				}
				t.row(l.Position.String(), moment(l.Time), or(short([]byte(l.Reason), 60), "-"), number(l.Attempts), origin(l.Origin), or(short([]byte(l.Group), 40), "-"), key(l.Key), remark(l))
			}
			if n++; n == limit {
				break
			}
		}
		switch {
		case a.json:
		case t == nil:
			fmt.Fprintln(a.out, "No letters.")
		default:
			t.flush()
		}
		return nil
	})
	return c
}

func remark(l *admin.Letter) string {
	switch {
	case l.Incomplete:
		return "a part"
	case l.Sent:
		return "sent back"
	case l.Records > 1:
		return fmt.Sprintf("in %d records", l.Records)
	}
	return ""
}

func (a *app) deadShow() *cobra.Command {
	raw := false
	c := &cobra.Command{
		Use:   "show TOPIC/PARTITION/OFFSET",
		Short: "Show one letter whole, with headers and value",
		Long:  "Shows one letter whole: what is known of its failure, the record's headers, and its value, as text or, if it is none, in hexadecimal.",
		Example: "  retriable dead show orders.dead/0/42\n" +
			"  retriable dead show orders.dead/0/42 --raw > value.bin",
		Args: exactly("TOPIC/PARTITION/OFFSET"),
	}
	c.Flags().BoolVar(&raw, "raw", false, "print the bytes of the value and nothing else")
	c.RunE = a.with(func(ctx context.Context, c *admin.Client, args []string) error {
		at, err := position(args[0])
		if err != nil {
			return err
		}
		l, err := c.Letter(ctx, at)
		if err != nil {
			return err
		}
		switch {
		case raw:
			_, err = a.out.Write(l.Value)
			return err
		case a.json:
			return a.object(letterObject(l, true))
		}
		t := a.table("letter", l.Position.String())
		t.row("dead-lettered", moment(l.Time))
		t.row("reason", or(safe([]byte(l.Reason)), "-"))
		t.row("last error", or(safe([]byte(l.Error)), "-"))
		t.row("attempts", number(l.Attempts))
		t.row("first failure", moment(l.FirstFailure))
		t.row("group", or(safe([]byte(l.Group)), "-"))
		t.row("origin", origin(l.Origin))
		t.row("produced", moment(l.OriginTime))
		t.row("records", number(l.Records))
		if l.Incomplete {
			t.row("", "a part of a message of which others are not here")
		}
		t.row("key", key(l.Key))
		for _, h := range l.Headers {
			t.row("header "+safe([]byte(h.Key)), safe(h.Value))
		}
		t.row("value", many(len(l.Value), "byte", "bytes"))
		t.flush()
		switch {
		case len(l.Value) == 0:
		case utf8.Valid(l.Value):
			fmt.Fprintf(a.out, "\n%s\n", safeText(l.Value))
		default:
			fmt.Fprintf(a.out, "\n%s", hex.Dump(l.Value))
		}
		return nil
	})
	return c
}

func (a *app) deadSummary() *cobra.Command {
	var f filter
	var group string
	c := &cobra.Command{
		Use:     "summary TOPIC",
		Short:   "Count the letters by reason",
		Long:    "Counts the letters of a dead-letter topic by reason, group and topic of origin, most first, and how many of them were sent back already if --group says to whom.",
		Example: "  retriable dead summary orders.dead\n  retriable dead summary orders.dead --group billing --since 24h",
		Args:    exactly("TOPIC"), ValidArgsFunction: a.complete(topicNames),
	}
	c.Flags().StringVar(&group, "group", "", "given up by this group; tells also how many were sent back to it")
	f.flags(c.Flags())
	c.RunE = a.with(func(ctx context.Context, c *admin.Client, args []string) error {
		want, err := f.filter()
		if err != nil {
			return err
		}
		want.Group = group
		s, err := c.Summary(ctx, args[0], want)
		if err != nil {
			return err
		}
		if a.json {
			return a.object(summaryObject(s))
		}
		if s.Letters > 0 {
			columns := []string{"LETTERS", "REASON", "ORIGIN", "GROUP", "FIRST (UTC)", "LAST (UTC)"}
			if group != "" {
				columns = append(columns, "SENT BACK")
			}
			t := a.table(columns...)
			for _, r := range s.Reasons {
				cells := []string{number(r.Letters), or(short([]byte(r.Reason), 60), "-"), or(r.Origin, "-"), or(short([]byte(r.Group), 40), "-"), moment(r.First), moment(r.Last)}
				if group != "" {
					cells = append(cells, number(r.Sent))
				}
				t.row(cells...)
			}
			t.flush()
			fmt.Fprintln(a.out)
		}
		fmt.Fprintf(a.out, "%s, %s of keys and values", many(s.Letters, "letter", "letters"), many(s.Bytes, "byte", "bytes"))
		if group != "" {
			fmt.Fprintf(a.out, ", %d sent back to %s", s.Sent, safe([]byte(group)))
		}
		if s.Incomplete > 0 {
			fmt.Fprintf(a.out, "; and %s of messages that are not whole", many(s.Incomplete, "part", "parts"))
		}
		fmt.Fprintln(a.out)
		return nil
	})
	return c
}
