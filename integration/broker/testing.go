package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// startLimit bounds a start in a test, a first fetch of jars or image included.
const startLimit = 5 * time.Minute

// For gives a test a cluster of its own and closes it when the test is over.
// It skips the test where there is no Kafka to be had, or fails it when
// RETRIABLE_REQUIRE_KAFKA is 1.
func For(tb testing.TB, cfg Config) *Cluster {
	tb.Helper()
	if cfg.Logf == nil {
		cfg.Logf = tb.Logf
	}
	ctx, cancel := context.WithTimeout(tb.Context(), startLimit)
	defer cancel()
	c, err := Start(ctx, cfg)
	if err != nil {
		giveUp(tb, err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// shared is the cluster behind Shared.
var shared struct {
	once    sync.Once
	cluster *Cluster
	err     error
}

// Shared gives the one plain broker that all tests of a package may use; it
// starts with the first call. Tests keep apart by the names of their topics
// and groups. It skips or fails as [For] does. The package needs a TestMain
// that calls [Main], which closes it.
func Shared(tb testing.TB) *Cluster {
	tb.Helper()
	shared.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		defer cancel()
		shared.cluster, shared.err = Start(ctx, Config{Logf: tb.Logf})
	})
	if shared.err != nil {
		giveUp(tb, shared.err)
	}
	return shared.cluster
}

// Main runs a package's tests, closes what [Shared] started and returns the
// exit code:
//
//	func TestMain(m *testing.M) { os.Exit(broker.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	if shared.cluster == nil {
		return code
	}
	if err := shared.cluster.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// giveUp ends a test that got no cluster.
func giveUp(tb testing.TB, err error) {
	tb.Helper()
	if errors.Is(err, ErrUnavailable) && os.Getenv("RETRIABLE_REQUIRE_KAFKA") != "1" {
		tb.Skip(err)
	}
	tb.Fatal(err)
}
