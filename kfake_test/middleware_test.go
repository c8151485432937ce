package kfake_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
)

func TestMiddlewareIsInOrder(t *testing.T) {
	for name, order := range orderings {
		t.Run(name, func(t *testing.T) {
			bubble(t, "orders other", func(b *bed) {
				var j journal
				mark := func(name string) retriable.Middleware {
					return func(next retriable.Handler) retriable.Handler {
						return retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
							j.note("%s in", name)
							err := next.Handle(ctx, m)
							j.note("%s out: %v", name, err)
							return err
						})
					}
				}
				fails := handles(func(*retriable.Message) error { return errors.New("no") })
				r := b.begin("billing", retriable.Concurrency(1), retriable.Use(mark("1")), retriable.Use(mark("2")),
					retriable.Defaults(retriable.With(mark("3")), none(), retriable.Ordering(order)),
					retriable.Topic("orders", fails, retriable.With(mark("4"), mark("5"))),
					retriable.Topic("other", fails))
				b.produce("orders", 0, "x")
				b.until("it is handled", 10*time.Second, func() bool { return r.Stats().Dropped == 1 })
				b.produce("other", 0, "y")
				b.until("it is handled", 10*time.Second, func() bool { return r.Stats().Dropped == 2 })
				r.clean()
				wantEqual(t, "calls", strings.Join(j.all(), "; "), "1 in; 2 in; 3 in; 4 in; 5 in; 5 out: no; 4 out: no; 3 out: no; 2 out: no; 1 out: no; "+
					"1 in; 2 in; 3 in; 3 out: no; 2 out: no; 1 out: no")
			})
		})
	}
}

func TestLoggingTellsOfAttemptsAndNoPayload(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var out logs
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		h := handles(func(m *retriable.Message) error {
			if m.Attempt == 1 && string(m.Value) == "secret" {
				return retriable.Drop(errors.New("my secret"))
			}
			return nil
		})
		r := b.begin("billing", retriable.Use(retriable.Logging(log)), retriable.Topic("orders", h, none()))
		b.produce("orders", 0, "hidden=secret", "hidden=fine")
		b.until("both are handled", 10*time.Second, func() bool { return r.Stats().Handled == 1 })
		r.clean()
		wantEqual(t, "done", len(out.lines("level=DEBUG", "record=orders/0/1", "attempt=1", "took=")), 1)
		wantEqual(t, "dropped", len(out.lines("level=INFO", "record=orders/0/0", "verdict=drop", "error=*errors.errorString")), 1)
		for _, word := range []string{"secret", "hidden", "fine"} {
			wantEqual(t, "told of "+word, len(out.lines(word)), 0)
		}
	})
}
