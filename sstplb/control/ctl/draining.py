"""Waiting until a backend that drains is empty, with what is left in view.

Empty means: no call it carries, none on its way. What is left when the time is over the balancer
ends by itself, if it was told so (``deadline_s``); here that is waited for, too.

Two things end the wait without an answer: the backend takes calls again, because somebody said so;
and the balancer is another process by now (an upgrade, a restart), which cannot see the calls that
the one before still carries.
"""

import time
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sstplb.control.ctl.api import Api
from sstplb.control.ctl.names import BackendName, backends_of
from sstplb.control.ctl.sheet import ago
from sstplb.errors import AskError

LOOK_EVERY_S = 0.5
SAY_EVERY_S = 10.0
"""Where there is no terminal: a line so often, when the count has changed."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, and what then."""

    timeout_s: float | None
    """None: for ever."""
    then_end: bool
    """Whether the balancer ends what is left then: that is waited for."""


def wait_until_empty(api: Api, name: BackendName, patience: Patience, shown: Console) -> bool:
    """Wait; return whether it got empty by itself and in time. Raises AskError."""
    began, overview = time.monotonic(), api.get("overview")
    process, most = overview["started_at"], 0
    was_empty = True
    with _Telling(shown, name, patience.timeout_s) as telling:
        while True:
            if overview["started_at"] != process:
                raise AskError(
                    f"another process has taken over; calls to {name} may still be carried by "
                    "the one before",
                    reason="stale",
                )
            backend = backends_of(overview).get(name)
            if backend is None:
                return was_empty  # it was removed, and that needs it to be empty
            if backend["standing"] == "active":
                raise AskError(f"{name} was made active again: it will not get empty")
            left = backend["calls"] + backend["dialing"]
            most = max(most, left)
            telling.say(left, most)
            if not left:
                return was_empty
            waited = time.monotonic() - began
            if patience.timeout_s is not None and waited >= patience.timeout_s:
                was_empty = False
                if not patience.then_end:
                    return was_empty
            time.sleep(LOOK_EVERY_S)
            overview = api.get("overview")


class _Telling:
    """Says how many calls are left: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, shown: Console, name: BackendName, timeout_s: float | None) -> None:
        self._console, self._name = shown, name
        limit = "" if timeout_s is None else f"of {ago(timeout_s)}"
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn(limit),
            console=shown,
            transient=True,
            disable=not shown.is_terminal,
        )
        self._task = self._progress.add_task(f"draining {name}", total=None)
        self._said, self._said_at = -1, 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, left: int, most: int) -> None:
        """Say how many are left, of how many there were at most."""
        text = f"draining {self._name}: {left} calls left"
        if self._console.is_terminal:
            self._progress.update(
                self._task, description=text, total=max(most, 1), completed=most - left
            )
        elif left != self._said and time.monotonic() - self._said_at >= SAY_EVERY_S:
            self._console.print(text)
            self._said, self._said_at = left, time.monotonic()
