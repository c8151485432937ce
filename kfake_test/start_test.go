package kfake_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// each returns all errors of a type in err's tree.
func each[T error](err error) (found []T) {
	if e, ok := err.(T); ok { //nolint:errorlint // the walk is what errors.As would do, for all of them
		found = append(found, e)
	}
	switch u := err.(type) { //nolint:errorlint // as above
	case interface{ Unwrap() error }:
		found = append(found, each[T](u.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			found = append(found, each[T](e)...)
		}
	}
	return found
}

// fails runs a consumer that must end by itself and returns when it did and why.
func (b *bed) fails(group string, opts ...retriable.Option) (took time.Duration, err error) {
	b.Helper()
	began := time.Now()
	c := b.launch(group, opts...)
	select {
	case <-c.done:
	case <-c.Ready():
		b.Error("the consumer is ready")
		_ = c.end()
	case <-time.After(5 * time.Minute):
		b.Error("Run does not end")
		_ = c.end()
	}
	return time.Since(began), c.err
}

var plainTopic = retriable.Topic("orders", retriable.HandlerFunc(done), retriable.NoDeadLetters())

func TestNewTouchesNoNetwork(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		c, err := retriable.New("g", b.options(plainTopic, retriable.Kafka(kgo.Dialer(func(context.Context, string, string) (net.Conn, error) {
			b.Error("New dials")
			return nil, errors.New("no")
		})))...)
		if err != nil {
			b.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := c.Health(b.Context()); !errors.As(err, new(*retriable.GroupError)) {
			b.Errorf("Health before Run: %v", err)
		}
		if c.Client() != nil || len(c.Stats().Partitions) != 0 {
			b.Error("there is something before Run")
		}
	})
}

func TestRunGivesUpAfterThirtySecondsWithoutABroker(t *testing.T) {
	t.Run("nobody listens", func(t *testing.T) {
		bubble(t, "orders", func(b *bed) {
			b.cluster.Close()
			took, err := b.fails("g", plainTopic)
			var broker *retriable.BrokerError
			if !errors.As(err, &broker) || !slices.Contains(broker.Brokers, "localhost:9092") || broker.Err == nil {
				b.Errorf("Run: %v", err)
			}
			if took < 30*time.Second || took > 32*time.Second {
				b.Errorf("it took %v", took)
			}
		})
	})
	t.Run("it listens and says nothing", func(t *testing.T) {
		bubble(t, "orders", func(b *bed) {
			b.cluster.ControlKey(-1, func(kmsg.Request) (kmsg.Response, error, bool) {
				b.cluster.KeepControl()
				return nil, nil, true
			})
			took, err := b.fails("g", plainTopic)
			if !errors.As(err, new(*retriable.BrokerError)) {
				b.Errorf("Run: %v", err)
			}
			if took < 30*time.Second || took > 45*time.Second /* kgo does not cut the opening of a connection short: 10 s */ {
				b.Errorf("it took %v", took)
			}
		})
	})
	t.Run("one comes in time", func(t *testing.T) {
		bubble(t, "orders", func(b *bed) {
			up := time.Now().Add(25 * time.Second)
			c := b.start("g", plainTopic, retriable.Kafka(kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
				if time.Now().Before(up) {
					return nil, errors.New("not yet")
				}
				return b.net.DialContext(ctx, network, host)
			})))
			c.clean()
		})
	})
}

// guarded is a cluster that wants a user and a password, and lets "billing" do what acls say.
func guarded(acls ...kfake.ACL) []kfake.Opt {
	return []kfake.Opt{
		kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "admin", "adminpass"),
		kfake.User("PLAIN", "billing", "s3cret", acls...),
	}
}

func allow(what kmsg.ACLResourceType, name string, ops ...kmsg.ACLOperation) (acls []kfake.ACL) {
	for _, op := range ops {
		acls = append(acls, kfake.ACL{Resource: what, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true})
	}
	return acls
}

func as(user, pass string) retriable.Option {
	return retriable.Kafka(kgo.SASL(plain.Auth{User: user, Pass: pass}.AsMechanism()))
}

