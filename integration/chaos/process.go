package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// workerVariable tells this program that it is a worker.
const workerVariable = "RETRIABLE_CHAOS_WORKER"

// IsWorker reports whether this process was started to be a [Worker].
func IsWorker() bool { return os.Getenv(workerVariable) != "" }

// process is a worker, seen from outside.
type process struct {
	Config
	cmd    *exec.Cmd
	stderr bytes.Buffer
	up     chan struct{} // closed when it can be told to stop, or has ended
	halts  chan struct{} // 1-buffered: it has come to a point where it is halted
	done   chan struct{} // closed when it has ended
	err    error         // how; read after done
	asked  atomic.Bool   // to stop
	began  time.Time

	mu sync.Mutex // guards in
	in io.WriteCloser
}

// launch starts a worker.
func launch(c Config, dir string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c.Ledger, c.Log = filepath.Join(dir, c.Name+".ledger"), filepath.Join(dir, c.Name+".log")
	p := &process{Config: c, began: time.Now(), up: make(chan struct{}), halts: make(chan struct{}, 1), done: make(chan struct{})}
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), workerVariable+"=1")
	p.cmd.Stderr = &p.stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		said := bufio.NewReader(out)
		_, err := said.ReadByte()
		close(p.up)
		for err == nil {
			if _, err = said.ReadByte(); err == nil {
				select {
				case p.halts <- struct{}{}:
				default: // nobody has waited for the last
				}
			}
		}
		p.err = p.cmd.Wait()
	}()
	return p, p.tell(c)
}

// tell writes to the worker. One that has died meanwhile does not hear it.
func (p *process) tell(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = p.in.Write(append(b, '\n'))
	return nil
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// terminate asks the process to stop.
func (p *process) terminate() {
	<-p.up
	p.asked.Store(true)
	p.signal(syscall.SIGTERM)
}

// halt halts a process for a while. Another process sees to it that it goes on, also if this one dies meanwhile.
func halt(ctx context.Context, pid int, d time.Duration) error {
	return exec.CommandContext(ctx, "/bin/sh", "-c", fmt.Sprintf("kill -STOP %d; sleep %.3f; kill -CONT %d", pid, d.Seconds(), pid)).Run()
}

// endsWithin waits for the process to end.
func (p *process) endsWithin(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// killed reports whether it ended by SIGKILL; it has ended.
func (p *process) killed() bool {
	s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && s.Signaled() && s.Signal() == syscall.SIGKILL
}

// member is the process as the check sees it; it has ended.
func (p *process) member() (Member, error) {
	events, err := ReadLedger(p.Ledger)
	if os.IsNotExist(err) {
		err = nil // it died before it could open it
	}
	return Member{Name: p.Name, Events: events, Killed: p.killed(), Exit: p.cmd.ProcessState.String()}, err
}
