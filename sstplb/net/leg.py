"""A leg is one side of a call: plaintext in order, both ways, over one TCP socket.

The session speaks with a leg as a coroutine does: ``receive``, ``send``. The relay, which moves
every byte of a call that may last for days, speaks with it as the event loop does: ``take`` what
is there, ``give`` what fits, and come back when the socket is ready. Both are made of the same few
steps, which the three kinds of leg do in their own way:

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
from abc import ABC, abstractmethod

from sstplb.net.readiness import Readiness
from sstplb.tls.engine import Engine
from sstplb.tls.info import TlsInfo

RECEIVE_BYTES = 16384
"""The most one ``receive`` brings: one TLS record, or any head. The relay takes larger bites."""


class Leg(ABC):
    """One side of a call."""

    __slots__ = ("early", "readiness", "sock")

    def __init__(self, sock: socket.socket, readiness: Readiness) -> None:
        self.sock = sock
        self.readiness = readiness
        self.early = b""
        """Bytes that were put back; whoever moves bytes around ``receive`` must look here."""

    # --- without waiting: what each kind of leg does in its own way ---------------------------

    @property
    def info(self) -> TlsInfo | None:
        """What TLS agreed on; None on a leg without TLS."""
        return None

    @property
    def backlog(self) -> bool:
        """Whether bytes that were given wait in the leg for the socket: see ``flush``."""
        return False

    @property
    def takes_splice(self) -> bool:
        """Whether plaintext may be spliced into the socket at the moment."""
        return False

    @property
    def gives_splice(self) -> bool:
        """Whether plaintext can be spliced out of the socket at the moment.

        What is no data (TLS has that) makes the splice fail; ``take`` knows what it means.
        """
        return False

    @abstractmethod
    def take(self, into: memoryview) -> int | None:
        """Move what has come into ``into`` (at least RECEIVE_BYTES long); return how many bytes.

        None: nothing at the moment, ask again when the socket is readable. 0: the end. When
        ``into`` was filled there may be more, of which the socket will not tell.
        Raises TlsError when a record is damaged.
        """

    @abstractmethod
    def give(self, data: memoryview) -> int:
        """Take over what fits of ``data``; return how many bytes.

        Fewer than all: give the rest, from the same place, when the socket is writable.
        Raises OSError when the far end is gone.
        """

    def flush(self) -> None:  # noqa: B027 - most legs keep nothing back
        """Pass on what ``backlog`` told of, as far as the socket takes it. Raises OSError."""

    @abstractmethod
    def end(self) -> bool:
        """Say that nothing more will be given; return whether that is said. Never raises.

        False: there was no room for it; call it again when the socket is writable. Once it is said,
        to say it again changes nothing.
        """

    def rest(self) -> None:  # noqa: B027 - most legs need nothing
        """Give back what only a busy call needs; the next bytes bring it back."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the socket at once."""

    # --- with waiting: the same for all -------------------------------------------------------

    async def receive(self, size_max: int = RECEIVE_BYTES) -> bytes:
        """Return 1 to ``size_max`` bytes, or ``b""`` once the far end has finished.

        Raises TlsError when a record is damaged.
        """
        if not self.early:
            room = memoryview(bytearray(RECEIVE_BYTES))
            while (count := self.take(room)) is None:
                await self.readiness.readable()
            self.early = bytes(room[:count])
        data, self.early = self.early[:size_max], self.early[size_max:]
        return data

    def unread(self, data: bytes) -> None:
        """Put bytes back: ``receive`` returns them first."""
        self.early = data + self.early

    async def send(self, data: bytes) -> None:
        """Return when every byte is with the kernel. Raises OSError if the far end is gone."""
        view = memoryview(data)
        given = self.give(view)
        while given < len(view) or self.backlog:
            await self.readiness.writable()
            self.flush()
            if not self.backlog and given < len(view):
                given += self.give(view[given:])

    async def send_end(self) -> None:
        """Say that nothing more will be sent; receiving goes on."""
        while not self.end():
            await self.readiness.writable()


