// Package broker gives tests and programs a real Apache Kafka.
//
// [For] is for a test, [Shared] for all tests of a package, [Start] for a
// program. The cluster comes from the first of these that can give what the
// [Config] asks for:
//
//   - the brokers in KAFKA_BROKERS (host:port, comma separated), used as they
//     are, unless the Config names SASL, Properties or several Nodes;
//   - Docker: one container of the official image, unless the Config asks for
//     several Nodes;
//   - Java processes on loopback, run straight from Kafka's jars: this needs
//     Java 17 or newer and, to fetch the jars the first time, Maven.
//
// Where none of them is there, a test is skipped. With
// RETRIABLE_REQUIRE_KAFKA=1 it fails instead, so that a CI run cannot pass
// without having met a broker.
//
// Local brokers end with the process that started them, however that ends.
// Their jars are kept in the user's cache folder, under retriable-kafka;
// KAFKA_LOCAL_LIBS names a folder of jars to use instead, such as libs in an
// unpacked release. KAFKA_LOCAL_LOGS names a folder in which the brokers' logs
// stay after Close, for a CI run to keep.
//
// The brokers are set up for tests: topics are not created by being named, a
// group forms without delay and may have sessions of 200 ms, internal topics
// have few partitions, and a dead broker is noticed after 4 s. A
// [Config] can change each of these.
package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

// Cluster is a running Kafka. Its methods may be called from several
// goroutines.
type Cluster struct {
	source    Source
	addrs     []string
	saslAddrs []string

	// For a local cluster only, whose nodes are processes of ours.
	local       *local
	controllers []string // addresses

	// alive says why the cluster cannot become ready any more, if so.
	alive func(context.Context) error

	closing  sync.Once
	release  func() error
	closeErr error
}

// Start starts a cluster, waits until it is ready and returns it; the caller
// closes it. The context bounds the start only, which takes a few seconds, or
// minutes when jars or an image have to be fetched first: give it a deadline.
// The error is [ErrUnavailable] when there is no way to run Kafka here.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	// What a container says at its end must not go to a test that is over.
	var started atomic.Bool
	defer started.Store(true)
	logf := cfg.Logf
	cfg.Logf = func(format string, args ...any) {
		if !started.Load() {
			logf(format, args...)
		}
	}

	var missing []string
	for _, s := range sources {
		if cfg.Source != Any && cfg.Source != s.name {
			continue
		}
		c, err := s.start(ctx, cfg)
		var l lack
		if errors.As(err, &l) {
			missing = append(missing, fmt.Sprintf("%s: %s", s.name, string(l)))
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("broker: starting Kafka (%s): %w", s.name, err)
		}
		return c, nil
	}
	return nil, fmt.Errorf("broker: %w (%s)", ErrUnavailable, strings.Join(missing, "; "))
}

// sources are the ways to a cluster, in the order in which they are tried.
var sources = []struct {
	name  Source
	start func(context.Context, Config) (*Cluster, error)
}{
	{External, startExternal},
	{Docker, startDocker},
	{Local, startLocal},
}

// lack is why a source cannot serve here, and what would help. Start goes on
// to the next source; any other error ends it.
type lack string

func (l lack) Error() string { return string(l) }

func startExternal(ctx context.Context, cfg Config) (*Cluster, error) {
	addrs := externalAddrs()
	if len(addrs) == 0 {
		return nil, lack("set KAFKA_BROKERS to use brokers that run already")
	}
	if !cfg.plain() {
		return nil, lack("this Config needs a cluster of its own, which KAFKA_BROKERS is not")
	}
	c := &Cluster{source: External, addrs: addrs}
	if err := c.await(ctx, expectation{}); err != nil {
		return nil, fmt.Errorf("KAFKA_BROKERS=%s: %w", strings.Join(addrs, ","), err)
	}
	return c, nil
}

// Source says where the cluster came from: External, Docker or Local.
func (c *Cluster) Source() Source { return c.source }

// Addrs are the plain addresses to bootstrap from, in the order of the nodes.
func (c *Cluster) Addrs() []string { return append([]string(nil), c.addrs...) }

// SASLAddrs are the SASL_PLAINTEXT addresses, in the order of the nodes, or
// nothing where the Config had no SASL.
func (c *Cluster) SASLAddrs() []string { return append([]string(nil), c.saslAddrs...) }

// CanFault says whether nodes can be killed, stopped, paused and started:
// true for a local cluster only.
func (c *Cluster) CanFault() bool { return c.local != nil }

// Close ends the cluster and removes its data. Brokers from KAFKA_BROKERS are
// left as they are. Calling it again does nothing more.
func (c *Cluster) Close() error {
	c.closing.Do(func() {
		if c.release != nil {
			c.closeErr = c.release()
		}
	})
	return c.closeErr
}
