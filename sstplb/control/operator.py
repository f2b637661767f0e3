"""The operator's desk: everything that can be seen of a running balancer, and done to it.

One facade between those who ask (the API, signals) and what carries calls. It answers with plain
shapes (``views.py``) and raises what ``errors.py`` has for operators; who asks never holds a
``Backend`` or a ``Call``. So it can stand for several processes as well as for one.

**What is changed at run time.** Standing is a backend's own attribute. Weight, calls, and which
backends there are, are configuration: they are changed by making a new configuration and swapping
it in as a reload would, only that nothing is loaded again. The file is not touched. What differs
from it is *drift* (``drift.py``): ``save`` writes it back, ``reload`` drops it and says so; only
standing outlives a reload that did not change it in the file (``balance/backend.py``).

Operations that wait go one after another: two reloads never interleave.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import yaml

from sstplb import __version__
from sstplb.account.diagnosis import diagnose
from sstplb.account.exposition import log_fields
from sstplb.account.metrics import Measured
from sstplb.account.record import Outcome, Record
from sstplb.balance.backend import Backend
from sstplb.config import loader, quantities, schema
from sstplb.config.quantities import Endpoint
from sstplb.config.schema import LogLevel, Mode, Standing
from sstplb.control import drift, views
from sstplb.control.balancer import Balancer
from sstplb.control.booking import Booking
from sstplb.control.cost import CostMeter
from sstplb.control.doors import Doors, NoDoors
from sstplb.control.drift import Difference, Review
from sstplb.control.events import EventLog
from sstplb.control.logs import Logs
from sstplb.control.manager import ServiceManager
from sstplb.control.metrics import Tally, measure
from sstplb.control.plan import PooledChecks, Prepared, all_warnings, prepare
from sstplb.control.rollout import PoolRollout, rollout
from sstplb.control.selection import Matcher, Selection
from sstplb.control.state import Keeper, State, state_of
from sstplb.control.takeover import Place, hand_over
from sstplb.control.views import (
    BackendView,
    CallView,
    CapturesView,
    CertificateView,
    ListenerView,
    Overview,
    PoolView,
    Remembered,
    Volumes,
)
from sstplb.errors import (
    BadRequestError,
    BadValueError,
    ConfigError,
    ConflictError,
    KilledError,
    Problem,
    UnknownThingError,
)
from sstplb.net import capture
from sstplb.net.call import now_s
from sstplb.net.capture import CaptureState
from sstplb.net.goodbye import GOODBYE_S
from sstplb.net.listener import Listener

EVENTS_LOOKED_AT = 2000
"""For what checks found after a call: more than are kept."""
END_WAIT_S = 2.0
"""How long ending a call waits to see its record closed."""
GB = 1_000_000_000

log = structlog.get_logger()


class Operator:
    """All that can be asked of a running balancer."""

    def __init__(
        self, balancer: Balancer, file: Path, logs: Logs, manager: ServiceManager | None = None
    ) -> None:
        self.started_at = time.time()
        self.tally = Tally()
        self.is_draining = False
        """Whether the balancer is on its way out."""
        self.is_closing = False
        """Whether the admin side is: nobody may begin to follow events."""
        self.doors: Doors = NoDoors()
        self.file = file
        self.has_left = asyncio.Event()
        """Set when another process has taken over."""
        self.stopping = asyncio.Event()
        """Set when somebody asked to stop."""
        self.hurrying = asyncio.Event()
        """Set when somebody asked again: the calls that are left are cut."""
        self.stop_timeout_s: float | None = None
        """How long calls may go on then; None: as configured."""
        self._keeper = Keeper()
        self._meter = CostMeter()
        self._balancer = balancer
        self._logs = logs
        self._manager = manager or ServiceManager()
        self._filed = balancer.prepared.config
        """What the file said when it was loaded."""
        self._busy = asyncio.Lock()

    @property
    def events(self) -> EventLog:
        """The latest events."""
        return self._logs.events

    # --- seeing -------------------------------------------------------------------------------

    def overview(self) -> Overview:
        """Return everything at once."""
        balancer, ledger = self._balancer, self._balancer.ledger
        volumes = views.Volumes(balancer)
        bytes_in, bytes_out = volumes.bytes_in.total(), volumes.bytes_out.total()
        outcomes = dict.fromkeys(map(str, Outcome), 0)
        for (_, outcome, _), count in ledger.outcomes_total.items():
            outcomes[str(outcome)] += count
        cpu_s = time.process_time() + balancer.crew.cpu_s()
        return Overview(
            version=__version__,
            now_at=time.time(),
            started_at=self.started_at,
            engine=balancer.prepared.engine,
            workers=balancer.crew.count,
            config_file=str(self.file),
            draining=self.is_draining,
            totals=views.Totals(
                ledger.opened_total, len(ledger.running), bytes_in, bytes_out, outcomes
            ),
            listeners=self._listener_views(volumes),
            pools=self.pools(),
            ways=views.way_views(balancer.listeners, volumes),
            cost=self._cost(cpu_s, bytes_in + bytes_out, volumes),
        )

    def listeners(self) -> tuple[ListenerView, ...]:
        """Return every listener."""
        return self._listener_views(Volumes(self._balancer))

    def pools(self) -> tuple[PoolView, ...]:
        """Return every pool with its backends."""
        return tuple(
            views.pool_view(checks, drift.standings(self._filed), self.started_at)
            for checks in self._balancer.plan.checks.values()
        )

    def in_brief(self) -> str:
        """Return how it goes, in one line."""
        balancer = self._balancer
        backends = [b for checks in balancer.plan.checks.values() for b in checks.pool.backends]
        up = sum(backend.health.is_up for backend in backends)
        listeners, calls = len(balancer.listeners), len(balancer.bookings)
        return f"{listeners} listeners, {calls} calls, {up} of {len(backends)} backends up"

    def backend(self, pool: str, name: str) -> BackendView:
        """Return one backend. Raises UnknownThingError."""
        checks, backend = self._find(pool, name)
        filed = drift.standings(self._filed).get((pool, name))
        return views.backend_view(checks, backend, filed, self.started_at)

    def calls(self, wanted: Selection) -> tuple[int, list[CallView]]:
        """Return how many calls match, and one page of them, the newest first.

        Raises BadRequestError.
        """
        is_wanted = Matcher(wanted)
        found = [record for record in self._records(wanted.state) if is_wanted(record)]
        page = found[wanted.offset : wanted.offset + wanted.limit]
        running = self._running_calls()
        return len(found), [views.call_view(r, running.get(r.id)) for r in page]

    def call(self, number: int) -> CallView:
        """Return one call, diagnosed. Raises UnknownThingError: it never was, or is long gone."""
        for record in self._records("all"):
            if record.id == number:
                shown = views.call_view(record, self._running_calls().get(number))
                later = views.downs_after(record, self.events.after(0, EVENTS_LOOKED_AT))
                return {**shown, "diagnoses": diagnose(log_fields(record), later)}
        raise UnknownThingError(
            f"call {number} is not running, and not among the last that ended: see the log",
            f"calls.{number}",
        )

    def affinity(self, pool: str, limit: int) -> tuple[int, list[Remembered]]:
        """Return how many clients a pool remembers, and the first of them."""
        table = self._checks(pool).pool.affinity
        found = list(table.remembered(now_s()))
        return len(found), [
            Remembered(r.client, r.backend, r.is_pinned, r.expires_in_s) for r in found[:limit]
        ]

    def certificates(self) -> dict[str, list[CertificateView]]:
        """Return the certificates clients are shown, by listener."""
        return {
            name: [views.certificate_view(s.certificate) for s in service.server_policy.served]
            for name, service in self._balancer.plan.services.items()
            if service.server_policy is not None
        }

    def measure(self) -> Measured:
        """Return the values of all metrics."""
        return measure(
            self._balancer,
            self.tally,
            self.events.by_level,
            started_at=self.started_at,
            drift_values=len(self.drift()),
            is_stopping=self.is_draining,
        )

    def rollout(self) -> list[PoolRollout]:
        """Return where each pool stands that accepts certificates of ours."""
        found = (rollout(checks) for checks in self._balancer.plan.checks.values())
        return [pool for pool in found if pool is not None]

    # --- backends -----------------------------------------------------------------------------

    async def set_standing(
        self, pool: str, name: str, standing: Standing, deadline_s: float | None = None
    ) -> BackendView:
        """Give the operator's word on a backend. Raises UnknownThingError or BadRequestError.

        ``deadline_s``: then the calls it still has are ended; None: they may run on.
        """
        async with self._busy:
            _, backend = self._find(pool, name)
            if (backend.standing, standing) == (Standing.DRAINING, Standing.ACTIVE):
                # It may have been given another certificate meanwhile: see it before calls come.
                await self._balancer.check_now(backend)
            backend.deadline = self._set_deadline(
                _path(pool, name),
                standing,
                deadline_s,
                lambda: self._balancer.end_drained(pool=pool, backend=name),
            )
            before, backend.standing = backend.standing, standing
            if before is Standing.OFF and standing is not Standing.OFF:
                # What was known of it is as old as its retirement: ask before calls go there.
                backend.health.reset(now_s())
                await self._balancer.check_now(backend)
            if before is not standing or deadline_s is not None:
                await self.save_state()
                self._say(
                    "backend_standing",
                    f"{name} is {standing} now, was {before}{_and_then(deadline_s)}",
                    pool=pool,
                    backend=name,
                    standing=str(standing),
                )
        return self.backend(pool, name)

    async def set_weight(self, pool: str, name: str, weight: int) -> BackendView:
        """Set a backend's share. Raises UnknownThingError, ConflictError or BadValueError."""
        return await self._change_backend(pool, name, "weight", weight)

    async def set_calls_max(self, pool: str, name: str, calls_max: int) -> BackendView:
        """Set how many calls it may have.

        Raises UnknownThingError, ConflictError or BadValueError.
        """
        return await self._change_backend(pool, name, "calls_max", calls_max)

    async def check_now(self, pool: str, name: str) -> BackendView:
        """Check a backend out of turn. Raises UnknownThingError or ConflictError."""
        _, backend = self._find(pool, name)
        if backend.standing is Standing.OFF:
            raise ConflictError(f"{name} is off, and so not checked", _path(pool, name))
        await self._balancer.check_now(backend)
        return self.backend(pool, name)

    async def declare(self, pool: str, name: str, sha256: str | None) -> BackendView:
        """Say which certificate an offloaded RRAS was told to accept; None: find out.

        Raises UnknownThingError, ConflictError or BadValueError.
        """
        checks, backend = self._find(pool, name)
        if Mode.OFFLOAD not in checks.modes:
            raise ConflictError(
                f"{name} is not offloaded: it shows its certificate itself", _path(pool, name)
            )
        before = backend.learnt.sha256
        view = await self._change_backend(pool, name, "rras_certificate_sha256", sha256)
        if before is not None and sha256 is None:
            backend.learnt.forget()  # the operator would not ask for what we believe already
        return view

    def bring_back(self, pool: str, name: str) -> BackendView:
        """Give calls again to a backend that failed ones put aside. Raises UnknownThingError."""
        _, backend = self._find(pool, name)
        self._balancer.health_changed(backend, backend.health.bring_back())
        return self.backend(pool, name)

    async def add_backend(self, pool: str, backend: schema.Backend) -> BackendView:
        """Add a backend to a pool. Raises UnknownThingError, ConflictError or BadValueError."""
        async with self._busy:
            values = self._values()
            self._checks(pool)
            if any(known["name"] == backend.name for known in values["pools"][pool]["backends"]):
                raise ConflictError(f"{pool} has a backend {backend.name} already")
            given = backend.model_dump(mode="json", exclude_unset=True)
            values["pools"][pool]["backends"].append(given)
            await self._adjust(values)
            self._say("backend_added", f"{backend.name} at {backend.address}", pool=pool)
        return self.backend(pool, backend.name)

    async def remove_backend(self, pool: str, name: str, *, force: bool) -> None:
        """Take a backend out of its pool. Raises UnknownThingError or ConflictError.

        ``force`` ends the calls it still has; it must be draining or off.
        """
        async with self._busy:
            _, backend = self._find(pool, name)
            theirs = [call for call in self._balancer.calls() if call.backend is backend]
            if force and backend.standing is Standing.ACTIVE:
                raise ConflictError(f"{name} is active: drain it first", _path(pool, name))
            if not force and backend.places_taken:
                raise ConflictError(
                    f"{name} has {backend.places_taken} calls: drain it and wait, or end them "
                    "with force",
                    _path(pool, name),
                )
            values = self._values()
            rest = [b for b in values["pools"][pool]["backends"] if b["name"] != name]
            if not rest:
                raise ConflictError(f"{name} is the last backend of {pool}", _path(pool, name))
            values["pools"][pool]["backends"] = rest
            await self._adjust(values)
            self._balancer.end_calls(theirs, KilledError(f"{name} was removed by the operator"))
            self._checks(pool).pool.affinity.forget_pins_to(name)
            self._say("backend_removed", f"{name} is no longer in {pool}", pool=pool)

    # --- listeners ----------------------------------------------------------------------------

    async def set_listener_standing(
        self, name: str, standing: Standing, deadline_s: float | None = None
    ) -> ListenerView:
        """Close a listener to new calls, or open it again.

        ``deadline_s``: then the calls it still has are ended; None: they may run on.
        Raises UnknownThingError, BadRequestError or ConflictError.
        """
        async with self._busy:
            self._insist_that_it_stays()
            listener = self._listener(name)
            if standing is Standing.OFF:
                raise BadRequestError("a listener is active or draining; to remove it, reload")
            listener.deadline = self._set_deadline(
                f"listeners.{name}",
                standing,
                deadline_s,
                lambda: self._balancer.end_drained(listener=name),
            )
            is_new = listener.is_draining != (standing is Standing.DRAINING)
            if is_new:
                if standing is Standing.DRAINING:
                    self._balancer.drain_listener(listener)
                else:
                    self._balancer.reopen_listener(listener)
                await self.save_state()
            if is_new or deadline_s is not None:
                text = f"{name} is {standing} now{_and_then(deadline_s)}"
                self._say("listener_standing", text, listener=name)
            return self._listener_view(name, listener, views.Volumes(self._balancer))

    def _cost(self, cpu_s: float, moved: int, volumes: Volumes) -> views.Cost:
        services = self._balancer.plan.services
        modes = {name: str(service.listener.mode) for name, service in services.items()}
        meter = self._meter
        meter.look(cpu_s, volumes.by_mode(modes))
        by_mode = tuple(
            views.ModeCost(
                mode,
                meter.cpu_s.get(mode, 0.0),
                meter.moved.get(mode, 0),
                _per_gb(meter.cpu_s.get(mode, 0.0), meter.moved.get(mode, 0)),
            )
            for mode in dict.fromkeys(modes.values())
        )
        return views.Cost(cpu_s, _per_gb(cpu_s, moved), by_mode)

    def _listener_views(self, volumes: Volumes) -> tuple[ListenerView, ...]:
        listeners = self._balancer.listeners.items()
        return tuple(self._listener_view(name, listener, volumes) for name, listener in listeners)

    def _listener_view(self, name: str, listener: Listener, volumes: Volumes) -> ListenerView:
        calls = self._balancer.admission.calls_by_listener[name]
        return views.listener_view(name, listener, volumes, calls)

    # --- calls and clients --------------------------------------------------------------------

    async def end_call(self, number: int, *, politely: bool = False) -> CallView:
        """End a running call, at once or politely. Raises UnknownThingError or ConflictError."""
        call = self._running_call(number)
        call.end(KilledError("the operator ended this call"), politely=politely)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_WAIT_S + GOODBYE_S if politely else END_WAIT_S):
                await call.wait_released()
        return views.call_view(call.record, call)

    def pin(self, pool: str, client: str, backend: str) -> Remembered:
        """Send a client to one backend from now on.

        Raises UnknownThingError, BadRequestError or ConflictError.
        """
        checks, _ = self._find(pool, backend)
        table = checks.pool.affinity
        if not table.config.enabled:
            raise ConflictError("affinity is off in this pool", f"pools.{pool}.affinity.enabled")
        key = self._key(pool, client)
        if not table.pin(key, backend):
            raise ConflictError(
                f"there are {table.config.entries_max} pins already: forget some, or raise it",
                f"pools.{pool}.affinity.entries_max",
            )
        shown = table.show(key)
        self._say("client_pinned", f"{shown} goes to {backend}", pool=pool, backend=backend)
        return Remembered(shown, backend, pinned=True, expires_in_s=None)

    def forget(self, pool: str, client: str) -> None:
        """Forget a client, pinned or not. Raises UnknownThingError or BadRequestError."""
        table, key = self._checks(pool).pool.affinity, self._key(pool, client)
        if not table.forget(key):
            raise UnknownThingError(f"{client} is not remembered", f"pools.{pool}.affinity")
        self._say("client_forgotten", f"{table.show(key)} goes where the strategy says", pool=pool)

    # --- captures -----------------------------------------------------------------------------

    async def captures(self) -> CapturesView:
        """Return what is recorded, and was. Raises CaptureError or UnavailableError."""
        directory = self.settings.capture.directory
        if directory is None:
            return CapturesView(None, (), ())
        files = await asyncio.to_thread(capture.files_in, directory)
        running = await self._balancer.crew.captures()
        return CapturesView(str(directory), tuple(running), tuple(files))

    async def begin_capture(
        self, wanted: capture.CaptureChoice, seconds_max: float | None, bytes_max: int | None
    ) -> list[CaptureState]:
        """Record calls, those that run and new ones; each process that carries writes a file.

        Its limits: as configured, or lower. Raises CaptureError, UnknownThingError, BadValueError,
        ConflictError or UnavailableError.
        """
        async with self._busy:
            settings = self.settings.capture
            if seconds_max is not None and seconds_max > settings.seconds_max:
                raise _too_much("seconds_max", quantities.format_duration(settings.seconds_max))
            if bytes_max is not None and bytes_max > settings.bytes_max:
                raise _too_much("bytes_max", quantities.format_size(settings.bytes_max))
            if wanted.listener is not None:
                mode = self._listener(wanted.listener).service.listener.mode
                if not mode.terminates_tls:
                    text = f"{wanted.listener} is passthrough: TLS does not end here, so nothing"
                    raise ConflictError(f"{text} can be seen", f"listeners.{wanted.listener}")
            if wanted.call is not None:
                self._running_call(wanted.call)
            return await self._balancer.crew.begin_capture(wanted, seconds_max, bytes_max)

    async def end_capture(self, name: str) -> CaptureState:
        """End a capture. Raises UnknownThingError or UnavailableError."""
        ended = await self._balancer.crew.end_capture(name)
        if ended is None:
            raise UnknownThingError(f"there is no capture {name} that runs", "captures")
        return ended

    # --- configuration ------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Return the configuration in force, every knob shown, secrets only by their place."""
        return drift.plain(self._running())

    def drift(self) -> list[Difference]:
        """Return what was changed at run time: from the file to what is running."""
        return drift.differences(self._filed, self._running())

    async def check_config(self) -> Review:
        """Look at the file as it is now, and say what a reload would do."""
        try:
            prepared = await asyncio.to_thread(self._load)
        except ConfigError as error:
            return Review(tuple(map(str, error.problems)), (), (), ())
        return self._review(prepared)

    async def reload(self) -> Review:
        """Put the file in force. Raises ConfigError or ConflictError: nothing has changed then."""
        self._insist_that_it_stays()
        async with self._busy, self._telling_manager():
            try:
                # Reading files and parsing keys takes a while: running calls must not wait.
                with self.tally.reloads.counted():
                    prepared = await asyncio.to_thread(self._load)
                    self.doors.open(prepared)
                    review = self._review(prepared)
                    try:
                        await self._balancer.reload(prepared)
                    except ConfigError:
                        self.doors.settle(None)
                        raise
                    self._logs.apply(prepared.config.log)
            except ConfigError as error:
                for problem in error.problems:
                    log.error("reload_failed", message=f"nothing has changed: {problem}")  # noqa: TRY400 - no trace for a typo
                raise
            self.tally.certificate_reloads.is_last_ok = True  # they were read along with it
            self.doors.settle(prepared)
            self._filed = prepared.config
        warn(all_warnings(prepared))
        for lost in review.drift_lost:
            log.warning("drift_dropped", message=f"{lost.path}: was {lost.before}, is {lost.after}")
        text = f"{self.file} is in force; running calls keep what they had"
        log.info("reloaded", message=text)
        return review

    async def save(self) -> list[Difference]:
        """Write the drift back to the file; return what was written. Raises ConflictError."""
        async with self._busy:
            self._insist_that_it_stays()
            written, running = self.drift(), self._running()
            if written:
                await asyncio.to_thread(drift.save, self.file, self._filed, running)
                self._filed = running
                # The objects' own configuration must say what the file now says: standing, too.
                await self._swap(running)
                count = f"{len(written)} changes"
                self._say("configuration_saved", f"{count} written to {self.file}")
        return written

    async def reload_certificates(self) -> dict[str, list[CertificateView]]:
        """Read every certificate and key again.

        Raises ConfigError or ConflictError: nothing has changed then.
        """
        async with self._busy:
            self._insist_that_it_stays()
            with self.tally.certificate_reloads.counted():
                prepared = await asyncio.to_thread(prepare, self._balancer.prepared.config)
                await self._balancer.reload(prepared, recheck=False)
            self.doors.settle(prepared)
            self._say("certificates_reloaded", "certificates and keys were read again")
        return self.certificates()

    async def upgrade(self, deadline_s: float | None = None) -> int:
        """Have a new process take over; return its id. Raises ConflictError: nothing has changed.

        This one goes on with the calls it has, and then ends. ``deadline_s``: then those are ended
        that still run; None: they may run on.
        """
        async with self._busy:
            self._insist_that_it_stays()
            if self.has_left.is_set():
                raise ConflictError("another process has taken over already")
            log.info("upgrading", message="starting a new process")
            try:
                number = await hand_over(self)
            except (ConflictError, OSError) as error:
                self.tally.upgrades_failed += 1
                log.error("upgrade_failed", message=f"nothing has changed: {error}")  # noqa: TRY400
                raise ConflictError(str(error)) from error
            running = len(self._balancer.calls())
            text = f"process {number} has taken over; this one ends when its {running} calls have"
            log.info("upgraded", message=text)
            self.has_left.set()
            if deadline_s is not None:
                why = f"another process took over {deadline_s:g} s ago"
                self._balancer.endings.set_deadline(
                    "upgrade", deadline_s, lambda: self._balancer.end_all(why, politely=True)
                )
        return number

    def listening(self) -> dict[Endpoint, socket.socket]:
        """Return the sockets that accept calls, by configured address (``takeover.Leaving``)."""
        listeners = self._balancer.listeners.values()
        return {listener.service.listener.address: listener.sock for listener in listeners}

    def backends_up(self) -> list[tuple[str, str, str]]:
        """Return the backends that are well (``takeover.Leaving``)."""
        return [
            (name, backend.name, str(backend.config.address))
            for name, checks in self._balancer.plan.checks.items()
            for backend in checks.pool.backends
            if backend.health.is_up and backend.health.is_checked
        ]

    def door_sockets(self) -> dict[Place, socket.socket]:
        """Return the sockets of the admin side (``takeover.Leaving``)."""
        return self.doors.sockets()

    def pause(self) -> State:
        """Accept nobody for a moment; return the state (``takeover.Leaving``)."""
        self._balancer.pause()
        return self._state()

    def resume(self) -> None:
        """Go on as before (``takeover.Leaving``)."""
        self._balancer.resume()

    def leave(self, process_id: int) -> None:
        """Let go of all sockets (``takeover.Leaving``)."""
        self._balancer.leave()
        self.doors.leave()
        self._manager.succeeded_by(process_id)

    @property
    def settings(self) -> schema.Config:
        """The configuration in force."""
        return self._balancer.prepared.config

    def certificates_failed(self, error: ConfigError) -> None:
        """Write down why renewed certificates cannot be used."""
        for problem in error.problems:
            log.error("certificates_failed", message=f"the old ones stay in force: {problem}")

    def set_log_level(self, level: LogLevel) -> None:
        """Write what is at least this severe."""
        self._logs.set_level(level)
        self._say("log_level", f"the log level is {level} now")

    async def save_state(self) -> None:
        """Write the state file, if there is one and anything new."""
        await self._keeper.save(self._balancer.prepared.config.state_file, self._state)

    async def stop(self, timeout_s: float | None) -> None:
        """Stop the balancer, waiting so long for calls; None: as configured.

        One that is stopping can be asked to wait no longer (0). Raises ConflictError for the rest.
        """
        if self.stopping.is_set():
            if timeout_s != 0:
                raise ConflictError("it is stopping already; with no time its calls are cut now")
            self._say("stop_asked", "the operator asked to wait no longer")
            self.hurrying.set()
            return
        self.stop_timeout_s = timeout_s
        wait = "as configured" if timeout_s is None else f"{timeout_s:g} s"
        self._say("stop_asked", f"the operator asked to stop, waiting for calls {wait}")
        self.stopping.set()

    # --- inside -------------------------------------------------------------------------------

    def _insist_that_it_stays(self) -> None:
        """Raise ConflictError while the balancer stops: its listeners are closed for good."""
        if self.stopping.is_set():
            raise ConflictError("the balancer is stopping: change the file, and start it again")

    def _set_deadline(
        self, what: str, standing: Standing, after_s: float | None, then: Callable[[], None]
    ) -> float | None:
        """Set the deadline of what is drained, or none; return it, on the monotonic clock."""
        if standing is Standing.ACTIVE and after_s is not None:
            raise BadRequestError("a deadline is for what is drained, not for what is active", what)
        endings = self._balancer.endings
        if after_s is None:
            endings.clear_deadline(what)
            return None
        endings.set_deadline(what, after_s, then)
        return now_s() + after_s

    def _state(self) -> State:
        listeners = self._balancer.listeners.items()
        return state_of(
            self._balancer.plan, [name for name, listener in listeners if listener.is_draining]
        )

    def _load(self) -> Prepared:
        return prepare(loader.load(self.file))

    @contextlib.asynccontextmanager
    async def _telling_manager(self) -> AsyncIterator[None]:
        """Let the service manager know how long a reload takes; and how it ended."""
        self._manager.reloading()
        try:
            yield
        except ConfigError as error:
            self._manager.ready(f"the file is not in force: {error.problems[0]}")
            raise
        self._manager.ready(self.in_brief())

    def _say(self, event: str, message: str, **values: str) -> None:
        """Write down what the operator did."""
        log.info(event, message=message, **values)

    def _listener(self, name: str) -> Listener:
        found = self._balancer.listeners.get(name)
        if found is None:
            known = ", ".join(self._balancer.listeners)
            raise UnknownThingError(f"there is no listener {name}; known: {known}")
        return found

    def _running_call(self, number: int) -> Booking:
        """Return a call that runs. Raises UnknownThingError or ConflictError."""
        call = self._running_calls().get(number)
        if call is None:
            known = self.call(number)
            raise ConflictError(
                f"call {number} has ended: {known['outcome']} ({known['reason']})",
                f"calls.{number}",
            )
        return call

    def _checks(self, pool: str) -> PooledChecks:
        found = self._balancer.plan.checks.get(pool)
        if found is None:
            known = ", ".join(self._balancer.plan.checks)
            raise UnknownThingError(f"there is no pool {pool}; known: {known}", f"pools.{pool}")
        return found

    def _find(self, pool: str, name: str) -> tuple[PooledChecks, Backend]:
        checks = self._checks(pool)
        for backend in checks.pool.backends:
            if backend.name == name:
                return checks, backend
        known = ", ".join(backend.name for backend in checks.pool.backends)
        raise UnknownThingError(
            f"there is no backend {name} in {pool}; known: {known}", _path(pool, name)
        )

    def _key(self, pool: str, client: str) -> bytes:
        """Return the affinity key of an address, or of a network as the table shows it."""
        table = self._checks(pool).pool.affinity
        host, slash, _ = client.partition("/")
        try:
            key = table.key(host)
        except ValueError:
            raise BadRequestError(f"expected an IP address, got {client!r}") from None
        if slash and table.show(key) != client:
            raise BadRequestError(f"clients of this pool are networks such as {table.show(key)}")
        return key

    def _records(self, state: str) -> Iterator[Record]:
        """Yield records, the newest first as far as each state goes."""
        ledger = self._balancer.ledger
        running = list(ledger.running.values()) if state in ("running", "all") else []
        ended = list(ledger.ended) if state != "running" else []
        found = [*running, *ended]
        return iter(sorted(found, key=lambda record: record.id, reverse=True))

    def _running_calls(self) -> dict[int, Booking]:
        return {c.record.id: c for c in self._balancer.calls() if c.record.outcome is None}

    def _running(self) -> schema.Config:
        """Return the configuration as it is lived."""
        config, plan = self._balancer.prepared.config, self._balancer.plan
        return drift.lived(config, plan, self._logs.level)

    def _review(self, prepared: Prepared) -> Review:
        new, running = prepared.config, self._running()
        drifted = {difference.path for difference in drift.differences(self._filed, running)}
        lost = drift.differences(running, drift.after_reload(new, self._balancer.plan))
        return Review(
            (),
            tuple(map(str, all_warnings(prepared))),
            tuple(drift.differences(self._filed, new)),
            tuple(difference for difference in lost if difference.path in drifted),
        )

    def _values(self) -> dict[str, Any]:
        """Return the configuration in force as it would have to be written, to be edited."""
        config = self._balancer.prepared.config
        values: dict[str, Any] = config.model_dump(mode="json", exclude_unset=True)
        return values

    async def _change_backend(
        self, pool: str, name: str, knob: str, value: int | str | None
    ) -> BackendView:
        async with self._busy:
            self._find(pool, name)
            values = self._values()
            for backend in values["pools"][pool]["backends"]:
                if backend["name"] == name:
                    backend[knob] = value
            await self._adjust(values)
            self._say("backend_changed", f"{name}: {knob} is {value} now", pool=pool, backend=name)
        return self.backend(pool, name)

    async def _adjust(self, values: dict[str, Any]) -> None:
        """Swap in edited values, judged as a file would be.

        Raises BadValueError or ConflictError.
        """
        self._insist_that_it_stays()
        text = yaml.safe_dump(values, sort_keys=False)
        try:
            config = loader.parse(text)
        except ConfigError as error:
            first = error.problems[0]
            raise BadValueError(first.message, first.path) from error
        await self._swap(config)

    async def _swap(self, config: schema.Config) -> None:
        """Swap in a configuration that names nothing new to load."""
        prepared = replace(self._balancer.prepared, config=config)
        await self._balancer.reload(prepared, recheck=False)


def warn(problems: list[Problem]) -> None:
    """Write warnings about a configuration to the log."""
    for problem in problems:
        log.warning("configuration", message=str(problem))


def _too_much(name: str, most: str) -> BadValueError:
    """Return the error for a capture that is to be more than the configuration allows."""
    return BadValueError(f"expected at most {most}, as capture.{name} has it", name)


def _path(pool: str, backend: str) -> str:
    return f"pools.{pool}.backends.{backend}"


def _and_then(deadline_s: float | None) -> str:
    return "" if deadline_s is None else f"; the calls it still has in {deadline_s:g} s are ended"


def _per_gb(cpu_s: float, moved: int) -> float | None:
    return cpu_s * GB / moved if moved else None
