// Everything on the page that is drawn from the overview alone: figures, concerns, tables.

import { byId, el, setText, show, svg } from "./dom.js";
import { bytes, count, date, duration, hash, moment, rate, short, span, words } from "./format.js";
import { toBackend } from "./history.js";
import { concerns, daysLeft, reasonOf, sameness, statusOf } from "./state.js";

const SPARK_STEPS = 120;

// --- at a glance ---------------------------------------------------------------------------------

export function drawFigures(history) {
  const overview = history.latest;
  const { totals, cost } = overview;
  const failed = (one) => one.totals.outcomes.refused + one.totals.outcomes.client_failed + one.totals.outcomes.backend_failed;
  const growing = (read) => [history.perSecond(read), history.growths(read, SPARK_STEPS)];
  const [opened_s, opened] = growing((one) => one.totals.opened);
  const [in_s, ins] = growing((one) => one.totals.bytes_in);
  const [out_s, outs] = growing((one) => one.totals.bytes_out);
  const [cores, used] = growing((one) => one.cost.cpu_s);
  const [failed_s, failing] = growing(failed);
  show(
    byId("figures"),
    el(
      "dl",
      {},
      figure("running calls", count(totals.running), `${count(totals.opened)} since the start`, history.values((one) => one.totals.running, SPARK_STEPS)),
      figure("new calls", `${short(opened_s)}/s`, `${count(totals.outcomes.completed)} completed`, opened),
      figure("to backends", rate(in_s), `${bytes(totals.bytes_in)} in all`, ins),
      figure("to clients", rate(out_s), `${bytes(totals.bytes_out)} in all`, outs),
      figure("failed calls", count(failed(overview)), failed_s > 0 ? `${short(failed_s)}/s now` : failureParts(totals.outcomes), failing, failed(overview) ? "bad" : null),
      figure("processor", `${(100 * cores).toFixed(cores < 0.1 ? 1 : 0)} %`, `of one core · ${processes(overview)}`, used),
    ),
  );
  setText(byId("where"), `${overview.config_file} · version ${overview.version} · up ${span(overview.now_at - overview.started_at)}`);
  byId("where").title = `since ${moment(overview.started_at)}; TLS engine: ${overview.engine}`;
}

const processes = (overview) => (overview.workers > 1 ? `${overview.workers} workers` : "one process");

function failureParts({ refused, client_failed, backend_failed }) {
  const parts = [[refused, "refused"], [client_failed, "by clients"], [backend_failed, "by backends"]];
  return parts.filter(([number]) => number).map(([number, text]) => `${count(number)} ${text}`).join(" · ") || "none since the start";
}

function figure(label, value, note, series, tone = null) {
  return el(
    "div",
    { class: "figure", "data-key": label, "data-tone": tone },
    el("dt", {}, label),
    el("dd", { class: "value" }, value),
    el("dd", { class: "note" }, note),
    el("dd", { class: "spark", "aria-hidden": "true" }, spark(series)),
  );
}

function spark(series) {
  const top = Math.max(...series, 0);
  const [width, height] = [SPARK_STEPS, 30];
  const shift = SPARK_STEPS - series.length;
  const y = (value) => (height - 1.5 - (top ? (value / top) * (height - 4) : 0)).toFixed(1);
  const points = series.map((value, n) => `${shift + n + 0.5},${y(value)}`).join(" ");
  const area = series.length > 1 ? `${shift + 0.5},${height} ${points} ${SPARK_STEPS - 0.5},${height}` : "";
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" },
    svg("polygon", { points: area }),
    svg("polyline", { points, "vector-effect": "non-scaling-stroke" }),
  );
}

// --- what needs attention ------------------------------------------------------------------------

export function drawAttention(overview, driftCount) {
  const found = concerns(overview, driftCount);
  if (!found.length) {
    const backends = overview.pools.flatMap((pool) => pool.backends).length;
    show(byId("attention"), el("p", { class: "well", "data-tone": "good" }, `All is well: ${backends === 1 ? "the backend is" : `all ${backends} backends are`} up.`));
    return;
  }
  show(byId("attention"), el("ul", {}, found.map(concern)));
}

