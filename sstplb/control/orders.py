"""What an operator does to what runs: to backends, listeners, calls, clients and captures.

An order is carried out at once, and nothing is written to the file. Standings and pins outlive the
process all the same, in the state file (``state.py``); the others are over when they are done.
Nothing here makes another configuration: weights, and which backends there are, are
``configuration.py``'s. How it looks afterwards is for ``sight.py`` to say; returned is only what
could not be looked up there: a call as it ended, a client as the table has it.
"""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from sstplb.balance.affinity import AffinityTable
from sstplb.config import quantities
from sstplb.config.schema import Standing
from sstplb.control import views
from sstplb.control.balancer import Balancer
from sstplb.control.finding import (
    backend_path,
    find_backend,
    find_listener,
    find_pool,
    find_running_call,
)
from sstplb.control.state import Keeper
from sstplb.control.turns import Turns
from sstplb.control.views import CallView, Remembered
from sstplb.errors import (
    BadRequestError,
    BadValueError,
    ConflictError,
    KilledError,
    UnknownThingError,
)
from sstplb.net.call import now_s
from sstplb.net.capture import CaptureChoice, CaptureState
from sstplb.net.goodbye import GOODBYE_S

END_WAIT_S = 2.0
"""How long ending a call waits to see its record closed."""

log = structlog.get_logger()


