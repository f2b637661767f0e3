"""A pool: who may answer a call, in which order, and how many each has.

A call asks for its ``candidates`` once: affinity first, then the strategy's order, backups after
all others. For each it tries it takes a place (``reserve``), which counts at once: a backend's
``calls_max`` cannot be overshot by calls that are still dialing, however many dial together. The
place is given back when the try fails, or becomes a running call at hand-over. Only then the client
is remembered, so after a failover affinity knows who really took the call. A backend that
then fails the call is asked last by that client (``affinity.py``): whatever the strategy, its next
try goes elsewhere if it can.

Backups are for when no other backend is usable, and affinity does not change that: a client that
was served by a backup in bad times goes back with everybody else when they are over.

**Set aside, but not all of them.** Of the backends in service that failed calls have put aside
(``health.py``), at most ``set_aside_percent_max`` are really kept away, and never the last one that
could take a call: whoever has the least time left to wait is *spared*. This is asked anew for each
call, so it holds whatever happens to the others meanwhile.

**Reload.** A new ``Pool`` takes over from the previous one: the ``Backend`` objects whose name and
configured address stay (with their health, counters and running calls; calls of the old pool end
on the same object), the affinity table if its prefix lengths stay, and the strategy's place in
its round. Building one cannot fail once the configuration is loaded, and it changes the backends
it takes over: let it be the last step of a reload, when nothing else can go wrong.

This module decides; it neither dials nor waits, and how many candidates are tried is the
caller's business.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from sstplb.balance.affinity import AffinityTable, Entry
from sstplb.balance.backend import Backend
from sstplb.balance.health import apply_preset
from sstplb.balance.strategy import pick_order
from sstplb.config import schema
from sstplb.errors import BackendError

Objection = Callable[[Backend], str | None]
"""Why a backend will not do for one particular call, as a slug; None: it will."""

NOBODY: frozenset[str] = frozenset()
"""Python makes a new one each time, of 216 bytes."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Who may answer one call."""

    backends: tuple[Backend, ...]
    """The first choice, then the fallbacks; empty when nobody can."""
    excluded: tuple[tuple[str, str], ...]
    """The names of all others, each with the slug of its reason."""
    by_affinity: bool
    """Whether the first one is first because the client had it before."""
    spared: frozenset[str] = NOBODY
    """The names of those that are set aside, and asked all the same."""
    competed: tuple[Backend, ...] = ()
    """Among whom the first one's turn was spent; empty: none was."""


@dataclass(frozen=True, slots=True)
class Usability:
    """Who can take a call at one moment."""

    because: Mapping[str, str | None]
    """By name, the slug of what keeps new calls away; None: nothing does."""
    spared: frozenset[str]
    """The names of those that are set aside, and have to be asked all the same."""


class _Stage(Enum):
    DIALING = "dialing"
    RUNNING = "running"
    GIVEN_BACK = "given back"


class Place:
    """One of a backend's ``calls_max`` places, held by one call. Made by ``Pool.reserve``."""

    __slots__ = ("_affinity", "_entry", "_key", "_stage", "backend")

    def __init__(self, backend: Backend, affinity: AffinityTable, key: bytes) -> None:
        self.backend = backend
        self._affinity = affinity
        self._key = key
        self._entry: Entry | None = None
        self._stage = _Stage.DIALING
        backend.dialing += 1

    def handed_over(self, now: float) -> None:
        """Note that the client has its answer: the call runs, the client is remembered.

        Raises RuntimeError when said twice or after ``release``: that is a mistake of ours.
        """
        if self._stage is not _Stage.DIALING:
            raise RuntimeError(f"hand-over of a place that is {self._stage.value}")
        self._stage = _Stage.RUNNING
        self.backend.dialing -= 1
        self.backend.calls += 1
        self.backend.calls_total += 1
        if self._affinity.config.enabled:
            self._entry = self._affinity.remember(self._key, self.backend.name, now)

    def failed(self) -> None:
        """Note that the backend failed the running call: its client is not to be led there."""
        if self._entry is not None:
            self._affinity.failed(self._entry, self.backend.name)

    def release(self, now: float) -> None:
        """Give the place back: the try failed, or the call is over. Again: changes nothing."""
        if self._stage is _Stage.DIALING:
            self.backend.dialing -= 1
        elif self._stage is _Stage.RUNNING:
            self.backend.calls -= 1
            if self._entry is not None:
                self._affinity.release(self._entry, now)
        self._stage = _Stage.GIVEN_BACK


