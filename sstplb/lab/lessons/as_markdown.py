"""A lesson as Markdown for ``docs/lessons/``, with its pictures beside it; and the two index pages.

Everything is written by a run. What varies from run to run (times, nonces, hashes, figures) says
so. ``skeleton`` is the part of a page that does not vary: a test compares it with a fresh run.
"""

import re
from collections.abc import Iterable

from sstplb.lab.lessons import svg_picture, text_picture
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

WRITTEN = "Written by `make lessons`: everything below happened on that run. Do not edit."


def document(lesson: Lesson, page: Page) -> tuple[str, dict[str, str]]:
    """Return the page of a lesson that was run, and its pictures by file name."""
    pictures: dict[str, str] = {}
    parts = [
        f"# {lesson.number}. {lesson.title}",
        f"*{WRITTEN}* Try it: `sstplb lesson run {lesson.number}`. [All lessons](README.md)",
        *lesson.paragraphs,
        *(_block(block, lesson, pictures) for block in page.blocks),
        "## What was claimed, and how it was checked",
        *(
            f"- {'✓' if claim.holds else '✗ **not shown**:'} **{claim.sentence}.**  \n"
            f"  Checked: {claim.how}. Seen on this run: {_code(claim.evidence)}"
            for claim in page.claims
        ),
    ]
    if page.figures:
        parts += [
            "## Measured on this run",
            _table(("what", "figure", "how"), [(f.name, f.value, f.method) for f in page.figures]),
        ]
    parts += [
        "## Question",
        lesson.question,
        f"<details><summary>The answer</summary>\n\n{lesson.answer}\n\n</details>",
    ]
    return "\n\n".join(parts) + "\n", pictures


def index(shown: Iterable[tuple[Lesson, Page]]) -> str:
    """Return the page that leads to all lessons."""
    rows = [
        (
            f"[{lesson.number}. {lesson.title}]({lesson.file_name}.md)",
            f"{page.seconds:.1f} s",
            "; ".join(f"{f.name}: {f.value}" for f in page.figures[:2]),
        )
        for lesson, page in shown
    ]
    return (
        "\n\n".join(
            (
                "# The lessons",
                f"*{WRITTEN}*",
                "A ladder to climb alone in an afternoon. Each lesson runs for real on one "
                "machine, in seconds: simulated RRAS servers, real calls, a real balancer "
                "process. It draws what happened, takes the bytes that matter apart, and checks "
                "every claim it makes.",
                "    sstplb lesson list\n"
                "    sstplb lesson run 1\n"
                "    sstplb lesson answer 1               # after you have thought about it\n"
                "    sstplb lesson run all --html report  # keep it, with pictures",
                _table(("lesson", "took", "measured on this run"), rows),
                "For whoever teaches: [what each lesson proves, and how to break it on "
                "purpose](instructor.md).",
            )
        )
        + "\n"
    )


def instructor(ladder: Iterable[Lesson]) -> str:
    """Return the instructor's page."""
    parts = [
        "# For the instructor",
        "*Written by `make lessons`, from the lessons themselves. Do not edit.*",
        "Each lesson proves something, and each can be broken on purpose: then its claims must "
        "notice, the command says which, and ends with exit status 1. The tests of sstplb break "
        "each lesson in each of these ways. [All lessons](README.md)",
    ]
    for lesson in ladder:
        parts += [
            f"## {lesson.number}. {lesson.title}",
            f"**Proves.** {lesson.proves}",
            f"**Question.** {lesson.question}",
            f"<details><summary>The answer</summary>\n\n{lesson.answer}\n\n</details>",
        ]
        for way in lesson.breaks:
            claims = "\n".join(f"- {sentence} …" for sentence in way.fails)
            parts.append(
                f"**Break it:** `sstplb lesson run {lesson.number} --break {way.name}`: "
                f"{way.what}. Then {way.then}. No longer shown:\n\n{claims}"
            )
    return "\n\n".join(parts) + "\n"


def skeleton(text: str) -> list[str]:
    """Return what of a page does not vary between runs: titles, claims, pictures, fields."""
    kept = ("#", "![", "- ✓", "- ✗", "|", "**")
    return [_VARYING.sub("·", line) for line in text.splitlines() if line.startswith(kept)]


_VARYING = re.compile(r"\|.*|\(.*?\)|`.*?`|\d+(\.\d+)?")


def _block(block: Block, lesson: Lesson, pictures: dict[str, str]) -> str:
    match block:
        case Prose(text):
            return text
        case Heading(text):
            return f"## {text}"
        case Sequence():
            drawn = svg_picture.sequence(block)
            return _picture(
                block.title, drawn, lesson, pictures, "times in ms, measured on this run"
            )
        case Bars():
            more = f"measured on this run. {block.method}"
            return _picture(block.title, svg_picture.bars(block), lesson, pictures, more)
        case Anatomy():
            title = f"**{block.title}** ({block.size} bytes, as on this run)"
            return f"{title}\n\n{_fence(text_picture.anatomy(block))}"
        case Table():
            return f"**{block.title}**\n\n{_table(block.columns, block.rows)}"
        case Listing():
            return f"**{block.title}**\n\n{_fence(block.lines)}"


def _picture(title: str, drawn: str, lesson: Lesson, pictures: dict[str, str], more: str) -> str:
    name = f"{lesson.file_name}-{len(pictures) + 1}.svg"
    pictures[name] = drawn
    return f"![{title}](pictures/{name})\n\n*{title}: {more}*"


def _fence(lines: Iterable[str]) -> str:
    return "```text\n" + "\n".join(lines) + "\n```"


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(columns)
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in (columns, *cells)]
    return "\n".join((lines[0], "|" + "---|" * len(columns), *lines[1:]))


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39))}`"
