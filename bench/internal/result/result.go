// Package result is what was measured: a file for each scenario, from which the page is made.
package result

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/retriable-kafka/retriable-go/bench/internal/job"
)

// MostForeign is how many cores others may have used during a round that counts.
const MostForeign = 0.2

// File is one scenario's: each time the command ran it.
type File struct {
	Scenario string       `json:"scenario"`
	Runs     []Invocation `json:"runs"`
}

// Invocation is one run of the command.
type Invocation struct {
	Command     string       `json:"command"`
	Date        string       `json:"date"`
	Commit      string       `json:"commit"` // of the library
	Machine     Machine      `json:"machine"`
	Rounds      int          `json:"rounds"`
	Longest     int64        `json:"longest_lane,omitempty"` // records of the key that has most, where keys limit
	Contestants []Contestant `json:"contestants"`
}

// Machine is on what it was measured, and with what.
type Machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	Memory   string            `json:"memory"`
	System   string            `json:"system"`
	Versions map[string]string `json:"versions"`
}

// Contestant is one's rounds.
type Contestant struct {
	Name    string  `json:"name"`
	Workers int     `json:"workers,omitempty"`
	Missing string  `json:"missing,omitempty"` // why it did not take part
	Rounds  []Round `json:"rounds,omitempty"`
}

// Round is one process.
type Round struct {
	Round   int         `json:"round"`
	Foreign float64     `json:"foreign"` // cores that neither it nor the broker used; -1 if not known
	Figures job.Figures `json:"figures"`
}

// Noisy reports whether others used too much of the machine.
func (r *Round) Noisy() bool { return r.Foreign > MostForeign }

// Of returns the contestant of that name, or nil.
func (i *Invocation) Of(name string) *Contestant {
	for k := range i.Contestants {
		if i.Contestants[k].Name == name {
			return &i.Contestants[k]
		}
	}
	return nil
}

// Spread is a median with its extremes.
type Spread struct {
	Median, Min, Max float64
	Used, Dropped    int  // rounds
	All              bool // no round was quiet: these are of the noisy ones
}

// Over is the spread of a figure over the rounds that count; over all if none does.
func (c *Contestant) Over(of func(*job.Figures) float64) Spread {
	return spread(len(c.Rounds), func(i int) (float64, bool, bool) {
		r := &c.Rounds[i]
		return of(&r.Figures), !r.Noisy(), true
	})
}

// Ratio is the spread of the ratios to another contestant's figure of the same round, over the rounds in which both were quiet.
func (c *Contestant) Ratio(to *Contestant, of func(*job.Figures) float64) Spread {
	return spread(len(c.Rounds), func(i int) (float64, bool, bool) {
		r := &c.Rounds[i]
		k := slices.IndexFunc(to.Rounds, func(other Round) bool { return other.Round == r.Round })
		if k < 0 {
			return 0, false, false
		}
		other := &to.Rounds[k]
		return of(&r.Figures) / of(&other.Figures), !r.Noisy() && !other.Noisy(), true
	})
}

func spread(n int, at func(int) (v float64, quiet, there bool)) (s Spread) {
	var quiet, all []float64
	for i := range n {
		v, q, there := at(i)
		if !there {
			continue
		}
		all = append(all, v)
		if q {
			quiet = append(quiet, v)
		}
	}
	s.Dropped = len(all) - len(quiet)
	if len(quiet) == 0 {
		quiet, s.All = all, true
	}
	s.Used = len(quiet)
	if s.Used == 0 {
		return s
	}
	slices.Sort(quiet)
	s.Min, s.Max = quiet[0], quiet[s.Used-1]
	s.Median = (quiet[(s.Used-1)/2] + quiet[s.Used/2]) / 2
	return s
}

// Read reads the file of a scenario; one that is not there is empty.
func Read(dir, scenario string) (*File, error) {
	f := &File{Scenario: scenario}
	b, err := os.ReadFile(filepath.Join(dir, scenario+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	return f, json.Unmarshal(b, f)
}

// Write writes it.
func (f *File) Write(dir string) error {
	b, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, f.Scenario+".json"), append(b, '\n'), 0o644)
}
