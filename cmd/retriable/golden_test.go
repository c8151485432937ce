package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

const letterTopics = "orders orders.retry orders.dead:2"

// Every command has a golden file of its help, with an example, and one of calls of it.
var stories = map[string]func(t *testing.T, b *bed){
	"dead list": func(_ *testing.T, b *bed) {
		b.letters()
		b.call("dead", "list", "orders.dead")
		b.call("dead", "list", "orders.dead", "--group", "billing", "--since", "2000-01-01T00:02:00Z", "--until", "2000-01-01 00:05:00")
		b.call("dead", "list", "orders.dead", "--reason", "all 5", "--header", "tenant=t1", "--key", "customer-1", "--json")
		b.call("dead", "list", "orders.dead", "--partition", "1", "--limit", "2", "--header", "tenant", "--error", "the bank", "--origin", "orders")
		b.call("dead", "list", "orders.dead", "--origin", "payments")
		b.call("dead", "list", "nowhere")
		b.call("dead", "list", "orders.dead", "--since", "yesterday")
		b.call("dead", "list")
	},
	"dead show": func(_ *testing.T, b *bed) {
		b.letters()
		b.call("dead", "show", "orders.dead/0/0")
		b.call("dead", "show", "orders.dead/0/4") // nothing of it reaches the terminal as it is
		b.call("dead", "show", "orders.dead/0/5") // a part
		b.call("dead", "show", "orders.dead/1/3") // another tool's, and binary
		b.call("dead", "show", "orders.dead/1/3", "--json")
		b.call("dead", "show", "orders.dead/0/0", "--raw")
		b.call("dead", "show", "orders.dead/0/99")
		b.call("dead", "show", "orders.dead/0")
	},
	"dead summary": func(_ *testing.T, b *bed) {
		b.letters()
		b.call("dead", "summary", "orders.dead")
		b.call("dead", "replay", "orders.dead", "--group", "billing", "--topic", "orders", "--to", "orders.retry", "--reason", "permanent", "--yes")
		b.call("dead", "summary", "orders.dead", "--group", "billing")
		b.call("dead", "summary", "orders.dead", "--group", "billing", "--reason", "permanent", "--json")
		b.call("dead", "summary", "orders")
	},
	"dead replay": func(t *testing.T, b *bed) {
		b.letters()
		to := []string{"dead", "replay", "orders.dead", "--group", "billing", "--topic", "orders", "--to", "orders.retry"}
		call := func(more ...string) { b.call(slices.Concat(to, more)...) }
		call("--dry-run")
		call("--reason", "permanent", "--dry-run", "--json")
		call() // nobody to ask
		b.answer = "n\n"
		call()
		b.answer = "y\n"
		call("--reason", "permanent")
		b.answer = ""
		call("--yes", "--json")
		call("--yes")
		call("--yes", "--foreign", "--rate", "2")
		call("--yes", "--again")
		b.call("dead", "replay", "orders.dead")
		b.call("dead", "replay", "orders.dead", "--group", "billing", "--topic", "orders", "--to", "orders", "--yes")
		b.call("dead", "replay", "orders.dead", "--group", "billing", "--topic", "orders", "--to", "nowhere", "--yes")
		_ = t
	},
	"dead purge": func(_ *testing.T, b *bed) {
		b.letters()
		b.call("dead", "purge", "orders.dead")
		b.call("dead", "purge", "orders.dead", "--below", "0:2,1:1")
		b.call("dead", "purge", "orders.dead", "--below", "0:2,1:1", "--yes")
		b.call("dead", "purge", "orders.dead", "--below", "0:-1", "--yes")
		b.call("dead", "purge", "orders.dead", "--below", "0:77", "--yes")
		b.call("dead", "purge", "orders.dead", "--below", "7:7", "--yes")
		b.call("dead", "purge", "orders.dead", "--sent", "billing", "--yes")
		b.call("dead", "replay", "orders.dead", "--group", "billing", "--topic", "orders", "--to", "orders.retry", "--partition", "0", "--until", "2000-01-01T00:05:00Z", "--yes")
		b.call("dead", "purge", "orders.dead", "--sent", "billing", "--yes", "--json")
		b.answer = "y\n"
		b.call("dead", "purge", "orders.dead", "--all")
		b.call("dead", "list", "orders.dead")
	},
	"retry list": func(_ *testing.T, b *bed) {
		stop := b.orders()
		b.call("retry", "list", "billing")
		b.call("retry", "list", "billing", "--topic", "orders.retry", "--limit", "1", "--json")
		b.call("retry", "list", "nobody")
		stop()
		b.call("retry", "list", "nobody", "--topic", "orders.dead")
	},
	"status": func(_ *testing.T, b *bed) {
		stop := b.orders()
		b.call("status", "billing")
		b.call("status", "billing", "--max-age", "5m")
		b.call("status", "billing", "--max-age", "2h")
		b.call("status", "nobody")
		stop()
		b.call("status", "billing", "--members")
		b.call("status", "billing", "--json")
	},
	"topics check": func(t *testing.T, b *bed) {
		b.call("topics", "check", "orders", "--retry", "orders.retry", "--dead", "orders.dead", "--max-delay", "24h")
		b.call("topics", "check", "orders", "--retry", "o.retry", "--dead", "o.dead")
		b.call("topics", "check", "orders", "--retry", "o.retry", "--json")
		b.call("topics", "check", "orders")
		if err := b.cluster.CreateTopic("compacted", 1, map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}); err != nil {
			t.Fatal(err)
		}
		b.call("topics", "check", "orders", "--dead", "compacted")
	},
	"topics create": func(_ *testing.T, b *bed) {
		b.call("topics", "create", "orders", "--retry", "o.retry", "--dead", "o.dead")
		b.call("topics", "create", "orders", "--retry", "o.retry", "--dead", "o.dead", "--replicas", "1", "--yes")
		b.call("topics", "create", "orders", "--retry", "o.retry", "--dead", "o.dead", "--yes")
		b.call("topics", "create", "orders", "--retry", "p.retry", "--partitions", "3", "--yes", "--json")
		b.call("topics", "check", "orders", "--retry", "p.retry")
		b.call("topics", "create", "nowhere", "--retry", "n.retry", "--yes")
	},
	"skip": func(_ *testing.T, b *bed) {
		stop := b.orders()
		b.call("skip", "billing", "orders/0/1", "--yes")
		stop()
		b.call("skip", "billing", "orders/0/1", "--dry-run")
		b.call("skip", "billing", "orders/0/1")
		b.answer = "yes\n"
		b.call("skip", "billing", "orders/0/1")
		b.call("status", "billing")
		b.answer = ""
		b.call("skip", "billing", "orders/0/0", "--yes")
		b.call("skip", "billing", "orders/0/4", "--yes", "--json")
		b.call("skip", "nobody", "orders/0/1", "--yes")
		b.call("skip", "billing", "orders.0.1")
	},
}

