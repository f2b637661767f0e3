"""When a socket can be read or written: the only place that speaks of it to the event loop.

uvloop and asyncio offer callbacks (``add_reader``). The opening of a call is a coroutine that waits
for them. Each change of mind costs up to six system calls in libuv, more than the read it was made
for; so what a coroutine has begun to watch stays watched from one wait to the next. Only when the
socket tells something and nobody waits, it is watched no more: bytes that a client pipelined while
its backend is dialled must not keep the loop busy.

A relay is told by a plain call, for days. What the loop keeps of a socket it watches is four
objects, 480 bytes, all touched for each packet; so the sockets of all relays stand in an epoll of
their own (``Watch``), which the loop sees as one socket more.
"""

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Protocol

Callback = Callable[[], None]


class Reader(Protocol):
    """Who wants to know when a socket can be read."""

    def on_readable(self) -> None:
        """Read: there are bytes, an end or an error."""


EVENTS_AT_ONCE = 256
"""Sockets that tell something before the loop may look at others."""


class Watch:
    """Tells readers of their sockets: all relays of a process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Reader] = {}
        self._loop = loop
        loop.add_reader(self._epoll.fileno(), self._look)

    def begin(self, fd: int, reader: Reader) -> None:
        """Tell ``reader`` whenever ``fd`` can be read, until ``end``."""
        self._epoll.register(fd, select.EPOLLIN)
        self._readers[fd] = reader

    def end(self, fd: int) -> None:
        """Look at it no more. Call before it is closed: descriptors are used again."""
        del self._readers[fd]
        self._epoll.unregister(fd)

    def close(self) -> None:
        """Look at nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _look(self) -> None:
        readers = self._readers
        for fd, _events in self._epoll.poll(0, EVENTS_AT_ONCE):
            # Who was told before may have ended it, or even closed it and opened another.
            if (reader := readers.get(fd)) is not None:
                reader.on_readable()


class Readiness:
    """Watches one socket, for at most one reader and one writer at a time."""

    __slots__ = ("_is_kept", "_is_written", "_loop", "_waiter", "_watch", "fd")

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.fd = sock.fileno()
        """Of the socket; -1 once it was forgotten."""
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        """Of ``readable``."""
        self._is_kept = False
        """Whether the loop calls ``_tell``."""
        self._is_written = False
        """Whether the loop watches it: asking to be let go costs as much as asking to be told."""
        self._watch: Watch | None = None
        """Where a reader waits."""

    async def readable(self) -> None:
        """Return when the socket has bytes, an end or an error to read."""
        self._waiter = waiter = self._loop.create_future()
        if not self._is_kept:
            self._loop.add_reader(self.fd, self._tell)
            self._is_kept = True
        try:
            await waiter
        finally:
            self._waiter = None

    async def writable(self) -> None:
        """Return when the socket takes bytes, has finished connecting, or has an error."""
        waiter = self._loop.create_future()
        self._loop.add_writer(self.fd, _wake, waiter)
        self._is_written = True
        try:
            await waiter
        finally:
            self.unwatch_room()

    def watch(self, watch: Watch, reader: Reader) -> None:
        """Have ``reader`` told whenever the socket can be read, until ``unwatch``."""
        self.unwatch()
        watch.begin(self.fd, reader)
        self._watch = watch

    def unwatch(self) -> None:
        """Look no more whether it can be read."""
        if self._watch is not None:
            self._watch.end(self.fd)
            self._watch = None
        if self._is_kept:
            self._is_kept = False
            self._loop.remove_reader(self.fd)

    def watch_room(self, callback: Callback) -> None:
        """Call ``callback`` whenever the socket can be written, until ``unwatch_room``."""
        self._loop.add_writer(self.fd, callback)
        self._is_written = True

    def unwatch_room(self) -> None:
        """Look no more whether it can be written."""
        if self._is_written:
            self._is_written = False
            self._loop.remove_writer(self.fd)

    def forget(self) -> None:
        """Take the socket off the loop. Call before closing: descriptors are used again."""
        self.unwatch()
        self.unwatch_room()
        self.fd = -1

    def _tell(self) -> None:
        if self._waiter is None:
            self.unwatch()
        else:
            _wake(self._waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    # The loop may report readiness once more before it learns that nobody waits.
    if not waiter.done():
        waiter.set_result(None)
