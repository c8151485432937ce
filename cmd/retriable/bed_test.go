package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
)

var update = flag.Bool("update", false, "write the golden files anew")

// bed is a broker in a bubble of fake time, which begins with the year 2000, and a terminal.
type bed struct {
	*testing.T
	net     *kfake.VirtualNetwork
	cluster *kfake.Cluster
	cl      *kgo.Client
	env     map[string]string
	answer  string        // what somebody types; "" if nobody is there
	bars    bool          // errors go to a terminal
	within  time.Duration // Ctrl-C comes then
	last    string        // what was printed on errors
	script  strings.Builder
}

// bubble makes a bed with topics, as name:partitions.
func bubble(t *testing.T, topics string, story func(b *bed), opts ...kfake.Opt) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bed{T: t, net: new(kfake.VirtualNetwork), env: map[string]string{}}
		opts = append([]kfake.Opt{kfake.Ports(9092), kfake.NumBrokers(1), kfake.ListenFn(b.net.Listen), kfake.GroupMinSessionTimeout(time.Second)}, opts...)
		for topic := range strings.FieldsSeq(topics) {
			name, n, _ := strings.Cut(topic, ":")
			partitions, _ := strconv.Atoi(n)
			opts = append(opts, kfake.SeedTopics(int32(max(partitions, 1)), name))
		}
		cluster, err := kfake.NewCluster(opts...)
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		b.cluster = cluster
		b.cl, err = kgo.NewClient(kgo.Dialer(b.net.DialContext), kgo.SeedBrokers("127.0.0.1:9092"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			t.Fatal(err)
		}
		defer b.cl.Close()
		story(b)
	})
}

func (b *bed) dial() []kgo.Opt { return []kgo.Opt{kgo.Dialer(b.net.DialContext)} }

// call runs the program and notes what it printed.
func (b *bed) call(args ...string) (code int, out string) {
	b.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{
		in: strings.NewReader(b.answer), out: &stdout, err: &stderr, env: func(name string) string { return b.env[name] },
		terminal: func(v any) bool { return v == any(&stderr) && b.bars || v != any(&stderr) && b.answer != "" },
		dial:     b.dial(),
	}
	ctx := b.Context()
	if b.within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.within)
		defer cancel()
	}
	code = a.run(ctx, append(args, "--brokers", "127.0.0.1:9092"))
	b.last = stderr.String()
	b.note(args, stdout.String(), b.last, code)
	return code, stdout.String()
}

func (b *bed) note(args []string, stdout, stderr string, code int) {
	fmt.Fprint(&b.script, "$ retriable")
	for _, arg := range args {
		if strings.ContainsAny(arg, " '|") {
			arg = strconv.Quote(arg)
		}
		fmt.Fprintf(&b.script, " %s", arg)
	}
	fmt.Fprintln(&b.script)
	fmt.Fprint(&b.script, stdout)
	for line := range strings.Lines(stderr) {
		fmt.Fprintf(&b.script, "! %s", line)
	}
	if b.answer != "" && strings.HasSuffix(stderr, "? [y/N] ") {
		fmt.Fprint(&b.script, b.answer)
	} else if b.script.Len() > 0 && !strings.HasSuffix(b.script.String(), "\n") {
		fmt.Fprintln(&b.script)
	}
	if code != 0 {
		fmt.Fprintf(&b.script, "(exit %d)\n", code)
	}
	fmt.Fprintln(&b.script)
}

// parts are what no two runs need have in common: parts of seconds, and ages to the millisecond.
var parts = regexp.MustCompile(`("age_ms":)\d+|\.\d+(Z")`)

// golden compares what was called and printed with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	var clean strings.Builder // editors strip what tables leave at the ends of lines
	for line := range strings.Lines(parts.ReplaceAllString(got, "$1$2")) {
		clean.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	if *update {
		if err := os.WriteFile(file, []byte(clean.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if clean.String() != string(want) {
		t.Errorf("%s differs; go test -update writes it anew.\ngot:\n%s\nwant:\n%s", file, clean.String(), want)
	}
}

func text(name, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: name, Value: []byte(value)}
}

func u64(name string, n uint64) kgo.RecordHeader {
	return kgo.RecordHeader{Key: name, Value: binary.BigEndian.AppendUint64(nil, n)}
}

// letter is the n-th dead letter, written n minutes into the year.
func letter(n int, group, reason string, headers ...kgo.RecordHeader) *kgo.Record {
	return &kgo.Record{
		Topic: "orders.dead", Partition: int32(n % 2), Key: fmt.Appendf(nil, "customer-%d", n), Value: fmt.Appendf(nil, `{"id":%d}`, n),
		Timestamp: time.Date(2000, 1, 1, 0, n, 0, 0, time.UTC),
		Headers: append(headers,
			text("__dlq.errors.topic", "orders"), text("__dlq.errors.group", group), text("__dlq.errors.delivery.count", "5"), text("__dlq.errors.message", reason),
			text("retriable_group", group), text("retriable_topic", "orders"), text("retriable_partition", "0"), text("retriable_offset", strconv.Itoa(n)),
			text("retriable_time", "946684799000"), text("retriable_first_failure", "946684799500"), text("retriable_error", "the bank said\nno"),
		),
	}
}

func (b *bed) send(rs ...*kgo.Record) {
	b.Helper()
	if err := b.cl.ProduceSync(b.Context(), rs...).FirstErr(); err != nil {
		b.Fatal(err)
	}
}

// letters writes what the stories of dead letters need: six of one group, of two reasons, and four odd ones.
func (b *bed) letters() {
	b.Helper()
	for n := range 6 {
		reason := "all 5 attempts failed"
		if n > 3 {
			reason = "permanent failure"
		}
		b.send(letter(n, "billing", reason, text("tenant", fmt.Sprintf("t%d", n%3))))
	}
	other := letter(6, "shipping", "permanent failure")
	foreign := &kgo.Record{Topic: "orders.dead", Partition: 1, Value: []byte{0xff, 0, 1, 2}, Timestamp: time.Date(2000, 1, 1, 0, 7, 0, 0, time.UTC)}
	hostile := letter(8, "billing", "permanent failure", text("bell", "\a\x1b[2J"))
	hostile.Key, hostile.Value = []byte("\x1b]0;pwned\a"), []byte("line one\n\x1b[31mline two")
	part := letter(10, "billing", "chunks missing at the deadline")
	part.Headers = append(part.Headers, text("retriable_kafka_chunk_group", "AAAAAAAAAAAAAAAA"), u64("retriable_kafka_number_of_chunks", 2), u64("retriable_kafka_chunk_id", 0))
	b.send(other, foreign, hostile, part)
}

// consumer runs the consumer of orders until the returned function stops it.
func (b *bed) consumer(h retriable.HandlerFunc) (stop func()) {
	b.Helper()
	c, err := retriable.New("billing", retriable.Brokers("127.0.0.1:9092"),
		retriable.Kafka(kgo.Dialer(b.net.DialContext), kgo.HeartbeatInterval(time.Second), kgo.SessionTimeout(30*time.Second), kgo.ClientID("billing-1")),
		retriable.Logger(slog.New(slog.NewTextHandler(io.Discard, nil))),
		retriable.Topic("orders", h, retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) // it is stopped when the story says, cleanly
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	<-c.Ready()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			b.Errorf("Run: %v", err)
		}
	}
}