function concern({ tone, text, target }) {
  const said = target ? el("a", { href: `#${target}` }, text) : text;
  const save = tone === "info" ? el("button", { type: "button", "data-do": "save" }, "Save to file…") : null;
  return el("li", { "data-tone": tone, "data-key": text.replace(/\d+ \w+ ?/g, "") }, el("span", { class: "visually-hidden" }, { bad: "Problem: ", care: "Care: ", info: "Note: " }[tone]), said, save);
}

// --- backends ------------------------------------------------------------------------------------

export function drawBackends(history, shown) {
  const overview = history.latest;
  const columns = COLUMNS.filter(([, , , width]) => byId("backends").clientWidth >= width);
  show(byId("backends"), overview.pools.map((pool) => poolTable(pool, history, shown, columns)));
}

// A backend's columns: head, class of its cells, class of the column, width of the table below which
// it gives way (the picture has the rates, the certificates have a place of their own), content.
const COLUMNS = [
  ["Backend", null, "b-name", 0, (one) => nameCell(one)],
  ["Health", null, "b-health", 0, (one) => healthCell(one)],
  ["Calls", "num", "b-calls", 0, ({ backend }) => [count(backend.calls), el("small", {}, `of ${count(backend.calls_max)}`)]],
  ["Rate", "num", "b-rate", 740, (one) => rateCell(one)],
  ["Certificate", "after", "b-certificate", 940, (one) => certificateCell(one)],
  ["Last check", "after", "b-check", 0, (one) => lastCheck(one)],
  ["Actions", "acts", "b-acts", 0, (one) => actions(one)],
];

function poolTable(pool, history, shown, columns) {
  const about = [
    `pool ${pool.name}`,
    words(pool.strategy),
    pool.transport === "tls" ? "TLS" : "plain HTTP",
    `check: ${pool.check_method}`,
    pool.affinity_entries ? `${count(pool.affinity_entries)} clients remembered` : "",
  ];
  return el(
    "table",
    { class: "grid backends", "data-key": pool.name },
    el("caption", {}, about.filter(Boolean).join(" · ")),
    el("colgroup", {}, columns.map(([, , name]) => el("col", { class: name }))),
    el("thead", {}, el("tr", {}, columns.map(([text, kind]) => el("th", { scope: "col", class: kind }, kind === "acts" ? el("span", { class: "visually-hidden" }, text) : text)))),
    el("tbody", {}, pool.backends.flatMap((backend) => backendRows({ pool, backend, history, shown, key: `${pool.name}/${backend.name}` }, columns))),
  );
}

function backendRows(one, columns) {
  const { pool, backend, shown, key } = one;
  const cells = columns.map(([, kind, , , content], n) => (n ? el("td", { class: kind }, content(one)) : el("th", { scope: "row" }, content(one))));
  const row = el("tr", { id: `backend-${pool.name}-${backend.name}`, "data-key": key, "data-tone": statusOf(backend).tone }, cells);
  return shown.has(key) && backend.last_check ? [row, transcript(key, backend, columns.length)] : [row];
}

function nameCell({ backend }) {
  const about = [backend.address, backend.backup ? "backup" : "", backend.weight === 1 ? "" : `weight ${backend.weight}`];
  return [backend.name, el("small", {}, about.filter(Boolean).join(" · "))];
}

function healthCell({ backend, history }) {
  const { word, tone } = statusOf(backend);
  return [el("span", { class: "state", "data-tone": tone }, word), el("small", {}, reasonOf(backend, history.latest.now_at) || `for ${span(history.latest.now_at - backend.since_at)}`)];
}

function rateCell({ pool, backend, history }) {
  const read = (field) => history.perSecond(toBackend(pool.name, backend.name, field));
  const [in_s, out_s] = [read("bytes_in"), read("bytes_out")];
  if (in_s + out_s < 1) return el("span", { class: "soft" }, "–");
  return [`↑ ${rate(in_s)}`, `↓ ${rate(out_s)}`].map((text) => el("span", { class: "pair" }, text));
}

function certificateCell({ pool, backend }) {
  const same = sameness(backend);
  const sha256 = backend.certificate_sha256;
  const shown = sha256 ? `${sha256.slice(0, 8).toUpperCase()}…` : pool.transport === "tls" ? "not seen" : "not declared";
  return [el("span", { class: "state", "data-tone": same.tone }, same.text), el("small", { title: sha256 }, shown)];
}

