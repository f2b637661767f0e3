"""Recording chosen calls as files for Wireshark: the PPP frames that SSTP carries, out of TLS.

A **capture** is one file with a choice of calls (by listener, by client, or one call), and an end:
after so many seconds, at so many bytes, when somebody stops it, or when the disk is full. An
operator begins it, or the configuration. Each call is an interface of the file, named by its
number, so that calls can be told apart (``frame.interface_name``). SSTP's own control messages are
no PPP frames: they stand as a comment on the next frame of their direction.

- A call is recorded where TLS ends here; in passthrough there is nothing to see. New calls are
  recorded from their first packet. A call that runs is joined at its next packet: where it is
  followed in full that is known, else it is found by what headers look like (``boundary.py``).
- Nothing of it is in the way of other calls: a call that is recorded has a tap in its relay, all
  others have none. A capture that fails ends; its calls go on.
- What authenticates users is overwritten with zeros, unless the configuration says otherwise; each
  such frame says so in its comment.
- Files are 0600 and never overwritten. Whole blocks are written, so a file can be read at any time,
  and after a full disk too. They are written by the event loop, once a second or by 64 KiB: the
  directory should not be on a network.
"""

import asyncio
import contextlib
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Protocol

import structlog

from sstplb import __version__
from sstplb.account.record import Record
from sstplb.config import quantities, schema
from sstplb.errors import CaptureError, PacketError, ProtocolError
from sstplb.net.relay import Relay
from sstplb.protocol import pcapng
from sstplb.protocol.boundary import Boundary
from sstplb.protocol.packet import Packet, PacketReader, parse_message
from sstplb.protocol.ppp_secrets import without_secrets

FLUSH_S = 1.0
FLUSH_BYTES = 65536
MESSAGES_MAX = 8
"""Control messages that a frame's comment names; a quiet call says hello once a minute."""
FILE_PATTERN = "sstplb-*.pcapng"
FILE_HEAD_BYTES = 4096
"""Enough for the block that begins a file."""
SECRETS_REMOVED = "sstplb: secrets overwritten with zeros"

log = structlog.get_logger()


class Recordable(Protocol):
    """What a capture needs of a call."""

    record: Record
    relay: Relay | None

    @property
    def is_recordable(self) -> bool:
        """Whether its packets can be seen."""

    def boundaries(self) -> tuple[Boundary, Boundary]:
        """Where the next packets begin: the client's, the backend's."""


@dataclass(frozen=True, slots=True)
class CaptureChoice:
    """Which calls to record: all that fit everything that is said; at least something must be."""

    listener: str | None = None
    client: IPv4Network | IPv6Network | None = None
    call: int | None = None
    """The number of one call that runs; the capture ends with it."""

    def fits(self, record: Record) -> bool:
        """Whether this call is meant."""
        return (
            (self.listener is None or self.listener == record.listener)
            and (self.client is None or ip_address(record.client[0]) in self.client)
            and (self.call is None or self.call == record.id)
        )

    def __str__(self) -> str:
        said = (("listener", self.listener), ("client", self.client), ("call", self.call))
        return ", ".join(f"{name} {value}" for name, value in said if value is not None)


@dataclass(frozen=True, slots=True)
class CaptureState:
    """How far a capture is."""

    name: str
    """Of its file."""
    chosen: str
    """Which calls."""
    started_at: float
    ends_at: float
    """At the latest."""
    calls: int
    calls_left_out: int
    """Calls that fitted, when ``capture.calls_max`` were being recorded."""
    frames: int
    bytes: int
    bytes_max: int
    with_secrets: bool
    ended_because: str
    """Empty: it runs."""


