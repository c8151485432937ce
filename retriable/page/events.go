package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// mostStreams is how many browsers are kept up to date at once; others are told to come again.
const mostStreams = 64

// serveEvents sends what has changed, as server-sent events: each is the page's living part, rendered for this reader.
func (p *Page) serveEvents(w http.ResponseWriter, r *http.Request) {
	if p.streams.Add(1) > mostStreams {
		p.streams.Add(-1)
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too many look at this page", http.StatusServiceUnavailable)
		return
	}
	defer p.streams.Add(-1)
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // proxies are to pass it on at once
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for {
		event, err := p.event(r)
		if err != nil {
			return
		}
		_ = out.SetWriteDeadline(time.Now().Add(10 * time.Second)) // it outlives the server's own
		if _, err := w.Write(event); err != nil {
			return
		}
		if err := out.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *Page) event(r *http.Request) ([]byte, error) {
	var html bytes.Buffer
	if err := p.html.ExecuteTemplate(&html, "live", p.view(r)); err != nil {
		return nil, err
	}
	data, err := json.Marshal(html.String()) // on one line
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "retry: 3000\nevent: page\ndata: %s\n\n", data), nil
}
