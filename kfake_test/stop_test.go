package kfake_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

func TestACleanStopEndsWhatRunsAndDropsTheRest(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		var d diary
		var e events
		c := b.start("g", retriable.Concurrency(4), retriable.Hooks(&e), retriable.CommitInterval(time.Hour),
			retriable.Topic("orders", d.handler("a", func(ctx context.Context, _ *retriable.Message) error {
				time.Sleep(10 * time.Second)
				return ctx.Err()
			}), retriable.NoDeadLetters()))
		defer c.end()
		b.produce("orders", 0, seq(6)...)
		time.Sleep(13 * time.Second) // three (I11: of four workers) run to their end, the next three for 3 s
		stopped := time.Now()
		c.clean()
		wantEqual(b.T, "Run took", time.Since(stopped).Round(100*time.Millisecond), 7*time.Second)
		wantEqual(b.T, "deliveries", len(d.all()), 6)

		b.produce("orders", 1, seq(20)...)
		c = b.start("g", retriable.Concurrency(4), retriable.Hooks(&e), retriable.CommitInterval(time.Hour),
			retriable.Topic("orders", d.handler("b", func(ctx context.Context, _ *retriable.Message) error {
				time.Sleep(10 * time.Second)
				return ctx.Err()
			}), retriable.NoDeadLetters()))
		defer c.end()
		time.Sleep(13 * time.Second)
		c.clean()
		ran := len(d.of(func(v visit) bool { return v.member == "b" }))
		if ran == 0 || ran == 20 {
			b.Errorf("%d of 20 ran: the story shows nothing", ran)
		}
		wantEqual(b.T, "committed in partition 0", b.committed("g", "orders", 0), 6)
		wantEqual(b.T, "committed in partition 1", b.committed("g", "orders", 1), ran)
		drains := list(&e, &e.drains)
		wantEqual(b.T, "partitions given up", len(drains), 4)
		dropped := 0
		for _, e := range drains {
			wantEqual(b.T, "abandoned", e.Abandoned, 0)
			wantEqual(b.T, "lost", e.Lost, false)
			dropped += e.Dropped
		}
		wantEqual(b.T, "dropped", dropped, 20-ran)
	})
}

