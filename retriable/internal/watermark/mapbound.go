package watermark

import "math/bits"

// Bound returns the most characters that [Map.Encode] can need, uncut, whichever of the pending records finish: undone is
// how many offsets from the base up to the read position are not done yet, span how many offsets these are in all, and
// notes the length of Map.Notes. An offset that never came counts as what Map.Done will take it for. While the bound is
// within a limit no claim is cut at it, so intake that heeds it loses none. It costs a few dozen instructions.
//
// It grows with each argument, so that nothing that happens but intake raises it: a finished record lowers undone, an
// advancing base both. Proof. Let d <= n = undone be the offsets still undone below the highest claim, at the time of
// Encode; they and the claims are S <= s = span offsets.
//
//   - A bitset has S bits: at most s.
//   - Gaps are at most d+1 numbers x, that sum up to S-d. Rice's code with parameter k takes floor(x/2^k)+1+k bits for x,
//     so all take at most
//     (d+1)(1+k) + floor((S-d)/2^k). One more in d adds 1+k and takes away at most one: so no more than
//     (n+1)(1+k) + floor((s-n)/2^k).
//   - The code with 3·2^k takes ceil(y/3)+2+k bits, y = floor(x/2^k). As ceil(y/3) <= (y+2)/3, all take at most
//     (d+1)(2+k) + floor((floor((S-d)/2^k) + 2(d+1)) / 3), and one more in d adds to that as well.
//
// Encode takes the shortest of these and others, and tries every code for the gaps, so the least of any of these bounds
// holds; those tried here are the ones around the mean gap. What is in front of the body is at its longest, but for the
// given notes. From a few hundred offsets on the body's bound is within an eighth of the binary logarithm of s over n,
// less than which no codec could promise.
func Bound(undone int, span int64, notes int) int {
	s := uint64(max(span, 0))
	n := min(uint64(max(undone, 0)), s)
	head := headLen + 1 + 4 + uvarintLen(1<<31-1)
	if notes = min(notes, MaxNotes); notes > 0 {
		head += 1 + notes
	}
	raw := uint64(head+2*uvarintLen(s)) + min((s+7)/8, gapsBound(n, s), huge)
	return int((8*raw + 5) / 6)
}

// huge is a length far above any limit, that fits an int anywhere.
const huge = 1 << 28

// gapsBound returns the most bytes that gaps take, with their parameter, or huge.
func gapsBound(n, s uint64) uint64 {
	if n > huge {
		return huge // before it is multiplied
	}
	least := ^uint64(0)
	near := uint64(bits.Len64((s - n) / (n + 1)))
	for k := near - min(near, 2); k <= near+1; k++ {
		least = min(least, (n+1)*(1+k)+(s-n)>>k)
		least = min(least, (n+1)*(2+k)+((s-n)>>k+2*(n+1))/3)
	}
	return uint64(paramLen(methodGaps)) + (least+7)/8
}
