//go:build !race

package kfake_test

const raceEnabled = false