func TestAHandlerThatOutlivesTheDrainIsAbandonedByName(t *testing.T) {
	bubble(t, "orders:2 orders.retry orders.dead", func(b *bed) {
		var d diary
		c := b.start("g", retriable.DrainTimeout(5*time.Second), retriable.Topic("orders", d.handler("a", func(ctx context.Context, m *retriable.Message) error {
			if string(m.Value) == "slow" {
				<-ctx.Done()
			}
			return nil // I4: for the slow one it does not count
		}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
		defer c.end()
		b.produce("orders", 1, "0", "1", "slow", "3")
		time.Sleep(2 * time.Second)
		stopped := time.Now()
		err := c.end()
		took := time.Since(stopped)
		var abandoned *retriable.AbandonedError
		if !errors.As(err, &abandoned) {
			b.Fatalf("Run: %v", err)
		}
		wantEqual(b.T, "abandoned", abandoned.Records, []retriable.Position{{Topic: "orders", Partition: 1, Offset: 2}})
		wantEqual(b.T, "handlers that still run", abandoned.Running, 0)
		if took < 5*time.Second || took > 7*time.Second {
			b.Errorf("Run took %v", took)
		}
		for _, v := range d.of(func(v visit) bool { return v.value == "slow" }) {
			if !errors.Is(v.cause, retriable.ErrShutdown) {
				b.Errorf("its context ended with cause %v", v.cause)
			}
			wantEqual(b.T, "its context ended after", v.ended.Sub(stopped), 5*time.Second)
		}
		wantEqual(b.T, "committed", b.committed("g", "orders", 1), 2)
		wantEqual(b.T, "retry copies", len(b.read("orders.retry")), 0)

		c = b.start("g", retriable.Topic("orders", d.handler("b", func(context.Context, *retriable.Message) error { return nil }),
			retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
		defer c.end()
		time.Sleep(2 * time.Second)
		second := d.of(func(v visit) bool { return v.member == "b" && v.value == "slow" })
		if len(second) != 1 || second[0].attempt != 1 {
			b.Errorf("the next start delivered %+v", second)
		}
		c.clean()
		wantEqual(b.T, "committed in the end", b.committed("g", "orders", 1), 4)
	})
}

func TestAHandlerThatIgnoresItsContextDoesNotHoldRun(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		for _, how := range []string{"succeeds", "fails", "panics"} {
			free := make(chan struct{})
			c := b.start(how, retriable.DrainTimeout(5*time.Second), retriable.Topic("orders", retriable.HandlerFunc(func(context.Context, *retriable.Message) error {
				<-free
				switch how {
				case "fails":
					return errors.New("late")
				case "panics":
					panic("late")
				}
				return nil
			}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
			if how == "succeeds" {
				b.produce("orders", 0, "forever", "forever too")
			}
			time.Sleep(2 * time.Second)
			stopped := time.Now()
			err := c.end()
			took := time.Since(stopped)
			var abandoned *retriable.AbandonedError
			if !errors.As(err, &abandoned) || len(abandoned.Records) != 2 || abandoned.Running != 2 {
				b.Errorf("Run: %v", err)
			}
			if took > 7*time.Second {
				b.Errorf("Run took %v", took)
			}
			if n := strings.Count(b.log.String(), "ignore their context and still run"); n == 0 {
				b.Error("the log does not say that handlers still run")
			}
			b.log.mu.Lock()
			b.log.b.Reset()
			b.log.mu.Unlock()
			close(free) // it must come to nothing: no commit, no copy, no second panic (I3, I4)
			time.Sleep(10 * time.Second)
			if at := b.committed(how, "orders", 0); at > 0 {
				b.Errorf("committed: %d", at)
			}
			wantEqual(b.T, "retry copies", len(b.read("orders.retry")), 0)
			wantEqual(b.T, "dead letters", len(b.read("orders.dead")), 0)
		}
	})
}

func TestRunTwiceIsAnError(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		c := b.start("g", retriable.Topic("orders", retriable.HandlerFunc(func(context.Context, *retriable.Message) error { return nil }), retriable.NoDeadLetters()))
		defer c.end()
		if err := c.Run(b.Context()); err == nil {
			b.Error("a second Run while the first is under way: no error")
		}
		c.clean()
		if err := c.Run(b.Context()); err == nil {
			b.Error("a second Run after the first: no error")
		}
	})
}

func TestAStopBeforeTheFirstAssignmentIsClean(t *testing.T) {
	topic := retriable.Topic("orders", retriable.HandlerFunc(func(context.Context, *retriable.Message) error { return nil }), retriable.NoDeadLetters())
	// hang has the broker never answer requests of a kind.
	hang := func(b *bed, keys ...kmsg.Key) {
		for _, key := range keys {
			b.cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
				b.cluster.KeepControl()
				return nil, nil, true
			})
		}
	}
	for _, s := range []struct {
		name  string
		set   func(b *bed)
		after time.Duration
	}{
		{"at once", func(*bed) {}, 0},
		{"while the topics are being looked up", func(b *bed) { hang(b, kmsg.Metadata) }, 3 * time.Second},
		{"while the coordinator is being looked up", func(b *bed) { hang(b, kmsg.FindCoordinator) }, 3 * time.Second},
		{"while it joins", func(b *bed) { hang(b, kmsg.JoinGroup) }, 3 * time.Second},
		{"while it syncs", func(b *bed) { hang(b, kmsg.SyncGroup) }, 3 * time.Second},
		{"while the commits are fetched", func(b *bed) { hang(b, kmsg.OffsetFetch) }, 3 * time.Second},
		{"while the ends are listed", func(b *bed) { hang(b, kmsg.ListOffsets) }, 3 * time.Second},
		{"while the group is loading", func(b *bed) {
			b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, Group: "g", TopLevel: true, Err: kerr.CoordinatorLoadInProgress, Count: -1})
		}, 3 * time.Second},
		{"while no broker is there", func(b *bed) { b.cluster.Close() }, 3 * time.Second},
	} {
		t.Run(s.name, func(t *testing.T) {
			bubble(t, "orders", func(b *bed) {
				s.set(b)
				c := b.launch("g", topic)
				time.Sleep(s.after)
				stopped := time.Now()
				if err := c.end(); err != nil {
					b.Errorf("Run: %v", err)
				}
				if took := time.Since(stopped); took > 15*time.Second {
					b.Errorf("Run took %v", took)
				}
			})
		})
	}
}

