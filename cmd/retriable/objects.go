package main

import (
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

// What --json prints. Names stay as they are once released; more may come.

// bytesObject is bytes: a string if they are text, {"base64": …} if not, null if there are none.
type bytesObject []byte

// MarshalJSON implements json.Marshaler.
func (b bytesObject) MarshalJSON() ([]byte, error) {
	switch {
	case b == nil:
		return []byte("null"), nil
	case utf8.Valid(b):
		return json.Marshal(string(b))
	}
	return json.Marshal(map[string][]byte{"base64": b})
}

// timeObject is a time in UTC, or null.
type timeObject time.Time

// MarshalJSON implements json.Marshaler.
func (t timeObject) MarshalJSON() ([]byte, error) {
	if at := time.Time(t); !at.IsZero() && at.UnixMilli() >= 0 {
		return at.UTC().Truncate(time.Millisecond).MarshalJSON()
	}
	return []byte("null"), nil
}

type positionObject struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// originObject is null where nothing is known of it.
func originObject(p retriable.Position) *positionObject {
	if p.Topic == "" {
		return nil
	}
	o := positionObject(p)
	return &o
}

type headerObject struct {
	Name  string      `json:"name"`
	Value bytesObject `json:"value"`
}

type letterJSON struct {
	positionObject
	Time         timeObject      `json:"time"`
	Reason       string          `json:"reason"`
	Error        string          `json:"error"`
	Attempts     int             `json:"attempts"`
	Group        string          `json:"group"`
	Origin       *positionObject `json:"origin"`
	OriginTime   timeObject      `json:"origin_time"`
	FirstFailure timeObject      `json:"first_failure"`
	Records      int             `json:"records"`
	Incomplete   bool            `json:"incomplete"`
	Sent         bool            `json:"sent"`
	Key          bytesObject     `json:"key"`
	Headers      []headerObject  `json:"headers"`
	Value        *bytesObject    `json:"value,omitempty"`
}

func letterObject(l *admin.Letter, value bool) letterJSON {
	o := letterJSON{
		positionObject: positionObject(l.Position), Time: timeObject(l.Time), Reason: l.Reason, Error: l.Error, Attempts: l.Attempts, Group: l.Group,
		Origin: originObject(l.Origin), OriginTime: timeObject(l.OriginTime), FirstFailure: timeObject(l.FirstFailure), Records: l.Records,
		Incomplete: l.Incomplete, Sent: l.Sent, Key: l.Key, Headers: []headerObject{},
	}
	for _, h := range l.Headers {
		o.Headers = append(o.Headers, headerObject{h.Key, h.Value})
	}
	if value {
		v := bytesObject(l.Value)
		o.Value = &v
	}
	return o
}

type reasonJSON struct {
	Reason  string     `json:"reason"`
	Origin  string     `json:"origin"`
	Group   string     `json:"group"`
	Letters int        `json:"letters"`
	Sent    int        `json:"sent"`
	First   timeObject `json:"first"`
	Last    timeObject `json:"last"`
}

type summaryJSON struct {
	Letters    int          `json:"letters"`
	Sent       int          `json:"sent"`
	Incomplete int          `json:"incomplete"`
	Bytes      int64        `json:"bytes"`
	Reasons    []reasonJSON `json:"reasons"`
}

func summaryObject(s *admin.Summary) summaryJSON {
	o := summaryJSON{Letters: s.Letters, Sent: s.Sent, Incomplete: s.Incomplete, Bytes: s.Bytes, Reasons: []reasonJSON{}}
	for _, r := range s.Reasons {
		o.Reasons = append(o.Reasons, reasonJSON{r.Reason, r.Origin, r.Group, r.Letters, r.Sent, timeObject(r.First), timeObject(r.Last)})
	}
	return o
}

type replayJSON struct {
	DryRun      bool            `json:"dry_run"`
	Sent        int             `json:"sent"`
	Already     int             `json:"already"`
	OtherGroups int             `json:"other_groups"`
	OtherTopics int             `json:"other_topics"`
	Foreign     int             `json:"foreign"`
	Unmatched   int             `json:"unmatched"`
	Incomplete  int             `json:"incomplete"`
	TooLarge    int             `json:"too_large"`
	Kept        bool            `json:"kept"`
	Until       map[int32]int64 `json:"until"`
}

func replayObject(r admin.ReplayResult, dry bool) replayJSON {
	return replayJSON{dry, r.Sent, r.Already, r.OtherGroups, r.OtherTopics, r.Foreign, r.Unmatched, r.Incomplete, r.TooLarge, r.Kept, r.Until}
}

type purgeObject struct {
	Topic   string          `json:"topic"`
	Offsets int64           `json:"offsets"`
	Begin   map[int32]int64 `json:"begin"`
}

type waitingJSON struct {
	positionObject
	Time         timeObject      `json:"time"`
	Due          timeObject      `json:"due"`
	Attempt      int             `json:"attempt"`
	Origin       *positionObject `json:"origin"`
	FirstFailure timeObject      `json:"first_failure"`
	LastError    string          `json:"last_error"`
	Key          bytesObject     `json:"key"`
}

func waitingObject(w *admin.Waiting) waitingJSON {
	return waitingJSON{
		positionObject(w.Position), timeObject(w.Time), timeObject(w.Due), w.Attempt, originObject(w.Origin), timeObject(w.FirstFailure), w.LastError, w.Key,
	}
}

type memberJSON struct {
	ID         string `json:"id"`
	ClientID   string `json:"client_id"`
	Host       string `json:"host"`
	InstanceID string `json:"instance_id"`
	Partitions int    `json:"partitions"`
}

type oldestJSON struct {
	Offset  int64      `json:"offset"`
	Time    timeObject `json:"time"`
	AgeMS   int64      `json:"age_ms"`
	Attempt int        `json:"attempt"`
	Due     timeObject `json:"due"`
}

type partitionJSON struct {
	Topic     string      `json:"topic"`
	Partition int32       `json:"partition"`
	Member    string      `json:"member"`
	Committed int64       `json:"committed"`
	Start     int64       `json:"start"`
	End       int64       `json:"end"`
	Lag       int64       `json:"lag"`
	Finished  int64       `json:"finished"`
	Map       [][2]int64  `json:"map"`
	Clean     bool        `json:"clean"`
	Crashes   int         `json:"crashes"`
	Alone     *int64      `json:"alone"`
	Oldest    *oldestJSON `json:"oldest"`
	Retry     bool        `json:"retry"`
	Held      int         `json:"held"`
	HeldMore  bool        `json:"held_more"`
	NextDue   timeObject  `json:"next_due"`
	Error     string      `json:"error,omitempty"`
}

type groupJSON struct {
	Group      string          `json:"group"`
	Protocol   string          `json:"protocol"`
	State      string          `json:"state"`
	Members    []memberJSON    `json:"members"`
	Partitions []partitionJSON `json:"partitions"`
}

func groupObject(g *admin.Group, now time.Time) groupJSON {
	o := groupJSON{Group: g.Name, Protocol: string(g.Protocol), State: g.State, Members: []memberJSON{}, Partitions: []partitionJSON{}}
	for _, m := range g.Members {
		o.Members = append(o.Members, memberJSON(m))
	}
	for i := range g.Partitions {
		p := &g.Partitions[i]
		x := partitionJSON{
			Topic: p.Topic, Partition: p.Partition, Member: p.Member, Committed: p.Committed, Start: p.Start, End: p.End, Lag: p.Lag,
			Finished: p.Finished, Map: [][2]int64{}, Retry: p.Retry, Held: p.Held, HeldMore: p.HeldMore, NextDue: timeObject(p.NextDue),
		}
		if p.Map != nil {
			for _, s := range p.Map.Finished {
				x.Map = append(x.Map, [2]int64{s.From, s.To})
			}
			x.Clean, x.Crashes = p.Map.Clean, p.Map.Crashes
			if p.Map.Alone >= 0 {
				x.Alone = &p.Map.Alone
			}
		}
		if w := p.Oldest; w != nil {
			x.Oldest = &oldestJSON{w.Position.Offset, timeObject(w.Time), now.Sub(w.Time).Milliseconds(), w.Attempt, timeObject(w.Due)}
		}
		if p.Err != nil {
			x.Error = p.Err.Error()
		}
		o.Partitions = append(o.Partitions, x)
	}
	return o
}

type findingJSON struct {
	Topic   string `json:"topic"`
	Missing bool   `json:"missing"`
	Loses   bool   `json:"loses"`
	Problem string `json:"problem"`
	Fix     string `json:"fix"`
}

func findingObject(f admin.Finding) findingJSON { return findingJSON(f) }

type createdObject struct {
	Created []string `json:"created"`
}

type skipObject struct {
	From     int64 `json:"from"`
	To       int64 `json:"to"`
	Finished int64 `json:"finished"`
	DryRun   bool  `json:"dry_run"`
}
