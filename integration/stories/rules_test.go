package stories_test

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/retriable-kafka/retriable-go/integration/broker"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// login is how consumers come in as a user: on the SASL listener, where rules hold.
func (b *bed) login(user, password string) retriable.Option {
	return retriable.Kafka(kgo.SeedBrokers(b.cluster.SASLAddrs()...), kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism()))
}

// permit allows the user operations on a topic.
func (b *bed) permit(user, topic string, ops ...kadm.ACLOperation) {
	b.Helper()
	rule := kadm.NewACLs().Topics(topic).ResourcePatternType(kadm.ACLPatternLiteral).Operations(ops...).Allow("User:" + user).AllowHosts("*")
	done, err := b.adm.CreateACLs(b.limit, rule)
	if err != nil || len(done) != len(ops) || done[0].Err != nil {
		b.Fatalf("adding a rule: %v, %v", done, err)
	}
}

// deny forbids the user an operation on a topic, and allow lifts that again.
func (b *bed) deny(user, topic string, op kadm.ACLOperation) {
	b.Helper()
	rule := kadm.NewACLs().Topics(topic).ResourcePatternType(kadm.ACLPatternLiteral).Operations(op).Deny("User:" + user).DenyHosts("*")
	done, err := b.adm.CreateACLs(b.limit, rule)
	if err != nil || len(done) != 1 || done[0].Err != nil {
		b.Fatalf("adding a rule: %v, %v", done, err)
	}
}

func (b *bed) allow(user, topic string) {
	b.Helper()
	rule := kadm.NewACLs().Topics(topic).ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpAny).Deny("User:" + user).DenyHosts("*")
	done, err := b.adm.DeleteACLs(b.limit, rule)
	if err != nil || len(done) != 1 || done[0].Err != nil || len(done[0].Deleted) == 0 {
		b.Fatalf("removing a rule: %v, %v", done, err)
	}
}

