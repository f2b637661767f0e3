"""The command ``sstplb lesson``: list, run, answer."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sstplb.control.ctl.group import console
from sstplb.control.run import ExitCode
from sstplb.lab import lifetime
from sstplb.lab.lessons import as_html, as_markdown, ladder
from sstplb.lab.lessons.on_terminal import Terminal
from sstplb.lab.lessons.page import Lesson, Page

app = typer.Typer(
    help="Learn SSTP and its balancers: lessons that run for real, on this machine alone.",
    no_args_is_help=True,
)
out = console(markup=True)

Which = Annotated[str, typer.Argument(help="A lesson's number, or all.", metavar="N|all")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command("list")
def list_lessons(as_json: Json = False) -> None:
    """List the lessons, in the order in which they are climbed."""
    if as_json:
        lessons = [
            {
                "number": lesson.number,
                "title": lesson.title,
                "proves": lesson.proves,
                "breaks": [way.name for way in lesson.breaks],
            }
            for lesson in ladder.LADDER
        ]
        out.print_json(json.dumps(lessons))
        return
    for lesson in ladder.LADDER:
        out.print(f"{lesson.number:>3}  {lesson.title}", markup=False, soft_wrap=True)
    out.print("\nBegin with: sstplb lesson run 1")


@app.command("run")
def run_lessons(
    which: Which,
    as_json: Json = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Keep a report there, with pictures.", metavar="DIR", readable=False),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Write the pages of the documentation.", metavar="DIR", readable=False),
    ] = None,
    broken: Annotated[
        str, typer.Option("--break", help="Break the lesson on purpose.", metavar="WAY")
    ] = "",
) -> None:
    """Run a lesson, or all: see it happen, and every claim checked.

    Exit codes: 0 only if every lesson showed what it claims; 1 one did not.
    """
    lessons = _chosen(which)
    known = [way.name for lesson in lessons for way in lesson.breaks]
    if broken and (len(lessons) > 1 or broken not in known):
        raise typer.BadParameter(f"--break: expected one lesson, and one of: {', '.join(known)}")
    screen = Console(quiet=True) if as_json else out
    shown = [(lesson, lifetime.run(_show(lesson, screen, broken))) for lesson in lessons]
    if html is not None:
        _keep_html(shown, html)
        screen.print(f"The report: {html / 'index.html'}", markup=False, soft_wrap=True)
    if markdown is not None:
        _keep_markdown(shown, markdown)
    ok = all(page.ok for _, page in shown)
    if as_json:
        out.print_json(json.dumps({"ok": ok, "lessons": [_facts(*one) for one in shown]}))
    elif len(shown) > 1:
        _sum_up(shown)
    raise typer.Exit(int(ExitCode.OK if ok else ExitCode.FAILED))


@app.command()
def answer(which: Which) -> None:
    """Show a lesson's question and its answer: think first."""
    for lesson in _chosen(which):
        Terminal(out).answer(lesson)


async def _show(lesson: Lesson, screen: Console, broken: str) -> Page:
    terminal = Terminal(screen)
    terminal.begin(lesson)
    page = await ladder.run(lesson, broken=broken, on_block=terminal.block)
    terminal.end(lesson, page)
    return page


def _sum_up(shown: list[tuple[Lesson, Page]]) -> None:
    for lesson, page in shown:
        mark = "[green]✓[/green]" if page.ok else "[red]✗[/red]"
        held = sum(claim.holds for claim in page.claims)
        out.print(
            f"{mark} {lesson.number:>2}. {lesson.title}: {held} of {len(page.claims)} claims, "
            f"{page.seconds:.1f} s",
            soft_wrap=True,
        )


def _chosen(which: str) -> list[Lesson]:
    if which == "all":
        return list(ladder.LADDER)
    found = ladder.find(int(which)) if which.isdecimal() else None
    if found is None:
        numbers = ", ".join(str(lesson.number) for lesson in ladder.LADDER)
        raise typer.BadParameter(f"expected all, or one of {numbers}; got {which!r}")
    return [found]


def _facts(lesson: Lesson, page: Page) -> dict[str, object]:
    return {
        "number": lesson.number,
        "title": lesson.title,
        "ok": page.ok,
        "seconds": round(page.seconds, 3),
        "claims": [
            {"claim": c.sentence, "checked": c.how, "holds": c.holds, "evidence": c.evidence}
            for c in page.claims
        ],
        "measured": [{"name": f.name, "value": f.value, "method": f.method} for f in page.figures],
    }


def _keep_html(shown: list[tuple[Lesson, Page]], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    lessons = [lesson for lesson, _ in shown]
    for lesson, page in shown:
        text = as_html.document(lesson, page, lessons)
        (directory / f"{lesson.file_name}.html").write_text(text, encoding="utf-8")
    (directory / "index.html").write_text(as_html.index(shown), encoding="utf-8")


def _keep_markdown(shown: list[tuple[Lesson, Page]], directory: Path) -> None:
    """Write the documentation's pages; the index pages only when all lessons were run."""
    (directory / "pictures").mkdir(parents=True, exist_ok=True)
    for lesson, page in shown:
        for old in (directory / "pictures").glob(f"{lesson.file_name}-*.svg"):
            old.unlink()
        text, pictures = as_markdown.document(lesson, page)
        (directory / f"{lesson.file_name}.md").write_text(text, encoding="utf-8")
        for name, drawn in pictures.items():
            (directory / "pictures" / name).write_text(drawn, encoding="utf-8")
    if len(shown) == len(ladder.LADDER):
        index, instructor = as_markdown.index(shown), as_markdown.instructor(ladder.LADDER)
        (directory / "README.md").write_text(index, encoding="utf-8")
        (directory / "instructor.md").write_text(instructor, encoding="utf-8")