func TestAStopWhileTheJoinIsParkedReturnsSoon(t *testing.T) {
	bubble(t, "orders:2", func(b *bed) {
		topic := func(took time.Duration) retriable.Option {
			return retriable.Topic("orders", retriable.HandlerFunc(func(context.Context, *retriable.Message) error {
				time.Sleep(took)
				return nil
			}), retriable.NoDeadLetters())
		}
		eager := retriable.Kafka(kgo.Balancers(kgo.RangeBalancer()))
		ma := b.start("g", eager, topic(25*time.Second))
		defer ma.end()
		b.produce("orders", 0, "slow")
		time.Sleep(time.Second)
		mb := b.launch("g", eager, topic(0)) // the broker lets it in once a has drained
		defer mb.end()
		time.Sleep(3 * time.Second)
		stopped := time.Now()
		mb.clean()
		if took := time.Since(stopped); took > 15*time.Second {
			b.Errorf("Run took %v", took)
		}
		ma.clean()
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 1)
	})
}

func TestAStopWhileARebalanceIsUnderWayIsClean(t *testing.T) {
	eachProtocol(t, "orders:4", func(b *bed, kafka retriable.Option) {
		var d diary
		for p := range int32(4) {
			for i := range 5 {
				b.produce("orders", p, fmt.Sprintf("k=%d/%d", p, i))
			}
		}
		topic := func(member string, took time.Duration) retriable.Option {
			return retriable.Topic("orders", d.handler(member, func(context.Context, *retriable.Message) error {
				time.Sleep(took)
				return nil
			}), retriable.NoDeadLetters())
		}
		ma := b.start("g", kafka, topic("a", 10*time.Second))
		defer ma.end()
		time.Sleep(time.Second)
		mb := b.launch("g", kafka, topic("b", 10*time.Millisecond))
		defer mb.end()
		time.Sleep(2 * time.Second) // a drains what it gives to b
		stopped := time.Now()
		ma.clean()
		if took := time.Since(stopped); took > 10*time.Second {
			b.Errorf("Run took %v", took)
		}
		b.eventually(time.Minute, "all are handled", func() bool { return len(d.all()) == 20 })
		time.Sleep(3 * time.Second)
		d.once(b.T, 20)
		d.orderly(b.T)
		mb.clean()
	})
}

func TestAStopWhileTheRetryTopicRefusesWritesLosesNothing(t *testing.T) {
	bubble(t, "orders:2 orders.retry orders.dead", func(b *bed) {
		var d diary
		refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: -1})
		handler := d.handler("", func(_ context.Context, m *retriable.Message) error {
			if m.Attempt == 1 && string(m.Value) == "bad" {
				return errors.New("not yet")
			}
			return nil
		})
		topic := retriable.Topic("orders", handler, retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"),
			retriable.Backoff(retriable.Constant(time.Second)))
		c := b.start("g", retriable.DrainTimeout(5*time.Second), topic)
		defer c.end()
		b.produce("orders", 0, "0", "bad", "2")
		b.produce("orders", 1, "3")
		time.Sleep(10 * time.Second)
		stopped := time.Now()
		err := c.end()
		var abandoned *retriable.AbandonedError
		if !errors.As(err, &abandoned) {
			b.Fatalf("Run: %v", err)
		}
		wantEqual(b.T, "abandoned", abandoned.Records, []retriable.Position{{Topic: "orders", Partition: 0, Offset: 1}})
		wantEqual(b.T, "handlers that still run", abandoned.Running, 0)
		if took := time.Since(stopped); took > 7*time.Second {
			b.Errorf("Run took %v", took)
		}
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 1)
		wantEqual(b.T, "committed beside it", b.committed("g", "orders", 1), 1)
		wantEqual(b.T, "retry copies", len(b.read("orders.retry")), 0)
		refused.Remove()
		c = b.start("g", topic)
		defer c.end()
		time.Sleep(5 * time.Second)
		c.clean()
		bad := d.of(func(v visit) bool { return v.value == "bad" })
		if len(bad) != 3 || bad[2].attempt != 2 || bad[1].attempt != 1 {
			b.Errorf("deliveries of the record: %+v", bad)
		}
		wantEqual(b.T, "retry copies", len(b.read("orders.retry")), 1)
		wantEqual(b.T, "committed in the end", b.committed("g", "orders", 0), 3)
	})
}

