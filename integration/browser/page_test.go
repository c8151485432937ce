package browser_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/retriable-kafka/retriable-go/retriable"
	"github.com/retriable-kafka/retriable-go/retriable/page"
)

// live waits until the page follows by events.
const live = `document.getElementById("link").textContent === "Live"`

// cell is an expression for the text of a table's cell.
func cell(table, row string, column int) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#%s tr")].find(r => r.cells[0].textContent.trim() === %q)?.cells[%d].textContent`, table, row, column)
}

func TestThePageLoadsAndFollows(t *testing.T) {
	s := start(t, true)
	s.produce(0, "a=done", "b=blocked", "b=done", "c=done")
	s.produce(1, "d=later 2h", "e=bad 17")
	s.wait("one runs, one is held, one is dead", func(st retriable.Stats) bool {
		held := 0
		for _, p := range st.Partitions {
			held += p.Held
		}
		return st.Running == 1 && held == 1 && st.DeadLettered == 1
	})
	b := open(t)
	b.do(chromedp.Navigate(s.url))
	b.until(live)
	wantEqual(t, "title", eval[string](b, `document.title`), "billing · retriable")
	wantEqual(t, "watermark", eval[string](b, cell("busy", "orders/0", 2)), "1")
	wantEqual(t, "pending", eval[string](b, cell("busy", "orders/0", 6)), "2")
	if holds := eval[string](b, cell("busy", "orders/0", 9)); !strings.HasPrefix(holds, "running offset 1, attempt 1, for ") {
		t.Errorf("what holds the commit: %s", holds)
	}
	wantEqual(t, "what runs", eval[string](b, cell("running", "orders/0/1", 1)), "1")
	if waits := eval[string](b, `document.querySelector("#waiting tbody tr").innerText.replace(/\s+/g, " ")`); !strings.HasPrefix(waits, "orders.retry/1/0 2 in 1 h 59 min ") {
		t.Errorf("what waits: %s", waits)
	}
	b.until(`document.querySelector(".letters").innerText.includes("permanent failure")`)
	// The drawing, to scale: three offsets of the window, of which the first runs.
	wantEqual(t, "what runs is a third of the drawing", eval[string](b, `(() => {
		const w = document.querySelector("#p-orders-0 svg.window").getBoundingClientRect(), r = document.querySelector("#p-orders-0 svg.window rect.running").getBoundingClientRect();
		return [r.left - w.left, r.width / w.width].map(x => x.toFixed(2)).join(" ");
	})()`), "0.00 0.33")

	// It follows without being loaded again, and leaves alone what the reader does.
	eval[bool](b, `window.same = true; document.querySelector("#idle").open = true; document.querySelector("#idle summary").focus(); true`)
	s.produce(2, "f=done", "g=done")
	b.until(`[...document.querySelectorAll(".tiles div")].find(d => d.querySelector("dt").textContent === "handled").querySelector("dd").textContent === "4"`)
	b.until(`document.getElementById("verdict").textContent === "1 problem"`) // stuck, after two seconds
	if !eval[bool](b, `document.querySelector(".problems").innerText.includes("orders/0 is stuck at offset 1: running since")`) {
		t.Error("what is stuck is not named")
	}
	s.release()
	b.until(`document.getElementById("verdict").textContent === "All is well." && document.querySelector("#p-orders-0") === null && !document.getElementById("running")`)
	wantEqual(t, "the same document, what was opened and focused", eval[string](b, `[window.same, document.querySelector("#idle").open, document.activeElement.matches("#idle summary")].join(" ")`), "true true true")

	// The pause.
	b.do(chromedp.Click(chromedp.ID("pause")))
	b.until(`document.getElementById("link").textContent === "Paused"`)
	before := eval[string](b, `document.querySelector("footer time").textContent`)
	s.produce(3, "h=done")
	s.wait("it is handled", func(st retriable.Stats) bool { return st.Handled == 7 })
	wantEqual(t, "what is shown while it pauses", eval[string](b, `document.querySelector("footer time").textContent`), before)
	b.do(chromedp.Click(chromedp.ID("pause")))
	b.until(live)
	b.until(fmt.Sprintf(`document.querySelector("footer time").textContent !== %q`, before))

	// Nothing that it must not show.
	if html := eval[string](b, `document.documentElement.outerHTML`); strings.Contains(html, "expired") || strings.Contains(html, "replay?") || strings.Contains(html, "<form") {
		t.Error("by default the page shows a payload or a button")
	}
	wantEqual(t, "a replay by address", result(b, chromedp.Evaluate[int](`fetch("replay?topic=0").then(r => r.status)`, func(p *runtime.EvaluateParams) { p.AwaitPromise = new(true) })), 404)
	b.forgive("404") // the one that was asked for
	b.silent()
}

