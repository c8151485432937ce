package soak_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/retriable-kafka/retriable-go/integration/soak"
)

// The picture is well-formed, and has a line with a point for each sample for all that was measured.
func TestPlot(t *testing.T) {
	var b bytes.Buffer
	if err := soak.Plot(&b, steady(30, nil)); err != nil {
		t.Fatal(err)
	}
	d, lines := xml.NewDecoder(&b), 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := token.(xml.StartElement)
		if !ok || e.Name.Local != "polyline" {
			continue
		}
		lines++
		for _, a := range e.Attr {
			if n := len(strings.Fields(a.Value)); a.Name.Local == "points" && n != 30 {
				t.Errorf("a line of %d points", n)
			}
			if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
				t.Errorf("%s=%q", a.Name.Local, a.Value)
			}
		}
	}
	if lines != 9 {
		t.Errorf("%d lines", lines)
	}
	if err := soak.Plot(&b, steady(1, nil)); err == nil {
		t.Error("one sample makes a picture")
	}
}
