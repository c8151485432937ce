package broker

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The password of a cluster's user is in no file of its brokers, logs and data included, and on no command line; and they listen on loopback alone.
func TestThePasswordIsInNoFile(t *testing.T) {
	const password = "canary-of-the-broker"
	c := For(t, Config{Source: Local, SASL: &SASL{User: "u", Password: password}})
	files := 0
	err := filepath.WalkDir(c.local.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if bytes.Contains(b, []byte(password)) {
			t.Errorf("it is in %s", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 5 {
		t.Errorf("%d files: this shows nothing", files)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.local.nodes[0].proc.cmd.Process.Pid)); err == nil && bytes.Contains(b, []byte(password)) {
		t.Error("it is on the command line")
	}
	for _, a := range append(c.Addrs(), c.SASLAddrs()...) {
		if !strings.HasPrefix(a, "127.0.0.1:") {
			t.Errorf("a broker listens on %s", a)
		}
	}
}
