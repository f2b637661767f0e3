"""All calls: those that run, the last that ended, and totals of all. Pure: times are given.

Invariant 3: every accepted call closes exactly one record. ``close`` raises when it is asked
twice; ``running`` shows what was never closed.

How long the steps of an opening took is counted at hand-over: a call may last for days, and
today's openings are what one wants to see today. For a call that never gets there, it is counted
at its end.
"""

from collections import Counter, deque

from sstplb.account.histogram import Histogram
from sstplb.account.metrics import BOUNDS_S, STEPS, Metric
from sstplb.account.record import Address, Outcome, Record

Way = tuple[str, str, str]
"""Listener, pool and backend; the last two are empty for a call that reached none."""

ENDED_KEPT = 1000
"""Ended calls that can still be looked at; older ones are in the log."""


class Ledger:
    """Opens and closes the records of all calls."""

    def __init__(self) -> None:
        self.running: dict[int, Record] = {}
        """By id, oldest first."""
        self.ended: deque[Record] = deque(maxlen=ENDED_KEPT)
        self.opened_total = 0
        self.outcomes_total: Counter[tuple[str, Outcome, str]] = Counter()
        """By listener, outcome and reason."""
        self.bytes_in_total = 0
        self.bytes_out_total = 0
        self.bytes_in_by_way: Counter[Way] = Counter()
        """Of the calls that ended, as the two totals are."""
        self.bytes_out_by_way: Counter[Way] = Counter()
        self.handed_over_total: Counter[str] = Counter()
        """By listener; visitors of a web pool count."""
        self.histograms: dict[tuple[str, Metric], Histogram] = {}
        """Seconds, by listener and what took them."""
        self._opening: set[int] = set()
        """Of those that run, the few that are not handed over yet."""

    def open(
        self, *, listener: str, mode: str, client: Address, started_at: float, now: float
    ) -> Record:
        """Begin a record. ``started_at`` is wall clock, ``now`` monotonic."""
        self.opened_total += 1
        record = Record(self.opened_total, listener, mode, client, started_at, now)
        self.running[record.id] = record
        self._opening.add(record.id)
        return record

    def handed_over(self, record: Record) -> None:
        """Count a call that has reached a backend, and how it got there. Raises RuntimeError."""
        if record.id not in self._opening:
            raise RuntimeError(f"call {record.id} was handed over before, or has ended")
        self._opening.remove(record.id)
        self.handed_over_total[record.listener] += 1
        self._observe(record.listener, Metric.OPENING, self._count_opening(record))

    def close(self, record: Record, outcome: Outcome, reason: str, detail: str, now: float) -> None:
        """End a record. Raises RuntimeError when it has ended: that is a mistake of ours."""
        if record.outcome is not None:
            raise RuntimeError(f"call {record.id} was closed as {record.outcome}, now {outcome}")
        del self.running[record.id]
        record.outcome, record.reason, record.detail = outcome, reason, detail
        record.duration_s = max(0.0, now - record.opened_s)
        self.ended.append(record)
        self.outcomes_total[record.listener, outcome, reason] += 1
        self.bytes_in_total += record.bytes_in
        self.bytes_out_total += record.bytes_out
        self.bytes_in_by_way[way_of(record)] += record.bytes_in
        self.bytes_out_by_way[way_of(record)] += record.bytes_out
        if record.id in self._opening:
            self._opening.remove(record.id)
            self._count_opening(record)
            return
        if outcome is not Outcome.WEB:
            self._observe(record.listener, Metric.DURATION, record.duration_s)

    def _count_opening(self, record: Record) -> float:
        """Count the steps that were taken; return the seconds of all together."""
        together_s = 0.0
        for step, metric in STEPS.items():
            seconds: float | None = getattr(record.phases, step)
            if seconds is not None:
                together_s += seconds
                self._observe(record.listener, metric, seconds)
        return together_s

    def _observe(self, listener: str, metric: Metric, seconds: float) -> None:
        histogram = self.histograms.get((listener, metric))
        if histogram is None:
            histogram = self.histograms[listener, metric] = Histogram(BOUNDS_S[metric])
        histogram.observe(seconds)


def way_of(record: Record) -> Way:
    """Return the way a call went."""
    return record.listener, record.pool or "", record.backend or ""
