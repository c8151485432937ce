//go:build race

package simulation

// raceEnabled leaves out the steps after which kgo asks for offsets of epochs while it fetches, leaders that move and topics that are made anew:
// its cursor.setOffset then writes what a fetch writes as well, a race of its own that the detector reports.
const raceEnabled = true
