package admin_test

import (
	"context"
	"fmt"
	"log"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

// Dead letters are looked at, and those of one reason sent back to their consumers.
func ExampleClient_Replay() {
	ctx := context.Background()
	kafka := someKafka(ctx)
	defer kafka.Close()

	a, err := admin.New(kgo.SeedBrokers(kafka.ListenAddrs()...))
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()

	summary, err := a.Summary(ctx, "orders.dead", admin.Filter{Group: "billing"})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range summary.Reasons {
		fmt.Println(r.Letters, r.Reason)
	}

	back := admin.Replay{
		From: "orders.dead", To: "orders.retry", Group: "billing", Topic: "orders",
		Filter: admin.Filter{Reason: "all 5 attempts failed"},
		Rate:   50, // a second
	}
	for range 2 { // the second time there is nothing left to send
		res, err := a.Replay(ctx, back)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("sent back:", res.Sent)
	}
	// Output:
	// 2 all 5 attempts failed
	// 1 permanent failure
	// sent back: 2
	// sent back: 0
}

// someKafka is a broker inside the process, with three dead letters.
func someKafka(ctx context.Context) *kfake.Cluster {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders.retry", "orders.dead"))
	if err != nil {
		log.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		log.Fatal(err)
	}
	defer cl.Close()
	for _, reason := range []string{"all 5 attempts failed", "permanent failure", "all 5 attempts failed"} {
		letter := &kgo.Record{Topic: "orders.dead", Value: []byte("{}"), Headers: []kgo.RecordHeader{
			{Key: "__dlq.errors.group", Value: []byte("billing")},
			{Key: "__dlq.errors.topic", Value: []byte("orders")},
			{Key: "__dlq.errors.message", Value: []byte(reason)},
		}}
		if err := cl.ProduceSync(ctx, letter).FirstErr(); err != nil {
			log.Fatal(err)
		}
	}
	return cluster
}
