// Command retriable looks after consumers made with the library of that name: dead letters, waiting retries, where groups stand, and
// topics. It needs the brokers and nothing of the processes that consume.
//
//	retriable --help
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv, terminal: isTerminal}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// app is one call of the program, with all that it touches.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
	terminal func(any) bool // whether a reader or writer is one
	dial     []kgo.Opt      // of tests

	conn   connection
	json   bool
	called bool // the command line was understood
}

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
