"""All calls: those that run, the last that ended, and totals of all. Pure: times are given.

Invariant 3: every accepted call closes exactly one record. ``close`` raises when it is asked
twice; ``running`` shows what was never closed.
"""

from collections import Counter, deque

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

    def open(
        self, *, listener: str, mode: str, client: Address, started_at: float, now: float
    ) -> Record:
        """Begin a record. ``started_at`` is wall clock, ``now`` monotonic."""
        self.opened_total += 1
        record = Record(self.opened_total, listener, mode, client, started_at, now)
        self.running[record.id] = record
        return record

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


def way_of(record: Record) -> Way:
    """Return the way a call went."""
    return record.listener, record.pool or "", record.backend or ""
