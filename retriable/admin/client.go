package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Client asks the brokers. It is safe for concurrent use.
type Client struct {
	opts []kgo.Opt
	cl   *kgo.Client
	adm  *kadm.Client
}

// New returns a Client that connects with these options: seed brokers, TLS, SASL, dialer and the like. It touches no network. Below them are defaults: batches unpack to 64 MiB at most (kgo.MaxDecompressBatchBytes). A group, topics or a
// transactional id among them are refused: what reads and writes has clients of its own.
func New(opts ...kgo.Opt) (*Client, error) {
	opts = append([]kgo.Opt{kgo.MetadataMinAge(250 * time.Millisecond), kgo.MaxDecompressBatchBytes(64 << 20)}, opts...)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	var errs []error
	if g, _ := cl.OptValue(kgo.ConsumerGroup).(string); g != "" {
		errs = append(errs, errors.New("admin: kgo.ConsumerGroup is not for this client, which joins no group"))
	}
	if ts := cl.GetConsumeTopics(); len(ts) > 0 {
		errs = append(errs, errors.New("admin: kgo.ConsumeTopics is not for this client, which is told with each call what to read"))
	}
	if id, ok := cl.OptValue(kgo.TransactionalID).(*string); ok && id != nil {
		errs = append(errs, errors.New("admin: kgo.TransactionalID is not for this client, which makes its own"))
	}
	if len(errs) > 0 {
		cl.Close()
		return nil, errors.Join(errs...)
	}
	return &Client{opts: opts, cl: cl, adm: kadm.NewClient(cl)}, nil
}

// Close ends the connections. What still reads ends with an error.
func (c *Client) Close() { c.cl.Close() }

// Ping asks for a sign of life of any broker, and so finds out whether address, TLS and credentials are right.
func (c *Client) Ping(ctx context.Context) error {
	if err := c.cl.Ping(ctx); err != nil {
		return fmt.Errorf("admin: no broker answers: %w", err)
	}
	return nil
}

// TopicNames returns the names of all topics that are not Kafka's own.
func (c *Client) TopicNames(ctx context.Context) ([]string, error) {
	ts, err := c.adm.ListTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("admin: listing topics: %w", err)
	}
	return ts.Names(), nil
}

// GroupNames returns the names of all groups.
func (c *Client) GroupNames(ctx context.Context) ([]string, error) {
	gs, err := c.adm.ListGroups(ctx)
	if err != nil {
		return nil, fmt.Errorf("admin: listing groups: %w", err)
	}
	return gs.Groups(), nil
}

// derive makes a client for one operation, with further options over the user's.
func (c *Client) derive(opts ...kgo.Opt) (*kgo.Client, error) {
	all := make([]kgo.Opt, 0, len(c.opts)+len(opts))
	cl, err := kgo.NewClient(append(append(all, c.opts...), opts...)...)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	return cl, nil
}

// details asks for topics. What kgo remembers of them may be of a moment ago, and a topic made anew has another id.
func (c *Client) details(ctx context.Context, topics ...string) (kadm.TopicDetails, error) {
	return c.adm.ListTopics(kadm.WithAuthorizedOps(ctx), topics...) // which asks past kgo's memory
}
