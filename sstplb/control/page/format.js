// How values are written. Bytes are decimal (1 MB = 10^6), as the cost per GB is.

const UNITS = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];

export function bytes(count) {
  for (const [size, unit] of UNITS) {
    if (count >= size) return `${short(count / size)} ${unit}`;
  }
  return `${Math.round(count)} B`;
}

export const rate = (perSecond) => `${bytes(perSecond)}/s`;

export const count = (number) => number.toLocaleString("en");

// Three digits that say something.
export function short(number) {
  if (number >= 100) return number.toFixed(0);
  return number >= 10 ? number.toFixed(1) : number.toFixed(2);
}

// A step of a call: from microseconds to seconds.
export function duration(seconds) {
  if (seconds < 0.0005) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.01) return `${(seconds * 1e3).toFixed(1)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1e3)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return span(seconds);
}

// A stretch of time, in its two largest units.
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const days = Math.floor(whole / 86400);
  const hours = Math.floor((whole % 86400) / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}

const two = (number) => String(number).padStart(2, "0");

export function clock(at) {
  const day = new Date(at * 1000);
  return `${two(day.getHours())}:${two(day.getMinutes())}:${two(day.getSeconds())}`;
}

export function date(at) {
  const day = new Date(at * 1000);
  return `${day.getFullYear()}-${two(day.getMonth() + 1)}-${two(day.getDate())}`;
}

export const moment = (at) => `${date(at)} ${clock(at)}`;

// A clock time for today, with its date otherwise.
export function when(at, now) {
  return date(at) === date(now) ? clock(at) : `${date(at).slice(5)} ${clock(at)}`;
}

export const words = (slug) => String(slug).replaceAll("_", " ");

export const calls = (number) => `${count(number)} ${number === 1 ? "call" : "calls"}`;

// A hash in groups that can be compared by eye.
export const hash = (hex) => hex.toUpperCase().replace(/(.{8})(?!$)/g, "$1 ");
