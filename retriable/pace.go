package retriable

import (
	"runtime"
	"time"
)

// Where handlers take next to nothing, more workers than half of the processors only stand in the way of those who fetch: a runnable goroutine keeps
// its processor from looking at the network. So while records take less than briskAt no further worker is woken. That is judged by how long records
// took, never by what they might: who is then found at a handler that does take time is made up for, and where nobody else is left all workers come.

// pace is how fast the handlers of a pool are; guarded by the pool's lock.
type pace struct {
	each   time.Duration // what a record took of late
	enough int           // so many workers do while that is next to nothing
	slow   int           // workers that were found at the record at which they had been before
	late   *time.Timer   // looks whether the handlers are still brisk, while somebody counts on that
	armed  bool          // it will look
}

const (
	briskAt  = 300 * time.Nanosecond
	notBrisk = time.Millisecond // what is believed until it has been seen
	// briskFor is how long one may be mistaken. No shorter, for a worker may be without a processor for that long.
	briskFor = 2 * time.Millisecond
)

func newPace() pace { return pace{each: notBrisk, enough: max(1, runtime.GOMAXPROCS(0)/2)} }

// stint is what a worker measures of its turn: the time at its records, without that in which it had given its processor away.
type stint struct {
	from time.Time
	busy time.Duration
}

func (s *stint) begin() { s.from = time.Now() }
func (s *stint) pause() { s.busy += time.Since(s.from) }

// note takes a turn's measure in. A clock that stood still has measured nothing: fake time is never brisk.
func (pc *pace) note(s stint, records int) {
	if s.busy > 0 && records > 0 {
		pc.each += (s.busy/time.Duration(records) - pc.each) / 8
	}
}

// enoughAwake reports whether no further worker is needed, and has that looked after.
func (pl *pool) enoughAwake(awake int) bool {
	pc := &pl.pace
	if pc.each >= briskAt || awake-pc.slow < pc.enough {
		return false
	}
	if !pc.armed {
		pc.armed = true
		pl.look()
		if pc.late == nil {
			pc.late = time.AfterFunc(briskFor, pl.stillBrisk)
		} else {
			pc.late.Reset(briskFor)
		}
	}
	return awake-pc.slow >= pc.enough
}

// look finds the workers at work that have ended nothing since it last looked.
func (pl *pool) look() {
	for _, w := range pl.all {
		if w.at == nil {
			continue
		}
		ended := w.at.c.counts(w).ended()
		pl.setSlow(w, ended == w.looked)
		w.looked = ended
	}
}

func (pl *pool) setSlow(w *worker, slow bool) {
	if slow == w.slow {
		return
	}
	if w.slow = slow; slow {
		pl.pace.slow++
	} else {
		pl.pace.slow--
	}
}

// stillBrisk is the timer's. A few that are slow are made up for by others, one by one; where nobody else is left handlers are not brisk.
func (pl *pool) stillBrisk() {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.pace.armed = false
	if pl.closed {
		pl.signalEnded()
		return
	}
	pl.look()
	if pl.live-len(pl.idle)-pl.pace.slow < pl.pace.enough {
		pl.pace.each = notBrisk
	}
	pl.wakeOne()
}

// endPace stops the timer, or has it tell when it is over. The lock is held.
func (pl *pool) endPace() {
	if pl.pace.armed && pl.pace.late.Stop() {
		pl.pace.armed = false
	}
}

func (pl *pool) signalEnded() {
	select {
	case pl.ended <- struct{}{}:
	default:
	}
}
