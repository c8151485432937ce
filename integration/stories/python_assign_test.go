package stories_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/interop"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// Members of both kinds agree on who has what, whichever joins first and so shares the partitions out: by what the Python client does by default
// (cooperative-sticky, as here), and by what it may have been told to do instead.
func TestMembersOfBothKindsShareThePartitionsOut(t *testing.T) {
	t.Parallel()
	for _, strategy := range []struct {
		name string
		ours kgo.GroupBalancer
	}{
		{"cooperative-sticky", nil},
		{"range", kgo.RangeBalancer()},
		{"roundrobin", kgo.RoundRobinBalancer()},
	} {
		for _, leader := range []string{"Go", "Python"} {
			t.Run(strategy.name+", led by "+leader, func(t *testing.T) {
				const partitions = 7
				b := beside(t, time.Minute)
				base, retry, group := b.topic("orders", partitions), b.topic("retry", partitions), b.name("group")
				python := func(members int) {
					s := interop.Consuming{Group: group, Topic: base, Retry: retry, Retries: 4}
					if strategy.ours != nil {
						s.Kafka = map[string]any{"partition.assignment.strategy": strategy.name}
					}
					b.join(members, s)
				}
				here := func() {
					opts := []retriable.Option{retriable.Topic(base, done(), retriable.RetryTopic(retry), retriable.NoDeadLetters())}
					if strategy.ours != nil {
						opts = append(opts, retriable.Kafka(kgo.Balancers(strategy.ours)))
					}
					b.start(group, opts...)
				}
				if leader == "Go" {
					here()
					python(2)
				} else {
					python(1)
					here()
				}
				var shares map[string]int
				b.await("each partition has one owner, and both have some", 20*time.Second, func() bool {
					owners := b.owners(group)
					shares = map[string]int{}
					for _, members := range owners {
						if len(members) != 1 {
							return false
						}
						shares[members[0]]++
					}
					return len(owners) == 2*partitions && len(shares) == 2
				})
				for member, n := range shares {
					if n < partitions-1 {
						t.Errorf("%s has %d of %d partitions", member, n, 2*partitions)
					}
				}
			})
		}
	}
}

// owners returns the members that have a partition, by topic and partition, when the group is at rest.
func (b *bed) owners(group string) map[string][]string {
	b.Helper()
	found, err := b.adm.DescribeGroups(b.limit, group)
	if err != nil || found[group].State != "Stable" {
		return nil
	}
	owners := map[string][]string{}
	for _, m := range found[group].Members {
		if assigned, ok := m.Assigned.AsConsumer(); ok {
			for _, topic := range assigned.Topics {
				for _, p := range topic.Partitions {
					at := fmt.Sprintf("%s/%d", topic.Topic, p)
					owners[at] = append(owners[at], m.ClientID)
				}
			}
		}
	}
	return owners
}