func TestAWrongPasswordEndsRunAtOnce(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		// As Kafka answers it; kfake just hangs up.
		b.cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			b.cluster.KeepControl()
			req := kreq.(*kmsg.SASLAuthenticateRequest)
			if !strings.Contains(string(req.SASLAuthBytes), "wr0ng") {
				return nil, nil, false
			}
			resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
			resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
			return resp, nil, true
		})
		took, err := b.fails("g", plainTopic, as("billing", "wr0ng"))
		if !errors.As(err, new(*retriable.BrokerError)) || !errors.Is(err, kerr.SaslAuthenticationFailed) {
			b.Errorf("Run: %v", err)
		}
		if took > 5*time.Second {
			b.Errorf("it took %v", took)
		}
		if strings.Contains(b.log.String()+err.Error(), "wr0ng") {
			b.Error("the password is told")
		}
		c := b.start("g", plainTopic, as("admin", "adminpass"))
		c.clean()
	}, guarded()...)
}

func TestPermissionsThatLackAreNamedAtTheStart(t *testing.T) {
	const topic, group = kmsg.ACLResourceTypeTopic, kmsg.ACLResourceTypeGroup
	const read, write, describe = kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe
	full := slices.Concat(allow(topic, "orders", read), allow(topic, "orders.retry", read, write), allow(topic, "orders.dead", write), allow(group, "g", read, describe))
	without := func(gone ...kfake.ACL) []kfake.ACL {
		return slices.DeleteFunc(slices.Clone(full), func(a kfake.ACL) bool { return slices.Contains(gone, a) })
	}
	consumer := func() []retriable.Option {
		return []retriable.Option{as("billing", "s3cret"), retriable.Topic("orders", retriable.HandlerFunc(done), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead"))}
	}
	t.Run("none lacks", func(t *testing.T) {
		bubble(t, "orders orders.retry orders.dead", func(b *bed) { b.start("g", consumer()...).clean() }, guarded(full...)...)
	})
	for _, s := range []struct {
		name, topic string
		acls        []kfake.ACL
	}{
		{"the retry topic may only be read", "orders.retry", without(allow(topic, "orders.retry", write)...)},
		{"the dead-letter topic may only be described", "orders.dead", append(without(allow(topic, "orders.dead", write)...), allow(topic, "orders.dead", describe)...)},
		{"the dead-letter topic may not be seen", "orders.dead", without(allow(topic, "orders.dead", write)...)},
		{"the base topic may not be seen", "orders", without(allow(topic, "orders", read)...)},
	} {
		t.Run(s.name, func(t *testing.T) {
			bubble(t, "orders orders.retry orders.dead", func(b *bed) {
				took, err := b.fails("g", consumer()...)
				var wrong *retriable.TopicError
				if !errors.As(err, &wrong) || wrong.Topic != s.topic || !errors.Is(wrong, kerr.TopicAuthorizationFailed) || len(each[*retriable.TopicError](err)) != 1 {
					b.Errorf("Run: %v", err)
				}
				if took > 5*time.Second {
					b.Errorf("it took %v", took)
				}
			}, guarded(s.acls...)...)
		})
	}
	t.Run("the group may not be seen", func(t *testing.T) {
		bubble(t, "orders orders.retry orders.dead", func(b *bed) {
			took, err := b.fails("g", consumer()...)
			if !errors.As(err, new(*retriable.GroupError)) || !errors.Is(err, kerr.GroupAuthorizationFailed) {
				b.Errorf("Run: %v", err)
			}
			if took > 5*time.Second {
				b.Errorf("it took %v", took)
			}
		}, guarded(without(allow(group, "g", read, describe)...)...)...)
	})
	// What may be described but not read is told at the latest by Health.
	for _, s := range []struct {
		name  string
		named func(error) bool
		acls  []kfake.ACL
	}{
		{"the base topic may only be described", func(err error) bool { return errors.Is(err, kerr.TopicAuthorizationFailed) }, append(without(allow(topic, "orders", read)...), allow(topic, "orders", describe)...)},
		{"the retry topic may only be written", func(err error) bool { return errors.Is(err, kerr.TopicAuthorizationFailed) }, without(allow(topic, "orders.retry", read)...)},
		{"the group may only be described", func(err error) bool { return errors.Is(err, kerr.GroupAuthorizationFailed) }, without(allow(group, "g", read)...)},
	} {
		t.Run(s.name, func(t *testing.T) {
			bubble(t, "orders orders.retry orders.dead", func(b *bed) {
				c := b.launch("g", consumer()...)
				time.Sleep(20 * time.Second)
				err := c.Health(b.Context())
				select {
				case <-c.done:
					err = c.err
				default:
				}
				if !s.named(err) {
					b.Errorf("Run or Health: %v", err)
				}
				_ = c.end()
			}, guarded(s.acls...)...)
		})
	}
}

func TestMissingTopicsAreNamedAtTheStart(t *testing.T) {
	bubble(t, "payments", func(b *bed) {
		took, err := b.fails("g",
			retriable.Topic("orders", retriable.HandlerFunc(done), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")),
			retriable.Topic("payments", retriable.HandlerFunc(done), retriable.RetryTopic("payments.retry"), retriable.NoDeadLetters()))
		var names []string
		for _, e := range each[*retriable.TopicError](err) {
			names = append(names, e.Topic)
			if !errors.Is(e, kerr.UnknownTopicOrPartition) {
				b.Errorf("%v does not wrap its code", e)
			}
		}
		slices.Sort(names)
		wantEqual(b.T, "missing", names, []string{"orders", "orders.dead", "orders.retry", "payments.retry"})
		if took > 5*time.Second {
			b.Errorf("it took %v", took)
		}
		if b.cluster.GroupInfo("g") != nil {
			b.Error("a member that cannot work joined the group")
		}
	})
}

func TestCreateTopicsMakesWhatIsMissing(t *testing.T) {
	bubble(t, "payments payments.dead:5", func(b *bed) {
		if err := b.cluster.CreateTopic("orders", 2, map[string]string{"max.message.bytes": "5000000"}); err != nil {
			b.Fatal(err)
		}
		old := b.cluster.TopicInfo("payments.dead").TopicID
		var d diary
		opts := []retriable.Option{
			retriable.CreateTopics(3, 1), d.failing(retriable.MaxDelay(30 * 24 * time.Hour)),
			retriable.Topic("payments", retriable.HandlerFunc(done), retriable.RetryTopic("payments.retry"), retriable.DeadLetterTopic("payments.dead")),
		}
		// Two members start at once: one of them finds what the other has made.
		cs := []*running{b.launch("g", opts...), b.launch("g", opts...)}
		for _, c := range cs {
			defer c.end()
			select {
			case <-c.Ready():
			case <-c.done:
				b.Fatal(c.err)
			}
		}
		number := func(topic, key string) int64 {
			v := b.cluster.TopicInfo(topic).Configs[key]
			if v == nil {
				return 0
			}
			n, _ := strconv.ParseInt(*v, 10, 64)
			return n
		}
		for _, topic := range []string{"orders.retry", "orders.dead", "payments.retry"} {
			if b.cluster.TopicInfo(topic) == nil {
				b.Fatalf("%s was not created", topic)
			}
			wantEqual(b.T, "partitions of "+topic, len(b.cluster.PartitionInfos(topic)), 3)
		}
		const week = 7 * 24 * time.Hour
		if n := number("orders.retry", "max.message.bytes"); n <= 5_000_000 {
			b.Errorf("orders.retry takes records of %d bytes, less than its base topic", n)
		}
		if n := number("orders.dead", "max.message.bytes"); n <= 5_000_000 {
			b.Errorf("orders.dead takes records of %d bytes, less than its base topic", n)
		}
		if n := number("payments.retry", "max.message.bytes"); n <= 1048588 {
			b.Errorf("payments.retry takes records of %d bytes, less than its base topic", n)
		}
		wantEqual(b.T, "retention of orders.retry", number("orders.retry", "retention.ms"), (30*24*time.Hour + week).Milliseconds())
		wantEqual(b.T, "retention of payments.retry", number("payments.retry", "retention.ms"), (week + week).Milliseconds())
		wantEqual(b.T, "retention of orders.dead", number("orders.dead", "retention.ms"), -1)
		wantEqual(b.T, "partitions of what was there", len(b.cluster.PartitionInfos("payments.dead")), 5)
		wantEqual(b.T, "the id of what was there", b.cluster.TopicInfo("payments.dead").TopicID, old)
		b.produce("orders", 1, "retry", "bad", "fine")
		time.Sleep(10 * time.Second)
		wantEqual(b.T, "deliveries", len(d.all()), 4)
		for _, c := range cs {
			c.clean()
		}
		wantEqual(b.T, "warnings", strings.Count(b.log.String(), "level=WARN"), 0)
	})
}

func TestTopicsThatCannotBeCreatedAreNamed(t *testing.T) {
	bubble(t, "payments", func(b *bed) {
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "payments.retry", Err: kerr.PolicyViolation, Count: -1})
		_, err := b.fails("g", retriable.CreateTopics(3, 1),
			retriable.Topic("orders", retriable.HandlerFunc(done), retriable.NoDeadLetters()),
			retriable.Topic("payments", retriable.HandlerFunc(done), retriable.RetryTopic("payments.retry"), retriable.NoDeadLetters()))
		got := map[string]bool{}
		for _, e := range each[*retriable.TopicError](err) {
			got[e.Topic] = errors.Is(e, kerr.PolicyViolation)
		}
		wantEqual(b.T, "Run's errors", got, map[string]bool{"orders": false, "payments.retry": true}) // a base topic is never created
	})
}

func TestTopicsThatDoNotFitAreWarnedOf(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		for topic, configs := range map[string]map[string]string{
			"orders.retry": {"retention.ms": "3600000"}, "orders.dead": {"max.message.bytes": "1000"},
		} {
			if err := b.cluster.CreateTopic(topic, 1, configs); err != nil {
				b.Fatal(err)
			}
		}
		var d diary
		c := b.start("g", d.failing())
		c.clean()
		for _, want := range []string{"topic=orders.retry retention.ms=3600000", "topic=orders.dead max.message.bytes=1000"} {
			if !strings.Contains(b.log.String(), want) {
				b.Errorf("no warning with %s", want)
			}
		}
	})
}

