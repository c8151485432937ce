package soak

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// panel is one of the drawing's diagrams: some lines over the time.
type panel struct {
	title string
	lines []line
}

type line struct {
	name, color string
	of          func(Sample) float64
}

const mib = 1 << 20

var panels = []panel{
	{"memory, MiB", []line{
		{"of the process", "#1b6ca8", func(s Sample) float64 { return float64(s.RSS) / mib }},
		{"of the heap", "#d1603d", func(s Sample) float64 { return float64(s.Heap) / mib }},
	}},
	{"goroutines", []line{{"", "#1b6ca8", func(s Sample) float64 { return float64(s.Goroutines) }}}},
	{"open files", []line{{"", "#1b6ca8", func(s Sample) float64 { return float64(s.Files) }}}},
	{"lateness of attempts, ms", []line{
		{"in the middle", "#1b6ca8", func(s Sample) float64 { return float64(s.Late50) / 1000 }},
		{"at 99 %", "#d1603d", func(s Sample) float64 { return float64(s.Late99) / 1000 }},
	}},
	{"records handled between two samples", []line{{"", "#1b6ca8", func(s Sample) float64 { return float64(s.Handled) }}}},
	{"records", []line{
		{"held in memory", "#1b6ca8", func(s Sample) float64 { return float64(s.Held) }},
		{"not resolved", "#d1603d", func(s Sample) float64 { return float64(s.Behind) }},
	}},
}

const (
	width, height      = 860, 170 // of a panel
	left, right        = 70, 20
	above, below       = 34, 26
	plotWidth          = width - left - right
	plotHeight         = height - above - below
	font               = "font-family=\"sans-serif\" font-size=\"12\""
	axisColor, ticking = "#666", 4
)

// Plot draws samples as an SVG picture, a diagram for each thing that was measured.
func Plot(w io.Writer, samples []Sample) error {
	if len(samples) < 2 {
		return fmt.Errorf("soak: %d samples make no line", len(samples))
	}
	var b strings.Builder
	total := height * len(panels)
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n", width, total, width, total)
	fmt.Fprintf(&b, "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n", width, total)
	for i, p := range panels {
		fmt.Fprintf(&b, "<g transform=\"translate(0 %d)\">\n", i*height)
		p.draw(&b, samples)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (p panel) draw(b *strings.Builder, samples []Sample) {
	highest := 0.0
	for _, l := range p.lines {
		for _, s := range samples {
			highest = math.Max(highest, l.of(s))
		}
	}
	highest = round(highest)
	first, last := samples[0].At, samples[len(samples)-1].At
	x := func(s Sample) float64 { return left + plotWidth*float64(s.At-first)/math.Max(float64(last-first), 1) }
	y := func(v float64) float64 { return above + plotHeight*(1-v/highest) }

	fmt.Fprintf(b, "<text x=\"%d\" y=\"20\" %s font-weight=\"bold\">%s</text>\n", left, font, p.title)
	for i := range ticking + 1 {
		v := highest * float64(i) / ticking
		fmt.Fprintf(b, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", left, width-right, y(v), y(v))
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%.1f\" %s fill=\"%s\" text-anchor=\"end\">%.4g</text>\n", left-8, y(v)+4, font, axisColor, v)
	}
	for i := range ticking + 1 {
		at := first + (last-first)*time.Duration(i)/ticking
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%d\" %s fill=\"%s\" text-anchor=\"middle\">%.3g min</text>\n", left+plotWidth*float64(i)/ticking, height-6, font, axisColor, at.Minutes())
	}
	for i, l := range p.lines {
		points := make([]string, len(samples))
		for j, s := range samples {
			points[j] = fmt.Sprintf("%.1f,%.1f", x(s), y(l.of(s)))
		}
		fmt.Fprintf(b, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"%s\"/>\n", l.color, strings.Join(points, " "))
		if l.name != "" {
			fmt.Fprintf(b, "<text x=\"%d\" y=\"20\" %s fill=\"%s\" text-anchor=\"end\">%s</text>\n", width-right-130*(len(p.lines)-1-i), font, l.color, l.name)
		}
	}
}

// round returns the next of 1, 2 and 5 times a power of ten.
func round(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5} {
		if v <= f*power {
			return f * power
		}
	}
	return 10 * power
}
