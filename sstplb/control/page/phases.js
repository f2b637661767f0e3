// How long each step of a call's opening took: a small stacked bar, its legend, its words.

import { el } from "./dom.js";
import { duration } from "./format.js";

export const PHASES = [
  ["preface_s", "preface", "the proxy's preface"],
  ["hello_s", "hello", "waiting for the ClientHello"],
  ["tls_s", "TLS", "the TLS handshake with the client"],
  ["head_s", "head", "waiting for the SSTP head"],
  ["reach_s", "reach", "choosing, dialling and asking backends"],
];
const STEPS_S = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600];

export const openingOf = (phases) => PHASES.reduce((sum, [name]) => sum + (phases[name] ?? 0), 0);

// Return what a whole bar stands for, so that most bars of a list fill it well.
export function scaleFor(allPhases) {
  const found = allPhases.map(openingOf).sort((one, other) => one - other);
  const most = found[Math.floor(found.length * 0.9)] ?? 0;
  return STEPS_S.find((step) => step >= most) ?? STEPS_S.at(-1);
}

export function bar(phases, scale) {
  const whole = openingOf(phases);
  const shrink = Math.min(1, scale / Math.max(whole, 1e-9));
  const parts = PHASES.filter(([name]) => phases[name]).map(([name, short]) =>
    el("i", { "data-phase": short, style: { width: `${((100 * phases[name] * shrink) / scale).toFixed(2)}%` } }),
  );
  return el("span", { class: "phases", "aria-hidden": "true", "data-over": whole > scale ? "yes" : null }, parts);
}

export const inWords = (phases) =>
  PHASES.filter(([name]) => phases[name] !== undefined).map(([name, short]) => `${short} ${duration(phases[name])}`).join(", ");

export function legend() {
  return PHASES.map(([, short, long]) => el("span", { title: long }, el("i", { "data-phase": short }), short));
}
