"""The grid: what is measured, in which unit, and how large a round of it is.

A *cell* is one load in one mode; each proxy gets a figure in each cell it serves. Lower is better
everywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.load import Errand
from bench.proxies import MODES, OURS_ON_SYSTEMS


class Measure(StrEnum):
    """What a cell's figure is, with its unit."""

    CPU_S_PER_GB = "CPU s/GB"
    CPU_US_PER_MESSAGE = "CPU µs/message"
    CPU_MS_PER_CALL = "CPU ms/call"
    KIB_PER_CALL = "KiB/call"
    LATENCY_P50_MS = "ms p50"
    LATENCY_P99_MS = "ms p99"
    OPENING_P50_MS = "ms to first 200"


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    mode: str
    load: str
    """``bulk``, ``packets``, ``imix``, ``packets of N``, ``ping-pong``, ``ping-pong of N``,
    ``trickle``, ``latency``, ``opening``, ``handshake``, ``idle``, ``busy``."""
    direction: str
    """``up`` (client to backend), ``down``, ``both``; ``full``/``resumed``; ``p50``/``p99``; or
    empty."""
    measure: Measure
    calls: int
    errand: Errand
    port: str = ""
    """Which port of a proxy; by default the mode's."""
    seconds: float = 0.0
    interval_s: float = 0.0
    target: float | None = None
    """The ratio that this cell should at least reach: to the best peer,"""
    against: str = ""
    """or to this one."""

    @property
    def name(self) -> str:
        """The cell's name, stable between runs."""
        return " ".join(word for word in (self.mode, self.load, self.direction) if word)


STREAM_CALLS = 4
"""Calls that stream at one time."""
_TARGETS = {
    ("passthrough", "bulk"): 0.6,
    ("passthrough", "packets"): 0.9,
    ("offload", "bulk"): 0.9,
    ("reencrypt", "bulk"): 0.9,
    ("offload", "packets"): 0.95,
    ("reencrypt", "packets"): 0.95,
}


@dataclass(frozen=True)
class Size:
    """How much a round moves."""

    blocks: int
    """Blocks of 1 MiB each streaming call moves in a round."""
    seconds: float
    handshakes: int
    idle_calls: tuple[int, ...]
    patterns: tuple[str, ...]
    directions: tuple[str, ...]
    packet_bytes: tuple[int, ...]
    """Packet sizes of the curve that shows what a packet costs."""
    call_counts: tuple[int, ...]
    """Calls of the curve that shows what a call more costs."""
    steady: bool
    """Whether loads at a steady rate, which take their time, are among them."""
    rounds: int
    peers: tuple[str, ...]


FULL = Size(
    96, 2.0, 600, (1000, 5000), ("bulk", "packets", "imix"), ("up", "down", "both"),
    (64, 256, 4000), (10, 50, 1000), True, 5,
    (OURS_ON_SYSTEMS, "nginx", "haproxy", "envoy", "stunnel", "hitch"),
)  # fmt: skip
QUICK = Size(
    48,
    0.7,
    200,
    (1000,),
    ("bulk", "packets"),
    ("up", "down"),
    (),
    (),
    False,
    3,
    ("nginx", "haproxy"),
)


def grid(size: Size) -> Iterator[Cell]:
    """Yield every cell."""
    for mode in MODES:
        for pattern in size.patterns:
            for direction in size.directions:
                yield stream_cell(mode, pattern, direction, size.blocks)
        yield Cell(
            mode, "ping-pong", "", Measure.CPU_US_PER_MESSAGE, 200, Errand(), "", size.seconds,
            target=1.15,
        )  # fmt: skip
        if size.steady:
            yield from _steady(mode, size.seconds)
        for packet_bytes in size.packet_bytes:
            yield stream_cell(mode, str(packet_bytes), "up", size.blocks)
        for count in size.call_counts:
            yield Cell(
                mode, f"ping-pong of {count}", "", Measure.CPU_US_PER_MESSAGE, count, Errand(), "",
                size.seconds,
            )  # fmt: skip
    for mode, key in (("offload", ""), ("offload", "_rsa"), ("reencrypt", "")):
        for resumed in ("full", "resumed"):
            name = "handshake RSA" if key else "handshake P-256"
            yield Cell(
                mode, name, resumed, Measure.CPU_MS_PER_CALL, size.handshakes, Errand(), mode + key,
                target=1.5 if resumed == "full" else None,
            )  # fmt: skip
    for mode in ("offload", "reencrypt"):
        yield Cell(
            mode, "opening", "", Measure.OPENING_P50_MS, size.handshakes // 4, Errand(), mode
        )
        if size.steady:
            yield Cell(
                mode, "busy", "200 handshakes/s", Measure.LATENCY_P99_MS, 50, Errand(), "",
                1.5 * size.seconds, 0.02, target=1.0, against="nginx",
            )  # fmt: skip
    yield from _idle(size.idle_calls)


def _idle(counts: Sequence[int]) -> Iterator[Cell]:
    """Yield the cells of calls that say nothing."""
    for mode in MODES:
        for count in counts:
            yield Cell(
                mode, f"idle {count}", "", Measure.KIB_PER_CALL, count, Errand(), "",
                target=None if mode == "passthrough" else 1.0, against="haproxy",
            )  # fmt: skip


def _steady(mode: str, seconds: float) -> Iterator[Cell]:
    """Yield the cells of one mode whose packets come at a steady rate."""
    yield Cell(mode, "trickle", "", Measure.CPU_US_PER_MESSAGE, 1000, Errand(), "", seconds, 1.0)
    for name, measure in (("p50", Measure.LATENCY_P50_MS), ("p99", Measure.LATENCY_P99_MS)):
        yield Cell(mode, "latency", name, measure, 50, Errand(), "", seconds, 0.02)


def stream_cell(mode: str, pattern: str, direction: str, blocks: int) -> Cell:
    """Return the cell of a saturated stream."""
    # Small packets cost several times as much: smaller rounds take as long.
    smaller = {"bulk": 1, "packets": 3, "imix": 8, "64": 32, "256": 12}.get(pattern, 3)
    each = max(1, blocks // smaller)
    if direction == "both":
        each = max(1, each // 2)
    errand = Errand(
        "stream",
        pattern,
        up_blocks=0 if direction == "down" else each,
        down_blocks=0 if direction == "up" else each,
    )
    load = f"packets of {pattern}" if pattern.isdigit() else pattern
    return Cell(
        mode, load, direction, Measure.CPU_S_PER_GB, STREAM_CALLS, errand,
        target=_TARGETS.get((mode, pattern)),
    )  # fmt: skip
