// Quickstart shows a consumer at work, on a Kafka broker inside this process: orders are produced and handled in parallel, some
// fail and are tried again later, some end as dead letters; a second member joins the group and leaves it again; all stop. At
// the end every order is accounted for. It needs no Kafka, no Docker and no network:
//
//	go run ./examples/quickstart
//
// Ctrl-C stops it early: it drains first. A second Ctrl-C ends it at once.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal drains, the second kills
	slog.SetLogLoggerLevel(slog.LevelWarn)
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "orders"))
	if err != nil {
		return fmt.Errorf("starting the broker: %w", err)
	}
	defer broker.Close()
	s, err := newShow(broker.ListenAddrs())
	if err != nil {
		return err
	}
	defer s.client.Close()
	err = s.play(ctx)
	complete := ctx.Err() == nil
	if !complete {
		fmt.Println("\nInterrupted: what is not handled stays in Kafka for the next start.")
		err = nil
	}
	return errors.Join(err, s.stopAll(), s.audit(context.WithoutCancel(ctx), complete))
}
