"""The balancer: the one place where the objects are wired together, swapped and let go.

It admits calls and is the desk at which their bookings report (``control/booking.py``), holds the
listeners, runs the checks, and has a crew that carries the calls, here or in workers. Its life is
``start``, any number of ``reload`` s, ``stop``.

**Reload is atomic.** Whatever can fail (files, certificates, binding new addresses) is done before
anything is changed; then services are swapped by assignment. A listener whose address stays keeps
its socket, a backend that stays keeps its health, calls and affinity, and a running call keeps
the service it began with.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import structlog

from sstplb.account.exposition import log_fields, log_line
from sstplb.account.ledger import Ledger
from sstplb.account.record import Address, Outcome, Record
from sstplb.balance.admission import Admission
from sstplb.balance.backend import Backend
from sstplb.balance.health import Flip, FlipKind
from sstplb.config import schema
from sstplb.config.quantities import Endpoint
from sstplb.config.schema import OnDown, Standing
from sstplb.control.booking import Booking
from sstplb.control.checker import Checker
from sstplb.control.crew import Crew, Here
from sstplb.control.endings import Endings
from sstplb.control.mismatch import Mismatches
from sstplb.control.plan import Plan, Prepared, lay_out
from sstplb.control.workers import Workers
from sstplb.errors import (
    BackendDownError,
    CallError,
    ConfigError,
    ConflictError,
    DrainedError,
    LimitReachedError,
    Problem,
    StoppedError,
)
from sstplb.net import tcp
from sstplb.net.call import now_s
from sstplb.net.listener import Listener

log = structlog.get_logger()


class Balancer:
    """Everything that runs."""

    def __init__(
        self,
        prepared: Prepared,
        inherited: Mapping[Endpoint, socket.socket] = MappingProxyType({}),
    ) -> None:
        """``inherited``: listening sockets of another process, by configured address."""
        self.prepared = prepared
        """What is in force."""
        self._inherited = dict(inherited)
        self.on_call_closed: list[Callable[[Record], None]] = []
        """Told of each call at its end; they must be quick."""
        self.ledger = Ledger()
        self.admission = Admission(prepared.config.limits)
        self.listeners: dict[str, Listener] = {}
        """By name, those that accept."""
        self.bookings: dict[int, Booking] = {}
        """All calls that are not over, by number."""
        self.endings = Endings(lambda: self.prepared.config.limits.endings_per_second)
        self._cut: set[int] = set()
        """Calls that still ran when the time for stopping was over."""
        self._paused = False
        self._bound: dict[Endpoint, socket.socket] = {}
        self.plan: Plan = lay_out(prepared)
        self._mismatches = Mismatches()
        self._checker = self._new_checker()
        count = prepared.config.workers_count
        self.crew: Crew = Here() if count == 1 else Workers(count, self._crew_changed)

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind every address, start who carries, check every backend once, then accept.

        Raises ConfigError when an address cannot be bound, or a worker cannot be started.
        """
        await self.get_ready()
        self.accept()

    async def get_ready(self) -> None:
        """Do all that ``start`` does but the last."""
        self._bound = self._bind(self.plan.config)
        try:
            await self.crew.start(self.prepared)
        except BaseException:
            _close_all(self._bound)
            raise
        await self._checker.start()

    def accept(self, draining: Collection[str] = ()) -> None:
        """Accept calls, but at listeners that are draining: the last step of a start."""
        bound, self._bound = self._bound, {}
        for sock in self._inherited.values():  # what the configuration does not name any more
            tcp.refuse(sock)
        _close_all(self._inherited)
        self._inherited = {}
        self._adopt(bound, draining)

    def drain_listener(self, listener: Listener) -> None:
        """Refuse new calls there; running ones go on."""
        listener.drain()

    def reopen_listener(self, listener: Listener) -> None:
        """Take calls there again. Raises ConflictError when somebody has its address by now."""
        try:
            listener.reopen()
        except OSError as error:
            address = Endpoint(*listener.address)
            raise ConflictError(
                f"cannot listen on {address}: {tcp.why_not_listening(error)}"
            ) from error
        self._crew_changed()

    def pause(self) -> None:
        """Accept nobody for a moment; who comes waits in the kernel's backlog."""
        self._paused = True
        self._crew_changed()

    def resume(self) -> None:
        """Accept again."""
        self._paused = False
        self._crew_changed()

    def leave(self) -> None:
        """Accept no more, for another process does; running calls go on."""
        for listener in self.listeners.values():
            listener.stop()
        self.listeners = {}

    async def wait_ended(self) -> None:
        """Wait until no call runs."""
        while self.bookings:
            await next(iter(self.bookings.values())).wait_released()

    async def reload(
        self, prepared: Prepared, *, recheck: bool = True, are_renewed: bool = False
    ) -> None:
        """Swap the configuration. Raises ConfigError, and then nothing has changed.

        ``recheck`` False: only backends that are new are checked at once; with ``are_renewed``, for
        our certificates were read again, those too whose own does not fit any more.
        """
        bound = self._bind(prepared.config)
        try:
            await self.crew.propose(prepared)
        except BaseException:
            _close_all(bound)
            raise
        await self._checker.stop()
        self.prepared = prepared
        self.plan = lay_out(prepared, self.plan)
        self.admission.reconfigure(prepared.config.limits)
        self.crew.adopt(prepared)
        self._adopt(bound)
        self._checker = self._new_checker()
        await self._checker.start(only_new=not recheck, are_renewed=are_renewed)

    async def check_now(self, backend: Backend) -> None:
        """Check one backend out of turn."""
        await self._checker.check_now(backend)

    async def stop(self, timeout_s: float) -> int:
        """Accept no more, let calls end, end those that have not; return how many those were.

        Politely, one after the other; with no time at all they are cut.
        """
        self._paused = True
        for listener in self.listeners.values():
            listener.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.wait_ended()
        self.end_all(f"the balancer stopped after waiting {timeout_s:g} s", politely=timeout_s > 0)
        await self.wait_ended()
        self.endings.stop()
        await self._checker.stop()
        await self.crew.stop()
        return len(self._cut)

    def calls(self) -> list[Booking]:
        """Return all calls that run."""
        return list(self.bookings.values())

    def _new_checker(self) -> Checker:
        return Checker(self.plan, self._mismatches, self.health_changed, self._has_new_leaf)

    @property
    def ending_takes_s(self) -> float:
        """How long it would take to end all calls in turn, but for the last goodbye."""
        return len(self.bookings) / self.prepared.config.limits.endings_per_second

    def end_all(self, why: str, *, politely: bool = False) -> None:
        """End every call that still runs, because the balancer stops."""
        rest = self.calls()
        self._cut.update(call.record.id for call in rest)
        if politely:
            if rest:
                text = f"{why}: {len(rest)} calls are ended, in {self.ending_takes_s:.0f} s or more"
                log.info("ending_calls", message=text, calls=len(rest))
            self.endings.add(rest, StoppedError(why))
        else:
            self.end_calls(rest, StoppedError(why))

    def end_drained(self, *, listener: str = "", pool: str = "", backend: str = "") -> None:
        """End the calls of a listener, or of a backend, unless it is active again."""
        if listener:
            held = self.listeners.get(listener)
            is_active = held is not None and not held.is_draining
            theirs = [call for call in self.calls() if call.record.listener == listener]
        else:
            checks = self.plan.checks.get(pool)
            is_active = checks is not None and any(
                known.name == backend and known.standing is Standing.ACTIVE
                for known in checks.pool.backends
            )
            way = pool, backend
            theirs = [c for c in self.calls() if (c.record.pool, c.record.backend) == way]
        if not is_active and theirs:
            name = listener or backend
            log.warning(
                "drain_deadline", message=f"{name}: time is over, its {len(theirs)} calls are ended"
            )
            self.endings.add(theirs, DrainedError(f"{name} was drained, and its time is over"))

    def end_calls(self, calls: list[Booking], why: CallError) -> None:
        """Cut calls from outside; ``endings`` does it politely."""
        for call in calls:
            call.end(why)

    def _bind(self, config: schema.Config) -> dict[Endpoint, socket.socket]:
        """Return a listening socket for each configured address that has none yet.

        Raises ConfigError with every address that cannot be bound; then none stays open.
        """
        known = {listener.service.listener.address for listener in self.listeners.values()}
        bound: dict[Endpoint, socket.socket] = {}
        problems: list[Problem] = []
        for number, wanted in enumerate(config.listeners):
            address = wanted.address
            if address in known:
                continue
            if (sock := self._inherited.pop(address, None)) is not None:
                bound[address] = sock
                continue
            try:
                bound[address] = tcp.listen((address.host, address.port or 0), wanted.backlog)
            except (OSError, ValueError) as error:
                message = f"cannot listen on {address}: {tcp.why_not_listening(error)}"
                problems.append(Problem(message, f"listeners[{number}].address"))
        if problems:
            _close_all(bound)
            raise ConfigError(problems)
        return bound

    def _adopt(self, bound: dict[Endpoint, socket.socket], draining: Collection[str] = ()) -> None:
        """Give every listener of the plan its service; close those that are not in it.

        ``draining``: names of new ones that are not to accept.
        """
        known = {
            listener.service.listener.address: listener for listener in self.listeners.values()
        }
        self.listeners = {}
        for name, service in self.plan.services.items():
            listener = known.pop(service.listener.address, None)
            if listener is None:
                listener = Listener(bound[service.listener.address], service, self._accepted)
                self._open(listener, is_draining=name in draining)
            elif (
                listener.service.listener.backlog != service.listener.backlog
                and not listener.is_draining
            ):
                listener.sock.listen(service.listener.backlog)
            listener.service = service
            self.listeners[name] = listener
        for listener in known.values():
            gone = listener.service.listener
            log.info("listener_closed", message=f"{gone.name}: no longer on {gone.address}")
            listener.drain()
            listener.stop()
        self._crew_changed()

    def _open(self, listener: Listener, *, is_draining: bool) -> None:
        """Make a listener's socket, whoever bound it, what the configuration says."""
        if is_draining:
            listener.drain()
        else:
            listener.sock.listen(listener.service.listener.backlog)
            self._say_listening(listener)

    def _crew_changed(self) -> None:
        """Accept only while there is somebody to carry."""
        for listener in self.listeners.values():
            if self._paused or not self.crew.can_carry:
                listener.pause()
            else:
                listener.start()

    def _accepted(self, listener: Listener, sock: socket.socket, client: Address) -> None:
        """Admit a call and have it carried; or refuse it before anything is spent on it."""
        service = listener.service
        record = self.ledger.open(
            listener=service.listener.name,
            mode=service.listener.mode.value,
            client=client,
            started_at=time.time(),
            now=now_s(),
        )
        booking = Booking(self, service, self.plan.checks, record)
        self.bookings[record.id] = booking
        try:
            booking.admit()
        except LimitReachedError as error:
            sock.close()
            booking.close(Outcome.REFUSED, error.reason, str(error))
            booking.release()
        else:
            self.crew.carry(sock, booking)

    def _say_listening(self, listener: Listener) -> None:
        config, address = listener.service.listener, Endpoint(*listener.address)
        log.info(
            "listening",
            message=f"{config.name}: {config.mode} on {address} → pool {config.pool}",
            listener=config.name,
            mode=str(config.mode),
            address=str(address),
        )

    def _has_new_leaf(self, pool: str) -> None:
        self.crew.forget_sessions(pool)

    # --- the desk at which bookings report --------------------------------------------------------

    def health_changed(self, backend: Backend, flip: Flip | None) -> None:
        """Log a change of mind, and act on it."""
        if flip is None:
            return
        say = log.info if flip.kind in (FlipKind.UP, FlipKind.BACK) else log.warning
        checks = self.plan.checks.get(backend.pool)
        is_spared = checks is not None and backend.name in checks.usability(now_s()).spared
        but = "; it gets calls all the same: too many others are out" if is_spared else ""
        say(
            f"backend_{flip.kind}",
            message=f"{backend.name} is {str(flip.kind).replace('_', ' ')}: {flip.reason}{but}",
            pool=backend.pool,
            backend=backend.name,
            reason=flip.reason,
        )
        if flip.kind is FlipKind.DOWN:
            theirs = [
                call
                for call in self.calls()
                if call.backend is backend
                and call.pool is not None
                and call.pool.config.on_down is OnDown.CLOSE
            ]
            self.endings.add(theirs, BackendDownError(f"{backend.name} went down: {flip.reason}"))

    def call_closed(self, record: Record) -> None:
        """Write a call's one line."""
        log.info("call_ended", message=log_line(record), **log_fields(record))
        for tell in self.on_call_closed:
            tell(record)

    def released(self, booking: Booking) -> None:
        """Forget a call that is over."""
        del self.bookings[booking.record.id]
        self.endings.forget(booking.record.id)


def _close_all(bound: dict[Endpoint, socket.socket]) -> None:
    for sock in bound.values():
        sock.close()