func TestAGroupOfAnotherKindIsRefused(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		other, err := kgo.NewClient(append(b.dial(), kgo.SeedBrokers("127.0.0.1:9092"), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("orders"), kgo.GroupProtocol("connect"))...)
		if err != nil {
			b.Fatal(err)
		}
		defer other.Close()
		if _, err := b.cluster.WaitGroupStable(b.Context(), "g", 1); err != nil {
			b.Fatal(err)
		}
		took, err := b.fails("g", plainTopic)
		var group *retriable.GroupError
		if !errors.As(err, &group) || group.Group != "g" || !strings.Contains(err.Error(), "connect") {
			b.Errorf("Run: %v", err)
		}
		if took > 5*time.Second {
			b.Errorf("it took %v", took)
		}
	})
}

func TestAPatternThatMatchesNothingYetIsNoFailure(t *testing.T) {
	eachProtocol(t, "payments", func(b *bed, kafka retriable.Option) {
		var d diary
		c := b.launch("g", kafka, retriable.TopicRegexp(`orders\..*`, d.handler("", done), retriable.NoDeadLetters()))
		defer c.end()
		select {
		case <-c.Ready():
		case <-time.After(time.Minute):
			b.Error("not ready within a minute")
		}
		if err := c.Health(b.Context()); err != nil {
			b.Errorf("Health: %v", err)
		}
		for _, topic := range []string{"orders.a", "my.orders.b", "orders"} {
			if err := b.cluster.CreateTopic(topic, 2, nil); err != nil {
				b.Fatal(err)
			}
			b.produce(topic, 1, topic)
		}
		time.Sleep(7 * time.Minute) // kgo looks for topics every five
		got := d.all()
		if len(got) != 1 || got[0].value != "orders.a" {
			b.Errorf("deliveries: %+v", got)
		}
		c.clean()
	})
}

