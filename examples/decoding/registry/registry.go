// Package registry shows handlers of values that begin with the id of a schema in a registry, as Confluent's clients write them, with
// franz-go's sr. Schemas that the program does not know yet are asked for; a registry that does not answer spends no attempt.
package registry

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// Decoder decodes values by the schema they name.
type Decoder[T any] struct {
	client *sr.Client
	build  func(sr.Schema) (func([]byte, any) error, error)

	serde sr.Serde
	mu    sync.Mutex // over the asking too: one answer does for all who wait for it
	known map[int]bool
}

// New returns a Decoder that asks client for schemas. build makes of a schema the function that decodes its values: for Avro that of a
// library such as hamba/avro, for JSON json.Unmarshal.
func New[T any](client *sr.Client, build func(sr.Schema) (func([]byte, any) error, error)) *Decoder[T] {
	return &Decoder[T]{client: client, build: build, known: map[int]bool{}}
}

// Handler makes a handler of a function that takes the decoded value.
func (d *Decoder[T]) Handler(fn func(ctx context.Context, body T, m *retriable.Message) error) retriable.Handler {
	return retriable.Typed(d.decode, fn)
}

func (d *Decoder[T]) decode(r *kgo.Record) (body T, err error) {
	id, _, err := d.serde.DecodeID(r.Value)
	if err != nil {
		return body, err // it does not name a schema: to the dead letters
	}
	if err := d.learn(id); err != nil {
		return body, err
	}
	return body, d.serde.Decode(r.Value, &body)
}

// learn asks the registry for a schema that is not known yet.
func (d *Decoder[T]) learn(id int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known[id] {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	schema, err := d.client.SchemaByID(ctx, id)
	if err != nil {
		var answer *sr.ResponseError
		if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
			return err // nobody knows it: to the dead letters
		}
		return errors.Join(err, retriable.Postpone(10*time.Second))
	}
	decode, err := d.build(schema)
	if err != nil {
		return err
	}
	var empty T
	d.serde.Register(id, empty, sr.DecodeFn(decode))
	d.known[id] = true
	return nil
}
