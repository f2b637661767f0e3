"""A lesson as one HTML file: pictures drawn in it, nothing fetched from anywhere, no script."""

import re
from collections.abc import Iterable
from html import escape

from sstplb import __version__
from sstplb.lab.lessons import svg_picture
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

_BOLD = re.compile(r"\*\*(.+?)\*\*")
_CODE = re.compile(r"`(.+?)`")

STYLE = """
:root { --ink: #22303c; --soft: #66747f; --line: #d5dde2; --tint: #f3f6f8; --blue: #1f5f8b;
  --good: #2e6b3e; --bad: #b3261e; --mark: #fff3d6; }
* { box-sizing: border-box; }
body { font: 16.5px/1.58 'DejaVu Sans', 'Segoe UI', Helvetica, Arial, sans-serif; color: var(--ink);
  max-width: 940px; margin: 0 auto; padding: 28px 24px 80px; background: #fff; }
h1 { font-size: 30px; line-height: 1.2; margin: 6px 0 18px; }
h2 { font-size: 20px; margin: 44px 0 12px; padding-bottom: 6px;
  border-bottom: 2px solid var(--line); }
nav, .foot { font-size: 14px; color: var(--soft); }
a { color: var(--blue); }
p { margin: 0 0 14px; max-width: 74ch; }
code { font: 0.9em 'DejaVu Sans Mono', Consolas, monospace; background: var(--tint);
  padding: 1px 4px; border-radius: 3px; }
figure { margin: 18px 0 26px; border: 1px solid var(--line); border-radius: 6px; overflow-x: auto; }
figcaption { padding: 9px 14px; background: var(--tint); border-bottom: 1px solid var(--line);
  font-weight: 600; font-size: 15px; }
figcaption span { font-weight: 400; color: var(--soft); }
figure svg { display: block; max-width: 100%; height: auto; }
figure p { margin: 0; padding: 4px 14px 10px; font-size: 14px; color: var(--soft);
  max-width: none; }
pre { margin: 0; padding: 10px 14px; font: 13.5px/1.5 'DejaVu Sans Mono', Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; }
th, td { text-align: left; vertical-align: top; padding: 5px 12px;
  border-top: 1px solid var(--line); }
tr:first-child > * { border-top: 0; }
th { background: var(--tint); font-weight: 600; }
td b { white-space: nowrap; }
.bytes td { padding: 2px 12px; font-size: 14px; }
.bytes .hex { font: 13px/1.55 'DejaVu Sans Mono', Consolas, monospace; white-space: pre; }
.bytes .at { color: var(--soft); }
.bytes .matters td { background: var(--mark); }
.claims { list-style: none; padding: 0; margin: 0; }
.claims li { border: 1px solid var(--line); border-left: 5px solid var(--good); border-radius: 4px;
  padding: 9px 14px; margin: 0 0 10px; }
.claims li.bad { border-left-color: var(--bad); }
.claims small { display: block; color: var(--soft); font-size: 14px; overflow-wrap: anywhere; }
.verdict { display: inline-block; padding: 3px 12px; border-radius: 12px; color: #fff;
  font-size: 14px; background: var(--good); }
.verdict.bad { background: var(--bad); }
details { border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px; }
summary { cursor: pointer; font-weight: 600; color: var(--blue); }
details p { margin: 10px 0 0; }
"""


def document(lesson: Lesson, page: Page, ladder: Iterable[Lesson]) -> str:
    """Return the page of one lesson that was run."""
    body = [
        _ladder(ladder, lesson),
        f"<h1>{lesson.number}. {escape(lesson.title)}</h1>",
        *(f"<p>{inline(text)}</p>" for text in lesson.paragraphs),
        *map(_block, page.blocks),
        "<h2>What was claimed, and how it was checked</h2>",
        _claims(page),
    ]
    if page.figures:
        rows = [(f.name, f"**{f.value}**", f.method) for f in page.figures]
        body += [
            "<h2>Measured on this run</h2>",
            _figure("", _rows(("what", "figure", "how"), rows)),
        ]
    body += [
        "<h2>Question</h2>",
        f"<p>{inline(lesson.question)}</p>",
        f"<details><summary>The answer</summary><p>{inline(lesson.answer)}</p></details>",
    ]
    return _html(f"Lesson {lesson.number}. {lesson.title}", body)


