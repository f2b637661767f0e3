"""Running the balancer in the foreground: signals, reloads, and an exit code that means something.

==========  ================================================================================
SIGTERM     stop: accept no more, let calls end for ``limits.stop_timeout``, then close them
SIGINT      the same; a second one of either closes running calls at once
SIGHUP      reload the file; a bad one changes nothing and says why. Opens the log file anew
==========  ================================================================================
"""

import asyncio
import signal
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path

import structlog

from sstplb.config import warnings
from sstplb.config.loader import load
from sstplb.control.balancer import Balancer
from sstplb.control.logs import Logs
from sstplb.control.plan import Prepared, prepare
from sstplb.errors import ConfigError, Problem

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


def all_warnings(prepared: Prepared) -> list[Problem]:
    """Return what will hurt: in the configuration, and in the certificates it names."""
    return [*warnings.warnings(prepared.config), *prepared.warnings]


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
    stop, reload, now = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked_to_stop() -> None:
        (now if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    _warn(all_warnings(prepared))
    await balancer.start()
    count = len(balancer.listeners)
    log.info("ready", message=f"{count} listeners accept calls; TLS engine: {prepared.engine}")
    async with asyncio.TaskGroup() as group:
        reloading = group.create_task(_reload_when_asked(reload, path, balancer, logs))
        await stop.wait()
        reloading.cancel()
    return await _stop(balancer, now)


async def _reload_when_asked(
    asked: asyncio.Event, path: Path, balancer: Balancer, logs: Logs
) -> None:
    while True:
        await asked.wait()
        asked.clear()
        try:
            # Reading files and parsing keys takes a while: running calls must not wait for it.
            prepared = await asyncio.to_thread(load_all, path)
            await balancer.reload(prepared)
            logs.apply(prepared.config.log)
        except ConfigError as error:
            for problem in error.problems:
                text = f"nothing has changed: {problem}"
                log.error("reload_failed", message=text)  # noqa: TRY400 - no trace for a typo
        else:
            _warn(all_warnings(prepared))
            log.info("reloaded", message=f"{path} is in force; running calls keep what they had")


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


def _warn(problems: Iterable[Problem]) -> None:
    for problem in problems:
        log.warning("configuration", message=str(problem))
