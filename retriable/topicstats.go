package retriable

import "time"

// TopicStats is what a snapshot says of one topic: of its partitions that are assigned to this member, together. A base topic and its retry
// topics stand for themselves.
type TopicStats struct {
	Topic      string
	Partitions int // assigned
	Paused     int // of these, not fetched
	Careful    int // of these, one record at a time (see MaxCrashes)

	Pending int // as of PartitionStats
	Running int
	Held    int

	Unfinished int64   // offsets from the watermarks to the logs' ends
	Lag        int64   // offsets from what is committed to the logs' ends
	MapFill    float64 // of the partition whose map is fullest

	// Since says since when the oldest record at a watermark is pending, for each reason why one is.
	Since map[Reason]time.Time
}

// Topics sums a snapshot up by topic, in order of their names: for measures that are not to have a label for each partition.
func (s Stats) Topics() (topics []TopicStats) {
	for _, p := range s.Partitions {
		if n := len(topics); n == 0 || topics[n-1].Topic != p.Topic {
			topics = append(topics, TopicStats{Topic: p.Topic, Since: map[Reason]time.Time{}})
		}
		topics[len(topics)-1].add(&p)
	}
	return topics
}

func (t *TopicStats) add(p *PartitionStats) {
	t.Partitions++
	if p.Paused {
		t.Paused++
	}
	if p.Careful {
		t.Careful++
	}
	t.Pending += p.Pending
	t.Running += p.Running
	t.Held += p.Held
	t.Unfinished += p.End - p.Watermark
	t.Lag += p.Lag
	t.MapFill = max(t.MapFill, p.MapFill)
	if o := p.Oldest; !o.Since.IsZero() {
		if first, ok := t.Since[o.Reason]; !ok || o.Since.Before(first) {
			t.Since[o.Reason] = o.Since
		}
	}
}
