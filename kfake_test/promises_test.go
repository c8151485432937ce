package kfake_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/promises.md is complete: every invariant has a test there, and every sentence, list item and table row of docs/delivery.md is in it, as a promise
// with a test or as something said beside. That the tests exist is TestTheTestsThatDocumentsNameExist's.
func TestEveryPromiseHasATest(t *testing.T) {
	t.Parallel()
	invariants, promises, beside := register(t)
	for i := 1; i <= 13; i++ {
		if name := fmt.Sprintf("I%d", i); invariants[name] == 0 {
			t.Errorf("%s has no test", name)
		}
	}
	met := map[string]int{}
	for _, said := range statements(string(document(t, "delivery.md"))) {
		found := longest(said, promises, beside)
		if found == "" {
			t.Errorf("docs/delivery.md says what docs/promises.md does not know: name the tests of it, or list it as said beside\n  %s", said)
			continue
		}
		met[found]++
	}
	for words, n := range promises {
		if n == 0 {
			t.Errorf("docs/promises.md has no test for: %s", words)
		}
	}
	for _, words := range slices.Concat(keys(promises), beside) {
		if met[words] != 1 {
			t.Errorf("docs/promises.md has a line for %d statements of docs/delivery.md, where it is to be for one: %s", met[words], words)
		}
	}
}

// Each rule of docs/security.md names what shows it.
func TestEverySecurityRuleIsShown(t *testing.T) {
	t.Parallel()
	shown := regexp.MustCompile("`(Test|Fuzz)\\w+`|`\\.ci/run \\w+`")
	rules := map[string]bool{}
	for line := range strings.Lines(string(document(t, "security.md"))) {
		if cells := row(line); len(cells) == 3 && strings.HasPrefix(cells[0], "S") {
			rules[cells[0]] = shown.MatchString(cells[2])
		}
	}
	for i := 1; i <= 12; i++ {
		if name := fmt.Sprintf("S%d", i); !rules[name] {
			t.Errorf("nothing shows %s", name)
		}
	}
}

func document(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// register reads docs/promises.md: how many tests each invariant and each promise has, and what is said beside.
func register(t *testing.T) (invariants, promises map[string]int, beside []string) {
	t.Helper()
	invariants, promises = map[string]int{}, map[string]int{}
	test := regexp.MustCompile("`(Test|Fuzz)\\w+`")
	into := map[string]int{}
	for line := range strings.Lines(string(document(t, "promises.md"))) {
		switch cells := row(line); {
		case strings.HasPrefix(line, "## The invariants"):
			into = invariants
		case strings.HasPrefix(line, "## What delivery.md promises"):
			into = promises
		case strings.HasPrefix(line, "- "):
			beside = append(beside, strings.TrimSpace(line[2:]))
		case len(cells) == 2 && cells[1] != "tests":
			if _, twice := into[cells[0]]; twice {
				t.Errorf("docs/promises.md has twice: %s", cells[0])
			}
			into[cells[0]] = len(test.FindAllString(cells[1], -1))
		}
	}
	if len(promises) == 0 || len(beside) == 0 {
		t.Fatal("docs/promises.md cannot be read")
	}
	return invariants, promises, beside
}

// row is the cells of a table's row; nil of any other line, and of the one below a table's head.
func row(line string) []string {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|--") {
		return nil
	}
	cells := strings.Split(strings.Trim(line, "|"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells
}

var (
	listed = regexp.MustCompile(`^(- |\d+\. )`)
	ends   = regexp.MustCompile("[.!?]\\)?\\s+([A-Z*`(])")
)

// statements takes a page apart: each table row without its bars, each list item and each sentence.
func statements(text string) (all []string) {
	paragraph := ""
	end := func() {
		for {
			at := ends.FindStringSubmatchIndex(paragraph)
			if at == nil {
				break
			}
			all = append(all, strings.TrimSpace(paragraph[:at[2]]))
			paragraph = paragraph[at[2]:]
		}
		if paragraph = strings.TrimSpace(paragraph); paragraph != "" {
			all = append(all, paragraph)
		}
		paragraph = ""
	}
	head := false // the row after something that is no row
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch cells := row(line); {
		case strings.HasPrefix(line, "#"), line == "":
			end()
			head = false
		case cells != nil:
			end()
			if head {
				all = append(all, strings.Join(cells, " "))
			}
			head = true
		case strings.HasPrefix(line, "|"): // below a table's head
		case listed.MatchString(line):
			end()
			paragraph = listed.ReplaceAllString(line, "")
		default:
			paragraph += " " + line
		}
	}
	end()
	return all
}

// longest is the longest of the registered beginnings that a statement has.
func longest(said string, promises map[string]int, beside []string) (found string) {
	for _, words := range slices.Concat(keys(promises), beside) {
		if strings.HasPrefix(said, words) && len(words) > len(found) {
			found = words
		}
	}
	return found
}

func keys(m map[string]int) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	return all
}
