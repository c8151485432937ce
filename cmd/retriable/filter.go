package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

// filter is the flags that say which letters are meant.
type filter struct {
	since, until, key, reason, err, origin string
	headers                                []string
	partition                              int32
	set                                    *pflag.FlagSet
}

func (f *filter) flags(s *pflag.FlagSet) {
	f.set = s
	s.StringVar(&f.since, "since", "", "dead-lettered then or later: 2006-01-02, 2006-01-02T15:04:05Z, or 90m ago")
	s.StringVar(&f.until, "until", "", "dead-lettered before then")
	s.StringVar(&f.key, "key", "", "exactly this key")
	s.StringVar(&f.reason, "reason", "", "this text in the reason")
	s.StringVar(&f.err, "error", "", "this text in the last attempt's error")
	s.StringVar(&f.origin, "origin", "", "first produced to this topic")
	s.StringArrayVar(&f.headers, "header", nil, "a header of the record, as name or name=value; several must all be there")
	s.Int32Var(&f.partition, "partition", 0, "only this partition of the dead-letter topic")
}

func (f *filter) filter() (admin.Filter, error) {
	out := admin.Filter{Reason: f.reason, Error: f.err, Origin: f.origin}
	if f.set.Changed("key") {
		out.Key = []byte(f.key)
	}
	if f.set.Changed("partition") {
		out.Partition = &f.partition
	}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, "=")
		want := admin.Header{Name: name}
		if ok {
			want.Value = []byte(value)
		}
		out.Headers = append(out.Headers, want)
	}
	var err error
	if out.Since, err = when("since", f.since); err != nil {
		return out, err
	}
	out.Until, err = when("until", f.until)
	return out, err
}

// when reads a time, or how long ago it was.
func when(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(strings.TrimSpace(strings.TrimSuffix(s, "ago"))); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	return time.Time{}, usageError{fmt.Errorf("--%s is %q, not a time such as 2006-01-02, 2006-01-02T15:04:05Z or 90m", flag, s)}
}
