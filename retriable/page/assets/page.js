// Keeps the page up to date by server-sent events. Everything works without it, but that the page has to be loaded again.
"use strict";
(() => {
  const link = document.getElementById("link");
  const button = document.getElementById("pause");
  let source = null;
  let paused = false;
  let timer = 0;

  const say = (text, kind) => {
    if (link.textContent !== text) link.textContent = text;
    link.className = kind;
  };

  // morph makes old what fresh is and leaves alone what is the same: focus, selection, scrolling and what the reader has opened stay.
  const morph = (old, fresh) => {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
      old.replaceWith(document.importNode(fresh, true));
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const a of [...old.attributes]) {
      if (!fresh.hasAttribute(a.name) && !(a.name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(a.name);
    }
    for (const a of fresh.attributes) {
      if (old.getAttribute(a.name) !== a.value) old.setAttribute(a.name, a.value);
    }
    children(old, fresh);
  };

  // children pairs those that have an id by it, the others by their turn.
  const children = (old, fresh) => {
    const named = new Map();
    for (const c of old.children) if (c.id) named.set(c.id, c);
    let at = old.firstChild;
    for (const f of [...fresh.childNodes]) {
      const same = f.id ? named.get(f.id) : null;
      if (same) {
        if (same === at) at = at.nextSibling;
        else old.insertBefore(same, at);
        morph(same, f);
        continue;
      }
      if (!f.id && at && !at.id && at.nodeName === f.nodeName) {
        const next = at.nextSibling;
        morph(at, f);
        at = next;
        continue;
      }
      old.insertBefore(document.importNode(f, true), at);
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  };

  const show = (html) => {
    const fresh = new DOMParser().parseFromString(html, "text/html").getElementById("live");
    if (fresh) morph(document.getElementById("live"), fresh);
  };

  const stop = () => {
    clearTimeout(timer);
    if (source) source.close();
    source = null;
  };

  const start = () => {
    stop();
    if (paused || document.hidden) return;
    source = new EventSource("events");
    source.addEventListener("page", (e) => {
      show(JSON.parse(e.data));
      say("Live", "live");
    });
    source.addEventListener("error", () => {
      say("No connection: what is shown may be old", "lost");
      if (source && source.readyState === EventSource.CLOSED) timer = setTimeout(start, 5000);
    });
  };

  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Go on" : "Pause";
    if (paused) {
      stop();
      say("Paused", "");
    } else {
      say("Connecting", "");
      start();
    }
  });
  document.addEventListener("visibilitychange", start);
  addEventListener("pagehide", stop);
  say("Connecting", "");
  start();
})();
