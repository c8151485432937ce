package wire

import (
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxText         = 1 << 10 // bytes of an error's text in a header
	maxDigits       = 20      // of 2^64-1
	timeDigits      = 15      // of MaxTime
	offsetDigits    = 19
	partitionDigits = 10
	maxTopic        = 249
	cutMark         = "…"
	notPrinted      = string(utf8.RuneError)
)

// MaxTime is the last millisecond of the year 9999, the latest time that is
// read or written. What is said to be due later is due then, and earlier by
// whatever limit the caller has.
const MaxTime int64 = 253402300799999

// decimal reads digits and nothing else: no sign, no space, at most as many as
// the largest integer has. What does not fit an int64 is the largest one.
func decimal(v []byte) (n int64, ok bool) {
	if len(v) == 0 || len(v) > maxDigits {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		digit := int64(c - '0')
		if n > (math.MaxInt64-digit)/10 {
			n = math.MaxInt64 // and stays, as it is greater than any tenth
			continue
		}
		n = n*10 + digit
	}
	return n, true
}

// legalTopic reports whether Kafka would accept v as the name of a topic.
func legalTopic(v []byte) bool {
	if len(v) == 0 || len(v) > maxTopic || string(v) == "." || string(v) == ".." {
		return false
	}
	for _, c := range v {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// CleanError returns the text of an error as it is kept in a header: valid
// UTF-8 of at most 1 KiB, cut between two characters and then ending in "…".
// Newlines and tabs stay, since joined errors use them; every other control
// character becomes U+FFFD, since these texts are shown on terminals.
func CleanError(text string) string {
	if len(text) <= maxText && clean(text) {
		return text
	}
	const room = maxText - len(cutMark)
	var b strings.Builder
	b.Grow(min(len(text), maxText) + len(notPrinted))
	fits := 0 // bytes of b that leave room for the mark
	for _, r := range text {
		if !printed(r) {
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > maxText {
			return b.String()[:fits] + cutMark
		}
		b.WriteRune(r)
		if b.Len() <= room {
			fits = b.Len()
		}
	}
	return b.String()
}

func clean(text string) bool {
	for _, r := range text {
		if !printed(r) {
			return false
		}
	}
	return utf8.ValidString(text)
}

func printed(r rune) bool { return r == '\n' || r == '\t' || !unicode.IsControl(r) }