class Recorder:
    """All captures of a process's calls. Every method belongs to the event loop's thread."""

    def __init__(self) -> None:
        self.captures: dict[str, Capture] = {}
        """Those that run, by name: that of their file."""
        self._settings = schema.Capture()
        self._recorded: dict[int, tuple[Capture, Recordable]] = {}

    def reconfigure(self, settings: schema.Capture, running: Iterable[Recordable] = ()) -> None:
        """Take over settings; begin what they ask for, if they ask for something new.

        A capture lives under the settings it began with: when they change, it ends.
        Never raises: what cannot begin is logged.
        """
        if settings == self._settings:
            return
        is_allowed = settings.directory is not None
        change = "has changed" if is_allowed else "does not allow it any more"
        self.stop_all(f"the configuration {change}")
        self._settings = settings
        wanted = CaptureChoice(settings.listener, settings.client)
        if settings.directory is not None and str(wanted):
            try:
                self.start(wanted, running)
            except CaptureError as error:
                log.warning("capture_refused", message=str(error))

    def start(
        self,
        choice: CaptureChoice,
        running: Iterable[Recordable] = (),
        *,
        seconds_max: float | None = None,
        bytes_max: int | None = None,
    ) -> "Capture":
        """Begin a capture of those that fit among ``running`` calls, and of new ones.

        Its limits may be set below those of the configuration, not above.
        Raises CaptureError when it is not allowed, or its file cannot be made.
        """
        settings = self._settings
        if settings.directory is None:
            raise CaptureError("captures are not allowed: set capture.directory")
        if not str(choice):
            raise CaptureError("say which calls: a listener, a client or a call")
        running = tuple(running)
        if choice.call is not None:
            self._insist_on(choice.call, running)
        capture = Capture(
            _new_file(settings),
            choice,
            min(bytes_max or settings.bytes_max, settings.bytes_max),
            settings.secrets,
            self._ended,
        )
        self.captures[capture.name] = capture
        seconds = min(seconds_max or settings.seconds_max, settings.seconds_max)
        log.warning(
            "capture_started",
            message=f"{capture.name}: recording {choice} for {seconds:g} s at most"
            + (", secrets too" if settings.secrets else ""),
            capture=capture.name,
        )
        capture.begin(seconds)
        for call in running:
            self.consider(call)
        return capture

    def consider(self, call: Recordable) -> None:
        """Record a call if a capture wants it; once in its life, before its first packet."""
        number = call.record.id
        if not self.captures or number in self._recorded or not call.is_recordable:
            return
        newest_first = reversed(self.captures.values())
        capture = next((c for c in newest_first if c.choice.fits(call.record)), None)
        if capture is None or call.relay is None:
            return
        if len(self._recorded) >= self._settings.calls_max:
            capture.calls_left_out += 1
            return
        self._recorded[number] = capture, call
        call.relay.tap(*capture.join(call.record, call.boundaries()))

    def leave(self, call: Recordable) -> None:
        """Note that a call's relay has ended."""
        capture, _ = self._recorded.pop(call.record.id, (None, None))
        if capture is not None and capture.choice.call is not None:
            capture.stop("its call has ended")

    def stop_all(self, why: str) -> None:
        """End every capture."""
        for capture in tuple(self.captures.values()):
            capture.stop(why)

    def _insist_on(self, number: int, running: Iterable[Recordable]) -> None:
        """Raise CaptureError when one call cannot be recorded."""
        call = next((call for call in running if call.record.id == number), None)
        if call is None or not call.is_recordable:
            raise CaptureError(
                f"call {number} has no packets that can be seen: either TLS does not end here "
                "(passthrough), or it is not connected to a backend, or it is no SSTP"
            )
        if number in self._recorded:
            other, _ = self._recorded[number]
            raise CaptureError(f"call {number} is being recorded already, by {other.name}")
        if len(self._recorded) >= self._settings.calls_max:
            raise CaptureError(
                f"{len(self._recorded)} calls are being recorded already (capture.calls_max)"
            )

    def _ended(self, capture: "Capture") -> None:
        self.captures.pop(capture.name, None)
        for number, (owner, call) in tuple(self._recorded.items()):
            if owner is capture:
                del self._recorded[number]
                if call.relay is not None:
                    call.relay.untap()


