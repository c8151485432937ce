package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/retriable-kafka/retriable-go/retriable"
)

// table prints rows in columns. It aligns some thousand rows at a time, so that long ones begin early.
type table struct {
	w    *tabwriter.Writer
	rows int
}

func (a *app) table(columns ...string) *table {
	t := &table{w: tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)}
	t.row(columns...)
	return t
}

func (t *table) row(cells ...string) {
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
	if t.rows++; t.rows%5000 == 0 {
		t.flush()
	}
}

func (t *table) flush() { _ = t.w.Flush() } // whoever reads has gone

// object prints one line of JSON.
func (a *app) object(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// safe makes bytes from the wire fit for a terminal: nothing in them moves a cursor or sets a colour.
func safe(b []byte) string {
	clean := utf8.Valid(b)
	for _, r := range string(b) {
		clean = clean && unicode.IsPrint(r)
	}
	if clean {
		return string(b)
	}
	q := strconv.Quote(string(b))
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// safeText is safe for texts of several lines.
func safeText(b []byte) string {
	lines := strings.Split(string(b), "\n")
	for i, line := range lines {
		cells := strings.Split(line, "\t")
		for j, cell := range cells {
			cells[j] = safe([]byte(cell))
		}
		lines[i] = strings.Join(cells, "\t")
	}
	return strings.Join(lines, "\n")
}

// short is safe, of at most n runes.
func short(b []byte, n int) string {
	s := []rune(safe(b))
	if len(s) > n {
		return string(s[:n-1]) + "…"
	}
	return string(s)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// key shows a key; records without one have "-".
func key(b []byte) string {
	if b == nil {
		return "-"
	}
	return or(short(b, 40), `""`)
}

// moment is a time for people, in UTC.
func moment(t time.Time) string {
	if t.IsZero() || t.UnixMilli() < 0 {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

// span is a time that has passed, or is to pass, in two units at most.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// origin shows a position of which parts may not be known.
func origin(p retriable.Position) string {
	switch {
	case p.Topic == "":
		return "-"
	case p.Partition < 0 || p.Offset < 0:
		return p.Topic
	}
	return p.String()
}

func number[T int | int32 | int64](n T) string { return strconv.FormatInt(int64(n), 10) }

// many is a number with its word.
func many[T int | int64](n T, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + several
}

// position reads topic/partition/offset.
func position(s string) (retriable.Position, error) {
	var p retriable.Position
	parts := strings.Split(s, "/")
	if len(parts) == 3 && parts[0] != "" {
		n, errN := strconv.ParseInt(parts[1], 10, 32)
		o, errO := strconv.ParseInt(parts[2], 10, 64)
		if errN == nil && errO == nil && n >= 0 && o >= 0 {
			p = retriable.Position{Topic: parts[0], Partition: int32(n), Offset: o}
			return p, nil
		}
	}
	return p, usageError{fmt.Errorf("%q is not topic/partition/offset", s)}
}

// confirm asks before something that cannot be undone.
func (a *app) confirm(yes bool, what string) error {
	if yes {
		return nil
	}
	if !a.terminal(a.in) {
		return fmt.Errorf("%w: %s needs --yes where nobody can be asked", errRefused, what)
	}
	fmt.Fprintf(a.err, "%s? [y/N] ", what)
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errRefused
}
