package retriable

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// answerWithin is how long a start waits for any answer of the brokers.
const answerWithin = 30 * time.Second

// preflight is what Run checks before it joins: with a client of its own, so that a member that cannot work never enters the group.
func (c *Consumer) preflight(ctx context.Context) error {
	opts := append(c.set.connection(), kgo.MetadataMinAge(50*time.Millisecond))
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("retriable: making the client: %w", err)
	}
	defer cl.Close()
	timed, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	f := &flight{c: c, adm: kadm.NewClient(cl), cl: cl}
	if f.found, err = c.firstAnswer(timed, cl); err != nil {
		return &BrokerError{Brokers: c.set.client.seeds, Err: err}
	}
	f.settle(ctx)
	f.topics(ctx)
	f.group(ctx)
	c.idle = c.nothing(ctx, cl)
	return errors.Join(f.errs...)
}

// firstAnswer asks for the topics until somebody answers. Wrong credentials are an answer.
func (c *Consumer) firstAnswer(ctx context.Context, cl *kgo.Client) (topicAnswers, error) {
	for {
		found, err := askTopics(ctx, cl, c.topicNames())
		if err == nil || ctx.Err() != nil || errors.Is(err, kerr.SaslAuthenticationFailed) ||
			errors.Is(err, kerr.IllegalSaslState) || errors.Is(err, kerr.UnsupportedSaslMechanism) {
			return found, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// topicAnswer is what the brokers say of a topic.
type topicAnswer struct {
	err        error
	operations int32 // a bit for each that is allowed, or unknownOperations
}

type topicAnswers map[string]topicAnswer

const (
	unknownOperations = math.MinInt32
	writeOperation    = 1 << 4
)

// askTopics asks for topics by name; without names for all. A topic that may not be seen is an answer for itself alone.
func askTopics(ctx context.Context, cl *kgo.Client, names []string) (topicAnswers, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	found := topicAnswers{}
	for _, t := range resp.Topics {
		if t.Topic != nil {
			found[*t.Topic] = topicAnswer{kerr.ErrorForCode(t.ErrorCode), t.AuthorizedOperations}
		}
	}
	return found, nil
}

// mayWrite reports whether the topic may be written, as far as the broker tells.
func (a topicAnswer) mayWrite() bool {
	return a.operations == unknownOperations || a.operations == 0 || a.operations&writeOperation != 0
}

// flight is one preflight: what it found and what is wrong.
type flight struct {
	c     *Consumer
	adm   *kadm.Client
	cl    *kgo.Client
	found topicAnswers
	errs  []error
}

func (f *flight) bad(topic string, err error) {
	f.errs = append(f.errs, &TopicError{Topic: topic, Err: err})
}

// settle asks again for what is missing, for a moment: a broker may not know yet of a topic that was made just now.
func (f *flight) settle(ctx context.Context) {
	if f.c.set.create != nil {
		return // it may well be missing
	}
	for range 8 {
		if !slices.ContainsFunc(f.c.topicNames(), f.missing) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(250 * time.Millisecond):
		}
		if found, err := askTopics(ctx, f.cl, f.c.topicNames()); err == nil {
			f.found = found
		}
	}
}

var errMissing = errors.New("the topic does not exist")

func (f *flight) topics(ctx context.Context) {
	var missing []string
	for _, t := range f.c.set.topics {
		for _, name := range t.copies() {
			if f.missing(name) {
				missing = append(missing, name)
			}
		}
		if t.re == nil && f.missing(t.name) {
			f.bad(t.name, fmt.Errorf("%w: create it, for it is consumed (%w)", errMissing, kerr.UnknownTopicOrPartition))
		}
	}
	switch {
	case len(missing) > 0 && f.c.set.create == nil:
		for _, name := range missing {
			f.bad(name, fmt.Errorf("%w: create it, or have it created with CreateTopics (%w)", errMissing, kerr.UnknownTopicOrPartition))
		}
	case len(missing) > 0:
		f.create(ctx)
	}
	for _, name := range f.c.topicNames() {
		if a, ok := f.found[name]; ok && a.err != nil && !errors.Is(a.err, kerr.UnknownTopicOrPartition) {
			f.bad(name, a.err)
		}
	}
	f.writable()
	if len(f.errs) == 0 {
		f.fits(ctx)
	}
}

func (f *flight) missing(name string) bool {
	a, ok := f.found[name]
	return !ok || errors.Is(a.err, kerr.UnknownTopicOrPartition)
}

// create makes the retry and dead-letter topics that are missing.
func (f *flight) create(ctx context.Context) {
	limits := f.configs(ctx)
	made := map[string]bool{}
	for _, t := range f.c.set.topics {
		large := max(limits.number(t.name, maxMessageBytes, defaultMessageBytes), defaultMessageBytes) + headerRoom
		configs := map[string]*string{maxMessageBytes: kadm.StringPtr(strconv.FormatInt(large, 10))}
		for _, name := range t.retries() {
			if f.missing(name) && !made[name] {
				made[name] = true
				configs[retentionMillis] = kadm.StringPtr(strconv.FormatInt((t.waitIn(name) + 7*24*time.Hour).Milliseconds(), 10))
				f.createOne(ctx, name, configs)
			}
		}
		if t.dead != "" && f.missing(t.dead) && !made[t.dead] {
			made[t.dead] = true
			configs[retentionMillis] = kadm.StringPtr("-1")
			f.createOne(ctx, t.dead, configs)
		}
	}
}

func (f *flight) createOne(ctx context.Context, name string, configs map[string]*string) {
	n := f.c.set.create
	r, err := f.adm.CreateTopic(ctx, n.partitions, n.replicas, configs, name)
	if err == nil {
		err = r.Err
	}
	switch {
	case errors.Is(err, kerr.TopicAlreadyExists): // another member was quicker
	case err != nil:
		f.bad(name, fmt.Errorf("creating it with %d partitions: %w", n.partitions, err))
	default:
		f.c.log.Info("retriable: created a topic", "topic", name, "partitions", n.partitions)
	}
}

// writable names the retry and dead-letter topics that may not be written, before the first failure needs to.
func (f *flight) writable() {
	told := map[string]bool{}
	for _, t := range f.c.set.topics {
		for _, name := range t.copies() {
			if a, ok := f.found[name]; ok && a.err == nil && !a.mayWrite() && !told[name] {
				told[name] = true
				f.bad(name, fmt.Errorf("it may not be written: allow WRITE on it (%w)", kerr.TopicAuthorizationFailed))
			}
		}
	}
}

// The topic configurations that matter here.
const (
	maxMessageBytes     = "max.message.bytes"
	retentionMillis     = "retention.ms"
	cleanupPolicy       = "cleanup.policy"
	defaultMessageBytes = 1048588
	headerRoom          = 16 << 10 // what our headers add to a record at most, with some to spare
)

// topicConfigs is the configurations by topic, as far as they may be read.
type topicConfigs map[string]map[string]string

func (t topicConfigs) number(topic, key string, otherwise int64) int64 {
	if n, err := strconv.ParseInt(t[topic][key], 10, 64); err == nil {
		return n
	}
	return otherwise
}

func (f *flight) configs(ctx context.Context) topicConfigs {
	all := topicConfigs{}
	for _, name := range f.c.topicNames() { // one by one: kadm gives nothing at all if one of them may not be seen
		rs, err := f.adm.DescribeTopicConfigs(ctx, name)
		if err != nil {
			continue
		}
		all[name] = configsOf(rs)
	}
	return all
}

// configsOf makes a map of one topic's answer.
func configsOf(rs kadm.ResourceConfigs) map[string]string {
	m := map[string]string{}
	for _, r := range rs {
		for _, c := range r.Configs {
			m[c.Key] = c.MaybeValue()
		}
	}
	return m
}

// fits warns of retry and dead-letter topics that cannot hold what they must, and remembers how large their records may be.
func (f *flight) fits(ctx context.Context) {
	configs := f.configs(ctx)
	for _, t := range f.c.set.topics {
		base := configs.number(t.name, maxMessageBytes, 0)
		for _, name := range t.copies() {
			limit := configs.number(name, maxMessageBytes, 0)
			if limit == 0 {
				continue // it does not tell
			}
			f.c.sizes.set(name, limit)
			if limit < base {
				f.c.log.Warn("retriable: a topic takes smaller records than its base topic; what is too large for it is split into chunks",
					"topic", name, maxMessageBytes, limit, "base", t.name, "base "+maxMessageBytes, base)
			}
		}
		for _, name := range t.copies() {
			if strings.Contains(configs[name][cleanupPolicy], "compact") {
				f.c.log.Warn("retriable: a compacted topic loses copies whose keys are the same; set its cleanup.policy to delete", "topic", name)
			}
		}
		for _, name := range t.retries() {
			if kept := configs.number(name, retentionMillis, -1); kept >= 0 && kept < t.waitIn(name).Milliseconds() {
				f.c.log.Warn("retriable: a retry topic forgets records before the longest wait is over; raise its retention or lower MaxDelay",
					"topic", name, retentionMillis, kept, "longest wait", t.waitIn(name))
			}
		}
	}
}

// nothing reports whether there is no topic to consume yet: only patterns, and none of them matches. kgo joins no group then.
func (c *Consumer) nothing(ctx context.Context, cl *kgo.Client) bool {
	if slices.ContainsFunc(c.set.topics, func(t *topic) bool { return t.re == nil || t.retry != "" }) {
		return false
	}
	all, err := askTopics(ctx, cl, nil)
	if err != nil {
		return false
	}
	for name := range all {
		if t, _ := c.route(name); t != nil {
			return false
		}
	}
	return true
}

// group refuses a name that something other than a consumer group uses.
func (f *flight) group(ctx context.Context) {
	gs, err := f.adm.DescribeGroups(ctx, f.c.set.group)
	g, ok := gs[f.c.set.group]
	if errors.Is(err, kerr.GroupAuthorizationFailed) || errors.Is(g.Err, kerr.GroupAuthorizationFailed) {
		f.errs = append(f.errs, &GroupError{Group: f.c.set.group, Err: kerr.GroupAuthorizationFailed})
		return
	}
	if ok && g.Err == nil && g.ProtocolType != "" && g.ProtocolType != "consumer" {
		f.errs = append(f.errs, &GroupError{Group: f.c.set.group, Err: fmt.Errorf("it is a group of protocol type %q, not of consumers", g.ProtocolType)})
	}
}
