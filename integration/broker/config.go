package broker

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Version is the release of Apache Kafka that Docker and the local runner
// start. Brokers named by KAFKA_BROKERS may run any other.
const Version = "4.3.1"

// ErrUnavailable is what [Start] returns when nothing here can give a Kafka:
// the text says what was looked for and what to install.
var ErrUnavailable = errors.New("no Kafka to be had here")

// Source says where a cluster comes from.
type Source string

const (
	// Any takes the first that can give what the [Config] asks for: the
	// brokers in KAFKA_BROKERS, Docker, processes of this machine. It is the
	// zero value.
	Any Source = ""
	// External takes the brokers in KAFKA_BROKERS, a comma-separated list of
	// host:port, as they are.
	External Source = "external"
	// Docker starts a container, which is one node and cannot be killed.
	Docker Source = "docker"
	// Local starts Java processes on loopback: the only source with several
	// nodes, and the only one whose nodes can be killed, stopped and paused.
	Local Source = "local"
)

// SASL is the one user of a cluster's SASL listener.
type SASL struct {
	// User is the name. It must not be empty.
	User string
	// Password goes to the broker in a request, never to a file, a log or a
	// command line. It must not be empty.
	Password string
}

// Config says what cluster to start. The zero value is one plain broker.
type Config struct {
	// Source says where the cluster comes from. The default is Any. Choose
	// Local for a test that kills nodes.
	Source Source

	// Nodes is the number of brokers, 1 or 3, each of them a controller too.
	// The default is 1. Three need the local runner and some 200 MB each;
	// they replicate every topic three times, with min.insync.replicas=2.
	Nodes int

	// SASL adds a SASL_PLAINTEXT listener which speaks SCRAM-SHA-512 and knows
	// this user, and turns the authorizer on: whoever comes in on the plain
	// listener (User:ANONYMOUS) is super user, and what has no ACL is allowed
	// to all, so a test needs to add only the rules it is about. The default,
	// nil, is neither.
	SASL *SASL

	// Properties are broker settings, as in server.properties. They add to
	// those that this package sets and win over them. Leave the listeners and
	// node ids alone, as the addresses are worked out from Nodes and Port.
	Properties map[string]string

	// HeapMB is the bound of each broker's Java heap, in MB. The default is
	// 384, the least allowed 192.
	HeapMB int

	// Port is the plain port of node 1 of a local cluster: node n listens for
	// clients on Port+n-1, for SASL ten higher and for controllers twenty
	// higher. The default, 0, takes free ports below 32768, out of the reach
	// of client sockets, which might otherwise take a dead broker's port.
	Port int

	// Logf is told about slow steps of Start, such as a first fetch of Kafka's
	// jars, and never called after it. The default is to say nothing.
	Logf func(format string, args ...any)
}

// complete fills in the defaults and says all that is wrong.
func (c Config) complete() (Config, error) {
	var wrong []error
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf("broker: "+format, args...)) }

	if c.Nodes == 0 {
		c.Nodes = 1
	}
	if c.HeapMB == 0 {
		c.HeapMB = 384
	}
	if c.Logf == nil {
		c.Logf = func(string, ...any) {}
	}
	switch c.Source {
	case Any, External, Docker, Local:
	default:
		bad("Config.Source %q: give Any, External, Docker or Local", c.Source)
	}
	if c.Nodes != 1 && c.Nodes != 3 {
		bad("Config.Nodes %d: give 1 or 3", c.Nodes)
	}
	if c.HeapMB < 192 {
		bad("Config.HeapMB %d: a broker needs at least 192", c.HeapMB)
	}
	if c.Port != 0 && (c.Port < 1024 || c.Port > 65000) {
		bad("Config.Port %d: give one in 1024 to 65000, or 0", c.Port)
	}
	if c.SASL != nil && (c.SASL.User == "" || c.SASL.Password == "") {
		bad("Config.SASL: the user and the password must not be empty")
	}
	for k, v := range c.Properties {
		if k == "" || strings.ContainsAny(k, "=: \t\r\n#!\\") || strings.ContainsAny(v, "\r\n") {
			bad("Config.Properties %q=%q: a name has no space or sign, a value is one line", k, v)
		}
	}
	return c, errors.Join(wrong...)
}

// plain says that any broker will do: nothing is asked that a cluster set up
// by others may lack.
func (c Config) plain() bool {
	return c.Nodes == 1 && c.SASL == nil && len(c.Properties) == 0
}

// externalAddrs are the brokers in KAFKA_BROKERS.
func externalAddrs() []string {
	var addrs []string
	for a := range strings.SplitSeq(os.Getenv("KAFKA_BROKERS"), ",") {
		if a = strings.TrimSpace(a); a != "" {
			addrs = append(addrs, a)
		}
	}
	return addrs
}
