package page

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
	"github.com/retriable-kafka/retriable-go/bench/internal/result"
)

var (
	blue   = color.RGBA{0x1b, 0x6c, 0xa8, 0xff}
	orange = color.RGBA{0xd1, 0x60, 0x3d, 0xff}
	grey   = color.RGBA{0x88, 0x88, 0x88, 0xff}
	green  = color.RGBA{0x3a, 0x7d, 0x44, 0xff}
)

// Plots are the pictures beside the page, by file name. What was not measured has none.
func (r *Results) Plots() (map[string][]byte, error) {
	all := map[string][]byte{}
	for name, draw := range r.plots() {
		p, err := draw()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if p == nil {
			continue
		}
		if all[name+".svg"], err = svg(p); err != nil {
			return nil, err
		}
	}
	return all, r.err
}

// picture is the link to a plot, if there is one.
func (r *Results) picture(name string) string {
	painted := r.plots()[name]
	if painted == nil {
		r.err = errors.Join(r.err, fmt.Errorf("no plot is called %s", name))
		return ""
	}
	p, err := painted()
	if r.err = errors.Join(r.err, err); p == nil {
		return notMeasured
	}
	return fmt.Sprintf("\n![%s](%s/%s.svg)\n\n", p.Title.Text, Name, name)
}

// plots are the ways to draw them; what was not measured gives none.
func (r *Results) plots() map[string]func() (*plot.Plot, error) {
	return map[string]func() (*plot.Plot, error){
		"peers-cpu": func() (*plot.Plot, error) {
			return r.bars("peers", "CPU-seconds per million records, no-op handler", cpu)
		},
		"peers-rate":      func() (*plot.Plot, error) { return r.bars("peers", "records per second, no-op handler", rate) },
		"lateness":        r.lateness,
		"cost-partitions": func() (*plot.Plot, error) { return r.curve("partitions", partitionLevels) },
		"cost-pending":    func() (*plot.Plot, error) { return r.curve("pending", pendingLevels) },
	}
}

func svg(p *plot.Plot) ([]byte, error) {
	w, err := p.WriterTo(17*vg.Centimeter, 9*vg.Centimeter, "svg")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = w.WriteTo(&b)
	return b.Bytes(), err
}

// bars is one bar for each contestant, on a logarithmic scale.
func (r *Results) bars(scenario, what string, of func(*job.Figures) float64) (*plot.Plot, error) {
	inv := r.last(scenario)
	if inv == nil {
		return nil, nil
	}
	p := plot.New()
	p.Title.Text = what + " (logarithmic)"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Add(plotter.NewGrid())
	var there []*result.Contestant
	for i := range inv.Contestants {
		if c := &inv.Contestants[i]; len(c.Rounds) > 0 {
			there = append(there, c)
		}
	}
	slices.Reverse(there) // the first on top
	var names []string
	least, most := 0.0, 0.0
	for _, c := range there {
		v := c.Over(of).Median
		if least == 0 || v < least {
			least = v
		}
		most = max(most, v)
		names = append(names, strings.Trim(title(c.Name), "*"))
	}
	p.X.Min, p.X.Max = decade(least), most*1.2
	for i, c := range there {
		s := c.Over(of)
		bar, err := plotter.NewPolygon(plotter.XYs{
			{X: p.X.Min, Y: float64(i) - 0.35}, {X: s.Median, Y: float64(i) - 0.35}, {X: s.Median, Y: float64(i) + 0.35}, {X: p.X.Min, Y: float64(i) + 0.35},
		})
		if err != nil {
			return nil, err
		}
		bar.Color, bar.LineStyle.Width = grey, 0
		if strings.HasPrefix(title(c.Name), "**") {
			bar.Color = blue
		}
		whisker, err := plotter.NewLine(plotter.XYs{{X: s.Min, Y: float64(i)}, {X: s.Max, Y: float64(i)}})
		if err != nil {
			return nil, err
		}
		whisker.Color = orange
		p.Add(bar, whisker)
	}
	p.NominalY(names...)
	return p, nil
}

// decade is the power of ten below v.
func decade(v float64) float64 {
	d := 1.0
	for d > v {
		d /= 10
	}
	for d*10 <= v {
		d *= 10
	}
	return d
}

// lateness is how many attempts were later than so many milliseconds.
func (r *Results) lateness() (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = "how late the attempts of held records are"
	p.X.Label.Text, p.Y.Label.Text = "milliseconds after they are due (logarithmic)", "% of the attempts, at most so late"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min, p.Y.Max = 0, 100
	p.Add(plotter.NewGrid())
	p.Legend.Left, p.Legend.Top = false, false
	drawn := false
	for _, of := range []struct {
		scenario, title string
		color           color.Color
	}{{"held10000", "10,000 held", orange}, {"held100000", "100,000 held", blue}} {
		inv := r.last(of.scenario)
		if inv == nil || len(inv.Contestants[0].Rounds) == 0 {
			continue
		}
		f := &inv.Contestants[0].Rounds[0].Figures
		var points plotter.XYs
		for i, below := range job.LatenessBuckets {
			points = append(points, plotter.XY{X: below, Y: 100 * f.Extra[fmt.Sprintf("late_below_%02d", i)] / float64(f.Records)})
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = of.color, 2
		p.Add(line)
		p.Legend.Add(of.title, line)
		drawn = true
	}
	if !drawn {
		return nil, nil
	}
	return p, nil
}

// curve is the cost of a record over partitions, or over what is pending.
func (r *Results) curve(kind string, levels []int) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = "what a record costs"
	p.X.Label.Text, p.Y.Label.Text = kind+" (logarithmic)", "CPU-seconds per million records"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min = 0
	p.Add(plotter.NewGrid())
	p.Legend.Top = true
	drawn := false
	for _, of := range []struct {
		name  string
		color color.Color
	}{{"serial", grey}, {"unordered", orange}, {"bypartition", green}, {"bykey", blue}} {
		var points plotter.XYs
		for _, n := range levels {
			inv := r.last(fmt.Sprintf("cost-%s-%d", kind, n))
			if inv == nil {
				continue
			}
			if c := inv.Of(of.name); c != nil && len(c.Rounds) > 0 {
				points = append(points, plotter.XY{X: float64(n), Y: c.Over(cpu).Median})
			}
		}
		if len(points) < 2 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = of.color, 2
		dots.Color, dots.Shape = of.color, draw.CircleGlyph{}
		p.Add(line, dots)
		p.Legend.Add(strings.Trim(title(of.name), "*"), line)
		drawn = true
	}
	if !drawn {
		return nil, nil
	}
	return p, nil
}
