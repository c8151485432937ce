package page

import (
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// view is what the templates get: the state, and what this reader may see of it.
type view struct {
	*state
	Busy      []strip // partitions with something to show
	Idle      []partition
	Left      int // partitions that are not shown
	MayReplay bool
	MayRead   bool // payloads
	HasDead   bool // there is somebody to ask for letters
	Token     string
}

// strip is a partition with its drawing.
type strip struct {
	partition
	Log   []rect // the log from the committed offset to its end
	Bars  []rect // the window
	Label string // what the drawing shows, in words
}

// view returns what the reader of r may see.
func (p *Page) view(r *http.Request) *view {
	s := *p.look() // shared with others
	s.Problems, s.Checked = p.health.get(r.Context())
	v := &view{state: &s, MayReplay: p.replays(r), MayRead: p.payloads(r), HasDead: p.letters != nil, Token: p.token}
	for _, d := range p.dead {
		s.Dead = append(s.Dead, d.view(r.Context(), v.MayRead))
	}
	shown := s.Partitions[:min(len(s.Partitions), mostPartitions)]
	v.Left = len(s.Partitions) - len(shown)
	for i := range shown {
		if shown[i].idle() {
			v.Idle = append(v.Idle, shown[i])
			continue
		}
		v.Busy = append(v.Busy, draw(&shown[i]))
	}
	return v
}

// words are the functions of the templates.
var words = template.FuncMap{
	"ago":   func(at, t time.Time) string { return span(at.Sub(t)) },
	"in":    func(at, t time.Time) string { return until(t.Sub(at)) },
	"clock": clock,
	"iso":   func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") },
	"num":   func(v any) string { return grouped(fmt.Sprint(v)) },
	"size":  size,
	"pct":   func(f float64) string { return strconv.FormatFloat(100*f, 'f', 0, 64) + " %" },
	"text":  text,
	"one": func(n int, one, many string) string {
		if n == 1 {
			return one
		}
		return many
	},
}

// span writes a duration for people: two units at most.
func span(d time.Duration) string {
	switch s := int64(max(d, 0) / time.Second); {
	case s < 1:
		return "under 1 s"
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %02d s", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%d h %02d min", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%d d %d h", s/86400, s/3600%24)
	}
}

func until(d time.Duration) string {
	if d <= 0 {
		return "due"
	}
	return "in " + span(d)
}

// clock is a time of day, with the day if it is not within half a day of now.
func clock(at, t time.Time) string {
	if d := t.Sub(at); d > 12*time.Hour || d < -12*time.Hour {
		return t.UTC().Format("2006-01-02 15:04:05")
	}
	return t.UTC().Format("15:04:05")
}

// grouped puts a comma between thousands.
func grouped(n string) string {
	sign := ""
	if strings.HasPrefix(n, "-") {
		sign, n = "-", n[1:]
	}
	for i := len(n) - 3; i > 0; i -= 3 {
		n = n[:i] + "," + n[i:]
	}
	return sign + n
}

func size(n int64) string {
	v, unit := float64(n), 0
	for v >= 1024 && unit < 4 {
		v /= 1024
		unit++
	}
	if unit == 0 {
		return strconv.FormatInt(n, 10) + " B"
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " " + [...]string{"B", "KiB", "MiB", "GiB", "TiB"}[unit]
}

// text shows bytes of a record: as they are if they are text, else as Go writes them.
func text(b []byte) string {
	if b == nil {
		return "null"
	}
	if utf8.Valid(b) && !strings.ContainsFunc(string(b), func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }) {
		return string(b)
	}
	return fmt.Sprintf("%q", b)
}
