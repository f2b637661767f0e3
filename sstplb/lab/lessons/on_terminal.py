"""A lesson on a terminal: block by block, as it happens."""

import re
import textwrap
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule

from sstplb.lab.lessons import text_picture
from sstplb.lab.lessons.page import (
    Anatomy,
    Bars,
    Block,
    Heading,
    Lesson,
    Listing,
    Page,
    Prose,
    Sequence,
    Table,
)

WIDTH_MIN = 72
"""Narrower terminals fold the lines."""
_BOLD = re.compile(r"\*\*(.+?)\*\*")
_CODE = re.compile(r"`(.+?)`")
_TIMED = re.compile(r"^( *\d+\.\d )")


class Terminal:
    """Writes to a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = max(WIDTH_MIN, min(text_picture.WIDTH, console.width))

    def begin(self, lesson: Lesson) -> None:
        """Show what stands before the run."""
        self._title(lesson)
        for text in lesson.paragraphs:
            self._paragraph(text)

    def _title(self, lesson: Lesson) -> None:
        title = Rule(f"[b]Lesson {lesson.number}. {escape(lesson.title)}[/b]")
        self._console.print(title, width=self._width)

    def block(self, block: Block) -> None:
        """Show one block."""
        match block:
            case Prose(text):
                self._paragraph(text)
            case Heading(text):
                self._lines([f"[b cyan]▌ {escape(text)}[/b cyan]"])
            case Sequence():
                self._caption(block.title, "times in ms, from this run")
                self._lines(_coloured(text_picture.sequence(block, self._width)))
            case Anatomy():
                self._caption(block.title, f"{block.size} bytes")
                self._lines(map(_marked, text_picture.anatomy(block, self._width)))
            case Bars():
                self._caption(block.title, "measured on this run")
                self._lines(map(escape, text_picture.bars(block, self._width)))
                self._lines(
                    [
                        f"[dim]{escape(line)}[/dim]"
                        for line in textwrap.wrap(block.method, self._width)
                    ]
                )
            case Table():
                self._caption(block.title)
                self._lines(map(escape, text_picture.table(block)))
            case Listing():
                self._caption(block.title)
                self._lines(f"  [cyan]{escape(line)}[/cyan]" for line in block.lines)

    def end(self, lesson: Lesson, page: Page) -> None:
        """Show what the run has proved, and what it has left to the student."""
        self._lines(["[b cyan]▌ What was claimed, and how it was checked[/b cyan]"])
        for claim in page.claims:
            mark = "[green]✓[/green]" if claim.holds else "[red]✗[/red]"
            self._hanging(f"{mark} ", claim.sentence)
            seen = "seen" if claim.holds else "[red]but[/red]"
            self._hanging("    ", f"checked: {claim.how}", style="dim")
            self._hanging("    ", f"{seen}: {escape(claim.evidence)}", style="dim", is_markup=True)
        if page.figures:
            self._lines(["", "[b cyan]▌ Measured on this run[/b cyan]"])
            for figure in page.figures:
                self._hanging("  ", f"{figure.name}: **{figure.value}** ({figure.method})")
        self._lines(["", "[b cyan]▌ Question[/b cyan]"])
        self._paragraph(lesson.question)
        word = "[green]shown[/green]" if page.ok else "[red]NOT shown[/red]"
        self._lines(
            [
                f"[dim]The answer: sstplb lesson answer {lesson.number}[/dim]",
                f"Lesson {lesson.number}: {word} in {page.seconds:.1f} s",
                "",
            ]
        )

    def answer(self, lesson: Lesson) -> None:
        """Show a lesson's question and its answer."""
        self._title(lesson)
        self._paragraph(lesson.question)
        self._paragraph(lesson.answer)

    def _paragraph(self, text: str) -> None:
        self._lines([_inline(line) for line in textwrap.wrap(text, self._width)])
        self._console.print()

    def _caption(self, title: str, more: str = "") -> None:
        self._console.print(f"[b]{_inline(title)}[/b]" + (f" [dim]({more})[/dim]" if more else ""))

    def _hanging(self, first: str, text: str, style: str = "", *, is_markup: bool = False) -> None:
        margin = " " * len(re.sub(r"\[.*?\]", "", first))
        lines = textwrap.wrap(text, self._width - len(margin))
        for number, line in enumerate(lines):
            shown = line if is_markup else _inline(line)
            shown = f"[{style}]{shown}[/{style}]" if style else shown
            self._console.print((margin if number else first) + shown, soft_wrap=True)

    def _lines(self, lines: Iterable[str]) -> None:
        count = 0
        for line in lines:
            self._console.print(line, soft_wrap=True)
            count += 1
        if count > 1:
            self._console.print()


def _inline(text: str) -> str:
    return _CODE.sub(r"[cyan]\1[/cyan]", _BOLD.sub(r"[b]\1[/b]", escape(text)))


def _marked(line: str) -> str:
    """Colour the field that matters."""
    text = escape(line)
    return f"[yellow]{text}[/yellow]" if "◀" in line else text


def _coloured(lines: Iterable[str]) -> Iterable[str]:
    """Dim the times, redden what was refused."""
    for line in lines:
        text = _TIMED.sub(r"[dim]\1[/dim]", escape(line))
        yield f"[red]{text}[/red]" if "✗" in line else text
