package admin

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Purge deletes the letters of a dead-letter topic below an offset, by partition, for good and whether or not they were sent back; partitions
// that are not named stay as they are. [Client.Sent] tells up to where they were. It returns where the partitions then begin. Offsets beyond a
// partition's end are refused. Kafka refuses it for compacted topics.
func (c *Client) Purge(ctx context.Context, topic string, below map[int32]int64) (map[int32]int64, error) {
	bounds, err := c.Bounds(ctx, topic)
	if err != nil {
		return nil, err
	}
	var os kadm.Offsets
	for p, at := range below {
		b, ok := bounds[p]
		if !ok {
			return nil, fmt.Errorf("admin: purging %s: it has no partition %d", topic, p)
		}
		if at < 0 || at > b.To { // −1 would be all
			return nil, fmt.Errorf("admin: purging %s/%d: offset %d is not between 0 and its end, %d", topic, p, at, b.To)
		}
		os.Add(kadm.Offset{Topic: topic, Partition: p, At: max(at, b.From)})
	}
	begin := map[int32]int64{}
	resps, err := c.adm.DeleteRecords(ctx, os)
	if err != nil {
		return nil, fmt.Errorf("admin: purging %s: %w", topic, err)
	}
	for p, r := range resps[topic] {
		if r.Err != nil {
			return begin, fmt.Errorf("admin: purging %s/%d: %w", topic, p, r.Err)
		}
		begin[p] = r.LowWatermark
	}
	return begin, nil
}
