// The list of calls. The balancer holds it; the page asks only for the rows in view and some around
// them, and draws no others, so two thousand calls cost no more than forty.
//
// The newest stand on top. Who has scrolled down reads in peace: when calls come in above, the list
// moves along with them.

import { ApiError, get } from "./api.js";
import { byId, el, setText, show } from "./dom.js";
import { bytes, clock, count, duration, moment, words } from "./format.js";
import { bar, inWords, legend, openingOf, scaleFor } from "./phases.js";

const ROW = 28; // pixels, as in page.css
const AROUND = 15; // rows asked for above and below those in view
const TYPING_MS = 250;
const FAILED = new Set(["refused", "client_failed", "backend_failed"]);

export class CallList {
  constructor() {
    this.scroll = byId("calls-scroll");
    this.form = byId("filters");
    this.total = 0;
    this.first = 0; // number of the first row that was loaded
    this.rows = [];
    this.selected = null;
    this.scale = 0.1;
    this.drawn = new Map(); // call -> [what it was drawn from, its row]
    this.asking = null;
    this.again = false;
    byId("phases-legend").append(...legend());
    this.scroll.addEventListener("scroll", () => this.scrolled(), { passive: true });
    let timer;
    this.form.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.changed(), TYPING_MS);
    });
    this.form.addEventListener("reset", () => setTimeout(() => this.changed()));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.scroll.addEventListener("keydown", (event) => this.pressed(event));
    new ResizeObserver(() => this.scrolled()).observe(this.scroll);
  }

  get filters() {
    return Object.fromEntries([...new FormData(this.form)].map(([name, value]) => [name, value.trim()]));
  }

  get isFiltered() {
    const { state, ...others } = this.filters;
    return state !== "all" || Object.values(others).some(Boolean);
  }

  // Offer the listeners and backends there are.
  offer(overview) {
    const backends = overview.pools.flatMap((pool) => pool.backends.map((backend) => backend.name));
    for (const [name, values] of [
      ["listener", overview.listeners.map((listener) => listener.name)],
      ["backend", [...new Set(backends)]],
    ]) {
      const select = this.form.elements[name];
      show(select, el("option", { value: "" }, "any"), values.map((value) => el("option", { value, "data-key": value }, value)));
    }
  }

  changed() {
    this.form.querySelector("[type=reset]").hidden = !this.isFiltered;
    this.scroll.scrollTop = 0;
    this.refresh();
  }

  scrolled() {
    const { from, to } = this.inView();
    const isLoaded = from >= this.first && to <= this.first + this.rows.length;
    if (!isLoaded) this.refresh();
  }

  // Return which rows are in view: from, and up to but without to.
  inView() {
    const from = Math.max(0, Math.floor(this.scroll.scrollTop / ROW));
    const room = Math.ceil(this.scroll.clientHeight / ROW) + 1;
    return { from: Math.min(from, this.total), to: Math.min(this.total, from + room), room };
  }

  // Ask for the rows in view and draw them. One question at a time; what is asked meanwhile waits.
  async refresh() {
    if (this.asking) {
      this.again = true;
      return;
    }
    this.asking = this.load();
    try {
      await this.asking;
    } finally {
      this.asking = null;
    }
    if (this.again) {
      this.again = false;
      this.refresh();
    }
  }

  async load() {
    const { from, room } = this.inView();
    const offset = Math.max(0, from - AROUND);
    let page;
    try {
      page = await get("/calls", { ...this.filters, offset, limit: room + 2 * AROUND });
    } catch (error) {
      if (error instanceof ApiError && error.status >= 400 && error.status !== 401) this.fail(error.message);
      return;
    }
    this.fail("");
    this.hold(page, offset);
    this.first = offset;
    this.rows = page.calls;
    this.total = page.total;
    this.draw();
  }

  // Keep the row that is on top where it is, when others have come in above it.
  hold(page, offset) {
    const top = Math.floor(this.scroll.scrollTop / ROW);
    const held = this.rows[top - this.first];
    if (!top || !held) return;
    const now = page.calls.findIndex((call) => call.id === held.id);
    if (now >= 0 && offset + now !== top) this.shift = (offset + now - top) * ROW;
  }

  fail(text) {
    const place = byId("filter-error");
    place.hidden = !text;
    setText(place, text);
  }

  draw() {
    this.scale = scaleFor(this.rows.map((call) => call.phases));
    setText(byId("opening-scale"), this.rows.length ? `opening, a full bar is ${duration(this.scale)}:` : "opening:");
    byId("calls-table").setAttribute("aria-rowcount", String(this.total + 1));
    const below = Math.max(0, this.total - this.first - this.rows.length);
    show(
      byId("calls-rows"),
      spacer("above", this.first),
      this.drawRows(),
      spacer("below", below),
    );
    if (this.shift) {
      this.scroll.scrollTop += this.shift;
      this.shift = 0;
    }
    setText(byId("calls-count"), this.isFiltered ? `${count(this.total)} match` : count(this.total));
    const empty = byId("calls-empty");
    empty.hidden = this.total > 0;
    if (!this.total) setText(empty, this.isFiltered ? "No call matches." : "No call yet. The first one will appear here.");
  }

  // Draw each row, but those that would look the same as before.
  drawRows() {
    const before = this.drawn;
    this.drawn = new Map();
    const isSelected = (call) => call.id === this.selected;
    // The list is one stop for the Tab key; up and down go on from there.
    const stop = this.rows.find(isSelected) ?? this.rows[Math.max(0, this.inView().from - this.first)];
    return this.rows.map((call, n) => {
      const number = this.first + n;
      const from = JSON.stringify([call, number, this.scale, isSelected(call), call === stop]);
      const known = before.get(call.id);
      const row = known?.[0] === from ? known[1] : this.row(call, number, call === stop);
      this.drawn.set(call.id, [from, row]);
      return row;
    });
  }

  row(call, number, isStop) {
    const { tone, text, title } = endOf(call);
    const failed = call.tries.filter((one) => one.reason);
    const tried = failed.length ? `after ${failed.map((one) => `${one.backend} (${words(one.reason)})`).join(", ")}` : null;
    return el(
      "tr",
      { "data-key": String(call.id), "aria-rowindex": String(number + 2), "aria-selected": call.id === this.selected ? "true" : null, "data-state": call.state },
      el("th", { scope: "row", class: "c-id" }, el("button", { type: "button", class: "link", "data-do": "call", "data-call": String(call.id), tabindex: isStop ? null : "-1" }, String(call.id))),
      el("td", { class: "c-at", title: moment(call.started_at) }, clock(call.started_at)),
      el("td", { class: "c-client", title: call.client }, call.client),
      el("td", { class: "c-listener", title: call.mode }, call.listener),
      el("td", { class: "c-backend", title: tried }, call.backend ?? el("span", { class: "soft" }, "none"), failed.length ? el("span", { class: "tried" }, ` +${failed.length}`) : null),
      el("td", { class: "c-for num" }, duration(call.duration_s)),
      el("td", { class: "c-opening", title: inWords(call.phases) }, bar(call.phases, this.scale), el("span", { class: "took" }, openingOf(call.phases) ? duration(openingOf(call.phases)) : "–")),
      el("td", { class: "c-in num" }, bytes(call.bytes_in)),
      el("td", { class: "c-out num" }, bytes(call.bytes_out)),
      el("td", { class: "c-end", title }, el("span", { class: "state", "data-tone": tone }, text), call.detail ? el("span", { class: "soft" }, ` ${call.detail}`) : null),
    );
  }

  // Up and down go from call to call.
  pressed(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const row = event.target.closest?.("tr[data-key]");
    if (!step || !row) return;
    const next = step > 0 ? row.nextElementSibling : row.previousElementSibling;
    const button = next?.querySelector("button");
    if (!button) return;
    event.preventDefault();
    button.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }
}

// Return how a call stands: {tone, text, title}.
export function endOf(call) {
  if (call.state === "running") return { tone: "live", text: call.backend ? "running" : "opening", title: null };
  const tone = FAILED.has(call.outcome) ? "bad" : call.outcome === "closed" ? "care" : "off";
  return { tone, text: words(call.reason ?? call.outcome), title: `${words(call.outcome)}${call.detail ? `: ${call.detail}` : ""}` };
}

function spacer(name, rows) {
  return el("tr", { class: "spacer", "data-key": name, "aria-hidden": "true" }, el("td", { style: { height: `${rows * ROW}px` } }));
}