func TestPasswordsAndRules(t *testing.T) {
	alice := broker.SASL{User: "alice", Password: "correct horse"}
	cluster := broker.For(t, broker.Config{SASL: &alice})

	t.Run("a wrong password ends Run at once", func(t *testing.T) {
		b := storyOn(t, cluster, time.Minute)
		began := time.Now()
		c := b.launch(b.name("group"), b.login(alice.User, "battery staple"), retriable.Topic(b.topic("orders", 1), done(), retriable.NoDeadLetters()))
		<-c.done
		e, ok := is[*retriable.BrokerError](c.err)
		if !ok || !errors.Is(e, kerr.SaslAuthenticationFailed) || len(e.Brokers) == 0 {
			t.Errorf("Run: %v, want a BrokerError with SASL_AUTHENTICATION_FAILED", c.err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		if b.log.has("battery staple") {
			t.Error("the password is in the log")
		}
	})

	t.Run("a retry topic that may not be written keeps its record pending", func(t *testing.T) {
		b := storyOn(t, cluster, time.Minute)
		base, retry, group := b.topic("orders", 1), b.topic("retry", 1), b.name("group")
		fails := func(m *retriable.Message) error {
			if m.Attempt == 1 && string(m.Value) == "fails" {
				return errors.New("not yet")
			}
			return nil
		}
		refused := make(chan retriable.ProduceFailed, 1000)
		c := b.start(group, b.login(alice.User, alice.Password), retriable.Hooks(refusals(refused)), retriable.Topic(base, handles(fails),
			retriable.RetryTopic(retry), retriable.NoDeadLetters(), retriable.Backoff(retriable.Constant(10*time.Millisecond))))
		b.deny(alice.User, retry, kadm.OpWrite)
		// The broker may take a moment to learn of the rule: what it lets pass before is done.
		for let := uint64(0); ; let++ {
			b.produce(&kgo.Record{Topic: base, Key: []byte("k"), Value: []byte("fails")})
			b.await("the record is written or refused", 20*time.Second, func() bool { return c.Stats().Retried > let || len(refused) > 0 })
			if len(refused) > 0 {
				break
			}
		}
		e := <-refused
		if e.Topic != retry || e.Source.Topic != base || e.Try != 1 || !errors.Is(e.Err, kerr.TopicAuthorizationFailed) {
			t.Errorf("OnProduceFailed: %+v", e)
		}
		b.produce(&kgo.Record{Topic: base, Key: []byte("k"), Value: []byte("fine")}, &kgo.Record{Topic: base, Key: []byte("other"), Value: []byte("fine")})
		b.await("the others are handled", 10*time.Second, func() bool { return c.Stats().Handled >= 2 })
		b.await("it is tried again", 10*time.Second, func() bool { return c.Stats().ProduceFailures >= 4 })

		health := c.health()
		p, ok := is[*retriable.ProduceError](health)
		if !ok || p.Topic != retry || p.Since.IsZero() || !errors.Is(p, kerr.TopicAuthorizationFailed) {
			t.Errorf("Health: %v, want a ProduceError for %s", health, retry)
		}
		s, _ := c.part(base, 0)
		b.wantEqual("pending", s.Pending, 1)
		b.wantEqual("why", s.Oldest.Reason, retriable.ReasonProducing)
		b.wantEqual("watermark", s.Watermark, e.Source.Offset)
		if !b.log.has("level=WARN", retry) {
			t.Error("no warning names the topic")
		}

		b.allow(alice.User, retry)
		want := uint64(b.ends(base)[0])
		b.await("it is retried", 20*time.Second, func() bool { return c.Stats().Handled == want })
		b.await("Health is nil again", 10*time.Second, func() bool { return c.health() == nil })
		c.clean()
		b.wantAllCommitted(group, base)
		b.wantAllCommitted(group, retry)
	})

	t.Run("a stop while writes are refused abandons the record and loses nothing", func(t *testing.T) {
		b := storyOn(t, cluster, time.Minute)
		base, dead, group := b.topic("orders", 1), b.topic("dead", 1), b.name("group")
		no := handles(func(*retriable.Message) error { return retriable.Permanent(errors.New("never")) })
		opts := []retriable.Option{
			b.login(alice.User, alice.Password), retriable.DrainTimeout(time.Second), retriable.Topic(base, no, retriable.DeadLetterTopic(dead)),
		}
		c := b.start(group, opts...)
		b.deny(alice.User, dead, kadm.OpWrite)
		for c.Stats().ProduceFailures == 0 {
			let := c.Stats().DeadLettered
			b.produce(&kgo.Record{Topic: base, Value: []byte("x")})
			b.await("the record is written or refused", 20*time.Second, func() bool {
				s := c.Stats()
				return s.DeadLettered > let || s.ProduceFailures > 0
			})
		}
		if _, ok := is[*retriable.AbandonedError](c.end()); !ok {
			t.Errorf("Run: %v, want an AbandonedError", c.err)
		}

		// A start finds it out before it takes a record: that the topic may not even be described, and that it may but not be written.
		for _, rule := range []func(){func() {}, func() { b.permit(alice.User, dead, kadm.OpDescribe, kadm.OpDescribeConfigs) }} {
			rule()
			b.pass(time.Second) // the broker may take a moment to learn of it
			began := time.Now()
			c = b.launch(group, opts...)
			<-c.done
			if e, ok := is[*retriable.TopicError](c.err); !ok || e.Topic != dead || !errors.Is(e, kerr.TopicAuthorizationFailed) {
				t.Errorf("Run: %v, want a TopicError for %s", c.err, dead)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		}
		b.permit(alice.User, dead, kadm.OpWrite)
		b.allow(alice.User, dead)
		b.await("the rule is gone", 20*time.Second, func() bool { return b.comesUp(group, opts...) })
		c = b.start(group, opts...)
		b.await("all are dead letters", 20*time.Second, func() bool { return b.ends(dead)[0] == b.ends(base)[0] })
		c.clean()
		b.wantAllCommitted(group, base)
	})

	t.Run("a group that may not be joined ends Run", func(t *testing.T) {
		b := storyOn(t, cluster, time.Minute)
		topic, group := b.topic("orders", 1), b.name("group")
		rule := kadm.NewACLs().Groups(group).ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpAll).Deny("User:" + alice.User).DenyHosts("*")
		if done, err := b.adm.CreateACLs(b.limit, rule); err != nil || done[0].Err != nil {
			t.Fatalf("adding a rule: %v, %v", done, err)
		}
		b.pass(time.Second)
		c := b.launch(group, b.login(alice.User, alice.Password), retriable.Topic(topic, done(), retriable.NoDeadLetters()))
		select {
		case <-c.done:
			if e, ok := is[*retriable.GroupError](c.err); !ok || e.Group != group || !errors.Is(e, kerr.GroupAuthorizationFailed) {
				t.Errorf("Run: %v, want a GroupError", c.err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("Run goes on; Health: %v", c.health())
		}
	})
}

// comesUp reports whether a consumer starts; it is stopped again.
func (b *bed) comesUp(group string, opts ...retriable.Option) bool {
	b.Helper()
	c := b.launch(group, opts...)
	select {
	case <-c.Ready():
		return c.end() == nil
	case <-c.done:
		return false
	}
}

// refusals is a hook.
type refusals chan retriable.ProduceFailed

// OnProduceFailed implements retriable.HookProduceFailed.
func (c refusals) OnProduceFailed(e retriable.ProduceFailed) {
	select {
	case c <- e:
	default:
	}
}
