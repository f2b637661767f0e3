"""What is remembered of one call. Pure: times are given.

A record is opened when a connection is accepted and closed exactly once, on every path (the
ledger insists). Two clocks appear: ``started_at`` is the wall clock (seconds since 1970), for
people; everything else is durations in seconds from a monotonic one.
"""

from dataclasses import dataclass, field, fields
from enum import StrEnum

Address = tuple[str, int]


class Outcome(StrEnum):
    """How a call ended, in one word; ``reason`` narrows it."""

    COMPLETED = "completed"
    """It was handed over and ran until one side finished."""
    REFUSED = "refused"
    """We did not take it: a limit, no backend, draining."""
    CLIENT_FAILED = "client_failed"
    """The client's side failed."""
    BACKEND_FAILED = "backend_failed"
    """The backends' side failed."""
    CLOSED = "closed"
    """We ended it: silence, stop, drain, a backend that went down."""
    WEB = "web"
    """A visitor that does not speak SSTP, answered or sent to the web pool."""


class Goodbye(StrEnum):
    """What a side did with the CALL_DISCONNECT of ours, when it was us who ended the call."""

    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"
    """It closed its connection without a word."""
    ABORTED = "aborted"
    """It answered with CALL_ABORT."""
    UNANSWERED = "unanswered"
    """Nothing came within 5 s."""
    NO_PLACE = "no_place"
    """It was not sent: where a packet ends was not found in time."""
    UNSENT = "unsent"
    """It was not sent: the side was gone, or took no more bytes."""
    CLOSE_ONLY = "close_only"
    """No message was possible (TLS does not end here) or wanted: only the connection was ended."""


@dataclass(frozen=True, slots=True)
class Try:
    """One backend that was asked; ``reason`` is empty for the one that took the call."""

    backend: str
    reason: str
    seconds: float


@dataclass(slots=True)
class Phases:
    """How long each step took, in seconds; None: the call never got there, or had no such step."""

    preface_s: float | None = None
    hello_s: float | None = None
    tls_s: float | None = None
    head_s: float | None = None
    reach_s: float | None = None
    """Candidates, dials, and the backend's answer."""
    relay_s: float | None = None


@dataclass(slots=True)
class Record:
    """One call."""

    id: int
    listener: str
    mode: str
    client: Address
    started_at: float
    opened_s: float
    """On the monotonic clock."""
    pool: str | None = None
    backend: str | None = None
    server_name: str | None = None
    tls_version: str | None = None
    cipher: str | None = None
    correlation_id: str | None = None
    tenant_id: str | None = None
    """What the client wrote after ``?tenantid=``, made readable and cut."""
    tries: list[Try] = field(default_factory=list)
    phases: Phases = field(default_factory=Phases)
    bytes_in: int = 0
    """From client to backend, as plaintext in the terminating modes."""
    bytes_out: int = 0
    packets_in: int | None = None
    """SSTP packets; None where they were not followed."""
    packets_out: int | None = None
    client_goodbye: Goodbye | None = None
    """None: it was not us who ended the call, or it was cut at once."""
    backend_goodbye: Goodbye | None = None
    outcome: Outcome | None = None
    """None while it runs."""
    reason: str = ""
    detail: str = ""
    """The reason in words."""
    duration_s: float = 0.0

    def take_over(self, other: "Record") -> None:
        """Become a copy of what another process has written of the same call."""
        if other is not self:
            for known in fields(self):
                setattr(self, known.name, getattr(other, known.name))
