package admin

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

const (
	// keptFor is how long brokers are asked to remember what was sent: longer than letters lie anywhere.
	keptFor = 10 * 365 * 24 * time.Hour
	// The last version of an OffsetCommit in which that can be asked for. Kafka 4.3 still speaks it, and keeps to it.
	keptVersion = 4
	keepWithin  = 10 * time.Second
)

// keep writes once more what was sent, as commits that do not expire with offsets.retention.minutes as those of transactions do. Nobody else writes
// meanwhile: another replay would have cut this one off.
func (c *Client) keep(ctx context.Context, topic, group string, sent map[int32]*progress) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepWithin)
	defer cancel()
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.OffsetCommit), keptVersion)
	cl, err := c.derive(kgo.MaxVersions(versions))
	if err != nil {
		return err
	}
	defer cl.Close()
	for p, pr := range sent {
		offset, text, _ := pr.encode()
		if offset == 0 && text == "" {
			continue // nothing was
		}
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Group, req.RetentionTimeMillis = ReplayGroup(group), keptFor.Milliseconds()
		rp := kmsg.NewOffsetCommitRequestTopicPartition()
		rp.Partition, rp.Offset, rp.Metadata = p, offset, &text
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic, rt.Partitions = topic, []kmsg.OffsetCommitRequestTopicPartition{rp}
		req.Topics = append(req.Topics, rt)
		resp, err := req.RequestWith(ctx, cl)
		if err != nil {
			return fmt.Errorf("admin: keeping what was sent of %s/%d: %w", topic, p, err)
		}
		for _, rt := range resp.Topics {
			for _, rp := range rt.Partitions {
				if err := kerr.ErrorForCode(rp.ErrorCode); err != nil {
					return fmt.Errorf("admin: keeping what was sent of %s/%d: %w", topic, p, err)
				}
			}
		}
	}
	return nil
}
