"""What keys do: a small machine. Pure: the state and a key in, the next state and a wish out.

==============  ==================================================================
↑ ↓, j k        choose a backend
d  e  c         drain it, enable it (after a question), check it now
s               sort calls: newest, longest, biggest
/               show only calls and events with these letters; Enter, Esc
p, space        hold the picture still
q               leave
==============  ==================================================================
"""

from dataclasses import dataclass, replace
from enum import Enum, StrEnum

from sstplb.control.ctl.names import BackendName

FILTER_CHARS_MAX = 64
UP, DOWN, ENTER, ESCAPE, BACKSPACE = "up", "down", "enter", "escape", "backspace"
"""Keys that are no character."""


class Sort(StrEnum):
    """In which order calls are listed."""

    NEWEST = "newest"
    LONGEST = "longest"
    BIGGEST = "biggest"

    @property
    def following(self) -> "Sort":
        """The one that comes after it."""
        kinds = list(Sort)
        return kinds[(kinds.index(self) + 1) % len(kinds)]


class Verb(StrEnum):
    """What can be done to a backend."""

    DRAIN = "drain"
    ENABLE = "enable"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class Order:
    """Something to do to a backend."""

    verb: Verb
    backend: BackendName


class Wish(Enum):
    """What the loop should do."""

    QUIT = "quit"
    LOOK = "look"
    """Look again at once: something else is to be shown."""


@dataclass(frozen=True, slots=True)
class Viewing:
    """How the balancer is looked at."""

    sort: Sort = Sort.NEWEST
    wanted: str = ""
    """Only calls (in any field) and events that have these letters."""
    is_typing: bool = False
    """Whether keys are letters of ``wanted``."""
    is_paused: bool = False
    chosen: BackendName | None = None
    asked: Order | None = None
    """Waits for a y."""
    notice: str = ""
    """What is said once, until the next key."""


def press(
    state: Viewing, key: str, backends: list[BackendName]
) -> tuple[Viewing, Wish | Order | None]:
    """Return what a key leads to."""
    state = replace(state, notice="")
    if state.is_typing:
        state = _typed(state, key)
        return state, None if state.is_typing else Wish.LOOK
    if state.asked is not None:
        order, state = state.asked, replace(state, asked=None)
        return (state, order) if key in ("y", "Y") else (replace(state, notice="not done"), None)
    if key in (UP, "k", DOWN, "j"):
        return replace(state, chosen=_next(state, backends, -1 if key in (UP, "k") else 1)), None
    if key in ("d", "e", "c"):
        return _ordered(state, {"d": Verb.DRAIN, "e": Verb.ENABLE, "c": Verb.CHECK}[key], backends)
    if key == "s":
        return replace(state, sort=state.sort.following), Wish.LOOK
    if key == "/":
        return replace(state, is_typing=True), None
    if key == ESCAPE:
        return replace(state, wanted="", chosen=None), Wish.LOOK
    if key in ("p", " "):
        return replace(state, is_paused=not state.is_paused), Wish.LOOK
    return state, Wish.QUIT if key in ("q", "Q") else None


def _typed(state: Viewing, key: str) -> Viewing:
    if key == ENTER:
        return replace(state, is_typing=False)
    if key == ESCAPE:
        return replace(state, is_typing=False, wanted="")
    if key == BACKSPACE:
        return replace(state, wanted=state.wanted[:-1])
    if len(key) == 1 and key.isprintable() and len(state.wanted) < FILTER_CHARS_MAX:
        return replace(state, wanted=state.wanted + key)
    return state


def _next(state: Viewing, backends: list[BackendName], step: int) -> BackendName | None:
    if not backends:
        return None
    if state.chosen not in backends:
        return backends[0 if step > 0 else -1]
    number = backends.index(state.chosen) + step
    return backends[max(0, min(number, len(backends) - 1))]


def _ordered(
    state: Viewing, verb: Verb, backends: list[BackendName]
) -> tuple[Viewing, Order | None]:
    if state.chosen is None or state.chosen not in backends:
        return replace(state, notice="choose a backend first: ↑ ↓"), None
    order = Order(verb, state.chosen)
    if verb is Verb.CHECK:  # asking does no harm
        return state, order
    return replace(state, asked=order), None
