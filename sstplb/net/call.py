"""One call in progress: what ``session.py`` carries from step to step, and lets go at the end.

A ``Call`` holds the legs, the record and the booking: its word with the place where limits, turns
and health are decided (``net/booking.py``).
"""

import asyncio
import time
from typing import Protocol

from sstplb.account.record import Outcome, Try
from sstplb.errors import CallError
from sstplb.net import insight, tcp
from sstplb.net.booking import Booking
from sstplb.net.capture import Recorder
from sstplb.net.leg import Leg, PlainLeg
from sstplb.net.relay import Flow, Relay, Transit
from sstplb.net.service import Route, Service
from sstplb.protocol.boundary import Boundary
from sstplb.protocol.watcher import Watcher
from sstplb.tls.policy import ServedCertificate


class Desk(Protocol):
    """What the calls of a process share."""

    transit: Transit
    recorder: Recorder

    def internal_error(self, call: "Call", error: Exception) -> None:
        """Write down, with its traceback, a mistake of ours."""


def now_s() -> float:
    """Return seconds on the monotonic clock, which is also the event loop's.

    uvloop's own ``time()`` is the same clock, but read once a turn and in whole milliseconds:
    good enough for timeouts, too coarse for the phases of a call.
    """
    return time.monotonic()


class Call:
    """One SSTP connection through us."""

    __slots__ = (
        "_marked_at", "_weighed", "backend_hashes", "backend_leg", "began", "booking",
        "client_leg", "desk", "ended_by", "flow", "handed_over", "is_visit", "record",
        "relay", "served", "service", "task", "watcher",
    )  # fmt: skip

    def __init__(
        self,
        desk: Desk,
        service: Service,
        client_leg: PlainLeg,
        booking: Booking,
    ) -> None:
        self.desk = desk
        self.service = service
        self.client_leg: Leg = client_leg
        self.booking = booking
        self.record = booking.record
        self.served: ServedCertificate | None = None
        """The certificate this client was shown."""
        self.backend_leg: Leg | None = None
        self.backend_hashes: tuple[bytes, ...] = ()
        """Of the certificate the backend expects this client to have seen, as far as is known."""
        self.handed_over = False
        self.is_visit = False
        """Whether this turned out not to be SSTP."""
        self.began = now_s()
        self.flow = Flow(self.began)
        self.watcher: Watcher | None = None
        self.relay: Relay | None = None
        """While it runs."""
        self.ended_by: CallError | None = None
        """Why somebody outside ended this call."""
        self.task: asyncio.Task[None] | None = None
        self._marked_at = self.began
        self._weighed = False

    @property
    def client_address(self) -> tcp.Address:
        """Who calls, as far as is known."""
        return self.record.client

    @property
    def local_address(self) -> tcp.Address:
        """Where it was called."""
        host, port = self.client_leg.sock.getsockname()[:2]
        return tcp.unmapped(host), port

    # --- the steps of a session note here what they did -----------------------------------

    async def is_from(self, source: tcp.Address | None) -> None:
        """Note who is really calling; None: the proxy itself. Raises LimitReachedError."""
        if source is not None:
            self.record.client = source
        await self.booking.client_is(self.record.client)

    def mark(self, phase: str) -> None:
        """Note how long the step called ``phase`` took: all since the last mark."""
        now = now_s()
        setattr(self.record.phases, f"{phase}_s", now - self._marked_at)
        self._marked_at = now

    def tried(self, backend: str, seconds: float, reason: str = "", why: str = "") -> None:
        """Note one try; ``reason`` is empty for the one that succeeded, ``why`` is in words."""
        self.record.tries.append(Try(backend, reason, seconds, why))

    def reached(self, route: Route, backend: str, leg: Leg) -> None:
        """Note the backend that answered; its leg is the call's from now on."""
        self.backend_leg = leg
        self.record.pool, self.record.backend = route.pool, backend
        self.mark("reach")

    async def hand_over(self) -> None:
        """Note that the client gets its answer: there is no way back from now on.

        It is noted before the answer goes out, so that whatever the client does next finds its
        backend remembered, at whichever worker.
        """
        await self.booking.handed_over()
        self.handed_over = True
        self.flow.moved_at = now_s()

    def did_well(self, *, proven: bool = False) -> None:
        """Tell the backend's health that this call proved its worth; once.

        ``proven``: its binding was accepted.
        """
        if self.handed_over and not self._weighed:
            self._weighed = True
            self.booking.did_well(proven=proven)

    def did_badly(self, reason: str, why: str) -> None:
        """Tell the backend's health that it failed this call; unless it had proved its worth."""
        if self.handed_over and not self._weighed:
            self._weighed = True
            self.booking.did_badly(reason, why)

    def see_inward(self, chunk: memoryview) -> int:
        """Look at what the client sends, and tell; return as ``relay.Seen``."""
        watcher = self.watcher
        assert watcher is not None, "who has none is not shown anything"
        if self.has_lost_backend:
            return 0  # what the client says now is no goodbye, but an answer to that
        watcher.from_client(chunk, now_s())
        if watcher.story.news:
            self.tell()
        self._weigh(watcher)
        return watcher.looks_at_bytes

    def see_outward(self, chunk: memoryview) -> int:
        """Look at what the backend sends, and tell; return as ``relay.Seen``."""
        watcher = self.watcher
        assert watcher is not None, "who has none is not shown anything"
        watcher.from_backend(chunk, now_s())
        if watcher.story.news:
            self.tell()
        self._weigh(watcher)
        return watcher.looks_at_bytes

    def _weigh(self, watcher: Watcher) -> None:
        """Tell what the call says of its backend as soon as it can be said.

        A fault is told before the client gets to know of it, so that its next try, at whichever
        worker, is not led to the same backend.
        """
        if watcher.is_proven:
            self.did_well(proven=True)
        elif (fault := watcher.fault) is not None and fault.side == "backend":
            self.did_badly(fault.reason, fault.sentence)

    @property
    def has_lost_backend(self) -> bool:
        """Whether the backend closed its connection in the middle of the call, without a goodbye.

        False where one may have been missed.
        """
        flow, watcher = self.flow, self.watcher
        return (
            flow.ended_first is flow.outward
            and watcher is not None
            and watcher.is_in_midst
            and not flow.outward.may_be_over
        )

    def tell(self) -> None:
        """Have the record tell what the watcher has seen."""
        if self.watcher is not None:
            insight.tell(self.record, self.watcher, self.service.discretion, self.began)

    def close(self, outcome: Outcome, reason: str, detail: str = "") -> None:
        """Close the record: exactly once (the ledger insists)."""
        record, flow = self.record, self.flow
        record.bytes_in, record.bytes_out = self.bytes_so_far
        self.tell()
        if self.watcher is not None and record.story is not None:
            insight.tell_hellos(record.story, self.watcher, flow.moved_at)
        client_first = None if flow.ended_first is None else flow.ended_first is flow.inward
        record.ended_by = insight.ended_by(record, outcome, client_first=client_first)
        if self.watcher is not None:
            record.packets_in = self.watcher.packets_from_client
            record.packets_out = self.watcher.packets_from_backend
        if self.handed_over:
            self.mark("relay")
        self.booking.close(outcome, reason, detail)

    def let_go(self) -> None:
        """Give back everything the call held. Never raises."""
        for leg in (self.client_leg, self.backend_leg):
            if leg is not None:
                leg.close()
        self.booking.release()

    # --- what a capture asks ------------------------------------------------------------------

    @property
    def is_recordable(self) -> bool:
        """Whether SSTP packets pass here that can be seen."""
        is_relayed = self.relay is not None and self.relay.is_pumping
        return is_relayed and self.served is not None and not self.is_visit

    def boundaries(self) -> tuple[Boundary, Boundary]:
        """Return where the next packets begin: the client's, the backend's."""
        if self.watcher is not None:
            return self.watcher.boundaries()
        is_new = not self.flow.inward.bytes and not self.flow.outward.bytes
        return (Boundary(), Boundary()) if is_new else (Boundary(None), Boundary(None))

    # --- for everybody else -----------------------------------------------------------------

    @property
    def bytes_so_far(self) -> tuple[int, int]:
        """Bytes moved until now: client to backend, backend to client."""
        return self.flow.inward.bytes, self.flow.outward.bytes

    def end(self, why: CallError, *, politely: bool = False) -> None:
        """End this call from outside: its session closes both legs and records ``why``.

        ``politely``: the sides are told, if they have come so far (``goodbye.py``).
        """
        if politely and self.relay is not None:
            self.relay.interrupt(why)
        elif self.ended_by is None and self.task is not None and not self.task.done():
            self.ended_by = why
            self.task.cancel(str(why))
