"""What a lesson is, and the page it fills.

A ``Lesson`` is what is known before it runs: why one should care, the question at its end, how to
break it on purpose. A ``Page`` is what a run has shown, block by block, in the order in which it
was shown. Pictures are values here (who spoke to whom, which bytes mean what, how long each bar
is); ``picture.py`` and the writers draw them.

Texts may hold ``**bold**`` and `` `code` ``, which every writer understands.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sstplb.lab.lessons.scene import Scene


class Line(Enum):
    """How an arrow is drawn."""

    CLEAR = "clear"
    """Readable by whoever carries it."""
    SEALED = "sealed"
    """Inside TLS that does not end here."""
    BAD = "bad"
    """A refusal, an abort."""


@dataclass(frozen=True, slots=True)
class Arrow:
    """Something said, from one lifeline to another; those between carried it."""

    at_s: float
    """Seconds since the diagram's beginning."""
    source: str
    target: str
    text: str
    line: Line = Line.CLEAR


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that happened at one lifeline."""

    at_s: float
    place: str
    text: str
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class Prose:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Heading:
    """The title of a part."""

    text: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence diagram of what happened."""

    title: str
    lifelines: tuple[str, ...]
    rows: tuple[Arrow | Remark, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """Some bytes and what they mean."""

    data: bytes
    name: str
    meaning: str = ""
    matters: bool = False
    """Whether this is what the student should look at."""
    elided: int = 0
    """How many bytes after ``data`` belong to it too, and are left out."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Bytes, annotated field by field."""

    title: str
    fields: tuple[Field, ...]

    @property
    def size(self) -> int:
        """All of them, in bytes, those left out included."""
        return sum(len(one.data) + one.elided for one in self.fields)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in one or more parts that lie end to end."""

    name: str
    parts: tuple[tuple[str, float], ...]

    @property
    def total(self) -> float:
        """Its whole length."""
        return sum(value for _, value in self.parts)


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars beside each other, all in one unit."""

    title: str
    unit: str
    bars: tuple[Bar, ...]
    method: str
    """How it was measured."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows and columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Lines as a program wrote them, or a command to type."""

    title: str
    lines: tuple[str, ...]


Block = Prose | Heading | Sequence | Anatomy | Bars | Table | Listing


@dataclass(frozen=True, slots=True)
class Claim:
    """Something the lesson says, how that was checked, and whether it held."""

    sentence: str
    how: str
    """The check, in words."""
    holds: bool
    evidence: str
    """What was seen on this run."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that was measured on this run."""

    name: str
    value: str
    method: str


@dataclass(frozen=True, slots=True)
class Break:
    """A way to break a lesson on purpose: its claims must notice."""

    name: str
    """For ``--break``."""
    what: str
    """What is made otherwise."""
    then: str
    """What happens instead, and why."""
    fails: tuple[str, ...]
    """Sentences of claims that do not hold any more, or their beginnings."""


@dataclass(slots=True)
class Page:
    """What one run has shown."""

    on_block: Callable[[Block], None] | None = None
    """Told of each block when it is there, for who watches."""
    blocks: list[Block] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    seconds: float = 0.0
    """How long the run took."""

    def show(self, block: Block) -> None:
        """Add a block."""
        self.blocks.append(block)
        if self.on_block is not None:
            self.on_block(block)

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self.show(Prose(" ".join(text.split())))

    def part(self, title: str) -> None:
        """Begin a part."""
        self.show(Heading(title))

    def claim(self, sentence: str, how: str, *, holds: bool, evidence: str) -> None:
        """Note a claim, how it was checked, and whether it held."""
        self.claims.append(Claim(sentence, how, bool(holds), evidence))

    def measured(self, name: str, value: str, method: str) -> None:
        """Note a figure."""
        self.figures.append(Figure(name, value, method))

    @property
    def ok(self) -> bool:
        """Whether everything claimed was shown; a page without claims has shown nothing."""
        return bool(self.claims) and all(claim.holds for claim in self.claims)


@dataclass(frozen=True, slots=True)
class Lesson:
    """One rung of the ladder."""

    number: int
    slug: str
    title: str
    why: str
    """Motivation: a few paragraphs, with empty lines between them."""
    play: "Callable[[Scene, Page], Awaitable[None]]"
    question: str
    answer: str
    proves: str
    """For the instructor: what a run proves, in a sentence or two."""
    breaks: tuple[Break, ...]

    @property
    def file_name(self) -> str:
        """The name of its page, without ending."""
        return f"{self.number:02d}-{self.slug}"

    @property
    def paragraphs(self) -> list[str]:
        """The motivation, paragraph by paragraph, each one line."""
        return [" ".join(part.split()) for part in self.why.strip().split("\n\n")]