class Pool:
    """RRAS servers that answer for one another."""

    def __init__(self, name: str, config: schema.Pool, previous: "Pool | None" = None) -> None:
        self.name = name
        self.config = config
        self.check = apply_preset(config.check)
        """The check with its preset filled in: what probes go by."""
        known = {b.name: b for b in previous.backends} if previous is not None else {}
        self.backends: tuple[Backend, ...] = tuple(
            self._backend(c, known.get(c.name)) for c in config.backends
        )
        """In configured order."""
        self.affinity = self._affinity_table(previous)
        self.strategy = pick_order(config.strategy, config.backends)
        if previous is not None:
            self.strategy.inherit(previous.strategy)

    def candidates(
        self, client_host: str, now: float, objection: Objection | None = None
    ) -> Candidates:
        """Return who may answer a call from ``client_host``; the strategy moves on.

        ``objection`` is asked about each usable backend and may keep it out of this call.
        Raises ValueError when ``client_host`` is not an IP address.
        """
        found = self.usability(now, objection)
        usable = [backend for backend in self.backends if found.because[backend.name] is None]
        excluded = [(name, slug) for name, slug in found.because.items() if slug is not None]
        key = self.affinity.key(client_host)
        enabled = self.config.affinity.enabled
        remembered = self.affinity.lookup(key, now) if enabled else None
        avoided = self.affinity.avoided(key) if enabled else None
        regular = [backend for backend in usable if not backend.config.backup]
        backups = [backend for backend in usable if backend.config.backup]
        ordered = self._for_client(remembered, avoided, self.strategy.order(regular, key))
        ordered += self._for_client(remembered, avoided, self.strategy.order(backups, key))
        by_affinity = bool(ordered) and ordered[0].name == remembered
        competed = tuple(regular or backups) if ordered and not by_affinity else ()
        if competed:
            self.strategy.spend_turn(ordered[0], competed)
        return Candidates(tuple(ordered), tuple(excluded), by_affinity, found.spared, competed)

    def claim(self, client_host: str, now: float, objection: Objection | None = None) -> Candidates:
        """Return who may answer what may become a call; settle it with ``used`` or ``give_back``.

        The first of them counts it as claimed, so that whoever drains it waits for it.
        """
        found = self.candidates(client_host, now, objection)
        if found.backends:
            found.backends[0].claimed += 1
        return found

    def used(self, claimed: Candidates) -> None:
        """Note that there was a call: it goes by the candidates it claimed."""
        if claimed.backends:
            claimed.backends[0].claimed -= 1

    def give_back(self, claimed: Candidates) -> None:
        """Take back the turn of who was claimed: there was no call."""
        self.used(claimed)
        if claimed.competed:
            self.strategy.give_back(claimed.backends[0], claimed.competed)

    def could_serve(self, now: float, objection: Objection | None = None) -> bool:
        """Whether there would be a candidate now; nobody's turn is spent."""
        return None in self.usability(now, objection).because.values()

    def usability(self, now: float, objection: Objection | None = None) -> Usability:
        """Return what keeps each backend from taking a call: the one answer, for calls and views.

        The slugs of ``Backend.unusable_because``, or that of the objection to one in service.
        """
        slugs = {
            b.name: b.out_of_service_because() or (objection(b) if objection is not None else None)
            for b in self.backends
        }
        in_service = [backend for backend in self.backends if slugs[backend.name] is None]
        spared = self._spared(in_service, now)
        for backend in in_service:
            slugs[backend.name] = backend.unusable_because(now, spared=backend.name in spared)
        return Usability(slugs, spared)

    def reserve(
        self,
        backend: Backend,
        client_host: str,
        now: float,
        *,
        spared: bool = False,
        claimed: bool = False,
    ) -> Place:
        """Take a place on ``backend`` for one try; give it back with ``Place.release``.

        ``spared`` as when it was picked; what was ``claimed`` may be taken although it drains by
        now. Raises BackendError (try the next candidate) when it has become unusable since;
        ``reason`` is the slug.
        """
        slug = backend.unusable_because(now, spared=spared, claimed=claimed)
        if slug is not None:
            message = f"{backend.name} can take no call any more: {slug}"
            raise BackendError(message, reason=slug)
        return Place(backend, self.affinity, self.affinity.key(client_host))

    def _spared(self, in_service: list[Backend], now: float) -> frozenset[str]:
        """Return who of those set aside cannot be done without."""
        aside = [backend for backend in in_service if backend.health.is_set_aside(now)]
        if not aside:
            return NOBODY
        share = len(in_service) * self.config.passive.set_aside_percent_max // 100
        kept_away = min(max(1, share), len(in_service) - 1)
        aside.sort(key=lambda backend: -backend.health.set_aside_until)
        return frozenset(backend.name for backend in aside[kept_away:])

    @staticmethod
    def _for_client(
        remembered: str | None, avoided: str | None, backends: list[Backend]
    ) -> list[Backend]:
        """Move the remembered one to the front, else the avoided one to the end."""
        return sorted(backends, key=lambda b: (b.name != remembered, b.name == avoided))

    def _backend(self, config: schema.Backend, known: Backend | None) -> Backend:
        """Return the backend of ``config``: the one we know, if it is the same server."""
        if known is None or known.config.address != config.address:
            return Backend(self.name, config, self.check, self.config.passive)
        known.reconfigure(config, self.check, self.config.passive)
        return known

    def _affinity_table(self, previous: "Pool | None") -> AffinityTable:
        """Return the table we had, unless a client is now something else."""
        config = self.config.affinity
        if previous is not None:
            before = previous.config.affinity
            if (before.prefix_v4, before.prefix_v6) == (config.prefix_v4, config.prefix_v6):
                previous.affinity.reconfigure(config)
                return previous.affinity
        return AffinityTable(config)
