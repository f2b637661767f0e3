"""One call in progress: what ``session.py`` carries from step to step, and lets go at the end.

A ``Call`` holds the legs, the record and its place in the admission and the pool. It is all the
operator's side knows of a running call, and ``end`` is all it can do to one.
"""

import asyncio
import time
from ipaddress import ip_address
from typing import Protocol

from sstplb.account.ledger import Ledger
from sstplb.account.record import Outcome, Record, Try
from sstplb.balance.admission import Admission, Ticket
from sstplb.balance.backend import Backend
from sstplb.balance.health import Flip
from sstplb.balance.pool import Place
from sstplb.errors import CallError
from sstplb.net import tcp
from sstplb.net.capture import Recorder
from sstplb.net.leg import Leg, PlainLeg
from sstplb.net.relay import Flow, Relay, Transit
from sstplb.net.service import Route, Service
from sstplb.protocol.boundary import Boundary
from sstplb.protocol.call import Watcher
from sstplb.tls.policy import ServedCertificate


class Desk(Protocol):
    """What a call needs of the balancer, and all it sees of it."""

    ledger: Ledger
    admission: Admission
    transit: Transit
    recorder: Recorder

    def health_changed(self, backend: Backend, flip: Flip | None) -> None:
        """Note what a call's outcome did to the health of a backend (None: nothing)."""

    def call_closed(self, call: "Call") -> None:
        """Write the line of a call whose record has just been closed."""

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

    def __init__(
        self,
        desk: Desk,
        service: Service,
        client_leg: PlainLeg,
        client_address: tcp.Address,
        local_address: tcp.Address,
        record: Record,
    ) -> None:
        self.desk = desk
        self.service = service
        self.client_leg: Leg = client_leg
        self.client_address = client_address
        self.local_address = local_address
        self.record = record
        self.served: ServedCertificate | None = None
        """The certificate this client was shown."""
        self.route: Route | None = None
        self.backend: Backend | None = None
        self.backend_leg: Leg | None = None
        self.handed_over = False
        self.is_visit = False
        """Whether this turned out not to be SSTP."""
        self.flow = Flow(now_s())
        self.watcher: Watcher | None = None
        self.relay: Relay | None = None
        """While it runs."""
        self.ended_by: CallError | None = None
        """Why somebody outside ended this call."""
        self.task: asyncio.Task[None] | None = None
        self._ticket: Ticket | None = None
        self._place: Place | None = None
        self._marked_at = now_s()
        self._weighed = False

    # --- the steps of a session note here what they did -----------------------------------

    @property
    def comes_through_proxy(self) -> bool:
        """Whether a trusted proxy stands before us, and will say who is really calling."""
        networks = self.service.listener.proxy_protocol_from
        if not networks:
            return False
        host = ip_address(self.client_address[0])
        return any(host in network for network in networks)

    def admit(self) -> None:
        """Take a place among all calls. Raises LimitReachedError.

        Behind a proxy the client's own limits wait until ``is_from``.
        """
        listener = self.service.listener
        host = None if self.comes_through_proxy else self.client_address[0]
        self._ticket = self.desk.admission.admit(listener.name, listener.calls_max, host, now_s())

    def is_from(self, source: tcp.Address | None) -> None:
        """Note who is really calling; None: the proxy itself. Raises LimitReachedError."""
        if source is not None:
            self.client_address = self.record.client = source
        assert self._ticket is not None, "admission comes first"
        self._ticket.client_is(self.client_address[0], now_s())

    def mark(self, phase: str) -> None:
        """Note how long the step called ``phase`` took: all since the last mark."""
        now = now_s()
        setattr(self.record.phases, f"{phase}_s", now - self._marked_at)
        self._marked_at = now

    def tried(self, backend: Backend, seconds: float, reason: str = "") -> None:
        """Note one try; ``reason`` is empty for the one that succeeded."""
        self.record.tries.append(Try(backend.name, reason, seconds))

    def reached(self, route: Route, backend: Backend, leg: Leg, place: Place) -> None:
        """Note the backend that answered; its leg and its place are the call's from now on."""
        self.route, self.backend, self.backend_leg, self._place = route, backend, leg, place
        self.record.pool, self.record.backend = route.pool.name, backend.name
        self.mark("reach")

    def hand_over(self) -> None:
        """Note that the client has its answer: there is no way back from now on."""
        self.handed_over = True
        if self._ticket is not None:
            self._ticket.opened()
        if self._place is not None:
            self._place.handed_over(now_s())
        self.flow.moved_at = now_s()

    def did_well(self) -> None:
        """Tell the backend's health that this call proved its worth; once."""
        if self.backend is not None and not self._weighed:
            self._weighed = True
            self.desk.health_changed(self.backend, self.backend.health.call_succeeded(now_s()))

    def did_badly(self, why: str) -> None:
        """Tell the backend's health that it failed this call; unless it had proved its worth."""
        if self.backend is not None and not self._weighed:
            self._weighed = True
            self.desk.health_changed(self.backend, self.backend.health.call_failed(why, now_s()))

    def close(self, outcome: Outcome, reason: str, detail: str = "") -> None:
        """Close the record: exactly once (the ledger insists)."""
        record = self.record
        record.bytes_in, record.bytes_out = self.flow.inward.bytes, self.flow.outward.bytes
        if self.watcher is not None:
            record.packets_in = self.watcher.packets_from_client
            record.packets_out = self.watcher.packets_from_backend
        if self.handed_over:
            self.mark("relay")
        self.desk.ledger.close(record, outcome, reason, detail, now_s())
        self.desk.call_closed(self)

    def let_go(self) -> None:
        """Give back everything the call held. Never raises."""
        for leg in (self.client_leg, self.backend_leg):
            if leg is not None:
                leg.close()
        if self._place is not None:
            self._place.release(now_s())
        if self._ticket is not None:
            self._ticket.release()

    # --- what a capture asks ------------------------------------------------------------------

    @property
    def is_recordable(self) -> bool:
        """Whether SSTP packets pass here that can be seen."""
        return self.relay is not None and self.served is not None and not self.is_visit

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

    def end(self, why: CallError) -> None:
        """End this call from outside: its session closes both legs and records ``why``."""
        if self.ended_by is None and self.task is not None and not self.task.done():
            self.ended_by = why
            self.task.cancel(str(why))
