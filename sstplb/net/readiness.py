"""Waiting until a socket can be read or written: the only place where a call sleeps.

uvloop and asyncio offer callbacks (``add_reader``); a call is a coroutine. This turns one into
the other with as little in between as possible: one future per wait, made only when the system
call said "not now". libuv tells epoll about a change only at the end of the loop's turn, so
removing and adding a reader within one turn costs no system call.
"""

import asyncio
import socket


class Readiness:
    """Waits on one socket, for at most one reader and one writer at a time."""

    __slots__ = ("_fd", "_loop")

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._fd = sock.fileno()
        self._loop = loop

    async def readable(self) -> None:
        """Return when the socket has bytes, an end or an error to read."""
        waiter = self._loop.create_future()
        self._loop.add_reader(self._fd, _wake, waiter)
        try:
            await waiter
        finally:
            self._loop.remove_reader(self._fd)

    async def writable(self) -> None:
        """Return when the socket takes bytes, has finished connecting, or has an error."""
        waiter = self._loop.create_future()
        self._loop.add_writer(self._fd, _wake, waiter)
        try:
            await waiter
        finally:
            self._loop.remove_writer(self._fd)

    def forget(self) -> None:
        """Take the socket off the loop. Call before closing: descriptors are used again."""
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)


def _wake(waiter: asyncio.Future[None]) -> None:
    # The loop may report readiness once more before it learns that nobody waits.
    if not waiter.done():
        waiter.set_result(None)
