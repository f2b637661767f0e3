"""How a call's record is shown: fields for programs, a line for people. Pure.

Field names are stable and carry their unit; a field that has no value is left out.

==================  ==============================================================================
``call``            number of the call since the start
``correlation_id``  the client's GUID, which Windows writes in every event of the call
``tenant_id``       what the client wrote after ``?tenantid=``
``client``          address and port
``listener``        name;  ``mode`` passthrough, offload or reencrypt
``server_name``     SNI;  ``tls_offered`` (the newest), ``tls_version``, ``cipher``
``pool``, ``backend``
``tries``           backends asked before, each ``name:reason``;  ``tries_why`` in words
``passed_over``     backends that were no candidates, each ``name:reason``, when there was none;
                    ``passed_over_why`` in words
``user``, ``computer``, ``address``  as ``privacy`` has it; the address is that in the tunnel
``authentication``  its method;  ``authenticated_s`` how long it took,  ``address_s`` from
                    CALL_CONNECT_REQUEST to the address
``steps``           seconds since the call began, by step (``protocol/story.py`` lists them);
                    ``step_details`` what there is to say of one
``hellos``          ``asker answered/asked``, and ``unanswered`` if the last one was
``hash_protocol``, ``certificate_hash``, ``hash_whose``, ``nonce_echoed``, ``hash_offered``
                    what the client's crypto binding says;  ``served_sha256``,
                    ``backend_sha256``, ``backend_sha256_from`` what it may be compared with;
                    only of calls that did not go well
``ended_by``        client, backend or balancer
``diagnosis``       what was wrong, by its slugs (``diagnosis.py``), where something was
``…_s``             seconds: preface, hello, tls, head, reach, relay, duration
``bytes_in``, ``bytes_out``      client to backend, backend to client
``packets_in``, ``packets_out``  SSTP packets, where they are followed
``client_goodbye``  what a side said when we ended the call; ``backend_goodbye``
``outcome``, ``reason``, ``detail``  one word, a slug, a sentence
==================  ==============================================================================
"""

from dataclasses import fields

from sstplb.account.diagnosis import diagnose
from sstplb.account.record import Hellos, Outcome, Phases, Record, Story
from sstplb.config.quantities import Endpoint

_PHASES = tuple(field.name for field in fields(Phases))
_WENT_WELL = (Outcome.COMPLETED, Outcome.WEB)
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def log_fields(record: Record) -> dict[str, object]:
    """Return a closed record as named values, in a stable order."""
    phases = {name: _rounded(getattr(record.phases, name)) for name in _PHASES}
    values: dict[str, object | None] = {
        "call": record.id,
        "correlation_id": record.correlation_id,
        "tenant_id": record.tenant_id,
        "client": str(Endpoint(*record.client)),
        "listener": record.listener,
        "mode": record.mode,
        "server_name": record.server_name,
        "tls_offered": record.tls_offered,
        "tls_version": record.tls_version,
        "cipher": record.cipher,
        "pool": record.pool,
        "backend": record.backend,
        "tries": [f"{t.backend}:{t.reason}" for t in record.tries if t.reason] or None,
        "tries_why": [t.why for t in record.tries if t.why] or None,
        "passed_over": [f"{p.backend}:{p.reason}" for p in record.passed_over] or None,
        "passed_over_why": [f"{p.backend}: {p.why}" for p in record.passed_over if p.why] or None,
        **phases,
        **_story_fields(record.story),
        "duration_s": _rounded(record.duration_s),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "packets_in": record.packets_in,
        "packets_out": record.packets_out,
        "client_goodbye": None if record.client_goodbye is None else str(record.client_goodbye),
        "backend_goodbye": None if record.backend_goodbye is None else str(record.backend_goodbye),
        **({} if record.outcome in _WENT_WELL else _binding_fields(record)),
        "ended_by": record.ended_by,
        "outcome": None if record.outcome is None else str(record.outcome),
        "reason": record.reason or None,
        "detail": record.detail or None,
    }
    known = {name: value for name, value in values.items() if value is not None}
    if causes := [str(found.cause) for found in diagnose(known)]:
        known["diagnosis"] = causes
    return known


def _story_fields(story: Story | None) -> dict[str, object | None]:
    """Return what a call's packets told, compactly: each step once, when it first happened."""
    if story is None:
        return {}
    first = {moment.step: moment for moment in reversed(story.moments)}
    steps = {step: first[step].at_s for step in dict.fromkeys(m.step for m in story.moments)}
    return {
        "user": story.user,
        "computer": story.computer,
        "address": story.address,
        "authentication": story.authentication,
        "authenticated_s": _rounded(story.authenticated_s),
        "address_s": _rounded(story.address_s),
        "steps": steps or None,
        "step_details": {step: first[step].detail for step in steps if first[step].detail} or None,
        "hellos": [_hellos(seen) for seen in story.hellos] or None,
    }


def _hellos(seen: Hellos) -> str:
    unanswered = " unanswered" if seen.unanswered else ""
    return f"{seen.asked_by} {seen.answered}/{seen.asked}{unanswered}"


def _binding_fields(record: Record) -> dict[str, object | None]:
    """Return what speaks for or against the crypto binding: hashes are long, and mostly fit."""
    values: dict[str, object | None] = {
        "served_sha256": record.served_sha256,
        "backend_sha256": record.backend_sha256,
        "backend_sha256_from": record.backend_sha256_from,
    }
    binding = record.story.binding if record.story is not None else None
    if binding is not None:
        values |= {
            "hash_protocol": binding.hash_protocol,
            "certificate_hash": binding.certificate_hash,
            "hash_whose": binding.whose,
            "nonce_echoed": binding.nonce_echoed,
            "hash_offered": binding.hash_offered,
        }
    return values


def log_line(record: Record) -> str:
    """Return a closed record as one line for people."""
    way = f"{Endpoint(*record.client)} → {record.listener}"
    if record.backend is not None:
        way += f" → {record.backend}"
    failed = [f"{t.backend} {t.reason}" for t in record.tries if t.reason]
    parts = [
        f"call {record.id}",
        f"{record.mode}",
        way,
        f"tenant {record.tenant_id}" if record.tenant_id is not None else "",
        f"after {', '.join(failed)}" if failed else "",
        _who(record.story) if record.story is not None else "",
        f"{record.duration_s:.3f} s",
        f"in {format_bytes(record.bytes_in)} out {format_bytes(record.bytes_out)}",
        f"{record.outcome} ({record.reason})",
        record.detail,
        goodbyes(record.client_goodbye, record.backend_goodbye),
    ]
    return " · ".join(part for part in parts if part)


def goodbyes(client: str | None, backend: str | None) -> str:
    """Say what the sides answered to our goodbye; empty: none was said."""
    return "" if client is None else f"goodbye: client {client}, backend {backend}"


def _who(story: Story) -> str:
    """Say who called, as far as it may be told: ``user at PC7 has 10.9.0.2``."""
    at = f"at {story.computer}" if story.computer else ""
    has = f"has {story.address}" if story.address else ""
    return " ".join(part for part in (story.user, at, has) if part)


def format_bytes(count: int) -> str:
    """Show bytes in the largest fitting binary unit, e.g. ``3.4 MiB``."""
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
