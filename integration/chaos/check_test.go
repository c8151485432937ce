package chaos_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/retriable-kafka/retriable-go/integration/chaos"
	"github.com/retriable-kafka/retriable-go/retriable"
)

// tale is a history told by hand. Times are in ms; each event takes one.
type tale struct {
	h   chaos.History
	now int64
}

const (
	orders = "orders"
	again  = "retry"
	dead   = "dead"
)

func at(topic string, offset int64) retriable.Position {
	return retriable.Position{Topic: topic, Offset: offset}
}

// newTale begins with records of these numbers in one partition.
func newTale(ids ...int64) *tale {
	t := &tale{now: 1000, h: chaos.History{Commits: map[chaos.Partition]int64{}, Ends: map[chaos.Partition]int64{{Topic: orders}: int64(len(ids))}}}
	for i, id := range ids {
		t.h.Sent = append(t.h.Sent, chaos.Record{At: at(orders, int64(i)), ID: id, Key: "k", Sum: 7, Body: 8})
	}
	return t
}

// member is one process of a tale.
type member struct {
	t *tale
	i int
}

func (t *tale) member(name string) *member {
	t.h.Members = append(t.h.Members, chaos.Member{Name: name})
	return &member{t, len(t.h.Members) - 1}
}

func (m *member) note(e chaos.Event) *member {
	m.t.now++
	e.Time = m.t.now * 1e6
	x := &m.t.h.Members[m.i]
	x.Events = append(x.Events, e)
	return m
}

func (m *member) assigned(topic string, from int64) *member {
	return m.note(chaos.Event{Kind: chaos.Asks}).note(chaos.Event{Kind: chaos.Assigned, At: at(topic, from)})
}

func (m *member) start(id int64, attempt int, p retriable.Position) *member {
	return m.note(chaos.Event{Kind: chaos.Start, ID: id, Attempt: attempt, At: p, N: 7})
}

func (m *member) end(id int64, attempt int, p retriable.Position) *member {
	return m.note(chaos.Event{Kind: chaos.End, ID: id, Attempt: attempt, At: p, Text: string(chaos.FateOf(id).Result(id, attempt))})
}

// done is a delivery that succeeded and is resolved.
func (m *member) done(id int64, attempt int, p retriable.Position) *member {
	return m.start(id, attempt, p).end(id, attempt, p).
		note(chaos.Event{Kind: chaos.Handled, ID: id, Attempt: attempt, At: p, Text: string(retriable.VerdictDone)})
}

// copied is a delivery that failed and whose copy, at an offset of the retry topic, was acked.
func (m *member) copied(id int64, attempt int, p retriable.Position, to int64) *member {
	m.start(id, attempt, p).end(id, attempt, p)
	m.t.copyAt(id, attempt+1, to)
	return m.note(chaos.Event{Kind: chaos.Retried, ID: id, Attempt: attempt + 1, At: p})
}

func (t *tale) copyAt(id int64, attempt int, offset int64) {
	t.h.Copies = append(t.h.Copies, chaos.Record{At: at(again, offset), ID: id, Key: "k", Attempt: attempt, Due: t.now, Body: 8})
	t.h.Ends[chaos.Partition{Topic: again}] = int64(len(t.h.Copies))
}

// commit is an accepted commit, twice answered so that it is sure to tell all before.
func (m *member) commit(topic string, offset int64) *member {
	m.t.h.Commits[chaos.Partition{Topic: topic}] = offset
	return m.note(chaos.Event{Kind: chaos.Committed, At: at(topic, offset), N: 1000})
}

func (m *member) drained(topic string, abandoned int64) *member {
	return m.note(chaos.Event{Kind: chaos.Drained, At: at(topic, 0), N: abandoned, Text: "1ms"})
}

func (m *member) lost(topic string) *member {
	return m.note(chaos.Event{Kind: chaos.Lost, At: at(topic, 0), Text: "1ms"})
}

func (m *member) killed() { m.t.h.Members[m.i].Killed = true }

// Numbers of records that are handled at their first attempt, that fail twice, and that are dead letters.
const (
	good, better  = 1, 2
	twice, letter = 3, 17
)

