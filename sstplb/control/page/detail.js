// One call, in a panel beside the list: how it stands, how its opening went, and every fact of it.

import { ApiError, get } from "./api.js";
import { endOf } from "./calls.js";
import { byId, el, show } from "./dom.js";
import { bytes, duration, when, words } from "./format.js";
import { facts } from "./facts.js";
import { bar, openingOf, PHASES } from "./phases.js";

// What has a place of its own in the panel; everything else is listed.
const PLACED = new Set([
  "id", "call", "state", "started_at", "outcome", "reason", "detail", "phases", "tries", "client", "listener", "backend",
  "bytes_in", "bytes_out", "duration_s", "mode", "relay_s", "story", "diagnosis", "diagnoses", ...PHASES.map(([name]) => name),
]);

export class Detail {
  constructor(onChange) {
    this.panel = byId("detail");
    this.onChange = onChange;
    this.number = null;
    this.call = null;
    this.opener = null;
    this.panel.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
  }

  async open(number, opener) {
    this.number = number;
    this.opener = opener;
    this.call = null;
    this.panel.hidden = false;
    document.body.classList.add("has-detail");
    this.onChange(number);
    await this.refresh();
    this.panel.querySelector("h2")?.focus();
  }

  close() {
    const number = this.number;
    this.number = this.call = null;
    this.panel.hidden = true;
    document.body.classList.remove("has-detail");
    this.onChange(null);
    const opener = this.opener?.isConnected ? this.opener : document.querySelector(`[data-call="${number}"]`);
    (opener ?? byId("calls")).focus();
  }

  // Look again, unless all is known.
  async refresh() {
    const number = this.number;
    if (number === null || this.call?.state === "ended") return;
    try {
      const call = await get(`/calls/${number}`);
      if (this.number === number) this.draw(call);
    } catch (error) {
      if (!(error instanceof ApiError) || this.number !== number || this.call) return;
      show(this.panel, head(number, null), el("p", { class: "empty" }, error.message));
    }
  }

  draw(call) {
    this.call = call;
    const { tone, text } = endOf(call);
    show(
      this.panel,
      head(call.id, call.state === "running"),
      el("p", { class: "sentence" }, el("span", { class: "state", "data-tone": tone }, text), call.outcome ? el("span", { class: "soft" }, ` ${words(call.outcome)}`) : null),
      call.detail ? el("p", { class: "why", "data-tone": tone }, call.detail) : null,
      (call.diagnoses ?? []).map(diagnosis),
      el("ol", { class: "way", "aria-label": "The way of this call" }, [call.client, call.listener, call.backend ?? "no backend"].map((one, n) => el("li", {}, el("small", {}, ["client", `listener, ${call.mode}`, "backend"][n]), one))),
      el(
        "dl",
        { class: "numbers" },
        [["began", when(call.started_at, Date.now() / 1000)], ["lasted", duration(call.duration_s)], ["to backend", bytes(call.bytes_in)], ["to client", bytes(call.bytes_out)]].map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
      ),
      opening(call.phases),
      tries(call.tries),
      story(call),
      rest(call),
    );
  }
}

function head(number, isRunning) {
  return el(
    "header",
    {},
    el("h2", { id: "detail-title", tabindex: "-1" }, `Call ${number}`),
    isRunning ? el("button", { type: "button", class: "danger", "data-do": "end", "data-call": String(number) }, "End call") : null,
    el("button", { type: "button", class: "quiet", "data-do": "close" }, "Close"),
  );
}

function opening(phases) {
  const steps = PHASES.filter(([name]) => phases[name] !== undefined);
  if (!steps.length) return null;
  const whole = openingOf(phases);
  return el(
    "section",
    { "data-key": "opening" },
    el("h3", {}, `Opening, ${duration(whole)}`),
    bar(phases, whole || 1),
    el("table", { class: "grid small" }, el("tbody", {}, steps.map(([name, short, long]) => el("tr", {}, el("th", { scope: "row" }, el("i", { "data-phase": short }), long), el("td", { class: "num" }, duration(phases[name])))))),
  );
}

function tries(asked) {
  if (!asked.length) return null;
  return el(
    "section",
    { "data-key": "tries" },
    el("h3", {}, "Backends that were asked"),
    el("table", { class: "grid small" }, el("tbody", {}, asked.map((one) => el("tr", {}, el("th", { scope: "row" }, one.backend), el("td", {}, el("span", { class: "state", "data-tone": one.reason ? "bad" : "good" }, one.reason ? words(one.reason) : "took the call"), one.why ? el("small", {}, one.why) : null), el("td", { class: "num" }, duration(one.seconds)))))),
  );
}

// What was wrong, and the way out.
function diagnosis({ cause, sentence, remedy, evidence }) {
  return el(
    "section",
    { class: "diagnosis", "data-key": cause },
    el("h3", {}, sentence),
    remedy ? el("p", {}, remedy) : null,
    evidence.length ? el("ul", {}, evidence.map((one) => el("li", {}, one))) : null,
  );
}

// What its packets told, step by step, where they were followed.
function story(call) {
  const moments = call.story?.moments ?? [];
  const others = facts(call.story ?? {}, new Set(["moments", ...Object.keys(call)])); // said once is enough
  if (!moments.length && !others) return null;
  const rows = moments.map((one) => el("tr", {}, el("td", { class: "num" }, duration(one.at_s)), el("td", { class: "soft" }, one.side), el("td", {}, words(one.step), one.detail ? el("small", {}, one.detail) : null)));
  return el("section", { "data-key": "story" }, el("h3", {}, "Story"), el("table", { class: "grid small story" }, el("tbody", {}, rows)), others);
}

function rest(call) {
  const listed = facts(call, PLACED);
  return listed ? el("section", { "data-key": "facts" }, el("h3", {}, "Facts"), listed) : null;
}
