package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// process is a script that is told lines and tells lines.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	errors lockedBuffer  // its standard error, for when something goes wrong
	ended  chan struct{} // closed once it has ended and every line was heard
	err    error         // how it ended, once ended is closed
}

// start runs a script with its settings as the only argument. hear gets each line, one after another. When the test ends the process is
// killed, should it still run.
func (p *Python) start(tb testing.TB, script string, settings any, hear func(line []byte)) *process {
	tb.Helper()
	told, err := json.Marshal(settings)
	if err != nil {
		tb.Fatal(err)
	}
	c := &process{ended: make(chan struct{})}
	c.cmd = exec.CommandContext(context.WithoutCancel(tb.Context()), p.interpreter, "-c", script, string(told))
	c.cmd.Env = append(os.Environ(), "PYTHONUNBUFFERED=1", "PYTHONNOUSERSITE=1", "PYTHONPATH=")
	c.cmd.Stderr = &c.errors
	c.stdin, err = c.cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		defer close(c.ended)
		lines := bufio.NewReader(stdout)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				break
			}
			hear(line)
		}
		c.err = c.cmd.Wait()
	}()
	tb.Cleanup(func() {
		c.kill()
		if tb.Failed() {
			tb.Logf("a Python process on its standard error:\n%s", c.errors.String())
		}
	})
	return c
}

// tell writes a line.
func (c *process) tell(what any) error {
	line, err := json.Marshal(what)
	if err != nil {
		return err
	}
	_, err = c.stdin.Write(append(line, '\n'))
	return err
}

// end closes the process's standard input, upon which it ends by itself, and waits for it.
func (c *process) end(within time.Duration) error {
	_ = c.stdin.Close() // it may have ended already
	select {
	case <-c.ended:
	case <-time.After(within):
		c.kill()
		return fmt.Errorf("it did not end within %v", within)
	}
	return c.err
}

// kill ends the process at once and waits until it is gone.
func (c *process) kill() {
	_ = c.cmd.Process.Kill() // it may have ended already
	<-c.ended
}

// lockedBuffer is a buffer that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
