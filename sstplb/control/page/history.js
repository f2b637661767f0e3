// The latest overviews, and what they say per second.

const KEPT = 180; // three minutes
const SMOOTHED = 3; // a rate is taken over so many steps: calm, and still quick

export class History {
  constructor() {
    this.samples = [];
  }

  get latest() {
    return this.samples.at(-1) ?? null;
  }

  push(overview) {
    const latest = this.latest;
    if (latest && latest.started_at !== overview.started_at) this.samples = []; // another process
    if (latest && overview.now_at <= latest.now_at) return;
    this.samples.push(overview);
    if (this.samples.length > KEPT) this.samples.shift();
  }

  // Return how fast a total grows; 0 when nothing can be said.
  perSecond(read) {
    const now = this.latest;
    const before = this.samples.at(-1 - Math.min(SMOOTHED, this.samples.length - 1));
    return now && before ? growth(read, before, now) : 0;
  }

  // Return values per step, the oldest first.
  growths(read, steps) {
    const from = Math.max(1, this.samples.length - steps);
    return this.samples.slice(from).map((now, n) => growth(read, this.samples[from + n - 1], now));
  }

  values(read, steps) {
    return this.samples.slice(-steps).map(read);
  }
}

function growth(read, before, now) {
  const time = now.now_at - before.now_at;
  return time > 0 ? Math.max(0, (read(now) - read(before)) / time) : 0;
}

export function ofListener(name, field) {
  return (overview) => overview.listeners.find((one) => one.name === name)?.[field] ?? 0;
}

// Sum over the ways that lead to a backend.
export function toBackend(pool, name, field) {
  return (overview) =>
    overview.ways
      .filter((way) => way.pool === pool && way.backend === name)
      .reduce((sum, way) => sum + way[field], 0);
}

export function ofWay(listener, pool, backend, field) {
  return (overview) =>
    overview.ways.find((way) => way.listener === listener && way.pool === pool && way.backend === backend)?.[field] ?? 0;
}
