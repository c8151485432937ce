package watermark

import "encoding/binary"

// Crashes is what the notes of a commit tell of deaths of a partition's owners.
type Crashes struct {
	Count int   // takeovers in a row without a clean mark and without progress, 255 at most
	Moved bool  // the watermark has moved since the last of them, one careful record after the other
	Noted int64 // the record that ran alone, −1 for none
}

const (
	noteMoved = 1 << iota
	noteNoted // how far above the commit's offset the noted one is follows
)

// Notes writes them beside a committed offset. A noted record below it is done, and left out.
func (c Crashes) Notes(offset int64) []byte {
	b := []byte{byte(c.Count), 0}
	if c.Moved {
		b[1] |= noteMoved
	}
	if c.Noted >= offset {
		b[1] |= noteNoted
		b = binary.AppendUvarint(b, uint64(c.Noted-offset))
	}
	return b
}

// ReadCrashes takes the notes of a commit at an offset apart, which may be anything (I12). What is no note says nothing.
func ReadCrashes(b []byte, offset int64) (c Crashes, ok bool) {
	none := Crashes{Noted: -1}
	if len(b) < 2 || b[1]&^(noteMoved|noteNoted) != 0 {
		return none, false
	}
	c = Crashes{Count: int(b[0]), Moved: b[1]&noteMoved != 0, Noted: -1}
	above, n := binary.Uvarint(b[2:])
	switch {
	case b[1]&noteNoted == 0 && len(b) == 2:
	case b[1]&noteNoted != 0 && n == len(b)-2 && above < 1<<62:
		c.Noted = offset + int64(above)
	default:
		return none, false
	}
	return c, true
}
