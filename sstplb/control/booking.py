"""Booking: one call, as the place sees it that decides for the whole balancer.

It holds what the call has taken (its ticket among all calls, its place on a backend, its record)
and gives each back exactly once, whoever carries the call and however that ends. It is what
``net/booking.py`` describes; a session in this process speaks to it directly, one in a worker by
messages (``control/workers.py``).
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from sstplb.account.ledger import Ledger
from sstplb.account.record import Address, Outcome, Record
from sstplb.balance.admission import Admission, Ticket
from sstplb.balance.backend import Backend
from sstplb.balance.health import Flip
from sstplb.balance.pool import NOBODY, Candidates, Place, Pool
from sstplb.balance.same_certificate import choice, objection
from sstplb.config.schema import Mode
from sstplb.control.plan import PooledChecks
from sstplb.errors import BackendError, CallError, NoBackendAvailableError
from sstplb.net.booking import Chosen
from sstplb.net.call import now_s
from sstplb.net.service import Service
from sstplb.protocol.watcher import BINDING_REFUSED


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

    __slots__ = (
        "_awaited", "_candidates", "_checks", "_claim", "_desk", "_is_released", "_its_claim",
        "_place", "_shown", "_spared", "_ticket", "backend", "carried", "pool", "record", "service",
    )  # fmt: skip

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
        self._claim: tuple[Pool, Candidates] | None = None
        """Who is to be asked, if this becomes a call."""
        self._its_claim: Backend | None = None
        """The backend that this call claimed before it had a head."""
        self._shown: bytes | None = None
        """SHA-256 of the certificate that the client binds its call to, if any."""
        self._candidates: tuple[Backend, ...] = ()
        self._spared = NOBODY
        self._is_released = False
        self._awaited: asyncio.Event | None = None
        """Made for the first who waits: an event is large, and there is one booking per call."""

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
        if not self._is_released:
            self._awaited = self._awaited or asyncio.Event()
            await self._awaited.wait()

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

    async def claim(self, pool: str, certificates: tuple[bytes, ...]) -> bytes:
        """Look for the best candidate; return the certificate that it accepts."""
        asked = self._checks[pool].pool
        found = asked.claim(
            self.record.client[0], now_s(), lambda b: self._objection(asked, certificates, b)
        )
        if not found.backends:
            return certificates[0]  # ``first`` will say why, once the client can be told
        self._claim = asked, found
        chosen = choice(
            self.service.listener.mode, found.backends[0], certificates, self._checks[pool].ours
        )
        return chosen or certificates[0]

    async def first(self, pool: str, shown_sha256: bytes | None) -> Chosen:
        """Take the best candidate. Raises NoBackendAvailableError."""
        self.pool = asked = self._checks[pool].pool
        self._shown = shown_sha256
        shown = _all_of(shown_sha256)
        claimed = self._claimed(asked)
        if claimed is not None:
            self._its_claim = claimed.backends[0]
            if (chosen := await self._ask_in_turn(claimed)) is not None:
                return chosen
        found = asked.candidates(
            self.record.client[0], now_s(), lambda b: self._objection(asked, shown, b)
        )
        if (chosen := await self._ask_in_turn(found)) is None:
            why = ", ".join(f"{name} {slug}" for name, slug in found.excluded)
            message = f"no backend of pool {pool} can be used: {why}"
            raise NoBackendAvailableError(message, _passed_over(asked, found.excluded))
        return chosen

    async def next(self) -> Chosen | None:
        """Take the next candidate that still can; None: there are no more."""
        assert self.pool is not None, "first comes first"
        while self._candidates:
            backend, *rest = self._candidates
            self._candidates = tuple(rest)
            try:
                self._place = self.pool.reserve(
                    backend,
                    self.record.client[0],
                    now_s(),
                    spared=backend.name in self._spared,
                    claimed=backend is self._its_claim,
                )
            except BackendError:
                continue  # it has become unusable since it was picked
            assert backend.address is not None, "an unresolved backend is no candidate"
            return Chosen(backend.config, backend.address)
        return None

    async def could_be_served(self, pool: str, shown_sha256: bytes | None) -> bool:
        """Whether there would be a candidate now."""
        asked, shown = self._checks[pool].pool, _all_of(shown_sha256)
        return asked.could_serve(now_s(), lambda b: self._objection(asked, shown, b))

    async def handed_over(self) -> None:
        """Count the call as running on its backend, and remember the client."""
        assert self._place is not None, "it was handed over to somebody"
        assert self._ticket is not None, "admission comes first"
        self._ticket.opened()
        self._place.handed_over(now_s())
        self.backend = self._place.backend
        self._desk.ledger.handed_over(self.record)
        self._candidates = ()

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

    def did_well(self, *, proven: bool = False) -> None:
        """Tell the backend's health, and which certificate it accepts."""
        if self.backend is not None:
            if proven and self._shown is not None and self._learns:
                self.backend.learnt.accepted(self._shown)
            flip = self.backend.health.call_succeeded(now_s())
            self._desk.health_changed(self.backend, flip)

    def did_badly(self, reason: str, why: str) -> None:
        """Tell affinity and the backend's health; the client may have its part in it."""
        if self._place is not None:
            self._place.failed()
        if self.backend is not None and self.pool is not None:
            client = self.pool.affinity.key(self.record.client[0])
            if reason == BINDING_REFUSED and self._shown is not None and self._learns:
                self.backend.learnt.refused(self._shown, client)
            flip = self.backend.call_failed(reason, why, now_s(), client)
            self._desk.health_changed(self.backend, flip)

    def close(self, outcome: Outcome, reason: str, detail: str) -> None:
        """Close the record, count it, and write its line."""
        self._desk.ledger.close(self.record, outcome, reason, detail, now_s())
        self._desk.call_closed(self.record)

    def release(self) -> None:
        """Give back what the call held. Again: changes nothing."""
        if self._is_released:
            return
        self._give_claim_back()
        if self._place is not None:
            self._place.release(now_s())
        if self._ticket is not None:
            self._ticket.release()
        self._is_released = True
        self.carried = None  # it knows us: without this only the collector would free either
        if self._awaited is not None:
            self._awaited.set()
        self._desk.released(self)

    def did_well_as(self, proven: bool) -> None:
        """Take it from a worker, whose messages have no names for their arguments."""
        self.did_well(proven=proven)

    async def _ask_in_turn(self, found: Candidates) -> Chosen | None:
        """Go by these candidates from now on; return the first that still can."""
        self._candidates, self._spared = found.backends, found.spared
        return await self.next()

    @property
    def _learns(self) -> bool:
        """Whether what backends accept is learnt from calls like this one."""
        return self.service.listener.mode is Mode.OFFLOAD

    def _claimed(self, pool: Pool) -> Candidates | None:
        """Return what was claimed of this pool, without those that what is shown does not suit.

        None: there is no claim, or nothing is left of it; then its turn has been given back.
        """
        if self._claim is None:
            return None
        claimed, found = self._claim
        shown = _all_of(self._shown)
        fit = [b for b in found.backends if self._objection(pool, shown, b) is None]
        if claimed is not pool or found.backends[0] not in fit:
            self._give_claim_back()  # a tenant's pool, or it has another certificate by now
            return None
        pool.used(found)
        self._claim = None
        return replace(found, backends=tuple(fit))

    def _give_claim_back(self) -> None:
        if self._claim is not None:
            pool, found = self._claim
            self._claim = None
            pool.give_back(found)

    def _objection(self, pool: Pool, shown: tuple[bytes, ...], backend: Backend) -> str | None:
        mode, policy = self.service.listener.mode, pool.config.tls.same_certificate
        return objection(mode, policy, shown, self._checks[pool.name].ours, backend)


def _all_of(shown_sha256: bytes | None) -> tuple[bytes, ...]:
    return () if shown_sha256 is None else (shown_sha256,)


def _passed_over(pool: Pool, excluded: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Add to each slug what the backend's health says, where that is why."""
    backends = {backend.name: backend for backend in pool.backends}
    for name, slug in excluded:
        health = backends[name].health
        said = {"down": health.reason, "set_aside": health.set_aside_reason}
        yield name, slug, said.get(slug, "")
