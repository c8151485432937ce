package chaos

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// FaultKind is what goes wrong.
type FaultKind string

// The kinds of faults, of processes and of brokers.
const (
	Kill    FaultKind = "kill"    // SIGKILL, at any moment
	Point   FaultKind = "point"   // SIGKILL at a named point
	Zombie  FaultKind = "zombie"  // SIGSTOP for longer than the session, then SIGCONT
	Halt    FaultKind = "halt"    // the same, at a named point of a takeover
	Nap     FaultKind = "nap"     // SIGSTOP for less than the session
	Restart FaultKind = "restart" // SIGTERM, and again from the start
	Roll    FaultKind = "roll"    // all members, one after the other
	Storm   FaultKind = "storm"   // others join and leave at once

	BrokerKill  FaultKind = "broker kill"  // SIGKILL of one of the brokers, and a start
	LeaderKill  FaultKind = "leader kill"  // the same of the active controller
	CoordKill   FaultKind = "coord kill"   // and of the group's coordinator
	BrokerPause FaultKind = "broker pause" // SIGSTOP of one, and SIGCONT
	Quorum      FaultKind = "quorum loss"  // two of three are killed
	BrokerRoll  FaultKind = "broker roll"  // all brokers, cleanly, one after the other
	Deny        FaultKind = "denied"       // no right to write to the retry topic
	NetCut      FaultKind = "network"      // of one member, see Mode
	Remake      FaultKind = "remake"       // the retry topic is deleted, and made anew
)

// Fault is one thing that goes wrong.
type Fault struct {
	Kind  FaultKind
	Wait  time.Duration // before it, since the one before
	Slot  int           // which member, or broker
	Point string        // with Point and Halt
	After int           // with Point: when it is passed for the so many-th time
	For   time.Duration // how long, where it has a length
	// With NetCut: how, to which broker (0: all), and of which requests (LostAck).
	Mode   Mode
	Broker int
	Key    int16
}

// String is the fault as a line of the plan.
func (f Fault) String() string {
	s := fmt.Sprintf("after %v: %s, %d", f.Wait.Round(time.Millisecond), f.Kind, f.Slot)
	switch f.Kind {
	case Point, Halt:
		s += fmt.Sprintf(", at %q (%d)", f.Point, f.After)
	case NetCut:
		s += fmt.Sprintf(", %s to broker %d (0: all), of requests %d", f.Mode, f.Broker, f.Key)
	default:
	}
	if f.For > 0 {
		s += fmt.Sprintf(", for %v", f.For.Round(time.Millisecond))
	}
	return s
}

// dice is what a plan is made with.
type dice struct{ *rand.Rand }

func newDice(seed, stream uint64) dice { return dice{rand.New(rand.NewPCG(seed, stream))} }

func (d dice) between(low, high time.Duration) time.Duration {
	return low + time.Duration(d.Int64N(int64(high-low)))
}

// ProcessPlan plans n faults of so many processes with such a session. It is a function of the seed and the stream, which tells plans of one
// run apart. Of every three faults one is at a named point, and each point comes up before any does again.
func ProcessPlan(seed, stream uint64, n, slots int, session time.Duration) (plan []Fault) {
	d := newDice(seed, stream)
	var points, halts []int
	for i := range n {
		f := Fault{Wait: d.between(session/3, session*4/3), Slot: d.IntN(slots)}
		k := d.IntN(100)
		switch {
		case i%3 == 0:
			if len(points) == 0 {
				points = d.Perm(len(Points))
			}
			f.Kind, f.Point, f.After = Point, Points[points[0]], 1+d.IntN(8)
			points = points[1:]
		case k < 38:
			f.Kind = Kill
		case k < 53:
			f.Kind, f.For = Zombie, d.between(session*5/4, session*2)
		case k < 68:
			if len(halts) == 0 {
				halts = d.Perm(len(HaltPoints))
			}
			f.Kind, f.For = Halt, d.between(session*5/4, session*2)
			f.Point, f.After = HaltPoints[halts[0]], 1
			halts = halts[1:]
		case k < 78:
			f.Kind, f.For = Nap, d.between(session/20, session/3)
		case k < 90:
			f.Kind = Restart
		case k < 96:
			f.Kind, f.For = Storm, d.between(session/3, session)
		default:
			f.Kind = Roll
		}
		plan = append(plan, f)
	}
	return plan
}

// BrokerPlan plans n faults of three brokers. Of every eleven there are four kills at random, one each of the controller and the
// coordinator, three pauses, one loss of the quorum and one clean roll.
func BrokerPlan(seed, stream uint64, n int) (plan []Fault) {
	d := newDice(seed, stream)
	kinds := []FaultKind{
		BrokerKill, BrokerKill, BrokerKill, BrokerKill, LeaderKill, CoordKill, BrokerPause, BrokerPause, BrokerPause, Quorum, BrokerRoll,
	}
	var order []int
	for range n {
		if len(order) == 0 {
			order = d.Perm(len(kinds))
		}
		f := Fault{Kind: kinds[order[0]], Wait: d.between(500*time.Millisecond, 2*time.Second), Slot: d.IntN(3)}
		order = order[1:]
		switch f.Kind {
		case BrokerKill, LeaderKill, CoordKill:
			f.For = d.between(200*time.Millisecond, 3*time.Second)
		case BrokerPause:
			f.For = d.between(2*time.Second, 7*time.Second)
		case Quorum:
			f.For = d.between(3*time.Second, 8*time.Second)
		default:
		}
		plan = append(plan, f)
	}
	return plan
}

// MemberPlan plans n faults of the members of a group whose brokers fail too: their network in all its modes in turn, their right to write to
// the retry topic, and their lives.
func MemberPlan(seed, stream uint64, n, slots int) (plan []Fault) {
	d := newDice(seed, stream)
	keys := []int16{int16(kmsg.Produce), int16(kmsg.OffsetCommit), int16(kmsg.Heartbeat), int16(kmsg.ConsumerGroupHeartbeat), int16(kmsg.Fetch), int16(kmsg.JoinGroup)}
	var modes []int
	for i := range n {
		f := Fault{Wait: d.between(time.Second, 5*time.Second), Slot: d.IntN(slots), For: d.between(time.Second, 4*time.Second)}
		switch {
		case i%12 == 7:
			f.Kind = Remake
		case i%5 == 1:
			f.Kind = Deny
		case i%5 == 3:
			f.Kind, f.For = Kill, 0
		default:
			if len(modes) == 0 {
				modes = d.Perm(len(Modes))
			}
			f.Kind, f.Mode = NetCut, Modes[modes[0]]
			modes = modes[1:]
			if f.Mode == LostAck {
				f.Key = keys[d.IntN(len(keys))]
			}
			f.Broker = d.IntN(4) // 0: all of them
		}
		plan = append(plan, f)
	}
	return plan
}