function lastCheck({ backend, history, shown, key }) {
  const check = backend.last_check;
  if (!check) return el("span", { class: "soft" }, backend.standing === "off" ? "not checked" : "none yet");
  return [
    el("button", { type: "button", class: "link", "data-do": "transcript", "data-of": key, "aria-expanded": String(shown.has(key)) }, check.ok ? "good" : "failed", el("span", { class: "visually-hidden" }, `: what was said to ${backend.name}`)),
    el("small", {}, `${span(history.latest.now_at - check.at)} ago, ${duration(check.seconds)}`),
  ];
}

function transcript(key, backend, columns) {
  const check = backend.last_check;
  return el(
    "tr",
    { class: "more", "data-key": `${key}:transcript` },
    el(
      "td",
      { colspan: String(columns) },
      el("p", {}, el("b", {}, check.ok ? "The last check was good." : "The last check failed."), check.reason ? ` ${check.reason}` : "", el("span", { class: "soft" }, ` ${moment(check.at)}, ${duration(check.seconds)}`)),
      el("pre", { tabindex: "0", "aria-label": `Transcript of the last check of ${backend.name}` }, check.transcript.split("\n").flatMap((text) => [el("span", { "data-way": { ">": "sent", "<": "came", "*": "note" }[text[0]] ?? "note" }, text), "\n"])),
      el("p", { class: "soft" }, "> sent   < received   * what happened"),
      failures(backend),
    ),
  );
}

// What calls and tries failed of, on this backend's side.
function failures(backend) {
  const found = Object.entries(backend.failures);
  if (!found.length) return null;
  const said = found.map(([reason, number]) => `${words(reason)} ${count(number)}`).join(", ");
  return el("p", {}, el("b", {}, "Calls that failed here: "), said, backend.set_aside_total ? `; set aside ${backend.set_aside_total} times` : "");
}

function actions({ pool, backend }) {
  const act = (what, text, title) => el("button", { type: "button", "data-do": what, "data-pool": pool.name, "data-backend": backend.name, title }, text, el("span", { class: "visually-hidden" }, ` ${backend.name}`));
  const made = [];
  if (backend.standing !== "active") made.push(act("active", "Enable", "New calls again"));
  if (backend.standing !== "draining") made.push(act("draining", "Drain", "No new calls; running ones stay"));
  if (backend.standing !== "off") made.push(act("off", "Off", "No new calls, no checks; running calls stay"), act("check", "Check", "Check it now"));
  return el("div", { class: "buttons" }, made);
}

// --- listeners, certificates, cost ---------------------------------------------------------------

export function drawListeners(overview) {
  const heads = ["Listener", "Calls", ""];
  show(
    byId("listeners"),
    el(
      "table",
      { class: "grid" },
      el("thead", {}, el("tr", {}, heads.map((text, n) => el("th", { scope: "col", class: ["", "num", "acts"][n] }, text || el("span", { class: "visually-hidden" }, "Actions"))))),
      el("tbody", {}, overview.listeners.map(listenerRow)),
    ),
  );
}

function listenerRow(listener) {
  const isDraining = listener.standing === "draining";
  const note = `${listener.mode} · ${listener.address}`;
  return el(
    "tr",
    { "data-key": listener.name },
    el("th", { scope: "row" }, listener.name, isDraining ? el("span", { class: "state", "data-tone": "care" }, "draining") : listener.accepting ? "" : el("span", { class: "state", "data-tone": "bad" }, "not accepting"), el("small", {}, note)),
    el("td", { class: "num" }, count(listener.calls), el("small", {}, `of ${count(listener.calls_max)}`)),
    el(
      "td",
      { class: "acts" },
      el("button", { type: "button", "data-do": isDraining ? "listener-active" : "listener-draining", "data-listener": listener.name }, isDraining ? "Open" : "Drain", el("span", { class: "visually-hidden" }, ` listener ${listener.name}`)),
    ),
  );
}

export function drawCertificates(overview) {
  const found = new Map();
  for (const listener of overview.listeners) {
    for (const certificate of listener.certificates) {
      const known = found.get(certificate.sha256) ?? { ...certificate, listeners: [], pools: new Set() };
      known.listeners.push(listener.name);
      known.pools.add(listener.pool);
      found.set(certificate.sha256, known);
    }
  }
  if (!found.size) {
    show(byId("certificates"), el("p", { class: "empty" }, "TLS goes through untouched: clients are shown the backends' own certificates."));
    return;
  }
  show(
    byId("certificates"),
    [...found.values()].map((one) => certificateCard(one)),
    bothSides(overview),
  );
}