class SecureLeg(Leg):
    """A leg under TLS, whichever engine does it, on the socket of the plain leg below."""

    __slots__ = ("_below",)

    def __init__(self, below: "PlainLeg") -> None:
        super().__init__(below.sock, below.readiness)
        self._below = below

    @property
    @abstractmethod
    def info(self) -> TlsInfo:
        """What TLS agreed on; after the handshake."""

    @abstractmethod
    async def handshake(self) -> None:
        """Shake hands. Raises TlsError with a sentence that says what failed, or OSError."""

    def close(self) -> None:
        """Let go of the socket at once."""
        self._below.close()


class PlainLeg(Leg):
    """A leg without TLS."""

    __slots__ = ("_closed",)

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(sock, Readiness(sock, loop))
        self._closed = False

    @property
    def takes_splice(self) -> bool:
        """Always."""
        return True

    @property
    def gives_splice(self) -> bool:
        """Always."""
        return True

    def take(self, into: memoryview) -> int | None:
        """Read from the socket."""
        try:
            return self.sock.recv_into(into)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return 0

    def give(self, data: memoryview) -> int:
        """Write to the socket."""
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def end(self) -> bool:
        """Send a FIN; the kernel puts it behind what it still holds."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        return True

    def close(self) -> None:
        """Let go of the socket at once."""
        if not self._closed:
            self._closed = True
            self.readiness.forget()
            self.sock.close()


class TlsLeg(SecureLeg):
    """A leg under TLS by the portable engine."""

    __slots__ = ("_ciphertext", "_engine", "_is_ending")

    def __init__(self, below: PlainLeg, engine: Engine) -> None:
        super().__init__(below)
        self._engine = engine
        self._ciphertext = b""
        """Made by the engine, not yet taken by the socket."""
        self._is_ending = False
        if below.early:
            engine.receive_ciphertext(below.early)
            below.early = b""

    @property
    def info(self) -> TlsInfo:
        """What TLS agreed on; after the handshake."""
        return self._engine.info

    @property
    def backlog(self) -> bool:
        """Whether ciphertext waits for the socket."""
        return bool(self._ciphertext)

    async def handshake(self) -> None:
        """Shake hands. Raises TlsError with a sentence that says what failed."""
        room = memoryview(bytearray(RECEIVE_BYTES))
        try:
            while not self._engine.handshake():
                self.flush()
                while self.backlog:
                    await self.readiness.writable()
                    self.flush()
                if not self._read_ciphertext(room):
                    await self.readiness.readable()
        finally:
            # On failure too: the alert tells the far end what we tell the operator.
            with contextlib.suppress(OSError):
                self.flush()

    def take(self, into: memoryview) -> int | None:
        """Read ciphertext until there is plaintext."""
        while (plaintext := self._engine.read(len(into))) is None:
            if not self._read_ciphertext(into):
                return None
        into[: len(plaintext)] = plaintext
        with contextlib.suppress(OSError):
            self.flush()  # TLS itself may have something to say: an answer to a KeyUpdate
        return len(plaintext)

    def give(self, data: memoryview) -> int:
        """Encrypt all of it, unless earlier ciphertext still waits."""
        self.flush()
        if self._ciphertext:
            return 0
        self._engine.write(data)
        self.flush()
        return len(data)

    def flush(self) -> None:
        """Write ciphertext to the socket, as much as it takes."""
        self._ciphertext += self._engine.ciphertext_to_send()
        while self._ciphertext:
            try:
                self._ciphertext = self._ciphertext[self.sock.send(self._ciphertext) :]
            except (BlockingIOError, InterruptedError):
                return

    def end(self) -> bool:
        """Send close_notify and a FIN."""
        if not self._is_ending:
            self._is_ending = True
            self._engine.close_notify()
        try:
            self.flush()
        except OSError:  # nobody is there any more
            return True
        return not self._ciphertext and self._below.end()

    def _read_ciphertext(self, room: memoryview) -> bool:
        """Give the engine what the socket has; return whether that was anything."""
        try:
            count = self.sock.recv_into(room)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            count = 0
        if count:
            self._engine.receive_ciphertext(bytes(room[:count]))
        else:
            self._engine.receive_eof()
        return True
