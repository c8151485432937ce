package main

import (
	"testing"

	"github.com/retriable-kafka/retriable-go/integration/broker"
)

// TestEveryContestantHandlesAndCommitsAll runs the scenarios on few records: what is measured must be the whole work. Each contestant fails by
// itself unless it handles all, and the command sees to it that all is committed.
func TestEveryContestantHandlesAndCommitsAll(t *testing.T) {
	cluster := broker.For(t, broker.Config{})
	b, err := newBench(t.Context(), cluster.Addrs())
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	*scale, *rounds = 0.01, 1
	for _, s := range scenarios() {
		if testing.Short() && s.name != "noop" && s.name != "retry" && s.name != "memory" {
			continue
		}
		if s.micro || s.data.dueIn || s.data.records == 0 || s.data.partitions > 100 { // these take their time, however little there is to do
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			inv, err := b.rounds(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range inv.Contestants {
				switch c.Name {
				case "python", "parallel-consumer-unordered", "parallel-consumer-key": // these need more than Go and a broker
					if c.Missing != "" {
						t.Logf("%s: %s", c.Name, c.Missing)
					}
					continue
				}
				if len(c.Rounds) != 1 || c.Rounds[0].Figures.Records == 0 || c.Rounds[0].Figures.Rate() <= 0 {
					t.Errorf("%s: %+v", c.Name, c)
				}
			}
		})
	}
}
