package retriable

import (
	"hash/crc32"
	"sort"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// What is finished above the committed offset travels as a map in the commit's metadata: written with every commit, read with the
// assignment. Reading ahead waits for it: no more is let in than it can tell of, whichever of the records finish.

// readMap takes what the committed map says is done. What is not ours, damaged, or of another topic of that name means no map, and nothing
// else (I12); it is checked against the log's end, and waits for the first fetch where that is not known: fetched says that the end is from there.
// p.mu is held, or nobody else has p yet.
func (p *partition) readMap(f fetchedOffset, fetched bool) {
	p.text = f.text
	if p.end < 0 && f.text != "" {
		p.unread = &f
		return
	}
	p.unread = nil
	m, ok := watermark.DecodeMap(f.text, f.offset, p.end)
	if !ok && fetched {
		// A leader that was just elected may tell a lower end than the one before it. That this is the log the map speaks of its topic's id says,
		// and of each record its epoch.
		m, ok = watermark.DecodeMap(f.text, f.offset, -1)
		ok = ok && m.Topic != 0 && m.Topic == f.topic && m.Epoch >= 0
	}
	if !ok || m.Topic != 0 && f.topic != 0 && m.Topic != f.topic {
		m = watermark.Map{Clean: true} // nothing is known
	}
	p.claims, p.claimEpoch = m.Done, m.Epoch
	p.takeOver(m, f.offset)
}

// foldID makes a number of a topic's id, 0 of none.
func foldID(id [16]byte) uint32 {
	if id == [16]byte{} {
		return 0
	}
	return max(crc32.ChecksumIEEE(id[:]), 1)
}

// encodeMap tells which offsets above base are finished: of what was read, and of what the map that was there before says of the rest.
// And whether the partition is given up in order with it, or what is to be known should the process end. p.mu is held.
func (p *partition) encodeMap(base int64, limit int, last bool) (text string, cut bool) {
	if p.claimEpoch >= 0 && p.window.Epoch() > p.claimEpoch {
		p.claims = nil // what was read is newer than the map knows, and so is all above
	}
	m := watermark.Map{Topic: p.topicID, Epoch: p.window.Epoch(), Done: above(p.window.Done(), base)}
	if last {
		m.Clean = p.c.set.maxCrashes > 0
	} else {
		m.Notes = p.notes(base)
	}
	for _, r := range p.claims {
		r.From = max(r.From, p.window.Next())
		if r.From >= r.To {
			continue
		}
		m.Epoch = max(m.Epoch, p.claimEpoch)
		if n := len(m.Done); n > 0 && m.Done[n-1].To >= r.From {
			m.Done[n-1].To = r.To
			continue
		}
		m.Done = append(m.Done, r)
	}
	if len(m.Done) == 0 && !m.Clean && m.Notes == nil {
		p.fill = 0
		return "", false
	}
	text, kept := m.Encode(base, limit)
	p.fill = float64(len(text)) / float64(max(limit, 1))
	return text, kept < len(m.Done)
}

// above is the runs from base on: records go on being resolved between a look at the watermark and one at the runs.
func above(runs []watermark.Run, base int64) []watermark.Run {
	for len(runs) > 0 && runs[0].From < base {
		if runs[0].From = base; runs[0].To > base {
			break
		}
		runs = runs[1:]
	}
	return runs
}

// leastSpan is how many offsets are always read ahead, though a broker's limit be so small that the map of them may not fit: then it is cut.
const leastSpan = 1024

// reach is how far a map must tell: the end of what is read, or of what is known to be done beyond it.
type reach struct {
	top    int64
	undone int // offsets not known to be done, between the read position and the top
}

// ahead is the reach of the claims beyond the read position; those below it have become items and are let go. p.mu is held.
func (p *partition) ahead() (r reach) {
	r.top = p.window.Next()
	for len(p.claims) > 0 && p.claims[0].To <= r.top {
		p.claims = p.claims[1:]
	}
	for _, run := range p.claims {
		r.undone += int(max(run.From-r.top, 0))
		r.top = run.To
	}
	return r
}

// mapFits reports whether the map fits into a share of the metadata whatever finishes, when the records up to next have been let in too,
// more of which are not known to be done. Nothing but letting in makes it larger (see watermark.Bound), and what lies below the reach has
// been let in before.
func (c *Consumer) mapFits(l load, more int, next int64, share int) bool {
	span := next - l.low
	return next < l.ahead.top || span <= int64(leastSpan/share) ||
		share*watermark.Bound(l.pending+l.held+l.ahead.undone+more, span, watermark.MaxNotes) <= int(c.mapLimit.Load())
}

// mapRoom reports whether the map has room for the first n of recs.
func (c *Consumer) mapRoom(l load, recs []*kgo.Record, n int) bool {
	known := 0
	if recs[0].Offset < l.ahead.top {
		known = sort.Search(n, func(i int) bool { return recs[i].Offset >= l.ahead.top })
	}
	return c.mapFits(l, n-known, recs[n-1].Offset+1, 1)
}

// shorten learns from a refusal that this broker allows less metadata than we thought, and encodes the map anew.
func (c *Consumer) shorten(s snapshot) snapshot {
	limit := min(len(s.text)/2, int(c.mapLimit.Load()))
	if c.mapLimit.Swap(int64(limit)) != int64(limit) {
		c.log.Warn("retriable: the broker allows less commit metadata than thought (offset.metadata.max.bytes); so much less is read ahead of a record that waits",
			"limit", limit)
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if s.text, s.cut = s.p.encodeMap(s.at.Offset, limit, s.last); len(s.text) > limit {
		s.text = ""
	}
	return s
}

// tellCut counts a commit whose map was cut, and logs the first of an incident.
func (p *partition) tellCut(s snapshot, first bool) {
	if !s.cut {
		return
	}
	p.c.total.mapCuts.Add(1)
	if first {
		p.c.sometimes(&p.c.cutLogged, func() {
			p.c.log.Warn("retriable: not all that is finished fits a commit's metadata; the highest offsets are left out and would be delivered again after a restart",
				"topic", p.topic, "partition", p.partition, "committed", s.at.Offset, "characters", len(s.text))
		})
	}
}