func TestThePageWorksWithoutJavaScript(t *testing.T) {
	s := start(t, true, page.AllowReplay(nil), page.AllowPayloads(nil))
	s.produce(0, "a=blocked", "b=bad <script>alert(1)</script>")
	s.wait("one runs, one is dead", func(st retriable.Stats) bool { return st.Running == 1 && st.DeadLettered == 1 })
	b := open(t)
	command(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.do(chromedp.Navigate(s.url))
	html := b.html()
	for _, want := range []string{"orders/0/0", "Not live: load the page again", "permanent failure", "card &lt;script&gt;alert(1)&lt;/script&gt; has expired", `<button type="button" id="pause" hidden="">`} {
		if !strings.Contains(html, want) {
			t.Errorf("without JavaScript the page lacks %q", want)
		}
	}
	b.do(chromedp.Click(chromedp.CSS(`a[href="replay?topic=0"]`)), chromedp.WaitVisible(chromedp.ID("count")))
	html = b.html()
	if !strings.Contains(html, "1 letter</strong>") {
		t.Errorf("the question is %s", html)
	}
	b.do(chromedp.Click(chromedp.CSS(".go")), chromedp.WaitVisible(chromedp.ID("live")))
	s.wait("it was handled again, in vain", func(st retriable.Stats) bool { return st.DeadLettered == 2 })
	b.silent()
}

func TestThePageSendsLettersBack(t *testing.T) {
	s := start(t, true, page.AllowReplay(nil))
	s.produce(0, "a=bad 1", "b=bad 2", "c=bad 3")
	s.wait("three are dead", func(st retriable.Stats) bool { return st.DeadLettered == 3 })
	b := open(t)
	b.do(chromedp.Navigate(s.url))
	b.until(live)
	b.until(`document.querySelectorAll('.letters a.button').length === 3`)
	wantEqual(t, "the newest first", eval[string](b, `document.querySelector(".letters a.button").getAttribute("aria-label")`), "Send back letter 0/2")
	b.do(chromedp.Click(chromedp.CSS(`.letters a.button`)), chromedp.WaitVisible(chromedp.ID("count")))
	wantEqual(t, "the question", eval[string](b, `document.getElementById("count").textContent`), "1 letter")
	b.do(chromedp.Click(chromedp.CSS(".go")))
	b.until(live + ` && document.querySelector("p.replay")?.textContent === "The last replay sent 1 letter back."`)
	s.wait("it came back", func(st retriable.Stats) bool { return st.DeadLettered == 4 })
	b.until(`[...document.querySelectorAll(".letters tbody")].some(r => r.cells === undefined && r.rows[0].cells[0].textContent === "0/2" && r.rows[0].cells[6].textContent === "yes")`)

	// All that is left, by keyboard alone.
	b.do(chromedp.Focus(chromedp.CSS(`a[href="replay?topic=0"]`)), chromedp.KeyEvent(kb.Enter), chromedp.WaitVisible(chromedp.ID("count")))
	wantEqual(t, "the question for all", eval[string](b, `document.getElementById("count").textContent`), "3 letters")
	b.do(chromedp.Focus(chromedp.ID("rate")), chromedp.KeyEvent(kb.Enter))
	b.until(live + ` && document.querySelector("p.replay")?.textContent === "The last replay sent 3 letters back."`)
	s.wait("they came back", func(st retriable.Stats) bool { return st.DeadLettered == 7 })

	// Another site in the same browser may not.
	before := s.consumer.Stats().DeadLettered
	b.do(chromedp.Navigate(s.url + "replay?topic=0"))
	forged := strings.Replace(s.url, "127.0.0.1", "localhost", 1)
	b.do(chromedp.Navigate("about:blank"))
	eval[bool](b, fmt.Sprintf(`(() => { const f = document.createElement("form"); f.method = "post"; f.action = %q; f.innerHTML = '<input name=topic value=0>'; document.body.append(f); f.submit(); return true; })()`, forged+"replay"))
	b.until(`document.body.innerText.includes("another site asked for this")`)
	wantEqual(t, "letters after a forged form", s.consumer.Stats().DeadLettered, before)
}

func TestThePageIsForEverybody(t *testing.T) {
	s := start(t, true, page.AllowReplay(nil), page.AllowPayloads(nil))
	s.scene()
	b := open(t)
	b.do(chromedp.Navigate(s.url))
	b.until(live)
	b.until(`document.querySelector(".problems") && document.querySelector(".letters")`)

	// All that can be used is reached by Tab, in the order of the page, with the focus to be seen, and Tab leads out again.
	b.do(chromedp.Click(chromedp.ID("pause"))) // so that what is counted stays
	want := eval[int](b, `[...document.querySelectorAll("a, button, summary, [tabindex='0']")].filter(e => e.checkVisibility()).length`)
	eval[bool](b, `document.activeElement.blur(); window.getSelection().removeAllRanges(); true`)
	eval[bool](b, `document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute("tabindex"); true`)
	var seen []string
	for range want {
		b.do(chromedp.KeyEvent(kb.Tab))
		seen = append(seen, eval[string](b, `(() => { const e = document.activeElement, o = getComputedStyle(e);
			window.walk = (window.walk || new Set()).add(e);
			return [e.nodeName, e.id || e.getAttribute("aria-label") || e.textContent, o.outlineStyle !== "none" && parseFloat(o.outlineWidth) >= 2 ? "" : "NO FOCUS TO BE SEEN"].join(" ").trim(); })()`))
	}
	if n := eval[int](b, `window.walk.size`); n != want || strings.Contains(strings.Join(seen, "\n"), "NO FOCUS") {
		t.Errorf("the walk reaches %d of %d: %q", n, want, seen)
	}
	wantEqual(t, "where it begins", strings.Join(seen[:3], ", "), "A Skip to the partitions, BUTTON pause, A JSON")
	b.do(chromedp.Focus(chromedp.CSS("#idle summary")), chromedp.KeyEvent(" "))
	wantEqual(t, "opened by keyboard", eval[bool](b, `document.querySelector("#idle").open`), true)
	b.do(chromedp.Focus(chromedp.CSS("a.skip")), chromedp.KeyEvent(kb.Enter))
	wantEqual(t, "the skip link leads to", eval[string](b, `document.activeElement.id`), "partitions")

	// Tables, drawings and regions have names; headings do not skip; ids are their own.
	wantEqual(t, "what lacks a name", eval[string](b, `[
		...[...document.querySelectorAll("table")].filter(e => !e.caption?.textContent),
		...[...document.querySelectorAll("svg, [role=region], section")].filter(e => !e.getAttribute("aria-label") && !document.getElementById(e.getAttribute("aria-labelledby"))?.textContent),
		...[...document.querySelectorAll("th")].filter(e => !e.scope),
		...[...document.querySelectorAll("[id]")].filter(e => document.querySelectorAll("#" + CSS.escape(e.id)).length > 1),
	].map(e => e.outerHTML.slice(0, 80)).join("\n")`), "")
	wantEqual(t, "headings", eval[string](b, `[...document.querySelectorAll("h1, h2, h3")].map(h => h.nodeName).join(" ")`), "H1 H2 H2 H2 H2 H2 H3")

	// Legible by WCAG's measure (AA), light and dark; and on a telephone nothing is cut off.
	for _, scheme := range []string{"light", "dark"} {
		command(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		wantEqual(t, "what is hard to read, "+scheme, strings.Join(eval[[]string](b, contrast), "\n"), "")
	}
	command(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 360, Height: 740, DeviceScaleFactor: 2, Mobile: true})
	wantEqual(t, "wider than a telephone", eval[int](b, `document.documentElement.scrollWidth`), 360)
	b.silent()
}

// contrast lists the texts whose colour stands out from what is behind it by less than 4.5 to 1.
const contrast = `(() => {
	const parse = c => c.match(/[\d.]+/g).map(Number);
	const light = ([r, g, b]) => { const f = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
	const over = (top, below) => { const a = top.length > 3 ? top[3] : 1; return [0, 1, 2].map(i => a * top[i] + (1 - a) * below[i]); };
	const behind = e => { const all = []; for (; e; e = e.parentElement) all.push(parse(getComputedStyle(e).backgroundColor)); return all.reverse().reduce((b, t) => over(t, b), [255, 255, 255]); };
	const bad = new Set();
	for (const e of document.querySelectorAll("body *")) {
		if (e.closest("svg, [disabled]") || !e.checkVisibility() || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
		const under = behind(e), s = getComputedStyle(e), ink = over(over(parse(s.color), under).concat(Number(s.opacity)), under);
		const [a, b] = [light(ink), light(under)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
		if (ratio < 4.5) bad.add(ratio.toFixed(2) + " " + e.nodeName + "." + e.className + " " + e.textContent.trim().slice(0, 30));
	}
	return [...bad];
})()`

// scene is a consumer in the middle of its day: what the screenshot in the documents shows.
func (s *service) scene() {
	s.Helper()
	var quick, slow []string
	for i := range 400 {
		quick = append(quick, fmt.Sprintf("q%d=done", i))
	}
	s.produce(0, quick[:180]...)
	s.produce(0, "hot=blocked")
	s.produce(0, quick...)
	for range 90 {
		slow = append(slow, "hot=done")
	}
	s.produce(0, slow...)
	s.produce(0, quick[:150]...)
	s.produce(1, quick[:120]...)
	s.produce(1, "big=blocked", "x=done", "y=done", "big=done", "z=done", "other=blocked", "u=done", "v=done", "w=done")
	for i := range 48 {
		s.produce(1+int32(i%3), fmt.Sprintf("r%d=later %dm", i, 2+i*i/9))
	}
	for i := range 4 {
		s.produce(1+int32(i%3), fmt.Sprintf("d%d=bad %d", i, 4000+i))
	}
	s.produce(3, quick[:50]...)
	// Behind a key that does not move the bound is reached: the rest of the log is not read yet.
	slow = nil
	for range 900 {
		slow = append(slow, "hot=done")
	}
	s.produce(0, slow...)
	s.wait("all is in its place", func(st retriable.Stats) bool {
		held := 0
		for _, p := range st.Partitions {
			held += p.Held
		}
		return held == 48 && st.DeadLettered == 4 && st.Running == 3
	})
}

func TestThePicture(t *testing.T) {
	s := start(t, true, page.AllowReplay(nil))
	s.scene()
	b := open(t)
	command(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 1280, Height: 1000, DeviceScaleFactor: 1})
	b.do(chromedp.Navigate(s.url))
	b.until(live)
	b.until(`document.querySelectorAll(".problems li").length === 2 && document.querySelectorAll(".letters tbody").length === 4`)
	png := result(b, chromedp.FullScreenshot(100))
	if len(png) < 20_000 {
		t.Errorf("a picture of %d bytes", len(png))
	}
	if *screenshot {
		if err := os.WriteFile("../../docs/page.png", png, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.silent()
}
