package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

var shown = regexp.MustCompile(`\((\d+)/(\d+)`)

// The bar shows what was sent, of what is to be sent: also when Ctrl-C ends it, and when what is left is sent.
func TestTheBarTellsTheTruth(t *testing.T) {
	bubble(t, letterTopics, func(b *bed) {
		var rs []*kgo.Record
		for n := range 500 {
			rs = append(rs, letter(n, "billing", "permanent failure"))
		}
		b.send(rs...)
		b.bars, b.within = true, 10*time.Second
		replay := []string{"dead", "replay", "orders.dead", "--group", "billing", "--topic", "orders", "--to", "orders.retry", "--yes", "--rate", "20"}
		code, out := b.call(replay...)
		sent := 0
		if n, err := fmt.Sscanf(out, "%d of 500 letters were sent", &sent); n != 1 || code != exitInterrupted || sent < 180 || sent > 220 {
			t.Fatalf("exit %d, %q (%v)", code, out, err)
		}
		if last := last(b.last); last != fmt.Sprintf("%d/500", sent) {
			t.Errorf("the bar ended at %s, and %d were sent", last, sent)
		}
		if !strings.HasSuffix(b.last, "retriable: interrupted\n") {
			t.Errorf("it does not say that it was interrupted: %q", b.last)
		}
		b.within = 0
		code, out = b.call(replay...)
		if want := fmt.Sprintf("%d letters were sent", 500-sent); code != 0 || !strings.HasPrefix(out, want) {
			t.Errorf("exit %d, %q, want %s", code, out, want)
		}
		if last, want := last(b.last), fmt.Sprintf("%d/%d", 500-sent, 500-sent); last != want {
			t.Errorf("the bar ended at %s, want %s", last, want)
		}
		b.bars = false
		if b.call(replay...); b.last != "" {
			t.Errorf("without a terminal it prints %q", b.last)
		}
	})
}

// last is the last count that a bar showed.
func last(printed string) string {
	all := shown.FindAllStringSubmatch(printed, -1)
	if len(all) == 0 {
		return ""
	}
	m := all[len(all)-1]
	return m[1] + "/" + m[2]
}
