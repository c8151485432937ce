package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Topics is what one base topic of a consumer goes with.
type Topics struct {
	Base  string
	Retry string // "" for none
	Dead  string // "" for none
	// MaxDelay is the consumer's (retriable.MaxDelay), which the retry topic must outlast. The default is 7 days.
	MaxDelay time.Duration
}

func (t *Topics) maxDelay() time.Duration { return cmp.Or(t.MaxDelay, 7*24*time.Hour) }

// Finding is something that does not fit.
type Finding struct {
	Topic   string
	Missing bool   // there is no such topic; CreateTopics makes it
	Loses   bool   // records may be lost, or stay pending for ever; otherwise it is worth a thought
	Problem string // what is so
	Fix     string // what to do about it
}

// What copies need beside their record, and what topics keep beside what they must: as retriable.CreateTopics has it.
const (
	headerRoom    = 16 << 10
	retentionRoom = 7 * 24 * time.Hour
)

// CheckTopics finds what does not fit between a base topic, its retry topic and its dead-letter topic: what is missing, what may lose records and what
// may hold them up. It finds less where the configuration may not be read. docs/delivery.md has the reasons.
func (c *Client) CheckTopics(ctx context.Context, t Topics) ([]Finding, error) {
	all, err := c.described(ctx, t)
	if err != nil {
		return nil, err
	}
	base := all[t.Base]
	var fs []Finding
	for _, name := range []string{t.Base, t.Retry, t.Dead} {
		d := all[name]
		switch {
		case name == "":
			continue
		case d.missing:
			fs = append(fs, Finding{Topic: name, Missing: true, Loses: true, Problem: "there is no such topic", Fix: "create it"})
			continue
		}
		fs = append(fs, d.replication(base)...)
		if name == t.Base {
			continue
		}
		fs = append(fs, d.holds(base)...)
		kept, known := d.number("retention.ms")
		switch {
		case known && kept >= 0 && name == t.Retry && kept < t.maxDelay().Milliseconds():
			fs = append(fs, Finding{
				Topic: name, Loses: true,
				Problem: fmt.Sprintf("it forgets records after %v, before the longest wait of %v is over", millis(kept), t.maxDelay()),
				Fix:     fmt.Sprintf("set retention.ms to %d or more", (t.maxDelay() + retentionRoom).Milliseconds()),
			})
		case known && kept >= 0 && name == t.Dead:
			fs = append(fs, Finding{
				Topic:   name,
				Problem: fmt.Sprintf("it forgets dead letters after %v, whether or not somebody has looked", millis(kept)),
				Fix:     "set retention.ms to -1, and purge what was dealt with",
			})
		}
		if n, ok := d.number("retention.bytes"); ok && n >= 0 {
			fs = append(fs, Finding{
				Topic: name, Loses: name == t.Retry,
				Problem: fmt.Sprintf("it forgets records when a partition has more than %d bytes", n), Fix: "set retention.bytes to -1",
			})
		}
	}
	if r := all[t.Retry]; t.Retry != "" && !r.missing && !base.missing && r.partitions < base.partitions {
		fs = append(fs, Finding{
			Topic:   t.Retry,
			Problem: fmt.Sprintf("it has %d partitions and %s has %d: fewer members can share the retries", r.partitions, t.Base, base.partitions),
			Fix:     "add partitions while nothing waits in it",
		})
	}
	return fs, nil
}

