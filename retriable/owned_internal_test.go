package retriable

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type measures struct{}

func (measures) OnBrokerRead(kgo.BrokerMetadata, int16, int, time.Duration, time.Duration, error) {}

type traces struct{}

func (traces) OnFetchRecordBuffered(*kgo.Record) {}

// Who only measures does not have each record's context looked at.
func TestOnlyHooksThatSeeRecordsMayGiveThemContexts(t *testing.T) {
	for name, c := range map[string]struct {
		opts []kgo.Opt
		want bool
	}{
		"none":     {nil, false},
		"measures": {[]kgo.Opt{kgo.WithHooks(measures{})}, false},
		"traces":   {[]kgo.Opt{kgo.WithHooks(measures{}), kgo.WithHooks(measures{}, traces{})}, true},
	} {
		t.Run(name, func(t *testing.T) {
			consumer, err := New("g", Brokers("127.0.0.1:9092"), Kafka(c.opts...), Topic("orders", HandlerFunc(func(context.Context, *Message) error { return nil }), NoDeadLetters()))
			if err != nil {
				t.Fatal(err)
			}
			if got := consumer.set.client.hooked; got != c.want {
				t.Errorf("hooked = %v, want %v", got, c.want)
			}
		})
	}
}
