package broker_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/retriable-kafka/retriable-go/integration/broker"
)

func TestStartSaysAllThatIsWrong(t *testing.T) {
	_, err := broker.Start(t.Context(), broker.Config{
		Source:     "cloud",
		Nodes:      2,
		SASL:       &broker.SASL{User: "u"},
		HeapMB:     10,
		Port:       80,
		Properties: map[string]string{"a b": "c"},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"cloud", "Nodes 2", "SASL", "HeapMB 10", "Port 80", `"a b"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
}

func TestUnavailableSaysWhatToDo(t *testing.T) {
	t.Setenv("PATH", "")
	t.Setenv("JAVA_HOME", "")
	_, err := broker.Start(t.Context(), broker.Config{Source: broker.Local})
	if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "install a Java runtime") {
		t.Errorf("without java: got %v", err)
	}

	t.Setenv("KAFKA_BROKERS", "")
	_, err = broker.Start(t.Context(), broker.Config{Source: broker.External})
	if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "KAFKA_BROKERS") {
		t.Errorf("without brokers: got %v", err)
	}
}

func TestExternalIsUsedAsItIs(t *testing.T) {
	addrs := broker.Shared(t).Addrs()
	t.Setenv("KAFKA_BROKERS", " "+addrs[0]+" ,")
	c, err := broker.Start(t.Context(), broker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Source() != broker.External || c.CanFault() || c.Addrs()[0] != addrs[0] {
		t.Errorf("got %v from %s", c.Addrs(), c.Source())
	}
	if err := c.Kill(1); err == nil {
		t.Error("Kill did not refuse")
	}
	if _, err := c.Leader(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	roundTrip(t, broker.Shared(t)) // Close has left it alone
}
