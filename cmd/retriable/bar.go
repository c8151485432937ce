package main

import (
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"
)

// bar shows how far something is, on a terminal only. It shows what it is told, and is full only if all is done.
type bar struct{ b *progressbar.ProgressBar }

// bar begins one; a total of −1 is not known.
func (a *app) bar(what string, total int) *bar {
	if !a.terminal(a.err) {
		return &bar{}
	}
	return &bar{progressbar.NewOptions(total,
		progressbar.OptionSetWriter(a.err),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("letters"),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetRenderBlankState(true),
		progressbar.OptionSetSpinnerChangeInterval(0), // or it leaves a goroutine behind
	)}
}

func (b *bar) set(n int) {
	if b.b != nil {
		_ = b.b.Set(n) // a bar that cannot be drawn is not worth a word
	}
}

// end leaves the bar as it stands.
func (b *bar) end(a *app) {
	if b.b != nil {
		_ = b.b.Exit()
		fmt.Fprintln(a.err)
	}
}
