"""How a call's record is shown: fields for programs, a line for people. Pure.

Field names are stable and carry their unit; a field that has no value is left out.

==================  ==============================================================================
``call``            number of the call since the start
``correlation_id``  the client's GUID, which Windows writes in every event of the call
``tenant_id``       what the client wrote after ``?tenantid=``
``client``          address and port
``listener``        name;  ``mode`` passthrough, offload or reencrypt
``server_name``     SNI;  ``tls_version``, ``cipher``
``pool``, ``backend``
``tries``           backends asked before, each ``name:reason``
``…_s``             seconds: preface, hello, tls, head, reach, relay, duration
``bytes_in``, ``bytes_out``      client to backend, backend to client
``packets_in``, ``packets_out``  SSTP packets, where they are followed
``client_goodbye``  what a side said when we ended the call; ``backend_goodbye``
``outcome``, ``reason``, ``detail``  one word, a slug, a sentence
==================  ==============================================================================
"""

from dataclasses import fields

from sstplb.account.record import Phases, Record

_PHASES = tuple(field.name for field in fields(Phases))
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def log_fields(record: Record) -> dict[str, object]:
    """Return a closed record as named values, in a stable order."""
    phases = {name: _rounded(getattr(record.phases, name)) for name in _PHASES}
    values: dict[str, object | None] = {
        "call": record.id,
        "correlation_id": record.correlation_id,
        "tenant_id": record.tenant_id,
        "client": _endpoint(record.client),
        "listener": record.listener,
        "mode": record.mode,
        "server_name": record.server_name,
        "tls_version": record.tls_version,
        "cipher": record.cipher,
        "pool": record.pool,
        "backend": record.backend,
        "tries": [f"{t.backend}:{t.reason}" for t in record.tries if t.reason] or None,
        **phases,
        "duration_s": _rounded(record.duration_s),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "packets_in": record.packets_in,
        "packets_out": record.packets_out,
        "client_goodbye": None if record.client_goodbye is None else str(record.client_goodbye),
        "backend_goodbye": None if record.backend_goodbye is None else str(record.backend_goodbye),
        "outcome": None if record.outcome is None else str(record.outcome),
        "reason": record.reason or None,
        "detail": record.detail or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def log_line(record: Record) -> str:
    """Return a closed record as one line for people."""
    way = f"{_endpoint(record.client)} → {record.listener}"
    if record.backend is not None:
        way += f" → {record.backend}"
    failed = [f"{t.backend} {t.reason}" for t in record.tries if t.reason]
    parts = [
        f"call {record.id}",
        f"{record.mode}",
        way,
        f"tenant {record.tenant_id}" if record.tenant_id is not None else "",
        f"after {', '.join(failed)}" if failed else "",
        f"{record.duration_s:.3f} s",
        f"in {format_bytes(record.bytes_in)} out {format_bytes(record.bytes_out)}",
        f"{record.outcome} ({record.reason})",
        record.detail,
        _goodbyes(record),
    ]
    return " · ".join(part for part in parts if part)


def _goodbyes(record: Record) -> str:
    if record.client_goodbye is None:
        return ""
    return f"goodbye: client {record.client_goodbye}, backend {record.backend_goodbye}"


def format_bytes(count: int) -> str:
    """Show bytes in the largest fitting binary unit, e.g. ``3.4 MiB``."""
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _endpoint(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