// orders is a consumer, half an hour after it met one record that blocks and one that is to be retried in two hours.
func (b *bed) orders() (stop func()) {
	b.Helper()
	stop = b.consumer(func(_ context.Context, m *retriable.Message) error {
		switch string(m.Value) {
		case "blocked":
			return retriable.Postpone(24 * time.Hour)
		case "fails":
			return retriable.RetryAfter(errors.New("the bank said no"), 2*time.Hour)
		}
		return nil
	})
	for _, v := range []string{"fine", "blocked", "fine", "fails", "fine"} {
		b.send(&kgo.Record{Topic: "orders", Key: []byte(v), Value: []byte(v)})
	}
	time.Sleep(30*time.Minute + 30*time.Second)
	return stop
}

func TestEveryCommand(t *testing.T) {
	seen := 0
	walk(new(app).root(), func(c *cobra.Command) {
		name := strings.TrimPrefix(c.CommandPath(), "retriable ")
		if c.HasSubCommands() {
			return
		}
		seen++
		t.Run(name, func(t *testing.T) {
			story := stories[name]
			if story == nil {
				t.Fatal("it has no story")
			}
			bubble(t, letterTopics, func(b *bed) {
				story(t, b)
				golden(t, strings.ReplaceAll(name, " ", "_"), b.script.String())
			})
		})
	})
	if seen != len(stories) {
		t.Errorf("%d commands and %d stories", seen, len(stories))
	}
}

// The help of all commands, in one file: each has an example.
func TestHelp(t *testing.T) {
	var all strings.Builder
	walk(new(app).root(), func(c *cobra.Command) {
		if c.Example == "" || c.Short == "" || !c.HasSubCommands() && c.Long == "" {
			t.Errorf("%s lacks an example or a description", c.CommandPath())
		}
		args := strings.Fields(c.CommandPath())[1:]
		b := &bed{T: t}
		var out strings.Builder
		a := &app{in: strings.NewReader(""), out: &out, err: &out, env: func(string) string { return "" }, terminal: func(any) bool { return false }}
		code := a.run(t.Context(), append(args, "--help"))
		b.note(append(args, "--help"), out.String(), "", code)
		all.WriteString(b.script.String())
	})
	golden(t, "help", all.String())
}

// walk visits all commands but cobra's own.
func walk(c *cobra.Command, visit func(*cobra.Command)) {
	if c.Name() == "completion" || c.Name() == "help" {
		return
	}
	visit(c)
	for _, sub := range c.Commands() {
		walk(sub, visit)
	}
}
