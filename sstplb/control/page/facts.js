// Any value the API may give, shown sensibly: what is added to a call later shows up by itself.
//
// A name's last part is its unit: `_s` seconds, `_at` a moment, `bytes_…` bytes. Lists of objects
// become tables, objects lists of facts, texts of several lines keep them.

import { el } from "./dom.js";
import { bytes, count, duration, moment, words } from "./format.js";

// Return a list of facts, without those of `known`.
export function facts(values, known = new Set()) {
  const rows = Object.entries(values).filter(([name, value]) => !known.has(name) && !isNothing(value));
  if (!rows.length) return null;
  return el("dl", { class: "facts" }, rows.map(([name, value]) => [el("dt", { "data-key": `dt-${name}` }, labelOf(name)), el("dd", { "data-key": `dd-${name}`, class: isLarge(value) ? "large" : null }, shown(name, value))]));
}

const SLUG = /^[a-z0-9]+(_[a-z0-9]+)+$/;
const isNothing = (value) => value === null || value === undefined || value === "" || (Array.isArray(value) && !value.length);
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isLarge = (value) => isObject(value) || (Array.isArray(value) && value.some(isObject)) || (typeof value === "string" && value.includes("\n"));

export const labelOf = (name) => words(name.replace(/_(s|at)$/, "").replace(/^bytes_(in|out)$/, (_, way) => (way === "in" ? "to backend" : "to client")));

function shown(name, value) {
  if (Array.isArray(value)) return value.some(isObject) ? table(value) : value.map((one) => shown(name, one)).join(", ");
  if (isObject(value)) return facts(value) ?? "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") {
    if (name.endsWith("_at")) return moment(value);
    if (name.endsWith("_s")) return duration(value);
    if (/(^|_)bytes(_|$)/.test(name)) return `${bytes(value)}`;
    return Number.isInteger(value) ? count(value) : String(value);
  }
  const text = String(value);
  if (text.includes("\n")) return el("pre", { tabindex: "0" }, text);
  if (/_(id|sha1|sha256|hash)$|^cipher$/.test(name)) return el("code", {}, text);
  return SLUG.test(text) ? words(text) : text;
}

function table(rows) {
  const objects = rows.map((row) => (isObject(row) ? row : { "": row }));
  const all = [...new Set(objects.flatMap((row) => Object.keys(row)))];
  const names = all.filter((name) => objects.some((row) => !isNothing(row[name])));
  return el(
    "table",
    { class: "grid small" },
    el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col" }, labelOf(name))))),
    el("tbody", {}, objects.map((row) => el("tr", {}, names.map((name) => el("td", {}, isNothing(row[name]) ? "" : shown(name, row[name])))))),
  );
}
