// Speaking to the balancer: questions, orders, and the stream of what happens.
//
// The token (only a TCP door asks for one) lives in this tab's session storage and goes along as a
// header. No cookie is set, so no other site can make this browser say anything in our name. That
// is also why the stream is read with fetch: an EventSource cannot send a header.

const ROOT = "/api/v1";
const TOKEN = "sstplb.token";
const SILENT_MS = 6000; // the overview comes every second
const RETRY_MS = [500, 1000, 2000, 4000, 8000];

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;
export const forgetToken = () => sessionStorage.removeItem(TOKEN);

function headers(token = sessionStorage.getItem(TOKEN)) {
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

async function request(method, path, { query = {}, body, signal } = {}) {
  const wanted = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined);
  const where = `${ROOT}${path}${wanted.length ? `?${new URLSearchParams(wanted)}` : ""}`;
  const options = { method, headers: headers(), signal, cache: "no-store" };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(where, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "the balancer does not answer");
  }
  if (!answer.ok) throw await failure(answer);
  return answer.json();
}

async function failure(answer) {
  let said = {};
  try {
    said = (await answer.json()).error || {};
  } catch {
    // Somebody in between answered; the status is all there is.
  }
  return new ApiError(answer.status, said.code || "http_error", said.message || `HTTP ${answer.status}`);
}

export const get = (path, query, signal) => request("GET", path, { query, signal });
export const post = (path, body = {}) => request("POST", path, { body });

// Keep a token if the balancer takes it. Raises ApiError.
export async function offerToken(token) {
  const answer = await fetch(`${ROOT}/version`, { headers: headers(token), cache: "no-store" });
  if (!answer.ok) throw await failure(answer);
  sessionStorage.setItem(TOKEN, token);
}

// Follow what happens for ever. `on` is told: open(), message(kind, value), lost(why, retryMs), locked().
export class Stream {
  constructor(on) {
    this.on = on;
    this.failures = 0;
    this.wake = () => {};
    window.addEventListener("online", () => this.wake());
    document.addEventListener("visibilitychange", () => document.hidden || this.wake());
  }

  // Try again at once (there is a token now, or somebody pressed the button).
  again() {
    this.wake();
  }

  async run() {
    for (;;) {
      const why = await this.follow();
      if (why === "locked") {
        this.on.locked();
        await this.pause(3_600_000);
        continue;
      }
      const pause = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
      this.failures += 1;
      this.on.lost(why, pause);
      await this.pause(pause);
    }
  }

  pause(time) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, time);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    }).finally(() => {
      this.wake = () => {};
    });
  }

  // Follow until it ends; return why it did.
  async follow() {
    const control = new AbortController();
    let watchdog;
    const heard = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => control.abort(), SILENT_MS);
    };
    try {
      heard();
      const answer = await fetch(`${ROOT}/events/stream`, {
        headers: headers(),
        signal: control.signal,
        cache: "no-store",
      });
      if (answer.status === 401) return "locked";
      if (!answer.ok) return (await failure(answer)).message;
      await this.read(answer.body.getReader(), heard);
      return "the balancer closed the connection";
    } catch {
      return control.signal.aborted ? "nothing was heard for a while" : "the balancer does not answer";
    } finally {
      clearTimeout(watchdog);
      control.abort();
    }
  }

  async read(reader, heard) {
    const decoder = new TextDecoder();
    let rest = "";
    let isOpen = false;
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      if (!isOpen) {
        isOpen = true;
        this.failures = 0;
        this.on.open();
      }
      const frames = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) this.take(frame);
    }
  }

  take(frame) {
    let kind = "message";
    let data = "";
    for (const line of frame.split("\n")) {
      if (line.startsWith("event: ")) kind = line.slice(7);
      else if (line.startsWith("data: ")) data += line.slice(6);
    }
    if (data) this.on.message(kind, JSON.parse(data));
  }
}
