"""What every table on a terminal is made of: rows that fit its width, and quantities in words.

Nothing here knows what is shown; that is in ``tables.py`` and ``control/top/view.py``.
"""

from collections.abc import Iterable
from datetime import datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

WIDE_FROM, FILLED_UP_TO = 110, 1000
"""Columns: below the one a table leaves some out; beyond the other there is no terminal to fill."""


class Sheet:
    """A table without lines, one row a line, that leaves columns out where it is narrow.

    Marks before a heading: ``>`` numbers, to the right; ``?`` left out where it is narrow; ``*``
    takes the room that is left, and more lines if it must (``is_cut``: it is cut instead).
    """

    def __init__(self, *columns: str, is_cut: bool = False) -> None:
        self._columns = columns
        self._is_cut = is_cut
        self._rows: list[tuple[tuple[str | Text, ...], str]] = []

    def add(self, *cells: str | Text, style: str = "") -> None:
        """Add a row."""
        assert len(cells) == len(self._columns), "a cell for each column"
        self._rows.append((cells, style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table for the width there is (rich)."""
        is_wide = options.max_width >= WIDE_FROM
        fills = options.max_width <= FILLED_UP_TO
        shown = [n for n, column in enumerate(self._columns) if is_wide or "?" not in column]
        table = Table(
            box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=fills
        )
        for column in (self._columns[n] for n in shown):
            takes_rest = column.startswith("*")
            table.add_column(
                column.lstrip(">?*"),
                justify="right" if ">" in column else "left",
                no_wrap=self._is_cut or not takes_rest,
                overflow="ellipsis" if self._is_cut or not takes_rest else "fold",
                ratio=1 if takes_rest and fills else None,
            )
        for cells, style in self._rows:
            table.add_row(*(cells[n] for n in shown), style=style)
        yield table


# --- words and numbers ------------------------------------------------------------------------


def ago(seconds_: float) -> str:
    """Show a length of time in its two largest units: ``3 h 12 min``."""
    rest, parts = max(0, int(seconds_)), []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def seconds(value: float) -> str:
    """Show a duration of any size."""
    if value < 1:
        return milliseconds(value)
    return f"{value:.1f} s" if value < 60 else ago(value)


def milliseconds(value: float) -> str:
    """Show a short duration."""
    return f"{value * 1000:.1f} ms"


def moment(at: float) -> str:
    """Show a time of day; with its date when that is not today's."""
    when = datetime.fromtimestamp(at).astimezone()
    today = datetime.now().astimezone().date()
    return f"{when:%H:%M:%S}" if when.date() == today else f"{when:%Y-%m-%d %H:%M}"


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Show names and values, one below the other."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(f"  {name}", Text(value))
    return table
