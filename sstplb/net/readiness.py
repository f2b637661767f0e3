"""When a socket can be read or written: the only place that speaks of it to the event loop.

uvloop and asyncio offer callbacks (``add_reader``); the opening of a call is a coroutine, and its
relay wants the callback itself (``watch``). Each change of mind costs up to six system calls in
libuv, more than the read it was made for; so what a coroutine has begun to watch stays watched
from one wait to the next. Only when the socket tells something and nobody waits, it is watched no
more: bytes that a client pipelined while its backend is dialled must not keep the loop busy.
"""

import asyncio
import socket
from collections.abc import Callable

Callback = Callable[[], None]


class Readiness:
    """Watches one socket, for at most one reader and one writer at a time."""

    __slots__ = ("_fd", "_is_kept", "_is_read", "_is_written", "_loop", "_waiter")

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._fd = sock.fileno()
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        """Of ``readable``."""
        self._is_kept = False
        """Whether the loop calls ``_tell``."""
        self._is_read = self._is_written = False
        """Whether the loop watches it: asking to be let go costs as much as asking to be told."""

    async def readable(self) -> None:
        """Return when the socket has bytes, an end or an error to read."""
        self._waiter = waiter = self._loop.create_future()
        if not self._is_kept:
            self._is_kept = self._is_read = True
            self._loop.add_reader(self._fd, self._tell)
        try:
            await waiter
        finally:
            self._waiter = None

    async def writable(self) -> None:
        """Return when the socket takes bytes, has finished connecting, or has an error."""
        waiter = self._loop.create_future()
        self._is_written = True
        self._loop.add_writer(self._fd, _wake, waiter)
        try:
            await waiter
        finally:
            self.unwatch_room()

    def watch(self, callback: Callback) -> None:
        """Call ``callback`` whenever the socket can be read, until ``unwatch``."""
        self._is_kept, self._is_read = False, True
        self._loop.add_reader(self._fd, callback)

    def unwatch(self) -> None:
        """Look no more whether it can be read."""
        if self._is_read:
            self._is_kept = self._is_read = False
            self._loop.remove_reader(self._fd)

    def watch_room(self, callback: Callback) -> None:
        """Call ``callback`` whenever the socket can be written, until ``unwatch_room``."""
        self._is_written = True
        self._loop.add_writer(self._fd, callback)

    def unwatch_room(self) -> None:
        """Look no more whether it can be written."""
        if self._is_written:
            self._is_written = False
            self._loop.remove_writer(self._fd)

    def forget(self) -> None:
        """Take the socket off the loop. Call before closing: descriptors are used again."""
        self.unwatch()
        self.unwatch_room()
        self._fd = -1

    def _tell(self) -> None:
        if self._waiter is None:
            self.unwatch()
        else:
            _wake(self._waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    # The loop may report readiness once more before it learns that nobody waits.
    if not waiter.done():
        waiter.set_result(None)
