package chaos

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	pointLimit = 4 * time.Second  // to come to a point; after that the process is killed where it is
	stopLimit  = 20 * time.Second // to stop cleanly
)

// Run applies a plan of faults of processes. It returns when the last has begun.
func (a *Arena) Run(ctx context.Context, plan []Fault) {
	for _, f := range plan {
		select {
		case <-time.After(f.Wait):
		case <-ctx.Done():
			return
		}
		a.wg.Add(1)
		go func() {
			defer a.wg.Done()
			if err := a.apply(ctx, f); err != nil {
				a.fail(fmt.Errorf("%s: %w", f.Kind, err))
			}
		}()
	}
}

func (a *Arena) apply(ctx context.Context, f Fault) error {
	a.count(f.Kind)
	switch f.Kind {
	case Storm:
		return a.storm(ctx, f)
	case Roll:
		for _, s := range a.slots {
			if err := a.on(s, func() error { return a.restart(s) }); err != nil {
				return err
			}
		}
		return nil
	case Deny:
		return a.deny(ctx, f)
	case Remake:
		return a.remake(ctx)
	default:
	}
	s := a.slots[f.Slot%len(a.slots)]
	return a.on(s, func() error {
		p := s.member
		<-p.up
		a.note("%s %s %s", p.Name, f.Kind, f.Point)
		switch f.Kind {
		case Kill:
			p.signal(syscall.SIGKILL)
			<-p.done
		case Point:
			a.dieAt(p, f)
		case Zombie, Nap:
			if err := halt(ctx, p.cmd.Process.Pid, f.For); err != nil {
				return err
			}
			a.note("%s goes on", p.Name)
		case Halt:
			return a.haltAt(p, f)
		case Restart:
			return a.restart(s)
		case NetCut:
			return a.cut(ctx, p, f)
		default:
			return fmt.Errorf("no fault of processes")
		}
		return nil
	})
}

// on does something to a slot, with a process in it before and after.
func (a *Arena) on(s *slot, do func() error) error {
	s.busy.Lock()
	defer s.busy.Unlock()
	a.revive(s)
	if s.member == nil {
		return a.err()
	}
	err := do()
	a.revive(s)
	return err
}

// revive sees to it that a process is in the slot. One that ended though nobody wanted it to is a failure. Of one that was told to stop the
// check knows whether its errors had a reason; and one does not start without its retry
// topic, or the right to write to it.
func (a *Arena) revive(s *slot) {
	p := s.member
	if p != nil && p.running() {
		return
	}
	early := p != nil && strings.Contains(p.stderr.String(), "retriable: topic "+a.retry) && p.began.UnixNano() < a.barred.Load()
	if p != nil && !p.killed() && !p.asked.Load() && !early {
		a.note("%s ended: %v", p.Name, p.err)
		a.fail(fmt.Errorf("%s ended: %w: %s\n%s", p.Name, p.err, p.stderr.String(), a.LogOf(p.Name)))
	}
	a.fill(s)
}

