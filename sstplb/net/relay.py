"""The relay: two pumps, one each way, and a limit to silence.

Once a call is handed over it may last for days and carry millions of packets, so from here on no
coroutine runs for it: the event loop calls a pump when its source has something, the pump takes
it and gives it to the sink, and that is all. Back-pressure is that a pump whose sink is full looks
at its source no more until the sink is writable. When its source ends, a pump ends its sink
(half-close) and is done; the call is over when both pumps are, or when the silence lasts too long.
Once one direction has ended the shorter ``half_closed_timeout`` counts, for a far end that has
finished rarely has long to wait.

All calls of a process share one buffer (``Transit``). Only while its sink does not take all a pump
keeps the buffer for itself, and the others get another; an idle call holds none at all.

Between two plain legs, or legs whose TLS the kernel does (``tls/kernel.py``), bytes need never
enter this process: ``splice(2)`` moves them from socket to pipe to socket. That halves the cost of
bulk; for a few small packets a plain read and write cost the same and hold no pipe, so a pump
borrows a pipe only when what arrives is large, and keeps it until a wake-up brings little.

Deliberately not here: what the bytes mean. A terminating session passes ``seen`` callbacks, and
the relay calls them with each chunk before it is sent on; it never changes a byte.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from sstplb.errors import TlsError
from sstplb.net.leg import RECEIVE_BYTES, Leg
from sstplb.net.readiness import Watch
from sstplb.net.rounds import Company, Rounds

PIPE_BYTES = 1 << 20
"""What a pipe is asked to hold; without privilege the kernel may grant less."""
BULK_BYTES = 16384
"""A plain read at least this large is followed by splicing."""
PIPES_MAX = 128
"""Pipes of the whole process, lent or idle; a pipe holds two descriptors, and pages only while it
is filled. A pump that gets none copies."""
BUFFER_BYTES_MIN = 2 * RECEIVE_BYTES
"""With less a TLS leg could not read two records at once, and would not tell of the second."""
KEPT_MAX = 64
"""Buffers kept by pumps whose sink is full; with so many out, the next ones are small, so that many
stalled receivers cost 32 KiB each, not 256."""
SPARE_MAX = 16
"""Buffers that are kept for the next sink that is full."""
COPY_BYTES_MAX = 4096
"""As much of a rest is copied rather than its buffer kept."""
BITES_MAX = 4
"""How often a pump bites before the loop may look at others."""
REST_S = 30.0
"""A leg that was silent for so long gives back what only a busy one needs."""

Seen = Callable[[memoryview], int]
"""Looks at a chunk, keeps nothing of it, and returns how large a chunk may be that it still wants
to see; 0: none any more."""

Glance = Callable[[memoryview], bool]
"""Says of every chunk, at a glance, whether it may be the last one of its source."""

Tap = Callable[[memoryview], None]
"""Looks at every chunk, and keeps nothing of it. Must not raise."""

_NOTHING = memoryview(b"")


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
    may_be_over: bool = True
    """What ``Glance`` says of the latest chunk; True where nobody has glanced at it."""


@dataclass(slots=True)
class Flow:
    """Both directions of one relay: ``inward`` client to backend, ``outward`` back."""

    moved_at: float
    """When a byte last moved: seconds, monotonic."""
    inward: Meter = field(default_factory=Meter)
    outward: Meter = field(default_factory=Meter)
    ended_first: Meter | None = None
    """The direction whose source finished first; None: neither has."""


class Transit:
    """What all relays of a process share: buffers, pipes to splice through, a watch, rounds."""

    def __init__(self, buffer_bytes: int) -> None:
        self.rounds = Rounds()
        self._watch: Watch | None = None
        self._spare: list[memoryview] = []
        self._kept = 0
        self._idle: list[tuple[int, int]] = []
        self._lent = 0
        self.resize(buffer_bytes)

    def resize(self, buffer_bytes: int) -> None:
        """Use buffers of another size from now on."""
        self._size = max(buffer_bytes, BUFFER_BYTES_MIN)
        self.buffer = memoryview(bytearray(self._size))
        """Where the next bite goes. What is in it lasts until the loop calls the next pump."""
        self._spare.clear()

    @property
    def watch(self) -> Watch:
        """Where all pumps wait for their sources."""
        if self._watch is None:
            self._watch = Watch(asyncio.get_running_loop())
        return self._watch

    def keep(self) -> memoryview:
        """Keep the buffer as it is: the next bite goes to another. Return it, for ``done_with``."""
        kept = self.buffer
        self._kept += 1
        if self._spare:
            self.buffer = self._spare.pop()
        else:
            size = self._size if self._kept < KEPT_MAX else BUFFER_BYTES_MIN
            self.buffer = memoryview(bytearray(size))
        return kept

    def done_with(self, buffer: memoryview) -> None:
        """Take back a buffer that was kept."""
        self._kept -= 1
        if len(buffer) != self._size:
            return
        if len(self.buffer) < self._size:
            self.buffer = buffer
        elif len(self._spare) < SPARE_MAX:
            self._spare.append(buffer)

    def borrow(self) -> tuple[int, int]:
        """Return (read end, write end) of an empty pipe. Raises OSError when there is none."""
        if self._idle:
            self._lent += 1
            return self._idle.pop()
        if self._lent >= PIPES_MAX:
            raise OSError(errno.EMFILE, "all pipes are in use")
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._lent += 1
        return pipe

    def give_back(self, pipe: tuple[int, int], *, empty: bool) -> None:
        """Keep an empty pipe for the next; one with bytes in it must never be used again."""
        self._lent -= 1
        if empty:
            self._idle.append(pipe)
        else:
            _close(pipe)

    def close(self) -> None:
        """Close the idle pipes, and what is watched with; no relay runs any more."""
        while self._idle:
            _close(self._idle.pop())
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _close(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    os.close(pipe[1])


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Seconds a relay keeps to."""

    idle_timeout_s: float
    half_closed_timeout_s: float