func millis(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

// topicFacts is what is known of one topic.
type topicFacts struct {
	name       string
	missing    bool
	partitions int
	replicas   int
	config     map[string]string
}

func (d *topicFacts) number(key string) (int64, bool) {
	n, err := strconv.ParseInt(d.config[key], 10, 64)
	return n, err == nil
}

// replication finds what an ack is not worth much for.
func (d *topicFacts) replication(base *topicFacts) (fs []Finding) {
	if d.replicas < base.replicas {
		fs = append(fs, Finding{
			Topic: d.name, Loses: true, Problem: fmt.Sprintf("it has %d replicas and %s has %d", d.replicas, base.name, base.replicas),
			Fix: "add replicas: an ack is worth as much as the replicas behind it",
		})
	}
	if n, ok := d.number("min.insync.replicas"); ok && n < 2 && d.replicas > 2 {
		fs = append(fs, Finding{
			Topic: d.name, Problem: fmt.Sprintf("min.insync.replicas is %d of %d replicas: one broker alone may ack a copy", n, d.replicas),
			Fix: "set min.insync.replicas to 2",
		})
	}
	if d.config["unclean.leader.election.enable"] == "true" {
		fs = append(fs, Finding{
			Topic: d.name, Loses: true, Problem: "unclean leader elections may throw away what was acked", Fix: "set unclean.leader.election.enable to false",
		})
	}
	return fs
}

// holds finds what a topic for copies cannot hold.
func (d *topicFacts) holds(base *topicFacts) (fs []Finding) {
	if policy := d.config["cleanup.policy"]; strings.Contains(policy, "compact") {
		fs = append(fs, Finding{
			Topic: d.name, Loses: true, Problem: "it is compacted: of copies with the same key one is kept", Fix: "set cleanup.policy to delete",
		})
	}
	mine, ok := d.number("max.message.bytes")
	its, okBase := base.number("max.message.bytes")
	if ok && okBase && mine < its {
		fs = append(fs, Finding{
			Topic: d.name, Loses: true,
			Problem: fmt.Sprintf("it takes records of %d bytes and %s of %d: a copy that is too large stays pending", mine, base.name, its),
			Fix:     fmt.Sprintf("set max.message.bytes to %d", its+headerRoom),
		})
	}
	return fs
}

// described asks for the topics. Those that are not there are missing, not an error.
func (c *Client) described(ctx context.Context, t Topics) (map[string]*topicFacts, error) {
	if t.Base == "" {
		return nil, errors.New("admin: Topics.Base is empty")
	}
	names := slices.DeleteFunc([]string{t.Base, t.Retry, t.Dead}, func(s string) bool { return s == "" })
	details, err := c.details(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("admin: asking for topics: %w", err)
	}
	all := map[string]*topicFacts{}
	for _, name := range names {
		d := details[name]
		f := &topicFacts{name: name, partitions: len(d.Partitions), replicas: d.Partitions.NumReplicas()}
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			f.missing = true
		case d.Err != nil:
			return nil, fmt.Errorf("admin: asking for %s: %w", name, d.Err)
		default:
			f.config = c.config(ctx, name)
		}
		all[name] = f
	}
	return all, nil
}

// NewTopics says how the topics that are missing are made.
type NewTopics struct {
	Partitions int32 // 0: as many as the base topic has
	Replicas   int16 // 0: as the base topic; −1: the broker's default
}

// CreateTopics makes the retry and dead-letter topics that are missing, with room for their base topic's records and their headers, kept a week
// longer than MaxDelay, dead letters for ever. It changes nothing about topics that are there. It returns the names of those that it made.
func (c *Client) CreateTopics(ctx context.Context, t Topics, n NewTopics) ([]string, error) {
	all, err := c.described(ctx, t)
	if err != nil {
		return nil, err
	}
	base := all[t.Base]
	if base.missing {
		return nil, fmt.Errorf("admin: there is no topic %s, whose copies the others are to hold", t.Base)
	}
	var made []string
	for _, name := range []string{t.Retry, t.Dead} {
		if name == "" || !all[name].missing {
			continue
		}
		retention := strconv.FormatInt((t.maxDelay() + retentionRoom).Milliseconds(), 10)
		if name == t.Dead {
			retention = "-1"
		}
		size, ok := base.number("max.message.bytes")
		if !ok {
			size = defaultRecordLimit
		}
		configs := map[string]*string{
			"cleanup.policy": kadm.StringPtr("delete"), "retention.ms": kadm.StringPtr(retention), "retention.bytes": kadm.StringPtr("-1"),
			"max.message.bytes": kadm.StringPtr(strconv.FormatInt(size+headerRoom, 10)),
		}
		_, err := c.adm.CreateTopic(ctx, cmp.Or(n.Partitions, int32(base.partitions)), cmp.Or(n.Replicas, int16(base.replicas)), configs, name)
		if errors.Is(err, kerr.TopicAlreadyExists) {
			continue
		}
		if err != nil {
			return made, fmt.Errorf("admin: creating %s: %w", name, err)
		}
		made = append(made, name)
	}
	return made, nil
}
