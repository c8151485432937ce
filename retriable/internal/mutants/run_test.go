//go:build mutants

package mutants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// limit is for one test. One that a mutant has run into it is no proof: a test must say what is wrong.
const limit = time.Minute

// Every mutant dies: the test that is named for it fails, and says why. While all are asleep the same binary passes all of these tests.
func TestMutants(t *testing.T) {
	began := time.Now()
	binary := build(t)
	built := time.Since(began)
	var tests []string
	for _, m := range all {
		tests = append(tests, m.test)
	}
	slices.Sort(tests)
	if out, err := run(t, binary, "", slices.Compact(tests)...); err != nil {
		t.Fatalf("with no mutant awake: %v\n%s", err, out)
	}
	t.Logf("built in %v; with no mutant awake %d tests passed in %v", built.Round(time.Second), len(slices.Compact(tests)), (time.Since(began) - built).Round(100*time.Millisecond))
	var table strings.Builder
	for _, m := range all {
		began := time.Now()
		out, err := run(t, binary, m.name, m.test)
		word := said(out)
		switch {
		case err == nil:
			t.Errorf("%q survives %s", m.name, m.test)
			word = "SURVIVED"
		case word == "":
			t.Errorf("%q: %s ended without a word: %v\n%s", m.name, m.test, err, out)
			word = "NO REASON"
		}
		fmt.Fprintf(&table, "%-10s %-43s %5.1fs  %s: %s\n", m.holds, m.name, time.Since(began).Seconds(), m.test, word)
	}
	t.Logf("%d mutants in %v:\n%s", len(all), time.Since(began).Round(time.Second), table.String())
}

// build makes kfake_test's binary, with all mutants in it.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files, err := apply(all)
	if err != nil {
		t.Fatal(err)
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	library, err := filepath.Abs(filepath.Join(root, "retriable"))
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range files {
		stand := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(stand, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(library, filepath.FromSlash(file))] = stand
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "stories.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "./kfake_test")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the mutants do not compile: %v\n%s", err, out)
	}
	return binary
}

// run has tests run with a mutant awake, in kfake_test's folder, as they are used to.
func run(t *testing.T, binary, awake string, tests ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^("+strings.Join(tests, "|")+")$", "-test.timeout", limit.String(), "-test.count", "1", "-test.failfast")
	cmd.Dir = filepath.Join(root, "kfake_test")
	cmd.Env = append(os.Environ(), variable+"="+awake)
	out, err := cmd.CombinedOutput()
	if err != nil && strings.Contains(string(out), "panic: test timed out") {
		return "", errors.Join(err, errors.New("it ran into its time limit"))
	}
	return string(out), err
}

var (
	complaint = regexp.MustCompile(`(?m)^ +\w+_test\.go:\d+: (.+)$`)
	leak      = regexp.MustCompile(`(?m)^panic: (deadlock: .+?)( \[recovered.*)?$`)
)

// said is what a failed test complained of first: the last of its lines in a run that is not verbose would be the log's of the consumer.
func said(out string) string {
	for _, found := range complaint.FindAllStringSubmatch(out, -1) {
		if !strings.HasPrefix(found[1], "time=") {
			return found[1]
		}
	}
	if found := leak.FindStringSubmatch(out); found != nil {
		return found[1]
	}
	return ""
}
