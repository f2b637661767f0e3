"""A leg under TLS, done by the system's OpenSSL on the socket itself.

The engine (``tls/native.py``) reads, decrypts, encrypts and writes without blocking; what is left
for the leg is to wait when it says so. Same rules as every leg (``leg.py``).
"""

import contextlib
import socket

from sstplb.net.leg import PlainLeg, SecureLeg, TlsLeg
from sstplb.tls.engine import Engine
from sstplb.tls.info import TlsInfo
from sstplb.tls.native import NativeConnection, NativeContext, WouldBlockError
from sstplb.tls.policy import Context


def server_leg(below: PlainLeg, context: Context) -> SecureLeg:
    """Return the server's side of TLS over a leg, with the engine the context is made for."""
    if isinstance(context, NativeContext):
        return NativeLeg(below, context)
    return TlsLeg(below, Engine.server(context))


def client_leg(below: PlainLeg, context: Context, server_name: str | None) -> SecureLeg:
    """Return the client's side of TLS over a leg; ``server_name`` is sent as SNI."""
    if isinstance(context, NativeContext):
        return NativeLeg(below, context, server_name)
    return TlsLeg(below, Engine.client(context, server_name))


class NativeLeg:
    """A leg under TLS. Takes over the socket, and what was put back, of the plain leg below."""

    def __init__(
        self, below: PlainLeg, context: NativeContext, server_name: str | None = None
    ) -> None:
        self.sock: socket.socket = below.sock
        self._below = below
        self._connection = NativeConnection(
            context, self.sock.fileno(), early=below.early, server_name=server_name
        )
        below.early = b""
        self._early = b""
        self._closed = False

    @property
    def info(self) -> TlsInfo:
        """What TLS agreed on; after the handshake."""
        return self._connection.info

    async def handshake(self) -> None:
        """Shake hands. Raises TlsError with a sentence that says what failed."""
        while True:
            try:
                self._connection.handshake()
            except WouldBlockError as block:
                await self._wait(block)
            else:
                return

    async def receive(self, size_max: int) -> bytes:
        """Return what has come and could be decrypted, waiting for the first byte.

        Raises TlsError when a record is damaged.
        """
        while True:
            if self._early:
                data, self._early = self._early[:size_max], self._early[size_max:]
                return data
            plaintext = self._connection.read()
            if plaintext is None:
                await self._below.readiness.readable()
            elif len(plaintext) <= size_max:
                return plaintext
            else:
                self._early = plaintext

    def unread(self, data: bytes) -> None:
        """Put bytes back: ``receive`` returns them first."""
        self._early = data + self._early

    async def send(self, data: bytes | memoryview) -> None:
        """Encrypt and write all of it, waiting whenever the kernel is full."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._connection.write(rest) :]
            except WouldBlockError as block:
                await self._wait(block)

    async def send_end(self) -> None:
        """Send close_notify and a FIN."""
        self._connection.close_notify()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the socket at once."""
        if not self._closed:
            self._closed = True
            self._connection.close()  # before its descriptor can become somebody else's
            self._below.close()

    async def _wait(self, block: WouldBlockError) -> None:
        ready = self._below.readiness
        await (ready.writable() if block.for_writing else ready.readable())
