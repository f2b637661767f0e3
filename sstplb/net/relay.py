"""The relay: two pumps, one each way, and a watch for silence.

A pump takes what one leg has and gives it to the other, no faster than the other takes it:
back-pressure is simply that nothing is received while a send waits. When its source ends, the
pump ends its sink (half-close) and is done; the call is over when both pumps are, or when the
silence lasts too long. Once one direction has ended the shorter ``half_closed_timeout`` counts,
for a far end that has finished rarely has long to wait.

Between two plain legs the bytes need never enter this process: ``splice(2)`` moves them from
socket to pipe to socket inside the kernel. That halves the cost of bulk; for a few small packets
a plain ``recv`` and ``send`` cost the same and hold no pipe, so a pump borrows a pipe only when
what arrives is large, and gives it back when it runs dry.

Deliberately not here: what the bytes mean. A terminating session passes ``seen`` callbacks, and
the relay calls them with each chunk before it is sent on; it never changes a byte.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from sstplb.errors import TlsError
from sstplb.net.leg import Leg, PlainLeg

PIPE_BYTES = 1 << 20
"""What a pipe is asked to hold; without privilege the kernel may grant less."""
BULK_BYTES = 16384
"""A plain read at least this large is followed by splicing."""
PIPES_MAX = 64
"""Idle pipes that are kept; a pipe holds two descriptors, and pages only while it is filled."""

Seen = Callable[[bytes], None]


class IdleTooLongError(Exception):
    """Neither direction moved a byte for the idle limit."""


class LegFailedError(Exception):
    """TLS failed on a leg in the middle of the relay."""

    def __init__(self, leg: Leg, cause: TlsError) -> None:
        super().__init__(str(cause))
        self.leg = leg
        self.reason = cause.reason


@dataclass(slots=True)
class Meter:
    """What one pump has moved."""

    bytes: int = 0
    ended: bool = False


@dataclass(slots=True)
class Flow:
    """Both directions of one relay: ``inward`` client to backend, ``outward`` back."""

    moved_at: float
    """When a byte last moved, on the loop's clock."""
    inward: Meter = field(default_factory=Meter)
    outward: Meter = field(default_factory=Meter)
    ended_first: Meter | None = None
    """The direction whose source finished first; None: neither has."""


class Pipes:
    """Pipes for splicing, used again and again. One for the whole process."""

    def __init__(self) -> None:
        self._idle: list[tuple[int, int]] = []

    def borrow(self) -> tuple[int, int]:
        """Return (read end, write end) of an empty pipe. Raises OSError: out of descriptors."""
        if self._idle:
            return self._idle.pop()
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return pipe

    def give_back(self, pipe: tuple[int, int], *, empty: bool) -> None:
        """Keep an empty pipe for the next; one with bytes in it must never be used again."""
        if empty and len(self._idle) < PIPES_MAX:
            self._idle.append(pipe)
        else:
            os.close(pipe[0])
            os.close(pipe[1])

    def close(self) -> None:
        """Close the idle pipes."""
        while self._idle:
            self.give_back(self._idle.pop(), empty=False)


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Seconds and bytes a relay keeps to."""

    idle_timeout_s: float
    half_closed_timeout_s: float
    chunk_bytes: int


async def relay(
    client: Leg,
    backend: Leg,
    flow: Flow,
    limits: RelayLimits,
    pipes: Pipes,
    *,
    seen_inward: Seen | None = None,
    seen_outward: Seen | None = None,
) -> None:
    """Move bytes both ways until both sides have finished.

    Raises IdleTooLongError after too long a silence, and LegFailedError when a record is damaged.
    ``flow`` is kept up to date while it runs. Does not close the legs.
    """
    inward = _Pump(client, backend, flow, flow.inward, limits.chunk_bytes, pipes, seen_inward)
    outward = _Pump(backend, client, flow, flow.outward, limits.chunk_bytes, pipes, seen_outward)
    try:
        async with asyncio.TaskGroup() as pumps:
            tasks = (
                pumps.create_task(inward.run(), name="pump inward"),
                pumps.create_task(outward.run(), name="pump outward"),
            )
            watch = pumps.create_task(_watch_silence(flow, limits), name="silence")
            for task in tasks:
                task.add_done_callback(lambda _: all(t.done() for t in tasks) and watch.cancel())
    except ExceptionGroup as group:
        # One reason is enough; and what is raised inside ``except*`` would be a group again.
        raise group.exceptions[0] from None


async def _watch_silence(flow: Flow, limits: RelayLimits) -> None:
    """Sleep until the silence could be too long; look; sleep again."""
    loop = asyncio.get_running_loop()
    while True:
        half_closed = flow.inward.ended or flow.outward.ended
        limit = limits.half_closed_timeout_s if half_closed else limits.idle_timeout_s
        silent_for = loop.time() - flow.moved_at
        if silent_for >= limit:
            raise IdleTooLongError(f"no byte either way for {silent_for:.0f} s (limit {limit:g} s)")
        # A half-close must not have to wait for the longer sleep.
        await asyncio.sleep(min(limit - silent_for, limits.half_closed_timeout_s))


class _Pump:
    """One direction."""

    def __init__(
        self,
        source: Leg,
        sink: Leg,
        flow: Flow,
        meter: Meter,
        chunk_bytes: int,
        pipes: Pipes,
        seen: Seen | None,
    ) -> None:
        self.source = source
        self.sink = sink
        self.flow = flow
        self.meter = meter
        self.chunk_bytes = chunk_bytes
        self.pipes = pipes
        self.seen = seen
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Pump until the source ends or the sink is gone."""
        try:
            if isinstance(self.source, PlainLeg) and isinstance(self.sink, PlainLeg):
                await self._move_plain(self.source, self.sink)
            else:
                await self._copy()
        except OSError:
            # The sink is gone. Its own pump sees that as an end; nothing can be delivered here.
            pass
        except TlsError as error:
            raise LegFailedError(self.source, error) from error
        finally:
            self.meter.ended = True
            self.flow.ended_first = self.flow.ended_first or self.meter
        await self.sink.send_end()

    async def _copy(self) -> None:
        while chunk := await self.source.receive(self.chunk_bytes):
            if self.seen is not None:
                self.seen(chunk)
            await self.sink.send(chunk)
            self._moved(len(chunk))

    async def _move_plain(self, source: PlainLeg, sink: PlainLeg) -> None:
        while chunk := await source.receive(self.chunk_bytes):
            if self.seen is not None:
                self.seen(chunk)
            await sink.send(chunk)
            self._moved(len(chunk))
            if len(chunk) >= BULK_BYTES and self.seen is None and not source.early:
                await self._splice(source, sink)

    async def _splice(self, source: PlainLeg, sink: PlainLeg) -> None:
        """Splice while bytes keep coming; return when the source has none at the moment."""
        try:
            pipe = self.pipes.borrow()
        except OSError:
            return  # out of descriptors: copying goes on
        held = 0
        flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
        try:
            while True:
                try:
                    held = os.splice(source.sock.fileno(), pipe[1], PIPE_BYTES, flags=flags)
                except BlockingIOError:
                    return
                if not held:
                    return  # the end: receive() will see it too
                while held:
                    try:
                        moved = os.splice(pipe[0], sink.sock.fileno(), held, flags=flags)
                    except BlockingIOError:
                        await sink.readiness.writable()
                    else:
                        held -= moved
                        self._moved(moved)
        finally:
            self.pipes.give_back(pipe, empty=held == 0)

    def _moved(self, count: int) -> None:
        self.meter.bytes += count
        self.flow.moved_at = self._loop.time()
