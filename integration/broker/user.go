package broker

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
)

// addUser makes the SASL user and waits until every broker lets it in. It goes
// through a request, where formatting could do it as well, so that the
// password is on no command line.
func (c *Cluster) addUser(ctx context.Context, user *SASL, nodes []int) error {
	if user == nil {
		return nil
	}
	cl, err := newClient(c.addrs, nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	done, err := kadm.NewClient(cl).AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{
		User:       user.User,
		Mechanism:  kadm.ScramSha512,
		Iterations: 4096, // the least that Kafka takes: each login costs this much
		Password:   user.Password,
	}})
	if err != nil {
		return fmt.Errorf("adding the SASL user: %w", err)
	}
	if err := done[user.User].Err; err != nil {
		return fmt.Errorf("adding the SASL user: %w: %s", err, done[user.User].ErrMessage)
	}
	if err := c.await(ctx, expectation{nodes: nodes, sasl: user}); err != nil {
		return fmt.Errorf("logging in as the SASL user: %w", err)
	}
	return nil
}
