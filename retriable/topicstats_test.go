package retriable_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
)

func TestTopicsSumsUpByTopic(t *testing.T) {
	at := time.UnixMilli(1_000_000)
	held := func(minutes int, why retriable.Reason) retriable.Oldest {
		return retriable.Oldest{Since: at.Add(-time.Duration(minutes) * time.Minute), Reason: why}
	}
	s := retriable.Stats{Partitions: []retriable.PartitionStats{
		{Topic: "orders", Partition: 0, Watermark: 10, End: 15, Lag: 7, Pending: 3, Running: 1, Held: 2, MapFill: 0.1, Paused: true, Oldest: held(1, retriable.ReasonRunning)},
		{Topic: "orders", Partition: 1, Watermark: 20, End: 21, Lag: 1, Pending: 1, Running: 1, MapFill: 0.4, Oldest: held(5, retriable.ReasonRunning), Careful: true},
		{Topic: "orders", Partition: 2, Watermark: 30, End: 30, Lag: 0},
		{Topic: "orders.retry", Partition: 0, Watermark: 0, End: 4, Lag: 4, Held: 4, Oldest: held(9, retriable.ReasonHeld)},
	}}
	got := s.Topics()
	want := []retriable.TopicStats{
		{
			Topic: "orders", Partitions: 3, Paused: 1, Careful: 1, Pending: 4, Running: 2, Held: 2, Unfinished: 6, Lag: 8, MapFill: 0.4,
			Since: map[retriable.Reason]time.Time{retriable.ReasonRunning: at.Add(-5 * time.Minute)},
		},
		{
			Topic: "orders.retry", Partitions: 1, Held: 4, Unfinished: 4, Lag: 4,
			Since: map[retriable.Reason]time.Time{retriable.ReasonHeld: at.Add(-9 * time.Minute)},
		},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Topics():\n%v\nwant\n%v", got, want)
	}
	if got := (retriable.Stats{}).Topics(); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}
