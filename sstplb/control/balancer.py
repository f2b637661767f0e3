"""The balancer: the one place where the objects are wired together, swapped and let go.

It is the ``Desk`` at which calls report (``net/call.py``), holds the listeners, and runs the
checks. Its life is ``start``, any number of ``reload`` s, ``stop``.

**Reload is atomic.** Whatever can fail (files, certificates, binding new addresses) is done before
anything is changed; then services are swapped by assignment. A listener whose address stays keeps
its socket, a backend that stays keeps its health, calls and affinity, and a running call keeps
the service it began with.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

import structlog

from sstplb.account.exposition import log_fields, log_line
from sstplb.account.ledger import Ledger
from sstplb.account.record import Record
from sstplb.balance.admission import Admission
from sstplb.balance.backend import Backend
from sstplb.balance.health import Flip, FlipKind
from sstplb.config import schema
from sstplb.config.schema import OnDown
from sstplb.control.checker import Checker
from sstplb.control.plan import Plan, Prepared, lay_out
from sstplb.errors import BackendDownError, CallError, ConfigError, Problem, StoppedError
from sstplb.net import tcp
from sstplb.net.call import Call
from sstplb.net.capture import Capture, Recorder, Selection
from sstplb.net.listener import Listener
from sstplb.net.relay import Transit

log = structlog.get_logger()


class Balancer:
    """Everything that runs."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        """What is in force."""
        self.on_call_closed: list[Callable[[Record], None]] = []
        """Told of each call at its end; they must be quick."""
        self.ledger = Ledger()
        self.admission = Admission(prepared.config.limits)
        self.transit = Transit(prepared.config.limits.relay_buffer)
        self.recorder = Recorder()
        """Captures; ``start_capture`` begins one on demand."""
        self.listeners: dict[str, Listener] = {}
        """By name, those that accept."""
        self._retired: list[Listener] = []
        """Closed by a reload; their calls may still run."""
        self._cut = 0
        """Calls cut by stopping."""
        self.plan: Plan = lay_out(prepared)
        self._checker = Checker(self.plan, self.health_changed)

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind every address, check every backend once, then accept.

        Raises ConfigError when an address cannot be bound.
        """
        bound = self._bind(self.plan.config)
        await self._checker.start()
        self._adopt(bound)
        self.recorder.reconfigure(self.plan.config.capture)

    async def reload(self, prepared: Prepared, *, recheck: bool = True) -> None:
        """Swap the configuration. Raises ConfigError, and then nothing has changed.

        ``recheck`` False: only backends that are new are checked at once.
        """
        bound = self._bind(prepared.config)
        await self._checker.stop()
        self.prepared = prepared
        self.plan = lay_out(prepared, self.plan)
        self.admission.reconfigure(prepared.config.limits)
        self.transit.resize(prepared.config.limits.relay_buffer)
        self._adopt(bound)
        self.recorder.reconfigure(self.plan.config.capture, self.calls())
        self._checker = Checker(self.plan, self.health_changed)
        await self._checker.start(only_new=not recheck)

    async def check_now(self, backend: Backend) -> None:
        """Check one backend out of turn."""
        await self._checker.check_now(backend)

    async def stop(self, timeout_s: float) -> int:
        """Accept no more, let calls end, close those that have not; return how many were cut."""
        for listener in self.listeners.values():
            listener.stop()
        everyone = [*self.listeners.values(), *self._retired]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for listener in everyone:
                    await listener.wait_ended()
        self.end_all(f"the balancer stopped after waiting {timeout_s:g} s")
        for listener in everyone:
            await listener.wait_ended()
        await self._checker.stop()
        self.transit.close()
        self.recorder.stop_all("the balancer stopped")
        return self._cut

    def calls(self) -> list[Call]:
        """Return all calls that run."""
        everyone = [*self.listeners.values(), *self._retired]
        return [call for listener in everyone for call in listener.calls]

    def end_all(self, why: str) -> None:
        """Cut every call that still runs, because the balancer stops."""
        rest = self.calls()
        self._cut += len(rest)
        self.end_calls(rest, StoppedError(why))

    def end_calls(self, calls: list[Call], why: CallError) -> None:
        """End calls from outside."""
        for call in calls:
            call.end(why)

    def start_capture(
        self,
        selection: Selection,
        *,
        seconds_max: float | None = None,
        bytes_max: int | None = None,
    ) -> Capture:
        """Record calls, those that run and new ones; stop it with its ``stop``.

        Raises CaptureError when the configuration does not allow it, or the file cannot be made.
        """
        return self.recorder.start(
            selection, self.calls(), seconds_max=seconds_max, bytes_max=bytes_max
        )

    def _bind(self, config: schema.Config) -> dict[schema.Endpoint, socket.socket]:
        """Return a listening socket for each configured address that has none yet.

        Raises ConfigError with every address that cannot be bound; then none stays open.
        """
        known = {listener.service.listener.address for listener in self.listeners.values()}
        bound: dict[schema.Endpoint, socket.socket] = {}
        problems: list[Problem] = []
        for number, wanted in enumerate(config.listeners):
            address = wanted.address
            if address in known:
                continue
            try:
                bound[address] = tcp.listen((address.host, address.port or 0), wanted.backlog)
            except (OSError, ValueError) as error:
                message = f"cannot listen on {address}: {_in_words(error)}"
                problems.append(Problem(message, f"listeners[{number}].address"))
        if problems:
            for sock in bound.values():
                sock.close()
            raise ConfigError(problems)
        return bound

    def _adopt(self, bound: dict[schema.Endpoint, socket.socket]) -> None:
        """Give every listener of the plan its service; close those that are not in it."""
        known = {
            listener.service.listener.address: listener for listener in self.listeners.values()
        }
        self.listeners = {}
        for name, service in self.plan.services.items():
            listener = known.pop(service.listener.address, None)
            if listener is None:
                listener = Listener(bound[service.listener.address], service, self)
                listener.start()
                self._say_listening(listener)
            elif listener.service.listener.backlog != service.listener.backlog:
                listener.sock.listen(service.listener.backlog)
            listener.service = service
            self.listeners[name] = listener
        for listener in known.values():
            gone = listener.service.listener
            log.info("listener_closed", message=f"{gone.name}: no longer on {gone.address}")
            listener.stop()
        self._retired = [old for old in (*self._retired, *known.values()) if old.calls]

    def _say_listening(self, listener: Listener) -> None:
        config, address = listener.service.listener, schema.Endpoint(*listener.address)
        log.info(
            "listening",
            message=f"{config.name}: {config.mode} on {address} → pool {config.pool}",
            listener=config.name,
            mode=str(config.mode),
            address=str(address),
        )

    # --- the desk at which calls report -----------------------------------------------------------

    def health_changed(self, backend: Backend, flip: Flip | None) -> None:
        """Log a change of mind, and act on it."""
        if flip is None:
            return
        say = log.info if flip.kind in (FlipKind.UP, FlipKind.BACK) else log.warning
        say(
            f"backend_{flip.kind}",
            message=f"{backend.name} is {str(flip.kind).replace('_', ' ')}: {flip.reason}",
            pool=backend.pool,
            backend=backend.name,
            reason=flip.reason,
        )
        if flip.kind is FlipKind.DOWN:
            theirs = [
                call
                for call in self.calls()
                if call.backend is backend
                and call.route is not None
                and call.route.config.on_down is OnDown.CLOSE
            ]
            self.end_calls(theirs, BackendDownError(f"{backend.name} went down: {flip.reason}"))

    def call_closed(self, call: Call) -> None:
        """Write a call's one line."""
        log.info("call_ended", message=log_line(call.record), **log_fields(call.record))
        for tell in self.on_call_closed:
            tell(call.record)

    def internal_error(self, call: Call, error: Exception) -> None:
        """Write down a mistake of ours."""
        log.error("internal_error", message=f"call {call.record.id}: {error!r}", exc_info=error)


def _in_words(error: OSError | ValueError) -> str:
    if isinstance(error, PermissionError):
        return "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
