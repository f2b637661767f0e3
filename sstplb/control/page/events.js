// What has happened: a strip of the last quarter of an hour, and the list.

import { byId, el, show, svg } from "./dom.js";
import { clock, count, moment, words } from "./format.js";

const KEPT = 600;
const LISTED = 200;
const BIN_S = 15;
const BINS = 60;
const HEIGHT = 64;
const FAILED = new Set(["refused", "client_failed", "backend_failed"]);
const TONES = { debug: "off", info: "info", warning: "care", error: "bad", critical: "bad" };

export class EventList {
  constructor() {
    this.events = []; // the oldest first
    this.bins = new Map(); // quarter minute -> [ended well, failed]
    this.last = 0;
    this.kind = byId("events-kind");
    this.kind.addEventListener("change", () => this.draw());
  }

  clear() {
    this.events = [];
    this.bins.clear();
    this.last = 0;
  }

  add(events) {
    for (const event of events) {
      if (event.id <= this.last) continue;
      this.last = event.id;
      this.events.push(event);
      if (event.event === "call_ended") this.bin(event);
    }
    // Lines of calls go first: there are many of them, and the list of calls has them, too.
    while (this.events.length > KEPT) {
      const at = this.events.findIndex((event) => event.event === "call_ended");
      this.events.splice(Math.max(0, at), 1);
    }
  }

  bin(event) {
    const at = Math.floor(event.at / BIN_S);
    const known = this.bins.get(at) ?? [0, 0];
    known[FAILED.has(event.outcome) ? 1 : 0] += 1;
    this.bins.set(at, known);
    if (this.bins.size > 4 * BINS) this.bins.delete(this.bins.keys().next().value);
  }

  draw(now = Date.now() / 1000) {
    this.drawStrip(now);
    const wanted = this.events.filter((event) => isShown(event, this.kind.value)).slice(-LISTED).reverse();
    show(
      byId("events"),
      wanted.length
        ? el("ol", { class: "events" }, wanted.map(line))
        : el("p", { class: "empty" }, "Nothing of that kind has happened."),
    );
  }

  drawStrip(now) {
    const end = Math.floor(now / BIN_S) + 1;
    const from = end - BINS;
    const seen = Array.from({ length: BINS }, (_, n) => this.bins.get(from + n) ?? [0, 0]);
    const top = Math.max(4, ...seen.map(([well, failed]) => well + failed));
    const base = HEIGHT - 24;
    const tall = (number) => (number / top) * (base - 8);
    const width = Math.max(240, byId("strip").clientWidth);
    const step = width / BINS;
    const bars = seen.flatMap(([well, failed], n) => [
      well ? svg("rect", { class: "s-well", x: n * step + 1, y: base - tall(well + failed), width: step - 2, height: tall(well) }) : null,
      failed ? svg("rect", { class: "s-failed", x: n * step + 1, y: base - tall(failed), width: step - 2, height: tall(failed) }) : null,
    ]);
    const marks = this.events
      .filter((event) => event.event !== "call_ended" && event.at >= from * BIN_S)
      .map((event) => svg("circle", { class: "s-mark", "data-tone": TONES[event.level] ?? "info", cx: ((event.at / BIN_S - from) * step).toFixed(1), cy: base + 8, r: 3.5 }, svg("title", {}, `${clock(event.at)} ${event.message}`)));
    const ticks = [0, 5, 10, 15].map((minutes) => {
      const x = minutes === 15 ? 0 : width - (minutes * 60 * step) / BIN_S;
      return svg("text", { class: "s-tick", x, y: HEIGHT - 1, "text-anchor": minutes === 15 ? "start" : minutes ? "middle" : "end" }, minutes ? `−${minutes} min` : "now");
    });
    const sum = seen.reduce(([one, other], [well, failed]) => [one + well, other + failed], [0, 0]);
    show(
      byId("strip"),
      svg(
        "svg",
        { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": `The last 15 minutes: ${count(sum[0])} calls ended well, ${count(sum[1])} failed` },
        svg("line", { class: "s-base", x1: 0, x2: width, y1: base + 0.5, y2: base + 0.5 }),
        bars, marks, ticks,
      ),
      el("p", { class: "legend" }, el("span", {}, el("i", { class: "k-well" }), `${count(sum[0])} calls ended`), el("span", {}, el("i", { class: "k-failed" }), `${count(sum[1])} failed`), el("span", {}, el("i", { class: "k-mark" }), "other events")),
    );
  }
}

function isShown(event, kind) {
  if (kind === "warnings") return event.level !== "info" && event.level !== "debug";
  return kind === "all" || event.event !== "call_ended";
}

function line(event) {
  return el(
    "li",
    { "data-key": String(event.id), "data-tone": TONES[event.level] ?? "info" },
    el("time", { datetime: new Date(event.at * 1000).toISOString(), title: moment(event.at) }, clock(event.at)),
    el("div", {}, el("b", {}, words(event.event)), event.level === "info" ? null : el("span", { class: "visually-hidden" }, ` (${event.level})`), el("span", {}, ` ${event.message}`)),
  );
}
