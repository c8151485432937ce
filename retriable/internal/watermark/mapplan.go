package watermark

import (
	"encoding/binary"
	"math/bits"
	"sort"
)

// plan is a way to write runs: as many of them as fit, the lowest first.
type plan struct {
	method byte
	done   code   // methodGaps: of the gaps; methodRuns: of done runs
	undone code   // methodRuns: of undone runs
	kept   int    // runs claimed as a whole
	top    int64  // one past the highest claim: inside runs[kept] if that is cut in part
	bits   uint64 // the body's length
}

// paramLen returns how many bytes of parameters a method has: one for each code.
func paramLen(method byte) int { return max(0, int(method)-methodBitset) }

// size returns the plan's length in bytes, without what is the same for all plans.
func (p *plan) size() uint64 { return uint64(paramLen(p.method)) + (p.bits+7)/8 }

// betterThan reports whether p claims more than q, or the same in fewer bytes.
func (p *plan) betterThan(q *plan) bool {
	if p.top != q.top {
		return p.top > q.top
	}
	return p.size() < q.size()
}

// bestPlan returns the plan that claims most, of those the shortest, of those the first, in at most room bytes.
func bestPlan(base int64, runs []Run, room int) plan {
	if len(runs) == 0 {
		return plan{}
	}
	first, end := runs[0].From, runs[len(runs)-1].To
	// Both numbers in front take what the whole map needs, though a cut one might do with less.
	room -= uvarintLen(uint64(first-base)) + uvarintLen(uint64(end-first))
	budget := func(method byte) uint64 { return 8 * uint64(max(0, room-paramLen(method))) }
	best := plan{top: first}
	for _, p := range [...]plan{
		planBitset(runs, budget(methodBitset)),
		planGaps(runs, budget(methodGaps)),
		planRuns(runs, budget(methodRuns)),
	} {
		if p.betterThan(&best) {
			best = p
		}
	}
	return best
}

// planBitset plans a bit per offset.
func planBitset(runs []Run, budget uint64) plan {
	first, top := runs[0].From, runs[len(runs)-1].To
	if uint64(top-first) > budget {
		top = first + int64(budget)
	}
	kept := sort.Search(len(runs), func(i int) bool { return runs[i].To > top })
	if kept == len(runs) || runs[kept].From >= top {
		top = endOf(runs, kept)
	}
	return plan{method: methodBitset, kept: kept, top: top, bits: uint64(top - first)}
}

// endOf returns one past the highest claim of the first n runs.
func endOf(runs []Run, n int) int64 {
	if n == 0 {
		return runs[0].From
	}
	return runs[n-1].To
}

// planGaps plans the done offsets before each undone one, with the code that claims most. It leaves out only codes that
// cannot be the best: [Bound] relies on it.
func planGaps(runs []Run, budget uint64) plan {
	best, gaps := plan{top: runs[0].From}, uint64(1)
	for c := range codesFrom(likelyGap(runs)) {
		// What is claimed by now would have to fit, to be more or the same.
		if c.least(gaps, uint64(best.top-runs[0].From)+1-gaps) > budget {
			continue
		}
		p, n := reachGaps(runs, c, budget)
		if p.top < best.top || p.top == best.top && p.bits >= best.bits {
			continue
		}
		best, gaps = p, n
		if p.kept == len(runs) {
			budget = p.bits - 1 // only what is shorter would be better
		}
	}
	return best
}

// likelyGap returns a code near the best for all gaps.
func likelyGap(runs []Run) code {
	gaps, sum := uint64(1), uint64(0)
	for i, r := range runs {
		sum += uint64(r.To - r.From)
		if i > 0 {
			gaps += uint64(r.From - runs[i-1].To)
		}
	}
	return likely(sum / gaps)
}

// reachGaps plans gaps with code c, and says how many these are.
func reachGaps(runs []Run, c code, budget uint64) (p plan, gaps uint64) {
	n, used, zero, last := 0, uint64(0), c.len(0), runs[0].From
	for _, r := range runs {
		// One undone offset ends the gap that the last run was; each other one ends a gap of nothing.
		zeros := uint64(max(r.From-last, 1) - 1)
		if zeros > budget {
			break // before it is multiplied
		}
		next := used + zeros*zero + c.len(uint64(r.To-r.From))
		if next > budget {
			break
		}
		n, used, last, gaps = n+1, next, r.To, gaps+zeros+1
	}
	return plan{method: methodGaps, done: c, kept: n, top: endOf(runs, n), bits: used}, max(gaps, 1)
}

