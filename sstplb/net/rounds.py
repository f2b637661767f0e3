"""Rounds: who wants to be looked at later shares a timer with all who want it at about that time.

A relay looks now and then how long it has been silent, for as long as its call lasts. A timer of
the event loop is six objects, 540 bytes; a place in a round is fifty. The price is that a round
comes late: by a sixteenth of the pause that somebody asked for, at the most. No silence needs to
be measured better than that.
"""

import asyncio
import math
from time import monotonic
from typing import Protocol

LATE_SHARE = 16
PAUSE_S_MIN = 0.001


class Looked(Protocol):
    """Who can be looked at."""

    def look(self) -> None:
        """Look; for this one the round is over."""


Company = set[Looked]
"""Those that one round looks at. Who leaves it is not looked at."""


class Rounds:
    """All rounds of a process that are still to come."""

    def __init__(self) -> None:
        self._to_come: dict[float, Company] = {}

    def join(self, who: Looked, pause_s: float) -> Company:
        """Have ``who`` looked at in ``pause_s``, or a little later; return whom it is with."""
        pause_s = max(pause_s, PAUSE_S_MIN)
        grain_s = 2.0 ** math.floor(math.log2(pause_s / LATE_SHARE))
        now = monotonic()
        at = math.ceil((now + pause_s) / grain_s) * grain_s
        company = self._to_come.get(at)
        if company is None:
            company = self._to_come[at] = set()
            loop = asyncio.get_running_loop()
            loop.call_later(at - now, self._look, at, loop)
        company.add(who)
        return company

    def _look(self, at: float, loop: asyncio.AbstractEventLoop) -> None:
        company = self._to_come.pop(at)
        while company:
            who = company.pop()
            try:
                who.look()
            except Exception as error:  # noqa: BLE001 - one's mistake must not be the others'
                message = "a look at somebody's silence failed"
                loop.call_exception_handler({"message": message, "exception": error})
