"""Running the balancer in the foreground: signals, reloads, and an exit code that means something.

==========  ================================================================================
SIGTERM     stop: accept no more, let calls end for ``limits.stop_timeout``, then close them
SIGINT      the same; a second one of either closes running calls at once
SIGHUP      reload the file; a bad one changes nothing and says why. Opens the log file anew
SIGUSR2     upgrade: a new process takes over, this one ends with its last call
==========  ================================================================================
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from enum import IntEnum
from pathlib import Path

import structlog

from sstplb.control import collector, plan, views
from sstplb.control.admin.side import admin_side
from sstplb.control.balancer import Balancer
from sstplb.control.configuration import warn
from sstplb.control.departure import Departure
from sstplb.control.logs import Logs
from sstplb.control.manager import ServiceManager
from sstplb.control.operator import Operator
from sstplb.control.plan import Prepared, all_warnings
from sstplb.control.state import Keeper, State, restore
from sstplb.control.state import load as load_state
from sstplb.control.takeover import Estate
from sstplb.control.watch import watch_certificates
from sstplb.errors import ConfigError, ConflictError, OperatorError, Problem

SAVE_STATE_EVERY_S = 10.0
STATUS_EVERY_S = 5.0

log = structlog.get_logger()


class ExitCode(IntEnum):
    """What ``sstplb run`` and the other commands leave behind."""

    OK = 0
    """Ended as asked; no call was cut."""
    FAILED = 1
    """What was asked for did not happen (a probe found the backend down, a call failed)."""
    USAGE = 2
    """The command line makes no sense."""
    CONFIG = 3
    """The configuration, or a file it names, cannot be used; or an address cannot be bound."""
    CUT = 4
    """Stopped, but calls were still running when the time was over."""
    UNREACHABLE = 5
    """No running balancer answers where it was looked for."""
    NOT_ADMITTED = 6
    """A running balancer, or the system before it, does not let us in."""


async def run(path: Path) -> ExitCode:
    """Run until a signal says stop. Raises ConfigError when it cannot begin."""
    prepared = plan.load(path)
    logs, manager = Logs(), ServiceManager.from_environment(os.environ)
    with contextlib.closing(manager), contextlib.closing(logs):
        logs.apply(prepared.config.log)
        return await _run(path, prepared, logs, manager)


async def _run(path: Path, prepared: Prepared, logs: Logs, manager: ServiceManager) -> ExitCode:
    estate = await Estate.receive(prepared.config)
    balancer = Balancer(prepared, estate.listeners)
    estate.introduce(balancer.plan)
    operator = Operator(balancer, path, logs, manager)
    operator.tally.took_over = estate.is_takeover
    departure = operator.departure
    stop, now = departure.stopping, departure.hurrying
    asked: asyncio.Queue[Callable[[], Awaitable[object]]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def asked_to_stop() -> None:
        (now if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop)
    loop.add_signal_handler(signal.SIGHUP, asked.put_nowait, operator.configuration.reload)
    loop.add_signal_handler(signal.SIGUSR2, asked.put_nowait, departure.upgrade)
    warn(all_warnings(prepared))
    async with admin_side(operator, prepared, estate.doors):
        await balancer.get_ready()
        state = await _inherited(estate) if estate.is_takeover else _stored(prepared)
        if state is not None:
            restore(balancer.plan, state)
        balancer.accept(state.draining if state is not None else ())
        await estate.accepting()
        collector.settle()
        _say_ready(balancer)
        manager.ready(views.in_brief(balancer))
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(_do_what_is_asked(asked)),
                group.create_task(_save_state(operator.keeper)),
                group.create_task(watch_certificates(operator.configuration)),
                group.create_task(_tell(manager, balancer)),
            ]
            await _either(stop.wait(), _gone(departure, balancer))
            for task in beside:
                task.cancel()
        departure.is_draining = True
        patience_s = departure.stop_timeout_s
        if patience_s is None:
            patience_s = balancer.plan.config.limits.stop_timeout
        manager.stopping(patience_s + balancer.ending_takes_s)
        code = await _stop(balancer, patience_s, now)
        if not departure.has_left.is_set():  # else the file is the new process's
            await operator.keeper.save()
        return code


async def _inherited(estate: Estate) -> State:
    """Say that we are ready, and take over what was known. Raises ConfigError."""
    try:
        return await estate.state()
    except ConflictError as error:
        raise ConfigError([Problem(str(error))]) from error


def _stored(prepared: Prepared) -> State | None:
    path = prepared.config.state_file
    return None if path is None else load_state(path)


def _say_ready(balancer: Balancer) -> None:
    count, engine = len(balancer.listeners), balancer.prepared.engine
    crew = f"{balancer.crew.count} workers" if balancer.crew.count > 1 else "one process"
    text = f"{count} listeners accept calls, carried by {crew}; TLS engine: {engine}"
    log.info("ready", message=text)


async def _do_what_is_asked(asked: "asyncio.Queue[Callable[[], Awaitable[object]]]") -> None:
    """Reload and upgrade, one after the other, in the order of the signals."""
    while True:
        do = await asked.get()
        with contextlib.suppress(ConfigError, OperatorError):  # it is in the log
            await do()


async def _save_state(keeper: Keeper) -> None:
    while True:
        await asyncio.sleep(SAVE_STATE_EVERY_S)
        await keeper.save()


async def _tell(manager: ServiceManager, balancer: Balancer) -> None:
    """Keep the service manager's line about us true."""
    while manager.listens:
        await asyncio.sleep(STATUS_EVERY_S)
        manager.status(views.in_brief(balancer))


async def _gone(departure: Departure, balancer: Balancer) -> None:
    """Wait until another process has taken over and the last call here has ended."""
    await departure.has_left.wait()
    await balancer.wait_ended()


async def _either(*awaitables: Coroutine[None, None, object]) -> None:
    """Wait until one of them is done; the others are cancelled."""
    tasks = [asyncio.create_task(one, name="one of several") for one in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _stop(balancer: Balancer, timeout_s: float, now: asyncio.Event) -> ExitCode:
    running = len(balancer.calls())
    log.info("stopping", message=f"{running} calls may go on for {timeout_s:g} s")
    stopping = asyncio.create_task(balancer.stop(timeout_s), name="stop")
    hurry = asyncio.create_task(now.wait(), name="hurry")
    await asyncio.wait((stopping, hurry), return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        balancer.end_all("the operator asked twice to stop")
    hurry.cancel()
    cut = await stopping
    log.info("stopped", message=f"{cut} calls were cut" if cut else "no call was cut")
    return ExitCode.CUT if cut else ExitCode.OK
