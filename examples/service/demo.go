package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// demo is a Kafka inside the process, and somebody who orders.
type demo struct {
	seeds  []string
	broker *kfake.Cluster
	client *kgo.Client
	done   chan struct{}
	end    context.CancelFunc
}

func startDemo(ctx context.Context) (*demo, error) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "orders", "payments", "mails"))
	if err != nil {
		return nil, fmt.Errorf("starting the broker: %w", err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	if err != nil {
		broker.Close()
		return nil, err
	}
	ctx, end := context.WithCancel(ctx)
	d := &demo{seeds: broker.ListenAddrs(), broker: broker, client: client, done: make(chan struct{}), end: end}
	go d.order(ctx)
	return d, nil
}

func (d *demo) close() {
	d.end()
	<-d.done
	d.client.Close()
	d.broker.Close()
}

// order produces until ctx is done. Some orders are of nothing.
func (d *demo) order(ctx context.Context) {
	defer close(d.done)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		cents := 100 * (i % 50)
		key := fmt.Appendf(nil, "customer-%d", i%17)
		d.client.Produce(ctx, &kgo.Record{Topic: "orders", Key: key, Value: fmt.Appendf(nil, `{"id": "%d", "cents": %d}`, i, cents)}, nil)
		d.client.Produce(ctx, &kgo.Record{Topic: "payments", Key: key, Value: fmt.Appendf(nil, `{"account": %q, "cents": %d}`, key, cents)}, nil)
		d.client.Produce(ctx, &kgo.Record{Topic: "mails", Value: fmt.Appendf(nil, `{"to": "%s@example.com"}`, key)}, nil)
	}
}
