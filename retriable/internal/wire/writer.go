package wire

import (
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

// writer appends headers whose values share one buffer.
type writer struct {
	dst []kgo.RecordHeader
	buf []byte
}

func newWriter(dst []kgo.RecordHeader, headers, bytes int) writer {
	return writer{dst: slices.Grow(dst, headers), buf: make([]byte, 0, bytes)}
}

// add appends a header whose value is all of buf from start on.
func (w *writer) add(key string, start int) {
	end := len(w.buf)
	w.dst = append(w.dst, kgo.RecordHeader{Key: key, Value: w.buf[start:end:end]})
}

func (w *writer) uint64(key string, v uint64) {
	start := len(w.buf)
	w.buf = binary.BigEndian.AppendUint64(w.buf, v)
	w.add(key, start)
}

func (w *writer) number(key string, v int64) {
	start := len(w.buf)
	w.buf = strconv.AppendInt(w.buf, v, 10)
	w.add(key, start)
}

func (w *writer) bytes(key string, v []byte) {
	start := len(w.buf)
	w.buf = append(w.buf, v...)
	w.add(key, start)
}

// text leaves out what is empty.
func (w *writer) text(key, v string) {
	if v == "" {
		return
	}
	start := len(w.buf)
	w.buf = append(w.buf, v...)
	w.add(key, start)
}

func (w *writer) origin(o Origin) {
	if o.Known() {
		w.text(TopicHeader, o.Topic)
		w.number(PartitionHeader, int64(o.Partition))
		w.number(OffsetHeader, o.Offset)
	}
	if ms := o.Time.UnixMilli(); !o.Time.IsZero() && -1 <= ms && ms <= MaxTime {
		w.number(TimeHeader, ms)
	}
}

func (w *writer) failure(first int64, text string) {
	if first > 0 {
		w.number(FirstFailureHeader, min(first, MaxTime))
	}
	w.text(ErrorHeader, text)
}
