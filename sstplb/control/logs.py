"""Where log lines go and how they look.

Every line is an event with a stable name and named values (structlog). On a terminal a person
reads its ``message``; in a file or a journal a program reads JSON, where the values are worth
more than the message, which is kept too. A secret never becomes a value: the rooms see to that,
and nothing here adds anything.
"""

import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

from sstplb.config.schema import Log, LogFormat, LogLevel

_NUMBERS = ((LogLevel.DEBUG, 10), (LogLevel.INFO, 20), (LogLevel.WARNING, 30), (LogLevel.ERROR, 40))


@contextmanager
def logging_to(settings: Log) -> Iterator[None]:
    """Write log lines as configured while the context lasts. Raises OSError for a bad file."""
    stream = sys.stderr if settings.file is None else settings.file.open("a", encoding="utf-8")
    human = settings.format is LogFormat.HUMAN or (
        settings.format is LogFormat.AUTO and stream.isatty()
    )
    stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            stamp,
            structlog.processors.format_exc_info,
            _for_people if human else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(dict(_NUMBERS)[settings.level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
        if stream is not sys.stderr:
            stream.close()


def _for_people(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """Render time, level, event and message; the values are for programs."""
    trace = event.get("exception")
    text = event.get("message", "")
    line = f"{event['timestamp']} {event['level']:<7} {event['event']:<20} {text}".rstrip()
    return f"{line}\n{trace}" if trace else line
