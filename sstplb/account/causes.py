"""What a diagnosis is made of: causes, and the fields of a call's log line, by questions. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Cause(StrEnum):
    """What was wrong, as a stable slug."""

    WRONG_OFFLOAD_HASH = "wrong_offload_hash"
    DIFFERENT_CERTIFICATE = "different_certificate"
    TLS_INSPECTION = "tls_inspection"
    BACKEND_CERTIFICATE_SEEN = "backend_certificate_seen"
    COMPOUND_MAC_REFUSED = "compound_mac_refused"
    NONCE_NOT_ECHOED = "nonce_not_echoed"
    HASH_NOT_OFFERED = "hash_not_offered"
    BINDING_MISSING = "binding_missing"
    BACKEND_CERTIFICATE_EXPIRED = "backend_certificate_expired"
    BACKEND_CERTIFICATE_UNTRUSTED = "backend_certificate_untrusted"
    BACKEND_CERTIFICATE_NAME = "backend_certificate_name"
    BACKEND_TLS = "backend_tls"
    NO_PORTS = "no_ports"
    SERVICE_STOPPED = "service_stopped"
    SERVER_SILENT = "server_silent"
    SERVER_UNREACHABLE = "server_unreachable"
    SERVER_CLOSES = "server_closes"
    NOT_RRAS = "not_rras"
    BACKENDS_TAKEN_OUT = "backends_taken_out"
    BAD_PASSWORD = "bad_password"  # noqa: S105 - a slug
    AUTHENTICATION_REFUSED = "authentication_refused"
    CALL_NAK = "call_nak"
    CLOSED_IN_CALL = "closed_in_call"
    OPENING_STALLED = "opening_stalled"
    CLIENT_DEAD = "client_dead"
    BACKEND_DEAD = "backend_dead"
    IDLE = "idle"
    CLIENT_REJECTS_CERTIFICATE = "client_rejects_certificate"
    NO_COMMON_TLS = "no_common_tls"
    CLIENT_SILENT = "client_silent"
    MALFORMED_STREAM = "malformed_stream"
    ABORTED = "aborted"
    LIMIT_REACHED = "limit_reached"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One cause, and the way out."""

    cause: Cause
    sentence: str
    remedy: str
    evidence: tuple[str, ...] = ()
    """What speaks for it, one fact a line: hashes side by side, answers word by word."""


@dataclass(frozen=True, slots=True)
class Later:
    """A backend that a check found down soon after the call."""

    backend: str
    why: str


class Seen:
    """The fields of a log line, by the questions that are asked of them."""

    def __init__(self, fields: Mapping[str, Any], later: tuple[Later, ...]) -> None:
        self.fields = fields
        self.later = later
        self.mode = self.text("mode")
        self.reason = self.text("reason")
        self.outcome = self.text("outcome")
        self.ended_by = self.text("ended_by")
        self.backend = self.text("backend") or "the backend"
        self.steps = self._dict("steps")
        self.details = self._dict("step_details")

    def text(self, name: str) -> str:
        """Return a field as text; empty: it is not there."""
        value = self.fields.get(name)
        return "" if value is None else str(value)

    def lines(self, name: str) -> list[str]:
        """Return a field that is a list."""
        value = self.fields.get(name)
        return [str(item) for item in value] if isinstance(value, list | tuple) else []

    def _dict(self, name: str) -> Mapping[str, Any]:
        value = self.fields.get(name)
        return value if isinstance(value, Mapping) else {}

    @property
    def is_connected(self) -> bool:
        """Whether the client sent its CALL_CONNECTED."""
        return "connected" in self.steps

    @property
    def is_binding_refused(self) -> bool:
        """Whether the backend refused the client's crypto binding.

        RRAS names the attribute. sorz/sstp-server only aborts; but it does so instead of letting
        any data through.
        """
        if self.reason == "binding_refused":
            return True
        is_abort = self.reason == "aborted_by_backend" and self.is_connected
        return is_abort and "data_from_backend" not in self.steps

    def hashes(self) -> tuple[str, ...]:
        """Return the hashes of client, balancer and backend, side by side."""
        kind = self.text("hash_protocol")
        saw, served = self.text("certificate_hash"), self.text("served_sha256")
        theirs, known = self.text("backend_sha256"), self.text("backend_sha256_from")
        source = {"shown": "shows SHA-256", "declared": "is declared to expect"}.get(known)
        rows = (
            ("the client saw", f"{kind} {saw}" if saw else "not known"),
            ("we served", f"SHA256 {served}" if served else "not known"),
            (self.backend, f"{source} {theirs}" if source else "keeps its hash to itself"),
        )
        return tuple(f"{who}: {what}" for who, what in rows)
