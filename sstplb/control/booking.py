"""Booking: one call, as the place sees it that decides for the whole balancer.

It holds what the call has taken (its ticket among all calls, its place on a backend, its record)
and gives each back exactly once, whoever carries the call and however that ends. It is what
``net/booking.py`` describes; a session in this process speaks to it directly, one in a worker by
messages (``control/workers.py``).
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from sstplb.account.ledger import Ledger
from sstplb.account.record import Address, Outcome, Record
from sstplb.balance.admission import Admission, Ticket
from sstplb.balance.backend import Backend
from sstplb.balance.health import Flip
from sstplb.balance.pool import Place, Pool
from sstplb.balance.same_certificate import objection
from sstplb.control.plan import PooledChecks
from sstplb.errors import BackendError, CallError, NoBackendAvailableError
from sstplb.net.booking import Chosen
from sstplb.net.call import now_s
from sstplb.net.service import Service


class Carried(Protocol):
    """A call that is being carried, here or elsewhere."""

    @property
    def bytes_so_far(self) -> tuple[int, int]:
        """Bytes moved until now: client to backend, backend to client."""

    def end(self, why: CallError, *, politely: bool = False) -> None:
        """End it from outside."""


class Desk(Protocol):
    """What a booking needs of the balancer."""

    admission: Admission
    ledger: Ledger

    def health_changed(self, backend: Backend, flip: Flip | None) -> None:
        """Note what a call's outcome did to the health of a backend (None: nothing)."""

    def call_closed(self, record: Record) -> None:
        """Write the line of a call whose record has just been closed."""

    def released(self, booking: "Booking") -> None:
        """Forget a call that is over."""


class Booking:
    """One call's booking."""

    def __init__(
        self, desk: Desk, service: Service, checks: Mapping[str, PooledChecks], record: Record
    ) -> None:
        self.record = record
        self.service = service
        self.carried: Carried | None = None
        """Who carries the call; None: nobody yet."""
        self.pool: Pool | None = None
        self.backend: Backend | None = None
        """The backend it was handed over to."""
        self._desk = desk
        self._checks = checks
        self._ticket: Ticket | None = None
        self._place: Place | None = None
        self._candidates: list[Backend] = []
        self._spared: frozenset[str] = frozenset()
        self._released = asyncio.Event()

    def admit(self) -> None:
        """Take a place among all calls. Raises LimitReachedError.

        Behind a proxy the client's own limits wait until ``client_is``.
        """
        listener, host = self.service.listener, self.record.client[0]
        known = None if self.service.expects_preface(host) else host
        self._ticket = self._desk.admission.admit(listener.name, listener.calls_max, known, now_s())

    def end(self, why: CallError, *, politely: bool = False) -> None:
        """End this call from outside: its session closes both legs and records ``why``."""
        if self.carried is not None:
            self.carried.end(why, politely=politely)

    async def wait_released(self) -> None:
        """Wait until the call is over."""
        await self._released.wait()

    @property
    def bytes_so_far(self) -> tuple[int, int]:
        """Bytes moved until now: client to backend, backend to client."""
        return (0, 0) if self.carried is None else self.carried.bytes_so_far

    # --- what the call asks (net/booking.py) ----------------------------------------------------

    async def client_is(self, source: Address) -> None:
        """Count the call for the client a proxy named. Raises LimitReachedError."""
        self.record.client = source
        assert self._ticket is not None, "admission comes first"
        self._ticket.client_is(source[0], now_s())

    async def first(self, pool: str, shown_sha256: bytes | None) -> Chosen:
        """Take the best candidate. Raises NoBackendAvailableError."""
        self.pool = asked = self._checks[pool].pool
        found = asked.candidates(
            self.record.client[0], now_s(), lambda b: self._objection(asked, shown_sha256, b)
        )
        self._candidates, self._spared = list(found.backends), found.spared
        chosen = await self.next()
        if chosen is None:
            why = ", ".join(f"{name} {slug}" for name, slug in found.excluded)
            message = f"no backend of pool {pool} can be used: {why}"
            raise NoBackendAvailableError(message, _passed_over(asked, found.excluded))
        return chosen

    async def next(self) -> Chosen | None:
        """Take the next candidate that still can; None: there are no more."""
        assert self.pool is not None, "first comes first"
        while self._candidates:
            backend = self._candidates.pop(0)
            try:
                self._place = self.pool.reserve(
                    backend,
                    self.record.client[0],
                    now_s(),
                    spared=backend.name in self._spared,
                )
            except BackendError:
                continue  # it has become unusable since it was picked
            assert backend.address is not None, "an unresolved backend is no candidate"
            return Chosen(backend.config, backend.address)
        return None

    async def could_be_served(self, pool: str, shown_sha256: bytes | None) -> bool:
        """Whether there would be a candidate now."""
        asked = self._checks[pool].pool
        return asked.could_serve(now_s(), lambda b: self._objection(asked, shown_sha256, b))

    async def handed_over(self) -> None:
        """Count the call as running on its backend, and remember the client."""
        assert self._place is not None, "it was handed over to somebody"
        assert self._ticket is not None, "admission comes first"
        self._ticket.opened()
        self._place.handed_over(now_s())
        self.backend = self._place.backend
        self._desk.ledger.handed_over(self.record)

    # --- what the call tells --------------------------------------------------------------------

    def saw_leaf(self, sha256: bytes) -> None:
        """Keep it for the same-certificate rule."""
        if self._place is not None:
            self._place.backend.leaf_sha256 = sha256

    def learnt(self) -> None:
        """Do nothing: the record tells it already."""

    def try_failed(self, reason: str | None, why: str) -> None:
        """Give the candidate's place back, and mark its health: no client can bring this about."""
        place, self._place = self._place, None
        if place is None:
            return
        place.release(now_s())
        if reason is not None:
            flip = place.backend.call_failed(reason, why, now_s())
            self._desk.health_changed(place.backend, flip)

    def did_well(self) -> None:
        """Tell the backend's health."""
        if self.backend is not None:
            flip = self.backend.health.call_succeeded(now_s())
            self._desk.health_changed(self.backend, flip)

    def did_badly(self, reason: str, why: str) -> None:
        """Tell the backend's health, and whose call it was: the client may have its part in it."""
        if self.backend is not None and self.pool is not None:
            client = self.pool.affinity.key(self.record.client[0])
            flip = self.backend.call_failed(reason, why, now_s(), client)
            self._desk.health_changed(self.backend, flip)

    def close(self, outcome: Outcome, reason: str, detail: str) -> None:
        """Close the record, count it, and write its line."""
        self._desk.ledger.close(self.record, outcome, reason, detail, now_s())
        self._desk.call_closed(self.record)

    def release(self) -> None:
        """Give back what the call held. Again: changes nothing."""
        if self._released.is_set():
            return
        if self._place is not None:
            self._place.release(now_s())
        if self._ticket is not None:
            self._ticket.release()
        self._released.set()
        self._desk.released(self)

    def _objection(self, pool: Pool, shown_sha256: bytes | None, backend: Backend) -> str | None:
        policy = pool.config.tls.same_certificate
        return objection(self.service.listener.mode, policy, shown_sha256, backend)


def _passed_over(pool: Pool, excluded: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Add to each slug what the backend's health says, where that is why."""
    backends = {backend.name: backend for backend in pool.backends}
    for name, slug in excluded:
        health = backends[name].health
        said = {"down": health.reason, "set_aside": health.set_aside_reason}
        yield name, slug, said.get(slug, "")
