"""What ``top`` knows of a moment, and what two moments together tell: rates. Pure.

Counters of a balancer only grow; their differences over the last few seconds are its rates. After
an upgrade or a restart another process counts, from the beginning: then nothing is compared.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

from sstplb.control.cost import per_gb
from sstplb.control.ctl.names import BackendName, Overview, backends_of

Shown = dict[str, Any]
WINDOW_S = 5.0
"""Rates are over so long a time, or as long as has been seen."""
GLANCES_MAX = 64


@dataclass(frozen=True, slots=True)
class Glance:
    """One moment."""

    overview: Overview
    calls: list[Shown]
    """Those that are to be shown, in their order."""
    calls_total: int
    events: list[Shown]
    """The oldest first."""

    @property
    def at(self) -> float:
        """When it was, by the balancer's clock."""
        return float(self.overview["now_at"])


@dataclass(frozen=True, slots=True)
class Flow:
    """What goes through a listener, or all of them, in a second."""

    bytes_in: float
    bytes_out: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What happens in a second."""

    calls: float
    flow: Flow
    by_listener: dict[str, Flow]
    by_backend: dict[BackendName, float]
    """Calls handed over."""
    cpu: float
    """Seconds of CPU: 1.0 is one core."""
    cpu_s_per_gb: float | None
    """Over this time; None: too little was carried."""


class Glances:
    """The last few moments."""

    def __init__(self) -> None:
        self._kept: deque[Glance] = deque(maxlen=GLANCES_MAX)

    @property
    def last(self) -> Glance | None:
        """The latest."""
        return self._kept[-1] if self._kept else None

    def add(self, glance: Glance) -> None:
        """Take one more."""
        last = self.last
        if last is not None and last.overview["started_at"] != glance.overview["started_at"]:
            self._kept.clear()
        self._kept.append(glance)
        while len(self._kept) > 2 and glance.at - self._kept[1].at >= WINDOW_S:
            self._kept.popleft()

    def rates(self) -> Rates | None:
        """Return the rates; None: only one moment is known."""
        if len(self._kept) < 2 or self._kept[-1].at <= self._kept[0].at:
            return None
        return rates(self._kept[0], self._kept[-1])


def rates(before: Glance, after: Glance) -> Rates:
    """Return what happened in a second between two moments of one process."""
    seconds = after.at - before.at
    old, new = before.overview, after.overview
    moved_in = new["totals"]["bytes_in"] - old["totals"]["bytes_in"]
    moved_out = new["totals"]["bytes_out"] - old["totals"]["bytes_out"]
    cpu_s = new["cost"]["cpu_s"] - old["cost"]["cpu_s"]
    moved = moved_in + moved_out
    were = {shown["name"]: shown for shown in old["listeners"]}
    totals = {name: shown["calls_total"] for name, shown in backends_of(old).items()}
    return Rates(
        calls=(new["totals"]["opened"] - old["totals"]["opened"]) / seconds,
        flow=Flow(moved_in / seconds, moved_out / seconds),
        by_listener={
            shown["name"]: _flow(were[shown["name"]], shown, seconds)
            for shown in new["listeners"]
            if shown["name"] in were
        },
        by_backend={
            name: max(0, shown["calls_total"] - totals[name]) / seconds
            for name, shown in backends_of(new).items()
            if name in totals
        },
        cpu=cpu_s / seconds,
        cpu_s_per_gb=per_gb(cpu_s, moved),
    )


def _flow(old: Shown, new: Shown, seconds: float) -> Flow:
    """Compare two looks at a listener; one that a reload has replaced counts anew."""
    return Flow(
        max(0, new["bytes_in"] - old["bytes_in"]) / seconds,
        max(0, new["bytes_out"] - old["bytes_out"]) / seconds,
    )
