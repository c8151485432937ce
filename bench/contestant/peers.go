package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	segmentio "github.com/segmentio/kafka-go"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
)

// kafkaGo is a Reader of a group, as kafka-go's README has it, with commits once a second rather than one by one, as it says for speed.
func kafkaGo(ctx context.Context, j *job.Job, m *meter) error {
	r := segmentio.NewReader(segmentio.ReaderConfig{
		Brokers: j.Brokers, GroupID: j.Group, Topic: j.Topic, StartOffset: segmentio.FirstOffset, MaxBytes: 10e6, CommitInterval: time.Second,
	})
	var s uint64
	for n := range j.Records {
		msg, err := r.ReadMessage(ctx)
		if err != nil {
			return err
		}
		m.begin()
		s += uint64(len(msg.Value)) + uint64(len(msg.Key))
		if n == j.Records-1 {
			m.stop(j.Records)
		}
	}
	sink.Add(s)
	return r.Close() // commits
}

// watermillRouter is a Router with one handler, as watermill's documentation has it: a partition at a time is handled in turn, partitions in
// parallel.
func watermillRouter(ctx context.Context, j *job.Job, m *meter) error {
	cfg := kafka.DefaultSaramaSubscriberConfig()
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	cfg.Version = sarama.V3_6_0_0 // watermill's own default is that of Kafka 1.0
	sub, err := kafka.NewSubscriber(kafka.SubscriberConfig{
		Brokers: j.Brokers, Unmarshaler: kafka.DefaultMarshaler{}, OverwriteSaramaConfig: cfg, ConsumerGroup: j.Group,
	}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	all := make(chan struct{})
	var n atomic.Int64
	router.AddConsumerHandler("bench", j.Topic, sub, func(msg *message.Message) error {
		m.begin()
		sink.Add(uint64(len(msg.Payload)))
		if j.SleepMS > 0 {
			m.sleep(j.Sleep())
		}
		if n.Add(1) == j.Records {
			m.stop(j.Records)
			close(all)
		}
		return nil
	})
	ended := make(chan error, 1)
	go func() { ended <- router.Run(ctx) }()
	select {
	case <-all:
		time.Sleep(100 * time.Millisecond) // it acks after the handler's return; closing does not wait for the mark
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := router.Close(); err != nil {
		return err
	}
	return <-ended
}
