// Command kafka-up runs a throw-away Apache Kafka on loopback until it is
// interrupted (Ctrl-C or SIGTERM), for playing and for trying the examples
// without Docker. It needs Java 17 or newer and, the first time, Maven. Its
// data goes when it ends.
//
//	kafka-up [-nodes 1|3] [-port 9092] [-sasl user:password] [-heap MB] [-property name=value]...
//
// It prints where to connect to, as lines of NAME=value:
//
//	BOOTSTRAP=127.0.0.1:9092
//	SASL_BOOTSTRAP=127.0.0.1:9102
//	SASL_MECHANISM=SCRAM-SHA-512
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/retriable-kafka/retriable-go/integration/broker"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, parse())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kafka-up:", err)
		os.Exit(1)
	}
}

// parse makes a Config of the command line.
func parse() broker.Config {
	cfg := broker.Config{
		Source:     broker.Local,
		Properties: map[string]string{},
		Logf:       func(format string, args ...any) { fmt.Fprintf(os.Stderr, "kafka-up: "+format+"\n", args...) },
	}
	flag.IntVar(&cfg.Nodes, "nodes", 1, "brokers: 1 or 3")
	flag.IntVar(&cfg.Port, "port", 9092, "port of the first broker; the others follow, SASL is 10 higher, controllers 20; 0 for free ones")
	flag.IntVar(&cfg.HeapMB, "heap", 384, "bound of each broker's Java heap, in MB")
	flag.Func("sasl", "`user:password` for a SASL listener (SCRAM-SHA-512)", func(s string) error {
		user, password, ok := strings.Cut(s, ":")
		if !ok {
			return errors.New("give user:password")
		}
		cfg.SASL = &broker.SASL{User: user, Password: password}
		return nil
	})
	flag.Func("property", "`name=value`: a broker setting, as in server.properties; may be repeated", func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("give name=value")
		}
		cfg.Properties[name] = value
		return nil
	})
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "kafka-up: what is %q? See kafka-up -help.\n", flag.Arg(0))
		os.Exit(2)
	}
	return cfg
}

// run runs the brokers until ctx ends.
func run(ctx context.Context, cfg broker.Config) error {
	starting, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	c, err := broker.Start(starting, cfg)
	if ctx.Err() != nil && err != nil {
		return nil // interrupted while starting: Start has cleaned up
	}
	if err != nil {
		return err
	}
	fmt.Printf("BOOTSTRAP=%s\n", strings.Join(c.Addrs(), ","))
	if addrs := c.SASLAddrs(); len(addrs) > 0 {
		fmt.Printf("SASL_BOOTSTRAP=%s\nSASL_MECHANISM=SCRAM-SHA-512\n", strings.Join(addrs, ","))
	}
	cfg.Logf("Kafka %s is up; Ctrl-C ends it", broker.Version)
	<-ctx.Done()
	return c.Close()
}
