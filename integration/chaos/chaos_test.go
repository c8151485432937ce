package chaos_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/integration/broker"
	"github.com/retriable-kafka/retriable-go/integration/chaos"
)

// Processes: members are killed at random and at named points, halted past their session, restarted, joined by others, in groups of all
// protocols, and every record is accounted for.
func TestProcessesDieAndNothingIsLost(t *testing.T) {
	n := number(t, "RETRIABLE_CHAOS_FAULTS", 4*60)
	var all tally
	processes(t, &all, seed(t), n)
	all.table(t)
	if n >= 100 { // of fewer nothing can be asked
		all.want(t, chaos.DiedAtWork, chaos.DiedUnacked, chaos.DiedDone, chaos.DiedAbove, chaos.RevokedAt, chaos.RevokedHeld, chaos.LostAtWork, chaos.HaltedAt,
			chaos.NotCommitted, chaos.Repeated, chaos.Spared, chaos.CopiedTwice)
	}
}

// processes runs n faults of processes, in four groups at once.
func processes(t *testing.T, all *tally, seed uint64, n int) {
	t.Helper()
	const members = 3
	protocols := []string{"cooperative", "eager", "KIP-848", "static"}
	cluster := broker.For(t, broker.Config{Source: broker.Local})
	t.Run("processes", func(t *testing.T) {
		for i, protocol := range protocols {
			t.Run(protocol, func(t *testing.T) {
				t.Parallel()
				a := arena(t, cluster, chaos.Setup{Name: "processes-" + protocol, Protocol: protocol, Members: members, Rate: 150, Session: session, Limit: 90 * time.Second})
				plan := chaos.ProcessPlan(seed, uint64(i), (n+len(protocols)-1)/len(protocols), members, session)
				r := under(t, all, a, plan, func(ctx context.Context) { a.Run(ctx, plan) })
				all.add(a.Applied(), r)
			})
		}
	})
}

// Brokers: of three with SASL some are killed, halted, and rolled, two at once are down, the right to write to the retry topic is taken away, that
// topic is deleted and made anew, members' networks fail in all ways and members are killed, and every record is accounted for.
func TestBrokersFailAndNothingIsLost(t *testing.T) {
	n := number(t, "RETRIABLE_CHAOS_BROKER_FAULTS", 11)
	var all tally
	brokers(t, &all, seed(t), n)
	all.table(t)
	if n >= 10 {
		// Of so few kills none need meet a handler that runs, for these take milliseconds; each meets work that no commit tells yet.
		all.want(t, chaos.DiedDone, chaos.NotCommitted, chaos.NotWritten, chaos.Repeated, chaos.Spared)
	}
}

// brokers runs n faults of brokers, each of which has healed before the next, and as many of the members of each of two groups beside.
func brokers(t *testing.T, all *tally, seed uint64, n int) {
	t.Helper()
	const members, session = 2, 3 * time.Second
	sasl := &broker.SASL{User: "member", Password: rand.Text()}
	cluster := broker.For(t, broker.Config{Source: broker.Local, Nodes: 3, SASL: sasl, HeapMB: 320})
	plan := chaos.BrokerPlan(seed, 100, n)
	var arenas []*chaos.Arena
	for _, protocol := range []string{"cooperative", "KIP-848"} {
		arenas = append(arenas, arena(t, cluster, chaos.Setup{
			Name: "brokers-" + protocol, Protocol: protocol, Members: members, Rate: 100, Session: session, SASL: sasl,
			Limit: 4 * time.Minute, // what a death may have been due to runs one by one for a while
		}))
	}
	over := make(chan struct{}) // when the brokers' faults are
	t.Run("brokers", func(t *testing.T) {
		t.Run("brokers", func(t *testing.T) {
			t.Parallel()
			defer close(over)
			applied, err := chaos.RunBrokers(context.WithoutCancel(t.Context()), cluster, arenas, plan)
			if err != nil {
				all.fail(t, err)
			}
			all.add(applied, nil)
		})
		for i, a := range arenas {
			t.Run(a.Protocol, func(t *testing.T) {
				t.Parallel()
				beside := chaos.MemberPlan(seed, 101+uint64(i), n, members)
				r := under(t, all, a, slices.Concat(plan, beside), func(ctx context.Context) {
					a.Run(ctx, beside)
					<-over
				})
				all.add(a.Applied(), r)
			})
		}
	})
}

// For as long as RETRIABLE_CHAOS says: rounds of both, each with a seed and a cluster of its own.
func TestChaos(t *testing.T) {
	v := os.Getenv("RETRIABLE_CHAOS")
	if v == "" {
		t.Skip("RETRIABLE_CHAOS says how long: 30m, for instance")
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatalf("RETRIABLE_CHAOS: %v", err)
	}
	var all tally
	began := time.Now()
	for s := seed(t); time.Since(began) < d && !t.Failed(); s++ {
		t.Run(fmt.Sprintf("seed %d", s), func(t *testing.T) {
			processes(t, &all, s, number(t, "RETRIABLE_CHAOS_FAULTS", 4*60))
			if time.Since(began) < d {
				brokers(t, &all, s, number(t, "RETRIABLE_CHAOS_BROKER_FAULTS", 11))
			}
		})
	}
	all.table(t)
}
