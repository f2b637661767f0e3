"""The bench's pictures: bars per mode and unit; curves that show how cost grows with work."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot

from bench.cells import Measure
from bench.proxies import OURS
from bench.report import cost

Result = Mapping[str, Any]
PACKETS, PING_PONG = "packets", "ping-pong"
_KNOWN = {PACKETS: 1400, PING_PONG: 200}
"""What the load without "of N" in its name has."""


def draw(result: Result, directory: Path) -> list[Path]:
    """Write all pictures the result has rows for; return the files."""
    return [
        *_bars(result, directory),
        *_curves(result, directory, PACKETS, "bytes of a packet", "CPU µs per packet"),
        *_curves(result, directory, PING_PONG, "calls, one packet in flight each", "CPU µs"),
    ]


def _bars(result: Result, directory: Path) -> Iterator[Path]:
    groups: dict[tuple[str, str], list[Result]] = {}
    for row in result["rows"]:
        if " of " not in row["load"]:
            groups.setdefault((row["mode"], row["unit"]), []).append(row)
    for (mode, unit), rows in groups.items():
        names = [n for n in result["versions"] if any(cost(r, n) is not None for r in rows)]
        figure, axes = pyplot.subplots(figsize=(2 + 1.3 * len(rows), 4), layout="constrained")
        width = 0.8 / len(names)
        for number, name in enumerate(names):
            values = [cost(row, name) or 0 for row in rows]
            at = [place + number * width for place in range(len(rows))]
            axes.bar(at, values, width, label=name)
        labels = [f"{row['load']} {row['direction']}".strip() for row in rows]
        axes.set_xticks([n + 0.4 - width / 2 for n in range(len(rows))], labels, rotation=20)
        axes.set_ylabel(f"{unit} (lower is better)")
        axes.set_title(mode)
        axes.legend(fontsize="small")
        yield _kept(figure, directory / f"{mode}-{_slug(unit)}.svg")


def _curves(result: Result, directory: Path, load: str, quantity: str, unit: str) -> Iterator[Path]:
    """One picture per mode: what ``load`` costs against how much of it there is."""
    for mode in dict.fromkeys(row["mode"] for row in result["rows"]):
        rows = {
            quantity_of(row["load"]): row
            for row in result["rows"]
            if row["mode"] == mode
            and row["load"].partition(" of ")[0] == load
            and row["direction"] in ("up", "")
        }
        if len(rows) < 3:
            continue
        figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
        for name in result["versions"]:
            points = [
                (count, _per_packet(rows[count], value, count))
                for count in sorted(rows)
                if (value := cost(rows[count], name)) is not None
            ]
            if points:
                counts, costs = zip(*points, strict=True)
                width = 2.5 if name == OURS else 1.2
                axes.plot(counts, costs, marker="o", label=name, linewidth=width)
        axes.set_xscale("log")
        axes.set_xticks(sorted(rows), [str(count) for count in sorted(rows)])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(quantity)
        axes.set_ylabel(f"{unit} (lower is better)")
        axes.set_title(f"{mode}: {load}")
        axes.legend(fontsize="small")
        yield _kept(figure, directory / f"{mode}-{load}-curve.svg")


def quantity_of(load: str) -> int:
    """Return the number in a load's name: bytes of a packet, or calls."""
    name, _, count = load.partition(" of ")
    return int(count) if count else _KNOWN[name]


def _per_packet(row: Result, value: float, packet_bytes: int) -> float:
    return value * packet_bytes / 1e3 if row["unit"] == Measure.CPU_S_PER_GB else value


def _kept(figure: Any, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def _slug(unit: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in unit)
