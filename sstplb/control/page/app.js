// The page: follows the balancer's stream, draws what it says, and does what is asked.

import { ApiError, forgetToken, get, hasToken, offerToken, post, Stream } from "./api.js";
import { CallList } from "./calls.js";
import { confirm, say } from "./confirm.js";
import { Detail } from "./detail.js";
import { byId, setText } from "./dom.js";
import { EventList } from "./events.js";
import { calls } from "./format.js";
import { History } from "./history.js";
import { drawAttention, drawBackends, drawCertificates, drawCost, drawFigures, drawListeners } from "./panels.js";
import { drawPicture } from "./picture.js";
import { canTakeCalls } from "./state.js";
import { startTheme } from "./theme.js";

const EVENTS_AT_ONCE = 600;
const EVENTS_PAUSE_MS = 250;
// Events after which the configuration may differ from the file in another way.
const DRIFTING = new Set(["backend_standing", "backend_changed", "backend_added", "backend_removed", "log_level", "configuration_saved", "reloaded"]);

const history = new History();
const transcripts = new Set(); // of the backends whose last check is unfolded
let driftCount = 0;
let lostTimer;
let eventsTimer;

startTheme();
const list = new CallList();
const events = new EventList();
const detail = new Detail((number) => {
  list.selected = number;
  list.draw();
});

// --- drawing -------------------------------------------------------------------------------------

function draw() {
  const overview = history.latest;
  if (!overview || document.hidden) return;
  drawFigures(history);
  drawAttention(overview, driftCount);
  drawPicture(history);
  drawBackends(history, transcripts);
  drawListeners(overview);
  drawCertificates(overview);
  drawCost(overview);
  list.offer(overview);
  events.drawStrip(overview.now_at);
  document.title = title(overview);
}

function title(overview) {
  const backends = overview.pools.flatMap((pool) => pool.backends);
  const down = backends.filter((one) => one.health === "down" && one.standing !== "off").length;
  return `${down ? `${down} down · ` : ""}${calls(overview.totals.running)} · sstplb`;
}

function soonDrawEvents() {
  eventsTimer ??= setTimeout(() => {
    eventsTimer = undefined;
    events.draw(history.latest?.now_at);
  }, EVENTS_PAUSE_MS);
}

document.addEventListener("visibilitychange", draw);
new ResizeObserver(() => history.latest && drawPicture(history)).observe(byId("picture"));

// --- following -----------------------------------------------------------------------------------

function link(state, text) {
  const pill = byId("link");
  if (pill.dataset.state !== state) pill.dataset.state = state;
  setText(pill, text);
}

const stream = new Stream({
  async open() {
    link("live", "live");
    clearInterval(lostTimer);
    byId("lost").hidden = true;
    document.body.classList.remove("is-lost");
    byId("lock").hidden = !hasToken();
    await Promise.allSettled([catchUp(), list.refresh(), lookForDrift()]);
  },
  message(kind, value) {
    if (kind === "overview") {
      const before = history.latest;
      history.push(value);
      if (before && before.started_at !== value.started_at) restarted();
      draw();
      if (!document.hidden) {
        list.refresh();
        detail.refresh();
      }
    } else if (kind === "event") {
      events.add([value]);
      soonDrawEvents();
      if (DRIFTING.has(value.event)) lookForDrift();
    }
  },
  lost(why, pause) {
    link("lost", "connection lost");
    document.body.classList.add("is-lost");
    byId("lost").hidden = false;
    countDown(why, Date.now() + pause);
  },
  locked() {
    link("locked", "locked");
    showLogin(hasToken() ? "The balancer does not take this token any more." : "");
  },
});

// Say what was lost, once for a screen reader, and when the next try is, for eyes only.
function countDown(why, until) {
  const tell = () => {
    const left = Math.max(0, Math.ceil((until - Date.now()) / 1000));
    setText(byId("lost-next"), left ? `Trying again in ${left} s.` : "Trying again…");
  };
  setText(byId("lost-why"), `Connection lost: ${why}. What you see is not up to date.`);
  clearInterval(lostTimer);
  lostTimer = setInterval(tell, 1000);
  tell();
}

// Learn what has happened while nobody followed.
async function catchUp() {
  const page = await get("/events", events.last ? { after: events.last, limit: 5000 } : { limit: EVENTS_AT_ONCE });
  if (page.last < events.last) {
    restarted();
    await catchUp();
    return;
  }
  events.add(page.events);
  soonDrawEvents();
}

// Another process answers: numbers begin again.
function restarted() {
  events.clear();
  if (detail.number !== null) detail.close();
  catchUp().catch(() => {});
}

async function lookForDrift() {
  driftCount = (await get("/config")).drift.length;
  draw();
}

// --- the token -----------------------------------------------------------------------------------

function showLogin(why) {
  const dialog = byId("login");
  const error = byId("login-error");
  error.hidden = !why;
  setText(error, why);
  if (!dialog.open) dialog.showModal();
  byId("login-token").focus();
}

byId("login").addEventListener("cancel", (event) => event.preventDefault()); // there is nothing behind it
byId("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = byId("login-token");
  try {
    await offerToken(field.value.trim());
  } catch (error) {
    showLogin(error instanceof ApiError && error.status === 401 ? "That is not the token." : error.message);
    return;
  }
  field.value = "";
  byId("login").close();
  stream.again();
});
byId("lock").addEventListener("click", () => {
  forgetToken();
  location.reload();
});

