"""Messages between the balancer and a worker, with open sockets among them.

A stream socket pair; each message is a tuple, pickled, behind its length and the number of
descriptors that come with it (SCM_RIGHTS, unix(7)). Both ends are our own processes, joined by a
socket that has no name: nobody else can write to it, which is what makes pickle safe here.

Sending never waits: what the kernel does not take at once is queued, in order. What may be queued
is bounded by what is said of calls, whose number is limited.
"""

import array
import asyncio
import pickle
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

Message = tuple[Any, ...]
"""Its first element is its name."""
OnMessage = Callable[[Message, list[int]], None]

_HEAD = struct.Struct("!IB")
RECEIVE_BYTES = 262144
DESCRIPTORS_MAX = 64
"""As many as one ``recvmsg`` takes; the kernel itself never joins two messages' descriptors."""


class Channel:
    """One end. ``on_end`` is called once, when the other end is gone."""

    def __init__(
        self, sock: socket.socket, on_message: OnMessage, on_end: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_message, self._on_end = on_message, on_end
        self._loop = asyncio.get_running_loop()
        self._read = bytearray()
        self._descriptors: deque[int] = deque()
        self._waiting: deque[tuple[bytes, int | None]] = deque()
        """What the kernel did not take, and the descriptor that goes with it."""
        self._loop.add_reader(sock.fileno(), self._on_readable)
        self._is_open = True

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Send a message; ``descriptor`` is duplicated by the kernel, and closed here."""
        if not self._is_open:
            _close(descriptor)
            return
        body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        data = _HEAD.pack(len(body), descriptor is not None) + body
        self._waiting.append((data, descriptor))
        if len(self._waiting) == 1:
            self._flush()

    def close(self) -> None:
        """Close this end; the other one is told by the kernel."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
            for descriptor in self._descriptors:
                _close(descriptor)
            for _, waiting in self._waiting:
                _close(waiting)

    def _flush(self) -> None:
        while self._waiting:
            data, descriptor = self._waiting[0]
            rights = [] if descriptor is None else [_rights(descriptor)]
            try:
                sent = self._sock.sendmsg([data], rights)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError:
                self._end()
                return
            _close(descriptor)  # it travels with the first byte
            if sent < len(data):
                self._waiting[0] = data[sent:], None
            else:
                self._waiting.popleft()
        self._loop.remove_writer(self._sock.fileno())

    def _on_readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._sock, RECEIVE_BYTES, DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors = b"", []
        self._descriptors.extend(descriptors)
        if not data:
            self._end()
            return
        self._read += data
        at = 0
        while len(self._read) - at >= _HEAD.size:
            length, count = _HEAD.unpack_from(self._read, at)
            end = at + _HEAD.size + length
            if len(self._read) < end:
                break
            body = bytes(memoryview(self._read)[at + _HEAD.size : end])
            at = end
            theirs = [self._descriptors.popleft() for _ in range(count)]
            self._on_message(pickle.loads(body), theirs)  # noqa: S301 - our own process wrote it
            if not self._is_open:
                return
        del self._read[:at]

    def _end(self) -> None:
        if self._is_open:
            self.close()
            self._on_end()


def _rights(descriptor: int) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]).tobytes()


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        socket.close(descriptor)