def index(shown: Iterable[tuple[Lesson, Page]]) -> str:
    """Return the page that leads to all lessons that were run."""
    rows = [
        (
            f'<a href="{lesson.file_name}.html">{lesson.number}. {escape(lesson.title)}</a>',
            _verdict(page),
            f"{page.seconds:.1f}&nbsp;s",
            "; ".join(f"{escape(f.name)}: <b>{escape(f.value)}</b>" for f in page.figures[:2]),
        )
        for lesson, page in shown
    ]
    cells = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
    head = "".join(f"<th>{name}</th>" for name in ("lesson", "", "took", "measured on this run"))
    body = [
        "<h1>SSTP and its balancer: the lessons</h1>",
        "<p>Each of these ran for real, on one machine. Pictures, bytes and figures are what "
        "happened on that run.</p>",
        f"<figure><table><tr>{head}</tr>{cells}</table></figure>",
    ]
    return _html("The lessons", body)


def inline(text: str) -> str:
    """Return text with its bold and code."""
    return _CODE.sub(r"<code>\1</code>", _BOLD.sub(r"<b>\1</b>", escape(text)))


def _block(block: Block) -> str:
    match block:
        case Prose(text):
            return f"<p>{inline(text)}</p>"
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Sequence():
            return _figure(block.title, svg_picture.sequence(block), "times in ms, from this run")
        case Anatomy():
            return _figure(block.title, _bytes(block), f"{block.size} bytes")
        case Bars():
            drawn = svg_picture.bars(block) + f"<p>{escape(block.method)}</p>"
            return _figure(block.title, drawn, "measured on this run")
        case Table():
            return _figure(block.title, _rows(block.columns, block.rows))
        case Listing():
            return _figure(block.title, f"<pre>{escape(chr(10).join(block.lines))}</pre>")


def _figure(title: str, drawn: str, more: str = "") -> str:
    note = f" <span>· {escape(more)}</span>" if more else ""
    caption = f"<figcaption>{inline(title)}{note}</figcaption>" if title else ""
    return f"<figure>{caption}{drawn}</figure>"


def _bytes(bytes_: Anatomy) -> str:
    rows, at = [], 0
    for one in bytes_.fields:
        lines = [one.data[n : n + 16].hex(" ") for n in range(0, len(one.data), 16)]
        rows.append(
            f'<tr{" class=matters" if one.matters else ""}><td class="hex at">{at:04x}</td>'
            f'<td class="hex">{chr(10).join(lines)}</td><td><b>{escape(one.name)}</b></td>'
            f"<td>{inline(one.meaning)}</td></tr>"
        )
        at += len(one.data) + one.elided
    return f'<table class="bytes">{"".join(rows)}</table>'


def _rows(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{inline(c)}</td>' for c in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _claims(page: Page) -> str:
    items = [
        f"<li{'' if claim.holds else ' class=bad'}>{'✓' if claim.holds else '✗'} "
        f"{inline(claim.sentence)}<small>checked: {inline(claim.how)}</small>"
        f"<small>seen on this run: {escape(claim.evidence)}</small></li>"
        for claim in page.claims
    ]
    return f'{_verdict(page)}<p></p><ul class="claims">{"".join(items)}</ul>'


def _verdict(page: Page) -> str:
    kind, word = ("", "shown") if page.ok else (" bad", "not shown")
    return f'<span class="verdict{kind}">{word}</span>'


def _ladder(ladder: Iterable[Lesson], here: Lesson) -> str:
    steps = [
        f"<b>{one.number}</b>"
        if one is here
        else f'<a href="{one.file_name}.html">{one.number}</a>'
        for one in ladder
    ]
    return f'<nav><a href="index.html">The lessons</a> &nbsp; {" · ".join(steps)}</nav>'


def _html(title: str, body: Iterable[str]) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f'\n<p class="foot">sstplb {__version__}. Written by the lesson itself.</p>\n'
        "</body>\n</html>\n"
    )