func TestAWriteThatIsAcceptedDuringTheDrainCounts(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "orders.retry", Err: kerr.TopicAuthorizationFailed, Count: -1})
		c := b.start("g", retriable.Topic("orders", retriable.HandlerFunc(func(context.Context, *retriable.Message) error { return errors.New("no") }),
			retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"), retriable.Backoff(retriable.Constant(time.Hour))))
		defer c.end()
		b.produce("orders", 0, "0", "1")
		time.Sleep(10 * time.Second)
		c.stop()
		time.Sleep(10 * time.Second)
		refused.Remove()
		c.clean()
		wantEqual(b.T, "committed", b.committed("g", "orders", 0), 2)
		wantEqual(b.T, "retry copies", len(b.read("orders.retry")), 2)
	})
}

func TestHeartbeatsGoOnDuringALongStop(t *testing.T) {
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			bubble(t, "orders:2", func(b *bed) {
				var d diary
				kafka := retriable.Kafka(append([]kgo.Opt{kgo.SessionTimeout(2 * time.Second)}, p.opts...)...)
				topic := func(member string) retriable.Option {
					return retriable.Topic("orders", d.handler(member, func(context.Context, *retriable.Message) error {
						time.Sleep(20 * time.Second)
						return nil
					}), retriable.NoDeadLetters())
				}
				c := b.start("g", kafka, topic("a"), retriable.CommitInterval(time.Hour))
				defer c.end()
				b.produce("orders", 0, "0")
				b.produce("orders", 1, "1")
				time.Sleep(time.Second)
				beats := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat, kmsg.ConsumerGroupHeartbeat}, Group: "g", TopLevel: true, Observe: true, Count: -1})
				c.clean()
				if beats.Hits() < 20 {
					b.Errorf("%d heartbeats in 19 s", beats.Hits())
				}
				for p := range int32(2) {
					wantEqual(b.T, "committed", b.committed("g", "orders", p), 1)
				}
				d.once(b.T, 2)
			}, kfake.BrokerConfigs(map[string]string{"group.consumer.heartbeat.interval.ms": "500", "group.consumer.session.timeout.ms": "2000"}))
		})
	}
}

func TestAbortStopsTheConsumerAndReturnsItsError(t *testing.T) {
	bubble(t, "orders:2 orders.retry orders.dead", func(b *bed) {
		var d diary
		enough := errors.New("enough")
		topic := func(member string, aborts bool) retriable.Option {
			return retriable.Topic("orders", d.handler(member, func(_ context.Context, m *retriable.Message) error {
				switch string(m.Value) {
				case "abort":
					if aborts {
						time.Sleep(time.Second) // the other has begun
						return fmt.Errorf("wrapped: %w", retriable.Abort(enough))
					}
				case "slow":
					time.Sleep(5 * time.Second)
				}
				return nil
			}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"))
		}
		b.produce("orders", 0, "k=0", "k=abort", "k=2")
		b.produce("orders", 1, "slow")
		c := b.launch("g", topic("a", true))
		<-c.done
		if !errors.Is(c.err, enough) {
			b.Errorf("Run: %v", c.err)
		}
		if errors.As(c.err, new(*retriable.AbandonedError)) {
			b.Errorf("a stop by Abort is clean but for its record: %v", c.err)
		}
		wantEqual(b.T, "committed at the record", b.committed("g", "orders", 0), 1)
		wantEqual(b.T, "committed beside it", b.committed("g", "orders", 1), 1)
		wantEqual(b.T, "retry copies", len(b.read("orders.retry")), 0)
		n := len(d.all())
		c = b.start("g", topic("b", false))
		defer c.end()
		time.Sleep(2 * time.Second)
		c.clean()
		after := d.all()[n:]
		if len(after) != 2 || after[0].value != "abort" || after[1].value != "2" || after[0].attempt != 1 {
			b.Errorf("delivered after the next start: %+v", after)
		}
	})
}
