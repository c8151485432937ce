package page_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/retriable-kafka/retriable-go/bench/page"
)

// TestPageAgreesWithTheResults: the tables and plots are those that the results in this repository make.
func TestPageAgreesWithTheResults(t *testing.T) {
	const docs = "../../docs"
	r := page.Load("../results")
	text, err := os.ReadFile(filepath.Join(docs, page.Name+".md"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := r.Render(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if want != string(text) {
		t.Errorf("docs/%s.md is not what results/ make of it: go run . -page", page.Name)
	}
	plots, err := r.Plots()
	if err != nil {
		t.Fatal(err)
	}
	for name, svg := range plots {
		is, err := os.ReadFile(filepath.Join(docs, page.Name, name))
		if err != nil || !bytes.Equal(is, svg) {
			t.Errorf("docs/%s/%s is not what results/ make of it (%v): go run . -page", page.Name, name, err)
		}
		if !strings.Contains(string(text), page.Name+"/"+name) {
			t.Errorf("the page does not show %s", name)
		}
	}
	files, err := filepath.Glob("../results/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".json"); !strings.Contains(strings.Join(page.Scenarios, " ")+" ", name+" ") {
			t.Errorf("the page does not know the scenario %s", name)
		}
	}
}