class Capture:
    """One file that is being written."""

    def __init__(
        self,
        path: Path,
        choice: CaptureChoice,
        bytes_max: int,
        with_secrets: bool,
        on_end: Callable[["Capture"], None],
    ) -> None:
        """Make the file. Raises CaptureError."""
        self.path = path
        self.name = path.name
        self.choice = choice
        self.frames = 0
        self.calls = 0
        self.calls_left_out = 0
        """Calls that fitted, when ``calls_max`` were being recorded."""
        self.bytes = 0
        """Written, or about to be."""
        self.ended_because = ""
        """Empty: it still runs."""
        self._bytes_max = bytes_max
        self._with_secrets = with_secrets
        self._on_end = on_end
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._started_at = self._ends_at = time.time()
        self._timers: list[asyncio.TimerHandle] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise CaptureError(f"cannot write {path}: {error.strerror}") from error

    def begin(self, seconds_max: float) -> None:
        """Write the file's beginning; from now on it ends by itself."""
        loop = asyncio.get_running_loop()
        self._ends_at = self._started_at + seconds_max
        self._timers = [
            loop.call_later(seconds_max, self.stop, f"its {seconds_max:g} s are over"),
            loop.call_later(FLUSH_S, self._flush_again, loop),
        ]
        secrets = "secrets are in it" if self._with_secrets else "without secrets"
        self._write(pcapng.section_header(f"sstplb {__version__}", f"{self.choice}; {secrets}"))

    @property
    def state(self) -> CaptureState:
        """How far it is."""
        return CaptureState(
            self.name,
            str(self.choice),
            self._started_at,
            self._ends_at,
            self.calls,
            self.calls_left_out,
            self.frames,
            self.bytes,
            self._bytes_max,
            self._with_secrets,
            self.ended_because,
        )

    def join(
        self, record: Record, boundaries: tuple[Boundary, Boundary]
    ) -> tuple[Callable[[memoryview], None], Callable[[memoryview], None]]:
        """Introduce a call; return what is to be shown its chunks, client's and backend's."""
        number, self.calls = self.calls, self.calls + 1
        name = f"call {record.id}"
        if record.correlation_id:
            name += f" {record.correlation_id}"
        description = (
            f"client {record.client[0]} port {record.client[1]}, listener {record.listener}, "
            f"backend {record.backend}; received: from the client, sent: from the backend"
        )
        self._write(pcapng.interface(name, description))
        client, backend = (
            _Direction(boundary, partial(self._record, number, from_backend=from_backend))
            for boundary, from_backend in zip(boundaries, (False, True), strict=True)
        )
        return client.see, backend.see

    def stop(self, why: str) -> None:
        """End the capture and close its file."""
        if self.ended_because:
            return
        self.ended_because = why
        for timer in self._timers:
            timer.cancel()
        self._flush()
        os.close(self._descriptor)
        self._on_end(self)
        left_out = f", {self.calls_left_out} left out" if self.calls_left_out else ""
        log.warning(
            "capture_ended",
            message=f"{self.path}: {self.ended_because}; "
            f"{self.frames} frames of {self.calls} calls{left_out}",
            capture=self.name,
        )

    def _record(self, interface: int, frame: bytes, messages: str, *, from_backend: bool) -> None:
        kept = frame if self._with_secrets else without_secrets(frame)
        comments = [messages, SECRETS_REMOVED if kept != frame else ""]
        block = pcapng.ppp_frame(
            interface,
            time.time_ns(),
            kept,
            from_backend=from_backend,
            comment="; ".join(filter(None, comments)),
        )
        if self._write(block):
            self.frames += 1

    def _write(self, block: bytes) -> bool:
        """Take a block on, if it still fits; return whether it does."""
        if self.ended_because:
            return False
        if self.bytes + len(block) > self._bytes_max:
            self.stop(f"its {quantities.format_size(self._bytes_max)} are full")
            return False
        self.bytes += len(block)
        self._waiting.append(block)
        self._waiting_bytes += len(block)
        if self._waiting_bytes >= FLUSH_BYTES:
            self._flush()
        return True

    def _flush_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._flush()
        if not self.ended_because:
            self._timers[1] = loop.call_later(FLUSH_S, self._flush_again, loop)

    def _flush(self) -> None:
        """Bring to the disk what waits; when it takes no more, end behind the last whole block."""
        data, self._waiting, self._waiting_bytes = b"".join(self._waiting), [], 0
        rest = data
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self.bytes -= len(data)
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.bytes)
            why = f"the file cannot be written: {error.strerror}"
            if self.ended_because:
                self.ended_because += f", and {why}"
            self.stop(why)


