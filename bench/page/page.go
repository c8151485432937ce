// Package page makes docs/performance.md's tables and plots of results. The page's words are written by hand; what stands between
//
//	<!-- results: noop -->
//	<!-- end -->
//
// is made anew, and so are the plots beside the page.
package page

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/retriable-kafka/retriable-go/bench/internal/result"
)

// Name is the page's, and that of the folder beside it with the plots.
const Name = "performance"

// Results are the files of a folder, read as they are asked for.
type Results struct {
	dir   string
	files map[string]*result.File
	err   error
}

// Load prepares to read the results of a folder.
func Load(dir string) *Results { return &Results{dir: dir, files: map[string]*result.File{}} }

// runs are all of a scenario, oldest first.
func (r *Results) runs(scenario string) []result.Invocation {
	f := r.files[scenario]
	if f == nil {
		var err error
		if f, err = result.Read(r.dir, scenario); err != nil {
			r.err = errors.Join(r.err, err)
			f = &result.File{}
		}
		r.files[scenario] = f
	}
	return f.Runs
}

// last is the newest of a scenario, or nil.
func (r *Results) last(scenario string) *result.Invocation {
	if runs := r.runs(scenario); len(runs) > 0 {
		return &runs[len(runs)-1]
	}
	return nil
}

// Write makes the page and its plots anew, in the folder of the documents.
func Write(results, docs string) error {
	r := Load(results)
	file := filepath.Join(docs, Name+".md")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	made, err := r.Render(string(text))
	if err != nil {
		return err
	}
	plots, err := r.Plots()
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(docs, Name)), os.MkdirAll(filepath.Join(docs, Name), 0o755)); err != nil {
		return err
	}
	for name, svg := range plots {
		if err := os.WriteFile(filepath.Join(docs, Name, name), svg, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(file, []byte(made), 0o644)
}

var block = regexp.MustCompile(`(?s)(<!-- results: ([a-z0-9-]+) -->\n).*?(<!-- end -->)`)

// Render returns the text with its tables made anew.
func (r *Results) Render(text string) (string, error) {
	made := block.ReplaceAllStringFunc(text, func(s string) string {
		m := block.FindStringSubmatch(s)
		return m[1] + r.table(m[2]) + m[3]
	})
	return made, r.err
}

// table is what a block holds.
func (r *Results) table(name string) string {
	switch name {
	case "machine":
		return r.machine()
	case "targets":
		return r.targets()
	case "held":
		return r.held()
	case "cost":
		return r.cost()
	case "memory":
		return r.memory()
	case "commit":
		return r.commit()
	case "takeover":
		return r.takeover()
	case "sleep100", "sleep1000", "zipf":
		return r.sleeping(name)
	}
	if plot, ok := strings.CutPrefix(name, "plot-"); ok {
		return r.picture(plot)
	}
	inv := r.last(name)
	if inv == nil {
		return notMeasured
	}
	return throughput(inv)
}

const notMeasured = "\nNot measured yet.\n\n"

// grid is a table of Markdown.
type grid struct{ strings.Builder }

func (g *grid) row(cells ...string) { fmt.Fprintf(g, "| %s |\n", strings.Join(cells, " | ")) }

func (g *grid) head(cells ...string) {
	g.WriteString("\n")
	g.row(cells...)
	g.WriteString("|---|" + strings.Repeat("---:|", len(cells)-1) + "\n")
}

func (g *grid) end() string {
	g.WriteString("\n")
	return g.String()
}