// planRuns plans the lengths of done and undone runs in turn. Its codes are fit to all runs that could fit; if not all do
// then again to those that did, for the others may be of another kind.
func planRuns(runs []Run, budget uint64) plan {
	best := plan{top: runs[0].From}
	n := min(len(runs), int(budget/2)+1)
	for range 4 {
		p := reachRuns(runs, lengths{runs[:n], false}.fit(), lengths{runs[:n], true}.fit(), budget)
		if p.top > best.top || p.top == best.top && p.bits < best.bits {
			best = p
		}
		if p.kept == 0 || p.kept >= n {
			break
		}
		n = p.kept
	}
	return best
}

// reachRuns plans runs with codes for the lengths of done and undone ones.
func reachRuns(runs []Run, done, undone code, budget uint64) plan {
	n, used := 0, uint64(0)
	for i, r := range runs {
		next := used + done.len(uint64(r.To-r.From-1))
		if i > 0 {
			next += undone.len(uint64(r.From - runs[i-1].To - 1))
		}
		if next > budget {
			break
		}
		n, used = n+1, next
	}
	return plan{method: methodRuns, done: done, undone: undone, kept: n, top: endOf(runs, n), bits: used}
}

// lengths are those of runs, or of the stretches between them, each less 1.
type lengths struct {
	runs    []Run
	between bool
}

func (l lengths) count() int {
	if l.between {
		return len(l.runs) - 1
	}
	return len(l.runs)
}

func (l lengths) at(i int) uint64 {
	if l.between {
		return uint64(l.runs[i+1].From - l.runs[i].To - 1)
	}
	return uint64(l.runs[i].To - l.runs[i].From - 1)
}

// fit returns the code in which the lengths are shortest.
func (l lengths) fit() (best code) {
	n := l.count()
	if n <= 0 {
		return 0
	}
	var sum uint64
	for i := range n {
		sum += l.at(i)
	}
	shortest := ^uint64(0)
	for c := range codesFrom(likely(sum / uint64(n))) {
		if c.least(uint64(n), sum) >= shortest {
			continue
		}
		if total := l.total(c, shortest); total < shortest {
			best, shortest = c, total
		}
	}
	return best
}

// total returns the length of all codes, or of so many of them that they pass limit.
func (l lengths) total(c code, limit uint64) (sum uint64) {
	for i := range l.count() {
		if sum += c.len(l.at(i)); sum > limit {
			break
		}
	}
	return sum
}

// append writes the plan: skip, span, parameters and body.
func (p *plan) append(b []byte, base int64, runs []Run) []byte {
	first := runs[0].From
	b = binary.AppendUvarint(b, uint64(first-base))
	b = binary.AppendUvarint(b, uint64(p.top-first))
	w := bitWriter{b: append(b, []byte{byte(p.done), byte(p.undone)}[:paramLen(p.method)]...)}
	last := first
	for _, r := range runs {
		if r.From >= p.top {
			break
		}
		p.put(&w, uint64(r.From-last), uint64(min(r.To, p.top)-r.From))
		last = r.To
	}
	return w.bytes()
}

// put writes one run and the undone offsets in front of it, of which the first run has none.
func (p *plan) put(w *bitWriter, undone, done uint64) {
	switch p.method {
	case methodBitset:
		w.fill(0, undone)
		w.fill(^uint64(0), done)
	case methodGaps:
		for ; undone > 1; undone-- {
			p.done.put(w, 0)
		}
		p.done.put(w, done)
	case methodRuns:
		if undone > 0 {
			p.undone.put(w, undone-1)
		}
		p.done.put(w, done-1)
	}
}

// uvarintLen returns how many bytes a uvarint of v has.
func uvarintLen(v uint64) int { return max(1, (bits.Len64(v)+6)/7) }
