"""How long things took: a histogram with fixed bounds, as Prometheus wants it. Pure.

Bounds never change while the balancer runs, so what was counted stays comparable and memory is
bounded. A value that is exactly a bound counts below it (``le``).
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a histogram held at one moment."""

    cumulative: tuple[tuple[float, int], ...]
    """Each upper bound, and how many values were at most that; the last bound is infinity."""
    sum: float


class Histogram:
    """Counts of values by upper bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """``bounds``: ascending, without infinity, which is always the last one."""
        self._bounds = (*bounds, math.inf)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def distribution(self) -> Distribution:
        """Return what was counted until now."""
        return Distribution(
            tuple(zip(self._bounds, accumulate(self._counts), strict=True)), self._sum
        )
