"""What the bench shows on the terminal: progress, a table, what changed since another run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench.cells import Cell
from bench.proxies import OURS, OURS_ON_SYSTEMS
from bench.run import Progress as Told
from bench.run import Row

Result = Mapping[str, Any]


class Terminal(Told):
    """Shows how far the bench has come, and each cell's line when it is complete."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description:<40}"), BarColumn(), TimeRemainingColumn(),
            console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=None)

    def begin(self, cells: int, rounds: int) -> None:
        """Begin."""
        self._bar.update(self._task, total=cells)
        self._console.print(f"{cells} cells, {rounds} interleaved rounds each")
        self._bar.start()

    def measured(self, cell: Cell, name: str) -> None:
        """Show what is being done."""
        self._bar.update(self._task, description=f"{cell.name} · {name}")

    def row(self, row: Row) -> None:
        """Show a complete cell."""
        self._bar.advance(self._task)
        ratio = row.ratio()
        shown = "-" if ratio is None else f"{ratio:.2f}"
        self._console.print(f"  {row.cell.name:<42} {shown}", highlight=False)

    def end(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def table(result: Result) -> Table:
    """Return the whole run as one table."""
    names = [name for name in result["versions"] if name != OURS]
    shown = Table(title="cost, lower is better; ratio = ours / best peer", title_justify="left")
    shown.add_column("cell")
    shown.add_column("unit")
    for name in ("ours", *names, "ratio", "target", "spread"):
        shown.add_column(name, justify="right")
    for row in result["rows"]:
        ratio, target = row["ratio"], row["target"]
        style = {True: "green", False: "red", None: ""}[row["reached"]]
        shown.add_row(
            _cell(row), row["unit"], _number(row["ours"]),
            *(_number(cost(row, name)) for name in names),
            f"[{style}]{_number(ratio)}[/]" if style else _number(ratio),
            _number(target), _number(row["spread"].get(OURS)),
        )  # fmt: skip
        for name, why in row["failures"].items():
            shown.add_row(f"  [yellow]{name}: {why[:90]}[/]")
    return shown


def cost(row: Result, name: str) -> float | None:
    """Return what one of the proxies of a run cost in a cell."""
    where = {OURS: "ours", OURS_ON_SYSTEMS: "ours_on_systems_openssl"}.get(name)
    found: float | None = row["peers"].get(name) if where is None else row.get(where)
    return found


def compare(old: Result, new: Result, console: Console) -> bool:
    """Show each cell whose ratio to its best peer changed beyond the noise; True: none got worse.

    Ratios are compared, not figures: two runs on one machine differ by what else it was doing.
    """
    before = {_cell(row): row for row in old["rows"]}
    good = True
    for row in new["rows"]:
        was = before.get(_cell(row))
        if was is None or was["ratio"] is None or row["ratio"] is None:
            continue
        change = row["ratio"] / was["ratio"] - 1
        noise = max(0.1, *(_noise(r) for r in (was, row)))
        if abs(change) <= noise:
            continue
        good = good and change < 0
        word = "[red]worse[/]" if change > 0 else "[green]better[/]"
        console.print(
            f"{_cell(row)}: {word}, ratio {was['ratio']:.2f} -> {row['ratio']:.2f} "
            f"({change:+.0%}, noise {noise:.0%})"
        )
    if good:
        console.print("no cell got worse beyond the noise")
    return good


def updated(old: Result, new: Result) -> dict[str, Any]:
    """Return ``old`` with the cells that ``new`` has measured again."""
    again = {_cell(row): row for row in new["rows"]}
    known = [again.pop(_cell(row), row) for row in old["rows"]]
    return {
        **old,
        "took_s": old["took_s"] + new["took_s"],
        "versions": {**old["versions"], **new["versions"]},
        "rows": [*known, *again.values()],
    }


def load(path: Path) -> Result:
    """Read a result. Raises SystemExit with a sentence when it is none."""
    try:
        result = json.loads(path.read_text())
        if result["format"] != 1:
            raise ValueError(f"format {result['format']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"bench: {path} is no result of this bench: {error}") from error
    return dict(result)


def _noise(row: Result) -> float:
    names: Sequence[str] = [n for n in (OURS, row["best_peer"]) if n in row["spread"]]
    return float(sum(row["spread"][name] or 0 for name in names)) / 2


def _cell(row: Result) -> str:
    return f"{row['mode']} {row['load']} {row['direction']}".strip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
