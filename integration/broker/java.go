package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const minJava = 17

// log4j2 sends all to the standard output, which is the node's log file.
const log4j2 = `status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %-5p %m (%c{1})%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
`

// findJava returns the java in JAVA_HOME, or else the one in PATH, if it is new
// enough.
func findJava(ctx context.Context) (string, error) {
	const hint = "install a Java runtime, version 17 or newer"
	java := filepath.Join(os.Getenv("JAVA_HOME"), "bin", "java")
	if os.Getenv("JAVA_HOME") == "" {
		var err error
		if java, err = exec.LookPath("java"); err != nil {
			return "", lack("no java in PATH: " + hint)
		}
	}
	// To run it is the only sure test: some systems have a java that only
	// says where to get one.
	out, err := run(ctx, java, "-XshowSettings:properties", "-version")
	if err != nil {
		return "", lack(fmt.Sprintf("%s does not run (%v): %s", java, err, hint))
	}
	m := javaVersion.FindStringSubmatch(out)
	if m == nil {
		return "", lack(fmt.Sprintf("%s does not tell its version: %s", java, hint))
	}
	// Java 8 and older call themselves 1.8 and so on.
	if v, _ := strconv.Atoi(m[1]); v < minJava {
		return "", lack(fmt.Sprintf("%s is Java %s: %s", java, m[1], hint))
	}
	return java, nil
}

var javaVersion = regexp.MustCompile(`java\.specification\.version = (\d+)`)

// command is the command line of one of Kafka's programs, on a diet: the first
// compiler only, which halves the time to start, and tight bounds on what Java
// takes besides the heap.
func (l *local) command(n *node, heapMB int, main string, args ...string) []string {
	return append([]string{
		l.java,
		fmt.Sprintf("-Xms%dm", min(heapMB, 64)),
		fmt.Sprintf("-Xmx%dm", heapMB),
		"-Xss512k",
		"-XX:MaxDirectMemorySize=64m",
		"-XX:MaxMetaspaceSize=160m",
		"-XX:ReservedCodeCacheSize=48m",
		"-XX:+UseSerialGC",
		"-XX:TieredStopAtLevel=1",
		"-XX:-UsePerfData", // a file in the temporary folder, left there by a kill
		"-XX:+ExitOnOutOfMemoryError",
		"-Djava.awt.headless=true",
		"-Dlog4j2.configurationFile=file:" + filepath.Join(n.dir, "log4j2.properties"),
		"-cp", filepath.Join(l.libs, "*"),
		main,
	}, args...)
}

// run runs a short-lived program and returns all it said.
func run(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = 5 * time.Second // a killed script may leave a child with the pipe
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	return string(out), err
}

// worst picks the lines that tell what went wrong, or else the last ones.
func worst(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	var bad []string
	for _, line := range lines {
		if badLine.MatchString(line) && !strings.HasPrefix(line, "\tat ") {
			bad = append(bad, line)
		}
	}
	if len(bad) == 0 {
		bad = lines
	}
	const most = 8
	return "  " + strings.Join(bad[max(0, len(bad)-most):], "\n  ")
}

var badLine = regexp.MustCompile(`\b(ERROR|FATAL)\b|Exception|Error:`)

// tail is worst of the end of a file.
func tail(path string) string {
	const most = 64 << 10
	b, err := os.ReadFile(path)
	if err != nil {
		return "  (no log: " + err.Error() + ")"
	}
	return worst(string(b[max(0, len(b)-most):]))
}