// What a run may leave behind, and the check must let pass.
func TestGoodHistories(t *testing.T) {
	for name, tell := range map[string]func() *tale{
		"handled, committed, handed over": func() *tale {
			x := newTale(good, better)
			x.member("a").assigned(orders, 0).done(good, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
			x.member("b").assigned(orders, 1).done(better, 1, at(orders, 1)).commit(orders, 2).drained(orders, 0)
			return x
		},
		"two attempts that fail": func() *tale {
			x := newTale(twice)
			x.member("a").assigned(orders, 0).assigned(again, 0).copied(twice, 1, at(orders, 0), 0).commit(orders, 1).
				copied(twice, 2, at(again, 0), 1).done(twice, 3, at(again, 1)).commit(again, 2).drained(orders, 0).drained(again, 0)
			return x
		},
		"killed in a handler": func() *tale {
			x := newTale(good)
			x.member("a").assigned(orders, 0).start(good, 1, at(orders, 0)).killed()
			x.member("b").assigned(orders, 0).done(good, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
			return x
		},
		"asked in vain before another had it": func() *tale {
			x := newTale(good)
			b := x.member("b").note(chaos.Event{Kind: chaos.Asks})
			x.member("a").assigned(orders, 0).done(good, 1, at(orders, 0)).lost(orders)
			b.assigned(orders, 0).done(good, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
			return x
		},
		"killed before a commit": func() *tale {
			x := newTale(good)
			x.member("a").assigned(orders, 0).done(good, 1, at(orders, 0)).killed()
			x.member("b").assigned(orders, 0).done(good, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
			return x
		},
		"killed between a copy and its ack": func() *tale {
			x := newTale(twice)
			x.member("a").assigned(orders, 0).start(twice, 1, at(orders, 0)).end(twice, 1, at(orders, 0)).killed()
			x.copyAt(twice, 2, 0)
			x.member("b").assigned(orders, 0).assigned(again, 0).copied(twice, 1, at(orders, 0), 1).
				copied(twice, 2, at(again, 0), 2).copied(twice, 2, at(again, 1), 3).
				done(twice, 3, at(again, 2)).done(twice, 3, at(again, 3)).commit(orders, 1).commit(again, 4).drained(orders, 0).drained(again, 0)
			return x
		},
		"abandoned in a drain": func() *tale {
			x := newTale(good)
			x.member("a").assigned(orders, 0).start(good, 1, at(orders, 0)).drained(orders, 1).end(good, 1, at(orders, 0))
			x.member("b").assigned(orders, 0).done(good, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
			return x
		},
		"the last commit refused": func() *tale {
			x := newTale(good)
			x.member("a").assigned(orders, 0).done(good, 1, at(orders, 0)).note(chaos.Event{Kind: chaos.Uncommit, At: at(orders, 1)}).drained(orders, 0)
			x.member("b").assigned(orders, 0).done(good, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
			return x
		},
		"a former owner wakes up": func() *tale {
			x := newTale(good, better)
			a := x.member("a").assigned(orders, 0)
			x.member("b").assigned(orders, 0).done(good, 1, at(orders, 0)).done(better, 1, at(orders, 1)).commit(orders, 2).commit(orders, 2).drained(orders, 0)
			a.done(good, 1, at(orders, 0)).note(chaos.Event{Kind: chaos.Uncommit, At: at(orders, 1)}).lost(orders)
			return x
		},
		"a partition is lost just when a handler begins": func() *tale {
			x := newTale(good)
			a := x.member("a").assigned(orders, 0).lost(orders)
			a.note(chaos.Event{Kind: chaos.Start, ID: good, Attempt: 1, At: at(orders, 0), N: 7, Text: "cancelled"})
			x.member("b").assigned(orders, 0).done(good, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
			return x
		},
		"the retry topic is deleted and made anew": func() *tale {
			x := newTale(twice, good, 13) // two that fail twice
			m := x.member("a").assigned(orders, 0).assigned(again, 0).copied(twice, 1, at(orders, 0), 0).done(good, 1, at(orders, 1)).
				copied(twice, 2, at(again, 0), 1).commit(orders, 2).commit(again, 1).lost(again)
			x.h.Copies = nil
			x.now++
			x.h.Gone = append(x.h.Gone, chaos.Gone{Topic: again, Until: x.now * 1e6})
			m.assigned(again, 0).copied(13, 1, at(orders, 2), 0).copied(13, 2, at(again, 0), 1).done(13, 3, at(again, 1)).
				commit(orders, 3).commit(again, 2)
			return x
		},
		"the ack of a copy comes when its topic has been made anew": func() *tale {
			x := newTale(twice)
			m := x.member("a").assigned(orders, 0).start(twice, 1, at(orders, 0)).end(twice, 1, at(orders, 0))
			x.now++
			x.h.Gone = append(x.h.Gone, chaos.Gone{Topic: again, Until: x.now * 1e6, Anew: x.now * 1e6})
			m.note(chaos.Event{Kind: chaos.Retried, ID: twice, Attempt: 2, At: at(orders, 0)}).commit(orders, 1)
			return x
		},
		"a commit of nothing is forgotten with the topic before": func() *tale {
			x := newTale(good)
			x.member("a").assigned(orders, -1).commit(orders, 0).lost(orders)
			x.member("b").assigned(orders, -1).done(good, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
			return x
		},
		"a member is told a commit of the retry topic that is being deleted": func() *tale {
			x := newTale(twice)
			m := x.member("a").assigned(orders, 0).assigned(again, 0)
			x.now++
			g := chaos.Gone{Topic: again, From: x.now * 1e6}
			m.lost(again)
			g.Until = x.now * 1e6
			m.assigned(again, 7).lost(again)
			x.now++
			g.Anew = x.now * 1e6
			x.h.Gone = append(x.h.Gone, g)
			m.assigned(again, 0).copied(twice, 1, at(orders, 0), 0).copied(twice, 2, at(again, 0), 1).done(twice, 3, at(again, 1)).
				commit(orders, 1).commit(again, 2)
			return x
		},
		"postponed": func() *tale {
			x := newTale(47)
			m := x.member("a").assigned(orders, 0).start(47, 1, at(orders, 0))
			m.note(chaos.Event{Kind: chaos.End, ID: 47, Attempt: 1, At: at(orders, 0), Text: string(chaos.Postpones)})
			m.done(47, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
			return x
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range chaos.Check(tell().h).Wrong {
				t.Error(v)
			}
		})
	}
}

// What must never be, and the rule by which the check finds it.
func TestBadHistories(t *testing.T) {
	whole := func() (*tale, *member) { // a good one, to spoil
		x := newTale(good, better)
		return x, x.member("a").assigned(orders, 0).done(good, 1, at(orders, 0)).done(better, 1, at(orders, 1)).commit(orders, 2)
	}
	for name, bad := range map[string]struct {
		rule string
		tell func() *tale
	}{
		"a record is never delivered": {"I1", func() *tale {
			x := newTale(good, better)
			x.member("a").assigned(orders, 0).done(good, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
			return x
		}},
		"a record is skipped by the commit": {"I2", func() *tale {
			x := newTale(good, better)
			x.member("a").assigned(orders, 0).done(better, 1, at(orders, 1)).commit(orders, 2).done(good, 1, at(orders, 0)).drained(orders, 0)
			return x
		}},
		"a successor begins above a record that had not ended": {"I2", func() *tale {
			x := newTale(good, better)
			x.member("a").assigned(orders, 0).start(good, 1, at(orders, 0)).killed()
			x.member("b").assigned(orders, 1).done(better, 1, at(orders, 1)).commit(orders, 2).drained(orders, 0)
			return x
		}},
		"a commit goes back": {"I2", func() *tale {
			x, m := whole()
			m.commit(orders, 1)
			m.commit(orders, 2)
			return x
		}},
		"a former owner commits over the new one": {"I3", func() *tale {
			x, m := whole()
			m.drained(orders, 0).commit(orders, 2)
			return x
		}},
		"a record starts after its partition was given up": {"I3", func() *tale {
			x := newTale(good)
			x.member("a").assigned(orders, 0).drained(orders, 0).done(good, 1, at(orders, 0)).assigned(orders, 0).commit(orders, 1)
			return x
		}},
		"delivered again after a commit that told it": {"I5", func() *tale {
			x, m := whole()
			m.commit(orders, 2).killed()
			x.member("b").assigned(orders, 2).done(better, 1, at(orders, 1))
			return x
		}},
		"delivered again after a clean hand-over": {"I5", func() *tale {
			x, m := whole()
			m.drained(orders, 0)
			x.member("b").assigned(orders, 2).done(better, 1, at(orders, 1))
			return x
		}},
		"delivered twice to one member": {"I5", func() *tale {
			x, m := whole()
			m.done(better, 1, at(orders, 1))
			return x
		}},
		"delivered to two who live": {"I5", func() *tale {
			x, _ := whole()
			x.member("b").assigned(orders, 0).done(good, 1, at(orders, 0))
			return x
		}},
		"a member that was counted out asks, and begins beside the owner": {"I5", func() *tale {
			x, owner := whole()
			x.member("b").assigned(orders, 0).done(good, 1, at(orders, 0)).note(chaos.Event{Kind: chaos.Uncommit, At: at(orders, 1)}).lost(orders)
			owner.commit(orders, 2).drained(orders, 0)
			return x
		}},
		"running at a clean hand-over, with nothing abandoned": {"I5", func() *tale {
			x := newTale(good)
			x.member("a").assigned(orders, 0).start(good, 1, at(orders, 0)).drained(orders, 0)
			x.member("b").assigned(orders, 0).done(good, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
			return x
		}},
		"a copy too many": {"I5", func() *tale {
			x := newTale(twice)
			m := x.member("a").assigned(orders, 0).assigned(again, 0).copied(twice, 1, at(orders, 0), 0)
			x.copyAt(twice, 2, 1)
			m.copied(twice, 2, at(again, 0), 2).copied(twice, 2, at(again, 1), 3).done(twice, 3, at(again, 2)).done(twice, 3, at(again, 3)).
				commit(orders, 1).commit(again, 4)
			return x
		}},
		"an acked copy is gone": {"I1", func() *tale {
			x := newTale(twice)
			x.member("a").assigned(orders, 0).copied(twice, 1, at(orders, 0), 0).commit(orders, 1)
			x.h.Copies = nil
			return x
		}},
		"a copy is gone that was written after its topic was made anew": {"I1", func() *tale {
			x := newTale(twice)
			x.now++
			x.h.Gone = append(x.h.Gone, chaos.Gone{Topic: again, Until: x.now * 1e6})
			x.member("a").assigned(orders, 0).copied(twice, 1, at(orders, 0), 0).commit(orders, 1)
			x.h.Copies = nil
			return x
		}},
		"a handler begins after its partition was lost, and is not told": {"I3", func() *tale {
			x := newTale(good)
			x.member("a").assigned(orders, 0).lost(orders).start(good, 1, at(orders, 0))
			x.member("b").assigned(orders, 0).done(good, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
			return x
		}},
		"a copy nobody came for": {"I1", func() *tale {
			x := newTale(twice)
			x.member("a").assigned(orders, 0).copied(twice, 1, at(orders, 0), 0).commit(orders, 1)
			return x
		}},
		"no dead letter": {"I1", func() *tale {
			x := newTale(letter)
			x.member("a").assigned(orders, 0).start(letter, 1, at(orders, 0)).end(letter, 1, at(orders, 0)).commit(orders, 1)
			return x
		}},
		"a dead letter of a record that was handled": {"I1", func() *tale {
			x, _ := whole()
			x.h.Letters = append(x.h.Letters, chaos.Record{At: at(dead, 0), ID: good, Body: 8})
			return x
		}},
		"the end is not committed": {"I1", func() *tale {
			x, _ := whole()
			x.h.Commits[chaos.Partition{Topic: orders}] = 1
			return x
		}},
		"one of a key beside another": {"I6", func() *tale {
			x := newTale(good, better)
			x.member("a").assigned(orders, 0).start(good, 1, at(orders, 0)).start(better, 1, at(orders, 1)).
				end(good, 1, at(orders, 0)).end(better, 1, at(orders, 1)).commit(orders, 2)
			return x
		}},
		"one of a key before another": {"I6", func() *tale {
			x := newTale(good, better)
			x.member("a").assigned(orders, 0).done(better, 1, at(orders, 1)).done(good, 1, at(orders, 0)).commit(orders, 2)
			return x
		}},
		"an attempt before it is due": {"I7", func() *tale {
			x := newTale(twice)
			m := x.member("a").assigned(orders, 0).assigned(again, 0).copied(twice, 1, at(orders, 0), 0)
			x.h.Copies[0].Due = x.now + 1000
			m.copied(twice, 2, at(again, 0), 1).done(twice, 3, at(again, 1)).commit(orders, 1).commit(again, 2)
			return x
		}},
		"an attempt number that stands still": {"I8", func() *tale {
			x := newTale(twice)
			x.member("a").assigned(orders, 0).assigned(again, 0).copied(twice, 1, at(orders, 0), 0).
				copied(twice, 1, at(again, 0), 1).done(twice, 3, at(again, 1)).commit(orders, 1).commit(again, 2)
			return x
		}},
		"an attempt after the last": {"I8", func() *tale {
			x, m := whole()
			x.copyAt(good, 2, 0)
			m.assigned(again, 0).done(good, 2, at(again, 0)).commit(again, 1)
			return x
		}},
		"a handler got other bytes": {"bytes", func() *tale {
			x, _ := whole()
			x.h.Sent[0].Sum = 6
			return x
		}},
		"a copy has other bytes": {"bytes", func() *tale {
			x := newTale(twice)
			x.member("a").assigned(orders, 0).copied(twice, 1, at(orders, 0), 0).commit(orders, 1)
			x.h.Copies[0].Body = 6
			return x
		}},
		"a record that nobody produced": {"I12", func() *tale {
			x, m := whole()
			m.done(99, 1, at(orders, 7))
			return x
		}},
		"a stop fails for no reason": {"stop", func() *tale {
			x, m := whole()
			m.note(chaos.Event{Kind: chaos.Ready}).drained(orders, 0).note(chaos.Event{Kind: chaos.Down, Text: "retriable: something"})
			return x
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := chaos.Check(bad.tell().h)
			if !slices.ContainsFunc(r.Wrong, func(v chaos.Violation) bool { return v.Rule == bad.rule }) {
				t.Errorf("not found by %s: %v", bad.rule, r.Wrong)
			}
		})
	}
}

// A timeline tells what happened to a record, in order, among the faults.
func TestTimeline(t *testing.T) {
	x := newTale(good, better)
	x.member("a").assigned(orders, 0).start(good, 1, at(orders, 0)).killed()
	x.h.Faults = append(x.h.Faults, fmt.Sprintf("%d a kill", (x.now+1)*1e6))
	x.now += 2
	x.member("b").assigned(orders, 0).done(good, 1, at(orders, 0)).commit(orders, 1)
	text := chaos.Check(x.h).Timeline(good)
	var got []string
	for line := range strings.Lines(text) {
		got = append(got, strings.Join(strings.Fields(line)[1:3], " "))
	}
	want := "record lies, a assigned, a start, fault a, b assigned, b start, b end, b handled, b committed"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %s\n%s", strings.Join(got, ", "), text)
	}
}

// A run that met nothing is void.
func TestAVoidRun(t *testing.T) {
	x := newTale(good)
	x.member("a").assigned(orders, 0).done(good, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
	r := chaos.Check(x.h)
	if missing := r.Void(chaos.DiedAtWork, chaos.Repeated); len(missing) != 2 {
		t.Errorf("missing: %q", missing)
	}
	x = newTale(good)
	x.member("a").assigned(orders, 0).start(good, 1, at(orders, 0)).killed()
	x.member("b").assigned(orders, 0).done(good, 1, at(orders, 0)).commit(orders, 1).drained(orders, 0)
	r = chaos.Check(x.h)
	if missing := r.Void(chaos.DiedAtWork, chaos.Repeated); len(missing) != 0 {
		t.Errorf("missing: %q", missing)
	}
}
