package main

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/broker"
)

// TestEveryContestantHandlesAndCommitsAll runs the contestants on few records: what is measured must be the whole work.
func TestEveryContestantHandlesAndCommitsAll(t *testing.T) {
	cluster := broker.For(t, broker.Config{})
	*records = 50_000
	if err := fill(t.Context(), cluster.Addrs()); err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.Addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for name, run := range contestants {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			j := &job{seeds: cluster.Addrs(), topic: topic, group: name, records: *records, workers: 16, meter: newMeter()}
			if err := run(ctx, j); err != nil {
				t.Fatal(err)
			}
			if f := j.meter.figures(); f.Records != *records || f.RecordsPerSec <= 0 {
				t.Errorf("figures %+v", f)
			}
			offsets, err := kadm.NewClient(cl).FetchOffsets(ctx, name)
			if err != nil {
				t.Fatal(err)
			}
			var committed int64
			offsets.Each(func(o kadm.OffsetResponse) { committed += o.At })
			if committed != *records {
				t.Errorf("committed %d of %d", committed, *records)
			}
		})
	}
}
