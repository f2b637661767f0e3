"""Ending many calls, one after the other; and the deadlines after which what drains loses them.

Who is hung up on calls again at once, and an opening costs a balancer and RRAS more than an hour
of a quiet call. So calls that are ended together (a drain, a stop, a backend that went down) are
ended politely at ``limits.endings_per_second``, the oldest request first.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable

from sstplb.control.booking import Booking
from sstplb.errors import EndedError

PAUSE_S_MIN = 0.02
"""Faster rates end several calls at a time."""


class Endings:
    """Calls that are to be ended, and when."""

    def __init__(self, per_second: Callable[[], float]) -> None:
        self._per_second = per_second
        self._waiting: dict[int, tuple[Booking, EndedError]] = {}
        """By number; a call waits once, for the first reason."""
        self._timer: asyncio.TimerHandle | None = None
        self._deadlines: dict[str, asyncio.TimerHandle] = {}

    def add(self, calls: Iterable[Booking], why: EndedError) -> None:
        """End calls politely: the first of them now, the others in their turn."""
        for call in calls:
            self._waiting.setdefault(call.record.id, (call, why))
        if self._timer is None:
            self._end_some()

    def forget(self, number: int) -> None:
        """Forget a call that is over."""
        self._waiting.pop(number, None)

    def _end_some(self) -> None:
        rate = self._per_second()
        pause = max(1.0 / rate, PAUSE_S_MIN)
        numbers = list(itertools.islice(self._waiting, max(1, round(rate * pause))))
        for number in numbers:
            call, why = self._waiting.pop(number)
            call.end(why, politely=True)
        again = asyncio.get_running_loop().call_later
        self._timer = again(pause, self._end_some) if numbers else None

    # --- deadlines ------------------------------------------------------------------------------

    def set_deadline(self, what: str, after_s: float, then: Callable[[], None]) -> None:
        """Do ``then`` after so long, unless another deadline is set for ``what``, or none."""
        self.clear_deadline(what)
        self._deadlines[what] = asyncio.get_running_loop().call_later(after_s, then)

    def clear_deadline(self, what: str) -> None:
        """Set no deadline for ``what``."""
        timer = self._deadlines.pop(what, None)
        if timer is not None:
            timer.cancel()

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for what in tuple(self._deadlines):
            self.clear_deadline(what)
