package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"
)

const (
	image = "apache/kafka:" + Version

	plainPort      = "9092/tcp"
	saslPort       = "9093/tcp"
	propertiesFile = "/tmp/server.properties"
	starterFile    = "/tmp/start.sh"

	// waitForStarter holds the container until it has been told its outer
	// ports, which Docker chooses when it starts and a broker must advertise.
	waitForStarter = "while [ ! -s " + starterFile + " ]; do sleep 0.1; done; exec sh " + starterFile

	// starter leaves out the image's own entry point, which makes its settings
	// from environment variables: this way both sources run one set of them.
	starter = `set -e
/opt/kafka/bin/kafka-storage.sh format -t %s -c ` + propertiesFile + `
exec /opt/kafka/bin/kafka-server-start.sh ` + propertiesFile + `
`
)

// startDocker starts one broker in a container. Testcontainers' own reaper
// removes it if this process dies.
func startDocker(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	if cfg.Nodes > 1 {
		return nil, lack("a container is one node only")
	}
	logger := logfLogger(cfg.Logf)
	if err := dockerHealth(ctx, logger); err != nil {
		return nil, lack(fmt.Sprintf("install Docker or start it (%v)", err))
	}
	cfg.Logf("starting %s", image)
	ports := []string{plainPort}
	if cfg.SASL != nil {
		ports = append(ports, saslPort)
	}
	ctr, err := testcontainers.Run(ctx, image,
		testcontainers.WithLogger(logger),
		testcontainers.WithExposedPorts(ports...),
		testcontainers.WithEnv(map[string]string{
			"KAFKA_HEAP_OPTS": fmt.Sprintf("-Xmx%dm", cfg.HeapMB),
			"LOG_DIR":         "/tmp/kafka-logs",
		}),
		testcontainers.WithEntrypoint("sh"),
		testcontainers.WithCmd("-c", waitForStarter),
		testcontainers.WithWaitStrategy(wait.ForMappedPort(plainPort)),
	)
	c := &Cluster{source: Docker, release: func() error {
		if err := testcontainers.TerminateContainer(ctr); err != nil {
			return fmt.Errorf("broker: removing the container: %w", err)
		}
		return nil
	}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err != nil {
		return nil, err
	}
	if err := c.runIn(ctx, ctr, cfg); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, containerLog(ctr))
	}
	return c, nil
}

// runIn configures the broker in its waiting container and lets it run.
func (c *Cluster) runIn(ctx context.Context, ctr *testcontainers.DockerContainer, cfg Config) error {
	outer, err := ctr.PortEndpoint(ctx, plainPort, "")
	if err != nil {
		return err
	}
	c.addrs = []string{outer}
	at := placement{
		id:         1,
		voters:     "1@127.0.0.1:9095",
		controller: "127.0.0.1:9095",
		interName:  "BROKER",
		data:       "/tmp/kafka-data",
		listeners: []listener{
			{"PLAINTEXT", "PLAINTEXT", "0.0.0.0:9092", outer},
			// The broker talks to itself, too, and the outer address need not
			// be reachable from within.
			{"BROKER", "PLAINTEXT", "127.0.0.1:9094", "127.0.0.1:9094"},
		},
	}
	if cfg.SASL != nil {
		outer, err := ctr.PortEndpoint(ctx, saslPort, "")
		if err != nil {
			return err
		}
		c.saslAddrs = []string{outer}
		at.listeners = append(at.listeners, listener{"SASL", "SASL_PLAINTEXT", "0.0.0.0:9093", outer})
	}
	if err := ctr.CopyToContainer(ctx, []byte(serverProperties(cfg, at)), propertiesFile, 0o644); err != nil {
		return fmt.Errorf("writing %s into the container: %w", propertiesFile, err)
	}
	script := fmt.Appendf(nil, starter, newClusterID())
	if err := ctr.CopyToContainer(ctx, script, starterFile, 0o755); err != nil {
		return fmt.Errorf("writing %s into the container: %w", starterFile, err)
	}
	c.alive = func(ctx context.Context) error {
		if s, err := ctr.State(ctx); err == nil && !s.Running {
			return fmt.Errorf("the container ended with exit code %d", s.ExitCode)
		}
		return nil
	}
	ready, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	if err := c.await(ready, expectation{nodes: []int{1}}); err != nil {
		return err
	}
	return c.addUser(ready, cfg.SASL, []int{1})
}

// dockerHealth asks Docker whether it is well. Testcontainers panics where it
// finds no Docker host at all, hence the recover.
func dockerHealth(ctx context.Context, logger logfLogger) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	provider, err := testcontainers.ProviderDefault.GetProvider(testcontainers.WithLogger(logger))
	if err != nil {
		return err
	}
	return errors.Join(provider.Health(ctx), provider.Close())
}

// containerLog is the end of what the container said.
func containerLog(ctr *testcontainers.DockerContainer) string {
	// The caller's context may be what has ended.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := ctr.Logs(ctx)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, r); err != nil && b.Len() == 0 {
		return "(no log: " + err.Error() + ")"
	}
	return worst(b.String())
}

// logfLogger lets Testcontainers log through Config.Logf.
type logfLogger func(format string, args ...any)

// Printf implements Testcontainers' logger.
func (l logfLogger) Printf(format string, args ...any) { l(format, args...) }
