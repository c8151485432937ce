// Package page shows one consumer live, as a page for a browser and as JSON: its partitions with watermark, window and held records drawn to
// scale, what runs and for how long, what waits and until when, what is stuck and why, and its dead letters.
//
//	p, err := page.New(consumer)
//	…
//	http.Handle("/retriable/", http.StripPrefix("/retriable", p))
//
// The page needs nothing but this handler: templates, styles and script are in the binary, and nothing is loaded from elsewhere. Its tables work
// without JavaScript; with it they follow what happens, by server-sent events.
//
// It is safe by default: it changes nothing, and shows no key, value, header or handler's error text. Letters are shown to all who reach it if it
// is given an admin client ([Letters]); their payloads, and the button that sends them back, only to those that [AllowPayloads] and [AllowReplay]
// let. The page asks nobody for a password: put it behind what does, or on an address that only the right people reach.
package page

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/admin"
)

//go:embed assets
var files embed.FS

// Page is the handler. Make it with [New].
type Page struct {
	c        *retriable.Consumer
	letters  *admin.Client
	payloads func(*http.Request) bool
	replays  func(*http.Request) bool
	every    time.Duration

	assets  fs.FS
	html    *template.Template
	token   string // that forms carry, so that no other site can send one
	origin  *http.CrossOriginProtection
	streams atomic.Int32

	ctx  context.Context //nolint:containedctx // it lives exactly as long as the page: until Close
	end  context.CancelFunc
	last sync.Mutex // nothing begins after the end
	work sync.WaitGroup

	looked sync.Mutex // guards now
	now    *state
	health *cached[[]problem]
	dead   []*deadTopic
}

// Option configures a Page.
type Option func(*Page)

// Letters shows the newest letters of the consumer's dead-letter topics, read with c, which stays the caller's to close. It needs Read and Describe on
// those topics. Without it the page says nothing about dead letters but how many were written.
func Letters(c *admin.Client) Option { return func(p *Page) { p.letters = c } }

// AllowPayloads shows keys, values, headers and error texts of dead letters to those whose request is let, to everybody if allow is nil. Without this
// option they are shown to nobody. What records carry may be personal: ask who may see it.
func AllowPayloads(allow func(*http.Request) bool) Option {
	return func(p *Page) { p.payloads = orEverybody(allow) }
}

// AllowReplay gives those whose request is let, or everybody if allow is nil, a button that sends dead letters back into their retry topic, for this
// consumer's group alone ([admin.Client.Replay], with all it promises). It needs [Letters]. Without this option there is no such button, and a
// request for it is answered as one for a page that does not exist.
func AllowReplay(allow func(*http.Request) bool) Option {
	return func(p *Page) { p.replays = orEverybody(allow) }
}

// Every is how often the page is brought up to date for those who look. The default is 1 s. A page that nobody looks at costs nothing.
func Every(d time.Duration) Option { return func(p *Page) { p.every = d } }

func orEverybody(allow func(*http.Request) bool) func(*http.Request) bool {
	if allow == nil {
		return func(*http.Request) bool { return true }
	}
	return allow
}

func nobody(*http.Request) bool { return false }

// New returns the page of a consumer, which need not run yet. What is wrong with the options is reported all at once, each wrapping
// [retriable.ErrInvalidOption].
func New(c *retriable.Consumer, opts ...Option) (*Page, error) {
	p := &Page{c: c, payloads: nobody, every: time.Second, token: rand.Text(), origin: http.NewCrossOriginProtection()}
	for _, o := range opts {
		if o != nil {
			o(p)
		}
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	var err error
	if p.assets, err = fs.Sub(files, "assets"); err != nil {
		return nil, err
	}
	if p.html, err = template.New("").Funcs(words).ParseFS(p.assets, "*.html"); err != nil {
		return nil, err
	}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.health = newCached(p, max(5*p.every, 2*time.Second), p.askHealth)
	p.dead = p.deadTopics()
	return p, nil
}

func (p *Page) check() error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%w: page: "+format, append([]any{retriable.ErrInvalidOption}, args...)...))
		}
	}
	want(p.c != nil, "New: the consumer is nil")
	want(p.every >= 100*time.Millisecond, "Every(%v): less than 100ms", p.every)
	want(p.replays == nil || p.letters != nil, "AllowReplay without Letters")
	if p.replays == nil {
		p.replays = nobody
	}
	return errors.Join(errs...)
}

// Close ends what the page still does: streams to browsers, and a replay, which can be run again and then sends the rest. It waits for it. Call it
// when the server shuts down ([http.Server.RegisterOnShutdown]), which otherwise waits for the streams. Requests after it are refused.
func (p *Page) Close() {
	p.last.Lock()
	p.end()
	p.last.Unlock()
	p.work.Wait()
}

// begin runs f beside, unless the page is closed; Close waits for it.
func (p *Page) begin(f func()) bool {
	p.last.Lock()
	defer p.last.Unlock()
	if p.ctx.Err() != nil {
		return false
	}
	p.work.Go(f)
	return true
}

// ServeHTTP serves the page at "/", what it shows as JSON at "/data.json", and what the page itself asks for beside. Mount it below a path that ends in a
// slash, with [http.StripPrefix]. Its links are relative.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	if p.ctx.Err() != nil {
		http.Error(w, "the page is closed", http.StatusServiceUnavailable)
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	switch {
	case name == "replay":
		p.serveReplay(w, r)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	switch name {
	case "":
		p.servePage(w, r)
	case "data.json":
		p.serveData(w, r)
	case "events":
		p.serveEvents(w, r)
	case "page.css", "page.js", "icon.svg":
		w.Header().Set("Cache-Control", "no-cache")
		http.ServeFileFS(w, r, p.assets, name)
	default:
		http.NotFound(w, r)
	}
}

// secure sets what every answer carries: nothing is loaded from elsewhere, nothing runs or is styled inline, nobody frames the page.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "+
		"base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin") // a form without a referrer would come from nowhere
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

func (p *Page) servePage(w http.ResponseWriter, r *http.Request) {
	// Relative links need the slash that a mount without a pattern of its own may lack.
	if asked, _, _ := strings.Cut(r.RequestURI, "?"); asked != "" && !strings.HasSuffix(asked, "/") {
		w.Header().Set("Location", "./"+path.Base(asked)+"/")
		w.WriteHeader(http.StatusMovedPermanently)
		return
	}
	p.render(w, "page.html", p.view(r), http.StatusOK)
}

// render executes a template whole before it answers.
func (p *Page) render(w http.ResponseWriter, name string, data any, code int) {
	var b bytes.Buffer
	if err := p.html.ExecuteTemplate(&b, name, data); err != nil {
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}

func (p *Page) serveData(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(p.view(r).state)
}
