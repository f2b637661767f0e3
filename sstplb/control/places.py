"""Where a balancer will write: judged when its file is loaded, not when it is needed.

Not when renewed certificates are read (``plan.prepare`` alone): a log's directory that is gone must
not keep them out.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sstplb.config import schema
from sstplb.control.files import why_no_place
from sstplb.errors import Problem

SERVICE_DIRECTORIES = tuple(map(Path, ("/run/sstplb", "/var/lib/sstplb", "/var/log/sstplb")))
"""What systemd makes when it starts the service (docs/service/sstplb.service)."""


def judge_places(config: schema.Config, problems: list[Problem], hints: list[Problem]) -> None:
    """Say where nothing could be written; what is found now does not fail later."""
    for path, directory, why_not in _judged(config):
        if why_not is None:
            continue
        if directory in SERVICE_DIRECTORIES and not os.path.isdir(directory):  # noqa: PTH112 - as in files.py
            message = f"there is no directory {directory} yet; the service makes it when it starts"
            hints.append(Problem(message, path))
        else:
            problems.append(Problem(why_not, path))


def _judged(config: schema.Config) -> Iterator[tuple[str, Path, str | None]]:
    """Yield each place's path in the configuration, its directory, and what is wrong with it."""
    if (directory := config.capture.directory) is not None:
        yield "capture.directory", directory, why_no_place(directory / "a call")
    if (state := config.state_file) is not None:
        yield "state_file", state.parent, why_no_place(state)
    if (log := config.log.file) is not None:
        yield "log.file", log.parent, _why_no_log(log)
    if (door := config.admin.socket) is not None and not _is_socket(door):
        yield "admin.socket", door.parent, why_no_place(door)


def _why_no_log(path: Path) -> str | None:
    """Say why a log cannot be written: one that is there is written on, not replaced."""
    mode = _mode(path)
    if mode is None or stat.S_ISDIR(mode):
        return why_no_place(path)
    return None if os.access(path, os.W_OK) else f"this user cannot write to {path}"


def _is_socket(path: Path) -> bool:
    mode = _mode(path)
    return mode is not None and stat.S_ISSOCK(mode)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError:
        return None
