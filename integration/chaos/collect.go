package chaos

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// offsets returns the group's commits and the ends of the topics that it reads.
func (a *Arena) offsets(ctx context.Context) (commits, ends map[Partition]int64, err error) {
	found, err := a.adm.FetchOffsets(ctx, a.Name)
	if err != nil {
		return nil, nil, err
	}
	listed, err := a.adm.ListEndOffsets(ctx, a.base, a.retry)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, nil, err
	}
	commits, ends = map[Partition]int64{}, map[Partition]int64{}
	for topic, ps := range listed {
		for n, o := range ps {
			p := Partition{Topic: topic, Partition: n}
			ends[p] = o.Offset
			if c, ok := found.Lookup(topic, n); ok {
				commits[p] = c.At
			}
		}
	}
	return commits, ends, nil
}

// collect reads all topics and ledgers. The members have ended.
func (a *Arena) collect(ctx context.Context) (h History, err error) {
	if h.Commits, h.Ends, err = a.offsets(ctx); err != nil {
		return h, err
	}
	for _, x := range []struct {
		topic string
		into  *[]Record
	}{{a.base, &h.Sent}, {a.retry, &h.Copies}, {a.dead, &h.Letters}} {
		if *x.into, err = a.read(ctx, x.topic); err != nil {
			return h, fmt.Errorf("reading %s: %w", x.topic, err)
		}
	}
	if n := a.produced.Load(); n != int64(len(h.Sent)) {
		return h, fmt.Errorf("%d records were acked to the producer, and %d lie there", n, len(h.Sent))
	}
	a.mu.Lock()
	h.Faults, h.Gone = a.faults, a.gone
	all := a.all
	a.mu.Unlock()
	for _, p := range all {
		m, err := p.member()
		if err != nil {
			return h, err
		}
		h.Members = append(h.Members, m)
	}
	return h, nil
}

// read returns all records of a topic.
func (a *Arena) read(ctx context.Context, topic string) (rs []Record, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.Limit)
	defer cancel()
	var listed kadm.ListedOffsets
	err = inTrouble(ctx, func() (err error) { // a new leader does not know it at once
		if listed, err = a.adm.ListEndOffsets(ctx, topic); err == nil {
			err = listed.Error()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	left := int64(0)
	from := map[int32]kgo.Offset{}
	for p, o := range listed[topic] {
		left += o.Offset
		from[p] = kgo.NewOffset().AtStart()
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(a.cluster.Addrs()...), kgo.DisableClientMetrics(), kgo.AlwaysRetryEOF(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	for left > 0 {
		fs := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, r := range fs.Records() {
			left--
			x, err := a.record(r)
			if err != nil {
				return nil, fmt.Errorf("%d/%d: %w", r.Partition, r.Offset, err)
			}
			rs = append(rs, x)
		}
	}
	return rs, nil
}

// record is one record as the check sees it.
func (a *Arena) record(r *kgo.Record) (x Record, err error) {
	at := retriable.Position{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}
	x = Record{At: at, Key: string(r.Key), Attempt: 1, Time: r.Timestamp.UnixMilli(), Body: body(r)}
	if x.ID, err = idOf(r); err != nil {
		return x, err
	}
	switch r.Topic {
	case a.base:
		x.Sum = sum(r, at)
	case a.retry:
		for _, h := range r.Headers {
			switch h.Key {
			case "retriable_kafka_attempt":
				if len(h.Value) != 8 {
					return x, fmt.Errorf("header %s has %d bytes", h.Key, len(h.Value))
				}
				x.Attempt = int(binary.BigEndian.Uint64(h.Value)) + 1
			case "retriable_due":
				x.Due, err = strconv.ParseInt(string(h.Value), 10, 64)
			}
		}
	case a.dead:
		for _, h := range r.Headers {
			if h.Key == "__dlq.errors.delivery.count" {
				x.Attempt, err = strconv.Atoi(string(h.Value))
			}
		}
	}
	return x, err
}
