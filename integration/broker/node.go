package broker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	stopLimit = 30 * time.Second // for a clean shutdown
	killLimit = 10 * time.Second // for the system to end a killed process
)

// node is one broker of a local cluster, with its folder, running or not.
type node struct {
	id     int
	dir    string
	doomed string // what to remove should this process die before Close

	mu     sync.Mutex
	proc   *process // nil before the first start and after an end that was asked for
	paused bool
}

func (n *node) data() string       { return filepath.Join(n.dir, "data") }
func (n *node) log() string        { return filepath.Join(n.dir, "broker.log") }
func (n *node) properties() string { return filepath.Join(n.dir, "server.properties") }

// process is a started broker.
type process struct {
	cmd   *exec.Cmd
	leash *os.File      // its other end is held by the watcher, see leashed
	done  chan struct{} // closed when the process has been waited for
	err   error         // how it ended; read after done
}

// leashed starts a broker that cannot outlive this process. The shell leaves a
// watcher behind, then turns into the broker, so the process id stays. The
// watcher reads from a pipe that only this process writes to: a line means the
// broker has ended and is the watcher's own end; the end of the pipe means that
// this process died, so it kills the broker ($$ is still its id) and removes its
// folder, after a while in which brokers on the same leash end too.
const leashed = `{
  read -r line <&3 || { kill -9 $$; sleep 1; rm -rf "$0"; }
} >/dev/null 2>&1 &
exec "$@" 3<&-`

// start runs the broker, which appends to its log.
func (n *node) start(argv []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc != nil && !n.proc.ended() {
		return fmt.Errorf("node %d runs already", n.id)
	}
	log, err := os.OpenFile(n.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of node %d: %w", n.id, err)
	}
	defer log.Close()
	held, leash, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("starting node %d: %w", n.id, err)
	}
	defer held.Close()

	cmd := exec.Command("/bin/sh", append([]string{"-c", leashed, n.doomed}, argv...)...)
	cmd.Dir = n.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{held} // becomes 3
	inOwnGroup(cmd)                   // Ctrl-C in a terminal is for us to act on
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting node %d: %w", n.id, errors.Join(err, leash.Close()))
	}
	p := &process{cmd: cmd, leash: leash, done: make(chan struct{})}
	n.proc, n.paused = p, false
	go p.wait() // end waits for it
	return nil
}

// wait waits for the process and then lets the watcher go.
func (p *process) wait() {
	defer close(p.done)
	p.err = p.cmd.Wait()
	// The watcher may be gone, if somebody killed that.
	_, _ = p.leash.WriteString("ended\n")
	_ = p.leash.Close()
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// endsWithin waits for the end of the process.
func (p *process) endsWithin(limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}

// serving says that the node runs and is not paused.
func (n *node) serving() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.proc != nil && !n.proc.ended() && !n.paused
}

// crashed says how the node ended, if it did without being asked to.
func (n *node) crashed() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.proc == nil || !n.proc.ended() {
		return nil
	}
	return fmt.Errorf("node %d ended by itself: %w", n.id, n.proc.err)
}

// signal sends a signal to the running broker.
func (n *node) signal(s os.Signal) error {
	if n.proc == nil || n.proc.ended() {
		return fmt.Errorf("node %d does not run", n.id)
	}
	if err := n.proc.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("sending %v to node %d: %w", s, n.id, err)
	}
	return nil
}

// kill ends the broker at once.
func (n *node) kill() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.signal(os.Kill); err != nil {
		return err
	}
	if !n.proc.endsWithin(killLimit) {
		return fmt.Errorf("node %d does not end, though killed", n.id)
	}
	n.proc = nil
	return nil
}

// stop lets the broker shut down cleanly.
func (n *node) stop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.paused {
		return fmt.Errorf("node %d is paused: resume it first, it cannot shut down like this", n.id)
	}
	if err := n.signal(syscall.SIGTERM); err != nil {
		return err
	}
	if !n.proc.endsWithin(stopLimit) {
		return fmt.Errorf("node %d did not shut down within %v and goes on; kill it", n.id, stopLimit)
	}
	n.proc = nil
	return nil
}

// pause halts the broker, or lets it go on.
func (n *node) pause(on bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := goOn
	if on {
		s = halt
	}
	if err := n.signal(s); err != nil {
		return err
	}
	n.paused = on
	return nil
}

// end kills the broker if it runs.
func (n *node) end() error {
	n.mu.Lock()
	idle := n.proc == nil || n.proc.ended()
	n.mu.Unlock()
	if idle {
		return nil
	}
	return n.kill()
}
