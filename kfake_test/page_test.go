package kfake_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/page"
)

// browser asks a page without a network.
type browser struct{ p *page.Page }

func (b browser) get(path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	b.p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	return w
}

func (b browser) post(path string, form url.Values, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	b.p.ServeHTTP(w, r)
	return w
}

// token is what the page's forms carry.
func (b browser) token(path string) string {
	found := regexp.MustCompile(`name="token" value="([^"]+)"`).FindStringSubmatch(b.get(path).Body.String())
	if found == nil {
		return ""
	}
	return found[1]
}

// page makes a consumer's page, closed when the story ends.
func (b *bed) page(r *running, opts ...page.Option) browser {
	b.Helper()
	p, err := page.New(r.Consumer, opts...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Close)
	return browser{p}
}

// hostile is text that would do harm where it is not escaped.
const hostile = `"><script>alert(1)</script>'`

func TestThePageShowsWhatTheConsumerDoes(t *testing.T) {
	bubble(t, "orders:3 orders.retry", func(b *bed) {
		blocked := b.gate()
		r := b.begin("billing"+hostile, patient(), retriable.StuckAfter(time.Minute), retriable.Topic("orders", handles(func(m *retriable.Message) error {
			switch string(m.Value) {
			case "blocked":
				blocked.wait()
			case "fails":
				return errNo
			}
			return nil
		}), none(), retriable.RetryTopic("orders.retry"), retriable.Backoff(retriable.Constant(3*time.Hour))))
		pg := b.page(r)
		b.produce("orders", 0, "a=done", "b=blocked", "b=queued", "c=fails", "d=done")
		time.Sleep(10 * time.Minute)

		var s struct {
			Group    string
			Ready    bool
			Checked  bool
			Problems []struct{ Kind, Text, Advice string }
			Counters struct {
				Running, Pending, Held int
				Handled, Retried       uint64
			}
			Topics []struct {
				Base    string
				Retries []string
			}
			Partitions []struct {
				Topic                           string
				Partition                       int32
				Committed, Watermark, Next, End int64
				Oldest                          *struct {
					Offset int64
					Reason string
				}
				Window []struct{ From, To, Running, Queued int64 }
			}
			Running []struct {
				Topic       string
				Partition   int32
				Offset      int64
				Attempt     int
				Since, Read time.Time
			}
			Waiting []struct {
				Topic   string
				Attempt int
				Due     time.Time
			}
			Dead []any `json:"dead_letters"`
		}
		w := pg.get("/data.json")
		if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
			b.Fatalf("%v in %s", err, w.Body)
		}
		wantEqual(t, "group, ready, checked", words(s.Group, s.Ready, s.Checked), words("billing"+hostile, true, true))
		wantEqual(t, "numbers", words(s.Counters.Running, s.Counters.Pending, s.Counters.Held, s.Counters.Handled, s.Counters.Retried), "1 2 1 2 1")
		wantEqual(t, "topics", fmt.Sprint(s.Topics), "[{orders [orders.retry]}]")
		wantEqual(t, "partitions", len(s.Partitions), 4)
		p := s.Partitions[0] // those with something to do come first
		wantEqual(t, "partition", words(p.Topic, p.Partition, p.Committed, p.Watermark, p.Next, p.End, p.Oldest.Offset, p.Oldest.Reason), "orders 0 1 1 5 5 1 running")
		wantEqual(t, "window", fmt.Sprint(p.Window), "[{1 2 1 0} {2 3 0 1} {3 4 0 0} {4 5 0 0}]")
		wantEqual(t, "running", words(len(s.Running), s.Running[0].Topic, s.Running[0].Offset, s.Running[0].Attempt), "1 orders 1 1")
		if d := time.Since(s.Running[0].Since); d < 9*time.Minute || d > 10*time.Minute {
			t.Errorf("it runs for %v", d)
		}
		wantEqual(t, "waiting", words(len(s.Waiting), s.Waiting[0].Topic, s.Waiting[0].Attempt, time.Until(s.Waiting[0].Due).Round(time.Hour)), "1 orders.retry 2 3h0m0s")
		wantEqual(t, "problems", words(len(s.Problems), s.Problems[0].Kind, strings.HasPrefix(s.Problems[0].Text, "orders/0 is stuck at offset 1: running since")), "1 stuck true")
		wantEqual(t, "dead letters, without a client", len(s.Dead), 0)

		w = pg.get("/")
		html := w.Body.String()
		wantEqual(t, "status", w.Code, http.StatusOK)
		for _, want := range []string{
			"1 problem", "orders/0 is stuck at offset 1", "HandlerTimeout bounds", `<th scope="row">orders/0/1</th>`, "9 min 5", "in 2 h 50 min",
			`<rect class="running"`, "window of offsets 1 to 4: 1 running, 1 queued", "2 partitions with nothing to do", "orders.retry/0/0",
			"billing&#34;&gt;&lt;script&gt;", `<link rel="stylesheet" href="page.css">`,
		} {
			if !strings.Contains(html, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
		if strings.Contains(html, "<script>alert") || strings.Contains(html, "ZgotmplZ") || strings.Contains(html, "Dead letters") {
			t.Error("the page shows what it must not")
		}
		if strings.Count(html, "<script") != 1 || strings.Contains(html, " style=") || strings.Contains(html, " on") && regexp.MustCompile(`<[^>]* on[a-z]+=`).MatchString(html) {
			t.Error("the page has something inline")
		}
		blocked.open()
		pass(time.Minute)
		html = pg.get("/").Body.String()
		if !strings.Contains(html, "All is well.") || !strings.Contains(html, "No handler runs.") {
			t.Error("the page does not show that all is well again")
		}
		r.clean()
		pass(time.Minute)
		html = pg.get("/").Body.String()
		if !strings.Contains(html, "problem") || !strings.Contains(html, "No partition is assigned") {
			t.Error("the page does not show that the consumer has ended")
		}
	})
}

func TestThePageIsSafeByDefault(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead", func(b *bed) {
		r := b.begin("billing", retriable.Topic("orders", handles(func(m *retriable.Message) error {
			return retriable.Permanent(errors.New("secret error"))
		}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
		a, done := b.outside()
		defer done()
		b.send(&kgo.Record{
			Topic: "orders", Key: []byte("secret key" + hostile), Value: []byte("secret value" + hostile),
			Headers: []kgo.RecordHeader{{Key: "secret name" + hostile, Value: []byte("secret header" + hostile)}},
		})
		b.send(deadLetter(0, "billing", 7, "secret reason"+hostile))
		b.until("there is a letter", time.Minute, func() bool { return r.Stats().DeadLettered == 1 })
		pass(5 * time.Second)

		for name, pg := range map[string]browser{"alone": b.page(r), "with letters": b.page(r, page.Letters(a))} {
			for _, path := range []string{"/", "/data.json"} {
				w := pg.get(path)
				if body := w.Body.String(); strings.Contains(body, "secret") || strings.Contains(body, "<script>alert") {
					t.Errorf("%s: %s shows a payload: %s", name, path, body)
				}
				wantEqual(t, "cache", w.Header().Get("Cache-Control"), "no-store")
				csp := w.Header().Get("Content-Security-Policy")
				if !strings.HasPrefix(csp, "default-src 'none'; ") || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") {
					t.Errorf("the policy is %s", csp)
				}
				wantEqual(t, "sniffing", w.Header().Get("X-Content-Type-Options"), "nosniff")
			}
			html := pg.get("/").Body.String()
			if strings.Contains(html, "replay?") || strings.Contains(html, "<form") {
				t.Errorf("%s: there is a button", name)
			}
			wantEqual(t, name+": a replay", fmt.Sprint(pg.get("/replay?topic=0").Code, pg.post("/replay", url.Values{"topic": {"0"}}).Code), "404 404")
			wantEqual(t, name+": others", fmt.Sprint(pg.post("/", nil).Code, pg.post("/data.json", nil).Code, pg.get("/../page.go").Code, pg.get("/assets/page.html").Code, pg.get("/live.html").Code), "405 405 404 404 404")
		}
		html := b.page(r, page.Letters(a)).get("/").Body.String()
		for _, want := range []string{"permanent failure", "orders/0/0", "not one of this library"} {
			if !strings.Contains(html, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
		// Only where it is allowed, and escaped.
		pg := b.page(r, page.Letters(a), page.AllowPayloads(func(r *http.Request) bool { return r.URL.Query().Get("who") == "me" }))
		if strings.Contains(pg.get("/").Body.String(), "secret") || strings.Contains(pg.get("/data.json").Body.String(), "secret") {
			t.Error("payloads are shown to those who may not see them")
		}
		html = pg.get("/?who=me").Body.String()
		for _, want := range []string{"secret key&#34;&gt;&lt;script", "secret value&#34;", "secret header&#34;", "secret name&#34;", "secret error", "secret reason&#34;"} {
			if !strings.Contains(html, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
		if strings.Contains(html, "<script>alert") {
			t.Error("a payload is not escaped")
		}
		r.clean()
	})
}

func TestThePageSendsLettersBack(t *testing.T) {
	bubble(t, "orders orders.retry orders.dead:2", func(b *bed) {
		var l ledger
		r := b.begin("billing", retriable.Topic("orders", handles(func(m *retriable.Message) error {
			l.note(m)
			return nil
		}), retriable.RetryTopic("orders.retry"), retriable.DeadLetterTopic("orders.dead")))
		a, done := b.outside()
		defer done()
		for i := range 6 {
			b.send(deadLetter(int32(i%2), "billing", i, []string{"permanent failure", "no retry topic"}[i/4]))
		}
		b.send(deadLetter(0, "mailing", 99, "permanent failure"))
		allowed := false
		pg := b.page(r, page.Letters(a), page.AllowReplay(func(*http.Request) bool { return allowed }))
		wantEqual(t, "not allowed", fmt.Sprint(pg.get("/replay?topic=0").Code, strings.Contains(pg.get("/").Body.String(), "replay?")), "404 false")
		allowed = true
		html := pg.get("/").Body.String()
		if !strings.Contains(html, `href="replay?topic=0"`) || !strings.Contains(html, `href="replay?topic=0&amp;at=1%2F2"`) {
			t.Fatalf("no button in %s", html)
		}
		if html := pg.get("/replay?topic=0").Body.String(); !strings.Contains(html, "6 letters") {
			t.Errorf("the question is %s", html)
		}
		token := pg.token("/replay?topic=0&at=1%2F2")
		one := url.Values{"topic": {"0"}, "at": {"1/2"}, "token": {token}, "rate": {"50"}}
		with := func(name, value string) url.Values {
			v := url.Values{}
			for k := range one {
				v.Set(k, one.Get(k))
			}
			v.Set(name, value)
			return v
		}
		for name, c := range map[string]struct {
			w    *httptest.ResponseRecorder
			code int
		}{
			"no token":       {pg.post("/replay", with("token", "")), http.StatusForbidden},
			"another token":  {pg.post("/replay", with("token", "x")), http.StatusForbidden},
			"token in query": {pg.post("/replay?token="+token, with("token", "")), http.StatusForbidden},
			"another site":   {pg.post("/replay", one, "Sec-Fetch-Site", "cross-site"), http.StatusForbidden},
			"a sister site":  {pg.post("/replay", one, "Sec-Fetch-Site", "same-site"), http.StatusForbidden},
			"another origin": {pg.post("/replay", one, "Origin", "https://evil.example"), http.StatusForbidden},
			"no topic":       {pg.post("/replay", with("topic", "1")), http.StatusBadRequest},
			"no position":    {pg.post("/replay", with("at", "x")), http.StatusBadRequest},
			"no reason":      {pg.post("/replay", with("reason", hostile)), http.StatusBadRequest},
			"no rate":        {pg.post("/replay", with("rate", "NaN")), http.StatusBadRequest},
			"too much":       {pg.post("/replay", with("note", strings.Repeat("x", 20<<10))), http.StatusBadRequest},
		} {
			wantEqual(t, name, c.w.Code, c.code)
		}
		pass(time.Minute)
		wantEqual(t, "sent by those", len(l.all()), 0)

		w := pg.post("/replay", one, "Sec-Fetch-Site", "same-origin")
		wantEqual(t, "answer", words(w.Code, w.Header().Get("Location")), "303 ./#dead-0")
		pass(time.Minute)
		wantEqual(t, "one", l.values(), []string{"5"})
		html = pg.get("/").Body.String()
		if !strings.Contains(html, "The last replay sent 1 letter back.") || strings.Contains(html, "at=1%2F2") {
			t.Errorf("the page does not show that it was sent: %s", html)
		}
		wantEqual(t, "those of a reason", pg.post("/replay", url.Values{"topic": {"0"}, "reason": {"permanent failure"}, "token": {token}}).Code, http.StatusSeeOther)
		wantEqual(t, "while it runs", pg.post("/replay", url.Values{"topic": {"0"}, "token": {token}}).Code, http.StatusConflict)
		pass(time.Minute)
		l.once(t, 5)
		wantEqual(t, "the rest", pg.post("/replay", url.Values{"topic": {"0"}, "token": {token}}).Code, http.StatusSeeOther)
		pass(time.Minute)
		l.once(t, 6)
		for i := range 6 {
			wantEqual(t, "attempt", l.of(fmt.Sprint(i))[0].attempt, 1)
		}
		r.clean()
	})
}

// stream is a browser's end of server-sent events.
type stream struct {
	httptest.ResponseRecorder
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (*stream) Flush() {}

func (s *stream) events() (html []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(s.b.String()) {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			var h string
			if json.Unmarshal([]byte(data), &h) == nil {
				html = append(html, h)
			}
		}
	}
	return html
}

func TestThePageFollows(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		r := b.begin("billing", retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), none()))
		p, err := page.New(r.Consumer, page.Every(2*time.Second))
		if err != nil {
			b.Fatal(err)
		}
		ctx, gone := context.WithCancel(b.Context())
		defer gone()
		var left, closed stream
		var wg sync.WaitGroup
		wg.Go(func() {
			p.ServeHTTP(&left, httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", http.NoBody))
		})
		wg.Go(func() { p.ServeHTTP(&closed, httptest.NewRequest(http.MethodGet, "/events", http.NoBody)) })
		pass(5 * time.Second)
		b.produce("orders", 0, seq(1234)...)
		pass(5 * time.Second)
		es := left.events()
		if len(es) < 5 || strings.Contains(es[0], "1,234") || !strings.Contains(es[len(es)-1], "<dt>handled</dt><dd>1,234</dd>") {
			t.Errorf("%d events, the last: %s", len(es), es[len(es)-1])
		}
		gone()
		p.Close()
		wg.Wait() // both have ended
		wantEqual(t, "after Close", browser{p}.get("/").Code, http.StatusServiceUnavailable)
		r.clean()
	})
}

func TestThePageIsMountedAnywhere(t *testing.T) {
	t.Parallel()
	c, err := retriable.New("g", retriable.Brokers("127.0.0.1:9092"), retriable.Topic("orders", handles(func(*retriable.Message) error { return nil }), none()))
	if err != nil {
		t.Fatal(err)
	}
	p, err := page.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	mux := http.NewServeMux()
	mux.Handle("/", p)
	mux.Handle("/a/b/", http.StripPrefix("/a/b", p))
	mux.Handle("/bare", http.StripPrefix("/bare", p))
	for path, want := range map[string]string{"/": "200", "/a/b/": "200", "/a/b/page.css": "200", "/a/b/data.json": "200", "/a/b/none": "404", "/bare?x=1": "301 ./bare/", "/page.js": "200", "/icon.svg": "200"} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
		wantEqual(t, path, words(w.Code, w.Header().Get("Location")), want)
	}
	for want, opts := range map[string][]page.Option{
		"Every(1ms): less than 100ms": {page.Every(time.Millisecond)},
		"AllowReplay without Letters": {page.AllowReplay(nil)},
	} {
		if _, err := page.New(c, opts...); !errors.Is(err, retriable.ErrInvalidOption) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := page.New(nil); !errors.Is(err, retriable.ErrInvalidOption) {
		t.Errorf("no consumer: %v", err)
	}
}
