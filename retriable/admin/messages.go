package admin

import (
	"context"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
	"github.com/retriable-kafka/retriable-go/retriable/internal/wire"
)

// message is what lies in a topic as one record, or as several that are its parts.
type message struct {
	kind messageKind
	// rec is the record, or the joined one, which stands at its first part's offset; of a part, that part. Its headers are all there but for
	// those of chunks.
	rec   *kgo.Record
	parts int
	// covers is the offsets of its records, each with the unused ones before it.
	covers []watermark.Run
	group  string // the id of its chunks; "" for a record
}

type messageKind int

const (
	whole  messageKind = iota // a record, or all parts of a message
	repeat                    // a part again, of a message that was whole before
	part                      // a part that cannot be joined: others are not there, or it is not as it should be
)

// joinLimits bound what is kept of messages whose parts are still to come: above what consumers take by default, for theirs may be higher too.
func joinLimits() wire.Limits {
	return wire.Limits{
		MaxChunks: 16 << 10, MaxMessageBytes: 256 << 20, MaxBytes: 512 << 20, MaxGroups: 4096,
		Deadline: math.MaxInt64, // the end of the log is the deadline
	}
}

// joiner joins the records of one partition.
type joiner struct {
	j    *wire.Joiner
	next int64           // behind the last record
	from map[int64]int64 // of parts that wait: the first of the unused offsets before them
}

func newJoiner(from int64) *joiner {
	return &joiner{j: wire.NewJoiner(joinLimits()), next: from, from: map[int64]int64{}}
}

// messages hands the messages of a stretch of one partition to visit, in the order in which they are complete, and then the parts that are not.
func (s *scanner) messages(ctx context.Context, name topicPartition, sp Span, visit func(*message) (more bool, err error)) error {
	j, stopped := newJoiner(sp.From), false
	err := s.scan(ctx, map[topicPartition]Span{name: sp}, func(r *kgo.Record) (bool, error) {
		for _, m := range j.add(r) {
			more, err := visit(m)
			if err != nil || !more {
				stopped = true
				return false, err
			}
		}
		return true, nil
	})
	if err != nil || stopped {
		return err
	}
	for _, m := range j.rest() {
		if more, err := visit(m); err != nil || !more {
			return err
		}
	}
	return nil
}

// The joiner's clock stands still.
var epoch = time.Unix(0, 0)

func (j *joiner) add(r *kgo.Record) []*message {
	from := j.next
	j.next = r.Offset + 1
	c, chunk, _ := wire.ParseChunk(r.Headers)
	res := j.j.Add(epoch, r)
	j.from[r.Offset] = from
	m := &message{rec: r, parts: 1}
	if chunk && c.Count > 1 {
		m.group = string(c.Group)
	}
	switch res.Kind {
	case wire.Part:
		return nil
	case wire.Rejected:
		return j.rejected(res.Rejection)
	case wire.Repeat:
		m.kind = repeat
		m.covers = j.take(r.Offset)
	case wire.Whole:
		m.rec = res.Record
		m.covers = j.take(r.Offset)
	case wire.Joined:
		m.rec, m.parts = res.Record, int(c.Count)
		m.covers = j.take(res.Offsets...)
	}
	return []*message{m}
}

// take forgets records that wait and returns what they cover.
func (j *joiner) take(offsets ...int64) (runs []watermark.Run) {
	for _, o := range offsets {
		runs = append(runs, watermark.Run{From: j.from[o], To: o + 1})
		delete(j.from, o)
	}
	return runs
}

func (j *joiner) rejected(rej *wire.Rejection) (ms []*message) {
	for _, r := range rej.Parts {
		ms = append(ms, &message{kind: part, rec: r, parts: 1, covers: j.take(r.Offset)})
	}
	j.take(rej.Repeats...)
	return ms
}

// rest is the parts that wait for others that are not there.
func (j *joiner) rest() (ms []*message) {
	for _, rej := range j.j.Expire(time.Unix(1<<40, 0)) {
		ms = append(ms, j.rejected(rej)...)
	}
	return ms
}
