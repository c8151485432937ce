package retriabletest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

func orders(h retriable.HandlerFunc, opts ...retriable.TopicOption) retriable.Option {
	return retriable.Topic("orders", h, append([]retriable.TopicOption{retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")}, opts...)...)
}

func TestACrashBetweenTheEffectAndItsCommitRepeatsIt(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		var calls int
		var service *retriabletest.Member
		k.Topic("orders", 1)
		service = k.Start("billing", orders(func(ctx context.Context, _ *retriable.Message) error {
			if calls++; calls == 1 {
				service.Crash()
				<-ctx.Done()
				if cause := context.Cause(ctx); !errors.Is(cause, retriabletest.ErrCrashed) {
					t.Errorf("the handler's context ended with %v", cause)
				}
			}
			return nil
		}))
		k.Produce("orders", "", "coffee")
		<-service.Done()
		if got := k.Committed("billing", "orders", 0); got > 0 {
			t.Errorf("committed by a consumer that crashed: %d", got)
		}
		service.Restart()
		service.Await(retriabletest.Committed())
		if calls != 2 {
			t.Errorf("%d calls, want 2", calls)
		}
	})
}

func TestNothingStartsNorCountsAfterACrash(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		var calls atomic.Int32
		second := make(chan struct{})
		k.Topic("orders", 1)
		service := k.Start("billing", retriable.Concurrency(1), orders(func(context.Context, *retriable.Message) error {
			if calls.Add(1) == 2 {
				close(second)
			}
			time.Sleep(time.Second)
			return nil
		}))
		k.Produce("orders", "", "coffee", "tea", "cake")
		<-second
		service.Crash()
		<-service.Done()
		time.Sleep(time.Hour)
		if n := calls.Load(); n != 2 {
			t.Errorf("%d handlers started, the third after the crash", n)
		}
		service.Restart()
		service.Await(retriabletest.Committed(), retriabletest.Handled(4)) // one before the crash, all three after it
		if n := calls.Load(); n != 5 {
			t.Errorf("%d calls, want 5", n)
		}
	})
}

func TestACrashAtARequest(t *testing.T) {
	for _, w := range []struct {
		name   string
		crash  func(m *retriabletest.Member)
		copies int // of the record, in the end
		calls  int // of its first attempt
	}{
		{"before the copy is written", func(m *retriabletest.Member) { m.CrashBefore(kmsg.Produce) }, 1, 2},
		{"after it, before its ack", func(m *retriabletest.Member) { m.CrashAfter(kmsg.Produce) }, 2, 2},
		{"no crash, but the ack is lost", func(m *retriabletest.Member) { m.LoseAnswer(kmsg.Produce) }, 1, 1},
		{"before the commit", func(m *retriabletest.Member) { m.CrashBefore(kmsg.OffsetCommit) }, 2, 2},
		{"after it, before its answer", func(m *retriabletest.Member) { m.CrashAfter(kmsg.OffsetCommit) }, 1, 1},
	} {
		t.Run(w.name, func(t *testing.T) {
			retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
				firsts := 0
				k.Topic("orders", 1)
				service := k.Start("billing", orders(func(_ context.Context, m *retriable.Message) error {
					if m.Attempt == 1 {
						firsts++
						return errors.New("not now")
					}
					return nil
				}))
				time.Sleep(5 * time.Second) // where to start is committed
				w.crash(service)
				k.Produce("orders", "", "coffee")
				time.Sleep(10 * time.Second)
				select {
				case <-service.Crashed():
					service.Restart()
				default:
				}
				service.Await(retriabletest.Committed())
				if n := len(k.Records("orders.retry")); n != w.copies || firsts != w.calls {
					t.Errorf("%d copies, want %d; %d first attempts, want %d", n, w.copies, firsts, w.calls)
				}
			})
		})
	}
}

func TestAStopRepeatsNothing(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		var calls int
		k.Topic("orders", 1)
		service := k.Start("billing", orders(func(context.Context, *retriable.Message) error {
			calls++
			return nil
		}))
		k.Produce("orders", "", "coffee")
		service.Await(retriabletest.Handled(1))
		if err := service.Stop(); err != nil {
			t.Error(err)
		}
		service.Restart()
		k.Produce("orders", "", "tea")
		service.Restart() // it still runs: a stop and a start
		service.Await(retriabletest.Committed())
		if calls != 2 {
			t.Errorf("%d calls, want 2", calls)
		}
	})
}

