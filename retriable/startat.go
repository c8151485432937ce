package retriable

import (
	"encoding/json"

	"github.com/twmb/franz-go/pkg/kgo"
)

// kgo.Offset does not show all of what it says: the rest is found by comparing and through its JSON.

// isAfterMilli reports whether o is a place by time.
func isAfterMilli(o kgo.Offset) bool {
	at := o.EpochOffset().Offset
	return o == kgo.NewOffset().AfterMilli(at) || o == kgo.NoResetOffset().AfterMilli(at)
}

// relativeOf returns how far from its anchor o is.
func relativeOf(o kgo.Offset) int64 {
	var v struct{ Relative int64 }
	if b, err := o.MarshalJSON(); err == nil {
		_ = json.Unmarshal(b, &v)
	}
	return v.Relative
}

// resolvable reports whether o can be turned into an offset where there is no commit.
func resolvable(o kgo.Offset) bool {
	at := o.EpochOffset().Offset
	return at >= -2 || isAfterMilli(o)
}