// dieAt has a process kill itself at a point. To come to that of a drain it is told to stop.
func (a *Arena) dieAt(p *process, f Fault) {
	if err := p.tell(Order{Point: f.Point, After: f.After}); err != nil {
		a.fail(err)
	}
	if f.Point == "draining" || f.Point == "drained" {
		_ = p.tell(Order{Point: f.Point, After: 1})
		p.terminate()
	}
	if !p.endsWithin(pointLimit) {
		a.note("%s did not come to that point, and is killed where it is", p.Name)
		a.count("point not met")
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// haltAt has a process halt at a point.
func (a *Arena) haltAt(p *process, f Fault) error {
	select {
	case <-p.halts: // of an order before, late
	default:
	}
	if err := p.tell(Order{Point: f.Point, After: f.After, For: f.For}); err != nil {
		return err
	}
	select {
	case <-p.halts:
		time.Sleep(f.For)
		a.note("%s goes on", p.Name)
	case <-p.done:
	case <-time.After(pointLimit): // it may come to it yet
		a.count("point not met")
	}
	return nil
}

// restart stops a process cleanly and starts another in its place.
func (a *Arena) restart(s *slot) error {
	p := s.member
	a.note("%s is told to stop", p.Name)
	p.terminate()
	if !p.endsWithin(stopLimit) {
		return fmt.Errorf("%s does not stop:\n%s", p.Name, a.LogOf(p.Name))
	}
	return nil
}

// storm lets two more members join and leave.
func (a *Arena) storm(ctx context.Context, f Fault) error {
	a.note("two more join and leave")
	a.mu.Lock()
	n := len(a.all)
	a.mu.Unlock()
	var guests []*process
	for i := range 2 {
		if p := a.join(fmt.Sprintf("x%d.%d", i, n)); p != nil {
			guests = append(guests, p)
		}
		select {
		case <-time.After(f.For):
		case <-ctx.Done():
		}
	}
	for _, p := range guests {
		p.terminate()
	}
	for _, p := range guests {
		if !p.endsWithin(stopLimit) {
			return fmt.Errorf("%s does not stop:\n%s", p.Name, a.LogOf(p.Name))
		}
	}
	return nil
}

// cut lets the network of one member fail.
func (a *Arena) cut(ctx context.Context, p *process, f Fault) error {
	o := Order{Net: f.Mode, Key: f.Key, For: f.For}
	if f.Broker > 0 {
		o.Port = ports(p.Brokers)[f.Broker-1]
	}
	a.note("the network of %s: %v", p.Name, f)
	if err := p.tell(o); err != nil {
		return err
	}
	select {
	case <-time.After(f.For):
	case <-p.done:
	case <-ctx.Done():
	}
	a.note("the network of %s works again", p.Name)
	return nil
}

// deny takes away the members' right to write to the retry topic for a while. Two at once would end each other.
func (a *Arena) deny(ctx context.Context, f Fault) error {
	a.denying.Lock()
	defer a.denying.Unlock()
	rule := func() *kadm.ACLBuilder {
		return kadm.NewACLs().Topics(a.retry).ResourcePatternType(kadm.ACLPatternLiteral).Deny("User:" + a.SASL.User).DenyHosts("*").Operations(kadm.OpWrite)
	}
	a.note("nobody may write to %s", a.retry)
	open := a.bar()
	defer open()
	err := inTrouble(ctx, func() error {
		made, err := a.adm.CreateACLs(ctx, rule())
		for _, r := range made {
			err = errors.Join(err, r.Err)
		}
		return err
	})
	if err != nil {
		return err
	}
	select {
	case <-time.After(f.For):
	case <-ctx.Done():
	}
	err = inTrouble(ctx, func() error {
		gone, err := a.adm.DeleteACLs(ctx, rule())
		for _, r := range gone {
			err = errors.Join(err, r.Err)
		}
		return err
	})
	a.note("they may write to %s again", a.retry)
	return err
}

// inTrouble asks until it is answered, for the brokers may be down.
func inTrouble(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if err == nil || pause(ctx, 200*time.Millisecond) != nil {
			return err
		}
	}
}

// bar notes that no member can start now; what it returns notes that one can again.
func (a *Arena) bar() (open func()) {
	a.barred.Store(math.MaxInt64)
	return func() { a.barred.Store(time.Now().UnixNano()) }
}

// remake deletes the retry topic and makes another of its name, once no broker knows the old one. What waits in it is gone.
func (a *Arena) remake(ctx context.Context) error {
	a.note("%s is deleted", a.retry)
	a.denying.Lock()
	defer a.denying.Unlock()
	open := a.bar()
	defer open()
	from := time.Now().UnixNano()
	gone := func() bool {
		if _, err := a.adm.DeleteTopic(ctx, a.retry); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return false
		}
		return a.everywhere(ctx, kerr.UnknownTopicOrPartition)
	}
	for !gone() {
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	g := Gone{Topic: a.retry, From: from, Until: time.Now().UnixNano()}
	for {
		_, err := a.adm.CreateTopic(ctx, partitions/2, -1, nil, a.retry)
		if (err == nil || errors.Is(err, kerr.TopicAlreadyExists)) && a.everywhere(ctx, nil) {
			a.note("%s is made anew", a.retry)
			g.Anew = time.Now().UnixNano()
			a.mu.Lock()
			a.gone = append(a.gone, g)
			a.mu.Unlock()
			return nil
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// everywhere reports whether all brokers say the same of the retry topic.
func (a *Arena) everywhere(ctx context.Context, want error) bool {
	for _, id := range a.nodes {
		resp, err := a.cl.Broker(int(id)).RetriableRequest(ctx, topicRequest(a.retry))
		if err != nil {
			return false
		}
		meta, ok := resp.(*kmsg.MetadataResponse)
		if !ok || len(meta.Topics) != 1 || !errors.Is(kerr.ErrorForCode(meta.Topics[0].ErrorCode), want) {
			return false
		}
	}
	return true
}

func topicRequest(name string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(name)
	req.Topics = append(req.Topics, t)
	return req
}
