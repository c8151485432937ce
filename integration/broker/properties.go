package broker

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The offsets of a node's ports from its plain one. There are at most ten
// nodes' worth of room between them.
const (
	saslOffset       = 10
	controllerOffset = 20
)

// placement is what differs from node to node, and between Docker and local.
type placement struct {
	id         int
	voters     string // of the quorum, as id@host:port, comma separated
	listeners  []listener
	interName  string // the listener that brokers use among themselves
	controller string // host:port
	data       string // folder
}

// listener is one way in for clients.
type listener struct {
	name, protocol   string
	bind, advertised string // host:port
}

// serverProperties is the text of a node's server.properties.
func serverProperties(cfg Config, at placement) string {
	p := testDefaults(cfg.Nodes)
	maps.Copy(p, at.properties())
	if cfg.SASL != nil {
		maps.Copy(p, map[string]string{
			"sasl.enabled.mechanisms":                           "SCRAM-SHA-512",
			"listener.name.sasl.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
			"authorizer.class.name":                             "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
			"super.users":                                       "User:ANONYMOUS",
			"allow.everyone.if.no.acl.found":                    "true",
		})
	}
	maps.Copy(p, cfg.Properties)

	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", k, strings.ReplaceAll(p[k], `\`, `\\`))
	}
	return b.String()
}

func (at placement) properties() map[string]string {
	binds := []string{"CONTROLLER://" + at.controller}
	protocols := []string{"CONTROLLER:PLAINTEXT"}
	var advertised []string
	for _, l := range at.listeners {
		binds = append(binds, l.name+"://"+l.bind)
		advertised = append(advertised, l.name+"://"+l.advertised)
		protocols = append(protocols, l.name+":"+l.protocol)
	}
	return map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        strconv.Itoa(at.id),
		"controller.quorum.voters":       at.voters,
		"controller.listener.names":      "CONTROLLER",
		"listeners":                      strings.Join(binds, ","),
		"advertised.listeners":           strings.Join(advertised, ","),
		"listener.security.protocol.map": strings.Join(protocols, ","),
		"inter.broker.listener.name":     at.interName,
		"log.dirs":                       at.data,
	}
}

// testDefaults are the settings that make a broker small and its reactions
// quick, and replicate as a real cluster of this size would.
func testDefaults(nodes int) map[string]string {
	replicas, inSync := strconv.Itoa(nodes), strconv.Itoa(min(nodes, 2))
	return map[string]string{
		"auto.create.topics.enable":  "false",
		"default.replication.factor": replicas,
		"min.insync.replicas":        inSync,

		// One partition of an internal topic is one more to load and move at
		// each fault; five still spread coordinators over three nodes.
		"offsets.topic.num.partitions":                                "5",
		"offsets.topic.replication.factor":                            replicas,
		"transaction.state.log.num.partitions":                        "5",
		"transaction.state.log.replication.factor":                    replicas,
		"transaction.state.log.min.isr":                               inSync,
		"share.coordinator.state.topic.num.partitions":                "3",
		"share.coordinator.state.topic.replication.factor":            replicas,
		"share.coordinator.state.topic.min.isr":                       inSync,
		"offsets.topic.segment.bytes":                                 mib(8),
		"transaction.state.log.segment.bytes":                         mib(8),
		"share.coordinator.state.topic.segment.bytes":                 mib(8),
		"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",

		// Groups: short sessions are allowed, and the new protocol, where the
		// broker sets the pace, is quick by default.
		"group.initial.rebalance.delay.ms":         "0",
		"group.min.session.timeout.ms":             "200",
		"group.consumer.min.session.timeout.ms":    "1000",
		"group.consumer.min.heartbeat.interval.ms": "100",
		"group.consumer.heartbeat.interval.ms":     "200",
		"group.share.min.session.timeout.ms":       "1000",
		"group.share.min.heartbeat.interval.ms":    "100",
		"group.share.min.record.lock.duration.ms":  "1000",

		// Faults are noticed and healed in seconds.
		"broker.session.timeout.ms":               "4000",
		"broker.heartbeat.interval.ms":            "500",
		"replica.lag.time.max.ms":                 "5000",
		"controlled.shutdown.max.retries":         "1",
		"leader.imbalance.check.interval.seconds": "5",

		// Small in memory and on disk.
		"num.network.threads":               "2",
		"num.io.threads":                    "4",
		"background.threads":                "2",
		"num.recovery.threads.per.data.dir": "1",
		"log.cleaner.dedupe.buffer.size":    mib(4),
		"log.segment.bytes":                 mib(64),
		"log.index.size.max.bytes":          mib(1),
	}
}

func mib(n int) string { return strconv.Itoa(n << 20) }
