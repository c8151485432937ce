package kfake_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

func TestTheLatestLettersAreReadFromTheEnd(t *testing.T) {
	bubble(t, "orders.dead:2", func(b *bed) {
		for i := range 40 {
			group := "billing"
			if i == 39 {
				group = "mailing"
			}
			b.send(deadLetter(int32(i%2), group, i, "permanent failure"))
			time.Sleep(time.Second)
		}
		c, done := b.outside()
		defer done()
		latest := func(n int, f admin.Filter) (got []string) {
			ls, err := c.Latest(b.Context(), "orders.dead", n, f)
			if err != nil {
				b.Fatal(err)
			}
			for _, l := range ls {
				got = append(got, fmt.Sprintf("%s:%d/%d", l.Value, l.Position.Partition, l.Position.Offset))
			}
			return got
		}
		wantEqual(t, "three", latest(3, admin.Filter{}), []string{"39:1/19", "38:0/19", "37:1/18"})
		wantEqual(t, "three of a group", latest(3, admin.Filter{Group: "billing"}), []string{"38:0/19", "37:1/18", "36:0/18"})
		wantEqual(t, "more than there are", len(latest(1000, admin.Filter{})), 40)
		wantEqual(t, "none", len(latest(0, admin.Filter{})), 0)
	})
}
