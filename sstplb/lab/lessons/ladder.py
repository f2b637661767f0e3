"""All lessons, in the order in which they are climbed, and how they are run."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from sstplb.lab.lessons import (
    a_call,
    a_lying_check,
    affinity,
    drain,
    hundred_lines,
    offload,
    passthrough,
    reencrypt,
    rolling,
    wrong_hash,
)
from sstplb.lab.lessons.page import Block, Lesson, Page
from sstplb.lab.lessons.scene import Scene
from sstplb.net.call import now_s

LADDER: tuple[Lesson, ...] = (
    a_call.LESSON,
    a_lying_check.LESSON,
    passthrough.LESSON,
    offload.LESSON,
    wrong_hash.LESSON,
    reencrypt.LESSON,
    affinity.LESSON,
    drain.LESSON,
    rolling.LESSON,
    hundred_lines.LESSON,
)


def find(number: int) -> Lesson | None:
    """Return the lesson of that number."""
    return next((lesson for lesson in LADDER if lesson.number == number), None)


async def run(
    lesson: Lesson, *, broken: str = "", on_block: Callable[[Block], None] | None = None
) -> Page:
    """Run a lesson on a fresh scene; return what it has shown."""
    page, began = Page(on_block), now_s()
    with tempfile.TemporaryDirectory(prefix=f"sstplb-lesson-{lesson.number}-") as name:
        async with Scene(Path(name), broken).running() as scene:
            await lesson.play(scene, page)
    page.seconds = now_s() - began
    return page
