package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

// What the program ends with.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitFound       = 3
	exitRefused     = 4
	exitInterrupted = 130
)

const exitCodes = `Exit codes:
  0    done
  1    it failed: the brokers refused or did not answer
  2    it was called wrongly
  3    it found what should not be (topics check, status --max-age)
  4    it was not confirmed
  130  it was interrupted; what was done until then is done`

// usageError is a call that cannot be meant.
type usageError struct{ error }

var (
	errFound   = errors.New("found")
	errRefused = errors.New("not confirmed")
)

// run does what the arguments say and returns what to exit with.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errFound):
		return exitFound
	case ctx.Err() != nil:
		fmt.Fprintln(a.err, "retriable: interrupted")
		return exitInterrupted
	case errors.As(err, &usage), !a.called:
		fmt.Fprintf(a.err, "retriable: %s\nretriable --help tells more.\n", plainly(err))
		return exitUsage
	case errors.Is(err, errRefused):
		fmt.Fprintf(a.err, "retriable: %v\n", err)
		return exitRefused
	}
	fmt.Fprintf(a.err, "retriable: %s\n", plainly(err))
	var large *kgo.ErrDecompressTooLarge
	if errors.As(err, &large) {
		fmt.Fprintf(a.err, "What lies at that offset unpacks to more than can be read; the next batch begins at offset %d.\n", large.NextOffset)
	}
	return exitFailed
}

// plainly is an error's text without the names of packages, fit for a terminal.
func plainly(err error) string {
	return safeText([]byte(strings.ReplaceAll(err.Error(), "admin: ", "")))
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "retriable",
		Short: "Dead letters, waiting retries and consumer groups, from outside",
		Long: `Looks after consumers made with the Go library retriable: their dead letters, the retries that wait, where their groups stand, and their
topics. It needs the brokers and nothing of the processes that consume.

How to connect is said by flags, by variables of the environment (--sasl-user is RETRIABLE_SASL_USER) or in a file (sasl-user = billing), in
this order. The file is the one of --config, or retriable/config in the user's folder of configurations. The password is said by
RETRIABLE_SASL_PASSWORD, in the file (sasl-password), or in a file of its own (--sasl-password-file): there is no flag for it, for
command lines are seen by others.

` + exitCodes,
		Example:       "  retriable status billing --brokers localhost:9092\n  retriable dead summary orders.dead",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	f := root.PersistentFlags()
	a.conn.flags(f)
	f.BoolVar(&a.json, "json", false, "print JSON, an object a line, for scripts")
	root.AddCommand(a.dead(), a.retry(), a.status(), a.topics(), a.skip())
	root.InitDefaultCompletionCmd()
	return root
}

func version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(devel)"
}

// group is a command that only holds others.
func group(use, short, example string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Example: example,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%s has no command %q", use, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(subs...)
	return c
}

// exactly is cobra.ExactArgs with the exit code of wrong use.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return fmt.Errorf("%s wants %s", cmd.CommandPath(), strings.Join(names, " "))
		}
		return nil
	}
}

// answerWithin is how long a broker may take to answer at all.
const answerWithin = 15 * time.Second

// connect makes a client and has a broker answer.
func (a *app) connect(ctx context.Context) (*admin.Client, error) {
	opts, err := a.conn.options(a)
	if err != nil {
		return nil, usageError{err}
	}
	c, err := admin.New(append(opts, a.dial...)...)
	if err != nil {
		return nil, usageError{err}
	}
	timed, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if err := c.Ping(timed); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// with runs a command with a connected client.
func (a *app) with(do func(ctx context.Context, c *admin.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.called = true
		c, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		defer c.Close()
		return do(cmd.Context(), c, args)
	}
}

// complete offers the topics or groups of the cluster for the first argument.
func (a *app) complete(names func(context.Context, *admin.Client) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), 2*time.Second)
		defer cancel()
		c, err := a.connect(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		defer c.Close()
		found, err := names(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

func topicNames(ctx context.Context, c *admin.Client) ([]string, error) { return c.TopicNames(ctx) }
func groupNames(ctx context.Context, c *admin.Client) ([]string, error) { return c.GroupNames(ctx) }

// readFile is os.ReadFile with an error that says what the file is for.
func readFile(what, name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return b, nil
}
