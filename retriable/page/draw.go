package page

import (
	"fmt"
	"strings"
)

// What drawings are measured in: their width, the height of the window's, and of the log's.
const (
	wide    = 1000.0
	tall    = 30.0
	logTall = 8.0
	least   = 2.5 // how wide or high something is drawn that there is, however small it is
)

// rect is a rectangle of a drawing. Its class gives it its colour.
type rect struct {
	Class      string
	X, Y, W, H float64
	Title      string
}

// draw makes a partition's drawings, to scale: of the log from the committed offset, or the watermark where nothing is committed, to its end; and, larger,
// of the window between watermark and read position.
func draw(p *partition) strip {
	s := strip{partition: *p, Bars: drawWindow(p)}
	from := p.Watermark
	if p.Committed >= 0 {
		from = min(p.Committed, from)
	}
	if span := p.End - from; span > 0 {
		x := func(offset int64) float64 { return wide * float64(offset-from) / float64(span) }
		part := func(class, title string, a, b int64) {
			if b > a {
				s.Log = append(s.Log, rect{class, x(a), 0, max(x(b)-x(a), least), logTall, title + " " + offsets(a, b)})
			}
		}
		part("done", "finished, not committed yet:", from, p.Watermark)
		part("window", "the window:", p.Watermark, p.Next)
		part("unread", "not read yet:", p.Next, p.End)
	}
	s.Label = label(p)
	return s
}

// offsets names a stretch.
func offsets(from, to int64) string {
	if to-from == 1 {
		return "offset " + grouped(fmt.Sprint(from))
	}
	return "offsets " + grouped(fmt.Sprint(from)) + " to " + grouped(fmt.Sprint(to-1))
}

// drawWindow draws each stretch of the window as a column: what its offsets do, one above the other, in their shares. Stretches that do the same are one.
func drawWindow(p *partition) (rs []rect) {
	span := float64(p.Next - p.Watermark)
	for i := 0; i < len(p.Window); {
		c, j := p.Window[i], i+1
		for ; j < len(p.Window) && sameMix(p.Window[j], c); j++ {
			c = joined(c, p.Window[j])
		}
		i = j
		x := wide * float64(c.From-p.Watermark) / span
		w := wide * float64(c.To-c.From) / span
		y := tall
		for _, k := range c.kinds() {
			if k.n == 0 {
				continue
			}
			h := min(max(tall*float64(k.n)/float64(c.To-c.From), 2*least), y)
			y -= h
			rs = append(rs, rect{k.name, x, y, max(w, least), h, fmt.Sprintf("%s %s, of %s", grouped(fmt.Sprint(k.n)), k.name, offsets(c.From, c.To))})
		}
	}
	return rs
}

type kind struct {
	name string
	n    int
}

// kinds returns what a stretch's offsets do, what matters most first: it is drawn below the rest, and never left out.
func (c cell) kinds() [5]kind {
	return [...]kind{{"running", c.Running}, {"producing", c.Producing}, {"held", c.Held}, {"joining", c.Joining}, {"queued", c.Queued}}
}

// sameMix reports whether two stretches do one and the same thing throughout.
func sameMix(a, b cell) bool {
	full := func(c cell) string {
		for _, k := range c.kinds() {
			if int64(k.n) == c.To-c.From {
				return k.name
			}
		}
		return ""
	}
	return full(a) != "" && full(a) == full(b)
}

func joined(a, b cell) cell {
	return cell{a.From, b.To, a.Queued + b.Queued, a.Running + b.Running, a.Held + b.Held, a.Producing + b.Producing, a.Joining + b.Joining}
}

// label says in words what the drawing of a window shows.
func label(p *partition) string {
	if p.Next <= p.Watermark {
		return "the window is empty"
	}
	var all cell
	for _, c := range p.Window {
		all = joined(all, c)
	}
	var parts []string
	for _, k := range all.kinds() {
		if k.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", grouped(fmt.Sprint(k.n)), k.name))
		}
	}
	return "window of " + offsets(p.Watermark, p.Next) + ": " + strings.Join(parts, ", ")
}
