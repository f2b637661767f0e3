// The picture: clients, listeners, backends, and what goes between them right now. It stands still
// between two looks: a line that moves all the time costs the browser more than all the rest.
//
// A line's breadth says how much flows (logarithmically), its colour what the backend is like;
// numbers stand where a line arrives. Everything shown here stands in the tables, too.

import { byId, show, svg } from "./dom.js";
import { calls, count, rate } from "./format.js";
import { ofListener, ofWay, toBackend } from "./history.js";
import { reasonOf, statusOf } from "./state.js";

const ROOMY = { node: 62, gap: 26, lines: [21, 38, 54] }; // height of a node, room between two, its lines
const DENSE = { node: 42, gap: 14, lines: [17, 33] };
const ROOMY_MAX = 7; // more nodes in a column than this are drawn densely
const HEAD = 30;
const BETWEEN_POOLS = 30;
const LEAD = 84; // a line's straight end, where its numbers stand
const FLOWING = 200; // bytes per second that count: below are hellos and the like

// From what clients speak to what the backends hear.
const LEGS = {
  passthrough: "TLS, untouched",
  offload: "TLS → plain HTTP",
  reencrypt: "TLS → TLS again",
};

export function drawPicture(history) {
  const place = byId("picture");
  const overview = history.latest;
  const width = Math.max(560, place.clientWidth);
  const plan = layOut(overview, width);
  const ways = overview.listeners.flatMap((listener) => waysOf(plan, listener, history));
  show(
    place,
    svg(
      "svg",
      { viewBox: `0 0 ${width} ${plan.height}`, width, height: plan.height, role: "group", "aria-label": summary(overview) },
      svg("g", { "aria-hidden": "true" }, heads(plan, overview), arrivals(plan, history), ways.map(line)),
      clients(plan, overview),
      overview.listeners.map((listener) => listenerNode(plan, listener)),
      plan.pools.map((pool) => svg("text", { class: "p-pool", x: pool.x, y: pool.y, "data-key": `pool-${pool.name}` }, pool.title)),
      overview.pools.flatMap((pool) => pool.backends.map((backend) => backendNode(plan, pool, backend, overview.now_at))),
      svg("g", { "aria-hidden": "true" }, overview.pools.flatMap((pool) => pool.backends.map((one) => backendLabel(plan, pool, one, history)))),
    ),
  );
}

function layOut(overview, width) {
  const isNarrow = width < 820;
  const most = Math.max(overview.listeners.length, overview.pools.reduce((sum, pool) => sum + pool.backends.length, 0));
  const { node, gap, lines } = most > ROOMY_MAX ? DENSE : ROOMY;
  const breadth = isNarrow ? [92, 164, 184] : [110, width > 1050 ? 220 : 196, width > 1050 ? 290 : 216];
  const x = [0.5, 0, width - breadth[2] - 0.5];
  x[1] = (x[0] + breadth[0] + x[2] - breadth[1]) / 2 - (isNarrow ? 0 : 8);
  const pools = [];
  const backends = new Map();
  let y = HEAD;
  for (const pool of overview.pools) {
    const isFirst = pools.length === 0;
    if (!isFirst) y += BETWEEN_POOLS - gap;
    if (overview.pools.length > 1) {
      pools.push({ name: pool.name, x: x[2], y: y + 10, title: `pool ${pool.name}` });
      y += 18;
    } else pools.push({ name: pool.name, x: x[2], y: -20, title: "" });
    for (const backend of pool.backends) {
      backends.set(`${pool.name}/${backend.name}`, { x: x[2], y, width: breadth[2], height: node });
      y += node + gap;
    }
  }
  const right = y - gap;
  const left = HEAD + overview.listeners.length * (node + gap) - gap;
  const height = Math.max(right, left) + 6;
  const middle = (HEAD + height - 6) / 2;
  const listeners = new Map();
  const top = middle - (left - HEAD) / 2;
  overview.listeners.forEach((listener, n) => {
    listeners.set(listener.name, { x: x[1], y: top + n * (node + gap), width: breadth[1], height: node });
  });
  return { width, height, x, pools, backends, listeners, lines, clients: { x: x[0], y: middle - 31, width: breadth[0], height: 62 } };
}

