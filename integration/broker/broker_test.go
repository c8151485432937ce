package broker_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/integration/broker"
)

func TestMain(m *testing.M) { os.Exit(broker.Main(m)) }

func TestSharedServes(t *testing.T) {
	c := broker.Shared(t)
	if again := broker.Shared(t); again != c {
		t.Fatal("Shared gave two clusters")
	}
	roundTrip(t, c)
}

func TestDockerServes(t *testing.T) {
	// Other sources do where there is no Docker, so this skips even in CI.
	t.Setenv("RETRIABLE_REQUIRE_KAFKA", "")
	c := broker.For(t, broker.Config{Source: broker.Docker, SASL: &user})
	if c.CanFault() {
		t.Error("CanFault is true for a container")
	}
	if err := c.Kill(1); err == nil {
		t.Error("Kill did not refuse")
	}
	roundTrip(t, c)
	if err := login(t, c, user.User, user.Password); err != nil {
		t.Errorf("login: %v", err)
	}
}

func TestNodeComesBackWithItsData(t *testing.T) {
	c := broker.For(t, broker.Config{Source: broker.Local})
	ctx := limit(t, time.Minute)
	topic := roundTrip(t, c)

	for _, down := range []struct {
		how string
		act func(int) error
	}{
		{"kill", c.Kill},
		{"stop", c.Stop},
	} {
		if err := down.act(1); err != nil {
			t.Fatalf("%s: %v", down.how, err)
		}
		if err := down.act(1); err == nil {
			t.Errorf("%s of a dead node did not say so", down.how)
		}
		if err := c.StartNode(ctx, 1); err != nil {
			t.Fatalf("after %s: %v", down.how, err)
		}
		if err := c.Wait(ctx); err != nil {
			t.Fatalf("after %s: %v", down.how, err)
		}
		readBack(t, c, topic)
	}
	if err := c.StartNode(ctx, 1); err == nil {
		t.Error("StartNode of a running node did not say so")
	}
	if err := c.Kill(2); err == nil {
		t.Error("Kill of a node that is not there did not say so")
	}
}

func TestThreeNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("three brokers take a while")
	}
	c := broker.For(t, broker.Config{Nodes: 3})
	ctx := limit(t, 2*time.Minute)
	if len(c.Addrs()) != 3 {
		t.Fatalf("addresses %v, want three", c.Addrs())
	}
	topic := roundTrip(t, c)

	old := leader(t, c)
	if err := c.Kill(old); err != nil {
		t.Fatal(err)
	}
	if now := leader(t, c); now == old {
		t.Errorf("node %d leads, though killed", now)
	}
	if err := c.StartNode(ctx, old); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(ctx); err != nil {
		t.Fatal(err)
	}

	halted := leader(t, c)
	if err := c.Pause(halted); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(halted); err == nil {
		t.Error("Stop of a paused node did not say so")
	}
	if now := leader(t, c); now == halted {
		t.Errorf("node %d leads, though paused", now)
	}
	if err := c.Resume(halted); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	readBack(t, c, topic)
}

var user = broker.SASL{User: "alice", Password: `p4ss,w"rd=\ [x]`}

func TestSASL(t *testing.T) {
	c := broker.For(t, broker.Config{SASL: &user})
	if err := login(t, c, user.User, user.Password); err != nil {
		t.Errorf("the right password: %v", err)
	}
	if err := login(t, c, user.User, "wrong"); !errors.Is(err, kerr.SaslAuthenticationFailed) {
		t.Errorf("a wrong password: got %v, want %v", err, kerr.SaslAuthenticationFailed)
	}
}

func TestACLsAreHeeded(t *testing.T) {
	c := broker.For(t, broker.Config{SASL: &user})
	ctx := limit(t, 30*time.Second)
	topic := roundTrip(t, c)
	rule := kadm.NewACLs().Topics(topic).ResourcePatternType(kadm.ACLPatternLiteral).
		Operations(kadm.OpWrite).Deny("User:" + user.User)
	done, err := kadm.NewClient(client(t, c)).CreateACLs(ctx, rule)
	if err != nil || len(done) != 1 || done[0].Err != nil {
		t.Fatalf("adding the rule: %v, %v", done, err)
	}

	// The broker may take a moment to learn of the rule.
	cl := saslClient(t, c, user.User, user.Password)
	for {
		err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic}).FirstErr()
		if errors.Is(err, kerr.TopicAuthorizationFailed) {
			break
		}
		if err != nil {
			t.Fatalf("producing against the rule: got %v, want %v", err, kerr.TopicAuthorizationFailed)
		}
	}
	// The plain listener is above all rules.
	if err := client(t, c).ProduceSync(ctx, &kgo.Record{Topic: topic}).FirstErr(); err != nil {
		t.Errorf("producing on the plain listener: %v", err)
	}
}

func TestPropertiesWin(t *testing.T) {
	c := broker.For(t, broker.Config{Properties: map[string]string{
		"offset.metadata.max.bytes":            "512",
		"group.consumer.heartbeat.interval.ms": "300",
	}})
	adm := kadm.NewClient(client(t, c))
	configs, err := adm.DescribeBrokerConfigs(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, kv := range configs[0].Configs {
		got[kv.Key] = kv.MaybeValue()
	}
	for k, want := range map[string]string{
		"offset.metadata.max.bytes":            "512",
		"group.consumer.heartbeat.interval.ms": "300",
		"auto.create.topics.enable":            "false",
		"group.min.session.timeout.ms":         "200",
	} {
		if got[k] != want {
			t.Errorf("%s is %q, want %q", k, got[k], want)
		}
	}
}
