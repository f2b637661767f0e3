"""Where log lines go and how they look.

Every line is an event with a stable name and named values (structlog). On a terminal a person
reads its ``message``; in a file or a journal a program reads JSON, where the values are worth
more than the message, which is kept too. A syslog server may get them as well (``syslog.py``). A
secret never becomes a value: the rooms see to that, and nothing here adds anything.
"""

import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from sstplb.config.schema import Log, LogFormat, LogLevel
from sstplb.control.events import EventLog
from sstplb.control.syslog import Syslog
from sstplb.errors import ConfigError, Problem

_NUMBERS = ((LogLevel.DEBUG, 10), (LogLevel.INFO, 20), (LogLevel.WARNING, 30), (LogLevel.ERROR, 40))


class Logs:
    """The one place log lines go to. ``apply`` again opens the file anew (after a rotation)."""

    def __init__(self) -> None:
        self.events = EventLog()
        """The latest lines, for the admin side."""
        self.level = LogLevel.INFO
        self._file: TextIO | None = None
        self._syslog: Syslog | None = None

    def apply(self, settings: Log) -> None:
        """Write as configured from now on. Raises ConfigError when the file cannot be opened."""
        file: TextIO | None = None
        if settings.file is not None:
            try:
                file = settings.file.open("a", encoding="utf-8")
            except OSError as error:
                message = f"cannot write {settings.file}: {error.strerror}"
                raise ConfigError([Problem(message, "log.file")]) from error
        stream = file or sys.stderr
        human = settings.format is LogFormat.HUMAN or (
            settings.format is LogFormat.AUTO and stream.isatty()
        )
        stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human)
        self._follow_syslog(settings)
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                self.events.note,
                stamp,
                structlog.processors.format_exc_info,
                *([self._syslog.note] if self._syslog is not None else []),
                _for_people if human else structlog.processors.JSONRenderer(),
            ],
            logger_factory=structlog.WriteLoggerFactory(file=stream),
            cache_logger_on_first_use=False,
        )
        self.set_level(settings.level)
        self._close()
        self._file = file

    def set_level(self, level: LogLevel) -> None:
        """Write what is at least this severe, until ``apply``."""
        self.level = level
        wrapper = structlog.make_filtering_bound_logger(dict(_NUMBERS)[level])
        structlog.configure(wrapper_class=wrapper)

    def close(self) -> None:
        """Write as if nothing had been configured, and let go of the file."""
        structlog.reset_defaults()
        self._close()
        if self._syslog is not None:
            self._syslog.close()

    def _follow_syslog(self, settings: Log) -> None:
        """Go on with the server we have, unless it is another now."""
        wanted, known = (settings.syslog, settings.syslog_facility), self._syslog
        if known is not None and (known.server, known.facility) != wanted:
            known.close()
            self._syslog = None
        if self._syslog is None and settings.syslog is not None:
            self._syslog = Syslog(settings.syslog, settings.syslog_facility)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _for_people(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """Render time, level, event and message; the values are for programs."""
    trace = event.get("exception")
    text = event.get("message", "")
    line = f"{event['timestamp']} {event['level']:<7} {event['event']:<20} {text}".rstrip()
    return f"{line}\n{trace}" if trace else line
