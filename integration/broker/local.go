package broker

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// readyLimit bounds the time from the start of the processes to a cluster that
// serves: some 3 s on an idle machine, several times that on a busy one.
const readyLimit = 2 * time.Minute

// local is a cluster of processes of this machine.
type local struct {
	cfg   Config
	java  string // the executable
	libs  string // the folder of jars
	dir   string // holds a folder for each node
	keep  bool   // the logs, after Close
	ports *portBlock
	nodes []*node
}

func startLocal(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	if !canRunLocal {
		return nil, lack("needs Linux, macOS or a BSD")
	}
	java, err := findJava(ctx)
	if err != nil {
		return nil, err
	}
	libs, err := findJars(ctx, cfg.Logf)
	if err != nil {
		return nil, err
	}
	l := &local{cfg: cfg, java: java, libs: libs}
	c := &Cluster{source: Local, local: l, alive: l.alive, release: l.close}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if l.ports, err = takePorts(cfg); err != nil {
		return nil, err
	}
	if err := l.makeDirs(); err != nil {
		return nil, err
	}
	for _, n := range l.nodes {
		c.addrs = append(c.addrs, l.addr(n.id, 0))
		c.controllers = append(c.controllers, l.addr(n.id, controllerOffset))
		if cfg.SASL != nil {
			c.saslAddrs = append(c.saslAddrs, l.addr(n.id, saslOffset))
		}
	}
	if err := l.format(ctx); err != nil {
		return nil, err
	}
	for _, n := range l.nodes {
		if err := n.start(l.command(n, cfg.HeapMB, "kafka.Kafka", n.properties())); err != nil {
			return nil, err
		}
	}
	ready, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	if err := c.await(ready, expectation{nodes: l.ids()}); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, l.logs())
	}
	if err := c.addUser(ready, cfg.SASL, l.ids()); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, l.logs())
	}
	return c, nil
}

// addr is a node's address on loopback; offset tells the listeners apart.
func (l *local) addr(id, offset int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.ports.base+offset+id-1))
}

// ids are the ids of all nodes: 1 and up.
func (l *local) ids() []int {
	var ids []int
	for _, n := range l.nodes {
		ids = append(ids, n.id)
	}
	return ids
}

// running are the ids of the nodes that run and are not paused.
func (l *local) running() []int {
	var ids []int
	for _, n := range l.nodes {
		if n.serving() {
			ids = append(ids, n.id)
		}
	}
	return ids
}

// alive says which node ended, while all are expected to come up.
func (l *local) alive(context.Context) error {
	for _, n := range l.nodes {
		if err := n.crashed(); err != nil {
			return err
		}
	}
	return nil
}

// makeDirs makes the cluster's folder with the nodes' settings in it.
func (l *local) makeDirs() error {
	parent := os.Getenv("KAFKA_LOCAL_LOGS")
	if l.keep = parent != ""; l.keep {
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return fmt.Errorf("KAFKA_LOCAL_LOGS: %w", err)
		}
	}
	dir, err := os.MkdirTemp(parent, "kafka-")
	if err != nil {
		return fmt.Errorf("making a folder for the brokers: %w", err)
	}
	if l.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	var voters []string
	for id := 1; id <= l.cfg.Nodes; id++ {
		voters = append(voters, fmt.Sprintf("%d@%s", id, l.addr(id, controllerOffset)))
	}
	for id := 1; id <= l.cfg.Nodes; id++ {
		n := &node{id: id, dir: filepath.Join(l.dir, fmt.Sprintf("node-%d", id)), doomed: l.dir}
		if l.keep {
			n.doomed = n.data()
		}
		l.nodes = append(l.nodes, n)
		text := serverProperties(l.cfg, l.place(n, strings.Join(voters, ",")))
		err := errors.Join(
			os.Mkdir(n.dir, 0o755),
			os.WriteFile(n.properties(), []byte(text), 0o600),
			os.WriteFile(filepath.Join(n.dir, "log4j2.properties"), []byte(log4j2), 0o600),
		)
		if err != nil {
			return fmt.Errorf("writing the settings of node %d: %w", id, err)
		}
	}
	return nil
}

func (l *local) place(n *node, voters string) placement {
	plain := l.addr(n.id, 0)
	at := placement{
		id:         n.id,
		voters:     voters,
		controller: l.addr(n.id, controllerOffset),
		interName:  "PLAINTEXT",
		data:       n.data(),
		listeners:  []listener{{"PLAINTEXT", "PLAINTEXT", plain, plain}},
	}
	if l.cfg.SASL != nil {
		a := l.addr(n.id, saslOffset)
		at.listeners = append(at.listeners, listener{"SASL", "SASL_PLAINTEXT", a, a})
	}
	return at
}

// format writes the cluster id into every node's data folder, without which a
// broker does not start. All at once, as most of it is waiting for Java.
func (l *local) format(ctx context.Context) error {
	id := newClusterID()
	errs := make([]error, len(l.nodes))
	var wg sync.WaitGroup
	for i, n := range l.nodes {
		wg.Go(func() {
			argv := l.command(n, 128, "kafka.tools.StorageTool", "format", "-t", id, "-c", n.properties())
			if out, err := run(ctx, argv...); err != nil {
				errs[i] = fmt.Errorf("formatting the data of node %d: %w\n%s", n.id, err, worst(out))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// newClusterID is a random id in Kafka's form: 16 bytes in URL-safe base 64.
func newClusterID() string {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f // an id that begins with a dash would pass for an option
	return base64.RawURLEncoding.EncodeToString(b)
}

// logs are the telling lines of all nodes' logs.
func (l *local) logs() string {
	var b strings.Builder
	for _, n := range l.nodes {
		fmt.Fprintf(&b, "node %d, %s:\n%s\n", n.id, n.log(), tail(n.log()))
	}
	return strings.TrimSpace(b.String())
}

// close kills what runs, since the data goes anyway, and removes all but what
// is to be kept.
func (l *local) close() error {
	var errs []error
	for _, n := range l.nodes {
		errs = append(errs, n.end())
		if l.keep {
			errs = append(errs, os.RemoveAll(n.data()))
		}
	}
	if l.dir != "" && !l.keep {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	if l.ports != nil {
		errs = append(errs, l.ports.release())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("broker: closing the cluster: %w", err)
	}
	return nil
}
