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
    why: str = ""
    """The reason in words."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A backend that was no candidate for a call."""

    backend: str
    reason: str
    """A slug: ``down``, ``set_aside``, ``draining``, ``calls_max``, ``certificate_mismatch``…"""
    why: str = ""
    """What its health says, in words; empty where the reason says all."""


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


@dataclass(frozen=True, slots=True)
class Moment:
    """One step of a call's story: which (``protocol/story.py`` has the list), by whom, when."""

    step: str
    side: str
    """Whose doing: ``client`` or ``backend``."""
    at_s: float
    """Seconds since the call began."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Binding:
    """A client's crypto binding, as far as it can be judged from the middle."""

    hash_protocol: str
    """SHA1 or SHA256."""
    offered: str
    """What the backend offered, comma-separated; empty: not seen."""
    certificate_hash: str
    """Of the certificate the client saw, in hexadecimal."""
    whose: str
    """``ours``, ``backend's``, ``neither`` or ``unknown``."""
    nonce_echoed: bool | None
    hash_offered: bool


@dataclass(frozen=True, slots=True)
class Hellos:
    """Hellos (ECHO_REQUEST) of one side that were seen, and what became of them."""

    asked_by: str
    asked: int
    answered: int
    last_s: float | None
    """Round trip, from request to answer, as both came past."""
    longest_s: float | None
    unanswered: bool
    """Nothing at all came any more after the last one."""


@dataclass(slots=True)
class Story:
    """What a call's packets told, where TLS ended here and they were followed.

    ``user``, ``computer`` and ``address`` are as ``privacy:`` lets them be: shown, hashed or None.
    """

    moments: list[Moment] = field(default_factory=list)
    user: str | None = None
    computer: str | None = None
    address: str | None = None
    """Assigned inside the tunnel."""
    authentication: str | None = None
    """The method: MS-CHAPv2, PEAP, EAP-TLS, PAP…"""
    binding: Binding | None = None
    is_proven: bool = False
    """The backend accepted the binding: packets flowed, and no abort came."""
    hellos: tuple[Hellos, ...] = ()

    def at_s(self, step: str) -> float | None:
        """Return when a step first happened."""
        return next((moment.at_s for moment in self.moments if moment.step == step), None)

    def between_s(self, first: str, last: str) -> float | None:
        """Return how long it took from one step to another, if both happened."""
        began, ended = self.at_s(first), self.at_s(last)
        return None if began is None or ended is None else max(0.0, ended - began)

    @property
    def authenticated_s(self) -> float | None:
        """How long authentication took, until the backend was content."""
        return self.between_s("authentication", "authenticated")

    @property
    def address_s(self) -> float | None:
        """From the client's CALL_CONNECT_REQUEST to its address."""
        return self.between_s("connect_request", "address")


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
    tls_offered: str | None = None
    """The newest TLS version the client offers; all that is seen of TLS in passthrough."""
    tls_version: str | None = None
    """What was negotiated, where TLS ended here."""
    cipher: str | None = None
    correlation_id: str | None = None
    tenant_id: str | None = None
    """What the client wrote after ``?tenantid=``, made readable and cut."""
    served_sha256: str | None = None
    """Of the certificate this client was shown, in hexadecimal."""
    backend_sha256: str | None = None
    """Of the one the backend expects clients to have seen, as far as is known."""
    backend_sha256_from: str | None = None
    """How it is known: ``shown`` in its handshake, or ``declared`` in the configuration."""
    story: Story | None = None
    passed_over: tuple[PassedOver, ...] = ()
    """Who was no candidate, when there was none."""
    ended_by: str | None = None
    """``client``, ``backend`` or ``balancer``."""
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
