"""Running the balancer in the foreground: signals, reloads, and an exit code that means something.

==========  ================================================================================
SIGTERM     stop: accept no more, let calls end for ``limits.stop_timeout``, then close them
SIGINT      the same; a second one of either closes running calls at once
SIGHUP      reload the file; a bad one changes nothing and says why. Opens the log file anew
==========  ================================================================================
"""

import asyncio
import contextlib
import signal
from enum import IntEnum
from pathlib import Path

import structlog

from sstplb.config.loader import load
from sstplb.control.admin.side import admin_side
from sstplb.control.balancer import Balancer
from sstplb.control.logs import Logs
from sstplb.control.operator import Operator, warn
from sstplb.control.plan import Prepared, all_warnings, prepare
from sstplb.errors import ConfigError

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


def load_all(path: Path) -> Prepared:
    """Read the configuration and all it names. Raises ConfigError."""
    return prepare(load(path))


async def run(path: Path) -> ExitCode:
    """Run until a signal says stop. Raises ConfigError when it cannot begin."""
    prepared = load_all(path)
    logs = Logs()
    logs.apply(prepared.config.log)
    try:
        return await _run(path, prepared, logs)
    finally:
        logs.close()


async def _run(path: Path, prepared: Prepared, logs: Logs) -> ExitCode:
    balancer = Balancer(prepared)
    operator = Operator(balancer, path, logs)
    stop, reload, now = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked_to_stop() -> None:
        (now if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    warn(all_warnings(prepared))
    async with admin_side(operator, prepared):
        await balancer.start()
        count = len(balancer.listeners)
        crew = f"{balancer.crew.count} workers" if balancer.crew.count > 1 else "one process"
        engine = prepared.engine
        log.info(
            "ready",
            message=f"{count} listeners accept calls, carried by {crew}; TLS engine: {engine}",
        )
        async with asyncio.TaskGroup() as group:
            reloading = group.create_task(_reload_when_asked(reload, operator))
            await stop.wait()
            reloading.cancel()
        operator.is_draining = True
        return await _stop(balancer, now)


async def _reload_when_asked(asked: asyncio.Event, operator: Operator) -> None:
    while True:
        await asked.wait()
        asked.clear()
        with contextlib.suppress(ConfigError):  # it is in the log
            await operator.reload()


async def _stop(balancer: Balancer, now: asyncio.Event) -> ExitCode:
    timeout_s = balancer.plan.config.limits.stop_timeout
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
