package kfake_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// sieve is a handler that postpones, until it is opened, what it does not let pass, and counts what it has finished.
type sieve struct {
	mu     sync.Mutex
	open   bool
	passes func(offset int64) bool
	times  map[int64]int
}

func (s *sieve) handle(m *retriable.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open && !s.passes(m.Source.Offset) {
		return retriable.Postpone(20 * time.Minute)
	}
	if s.times == nil {
		s.times = map[int64]int{}
	}
	s.times[m.Source.Offset]++
	return nil
}

func (s *sieve) opened() (finished int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = true
	return len(s.times)
}

// again returns how many deliveries were not the first that finished.
func (s *sieve) again() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.times {
		n += k - 1
	}
	return n
}

// chance lets a share of all but the first offset pass.
func chance(share float64) func(int64) bool {
	r := rand.New(rand.NewPCG(1, 2))
	kept := map[int64]bool{0: false}
	return func(o int64) bool {
		v, ok := kept[o]
		if !ok {
			v = r.Float64() < share
			kept[o] = v
		}
		return v
	}
}

// However many finish above those that wait, the map tells of all of them: reading waits before it could not.
func TestReadingWaitsBeforeTheMapWouldBeCut(t *testing.T) { // I5
	for _, c := range []struct {
		name    string
		waits   float64
		n       int
		between [2]int // read when the bound is reached
	}{
		{"every other waits", 0.5, 40_000, [2]int{20_000, 30_000}},
		{"one in ten waits", 0.1, 80_000, [2]int{36_000, 60_000}},
		{"all but one in a hundred wait", 0.99, 40_000, [2]int{20_000, 30_000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, "orders", func(b *bed) {
				s := &sieve{passes: chance(1 - c.waits)}
				b.produce("orders", 0, seq(c.n)...)
				var e events
				topic := retriable.Topic("orders", handles(s.handle), none())
				r := b.begin("g", patient(), retriable.Hooks(&e), topic)
				time.Sleep(10 * time.Second)
				p := r.partition("orders", 0)
				read := p.Held + int(r.Stats().Handled)
				t.Logf("%d read, %d wait; the map is full to %.2f", read, p.Held, p.MapFill)
				if !p.Paused || read < c.between[0] || read > c.between[1] || p.Pending > 0 || p.Watermark != 0 {
					t.Errorf("%d of %d records are read, of them %d wait and %d are pending; paused: %v", read, c.n, p.Held, p.Pending, p.Paused)
				}
				if p.MapFill <= 0.05 || p.MapFill > 1 {
					t.Errorf("the map is full to %v", p.MapFill)
				}
				for _, c := range list(&e, &e.commits) {
					if c.Cut {
						t.Fatalf("a map was cut: %+v", c)
					}
				}
				finished := s.opened()
				r.clean()

				r = b.begin("g", topic)
				b.until("all is handled", 10*time.Minute, func() bool { return r.partition("orders", 0).Watermark == int64(c.n) })
				wantEqual(t, "skipped", r.Stats().Skipped, finished)
				wantEqual(t, "delivered again", s.again(), 0)
				wantEqual(t, "cut", r.Stats().MapCuts, 0)
				r.clean()
			})
		})
	}
}

// A broker that allows less is learned from its refusal: what does not fit any more is cut and told of once, and from then on reading
// waits for what does.
func TestAnAllowanceOfLessMetadataIsLearned(t *testing.T) {
	const n, allowed = 60_000, 512
	bubble(t, "orders:2", func(b *bed) {
		longest := 0
		refused := b.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Err: kerr.OffsetMetadataTooLarge, Count: -1,
			When: func(req kmsg.Request) bool {
				most := 0
				for _, t := range req.(*kmsg.OffsetCommitRequest).Topics {
					for _, p := range t.Partitions {
						if p.Metadata != nil {
							most = max(most, len(*p.Metadata))
						}
					}
				}
				if most <= allowed {
					longest = max(longest, most)
				}
				return most > allowed
			},
		})
		s := &sieve{passes: chance(0.5)}
		b.produce("orders", 0, seq(n)...)
		var e events
		topic := retriable.Topic("orders", handles(s.handle), none())
		r := b.begin("g", patient(), retriable.Hooks(&e), topic)
		time.Sleep(10 * time.Second)
		if refused.Hits() == 0 {
			t.Fatal("nothing was refused: the story shows nothing")
		}
		cut := r.Stats().MapCuts
		if cut == 0 {
			t.Error("nothing was cut")
		}
		wantEqual(t, "warnings of it", len(b.log.lines("level=WARN", "left out")), 1)
		wantEqual(t, "warnings of what was learned", len(b.log.lines("level=WARN", "offset.metadata.max.bytes")) > 0, true)
		hooked := 0
		for _, c := range list(&e, &e.commits) {
			if c.Cut && c.Err == nil {
				hooked++
			}
		}
		wantEqual(t, "told by hooks", hooked, cut)
		s.opened()
		time.Sleep(21 * time.Minute) // what was read before the lesson is over

		s.mu.Lock()
		s.open, s.passes = false, chance(0.5)
		s.mu.Unlock()
		b.produce("orders", 1, seq(n)...)
		before := r.Stats().MapCuts
		time.Sleep(10 * time.Second)
		p := r.partition("orders", 1)
		t.Logf("%d characters, %d wait", longest, p.Held)
		if !p.Paused || p.Held < 500 || p.Held > 2000 {
			t.Errorf("%d wait; paused: %v", p.Held, p.Paused)
		}
		wantEqual(t, "cut since", r.Stats().MapCuts-before, 0)
		s.opened()
		r.clean()
	})
}

// A broker that takes no map at all, or seems to, is told of too, though no commit would say anything new: the hooks and Stats learn that what is
// finished above the watermark would come again.
func TestAMapThatIsLeftOutIsTold(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		var e events
		release := make(chan struct{})
		r := b.begin("g", patient(), retriable.MaxCrashes(0), retriable.Hooks(&e), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			if m.Offset == 0 {
				<-release
			}
			return nil
		}), retriable.Ordering(retriable.Unordered), none()))
		refused := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Err: kerr.OffsetMetadataTooLarge, Count: 2}) // the map, and without it
		b.produce("orders", 0, seq(3)...)
		time.Sleep(5 * time.Second)
		wantEqual(t, "refused", refused.Hits(), 2)
		wantEqual(t, "watermark", r.partition("orders", 0).Watermark, 0)
		told := 0
		for _, c := range list(&e, &e.commits) {
			if c.Cut && c.Err == nil {
				told++
			}
		}
		wantEqual(t, "told by hooks", told, 1)
		wantEqual(t, "told by Stats", r.Stats().MapCuts, 1)
		close(release)
		r.clean()
	})
}
