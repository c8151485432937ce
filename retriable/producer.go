package retriable

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// Producer writes records, of any size up to 64 MiB: what is larger than its topic accepts is split into chunks, which consumers of this
// library, and of the Python one, join again. Make it with [NewProducer]. Its methods may be called from any goroutine.
type Producer struct {
	cl    *kgo.Client
	log   *slog.Logger
	sizes *sizes
	first func() (*kgo.Client, error) // makes a client for the first question

	asking   chan struct{} // 1-buffered: held by who asks for a topic's size
	answered bool          // somebody has. Guarded by asking
}

// NewProducer checks all options together and returns a Producer. It touches no network. What is wrong is reported all at once, as by
// [New]; of the client's options the same are the library's own.
//
// Its defaults below yours, beside those of [Kafka]: a write that may still succeed is tried again until the context of its Produce is done. A broker that
// hangs up without a word, as one does that wants TLS, ends the first Produce with that error; later it is a broker that ends, and is asked again.
// Records are placed by key as kgo and the Java client do (murmur2), those without a key anywhere.
func NewProducer(opts ...ProducerOption) (*Producer, error) {
	var cfg clientConfig
	var ck checker
	missing := 0
	for _, o := range opts {
		if o == nil {
			missing++
			continue
		}
		o.producer(&cfg)
	}
	ck.want(missing == 0, "NewProducer: %d options are nil", missing)
	facts := cfg.checkClient(&ck)
	if err := errors.Join(ck.errs...); err != nil {
		return nil, err
	}
	p := &Producer{log: cfg.logger, sizes: newSizes(facts), asking: make(chan struct{}, 1)}
	if p.log == nil {
		p.log = slog.Default()
	}
	p.first = func() (*kgo.Client, error) { return kgo.NewClient(cfg.connection()...) }
	own := []kgo.Opt{kgo.ProducerBatchMaxBytesFn(p.sizes.batchBytes), kgo.RecordPartitioner(newPartitioner()), kgo.AlwaysRetryEOF()}
	var err error
	if p.cl, err = kgo.NewClient(append(cfg.connection(kgo.RecordRetries(math.MaxInt)), own...)...); err != nil {
		return nil, fmt.Errorf("retriable: making the client: %w", err)
	}
	return p, nil
}

// Close ends the Producer. A Produce that is still under way fails: call Close when all have returned.
func (p *Producer) Close() { p.cl.Close() }

var errNilRecord = errors.New("retriable: Produce: the record is nil")

// Produce writes r to its topic and returns once the brokers have acked it, all of it if it was split: with nil r is safe, as far as
// the topic's replicas are. r's Partition, Offset and Timestamp are then those it was written with, of its first chunk if it was
// split; nothing else of it is changed.
//
// How large a record may be the topic is asked once, by its max.message.bytes, and again when one is refused as too large. Where it
// does not tell, a refusal teaches a smaller size, and the record is written in chunks of that. Its chunks lie on one partition, also if the
// topic gets more partitions meanwhile. The first is written by itself, so that what is refused leaves nothing behind.
//
// An error wraps what kgo or the broker said: kerr.MessageTooLarge if key and headers alone are too large for the topic, or the
// record would take more than 1,024 chunks or has more than 64 MiB; ctx's own if it was done before the ack, and then r may have been
// written all the same, so leave its value alone. To Produce it again writes it anew; chunks of a message that was not completed end
// in its consumers' dead-letter topics in time. The library's headers that r has are left as they are.
func (p *Producer) Produce(ctx context.Context, r *kgo.Record, opts ...SendOption) error {
	if r == nil {
		return errNilRecord
	}
	written, err := p.produce(ctx, prepare(r, opts))
	if err != nil {
		return fmt.Errorf("retriable: producing to topic %q: %w", r.Topic, err)
	}
	r.Partition, r.Offset, r.Timestamp = written.Partition, written.Offset, written.Timestamp
	return nil
}

