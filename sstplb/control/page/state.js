// What a backend's facts come to, in one word with its tone, and in a sentence.

import { calls, span, words } from "./format.js";

// Return {word, tone}; tones: good, care, bad, off.
export function statusOf(backend) {
  if (backend.standing === "off") return { word: "off", tone: "off" };
  const isDown = backend.health === "down";
  if (backend.standing === "draining") return { word: isDown ? "draining, down" : "draining", tone: "care" };
  if (backend.unusable_because === "unresolved") return { word: "no address", tone: "bad" };
  if (isDown) return { word: "down", tone: "bad" };
  if (backend.unusable_because === "certificate_mismatch") return { word: "mismatch", tone: "bad" };
  if (backend.set_aside) return { word: backend.spared ? "spared" : "set aside", tone: "care" };
  if (backend.unusable_because === "calls_max") return { word: "full", tone: "care" };
  return { word: "up", tone: "good" };
}

// Return why it gets no new calls, in words; empty when it does.
export function reasonOf(backend, now) {
  switch (backend.unusable_because) {
    case null:
      return backend.spared ? `would be set aside, but too many others are out: ${backend.health_reason}` : "";
    case "standing_off":
      return `not checked; ${leftOf(backend, now)}`;
    case "draining":
      return backend.health === "down"
        ? backend.health_reason
        : leftOf(backend, now);
    case "unresolved":
      return "the name server gives no address for its name";
    case "calls_max":
      return `all ${backend.calls_max} places are taken`;
    case "certificate_mismatch":
      return "it has another certificate than clients are shown";
    case "down":
      return backend.health_reason;
    case "set_aside":
      return `${backend.health_reason}; for ${span(backend.set_aside_until_at - now)} more`;
    default:
      return words(backend.unusable_because);
  }
}

// Return what is left where no new calls come.
export function leftOf({ calls: running, deadline_at: deadline }, now) {
  if (!running) return "no calls left";
  return `${calls(running)} left${deadline === null ? ", no new ones" : `, ended in ${span(deadline - now)}`}`;
}

export const canTakeCalls = (backend) => backend.usable;

// Return {text, tone} for the days a certificate has left.
export function daysLeft(certificate) {
  const days = certificate.days_left;
  if (days < 0) return { text: "expired", tone: "bad" };
  const text = days === 1 ? "1 day left" : `${days} days left`;
  return { text, tone: days < 7 ? "bad" : days < 30 ? "care" : "good" };
}

// Return whether both sides show the same certificate: {text, tone}.
export function sameness(backend) {
  if (backend.same_certificate === true) return { text: "same", tone: "good" };
  if (backend.same_certificate === false) return { text: "another", tone: "bad" };
  if (backend.certificate_source === "last_seen") return { text: "last seen", tone: "off" };
  return { text: "not known", tone: "off" };
}

// Return what an operator should look at: [{tone, text, target}], the worst first.
export function concerns(overview, driftCount) {
  const found = [];
  const now = overview.now_at;
  const say = (tone, text, target) => found.push({ tone, text, target });
  if (overview.draining) say("care", "The balancer is stopping: it takes no new calls.");
  for (const pool of overview.pools) {
    if (!pool.backends.some(canTakeCalls)) {
      say("bad", `No backend of pool ${pool.name} can take a call: every new caller is refused.`, "backends-title");
    }
    for (const backend of pool.backends) {
      const target = `backend-${pool.name}-${backend.name}`;
      const { word, tone } = statusOf(backend);
      if (tone === "bad" && backend.unusable_because !== "certificate_mismatch") {
        const since = `${backend.name} has been ${word} for ${span(now - backend.since_at)}`;
        say(tone, `${since}: ${reasonOf(backend, now)}`, target);
      } else if (backend.standing === "draining") {
        say("care", `${backend.name} is draining: ${leftOf(backend, now)}`, target);
      } else if (tone === "care") {
        say("care", `${backend.name} is ${word}: ${reasonOf(backend, now)}`, target);
      }
      if (backend.same_certificate === false) {
        say("bad", `${backend.name} has another certificate than clients are shown`, "certificates-title");
      }
    }
  }
  for (const listener of overview.listeners) {
    if (listener.standing === "draining") say("care", `Listener ${listener.name} is draining: ${leftOf(listener, now)}`, "listeners-title");
    if (listener.calls >= listener.calls_max) say("care", `Listener ${listener.name} is full.`, "listeners-title");
    for (const certificate of listener.certificates) {
      const { text, tone } = daysLeft(certificate);
      if (tone !== "good") say(tone, `Certificate of ${certificate.names[0] ?? certificate.subject}: ${text}`, "certificates-title");
    }
  }
  if (driftCount) {
    say("info", `${driftCount} ${driftCount === 1 ? "change" : "changes"} made at run time ${driftCount === 1 ? "is" : "are"} not in the file`);
  }
  const order = ["bad", "care", "info"];
  const seen = new Set();
  return found
    .filter(({ text }) => !seen.has(text) && seen.add(text))
    .sort((one, other) => order.indexOf(one.tone) - order.indexOf(other.tone));
}