func TestAnotherMemberTakesOverFromOneThatCrashed(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		var mu sync.Mutex
		seen := map[string]int{}
		k.Topic("orders", 4)
		service := func() *retriabletest.Member {
			return k.Start("billing", orders(func(_ context.Context, m *retriable.Message) error {
				mu.Lock()
				defer mu.Unlock()
				seen[string(m.Value)]++
				return nil
			}))
		}
		a, b, c := service(), service(), service()
		time.Sleep(10 * time.Second)
		a.Crash()
		for i := range 40 {
			k.Produce("orders", fmt.Sprint(i), fmt.Sprint(i))
		}
		a.Await(retriabletest.Committed()) // what its group has done counts
		if err := errors.Join(b.Stop(), c.Stop()); err != nil {
			t.Error(err)
		}
		if len(seen) != 40 {
			t.Errorf("%d orders were handled, want 40", len(seen))
		}
	})
}

func TestAMemberWithoutANetworkComesBack(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		k.Topic("orders", 1)
		service := k.Start("billing", orders(func(context.Context, *retriable.Message) error { return nil }))
		service.Disconnect()
		k.Produce("orders", "", "coffee")
		time.Sleep(time.Minute)
		if got := k.Committed("billing", "orders", 0); got > 0 {
			t.Errorf("committed without a network: %d", got)
		}
		service.Reconnect()
		service.Await(retriabletest.Handled(1), retriabletest.Committed())
	})
}

func TestRecordsKeepWhatTheyWereProducedWith(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		k.Topic("orders", 2)
		headers := []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a"}}
		k.ProduceRecords(&kgo.Record{Topic: "orders", Value: []byte("x"), Headers: headers})
		k.Produce("orders", "key", "y")
		rs := k.Records("orders")
		if len(rs) != 2 {
			t.Fatalf("%d records", len(rs))
		}
		for _, r := range rs {
			if (string(r.Value) == "y") != (string(r.Key) == "key") || (string(r.Value) == "x") != (len(r.Headers) == 2) {
				t.Errorf("%+v", r)
			}
		}
		if got := k.Committed("nobody", "orders", 0); got != -1 {
			t.Errorf("committed by nobody: %d", got)
		}
	})
}

func TestTheDocumentationShowsThisTest(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	_, test, _ := strings.Cut(string(source), "func TestAnOrderIsChargedOnceThoughTheServiceCrashes")
	test, _, found := strings.Cut(test, "\n}\n")
	if !found || !strings.Contains(string(page), test) {
		t.Errorf("docs/testing.md does not show the test of example_test.go:\n%s", test)
	}
}

// What fails a test is tried in a process of its own.
func TestWhatGoesWrongFailsTheTest(t *testing.T) {
	for name, w := range map[string]struct {
		test func(t *testing.T, k *retriabletest.Kafka)
		want string
	}{
		"a wait that is never over": {func(_ *testing.T, k *retriabletest.Kafka) {
			k.Topic("orders", 1)
			k.Patience = time.Minute
			k.Produce("orders", "", "coffee")
			k.Start("billing", orders(func(context.Context, *retriable.Message) error { return nil })).Await(retriabletest.Handled(1), retriabletest.Retried(2))
		}, "after 1m0s still not Retried(2): handled 1, failed 0, retried 0"},
		"a consumer that cannot start": {func(_ *testing.T, k *retriabletest.Kafka) {
			k.Start("billing", orders(func(context.Context, *retriable.Message) error { return nil }))
		}, "Run ended before the consumer was ready"},
		"a consumer that stops by itself": {func(_ *testing.T, k *retriabletest.Kafka) {
			k.Topic("orders", 1)
			k.Produce("orders", "", "coffee")
			k.Start("billing", orders(func(context.Context, *retriable.Message) error { return retriable.Abort(errors.New("enough")) })).Await(retriabletest.Committed())
		}, "Run has ended: enough"},
		"a consumer that does not stop cleanly": {func(_ *testing.T, k *retriabletest.Kafka) {
			k.Topic("orders", 1)
			k.Produce("orders", "", "coffee")
			k.Start("billing", orders(func(ctx context.Context, _ *retriable.Message) error { <-ctx.Done(); return nil }))
			time.Sleep(time.Second)
		}, "abandoned"},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Getenv("RETRIABLETEST_FAIL") == name {
				retriabletest.Run(t, w.test)
				return
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWhatGoesWrongFailsTheTest$/^"+strings.ReplaceAll(name, " ", "_")+"$")
			cmd.Env = append(os.Environ(), "RETRIABLETEST_FAIL="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), w.want) {
				t.Errorf("want %q, got %v:\n%s", w.want, err, out)
			}
		})
	}
}
