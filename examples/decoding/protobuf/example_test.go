package protobuf_test

import (
	"context"
	"fmt"
	"log"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/retriable-kafka/retriable-go/examples/decoding/protobuf"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// remind stands for a handler of yours, and Duration for a message of yours.
func remind(_ context.Context, d *durationpb.Duration, m *retriable.Message) error {
	fmt.Printf("%s: in %v\n", m.Key, d.AsDuration())
	return nil
}

// In a service: retriable.Topic("reminders", protobuf.Handler(remind), …).
func Example() {
	handler := protobuf.Handler(remind)
	value, err := proto.Marshal(&durationpb.Duration{Seconds: 90})
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range [][]byte{value, []byte("\xff no Protobuf")} {
		m := retriable.NewMessage(&kgo.Record{Topic: "reminders", Key: []byte("tea"), Value: v})
		fmt.Println(retriable.VerdictOf(handler.Handle(context.Background(), m)))
	}
	// Output:
	// tea: in 1m30s
	// done
	// dead-letter
}
