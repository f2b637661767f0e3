"""Certificates that were renewed are read again by themselves.

The files the configuration names are looked at every few seconds (times, sizes, inodes: renewal
tools replace files or turn symbolic links). A change is acted upon when the files have been the
same for two looks, so that a chain and its key, written one after the other, are not read between.
When they do not fit all the same, the log says so once, and the old ones stay in force.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import structlog

from sstplb.config import schema
from sstplb.control.configuration import Configuration
from sstplb.errors import ConfigError, ConflictError

LOOK_EVERY_S = 5.0

Stamps = dict[Path, tuple[int, int, int] | None]

log = structlog.get_logger()


async def watch_certificates(
    configuration: Configuration, look_every_s: float = LOOK_EVERY_S
) -> None:
    """Look until the balancer stops."""
    in_force = before = _stamps(configuration.in_force)
    while True:
        await asyncio.sleep(look_every_s)
        now = _stamps(configuration.in_force)
        if now.keys() != in_force.keys():  # another configuration: it has just been loaded
            in_force = now
        elif now == before and now != in_force and configuration.in_force.tls.watch_files:
            in_force = now
            try:
                await configuration.reload_certificates()
            except ConfigError as error:
                for problem in error.problems:
                    text = f"the old ones stay in force: {problem}"
                    log.error("certificates_failed", message=text)  # noqa: TRY400 - no trace
            except ConflictError:
                return  # it is stopping
        before = now


def _stamps(config: schema.Config) -> Stamps:
    return {path: _stamp(path) for path in _files(config)}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _files(config: schema.Config) -> Iterator[Path]:
    shown = [files for listener in config.listeners for files in listener.certificates]
    for files in (*shown, *config.admin.certificates):
        yield files.chain
        if files.key is not None:
            yield files.key
    for pool in config.pools.values():
        if pool.tls.ca_file is not None:
            yield pool.tls.ca_file
