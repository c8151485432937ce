package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// row is a line of the table. What is wanted is left open (-1) where there is no saying: after an interruption, and of what timing decides.
type row struct {
	what      string
	got, want int
}

// audit prints what became of every order, and returns an error if it is not what had to. What the hooks told is compared with what
// was produced, and with what the broker has: commits, ends and dead letters.
func (s *show) audit(ctx context.Context, complete bool) error {
	b := s.books // the members have ended: nobody else has them now
	if b.plan.produced == 0 {
		return nil
	}
	reasons, err := s.deadLetters(ctx)
	if err != nil {
		return err
	}
	again, twice := b.twice()
	rows := []row{{"produced", b.plan.produced, b.plan.produced}}
	for n := 1; n <= maxAttempts; n++ {
		rows = append(rows, row{fmt.Sprintf("handled on attempt %d", n), b.onAttempt(n), b.plan.onAttempt[n]})
	}
	rows = append(rows,
		row{"dead letters: all 3 attempts failed", reasons["all 3 attempts failed"], b.plan.exhausted},
		row{"dead letters: permanent failure", reasons["permanent failure"], b.plan.permanent})
	ended := 0
	for i := range rows[1:] {
		ended += rows[1+i].got
		if !complete {
			rows[1+i].want = -1
		}
	}
	waiting := 0 // what the group has not committed
	for _, topic := range []string{"orders", "orders.retry"} {
		committed, end, err := s.offsets(ctx, topic)
		if err != nil {
			return err
		}
		waiting += end - committed
		if !complete {
			end = -1
		}
		rows = append(rows, row{topic + ": committed, of its end", committed, end})
	}
	rows = append(rows,
		row{"read again by the next owner, skipped", s.skipped(), -1},
		row{"deliveries made twice", again, 0},
		row{"orders ended twice", twice, 0},
		row{"orders of a customer out of turn", b.disorder, 0},
		row{"lost", max(b.plan.produced-ended-waiting, 0), 0})
	return report(rows)
}

// skipped returns how many orders were read a second time after a hand-over and not delivered again, for the commit said that they were done.
func (s *show) skipped() (n int) {
	for _, m := range s.members {
		n += int(m.c.Stats().Skipped)
	}
	return n
}

func report(rows []row) error {
	fmt.Printf("\n%-38s %8s %8s\n", "What became of it", "is", "must be")
	var wrong []string
	for _, r := range rows {
		want, mark := fmt.Sprint(r.want), ""
		switch {
		case r.want < 0:
			want = "-"
		case r.got != r.want:
			mark = "  WRONG"
			wrong = append(wrong, r.what)
		}
		fmt.Printf("%-38s %8d %8s%s\n", r.what, r.got, want, mark)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("the books do not balance: %s", strings.Join(wrong, "; "))
	}
	return nil
}

// offsets adds up what the group has committed of a topic, and its partitions' ends.
func (s *show) offsets(ctx context.Context, topic string) (committed, end int, err error) {
	adm := kadm.NewClient(s.client)
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, 0, fmt.Errorf("asking for the end of %s: %w", topic, err)
	}
	commits, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		return 0, 0, fmt.Errorf("asking for the commits of %s: %w", group, err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		end += int(o.Offset)
		if c, ok := commits.Lookup(o.Topic, o.Partition); ok {
			committed += int(c.At)
		}
	})
	return committed, end, nil
}

// deadLetters counts the dead-letter topic's records by the reason in their headers.
func (s *show) deadLetters(ctx context.Context) (map[string]int, error) {
	_, end, err := s.offsets(ctx, "orders.dead")
	if err != nil {
		return nil, err
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(s.brokers...), kgo.ConsumeTopics("orders.dead"))
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	defer reader.Close()
	reasons := map[string]int{}
	for read := 0; read < end; {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("reading the dead letters: %w", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			read++
			for _, h := range r.Headers {
				if h.Key == "__dlq.errors.message" {
					reasons[string(h.Value)]++
				}
			}
		})
	}
	return reasons, nil
}