class _Direction:
    """What one side of one call says."""

    def __init__(self, boundary: Boundary, record: Callable[[bytes, str], None]) -> None:
        self._boundary: Boundary | None = None if boundary.is_here else boundary
        self._packets = PacketReader()
        self._record: Callable[[bytes, str], None] | None = record
        self._messages: deque[str] = deque(maxlen=MESSAGES_MAX)

    def see(self, chunk: memoryview) -> None:
        """Record the frames that a chunk completes. Never raises: the call must go on.

        A stream that cannot be cut is given up.
        """
        if self._record is None:
            return
        data = bytes(chunk)
        try:
            if self._boundary is not None:
                begins = self._boundary.reached_in(data)
                if begins is None:
                    return
                data, self._boundary = data[begins:], None
            for packet in self._packets.feed(data):
                self._take(packet)
        except PacketError:
            self._record = None
        except Exception as error:  # a mistake of ours, and not of the call's
            self._record = None
            log.exception("capture_failed", message=f"a capture failed: {error!r}")

    def _take(self, packet: Packet) -> None:
        if packet.is_control:
            self._messages.append(parse_message(packet.payload).name)
        elif self._record is not None:
            before = f"SSTP before this: {', '.join(self._messages)}" if self._messages else ""
            self._messages.clear()
            self._record(packet.payload, before)


@dataclass(frozen=True, slots=True)
class CaptureFile:
    """A file in the directory."""

    name: str
    about: str
    """Which calls were chosen, and whether secrets are in it."""
    bytes: int
    written_at: float
    """When it was last written to."""


def files_in(directory: Path) -> list[CaptureFile]:
    """Return the captures in a directory, oldest first. Raises CaptureError.

    Only the beginning of each is read: they may be large, and many.
    """
    try:
        return [_look_at(path) for path in sorted(directory.glob(FILE_PATTERN))]
    except OSError as error:
        raise CaptureError(f"cannot look into {directory}: {error.strerror}") from error


def _look_at(path: Path) -> CaptureFile:
    with path.open("rb") as file:
        head, found = file.read(FILE_HEAD_BYTES), os.fstat(file.fileno())
    try:
        about = next((pcapng.comment_of(block) for block in pcapng.blocks(head)), "")
    except ProtocolError:
        about = "no capture of ours"
    return CaptureFile(path.name, about, found.st_size, found.st_mtime)


def _new_file(settings: schema.Capture) -> Path:
    """Return the path of the next file. Raises CaptureError when there are too many already."""
    assert settings.directory is not None, "asked before"
    try:
        count = sum(1 for _ in settings.directory.glob(FILE_PATTERN))
    except OSError as error:
        raise CaptureError(f"cannot look into {settings.directory}: {error.strerror}") from error
    if count >= settings.files_max:
        raise CaptureError(
            f"{settings.directory} holds {count} captures (capture.files_max): remove some first"
        )
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    paths = (
        settings.directory / f"sstplb-{stamp}-{os.getpid()}-{number}.pcapng"
        for number in itertools.count(1)
    )
    return next(path for path in paths if not path.exists())
