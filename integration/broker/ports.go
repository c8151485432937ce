package broker

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Blocks of ports to choose from: 20000, 20040 and so on, below 32768, where
// systems begin to hand ports out to clients.
const (
	firstBlock = 20000
	blockSize  = 40
	blocks     = 300
)

// portBlock is the ports of a cluster: base for node 1, see Config.Port.
type portBlock struct {
	base int
	lock *os.File // nil for ports that the Config chose
}

// takePorts finds ports for a cluster. The block stays locked, for processes
// which also run this package, even while a dead node leaves its ports free.
func takePorts(cfg Config) (*portBlock, error) {
	if cfg.Port != 0 {
		if err := portsFree(cfg, cfg.Port); err != nil {
			return nil, fmt.Errorf("%w: give another Config.Port, or 0 for any", err)
		}
		return &portBlock{base: cfg.Port}, nil
	}
	root, err := cacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, "ports")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("choosing ports: %w", err)
	}
	for _, i := range rand.Perm(blocks) {
		base := firstBlock + i*blockSize
		lock, err := tryLock(filepath.Join(dir, strconv.Itoa(base)))
		if err != nil {
			return nil, fmt.Errorf("choosing ports: %w", err)
		}
		if lock == nil {
			continue
		}
		b := &portBlock{base, lock}
		if portsFree(cfg, base) == nil {
			return b, nil
		}
		if err := b.release(); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("no free ports below 32768: choose some by Config.Port")
}

// release lets others have the ports. The lock's file stays: were it removed,
// one process might lock the old file and another a new one.
func (b *portBlock) release() error {
	if b.lock == nil {
		return nil
	}
	return b.lock.Close()
}

// portsFree says which of the ports that a cluster needs is taken.
func portsFree(cfg Config, base int) error {
	offsets := []int{0, controllerOffset}
	if cfg.SASL != nil {
		offsets = append(offsets, saslOffset)
	}
	for _, offset := range offsets {
		for n := range cfg.Nodes {
			port := base + offset + n
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err != nil {
				return fmt.Errorf("port %d is not free (%w)", port, err)
			}
			if err := l.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}