// --- doing ---------------------------------------------------------------------------------------

const pathOf = ({ pool, backend }) => `/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}`;

function backendOf({ pool, backend }) {
  const found = history.latest.pools.find((one) => one.name === pool);
  return { pool: found, one: found.backends.find((other) => other.name === backend) };
}

// Say what taking a backend out means for who calls then: {text, isDanger}.
function consequence({ pool, backend }) {
  const { pool: found, one } = backendOf({ pool, backend });
  const others = found.backends.filter((other) => other.name !== one.name && canTakeCalls(other));
  const stay = `It has ${one.calls ? calls(one.calls) : "no calls"}. `;
  if (others.length) return { text: `${stay}New calls go to ${others.map((other) => other.name).join(", ")}.`, isDanger: false };
  return { text: `${stay}No other backend of pool ${pool} can take calls: new callers will be refused.`, isDanger: true };
}

const STANDINGS = {
  active: (what) => ({
    title: `Enable ${what.backend}?`,
    text: backendOf(what).one.standing === "off" ? "It is checked first; when it is well it gets new calls." : "It gets new calls again.",
    yes: "Enable",
  }),
  draining: (what) => ({ title: `Drain ${what.backend}?`, ...consequence(what), yes: "Drain" }),
  off: (what) => ({ title: `Switch ${what.backend} off?`, text: `${consequence(what).text} It is not checked any more.`, yes: "Switch off", isDanger: true }),
};

// How long calls may go on where no new ones come.
const DEADLINE = {
  label: "Its running calls",
  options: [
    ["", "may go on as long as they like"],
    ["300", "are ended politely after 5 minutes"],
    ["1800", "are ended politely after 30 minutes"],
    ["14400", "are ended politely after 4 hours"],
    ["0", "are ended politely now, one after another"],
  ],
};

const standingGiven = (standing, deadline) => ({ standing, ...(deadline ? { deadline_s: Number(deadline) } : {}) });

function askStanding(standing, what) {
  confirm({
    ...STANDINGS[standing](what),
    choice: standing === "active" || !backendOf(what).one.calls ? null : DEADLINE,
    run: async (deadline) => {
      await post(`${pathOf(what)}/standing`, standingGiven(standing, deadline));
      return `${what.backend} is ${standing} now.`;
    },
  });
}

function askListener(standing, name) {
  const isDraining = standing === "draining";
  confirm({
    title: isDraining ? `Drain listener ${name}?` : `Open listener ${name}?`,
    text: isDraining ? "New callers are refused there." : "It takes new calls again.",
    choice: isDraining ? DEADLINE : null,
    yes: isDraining ? "Drain" : "Open",
    isDanger: isDraining,
    run: async (deadline) => {
      await post(`/listeners/${encodeURIComponent(name)}/standing`, standingGiven(standing, deadline));
      return `Listener ${name} is ${standing} now.`;
    },
  });
}

function askEnd(number) {
  confirm({
    title: `End call ${number}?`,
    text: "The client may call again.",
    choice: {
      label: "How",
      options: [
        ["polite", "politely: client and RRAS are told"],
        ["now", "now: both connections are closed"],
      ],
    },
    yes: "End call",
    isDanger: true,
    run: async (how) => {
      await post(`/calls/${number}/end`, { how });
      await Promise.allSettled([detail.refresh(), list.refresh()]);
      return `Call ${number} was ended.`;
    },
  });
}

function askSave() {
  confirm({
    title: "Save to the file?",
    text: `What was changed at run time is written to ${history.latest.config_file}; its comments stay.`,
    yes: "Save",
    run: async () => {
      const { saved } = await post("/config/save");
      await lookForDrift();
      return `${saved.length} ${saved.length === 1 ? "change" : "changes"} written.`;
    },
  });
}

async function checkNow(what, button) {
  button.disabled = true;
  try {
    const { last_check: check } = await post(`${pathOf(what)}/check`);
    transcripts.add(`${what.pool}/${what.backend}`);
    say(`${what.backend}: the check ${check.ok ? "was good" : `failed: ${check.reason}`}`);
  } catch (error) {
    say(error.message);
  } finally {
    button.disabled = false;
    draw();
  }
}

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.text);
    say("Copied.");
  } catch {
    say("This browser does not let the page copy.");
  }
}

function unfold(key) {
  if (!transcripts.delete(key)) transcripts.add(key);
  draw();
}

const DO = {
  active: (button) => askStanding("active", button.dataset),
  draining: (button) => askStanding("draining", button.dataset),
  off: (button) => askStanding("off", button.dataset),
  check: (button) => checkNow(button.dataset, button),
  transcript: (button) => unfold(button.dataset.of),
  "listener-active": (button) => askListener("active", button.dataset.listener),
  "listener-draining": (button) => askListener("draining", button.dataset.listener),
  call: (button) => detail.open(Number(button.dataset.call), button),
  close: () => detail.close(),
  end: (button) => askEnd(Number(button.dataset.call)),
  save: () => askSave(),
  copy: (button) => copy(button),
  again: () => stream.again(),
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button) DO[button.dataset.do](button);
  else {
    const row = event.target.closest("#calls-rows tr[data-key]:not(.spacer)");
    if (row && !String(getSelection())) detail.open(Number(row.dataset.key), row.querySelector("button"));
  }
});

stream.run();
