package admin

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// transactor writes pages: letters and what was sent in one transaction. Its transactional id is that of all replays of the topic for the group,
// so that making one aborts what an earlier one left open, and cuts off one that still runs.
type transactor struct {
	cl      *kgo.Client
	topic   string // the dead-letter topic
	topicID [16]byte
	group   string // of the progress
	id      string
}

const (
	// transactionTimeout is how long a page that a crash left open may hold up the readers of the retry topic.
	transactionTimeout = 15 * time.Second
	// pageWithin is what a page gets, a cut off replay's last one too.
	pageWithin = 30 * time.Second
)

func (c *Client) transactor(ctx context.Context, r *Replay, limit int) (*transactor, error) {
	t := &transactor{topic: r.From, group: ReplayGroup(r.Group), id: "retriable.replay." + r.Group + "." + r.From}
	details, err := c.details(ctx, r.From)
	if err != nil {
		return nil, fmt.Errorf("admin: asking for %s: %w", r.From, err)
	}
	t.topicID = details[r.From].ID
	t.cl, err = c.derive(
		kgo.TransactionalID(t.id), kgo.TransactionTimeout(transactionTimeout),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchMaxBytes(int32(min(max(limit, 512), 1<<30))),
		kgo.RecordPartitioner(kgo.UniformBytesPartitioner(64<<10, true, true, nil)),
		kgo.ProducerLinger(0),
	)
	if err != nil {
		return nil, err
	}
	if _, _, err := t.cl.ProducerID(ctx); err != nil {
		t.close()
		return nil, fmt.Errorf("admin: beginning as %s: %w", t.id, err)
	}
	return t, nil
}

func (t *transactor) close() { t.cl.Close() }

// ErrReplaced says that another replay of the topic for the group has begun meanwhile. What this one has sent is written down.
var ErrReplaced = errors.New("admin: another replay of the topic for the group has begun")

// commit sends letters of one partition and notes it. A page that has begun is ended, whatever becomes of ctx.
func (t *transactor) commit(ctx context.Context, letters []*sending, partition int32, next *progress) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pageWithin)
	defer cancel()
	if err := t.cl.BeginTransaction(); err != nil {
		return fmt.Errorf("admin: beginning a page: %w", err)
	}
	var records []*kgo.Record
	for _, l := range letters {
		records = append(records, l.records...)
	}
	err := t.cl.ProduceSync(ctx, records...).FirstErr()
	if err == nil {
		err = t.note(ctx, partition, next)
	}
	if err == nil {
		err = t.end(ctx, len(records) > 0)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.ProducerFenced) {
		return fmt.Errorf("%w: %w", ErrReplaced, err)
	}
	// Whatever was the outcome, what is committed tells it to the next replay.
	return fmt.Errorf("admin: sending a page of %d letters: %w", len(letters), errors.Join(err, t.cl.EndTransaction(ctx, kgo.TryAbort)))
}

// end commits the transaction. kgo does so only if it knows of a record in it.
func (t *transactor) end(ctx context.Context, records bool) error {
	if records {
		return t.cl.EndTransaction(ctx, kgo.TryCommit)
	}
	id, epoch, err := t.cl.ProducerID(ctx)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = t.id, id, epoch, true
	resp, err := req.RequestWith(ctx, t.cl)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}

// note puts what was sent into the transaction.
func (t *transactor) note(ctx context.Context, partition int32, next *progress) error {
	id, epoch, err := t.cl.ProducerID(ctx) // it changes with each transaction on newer brokers
	if err != nil {
		return err
	}
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = t.id, id, epoch, t.group
	added, err := add.RequestWith(ctx, t.cl)
	if err == nil {
		err = kerr.ErrorForCode(added.ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("adding group %s to the transaction: %w", t.group, err)
	}
	offset, text, _ := next.encode()
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = t.id, id, epoch, t.group
	rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	rp.Partition, rp.Offset, rp.Metadata = partition, offset, &text
	rt := kmsg.NewTxnOffsetCommitRequestTopic()
	rt.Topic, rt.TopicID, rt.Partitions = t.topic, t.topicID, []kmsg.TxnOffsetCommitRequestTopicPartition{rp}
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, t.cl)
	if err != nil {
		return fmt.Errorf("noting what was sent: %w", err)
	}
	for _, rt := range resp.Topics {
		for _, rp := range rt.Partitions {
			if err := kerr.ErrorForCode(rp.ErrorCode); err != nil {
				return fmt.Errorf("noting what was sent of %s/%d: %w", t.topic, rp.Partition, err)
			}
		}
	}
	return nil
}

// defaultRecordLimit is Kafka's own max.message.bytes.
const defaultRecordLimit = 1048588

// recordLimit returns the bytes of a record that a topic takes, which must be there.
func (c *Client) recordLimit(ctx context.Context, topic string) (int, error) {
	details, err := c.details(ctx, topic)
	if err == nil {
		err = details[topic].Err
	}
	if err != nil {
		return 0, fmt.Errorf("admin: asking for %s: %w", topic, err)
	}
	n, err := strconv.Atoi(c.config(ctx, topic)["max.message.bytes"])
	if err != nil {
		return defaultRecordLimit, nil //nolint:nilerr // it may not be ours to see
	}
	return n, nil
}

// config returns a topic's configuration, as far as it may be seen.
func (c *Client) config(ctx context.Context, topic string) map[string]string {
	m := map[string]string{}
	rs, err := c.adm.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return m
	}
	for _, r := range rs {
		for _, cfg := range r.Configs {
			m[cfg.Key] = cfg.MaybeValue()
		}
	}
	return m
}

// Forget has all letters of a topic count as not sent back to the group. The next replay sends them again.
func (c *Client) Forget(ctx context.Context, topic, group string) error {
	bounds, err := c.Bounds(ctx, topic)
	if err != nil {
		return err
	}
	set := kadm.TopicsSet{}
	for p := range bounds {
		set.Add(topic, p)
	}
	resp, err := c.adm.DeleteOffsets(ctx, ReplayGroup(group), set)
	if err == nil {
		err = resp.Error()
	}
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("admin: forgetting what was sent of %s: %w", topic, err)
	}
	return nil
}
