"""How a process of the balancer ends: it stops, or another takes over. Nothing is carried here.

Both only ask: ``stop`` and ``upgrade`` set the events that the process's main coroutine waits for
(``run.py``), which then lets the calls end and the sockets go. Towards ``takeover.py`` this is the
old process (``Leaving``): what it has to pass on, and the moment at which it lets go.
"""

import asyncio
import socket

import structlog

from sstplb.config.quantities import Endpoint
from sstplb.control.balancer import Balancer
from sstplb.control.configuration import Configuration
from sstplb.control.manager import ServiceManager
from sstplb.control.metrics import Tally
from sstplb.control.state import Keeper, State
from sstplb.control.takeover import Place, hand_over
from sstplb.control.turns import Turns
from sstplb.errors import ConflictError

log = structlog.get_logger()


class Departure:
    """The end of a process's work; most of the time it is far away."""

    def __init__(
        self,
        balancer: Balancer,
        turns: Turns,
        tally: Tally,
        keeper: Keeper,
        configuration: Configuration,
        manager: ServiceManager,
    ) -> None:
        self.stopping = turns.stopping
        """Set when somebody asked to stop."""
        self.hurrying = asyncio.Event()
        """Set when somebody asked again: the calls that are left are cut."""
        self.stop_timeout_s: float | None = None
        """How long calls may go on then; None: as configured."""
        self.has_left = asyncio.Event()
        """Set when another process has taken over."""
        self.is_draining = False
        """Whether the balancer is on its way out."""
        self._balancer = balancer
        self._turns = turns
        self._tally = tally
        self._keeper = keeper
        self._configuration = configuration
        self._manager = manager

    async def stop(self, timeout_s: float | None) -> None:
        """Stop the balancer, waiting so long for calls; None: as configured.

        One that is stopping can be asked to wait no longer (0). Raises ConflictError for the rest.
        """
        if self.stopping.is_set():
            if timeout_s != 0:
                raise ConflictError("it is stopping already; with no time its calls are cut now")
            log.info("stop_asked", message="the operator asked to wait no longer")
            self.hurrying.set()
            return
        self.stop_timeout_s = timeout_s
        wait = "as configured" if timeout_s is None else f"{timeout_s:g} s"
        text = f"the operator asked to stop, waiting for calls {wait}"
        log.info("stop_asked", message=text)
        self.stopping.set()

    async def upgrade(self, deadline_s: float | None = None) -> int:
        """Have a new process take over; return its id. Raises ConflictError: nothing has changed.

        This one goes on with the calls it has, and then ends. ``deadline_s``: then those are ended
        that still run; None: they may run on.
        """
        async with self._turns.take_while_it_stays():
            if self.has_left.is_set():
                raise ConflictError("another process has taken over already")
            log.info("upgrading", message="starting a new process")
            try:
                number = await hand_over(self)
            except (ConflictError, OSError) as error:
                self._tally.upgrades_failed += 1
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

    # --- what is passed on (``takeover.Leaving``) ---------------------------------------------

    def listening(self) -> dict[Endpoint, socket.socket]:
        """Return the sockets that accept calls, by configured address."""
        listeners = self._balancer.listeners.values()
        return {listener.service.listener.address: listener.sock for listener in listeners}

    def door_sockets(self) -> dict[Place, socket.socket]:
        """Return the sockets of the admin side."""
        return self._configuration.doors.sockets()

    def backends_up(self) -> list[tuple[str, str, str]]:
        """Return the backends that are well."""
        return [
            (name, backend.name, str(backend.config.address))
            for name, checks in self._balancer.plan.checks.items()
            for backend in checks.pool.backends
            if backend.health.is_up and backend.health.is_checked
        ]

    def pause(self) -> State:
        """Accept nobody for a moment; return the state."""
        self._balancer.pause()
        return self._keeper.state()

    def resume(self) -> None:
        """Go on as before."""
        self._balancer.resume()

    def leave(self, process_id: int) -> None:
        """Let go of all sockets."""
        self._balancer.leave()
        self._configuration.doors.leave()
        self._manager.succeeded_by(process_id)
