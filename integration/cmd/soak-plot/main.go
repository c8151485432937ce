// Soak-plot draws what a soak has recorded: soak-plot soak.csv soak.svg.
package main

import (
	"fmt"
	"os"

	"github.com/retriable-kafka/retriable-go/integration/soak"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: soak-plot SAMPLES.csv PICTURE.svg")
		os.Exit(2)
	}
	if err := plot(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func plot(from, into string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	samples, err := soak.Read(in)
	if err != nil {
		return err
	}
	out, err := os.Create(into)
	if err != nil {
		return err
	}
	if err := soak.Plot(out, samples); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
