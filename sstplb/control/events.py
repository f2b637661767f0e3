"""The latest log events, kept in memory for who operates the balancer, and followed live.

A structlog processor notes each event that is written, with a number and the wall clock. Two
rings hold them: a busy balancer writes a line for every call, and those must not crowd out the
one that says why a backend went down.

Followers (``follow``) get events as they happen through a bounded queue of their own. Writing a
log line never waits for a follower: one that does not keep up is cut off, and may look up what it
missed by number (``after``).

Events are written on the event loop's own thread; that is what this module relies on.
"""

import asyncio
import heapq
import time
from collections import Counter, deque
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

EVENTS_KEPT = 1000
CALL_EVENTS_KEPT = 500
"""Lines of ended calls: the ledger keeps their records, the log file all."""
QUEUE_MAX = 512
"""Events a follower may be behind."""
_OF_A_CALL = "call_ended"

Event = dict[str, Any]
"""``id``, ``at`` (seconds since 1970), ``level``, ``event``, ``message``, and its named values."""


class Follower:
    """One that follows events live."""

    def __init__(self) -> None:
        self.stirred = asyncio.Event()
        """Set when there is something to take, or when it is over."""
        self.is_over = False
        """Cut off: too slow, or nobody is there any more."""
        self._queue: deque[Event] = deque()

    def take(self) -> list[Event]:
        """Return what has happened since the last time."""
        self.stirred.clear()
        taken = [_shown(event) for event in self._queue]
        self._queue.clear()
        return taken

    def give(self, event: Event) -> None:
        """Queue an event; one too many cuts the follower off."""
        if len(self._queue) >= QUEUE_MAX:
            self.end()
        elif not self.is_over:
            self._queue.append(event)
            self.stirred.set()

    def end(self) -> None:
        """Give no more."""
        self.is_over = True
        self.stirred.set()


class EventLog:
    """The latest events, numbered from 1."""

    def __init__(self) -> None:
        self.last = 0
        """Number of the latest event."""
        self.by_level: Counter[str] = Counter()
        """How many there were."""
        self._of_calls: deque[Event] = deque(maxlen=CALL_EVENTS_KEPT)
        self._others: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._followers: set[Follower] = set()

    def note(
        self, _logger: Any, _method: str, values: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Remember an event and pass it on unchanged (a structlog processor)."""
        self.last += 1
        self.by_level[values.get("level", "")] += 1
        event = {"id": self.last, "at": time.time(), "message": "", **values}
        event.pop("exc_info", None)
        (self._of_calls if values.get("event") == _OF_A_CALL else self._others).append(event)
        for follower in self._followers:
            follower.give(event)
        return values

    def after(self, number: int, limit: int) -> list[Event]:
        """Return the first ``limit`` events after ``number``; after 0: the latest ``limit``."""
        both = heapq.merge(self._of_calls, self._others, key=lambda event: event["id"])
        found = [event for event in both if event["id"] > number]
        return [_shown(event) for event in (found[:limit] if number else found[-limit:])]

    @contextmanager
    def follow(self) -> Iterator[Follower]:
        """Follow from now on."""
        follower = Follower()
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def end_following(self) -> None:
        """Cut everybody off, for the admin side closes."""
        for follower in self._followers:
            follower.end()


def _shown(event: Event) -> Event:
    """Return an event as JSON can carry it; most are never asked for."""
    return {name: _plain(value) for name, value in event.items()}


def _plain(value: Any) -> Any:
    """Return a value as JSON can carry it."""
    if value is None or isinstance(value, bool | int | float | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)