function certificateCard(certificate) {
  const left = daysLeft(certificate);
  const share = Math.max(0, Math.min(1, certificate.days_left / 90));
  return el(
    "article",
    { class: "certificate", "data-key": certificate.sha256 },
    el("h3", {}, certificate.names.join(", ") || certificate.subject),
    el("p", { class: "left", "data-tone": left.tone }, el("span", { class: "state", "data-tone": left.tone }, left.text), el("span", { class: "soft" }, ` until ${date(certificate.not_after_at)}`), el("span", { class: "gauge", "aria-hidden": "true" }, el("i", { style: { width: `${100 * share}%` } }))),
    el("p", { class: "soft" }, `shown by ${certificate.listeners.join(", ")}`),
    hashLine("SHA-256", certificate.sha256),
    hashLine("SHA-1", certificate.sha1),
  );
}

function hashLine(name, hex) {
  return el("p", { class: "hash" }, el("span", {}, name), el("code", {}, hash(hex)), el("button", { type: "button", class: "link", "data-do": "copy", "data-text": hex.toUpperCase() }, "Copy", el("span", { class: "visually-hidden" }, ` ${name}`)));
}

// Whether each backend has the certificate that its clients are shown.
function bothSides(overview) {
  const rows = overview.pools.flatMap((pool) => {
    const modes = overview.listeners.filter((one) => one.pool === pool.name).map((one) => one.mode);
    return modes.some((mode) => mode !== "passthrough") ? pool.backends.map((backend) => [pool, backend]) : [];
  });
  if (!rows.length) return null;
  const known = rows.filter(([, backend]) => backend.same_certificate !== null);
  const verdict = !known.length
    ? { tone: "off", text: "It is not known which certificate the backends have." }
    : known.some(([, backend]) => !backend.same_certificate)
      ? { tone: "bad", text: "The two sides do not match: calls there would fail at the crypto binding." }
      : known.length < rows.length
        ? { tone: "good", text: "Where it is known, both sides have the same certificate." }
        : { tone: "good", text: "Both sides have the same certificate." };
  return el(
    "div",
    { class: "sides", "data-key": "sides" },
    el("p", { "data-tone": verdict.tone, class: "verdict" }, verdict.text),
    el(
      "ul",
      {},
      rows.map(([pool, backend]) => {
        const same = sameness(backend);
        return el("li", { "data-key": `${pool.name}/${backend.name}` }, el("span", {}, backend.name), el("span", { class: "state", "data-tone": same.tone }, same.text));
      }),
    ),
  );
}

export function drawCost(overview) {
  const { cost, totals } = overview;
  const moved = totals.bytes_in + totals.bytes_out;
  show(
    byId("cost"),
    el(
      "table",
      { class: "grid" },
      el("caption", {}, "CPU seconds for one GB carried, both ways together"),
      el("thead", {}, el("tr", {}, ["Mode", "CPU s/GB", "Learnt from"].map((text, n) => el("th", { scope: "col", class: n ? "num" : null }, text)))),
      el("tbody", {}, cost.modes.map(modeRow)),
      el(
        "tfoot",
        {},
        el("tr", {}, el("th", { scope: "row" }, "all together"), el("td", { class: "num" }, cost.cpu_s_per_gb === null ? "–" : short(cost.cpu_s_per_gb)), el("td", { class: "num" }, `${span(cost.cpu_s)} CPU, ${bytes(moved)}`)),
      ),
    ),
    el("p", { class: "soft" }, "Measured of whole processes: handshakes, checks and this page are in it. A mode is learnt while it moves 99 % of all bytes; where modes mix, nothing is said of either."),
  );
}

function modeRow(mode) {
  const isLearnt = mode.cpu_s_per_gb !== null;
  return el(
    "tr",
    { "data-key": mode.mode },
    el("th", { scope: "row" }, mode.mode),
    el("td", { class: "num" }, isLearnt ? short(mode.cpu_s_per_gb) : "–"),
    el("td", { class: "num" }, isLearnt ? `${span(mode.cpu_s)} CPU, ${bytes(mode.moved)}` : mode.moved ? `too little: ${bytes(mode.moved)}` : "nothing yet"),
  );
}
