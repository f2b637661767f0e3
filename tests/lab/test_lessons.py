"""Each lesson shows what it claims, is noticed when it is broken, and is what docs/lessons says."""

import asyncio
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import uvloop
from typer.testing import CliRunner

from sstplb.lab.lessons import as_html, as_markdown, ladder
from sstplb.lab.lessons.commands import app
from sstplb.lab.lessons.page import Anatomy, Bars, Break, Lesson, Page, Sequence

DOCS = Path(__file__).parents[2] / "docs" / "lessons"
pytestmark = pytest.mark.timeout(240)  # seconds each; a busy machine makes them many
BREAKS = [(lesson, way) for lesson in ladder.LADDER for way in lesson.breaks]


def run(lesson: Lesson, broken: str = "") -> Page:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(ladder.run(lesson, broken=broken))


def not_shown(page: Page) -> list[str]:
    return [f"{claim.sentence}: {claim.evidence}" for claim in page.claims if not claim.holds]


@pytest.mark.parametrize("lesson", ladder.LADDER, ids=lambda one: one.file_name)
def test_a_lesson_shows_what_it_claims_and_what_its_page_says(lesson: Lesson) -> None:
    page = run(lesson)
    assert not not_shown(page)
    assert page.ok
    assert any(isinstance(block, Sequence | Bars) for block in page.blocks)
    assert page.figures, "a lesson measures something"
    text, pictures = as_markdown.document(lesson, page)
    written = (DOCS / f"{lesson.file_name}.md").read_text(encoding="utf-8")
    assert as_markdown.skeleton(text) == as_markdown.skeleton(written), "run: make lessons"
    assert all((DOCS / "pictures" / name).exists() for name in pictures)
    balanced(as_html.document(lesson, page, ladder.LADDER))


@pytest.mark.parametrize(
    ("lesson", "way"), BREAKS, ids=[f"{one.number}-{way.name}" for one, way in BREAKS]
)
def test_a_lesson_that_is_broken_on_purpose_is_not_shown(lesson: Lesson, way: Break) -> None:
    page = run(lesson, way.name)
    failed = not_shown(page)
    assert not page.ok
    for sentence in way.fails:
        assert any(line.startswith(sentence) for line in failed), f"{sentence} still held"
    assert len(failed) == len(way.fails), failed


def test_the_ladder_has_no_gap_and_every_rung_can_be_broken() -> None:
    assert [one.number for one in ladder.LADDER] == sorted({one.number for one in ladder.LADDER})
    for lesson in ladder.LADDER:
        assert lesson.breaks, f"lesson {lesson.number} cannot be broken on purpose"
        assert lesson.paragraphs
        assert lesson.question.rstrip().endswith("?")


def test_the_instructors_page_is_what_the_lessons_say() -> None:
    written = (DOCS / "instructor.md").read_text(encoding="utf-8")
    assert written == as_markdown.instructor(ladder.LADDER), "run: make lessons"


def test_the_pages_name_every_lesson_and_every_picture_is_used() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    pages = {f"{lesson.file_name}.md" for lesson in ladder.LADDER}
    assert all(name in index for name in pages)
    assert {p.name for p in DOCS.glob("*.md")} == pages | {"README.md", "instructor.md"}
    everything = "".join((DOCS / name).read_text(encoding="utf-8") for name in pages)
    for picture in (DOCS / "pictures").iterdir():
        assert f"pictures/{picture.name}" in everything


def test_the_command_lists_runs_answers_and_keeps_a_report(tmp_path: Path) -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["list"]).stdout
    assert all(lesson.title in listed for lesson in ladder.LADDER)
    done = runner.invoke(app, ["run", "1", "--json", "--html", str(tmp_path / "report")])
    assert done.exit_code == 0
    facts = json.loads(done.stdout)
    assert facts["ok"] is True
    assert facts["lessons"][0]["number"] == 1
    assert all(claim["holds"] for claim in facts["lessons"][0]["claims"])
    report = (tmp_path / "report" / "01-a-call-on-the-wire.html").read_text(encoding="utf-8")
    assert "<svg" in report
    assert "src=" not in report, "nothing from outside"
    assert runner.invoke(app, ["run", "1", "--break", "wrong-password"]).exit_code == 1
    assert runner.invoke(app, ["run", "1", "--break", "no-such-way"]).exit_code == 2
    assert runner.invoke(app, ["run", "99"]).exit_code == 2
    assert ladder.LADDER[0].answer[:30] in runner.invoke(app, ["answer", "1"]).stdout


def test_what_a_page_shows_of_bytes_are_the_bytes() -> None:
    page = run(ladder.LADDER[0])
    shown = [block for block in page.blocks if isinstance(block, Anatomy)]
    request = next(block for block in shown if block.title.startswith("CALL_CONNECT_REQUEST"))
    raw = b"".join(one.data for one in request.fields)
    assert raw == bytes.fromhex("1001000e00010001000100060001")
    names = {one.name: one.meaning for one in request.fields}
    assert names["message type"] == "CALL_CONNECT_REQUEST"
    assert names["protocol"] == "PPP"


def balanced(html: str) -> None:
    """Insist that every element that is opened is closed, in order."""
    stack: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert all(name != "src" for name, _ in attrs), "nothing is fetched"
            if tag != "meta":
                stack.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert stack.pop() == tag

    Parser().feed(html)
    assert not stack
