package wire

import "github.com/twmb/franz-go/pkg/kgo"

// Slim returns the headers without our own text headers, for a copy that is too large with them. What stays is what the shared format
// has, the due time, and the group it is meant for; the reader takes the rest as unknown.
func Slim(h []kgo.RecordHeader) []kgo.RecordHeader {
	return without(h, func(key string) bool {
		switch key {
		case TopicHeader, PartitionHeader, OffsetHeader, TimeHeader, FirstFailureHeader, ErrorHeader, MovedHeader,
			LetterMessageHeader:
			return true
		}
		return false
	})
}
