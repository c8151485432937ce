//go:build race

package kfake_test

const raceEnabled = true
