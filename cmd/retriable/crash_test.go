package main

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/retriabletest"
)

// What an owner that died leaves in the commits is shown, and an end in order is too.
func TestStatusTellsOfCrashes(t *testing.T) {
	retriabletest.Run(t, func(t *testing.T, k *retriabletest.Kafka) {
		k.Topic("orders", 1)
		status := func(args ...string) string {
			var out, errs strings.Builder
			a := &app{
				in: strings.NewReader(""), out: &out, err: &errs, env: func(string) string { return "" }, terminal: func(any) bool { return false },
				dial: k.ClientOptions(),
			}
			if code := a.run(t.Context(), append([]string{"status", "billing", "--brokers", "127.0.0.1:9092"}, args...)); code != 0 {
				t.Fatalf("exit %d: %s", code, errs.String())
			}
			return out.String()
		}
		var mortal atomic.Pointer[retriabletest.Member]
		m := k.Start("billing", retriable.MaxCrashes(5), retriable.Topic("orders", retriable.HandlerFunc(func(ctx context.Context, m *retriable.Message) error {
			if who := mortal.Load(); who != nil && string(m.Value) == "kills" {
				who.Crash()
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}), retriable.NoDeadLetters()))
		k.Produce("orders", "", "fine")
		m.Await(retriabletest.Handled(1), retriabletest.Committed())
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
		k.Produce("orders", "", "kills", "fine")
		if out := status(); strings.Contains(out, "in order") || strings.Contains(out, "died") {
			t.Errorf("after a clean stop: %s", out)
		}
		if out := status("--json"); !strings.Contains(out, `"clean":true,"crashes":0,"alone":null`) {
			t.Errorf("after a clean stop: %s", out)
		}

		mortal.Store(m)
		for lives := 1; lives <= 4; lives++ {
			m.Restart()
			<-m.Crashed()
			time.Sleep(time.Minute) // its session ends
			out := status()
			if !strings.Contains(out, "0 members") || !strings.Contains(out, "\norders/0: not given up in order: what ran is delivered again") {
				t.Errorf("after crash %d: %s", lives, out)
			}
			if told := strings.Contains(out, "from an owner that had died"); told != (lives > 1) {
				t.Errorf("after crash %d: %s", lives, out)
			}
		}
		if out := status(); !strings.Contains(out, "\norders/0: taken over 3 times in a row from an owner that had died, without getting on; record 1 was run alone, for it may be the cause\n") {
			t.Errorf("after four crashes: %s", out)
		}
		if out := status("--json"); !strings.Contains(out, `"clean":false,"crashes":3,"alone":1`) {
			t.Errorf("after four crashes: %s", out)
		}
		mortal.Store(nil)
		m.Restart()
		m.Await(retriabletest.Handled(3), retriabletest.Committed())
		if err := m.Stop(); err != nil {
			t.Fatal(err)
		}
		if out := status(); strings.Contains(out, "in order") || strings.Contains(out, "died") {
			t.Errorf("in the end: %s", out)
		}
	})
}
