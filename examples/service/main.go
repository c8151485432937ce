// Service is a whole service of one consumer and three topics, each with its own order, retries and limits: the handlers share the workers, and one
// process serves its probes and the page by HTTP. Without -brokers it brings a Kafka inside the process along, and something to do:
//
//	go run ./examples/service
//	open http://127.0.0.1:8080/retriable/
//
// SIGTERM or Ctrl-C stops it cleanly: what runs may end, what is finished is committed, nothing is delivered again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/page"
	"github.com/retriable-kafka/retriable-go/retriable/probe"
)

func main() {
	brokers := flag.String("brokers", "", "seed brokers, as host:port,host:port; empty for a Kafka inside the process")
	address := flag.String("http", "127.0.0.1:8080", "where to serve probes and page: they ask for no password")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	if err := run(ctx, *brokers, *address); err != nil {
		slog.Error("the service ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, brokers, address string) error {
	seeds := strings.Split(brokers, ",")
	if brokers == "" {
		demo, err := startDemo(ctx)
		if err != nil {
			return err
		}
		defer demo.close()
		seeds = demo.seeds
	}
	c, err := newConsumer(&shop{}, retriable.Brokers(seeds...))
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	slog.Info("serving", "page", fmt.Sprintf("http://%s/retriable/", listener.Addr()))
	return serve(ctx, c, listener)
}

// serve runs the consumer and its HTTP server until ctx is done or the consumer ends by itself.
func serve(ctx context.Context, c *retriable.Consumer, listener net.Listener) error {
	p, err := page.New(c)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /livez", probe.Live(c))
	mux.Handle("GET /readyz", probe.Ready(c))
	mux.Handle("/retriable/", http.StripPrefix("/retriable", p))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	server.RegisterOnShutdown(p.Close)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	err = c.Run(ctx) // probes answer until the drain is over

	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = errors.Join(err, server.Shutdown(ending))
	p.Close()
	if failed := <-served; !errors.Is(failed, http.ErrServerClosed) {
		err = errors.Join(err, failed)
	}
	return err
}
