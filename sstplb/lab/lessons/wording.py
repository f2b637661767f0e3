"""Small sentences that several lessons share."""

from collections.abc import Mapping
from typing import Any

WANTED = (
    "client", "listener", "mode", "server_name", "backend", "tries", "correlation_id",
    "tls_version", "duration_s", "bytes_in", "bytes_out", "packets_in", "packets_out", "outcome",
    "reason", "detail",
)  # fmt: skip


def ms(seconds: float) -> str:
    """Show a time."""
    return f"{seconds * 1000:.3g} ms" if abs(seconds) < 0.01 else f"{seconds * 1000:.1f} ms"


def log_line(event: Mapping[str, Any], *wanted: str) -> tuple[str, ...]:
    """Return an event of a balancer's JSON log, one value a line; what has no value is absent."""
    return tuple(f"{key}: {event[key]}" for key in wanted or WANTED if key in event)


def short(digest: bytes) -> str:
    """Show a hash so that two can be told apart."""
    return f"{digest.hex()[:12]}…"
