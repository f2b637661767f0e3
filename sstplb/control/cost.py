"""What carrying costs, by mode: CPU seconds for the bytes that were moved. Pure.

CPU is measured of whole processes, and each of them carries calls of every mode. So a mode's cost
cannot be read off at any moment; but it can be learnt from the spans of time in which one mode
moved nearly all bytes: what was used then is what that mode costs. Spans in which modes mix, or
nothing moves, teach nothing and are left out.

A span lasts from one look to the next (the page looks once a second). Checks, handshakes and the
admin side run in the same processes and are in the figure: it is a little too high, never too low.
With few bytes it is all of it; then no figure is told, by nobody (``per_gb``).
"""

from collections.abc import Mapping

GB = 1_000_000_000
SPAN_BYTES_MIN = 50_000_000
"""Fewer, in spans that were learnt from or looked at, say more of checks and of who looks."""
SINCE_START_BYTES_MIN = GB
"""The start and all idle hours are in it, too."""
NEARLY_ALL = 0.99
"""Share of a span's bytes that makes it one mode's span."""


def per_gb(cpu_s: float, moved: int, bytes_min: int = SPAN_BYTES_MIN) -> float | None:
    """Return what a GB costs, CPU seconds; None: too few bytes were moved to tell."""
    return cpu_s * GB / moved if moved >= bytes_min else None


class CostMeter:
    """Learns what each mode costs."""

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}
        """CPU used in the spans of each mode, seconds."""
        self.moved: dict[str, int] = {}
        """Bytes moved in those spans, both ways together."""
        self._seen: tuple[float, dict[str, int]] | None = None

    def look(self, cpu_s: float, moved: Mapping[str, int]) -> None:
        """Take the totals until now: CPU seconds, and bytes by mode."""
        seen, self._seen = self._seen, (cpu_s, dict(moved))
        if seen is None:
            return
        used, since = cpu_s - seen[0], seen[1]
        steps = {mode: max(0, count - since.get(mode, 0)) for mode, count in moved.items()}
        together = sum(steps.values())
        if not together or used < 0:
            return
        mode = max(steps, key=lambda one: steps[one])
        if steps[mode] >= NEARLY_ALL * together:
            self.cpu_s[mode] = self.cpu_s.get(mode, 0.0) + used
            self.moved[mode] = self.moved.get(mode, 0) + together
