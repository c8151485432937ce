//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package broker

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// Other systems have Docker and KAFKA_BROKERS.
const canRunLocal = false

// What follows is never reached.
const (
	halt = syscall.SIGKILL
	goOn = syscall.SIGKILL
)

func inOwnGroup(*exec.Cmd) {}

func tryLock(string) (*os.File, error) { return nil, errors.ErrUnsupported }