function heads(plan, overview) {
  const pool = overview.pools.length === 1 ? `backends of pool ${overview.pools[0].name}` : "backends";
  return ["clients", "listeners", pool].map((text, n) => svg("text", { class: "p-head", x: plan.x[n], y: 12 }, text));
}

// --- lines ---------------------------------------------------------------------------------------

function waysOf(plan, listener, history) {
  const from = plan.listeners.get(listener.name);
  const pool = history.latest.pools.find((one) => one.name === listener.pool);
  return (pool?.backends ?? []).map((backend) => {
    const to = plan.backends.get(`${pool.name}/${backend.name}`);
    const read = (field) => ofWay(listener.name, pool.name, backend.name, field);
    const flow = history.perSecond(read("bytes_in")) + history.perSecond(read("bytes_out"));
    return {
      key: `${listener.name}>${pool.name}/${backend.name}`,
      from, to, flow, listener,
      calls: read("calls")(history.latest),
      tone: statusOf(backend).tone,
      isOpen: listener.standing === "active" && backend.usable,
    };
  });
}

function path(from, to) {
  const [x1, y1, x2, y2] = [from.x + from.width, from.y + from.height / 2, to.x, to.y + to.height / 2];
  const end = x2 - Math.min(LEAD, (x2 - x1) * 0.45);
  const bend = (end - x1) * 0.55;
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${end - bend} ${y2} ${end} ${y2}L${x2} ${y2}`;
}

const breadthOf = (flow) => (flow < FLOWING ? 1.25 : Math.min(8, 1.25 + 1.1 * Math.log10(flow / 100)));

function line(way) {
  return svg("path", {
    class: "p-line", "data-key": way.key, d: path(way.from, way.to), "data-tone": way.tone, "data-open": way.isOpen ? "yes" : "no",
    "data-calls": way.calls ? "yes" : "no", style: { strokeWidth: breadthOf(way.flow).toFixed(2) },
  });
}

function arrivals(plan, history) {
  return history.latest.listeners.map((listener) => {
    const to = plan.listeners.get(listener.name);
    const [read_in, read_out] = [ofListener(listener.name, "bytes_in"), ofListener(listener.name, "bytes_out")];
    const [in_s, out_s] = [history.perSecond(read_in), history.perSecond(read_out)];
    const isOpen = listener.standing === "active" && listener.accepting;
    const way = { key: `>${listener.name}`, from: plan.clients, to, flow: in_s + out_s, calls: listener.calls, tone: isOpen ? "good" : "care", isOpen };
    return svg("g", { "data-key": `arrival-${listener.name}` }, line(way), numbers(to, listener.calls, in_s, out_s));
  });
}

// What arrives at a node: calls above the line, rates below it.
function numbers(to, running, in_s, out_s) {
  const [x, y] = [to.x - 9, to.y + to.height / 2];
  const isIdle = in_s + out_s < FLOWING;
  return [
    svg("text", { class: "p-calls", x, y: y - 8, "text-anchor": "end", "data-idle": running ? "no" : "yes" }, running ? calls(running) : "no calls"),
    isIdle ? null : svg("text", { class: "p-rate", x, y: y + 17, "text-anchor": "end" }, `↑ ${rate(in_s)}`),
    isIdle ? null : svg("text", { class: "p-rate", x, y: y + 31, "text-anchor": "end" }, `↓ ${rate(out_s)}`),
  ];
}

function backendLabel(plan, pool, backend, history) {
  const read = (field) => history.perSecond(toBackend(pool.name, backend.name, field));
  const to = plan.backends.get(`${pool.name}/${backend.name}`);
  return svg("g", { "data-key": `label-${pool.name}/${backend.name}` }, numbers(to, backend.calls, read("bytes_in"), read("bytes_out")));
}

// --- nodes ---------------------------------------------------------------------------------------

// Cut a text to what fits; its whole is in the title.
function fitted(text, width, perChar) {
  const room = Math.floor(width / perChar);
  return text.length <= room ? text : `${text.slice(0, Math.max(1, room - 1))}…`;
}

function node(place, attributes, ...children) {
  return svg(
    "g",
    { transform: `translate(${place.x} ${place.y})`, class: "p-node", ...attributes },
    svg("rect", { class: "p-box", width: place.width, height: place.height, rx: 8 }),
    ...children,
  );
}

function clients(plan, overview) {
  return node(
    plan.clients,
    { "data-key": "clients" },
    svg("text", { class: "p-big", x: 14, y: 30 }, count(overview.totals.running)),
    svg("text", { class: "p-small", x: 14, y: 47 }, overview.totals.running === 1 ? "running call" : "running calls"),
  );
}

function listenerNode(plan, listener) {
  const place = plan.listeners.get(listener.name);
  const tone = listener.standing === "draining" ? "care" : listener.accepting ? "good" : "bad";
  const word = listener.standing === "draining" ? "draining" : listener.accepting ? "" : "not accepting";
  const room = place.width - 26;
  const hasRoom = listener.mode !== listener.name && 8 * (listener.name.length + listener.mode.length) < room;
  const note = word || (hasRoom ? listener.mode : "");
  return node(
    place,
    { "data-key": `listener-${listener.name}`, "data-tone": tone },
    svg("title", {}, `${listener.name}, ${listener.address}, ${listener.mode}: ${LEGS[listener.mode]}`),
    svg("rect", { class: "p-edge", width: 4, height: place.height, rx: 2 }),
    svg("text", { class: "p-name", x: 14, y: plan.lines[0] }, fitted(listener.name, room - 8 * note.length, 8)),
    svg("text", { class: word ? "p-word" : "p-mode", x: place.width - 12, y: plan.lines[0], "text-anchor": "end" }, note),
    svg("text", { class: "p-small", x: 14, y: plan.lines[1] }, fitted(listener.address, room, 6.4)),
    plan.lines[2] && svg("text", { class: "p-small", x: 14, y: plan.lines[2] }, fitted(LEGS[listener.mode], room, 6.4)),
  );
}

function backendNode(plan, pool, backend, now) {
  const place = plan.backends.get(`${pool.name}/${backend.name}`);
  const { word, tone } = statusOf(backend);
  const reason = reasonOf(backend, now);
  const room = place.width - 26;
  const share = Math.min(1, (backend.calls + backend.dialing) / Math.max(1, backend.calls_max));
  return svg(
    "a",
    {
      href: `#backend-${pool.name}-${backend.name}`, "data-key": `backend-${pool.name}/${backend.name}`,
      "aria-label": `${backend.name}: ${word}${reason ? `, ${reason}` : ""}, ${calls(backend.calls)}`,
    },
    node(
      place,
      { "data-tone": tone },
      svg("title", {}, `${backend.name} at ${backend.address}: ${word}${reason ? `\n${reason}` : ""}`),
      svg("rect", { class: "p-edge", width: 4, height: place.height, rx: 2 }),
      svg("text", { class: "p-name", x: 14, y: plan.lines[0] }, fitted(backend.name, room - 8 * word.length, 8)),
      svg("text", { class: "p-word", x: place.width - 12, y: plan.lines[0], "text-anchor": "end" }, word),
      svg("text", { class: "p-small", x: 14, y: plan.lines[1] }, fitted(reason || backend.address, room, 6.2)),
      plan.lines[2] && [
        svg("rect", { class: "p-gauge", x: 14, y: 49, width: room, height: 4, rx: 2 }),
        svg("rect", { class: "p-gauge-full", x: 14, y: 49, width: (room * share).toFixed(1), height: 4, rx: 2 }),
      ],
    ),
  );
}

function summary(overview) {
  const backends = overview.pools.flatMap((pool) => pool.backends);
  const states = backends.map((backend) => `${backend.name} ${statusOf(backend).word}`).join(", ");
  return `${calls(overview.totals.running)} running through ${overview.listeners.length} listeners to ${backends.length} backends: ${states}`;
}