func TestAPatternsRetriesComeBackAsTheRecordsOfTheirTopics(t *testing.T) {
	bubble(t, "orders.a:2 orders.b orders.special orders.retry orders.dead orders.special.retry orders.special.dead", func(b *bed) {
		var all, special diary
		var origins []string
		gate := make(chan struct{}, 1)
		handle := func(_ context.Context, m *retriable.Message) error {
			gate <- struct{}{}
			origins = append(origins, fmt.Sprintf("%s %s/%d/%d %d", m.Value, m.Topic, m.Partition, m.Offset, m.Attempt))
			<-gate
			return errors.New("no")
		}
		c := b.start("g",
			retriable.Defaults(retriable.MaxAttempts(2), retriable.Backoff(retriable.Constant(time.Second))),
			retriable.TopicRegexp("orders.*", all.handler("", handle), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")),
			retriable.Topic("orders.special", special.handler("", handle), retriable.RetryTopic("orders.special.retry"), retriable.DeadLetterTopic("orders.special.dead")))
		defer c.end()
		b.produce("orders.a", 1, "x", "y")
		b.produce("orders.b", 0, "z")
		b.produce("orders.special", 0, "s")
		time.Sleep(time.Minute)
		gate <- struct{}{}
		slices.Sort(origins)
		<-gate
		wantEqual(b.T, "deliveries", strings.Join(origins, ", "), strings.Join([]string{
			"s orders.special/0/0 1", "s orders.special/0/0 2", "x orders.a/1/0 1", "x orders.a/1/0 2", "y orders.a/1/1 1", "y orders.a/1/1 2", "z orders.b/0/0 1", "z orders.b/0/0 2",
		}, ", "))
		for _, v := range slices.Concat(all.all(), special.all()) {
			if want := map[int]string{1: "", 2: ".retry"}[v.attempt]; !strings.HasSuffix(v.source.Topic, want) || v.attempt == 1 && strings.HasSuffix(v.source.Topic, ".retry") {
				b.Errorf("attempt %d of %s was read from %s", v.attempt, v.value, v.source.Topic)
			}
		}
		wantEqual(b.T, "deliveries to the pattern's handler", len(all.all()), 6)
		wantEqual(b.T, "dead letters", fmt.Sprint(len(b.read("orders.dead")), len(b.read("orders.special.dead"))), "3 1")
		for _, r := range b.read("orders.dead") {
			if want := map[string]string{"x": "orders.a", "y": "orders.a", "z": "orders.b"}[string(r.Value)]; headerOf(r, "__dlq.errors.topic") != want {
				b.Errorf("the dead letter of %s names %s", r.Value, headerOf(r, "__dlq.errors.topic"))
			}
		}
		for _, p := range c.Stats().Partitions {
			if strings.HasSuffix(p.Topic, ".dead") {
				b.Errorf("%s is consumed", p.Topic)
			}
		}
		c.clean()
	})
}

// What has a commit is not kept waiting by what has none: kgo would fetch an empty retry topic at once, and nothing else until that fetch is over.
func TestATakeoverDoesNotWaitForAnEmptyRetryTopic(t *testing.T) {
	bubble(t, allTopics, func(b *bed) {
		var l ledger
		topic := retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			return nil
		}), retriable.RetryTopic("orders.retry"), retriable.NoDeadLetters())
		b.produce("orders", 0, "a")
		first := b.start("g", topic)
		b.until("handled", time.Second, func() bool { return len(l.all()) == 1 })
		first.clean()
		b.produce("orders", 0, "b")
		second := b.start("g", topic)
		began := time.Now()
		b.until("handled", time.Second, func() bool { return len(l.all()) == 2 })
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("the first record came after %v", took)
		}
		second.clean()
	})
}

// The ends of logs are asked for topic by topic, however many partitions there are without a commit.
func TestManyNewPartitionsAreAskedForTogether(t *testing.T) {
	bubble(t, "orders:300", func(b *bed) {
		asked := map[kmsg.Request]bool{} // the broker asks once for each partition in it, all in one goroutine
		b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Count: -1, Err: kerr.RequestTimedOut, When: func(req kmsg.Request) bool {
			asked[req] = true
			return false
		}})
		r := b.begin("g", patient(), retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), none()))
		time.Sleep(10 * time.Second)
		wantEqual(t, "partitions", len(r.Stats().Partitions), 300)
		r.clean()
		if n := len(asked); n == 0 || n > 10 {
			t.Errorf("%d requests", n)
		}
	})
}
