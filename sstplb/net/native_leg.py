"""A leg under TLS, done by the system's OpenSSL on the socket itself.

The engine (``tls/native.py``) reads, decrypts, encrypts and writes without blocking; what is left
for the leg is to wait when it says so. Same rules as every leg (``leg.py``).
"""

import contextlib

from sstplb.net import tcp
from sstplb.net.leg import RECEIVE_BYTES, PlainLeg, SecureLeg, TlsLeg
from sstplb.tls import kernel
from sstplb.tls.engine import Engine
from sstplb.tls.info import TlsInfo
from sstplb.tls.native import NativeConnection, NativeContext, Sessions, WouldBlockError
from sstplb.tls.policy import Context


def server_leg(below: PlainLeg, context: Context) -> SecureLeg:
    """Return the server's side of TLS over a leg, with the engine the context is made for."""
    if isinstance(context, NativeContext):
        return NativeLeg(below, context)
    return TlsLeg(below, Engine.server(context))


def client_leg(
    below: PlainLeg,
    context: Context,
    server_name: str | None,
    sessions: Sessions | None = None,
) -> SecureLeg:
    """Return the client's side of TLS over a leg; ``server_name`` is sent as SNI.

    With ``sessions`` an earlier session with the same place is resumed, if the engine can.
    """
    if isinstance(context, NativeContext):
        return NativeLeg(below, context, server_name, sessions)
    return TlsLeg(below, Engine.client(context, server_name))


class NativeLeg(SecureLeg):
    """A leg under TLS by the native engine."""

    __slots__ = ("_connection", "_has_ended", "_is_reset", "_place", "_sessions")

    def __init__(
        self,
        below: PlainLeg,
        context: NativeContext,
        server_name: str | None = None,
        sessions: Sessions | None = None,
    ) -> None:
        super().__init__(below)
        if context.openssl.offers_kernel:
            with contextlib.suppress(OSError):  # then OpenSSL does it all
                kernel.attach(self.sock)
        self._has_ended = False
        self._is_reset = False
        self._sessions = sessions
        self._place = (self.sock.getpeername(), server_name) if sessions is not None else None
        self._connection = NativeConnection(
            context,
            self.readiness.fd,
            early=below.early,
            server_name=server_name,
            session=sessions.get(self._place) if sessions is not None else None,
        )
        below.early = b""

    @property
    def info(self) -> TlsInfo:
        """What TLS agreed on; after the handshake."""
        return self._connection.info

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier session was resumed; after the handshake."""
        return self._connection.is_resumed

    async def handshake(self) -> None:
        """Shake hands. Raises TlsError with a sentence that says what failed."""
        while True:
            try:
                self._connection.handshake()
            except WouldBlockError as block:
                ready = self.readiness
                await (ready.writable() if block.for_writing else ready.readable())
            else:
                return

    async def receive(self, size_max: int = RECEIVE_BYTES) -> bytes:
        """Receive, and keep the session that came with it; the first data brings the ticket."""
        data = await super().receive(size_max)
        if self._sessions is not None and data:
            session = self._connection.session
            if session is not None:
                self._sessions.put(self._place, session)
                self._sessions = None
        return data

    def take(self, into: memoryview) -> int | None:
        """Read and decrypt every record that is waiting."""
        count = self._connection.read(into)
        if count == 0 and self._connection.kernel_sends and tcp.is_closed(self.sock):
            self._is_reset = True
        return count

    def give(self, data: memoryview) -> int:
        """Encrypt and write what the socket takes."""
        if self._connection.kernel_sends:
            if self._is_reset:  # the kernel would take what it can send nowhere, and not complain
                raise ConnectionResetError("the far end is gone")
            return self._below.give(data)
        return self._connection.write(data)

    @property
    def takes_splice(self) -> bool:
        """Whether the kernel encrypts."""
        return self._connection.kernel_sends

    @property
    def gives_splice(self) -> bool:
        """Whether the kernel decrypts, and all that was received before has been taken."""
        connection = self._connection
        return connection.kernel_receives and not connection.holds_plaintext

    def end(self) -> bool:
        """Send close_notify and a FIN."""
        if not self._has_ended:  # else OpenSSL would read, and drop, what is still to be received
            if self._connection.kernel_sends:
                is_said = kernel.close_notify(self.sock)
            else:
                is_said = self._connection.close_notify()
            self._has_ended = is_said and self._below.end()
        return self._has_ended

    def rest(self) -> None:
        """Give back what only a busy call needs; the next bytes bring it back."""
        self._connection.rest()

    def close(self) -> None:
        """Let go of the socket at once."""
        self._connection.close()  # before its descriptor can become somebody else's
        super().close()
