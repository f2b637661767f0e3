"""A leg is one side of a call: plaintext in order, both ways, over one TCP socket.

The session and the relay see only this: ``receive``, ``send``, ``send_end``, ``close``. Whether
TLS lies between is the leg's own business:

- ``PlainLeg`` is a socket. The relay knows it, for between two plain legs the kernel can move
  the bytes itself.
- ``TlsLeg`` is a socket and the portable TLS engine (``tls/engine.py``), which turns ciphertext
  into plaintext without touching the socket.
- ``NativeLeg`` (``native_leg.py``) lets the system's OpenSSL work on the socket itself.

Rules every leg keeps (``tests/net/test_leg.py`` is the conformance suite):

- ``receive`` returns at least one byte, or ``b""`` at the end, and then for ever. A reset and a
  TLS stream that ends without close_notify are ordinary ends: Windows ends calls so.
- ``send`` returns when the kernel holds every byte, so at most one chunk is ever waiting here.
- one coroutine receives and one sends; they never wait for each other.
- ``close`` is immediate, may be called twice and never raises.
"""

import asyncio
import contextlib
import socket
from typing import Protocol

from sstplb.net.readiness import Readiness
from sstplb.tls.engine import Engine
from sstplb.tls.info import TlsInfo

RECEIVE_BYTES = 262_144
"""How much is taken from the kernel at once. In bulk through offload this costs about a fifth less
CPU per byte than 64 KiB would; it is memory for a moment, not per call."""


class Leg(Protocol):
    """One side of a call."""

    sock: socket.socket

    @property
    def info(self) -> TlsInfo | None:
        """What TLS agreed on; None on a leg without TLS."""

    async def receive(self, size_max: int) -> bytes:
        """Return 1 to ``size_max`` bytes, or ``b""`` once the far end has finished."""

    def unread(self, data: bytes) -> None:
        """Put bytes back: ``receive`` returns them first."""

    async def send(self, data: bytes | memoryview) -> None:
        """Return when every byte is with the kernel. Raises OSError if the far end is gone."""

    async def send_end(self) -> None:
        """Say that nothing more will be sent; receiving goes on."""

    def close(self) -> None:
        """Let go of the socket at once."""


class SecureLeg(Leg, Protocol):
    """A leg under TLS, whichever engine does it."""

    @property
    def info(self) -> TlsInfo:
        """What TLS agreed on; after the handshake."""

    async def handshake(self) -> None:
        """Shake hands. Raises TlsError with a sentence that says what failed, or OSError."""


class PlainLeg:
    """A leg without TLS."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.sock = sock
        self.readiness = Readiness(sock, loop)
        self.early = b""
        """Bytes that were put back; whoever moves bytes around ``receive`` must look here."""
        self._ended = False
        self._closed = False

    @property
    def info(self) -> TlsInfo | None:
        """Nothing: there is no TLS here."""
        return None

    async def receive(self, size_max: int) -> bytes:
        """Return what has come, waiting for the first byte."""
        if self.early:
            data, self.early = self.early[:size_max], self.early[size_max:]
            return data
        while not self._ended:
            try:
                data = self.sock.recv(size_max)
            except (BlockingIOError, InterruptedError):
                await self.readiness.readable()
            except OSError:
                self._ended = True
            else:
                self._ended = not data
                return data
        return b""

    def unread(self, data: bytes) -> None:
        """Put bytes back: ``receive`` returns them first."""
        self.early = data + self.early

    async def send(self, data: bytes | memoryview) -> None:
        """Write all of it, waiting whenever the kernel is full."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.sock.send(rest) :]
            except (BlockingIOError, InterruptedError):
                await self.readiness.writable()

    async def send_end(self) -> None:
        """Send a FIN."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the socket at once."""
        if not self._closed:
            self._closed = True
            self.readiness.forget()
            self.sock.close()


class TlsLeg:
    """A leg under TLS. Ciphertext comes from and goes to a plain leg below."""

    def __init__(self, below: PlainLeg, engine: Engine) -> None:
        self.sock = below.sock
        self._engine = engine
        self._below = below
        self._early = b""
        self._ended = False

    @property
    def info(self) -> TlsInfo:
        """What TLS agreed on; after the handshake."""
        return self._engine.info

    async def handshake(self) -> None:
        """Shake hands. Raises TlsError with a sentence that says what failed."""
        try:
            while not self._engine.handshake():
                await self._flush()
                await self._take()
        finally:
            # On failure too: the alert tells the far end what we tell the operator.
            with contextlib.suppress(OSError):
                await self._flush()

    async def receive(self, size_max: int) -> bytes:
        """Return what has come and could be decrypted, waiting for the first byte.

        Raises TlsError when a record is damaged.
        """
        if self._early:
            data, self._early = self._early[:size_max], self._early[size_max:]
            return data
        while not self._ended:
            plaintext = self._engine.read(size_max)
            if plaintext is None:
                await self._take()
                continue
            self._ended = not plaintext
            return plaintext
        return b""

    def unread(self, data: bytes) -> None:
        """Put bytes back: ``receive`` returns them first."""
        self._early = data + self._early

    async def send(self, data: bytes | memoryview) -> None:
        """Encrypt and write all of it."""
        self._engine.write(data)
        await self._flush()

    async def send_end(self) -> None:
        """Send close_notify and a FIN."""
        self._engine.close_notify()
        with contextlib.suppress(OSError):
            await self._flush()
        await self._below.send_end()

    def close(self) -> None:
        """Let go of the socket at once."""
        self._below.close()

    async def _take(self) -> None:
        """Bring ciphertext from the socket into the engine."""
        if ciphertext := await self._below.receive(RECEIVE_BYTES):
            self._engine.receive_ciphertext(ciphertext)
        else:
            self._engine.receive_eof()

    async def _flush(self) -> None:
        if ciphertext := self._engine.ciphertext_to_send():
            await self._below.send(ciphertext)
