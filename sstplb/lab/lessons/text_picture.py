"""Diagrams, bars and bytes as text, for a terminal and for Markdown.

A sequence diagram is a grid of characters: a column for the time, then one lifeline per party. An
arrow is one line, with its words in it where they fit, else above it; ``═`` is what travels inside
TLS that does not end there, ``✗`` marks a refusal.
"""

import textwrap

from sstplb.lab.lessons.page import Anatomy, Arrow, Bars, Line, Remark, Sequence, Table

WIDTH = 100
TIME_COLUMNS = 9
GAP_MAX = 40
BYTES_A_LINE = 16
BAR_COLUMNS = 46
SHADES = "█▒░▓"


def sequence(diagram: Sequence, width: int = WIDTH) -> list[str]:
    """Return a diagram as lines of text, ``width`` characters long at most."""
    canvas = _Canvas(diagram.lifelines, width)
    lines = [canvas.names(), canvas.blank()]
    for row in diagram.rows:
        lines += canvas.arrow(row) if isinstance(row, Arrow) else canvas.remark(row)
    lines.append(canvas.blank())
    return [line.rstrip() for line in lines]


class _Canvas:
    """Lifelines at fixed columns."""

    def __init__(self, lifelines: tuple[str, ...], width: int) -> None:
        side = max(len(lifelines[-1]) // 2 + 1, 6)
        room = width - TIME_COLUMNS - len(lifelines[0]) // 2 - side - 2
        gap = min(GAP_MAX, room // max(1, len(lifelines) - 1))
        first = TIME_COLUMNS + len(lifelines[0]) // 2 + 2
        self._columns = {name: first + gap * n for n, name in enumerate(lifelines)}
        self._width = max(width, first + gap * (len(lifelines) - 1) + side)

    def names(self) -> str:
        line = [" "] * self._width
        line[TIME_COLUMNS - 4 : TIME_COLUMNS - 2] = "ms"
        for name, column in self._columns.items():
            start = column - len(name) // 2
            line[start : start + len(name)] = name
        return "".join(line)

    def blank(self) -> str:
        return "".join(self._lifelines())

    def arrow(self, row: Arrow) -> list[str]:
        lines = []
        left, right = sorted((self._columns[row.source], self._columns[row.target]))
        inside, text = right - left - 1, row.text
        if len(text) > inside - 6:
            above = self._lifelines()
            for part in textwrap.wrap(text, inside - 2):
                above = self._lifelines()
                start = left + 1 + (inside - len(part)) // 2
                above[start : start + len(part)] = part
                lines.append("".join(above))
            text = ""
        shaft = "═" if row.line is Line.SEALED else "─"
        body = f" {text} ".center(inside, shaft) if text else shaft * inside
        goes_right = self._columns[row.source] == left
        head = "✗" if row.line is Line.BAD else ("▶" if goes_right else "◀")
        body = body[:-1] + head if goes_right else head + body[1:]
        line = self._lifelines()
        line[left + 1 : right] = body
        self._stamp(line, row.at_s)
        return [*lines, "".join(line)]

    def remark(self, row: Remark) -> list[str]:
        column = self._columns[row.place]
        room = self._width - column - 4
        on_left = room < 30
        if on_left:
            room = column - TIME_COLUMNS - 4
        mark = "✗" if row.is_bad else "●"
        lines = []
        for number, part in enumerate(textwrap.wrap(row.text, room)):
            line = self._lifelines()
            if number == 0:
                line[column] = mark
                self._stamp(line, row.at_s)
            start = column - 2 - len(part) if on_left else column + 2
            line[start : start + len(part)] = part
            if on_left:
                line[start - 1] = " "
            lines.append("".join(line))
        return lines

    def _lifelines(self) -> list[str]:
        line = [" "] * self._width
        for column in self._columns.values():
            line[column] = "│"
        return line

    def _stamp(self, line: list[str], at_s: float) -> None:
        stamp = f"{at_s * 1000:{TIME_COLUMNS - 2}.1f}"
        line[: len(stamp)] = stamp


def anatomy(bytes_: Anatomy, width: int = WIDTH) -> list[str]:
    """Return annotated bytes: offset, hex, name, meaning."""
    lines, at = [], 0
    for one in bytes_.fields:
        text = f"{one.name}: {one.meaning}" if one.meaning else one.name
        mark = "◀ " if one.matters else "  "
        notes = textwrap.wrap(mark + text, width - 56, subsequent_indent="  ") or [""]
        data = one.data
        rows = [data[n : n + BYTES_A_LINE] for n in range(0, len(data), BYTES_A_LINE)] or [b""]
        for number in range(max(len(rows), len(notes))):
            chunk = rows[number] if number < len(rows) else b""
            offset = f"{at + number * BYTES_A_LINE:04x}" if chunk else "    "
            note = notes[number] if number < len(notes) else ""
            lines.append(f"{offset}  {chunk.hex(' '):<47}  {note}".rstrip())
        at += len(data) + one.elided
    return lines


def bars(figure: Bars, width: int = WIDTH) -> list[str]:
    """Return bars, drawn."""
    columns = BAR_COLUMNS * width // WIDTH
    longest = max((bar.total for bar in figure.bars), default=0.0) or 1.0
    names = list(dict.fromkeys(name for bar in figure.bars for name, _ in bar.parts))
    margin = max(len(bar.name) for bar in figure.bars)
    lines = []
    for bar in figure.bars:
        drawn = ""
        for name, value in bar.parts:
            drawn += shade(names, name) * round(columns * value / longest)
        amount = f"{bar.total:.4g} {figure.unit}"
        split = ", ".join(f"{name} {value:.4g}" for name, value in bar.parts)
        lines.append(f"{bar.name:<{margin}}  {drawn} {amount}" + (
            f" ({split})" if len(bar.parts) > 1 else ""
        ))  # fmt: skip
    if len(names) > 1:
        legend = "   ".join(f"{shade(names, name)} {name}" for name in names)
        lines.append(f"{'':<{margin}}  {legend}")
    return lines


def shade(names: list[str], name: str) -> str:
    """Return the character a part is drawn with."""
    return SHADES[names.index(name) % len(SHADES)]


def table(grid: Table) -> list[str]:
    """Return a table as aligned text."""
    rows = [grid.columns, *grid.rows]
    widths = [max(len(row[n]) for row in rows) for n in range(len(grid.columns))]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows]
    return [lines[0], "  ".join("─" * width for width in widths), *lines[1:]]
