"""Diagrams and bars as SVG: self-contained, no script, no outside asset.

Pictures carry their own white ground, so that they can stand on any page.
"""

import textwrap
from html import escape
from types import MappingProxyType

from sstplb.lab.lessons.page import Arrow, Bars, Line, Remark, Sequence

WIDTH = 880
TIME_PX = 84
ROW_PX = 34
REMARK_LINE_PX = 17
TOP_PX = 62
CHAR_PX = 6.9
"""How wide a character of 12.5 px is taken to be."""
COLOURS = ("#1f5f8b", "#e0962b", "#7a9e3f", "#8f5a99")
INK, PALE, BAD, GOOD, GROUND = "#22303c", "#b9c4cc", "#b3261e", "#2e6b3e", "#ffffff"
_STROKES = MappingProxyType({Line.CLEAR: INK, Line.SEALED: "#1f5f8b", Line.BAD: BAD})
FONT = "font-family=\"'DejaVu Sans', 'Segoe UI', Helvetica, Arial, sans-serif\""


def sequence(diagram: Sequence) -> str:
    """Return a diagram as an SVG document."""
    room = WIDTH - TIME_PX - 90
    gap = room / max(1, len(diagram.lifelines) - 1)
    columns = {name: TIME_PX + 50 + gap * n for n, name in enumerate(diagram.lifelines)}
    parts: list[str] = []
    y: float = TOP_PX
    for row in diagram.rows:
        drawn, height = (
            _arrow(row, columns, y) if isinstance(row, Arrow) else _remark(row, columns, y)
        )
        stamp = f"{row.at_s * 1000:.1f}"
        at = y + height - 11 if isinstance(row, Arrow) else y + 17
        parts.append(_text(TIME_PX - 22, at, stamp, size=11, anchor="end", fill="#66747f"))
        parts += drawn
        y += height
    bottom = y + 14
    ground = [_text(TIME_PX - 22, 30, "ms", size=11, anchor="end", fill="#66747f")]
    for name, x in columns.items():
        wide = max(64.0, len(name) * 8.0 + 22)
        ground.append(
            f'<line x1="{x:.1f}" y1="42" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{PALE}" '
            'stroke-width="1.5"/>'
            f'<rect x="{x - wide / 2:.1f}" y="12" width="{wide:.1f}" height="30" rx="5" '
            f'fill="#eef3f6" stroke="{INK}"/>'
        )
        ground.append(_text(x, 32, name, size=14, anchor="middle", weight="600"))
    return _document(diagram.title, bottom + 10, [*ground, *parts])


def _arrow(row: Arrow, columns: dict[str, float], y: float) -> tuple[list[str], float]:
    start, end = columns[row.source], columns[row.target]
    colour = _STROKES[row.line]
    room = abs(end - start) - 24
    lines = textwrap.wrap(row.text, max(12, int(room / CHAR_PX))) or [""]
    height = ROW_PX + REMARK_LINE_PX * (len(lines) - 1)
    at = y + height - 14
    side = 1 if end > start else -1
    tip = end - side * 2
    weight = 3.2 if row.line is Line.SEALED else 1.8
    parts = [
        f'<line x1="{start + side * 3:.1f}" y1="{at:.1f}" x2="{tip - side * 7:.1f}" y2="{at:.1f}" '
        f'stroke="{colour}" stroke-width="{weight}"'
        + (' stroke-dasharray="6 4"' if row.line is Line.BAD else "")
        + "/>",
        f'<path d="M{tip:.1f} {at:.1f} l{-side * 10} -5 v10 z" fill="{colour}"/>',
    ]
    if row.line is Line.SEALED:
        parts.append(
            f'<line x1="{start + side * 3:.1f}" y1="{at:.1f}" x2="{tip - side * 9:.1f}" '
            f'y2="{at:.1f}" stroke="#fff" stroke-width="1"/>'
        )
    middle = (start + end) / 2
    for number, line in enumerate(lines):
        baseline = at - 6 - REMARK_LINE_PX * (len(lines) - 1 - number)
        parts.append(_halo(middle, baseline, line))
        parts.append(_text(middle, baseline, line, anchor="middle", fill=colour))
    return parts, height


def _remark(row: Remark, columns: dict[str, float], y: float) -> tuple[list[str], float]:
    x, colour = columns[row.place], BAD if row.is_bad else GOOD
    room = WIDTH - x - 30
    on_left = room < 240
    if on_left:
        room = x - TIME_PX - 24
    lines = textwrap.wrap(row.text, max(20, int(min(room, 430) / CHAR_PX)))
    wide = max(len(line) for line in lines) * CHAR_PX + 18
    height = REMARK_LINE_PX * len(lines) + 16
    left = x - 12 - wide if on_left else x + 12
    tint = "#fbeceb" if row.is_bad else "#edf5ef"
    parts = [
        f'<rect x="{left:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{height - 8}" rx="4" '
        f'fill="{tint}" stroke="{colour}"/>',
        f'<circle cx="{x:.1f}" cy="{y + height / 2 - 4:.1f}" r="4.5" fill="{colour}"/>',
    ]
    for number, line in enumerate(lines):
        parts.append(_text(left + 9, y + 17 + REMARK_LINE_PX * number, line, fill=INK))
    return parts, height + 2


def bars(figure: Bars) -> str:
    """Return bars as an SVG document."""
    longest = max((bar.total for bar in figure.bars), default=0.0) or 1.0
    names = list(dict.fromkeys(name for bar in figure.bars for name, _ in bar.parts))
    margin = 40 + max(len(bar.name) for bar in figure.bars) * 7.6
    room = WIDTH - margin - 150
    parts, y = [], 24.0
    for bar in figure.bars:
        parts.append(_text(margin - 12, y + 19, bar.name, size=13, anchor="end"))
        x = margin
        for name, value in bar.parts:
            wide = room * value / longest
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="28" '
                f'fill="{_colour(names, name)}"/>'
            )
            if wide > 46:
                inside = _text(x + wide / 2, y + 19, f"{value:.3g}", anchor="middle", fill="#fff")
                parts.append(inside)
            x += wide
        total = f"{bar.total:.4g} {figure.unit}"
        parts.append(_text(x + 8, y + 19, total, size=13, weight="600"))
        y += 42
    if len(names) > 1:
        x = margin
        for name in names:
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 4}" width="14" height="14" '
                f'fill="{_colour(names, name)}"/>'
            )
            parts.append(_text(x + 20, y + 16, name))
            x += 44 + len(name) * CHAR_PX
        y += 30
    return _document(figure.title, y + 8, parts)


def _colour(names: list[str], name: str) -> str:
    return COLOURS[names.index(name) % len(COLOURS)]


def _text(
    x: float, y: float, text: str, *, size: float = 12.5, anchor: str = "start",
    fill: str = INK, weight: str = "400",
) -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _halo(x: float, y: float, text: str) -> str:
    """Return a ground for words that lie over a lifeline."""
    wide = len(text) * CHAR_PX + 4
    return (
        f'<rect x="{x - wide / 2:.1f}" y="{y - 11:.1f}" width="{wide:.1f}" height="14" '
        f'fill="{GROUND}"/>'
    )


def _document(title: str, height: float, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}" height="{height:.0f}" role="img" {FONT}>\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="{GROUND}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
