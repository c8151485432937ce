package page

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

// progress is how far a replay has come.
type progress struct {
	Running bool   `json:"running"`
	Sent    int    `json:"sent"`
	Failed  string `json:"failed,omitempty"` // why it ended early: what was sent is remembered
}

// job is the replay of a dead-letter topic that is under way, or the last one.
type job struct {
	mu    sync.Mutex
	begun bool
	state progress
}

// progress returns nil if there was no replay.
func (j *job) progress() *progress {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.begun {
		return nil
	}
	s := j.state
	return &s
}

func (j *job) set(s progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.state = s
}

// claim takes the topic's one place for a replay.
func (j *job) claim() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state.Running {
		return false
	}
	j.begun, j.state = true, progress{Running: true}
	return true
}

// order is what a reader wants sent back.
type order struct {
	d      *deadTopic
	Reason string // only letters of this reason; "" for all
	At     string // only the letter at this partition and offset, as 0/17
	Rate   float64
	at     retriable.Position
}

// The rates that are taken, in letters a second.
const (
	defaultRate = 50
	mostRate    = 10_000
)

var errOrder = errors.New("this is not a letter, a reason or a rate of this page")

// order reads a form.
func (p *Page) order(form url.Values) (*order, error) {
	no, err := strconv.Atoi(form.Get("topic"))
	if err != nil || no < 0 || no >= len(p.dead) || len(p.dead[no].topic.Retries) == 0 {
		return nil, errOrder
	}
	o := &order{d: p.dead[no], Reason: form.Get("reason"), At: form.Get("at"), Rate: defaultRate}
	if o.Reason != "" && !known.MatchString(o.Reason) {
		return nil, errOrder
	}
	if rate := form.Get("rate"); rate != "" {
		if o.Rate, err = strconv.ParseFloat(rate, 64); err != nil || !(o.Rate > 0 && o.Rate <= mostRate) {
			return nil, errOrder
		}
	}
	if o.At == "" {
		return o, nil
	}
	partition, offset, _ := strings.Cut(o.At, "/")
	n, err := strconv.ParseInt(partition, 10, 32)
	if err != nil {
		return nil, errOrder
	}
	o.at = retriable.Position{Topic: o.d.topic.Dead, Partition: int32(n)}
	if o.at.Offset, err = strconv.ParseInt(offset, 10, 64); err != nil {
		return nil, errOrder
	}
	return o, nil
}

// replay is the order as the admin client carries it out.
func (o *order) replay(group string) admin.Replay {
	t := o.d.topic
	r := admin.Replay{From: t.Dead, To: t.Retries[0], Group: group, Rate: o.Rate, Filter: admin.Filter{Match: o.means}}
	if t.Pattern {
		r.TopicRegexp = t.Base
	} else {
		r.Topic = t.Base
	}
	if o.At != "" {
		r.Filter.Partition = &o.at.Partition
	}
	return r
}

func (o *order) means(l *admin.Letter) bool {
	return (o.Reason == "" || l.Reason == o.Reason) && (o.At == "" || l.Position == o.at)
}

// question is what a reader is asked before anything is sent.
type question struct {
	*order
	Group, From, To string
	No              int
	Count           int
	Counted         bool
	Token           string
}

// serveReplay asks first (GET), and then begins (POST).
func (p *Page) serveReplay(w http.ResponseWriter, r *http.Request) {
	if p.letters == nil || !p.replays(r) {
		http.NotFound(w, r)
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		o, err := p.order(r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.render(w, "replay.html", p.question(r.Context(), o), http.StatusOK)
	case http.MethodPost:
		p.postReplay(w, r)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "only GET, HEAD and POST", http.StatusMethodNotAllowed)
	}
}

// question counts what would be sent.
func (p *Page) question(ctx context.Context, o *order) *question {
	q := &question{order: o, Group: p.c.Group(), From: o.d.topic.Dead, To: o.d.topic.Retries[0], No: o.d.no, Token: p.token}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	dry := o.replay(p.c.Group())
	dry.DryRun, dry.Rate = true, 0
	res, err := p.letters.Replay(ctx, dry)
	q.Count, q.Counted = res.Sent, err == nil
	return q
}

// postReplay begins a replay, if it is this page that asks for it: not another site in the same browser.
func (p *Page) postReplay(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	if err := p.origin.Check(r); err != nil {
		http.Error(w, "another site asked for this", http.StatusForbidden)
		return
	}
	if err := r.ParseForm(); err != nil {
		http.Error(w, "the form cannot be read", http.StatusBadRequest)
		return
	}
	if subtle.ConstantTimeCompare([]byte(r.PostForm.Get("token")), []byte(p.token)) != 1 {
		http.Error(w, "the form is not of this page, or of one before a restart: go back and load it again", http.StatusForbidden)
		return
	}
	o, err := p.order(r.PostForm)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !o.d.job.claim() {
		http.Error(w, "letters of this topic are being sent back already", http.StatusConflict)
		return
	}
	if !p.begin(func() { p.send(o) }) {
		http.Error(w, "the page is closed", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Location", fmt.Sprintf("./#dead-%d", o.d.no))
	w.WriteHeader(http.StatusSeeOther)
}

// send carries an order out. It ends when the page is closed; run again it sends the rest.
func (p *Page) send(o *order) {
	r, j := o.replay(p.c.Group()), &o.d.job
	r.Progress = func(n admin.ReplayResult) { j.set(progress{Running: true, Sent: n.Sent}) }
	res, err := p.letters.Replay(p.ctx, r)
	done := progress{Sent: res.Sent}
	if err != nil {
		done.Failed = err.Error()
	}
	j.set(done)
	o.d.found.forget()
}
