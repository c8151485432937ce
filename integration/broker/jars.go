package broker

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// mainJar is there in every folder that holds a Kafka.
const mainJar = "kafka_2.13-*.jar"

// pom asks Maven for the broker and, as that logs to nowhere by itself, for a
// log back end.
const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>` + Version + `</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>` + log4jVersion + `</version>
    </dependency>
  </dependencies>
</project>
`

const (
	log4jVersion = "2.26.1"
	copyJars     = "org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy-dependencies"
)

// findJars returns the folder with Kafka's jars, which it fills the first time.
func findJars(ctx context.Context, logf func(string, ...any)) (string, error) {
	if given := os.Getenv("KAFKA_LOCAL_LIBS"); given != "" {
		if !hasKafka(given) {
			return "", fmt.Errorf("KAFKA_LOCAL_LIBS=%s: no %s in there; name the libs folder of an unpacked release", given, mainJar)
		}
		return filepath.Abs(given)
	}
	root, err := cacheDir()
	if err != nil {
		return "", err
	}
	libs := filepath.Join(root, Version)
	if hasKafka(libs) {
		return libs, nil
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", lack("no mvn in PATH to fetch Kafka's jars with: install Maven, or name the libs folder of an unpacked release in KAFKA_LOCAL_LIBS")
	}
	// Test binaries of several packages start at once; one of them fetches.
	lock, err := waitLock(ctx, libs+".lock")
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if hasKafka(libs) {
		return libs, nil
	}
	logf("fetching Kafka %s into %s", Version, libs)
	return libs, fetch(ctx, mvn, root, libs)
}

// fetch fills libs. The folder appears at once or not at all.
func fetch(ctx context.Context, mvn, root, libs string) error {
	tmp, err := os.MkdirTemp(root, ".fetch-")
	if err != nil {
		return fmt.Errorf("fetching Kafka's jars: %w", err)
	}
	defer os.RemoveAll(tmp)
	file, out := filepath.Join(tmp, "pom.xml"), filepath.Join(tmp, "libs")
	if err := os.WriteFile(file, []byte(pom), 0o600); err != nil {
		return fmt.Errorf("fetching Kafka's jars: %w", err)
	}
	// -C: a jar whose checksum is wrong is an error, not a warning.
	said, err := run(ctx, mvn, "-B", "-q", "-C", "-Dstyle.color=never", "-f", file, copyJars,
		"-DincludeScope=runtime", "-DoutputDirectory="+out)
	if ctx.Err() != nil {
		return fmt.Errorf("fetching Kafka's jars with %s: %w", mvn, err)
	}
	if err != nil { // no network, most likely: no more a failure than no Maven
		return lack(fmt.Sprintf("cannot fetch Kafka's jars with %s: %v\n%s", mvn, err, worst(said)))
	}
	if !hasKafka(out) {
		return fmt.Errorf("fetching Kafka's jars with %s: it brought no %s\n%s", mvn, mainJar, worst(said))
	}
	if err := os.Rename(out, libs); err != nil {
		return fmt.Errorf("keeping Kafka's jars: %w", err)
	}
	return nil
}

func hasKafka(dir string) bool {
	found, err := filepath.Glob(filepath.Join(dir, mainJar))
	return err == nil && len(found) > 0
}

// cacheDir is where jars, and locks that several processes meet at, are kept.
func cacheDir() (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", lack(fmt.Sprintf("no folder to keep Kafka's jars in: %v", err))
	}
	dir := filepath.Join(user, "retriable-kafka")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("no folder to keep Kafka's jars in: %w", err)
	}
	return dir, nil
}

// waitLock takes the lock that a file stands for, waiting while another
// process has it. Closing the file, or dying, releases it.
func waitLock(ctx context.Context, path string) (*os.File, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		f, err := tryLock(path)
		if f != nil || err != nil {
			return f, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another process to release %s: %w", path, context.Cause(ctx))
		}
	}
}
