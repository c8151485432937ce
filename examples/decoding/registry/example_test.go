package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/retriable-kafka/retriable-go/examples/decoding/registry"
	"github.com/retriable-kafka/retriable-go/retriable"
)

type order struct {
	ID    string `json:"id"`
	Cents int    `json:"cents"`
}

func charge(_ context.Context, o order, _ *retriable.Message) error {
	fmt.Printf("order %s: %d cents\n", o.ID, o.Cents)
	return nil
}

// In a service: retriable.Topic("orders", orders.Handler(charge), …).
func Example() {
	// A registry inside the process; yours has an address.
	server := srfake.New()
	defer server.Close()
	client, err := sr.NewClient(sr.URLs(server.URL()))
	if err != nil {
		log.Fatal(err)
	}
	schema, err := client.CreateSchema(context.Background(), "orders-value", sr.Schema{Type: sr.TypeJSON, Schema: `{"type":"object"}`})
	if err != nil {
		log.Fatal(err)
	}

	orders := registry.New[order](client, func(sr.Schema) (func([]byte, any) error, error) { return json.Unmarshal, nil })
	handler := orders.Handler(charge)

	// What a producer writes: the schema's id, then the value.
	var header sr.ConfluentHeader
	value := func(id int, body string) []byte {
		b, err := header.AppendEncode(nil, id, nil)
		if err != nil {
			log.Fatal(err)
		}
		return append(b, body...)
	}
	for _, v := range [][]byte{
		value(schema.ID, `{"id":"17","cents":250}`),
		value(schema.ID, `{"id":17}`),    // not what the type says
		value(schema.ID+1, `{"id":"1"}`), // a schema that nobody knows
		[]byte(`{"id":"17"}`),            // no schema
	} {
		fmt.Println(retriable.VerdictOf(handler.Handle(context.Background(), retriable.NewMessage(&kgo.Record{Topic: "orders", Value: v}))))
	}
	server.Close()
	later := registry.New[order](client, func(sr.Schema) (func([]byte, any) error, error) { return json.Unmarshal, nil })
	err = later.Handler(charge).Handle(context.Background(), retriable.NewMessage(&kgo.Record{Topic: "orders", Value: value(schema.ID, `{}`)}))
	fmt.Println(retriable.VerdictOf(err), "while the registry does not answer")
	// Output:
	// order 17: 250 cents
	// done
	// dead-letter
	// dead-letter
	// dead-letter
	// postpone while the registry does not answer
}
