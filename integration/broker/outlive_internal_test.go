//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const ownerEnv = "BROKER_TEST_OWNER"

func TestCloseLeavesNothing(t *testing.T) {
	c := For(t, Config{Source: Local, SASL: &SASL{User: "u", Password: "p"}})
	pid, dir := c.local.nodes[0].proc.cmd.Process.Pid, c.local.dir
	if !lives(t, pid) {
		t.Fatal("the broker does not live, or cannot be seen")
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if lives(t, pid) {
		t.Errorf("the broker, process %d, outlived Close", pid)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s outlived Close (%v)", dir, err)
	}
}

func TestBrokersDieWithTheirOwner(t *testing.T) {
	if testing.Short() {
		t.Skip("starts another test process with a broker")
	}
	For(t, Config{Source: Local}).Close() // skips here, rather than in the owner
	owner := exec.Command(os.Args[0], "-test.run=^TestHelperOwner$", "-test.timeout=2m")
	owner.Env = append(os.Environ(), ownerEnv+"=1")
	if _, err := owner.StdinPipe(); err != nil { // its end ends the owner
		t.Fatal(err)
	}
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir string
	var said strings.Builder
	for lines := bufio.NewScanner(io.TeeReader(out, &said)); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "broker %d in %s", &pid, &dir)
	}
	alive := pid != 0 && lives(t, pid)
	if err := owner.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = owner.Wait()
	if !alive {
		t.Fatalf("the owner started no broker:\n%s", said.String())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = until(ctx, func(context.Context) (string, error) {
		if lives(t, pid) {
			return fmt.Sprintf("the broker, process %d, outlives its owner", pid), nil
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			return dir + " outlives its owner", nil
		}
		return "", nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestHelperOwner is the process that TestBrokersDieWithTheirOwner kills.
func TestHelperOwner(t *testing.T) {
	if os.Getenv(ownerEnv) == "" {
		t.Skip("only of use to another test")
	}
	c := For(t, Config{Source: Local})
	fmt.Printf("broker %d in %s\n", c.local.nodes[0].proc.cmd.Process.Pid, c.local.dir)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// lives says that a process is there and not merely waiting to be waited for.
func lives(t *testing.T, pid int) bool {
	t.Helper()
	out, _ := exec.Command("ps", "-o", "stat=", "-p", fmt.Sprint(pid)).Output()
	state := strings.TrimSpace(string(out))
	return state != "" && !strings.HasPrefix(state, "Z")
}
