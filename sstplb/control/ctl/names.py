"""Which backend is meant: ``rras1`` while there is only one of that name, else ``pool/rras1``.

A name that does not exist is answered with those that look like it.
"""

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sstplb.errors import AskError

Overview = dict[str, Any]
"""What ``GET /overview`` answers (``control/views.py``)."""
NEAR_MAX, SHOWN_MAX = 3, 8
"""So many names that look like the one that was given are shown, or so many when none does."""


@dataclass(frozen=True, slots=True)
class BackendName:
    """A backend and its pool."""

    pool: str
    name: str

    def __str__(self) -> str:
        return f"{self.pool}/{self.name}"

    @property
    def path(self) -> tuple[str, ...]:
        """Where the API has it."""
        return "pools", self.pool, "backends", self.name


def backends_of(overview: Overview) -> dict[BackendName, dict[str, Any]]:
    """Return every backend by its name."""
    return {
        BackendName(pool["name"], backend["name"]): backend
        for pool in overview["pools"]
        for backend in pool["backends"]
    }


def find_backend(overview: Overview, given: str) -> BackendName:
    """Return the backend that is meant. Raises AskError with what is near."""
    known = list(backends_of(overview))
    found = [one for one in known if given in (one.name, str(one))]
    if len(found) > 1:
        choices = " or ".join(map(str, found))
        raise AskError(f"there are several backends {given}: say {choices}", reason="ambiguous")
    if found:
        return found[0]
    count = Counter(one.name for one in known)
    compared = [
        (str(one) if "/" in given else one.name, one.name if count[one.name] == 1 else str(one))
        for one in known
    ]
    raise _unknown("backend", given, compared)


def find_pool(overview: Overview, given: str | None) -> str:
    """Return the pool that is meant; None: the only one. Raises AskError."""
    known = [pool["name"] for pool in overview["pools"]]
    if given is None:
        if len(known) == 1:
            return str(known[0])
        raise AskError(f"which pool? There are {', '.join(known)}", reason="ambiguous")
    if given not in known:
        raise _unknown("pool", given, [(name, name) for name in known])
    return given


def find_listener(overview: Overview, given: str) -> str:
    """Return the listener of that name. Raises AskError."""
    known = [listener["name"] for listener in overview["listeners"]]
    if given not in known:
        raise _unknown("listener", given, [(name, name) for name in known])
    return given


def _unknown(kind: str, given: str, known: list[tuple[str, str]]) -> AskError:
    """Return the error for a name; ``known``: what each is compared by, and how it is typed."""
    names = {name.lower() for name, _ in known}
    alike = difflib.get_close_matches(given.lower(), sorted(names), NEAR_MAX)
    near = [typed for name in alike for compared, typed in known if compared.lower() == name]
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else f"known: {_listed([typed for _, typed in known])}"
    )
    return AskError(f"there is no {kind} {given}; {hint}", reason="not_found")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more