// produce splits and writes a record, in smaller chunks as long as it is refused as too large.
func (p *Producer) produce(ctx context.Context, r *kgo.Record) (written *kgo.Record, err error) {
	if _, known := p.sizes.limit(r.Topic); !known {
		if err := p.ask(ctx, r.Topic); err != nil {
			return nil, err
		}
	}
	for tries := 1; ; tries++ {
		limit, _ := p.sizes.limit(r.Topic)
		c := *r // a record that was refused must not be produced again by itself
		parts, err := wire.SplitSparing(&c, newGroup(), limit, wire.DefaultLimits())
		if err != nil {
			return nil, fmt.Errorf("%w: %w", kerr.MessageTooLarge, err)
		}
		written, err := p.write(ctx, parts)
		if !errors.Is(err, kerr.MessageTooLarge) || ctx.Err() != nil {
			return written, err
		}
		if err := p.learn(ctx, r.Topic, wire.RecordSize(parts[0]), tries); err != nil {
			return nil, err
		}
	}
}

// ask learns a topic's size before kgo first writes to it, since kgo bounds its batches by what it is told then. One asks for all.
func (p *Producer) ask(ctx context.Context, topic string) error {
	select {
	case p.asking <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.asking }()
	if _, known := p.sizes.limit(topic); known {
		return nil
	}
	if err := p.greet(ctx); err != nil {
		return err
	}
	identify(ctx, p.cl, p.log)
	return p.sizes.ask(ctx, p.cl, topic)
}

// greet asks, until somebody has answered, whether the brokers hang up: p.cl takes that for a broker that ends. Whatever else is wrong shows there.
func (p *Producer) greet(ctx context.Context) error {
	if p.answered {
		return nil
	}
	cl, err := p.first()
	if err != nil {
		return err
	}
	defer cl.Close()
	err = cl.Ping(ctx)
	if _, hungUp := errors.AsType[*kgo.ErrFirstReadEOF](err); hungUp {
		return err
	}
	p.answered = err == nil
	return nil
}

// learn makes of a refusal what there is to learn: at first perhaps only that it was refused for what else was in its batch, or that the
// topic has another size by now; then that it takes less than so many bytes.
func (p *Producer) learn(ctx context.Context, topic string, size, tries int) error {
	if p.sizes.tooLarge(topic) {
		p.log.Warn("retriable: a topic refused a record as too large that it should take; for a while its records are written one by one",
			"topic", topic, "bytes", size)
	}
	if tries == 1 {
		return p.sizes.ask(ctx, p.cl, topic)
	}
	p.sizes.refused(topic, size)
	return nil
}

// write writes a record, or its chunks: the first by itself, the others to the same partition.
func (p *Producer) write(ctx context.Context, parts []*kgo.Record) (first *kgo.Record, err error) {
	if err := p.await(ctx, parts[:1]); err != nil {
		return nil, err
	}
	first, rest := parts[0], parts[1:]
	there := pinned(first.Context, first.Partition) // the record's own, or ctx
	for _, r := range rest {
		r.Context = there //nolint:fatcontext // the same for each: nothing is nested
	}
	return first, p.await(ctx, rest)
}

// await writes records and waits for all acks, or for ctx: that is no deadline to kgo once a batch is on its way.
func (p *Producer) await(ctx context.Context, rs []*kgo.Record) error {
	acks := make(chan error, len(rs))
	for _, r := range rs {
		leave, err := p.turn(ctx, r.Topic)
		if err != nil {
			return err
		}
		p.cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			leave()
			acks <- err
		})
	}
	var failed error
	for range rs {
		select {
		case err := <-acks:
			if failed == nil {
				failed = err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return failed
}

// turn waits until a record may be written to the topic: at once, unless it is written one by one.
func (p *Producer) turn(ctx context.Context, topic string) (leave func(), err error) {
	var taken atomic.Bool
	turn := make(chan func(), 1)
	p.sizes.enter(topic, func(leave func()) {
		if taken.Swap(true) {
			leave() // nobody waits any more
			return
		}
		turn <- leave
	})
	select {
	case leave = <-turn:
		return leave, nil
	case <-ctx.Done():
		if taken.Swap(true) {
			(<-turn)()
		}
		return nil, ctx.Err()
	}
}
