// Package peers has the contestants that are not written in Go: it installs what they need and says how to start them.
package peers

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
)

// Versions of what Maven and PyPI bring.
const (
	ParallelConsumer = "0.5.3.3"
	KafkaClients     = "3.9.1" // which parallel-consumer runs on
)

//go:embed pom.xml
var pom []byte

//go:embed Contestant.java
var java []byte

const copyJars = "org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy-dependencies"

// Java returns the command line for parallel-consumer, less the job's part. It needs Java 17 with its compiler and, the first time, Maven.
func Java(ctx context.Context) ([]string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append(append([]byte{}, pom...), java...))
	dir := filepath.Join(cache, "retriable-bench", fmt.Sprintf("parallel-consumer-%.6x", sum))
	argv := []string{"java", "-Xmx1g", "-cp", filepath.Join(dir, "libs", "*") + string(os.PathListSeparator) + dir, "Contestant"}
	if _, err := os.Stat(dir); err == nil {
		return argv, nil
	}
	for _, program := range []string{"java", "javac", "mvn"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("no %s here: it takes a JDK, 17 or newer, and Maven", program)
		}
	}
	return argv, build(ctx, dir)
}

// build makes the folder, which appears at once or not at all.
func build(ctx context.Context, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	project, source, libs := filepath.Join(tmp, "pom.xml"), filepath.Join(tmp, "Contestant.java"), filepath.Join(tmp, "libs")
	if err := errors.Join(os.WriteFile(project, pom, 0o600), os.WriteFile(source, java, 0o600)); err != nil {
		return err
	}
	for _, argv := range [][]string{
		{"mvn", "-B", "-q", "-C", "-Dstyle.color=never", "-f", project, copyJars, "-DincludeScope=runtime", "-DoutputDirectory=" + libs},
		{"javac", "-proc:none", "-cp", filepath.Join(libs, "*"), "-d", tmp, source},
	} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
		}
	}
	return os.Rename(tmp, dir)
}

// JavaArgs is the job's part.
func JavaArgs(j *job.Job, ordering string) []string {
	return []string{
		strings.Join(j.Brokers, ","), j.Topic, j.Group, strconv.FormatInt(j.Records, 10), ordering, strconv.Itoa(j.Workers),
		strconv.Itoa(j.SleepMS), strconv.FormatBool(j.FailOnce),
	}
}
