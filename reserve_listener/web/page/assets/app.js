// The page works without this. With it, it is live (a change shows within a second), and searches as you type.
"use strict";

const SOON_MS = 150; // a change shows at once; of a burst, one refresh tells all of its beginning
const OPENED_MS = 700; // the page is painted first
const BUSY_MS = 2000; // and then no more than one in so long
const AGAIN_MS = 3000; // as browsers wait where they try again
const QUIET_MS = 30000; // "3 min ago" and the verdict grow old although nothing comes
const TYPING_MS = 180;

const stale = document.getElementById("stale");

let asked = 0; // only the answer to the last question counts
let refreshed = 0;
let waiting = null;

async function load(url) {
  const question = ++asked;
  const answer = await fetch(url, { headers: { accept: "text/html" } });
  if (answer.redirected && new URL(answer.url).pathname === "/login") location.assign(answer.url);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  page.isWhole = answer.ok; // else the store could not be read: what is shown stays
  return question === asked ? page : null;
}

// A part stays as it is while something in it is selected or pressed.
function isInUse(part) {
  const selection = getSelection();
  return part.querySelector(":active") || (!selection.isCollapsed && part.contains(selection.anchorNode));
}

// Where the keyboard is in a part, so that it is there again in the next one: the same element of its kind in the same home.
function placeIn(part) {
  const element = document.activeElement;
  if (!part.contains(element) || element === part) return null;
  const home = element.parentElement.closest("[id]");
  const kind = element.tagName;
  return { home: home.id, kind, number: [...home.querySelectorAll(kind)].indexOf(element) };
}

function goTo(place) {
  document.getElementById(place.home)?.querySelectorAll(place.kind)[place.number]?.focus({ preventScroll: true });
}

function take(page) {
  if (page.isWhole && document.getElementById("unread")) {
    document.querySelector("main").replaceWith(page.querySelector("main")); // the store is back
    document.title = page.title;
    return 0;
  }
  const known = new Set([...document.querySelectorAll(".feed li")].map((one) => one.id));
  let news = 0;
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = page.getElementById(part.id);
    if (isInUse(part)) continue;
    if (!next) {
      if (page.isWhole) part.remove();
      continue;
    }
    for (const open of part.querySelectorAll("details[open]")) next.querySelector(`#${CSS.escape(open.id)}`)?.setAttribute("open", "");
    for (const one of next.querySelectorAll(".feed li")) {
      if (known.size && !known.has(one.id)) news += one.classList.add("fresh") ?? 1;
    }
    const place = placeIn(part);
    part.replaceWith(next);
    if (place) goTo(place);
  }
  for (const next of page.querySelectorAll("[data-live]")) {
    const beside = document.querySelector("aside");
    if (!document.getElementById(next.id) && beside && next.closest("aside")) beside.append(next);
  }
  document.title = page.title;
  return news;
}

async function refresh() {
  waiting = null;
  if (document.hidden) return;
  refreshed = Date.now();
  try {
    const page = await load(location.href);
    stale.hidden = true;
    if (!page) return;
    const announce = document.getElementById("announce");
    if (take(page)) announce.textContent = `${announce.dataset.text} (${new Date().toLocaleTimeString()})`;
  } catch {
    stale.hidden = false; // the daemon restarts, or the network is away: what is shown is old
  }
}

function refreshIn(ms) {
  waiting ??= setTimeout(refresh, Math.max(ms, refreshed + BUSY_MS - Date.now()));
}

function refreshSoon() {
  refreshIn(SOON_MS);
}

let stream = null;

function listen(url) {
  stream = new EventSource(url);
  stream.addEventListener("change", refreshSoon);
  stream.addEventListener("reset", refreshSoon);
  stream.addEventListener("open", () => refreshIn(OPENED_MS)); // what came before somebody listened
  stream.addEventListener("error", () => {
    refreshSoon();
    // A browser tries again by itself, but gives up at an answer that is no stream: the store may be away, or too many listen.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS, url);
  });
}

function stayLive(url) {
  listen(url);
  setInterval(refreshSoon, QUIET_MS);
  document.addEventListener("visibilitychange", refreshSoon);
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}

const address = () => location.pathname + location.search;

function searchAsTyped(form) {
  let typed = null;
  let shown = address();
  const go = async () => {
    const text = form.q.value.trim();
    const target = new URL(location.pathname === "/" ? location.href : "/", location.href);
    target.searchParams.delete("before");
    if (text) target.searchParams.set("q", text);
    else target.searchParams.delete("q");
    try {
      const page = await load(target);
      if (!page) return;
      document.querySelector("main").replaceWith(page.querySelector("main"));
      document.querySelector("nav").replaceWith(page.querySelector("nav"));
      document.title = page.title;
      history[location.pathname === "/" ? "replaceState" : "pushState"](null, "", target);
      shown = address();
    } catch {
      // Enter still sends the form
    }
  };
  form.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(go, TYPING_MS);
  });
  addEventListener("popstate", () => address() === shown || location.reload()); // a step to #main is none
}

document.documentElement.classList.add("live");
const search = document.querySelector("[data-search]");
if (search) searchAsTyped(search);
if (document.body.dataset.stream) stayLive(document.body.dataset.stream);