class Orders:
    """All that can be ordered."""

    def __init__(self, balancer: Balancer, turns: Turns, keeper: Keeper) -> None:
        self._balancer = balancer
        self._turns = turns
        self._keeper = keeper

    # --- backends -----------------------------------------------------------------------------

    async def set_standing(
        self, pool: str, name: str, standing: Standing, deadline_s: float | None = None
    ) -> None:
        """Give the operator's word on a backend. Raises UnknownThingError or BadRequestError.

        ``deadline_s``: then the calls it still has are ended; None: they may run on.
        """
        async with self._turns.take():
            _, backend = find_backend(self._balancer, pool, name)
            if (backend.standing, standing) == (Standing.DRAINING, Standing.ACTIVE):
                # It may have been given another certificate meanwhile: see it before calls come.
                await self._balancer.check_now(backend)
            backend.deadline = self._set_deadline(
                backend_path(pool, name),
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
                await self._keeper.save()
                log.info(
                    "backend_standing",
                    message=f"{name} is {standing} now, was {before}{_and_then(deadline_s)}",
                    pool=pool,
                    backend=name,
                    standing=str(standing),
                )

    async def check_now(self, pool: str, name: str) -> None:
        """Check a backend out of turn. Raises UnknownThingError or ConflictError."""
        _, backend = find_backend(self._balancer, pool, name)
        if backend.standing is Standing.OFF:
            raise ConflictError(f"{name} is off, and so not checked", backend_path(pool, name))
        await self._balancer.check_now(backend)

    def bring_back(self, pool: str, name: str) -> None:
        """Give calls again to a backend that failed ones put aside. Raises UnknownThingError."""
        _, backend = find_backend(self._balancer, pool, name)
        self._balancer.health_changed(backend, backend.health.bring_back())

    # --- listeners ----------------------------------------------------------------------------

    async def set_listener_standing(
        self, name: str, standing: Standing, deadline_s: float | None = None
    ) -> None:
        """Close a listener to new calls, or open it again.

        ``deadline_s``: then the calls it still has are ended; None: they may run on.
        Raises UnknownThingError, BadRequestError or ConflictError.
        """
        async with self._turns.take_while_it_stays():
            listener = find_listener(self._balancer, name)
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
                await self._keeper.save()
            if is_new or deadline_s is not None:
                text = f"{name} is {standing} now{_and_then(deadline_s)}"
                log.info("listener_standing", message=text, listener=name)

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

    # --- calls and clients --------------------------------------------------------------------

    async def end_call(self, number: int, *, politely: bool = False) -> CallView:
        """End a running call, at once or politely; return what became of it.

        Raises UnknownThingError or ConflictError.
        """
        call = find_running_call(self._balancer, number)
        call.end(KilledError("the operator ended this call"), politely=politely)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_WAIT_S + GOODBYE_S if politely else END_WAIT_S):
                await call.wait_released()
        return views.call_view(call.record, call)

    def pin(self, pool: str, client: str, backend: str) -> Remembered:
        """Send a client to one backend from now on; return whom that is remembered of.

        Raises UnknownThingError, BadRequestError or ConflictError.
        """
        checks, _ = find_backend(self._balancer, pool, backend)
        table = checks.pool.affinity
        if not table.config.enabled:
            raise ConflictError("affinity is off in this pool", f"pools.{pool}.affinity.enabled")
        key = _key(table, client)
        if not table.pin(key, backend):
            raise ConflictError(
                f"there are {table.config.entries_max} pins already: forget some, or raise it",
                f"pools.{pool}.affinity.entries_max",
            )
        shown = table.show(key)
        log.info("client_pinned", message=f"{shown} goes to {backend}", pool=pool, backend=backend)
        return Remembered(shown, backend, pinned=True, expires_in_s=None)

    def forget(self, pool: str, client: str) -> None:
        """Forget a client, pinned or not. Raises UnknownThingError or BadRequestError."""
        table = find_pool(self._balancer, pool).pool.affinity
        key = _key(table, client)
        if not table.forget(key):
            raise UnknownThingError(f"{client} is not remembered", f"pools.{pool}.affinity")
        text = f"{table.show(key)} goes where the strategy says"
        log.info("client_forgotten", message=text, pool=pool)

    # --- captures -----------------------------------------------------------------------------

    async def begin_capture(
        self, wanted: CaptureChoice, seconds_max: float | None, bytes_max: int | None
    ) -> list[CaptureState]:
        """Record calls, those that run and new ones; each process that carries writes a file.

        Its limits: as configured, or lower. Raises CaptureError, UnknownThingError, BadValueError,
        ConflictError or UnavailableError.
        """
        async with self._turns.take():
            settings = self._balancer.prepared.config.capture
            if seconds_max is not None and seconds_max > settings.seconds_max:
                raise _too_much("seconds_max", quantities.format_duration(settings.seconds_max))
            if bytes_max is not None and bytes_max > settings.bytes_max:
                raise _too_much("bytes_max", quantities.format_size(settings.bytes_max))
            if wanted.listener is not None:
                mode = find_listener(self._balancer, wanted.listener).service.listener.mode
                if not mode.terminates_tls:
                    text = f"{wanted.listener} is passthrough: TLS does not end here, so nothing"
                    raise ConflictError(f"{text} can be seen", f"listeners.{wanted.listener}")
            if wanted.call is not None:
                find_running_call(self._balancer, wanted.call)
            return await self._balancer.crew.begin_capture(wanted, seconds_max, bytes_max)

    async def end_capture(self, name: str) -> CaptureState:
        """End a capture. Raises UnknownThingError or UnavailableError."""
        ended = await self._balancer.crew.end_capture(name)
        if ended is None:
            raise UnknownThingError(f"there is no capture {name} that runs", "captures")
        return ended


def _and_then(deadline_s: float | None) -> str:
    return "" if deadline_s is None else f"; the calls it still has in {deadline_s:g} s are ended"


def _key(table: AffinityTable, client: str) -> bytes:
    """Return the affinity key of an address, or of a network as the table shows it."""
    host, slash, _ = client.partition("/")
    try:
        key = table.key(host)
    except ValueError:
        raise BadRequestError(f"expected an IP address, got {client!r}") from None
    if slash and table.show(key) != client:
        raise BadRequestError(f"clients of this pool are networks such as {table.show(key)}")
    return key


def _too_much(name: str, most: str) -> BadValueError:
    """Return the error for a capture that is to be more than the configuration allows."""
    return BadValueError(f"expected at most {most}, as capture.{name} has it", name)