class Relay:
    """The two pumps of one call.

    ``flow`` is kept up to date while it runs. Does not close the legs.
    """

    __slots__ = ("_company", "finished", "flow", "leftovers", "limits", "loop", "pumps", "transit")

    def __init__(
        self,
        client: Leg,
        backend: Leg,
        flow: Flow,
        limits: RelayLimits,
        transit: Transit,
        *,
        seen_inward: Seen | None = None,
        seen_outward: Seen | None = None,
        glance_outward: Glance | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.flow, self.limits, self.transit = flow, limits, transit
        self.finished: asyncio.Future[None] = self.loop.create_future()
        inward = _Pump(self, client, backend, flow.inward, seen_inward)
        outward = _Pump(self, backend, client, flow.outward, seen_outward, glance_outward)
        self.pumps: tuple[_Pump, ...] = (inward, outward)
        self.leftovers = b"", b""
        """After ``interrupt``: what was taken inward and outward, and not yet given."""
        self._company: Company | None = None
        """With whom its silence is looked at."""

    async def run(self) -> None:
        """Move bytes both ways until both sides have finished.

        Raises IdleTooLongError after too long a silence, LegFailedError when a record is damaged,
        and what ``interrupt`` is given.
        """
        try:
            await self.begin()
        finally:
            self.stop()

    def begin(self) -> asyncio.Future[None]:
        """Do what ``run`` does, for who saves the coroutine: await the future, then ``stop``."""
        self.look()
        for pump in self.pumps:
            pump.begin()
        return self.finished

    @property
    def is_pumping(self) -> bool:
        """Whether bytes pass here: not once it was interrupted, while its call says goodbye."""
        return bool(self.pumps)

    def tap(self, inward: Tap, outward: Tap) -> None:
        """Show every chunk to these as well, from now on, while it is pumping."""
        for pump, tap in zip(self.pumps, (inward, outward), strict=True):
            pump.tap(tap)

    def untap(self) -> None:
        """Show chunks only to whom they were shown before ``tap``."""
        for pump in self.pumps:
            pump.untap()

    def interrupt(self, error: Exception) -> None:
        """End the relay with ``error``, at once, and keep what the legs' next owner must give."""
        if not self.finished.done():
            inward, outward = self.pumps
            self.leftovers = inward.take_rest(), outward.take_rest()
            self.stop()
            self.fail(error)

    # --- what the pumps share -------------------------------------------------------------------

    def look(self) -> None:
        """Look how long it has been silent; look again when it could be too long."""
        ended = self.flow.inward.ended, self.flow.outward.ended
        limits = self.limits
        limit = limits.half_closed_timeout_s if any(ended) else limits.idle_timeout_s
        silent_for = monotonic() - self.flow.moved_at
        if silent_for >= limit and all(ended):  # a sink is too full to be told, and may have gone
            self._finish()
            return
        if silent_for >= limit:
            self.interrupt(
                IdleTooLongError(f"no byte either way for {silent_for:.0f} s (limit {limit:g} s)")
            )
            return
        if silent_for >= REST_S:
            for pump in self.pumps:
                pump.rest()
        # A half-close must not have to wait for the longer sleep.
        pause = min(limit - silent_for, limits.half_closed_timeout_s)
        self._company = self.transit.rounds.join(self, pause)

    def pump_is_done(self) -> None:
        """Finish when it was the last."""
        if all(pump.is_done for pump in self.pumps):
            self._finish()

    def _finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the relay with ``error``; the first one counts."""
        if not self.finished.done():
            self.finished.set_exception(error)

    def stop(self) -> None:
        """Let go of the loop, whatever the pumps were doing."""
        if self._company is not None:
            self._company.discard(self)
        for pump in self.pumps:
            pump.stop()
        self.pumps = ()  # they know us: without this only the collector would free either
        if self.finished.done() and not self.finished.cancelled():
            self.finished.exception()  # a failure that came while we were being cancelled


def _nothing_seen(_chunk: memoryview) -> int:
    return 0


class _Pump:
    """One direction. Its methods are called by the event loop."""

    __slots__ = (
        "_glance", "_held", "_kept", "_meter", "_pipe", "_reads", "_relay", "_rest", "_seen",
        "_seen_bytes_max", "_sink", "_source", "_untapped", "is_done",
    )  # fmt: skip

    def __init__(
        self,
        relay: Relay,
        source: Leg,
        sink: Leg,
        meter: Meter,
        seen: Seen | None,
        glance: Glance | None = None,
    ) -> None:
        self._relay, self._source, self._sink = relay, source, sink
        self._meter, self._seen, self._glance = meter, seen, glance
        self._seen_bytes_max = 0 if seen is None else sys.maxsize
        self._untapped: Seen | None = None
        """Who sees chunks when nobody listens in; while somebody does, ``_seen`` is both."""
        self._rest = _NOTHING
        """What the sink has not taken yet."""
        self._kept: memoryview | None = None
        """The buffer it lies in, when that is not a copy."""
        self._pipe: tuple[int, int] | None = None
        self._held = 0
        """Bytes in the pipe."""
        self._reads = True
        """Whether it takes what the source has: not while the sink is full, nor after its end."""
        self.is_done = False
        """Whether the sink was told that nothing more comes."""

    def begin(self) -> None:
        """Give what was read too early, then wait for more."""
        early, self._source.early = self._source.early, b""
        self._source.readiness.watch(self._relay.transit.watch, self)
        if not early or self._pass_on(memoryview(early), len(early)):
            # TLS may hold more already, of which the socket will not tell.
            self._relay.loop.call_soon(self.on_readable)

    def tap(self, tap: Tap) -> None:
        """Show every chunk to ``tap`` too; in the place of ``seen``: no tap, no cost."""
        assert self._untapped is None, "one tap at a time"
        seen, wanted = self._seen, self._seen_bytes_max
        self._untapped = was = seen or _nothing_seen

        def both(chunk: memoryview) -> int:
            nonlocal wanted
            if len(chunk) <= wanted:
                wanted = was(chunk)
            tap(chunk)
            return sys.maxsize

        self._seen, self._seen_bytes_max = both, sys.maxsize

    def untap(self) -> None:
        """Show chunks to ``seen`` alone again; it says itself how much it still wants."""
        if self._untapped is not None:
            self._seen, self._untapped = self._untapped, None

    def rest(self) -> None:
        """Give back what only a busy pump needs."""
        self._source.rest()
        if not self._held:
            self._give_pipe_back()

    def take_rest(self) -> bytes:
        """Return what was taken from the source and not given to the sink; it is counted."""
        rest = bytes(self._rest)
        if self._held:
            assert self._pipe is not None, "it is in the pipe"
            rest = os.read(self._pipe[0], self._held)
            self._held -= len(rest)
            self._meter.bytes += len(rest)
        return rest

    def stop(self) -> None:
        """Look at the sockets no more."""
        self._reads = False
        self._source.readiness.unwatch()
        self._sink.readiness.unwatch_room()
        self._forget_rest()
        self._give_pipe_back()

    def on_readable(self) -> None:
        """Move what the source has."""
        if not self._reads:
            return
        source, buffer = self._source, self._relay.transit.buffer
        bites = BITES_MAX
        try:
            while bites:
                bites -= 1
                if self._pipe is not None:
                    if self._splice():
                        continue
                    return
                count = source.take(buffer)
                if count is None:
                    return
                if not count:
                    self._end()
                    return
                if not self._pass_on(buffer[:count], count):
                    return
                if count < len(buffer):
                    return  # that was all there was
        except TlsError as error:
            self._relay.fail(LegFailedError(source, error))
        except Exception as error:  # noqa: BLE001 - nothing may get lost in a callback
            self._relay.fail(error)
        else:
            self._relay.loop.call_soon(self.on_readable)

    def on_writable(self) -> None:
        """Give the sink what waits, then go on reading."""
        relay, sink = self._relay, self._sink
        if not relay.pumps:
            return  # it was stopped meanwhile
        try:
            if self._held and not self._empty_pipe():
                return
            sink.flush()
            if self._rest and not sink.backlog:
                self._rest = self._rest[sink.give(self._rest) :]
                relay.flow.moved_at = monotonic()
            if self._rest or sink.backlog:
                return
        except OSError:
            self._end(sink_is_gone=True)
        except Exception as error:  # noqa: BLE001 - nothing may get lost in a callback
            relay.fail(error)
        else:
            self._forget_rest()
            sink.readiness.unwatch_room()
            self._reads = True
            self._source.readiness.watch(relay.transit.watch, self)
            self.on_readable()

    def _pass_on(self, chunk: memoryview, count: int) -> bool:
        """Give a chunk to the sink; return whether it took all, so that reading may go on."""
        sink = self._sink
        if count <= self._seen_bytes_max and self._seen is not None:
            self._seen_bytes_max = self._seen(chunk)
        if self._glance is not None:
            self._meter.may_be_over = self._glance(chunk)
        try:
            given = sink.give(chunk)
        except OSError:
            self._end(sink_is_gone=True)
            return False
        self._meter.bytes += count
        self._relay.flow.moved_at = monotonic()
        if given < count or sink.backlog:
            self._keep(chunk[given:])
            self._wait_for_sink()
            return False
        if count >= BULK_BYTES and self._can_splice():
            with contextlib.suppress(OSError):  # out of descriptors: copying goes on
                self._pipe = self._relay.transit.borrow()
        return True

    def _keep(self, rest: memoryview) -> None:
        if len(rest) > COPY_BYTES_MAX and rest.obj is self._relay.transit.buffer.obj:
            self._rest, self._kept = rest, self._relay.transit.keep()
        else:
            self._rest = memoryview(bytes(rest))

    def _forget_rest(self) -> None:
        self._rest = _NOTHING
        if self._kept is not None:
            self._relay.transit.done_with(self._kept)
            self._kept = None

    def _wait_for_sink(self) -> None:
        self._reads = False
        self._source.readiness.unwatch()
        self._sink.readiness.watch_room(self.on_writable)

    def _end(self, *, sink_is_gone: bool = False) -> None:
        """Stop: the source has finished, or the sink is gone; nothing more goes this way."""
        flow, meter = self._relay.flow, self._meter
        self._source.readiness.unwatch()
        self._sink.readiness.unwatch_room()
        self._forget_rest()
        self._give_pipe_back()
        self._reads = False
        meter.ended = True
        opposite = flow.inward if meter is flow.outward else flow.outward
        flow.ended_first = flow.ended_first or (opposite if sink_is_gone else meter)
        self._end_sink()

    def _end_sink(self) -> None:
        """Tell the sink that nothing more comes; one that is full, when it is writable."""
        if not self._relay.pumps:
            return  # it was stopped meanwhile
        self.is_done = self._sink.end()
        if self.is_done:
            self._sink.readiness.unwatch_room()
            self._relay.pump_is_done()
        else:
            self._sink.readiness.watch_room(self._end_sink)

    # --- inside the kernel ------------------------------------------------------------------

    def _can_splice(self) -> bool:
        is_unseen = self._seen_bytes_max < BULK_BYTES
        return is_unseen and self._source.gives_splice and self._sink.takes_splice

    def _splice(self) -> bool:
        """Move a pipe's worth; return whether to bite again at once."""
        assert self._pipe is not None
        if self._seen_bytes_max >= BULK_BYTES:  # somebody has begun to listen in
            self._give_pipe_back()
            return True
        flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
        try:
            self._held = os.splice(
                self._source.sock.fileno(), self._pipe[1], PIPE_BYTES, flags=flags
            )
        except BlockingIOError:
            return False
        except OSError:  # a reset, or what is no data
            self._held = 0
        count = self._held
        if not count:
            self._give_pipe_back()
            return True  # ``take`` knows what it means
        self._meter.may_be_over = True
        if not self._empty_pipe():
            return False
        # Who waits for an ending looks at the first chunk of each wake-up.
        if count < BULK_BYTES or self._seen_bytes_max:
            self._give_pipe_back()
        return count >= PIPE_BYTES  # else the socket was empty, or the loop calls again

    def _empty_pipe(self) -> bool:
        """Move what the pipe holds to the sink; return whether that was all."""
        assert self._pipe is not None
        flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
        while self._held:
            try:
                moved = os.splice(self._pipe[0], self._sink.sock.fileno(), self._held, flags=flags)
            except BlockingIOError:
                self._wait_for_sink()
                return False
            except OSError:
                self._end(sink_is_gone=True)
                return False
            self._held -= moved
            self._meter.bytes += moved
            self._relay.flow.moved_at = monotonic()
        return True

    def _give_pipe_back(self) -> None:
        if self._pipe is not None:
            self._relay.transit.give_back(self._pipe, empty=self._held == 0)
            self._pipe, self._held = None, 0
