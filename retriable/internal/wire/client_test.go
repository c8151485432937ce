package wire_test

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// TestSizesAreTheClients sends records through the real client: what it writes
// is what RecordSize says, what SplitRecord makes for a limit passes under the
// same limit of the client, and little more does not.
func TestSizesAreTheClients(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	var written []int
	cluster.ControlKey(kmsg.Produce.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		for _, topic := range req.(*kmsg.ProduceRequest).Topics {
			for _, partition := range topic.Partitions {
				written = append(written, len(partition.Records))
			}
		}
		return nil, nil, false
	})

	const limit = 20_000
	client, err := kgo.NewClient(
		kgo.SeedBrokers(cluster.ListenAddrs()...),
		kgo.ProducerBatchMaxBytes(limit),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	r := &kgo.Record{Topic: "t", Value: make([]byte, 50_000), Headers: append(many(2), header("null", nil))}
	parts, err := wire.SplitRecord(r, group, limit)
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range parts {
		if err := client.ProduceSync(t.Context(), part).FirstErr(); err != nil {
			t.Fatalf("chunk %d of %d bytes: %v", i, wire.RecordSize(part), err)
		}
		if got, want := wire.RecordSize(part), written[i]; got != want {
			t.Errorf("chunk %d: %d bytes, written %d", i, got, want)
		}
	}

	large := *parts[0]
	large.Value = make([]byte, len(parts[0].Value)+5)
	if err := client.ProduceSync(t.Context(), &large).FirstErr(); !errors.Is(err, kerr.MessageTooLarge) {
		t.Errorf("a chunk past the limit: %v", err)
	}
}
