package broker_test

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/retriable-kafka/retriable-go/integration/broker"
)

// limit is a context for the rest of a test, for so long at most.
func limit(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func client(t *testing.T, c *broker.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	return newClient(t, append(opts, kgo.SeedBrokers(c.Addrs()...))...)
}

func saslClient(t *testing.T, c *broker.Cluster, user, password string) *kgo.Client {
	t.Helper()
	auth := scram.Auth{User: user, Pass: password}
	return newClient(t, kgo.SeedBrokers(c.SASLAddrs()...), kgo.SASL(auth.AsSha512Mechanism()))
}

func newClient(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func login(t *testing.T, c *broker.Cluster, user, password string) error {
	t.Helper()
	return saslClient(t, c, user, password).Ping(limit(t, 20*time.Second))
}

func leader(t *testing.T, c *broker.Cluster) int {
	t.Helper()
	id, err := c.Leader(limit(t, 30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// roundTrip makes a topic, sends one record, the topic's name, through it and
// returns that name.
func roundTrip(t *testing.T, c *broker.Cluster) string {
	t.Helper()
	ctx := limit(t, 30*time.Second)
	cl := client(t, c)
	topic := t.Name() + "-" + rand.Text() // the cluster may be an old one
	// -1: as many replicas as the cluster has nodes.
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, -1, nil, topic); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(topic)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	readBack(t, c, topic)
	return topic
}

// readBack reads the first record of a topic, which must be the topic's name.
func readBack(t *testing.T, c *broker.Cluster, topic string) {
	t.Helper()
	ctx := limit(t, 30*time.Second)
	cl := client(t, c, kgo.ConsumeTopics(topic))
	for {
		records := cl.PollFetches(ctx).Records()
		if ctx.Err() != nil {
			t.Fatalf("no record read from topic %s in time", topic)
		}
		if len(records) == 0 {
			continue // an error that the client goes on from
		}
		if got := string(records[0].Value); got != topic {
			t.Fatalf("read %q from topic %s, want its name", got, topic)
		}
		return
	}
}
