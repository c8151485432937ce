package interop

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Version is that of the client.
const Version = "0.7.0"

//go:embed requirements.txt
var requirements []byte

// Python is an environment in which the client is installed.
type Python struct{ interpreter string }

// errNoPython is why a test is skipped.
var errNoPython = errors.New("no Python 3.13 here, which retriable-kafka-client " + Version +
	" needs: install it (pyenv install 3.13, apt-get install python3.13 python3.13-venv), or name it in RETRIABLE_PYTHON")

// Need gives a test the client, which is installed first if it is not there yet. Where there is no Python 3.13 it skips the test, or fails it
// when CI is true.
func Need(tb testing.TB) *Python {
	tb.Helper()
	p, err := environment()
	switch {
	case errors.Is(err, errNoPython) && os.Getenv("CI") != "true":
		tb.Skip(err)
	case err != nil:
		tb.Fatal(err)
	}
	return p
}

// Interpreter is the path of a Python in whose environment the client is installed, for programs that are no tests.
func Interpreter() (string, error) {
	p, err := environment()
	if err != nil {
		return "", err
	}
	return p.interpreter, nil
}

var environment = sync.OnceValues(func() (*Python, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	base, err := interpreter(ctx)
	if err != nil {
		return nil, err
	}
	home, err := cacheFolder()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(home, fmt.Sprintf("%.12x", sha256.Sum256(append([]byte(base+"\n"), requirements...))))
	p := &Python{interpreter: filepath.Join(dir, "bin", "python")}
	if _, err := os.Stat(p.interpreter); err == nil {
		return p, nil
	}
	if err := install(ctx, base, home, dir); err != nil {
		return nil, err
	}
	return p, nil
})

func cacheFolder() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	home := filepath.Join(cache, "retriable-python")
	return home, os.MkdirAll(home, 0o755)
}

// interpreter finds Python 3.13. A command of that name is not enough: pyenv's answers, too, where it has only others.
func interpreter(ctx context.Context) (string, error) {
	named := os.Getenv("RETRIABLE_PYTHON")
	candidates := []string{named}
	if named == "" {
		root := os.Getenv("PYENV_ROOT")
		if home, err := os.UserHomeDir(); root == "" && err == nil {
			root = filepath.Join(home, ".pyenv")
		}
		newest, _ := filepath.Glob(filepath.Join(root, "versions", "3.13.*", "bin", "python3.13"))
		slices.Reverse(newest)
		candidates = append([]string{"python3.13", "python3"}, newest...)
	}
	for _, c := range candidates {
		out, err := exec.CommandContext(ctx, c, "-c", "import sys, venv, ensurepip; print(sys.version_info[:2] == (3, 13), sys.executable)").Output()
		if path, ok := strings.CutPrefix(strings.TrimSpace(string(out)), "True "); err == nil && ok {
			return path, nil
		}
	}
	if named != "" {
		return "", fmt.Errorf("RETRIABLE_PYTHON: %s is no Python 3.13 with its venv and ensurepip modules", named)
	}
	return "", errNoPython
}

// install makes the environment beside its place and moves it there whole, so that nobody sees half of one.
func install(ctx context.Context, base, home, dir string) error {
	tmp, err := os.MkdirTemp(home, "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	list := filepath.Join(tmp, "requirements.txt")
	if err := os.WriteFile(list, requirements, 0o600); err != nil {
		return err
	}
	for _, command := range [][]string{
		{base, "-m", "venv", tmp},
		{
			filepath.Join(tmp, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes",
			"--only-binary", ":all:", "--requirement", list,
		},
	} {
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("installing retriable-kafka-client %s: %s: %w\n%s", Version, strings.Join(command, " "), err, out)
		}
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, os.ErrExist) { // another process was faster
		return err
	}
	return nil
}
