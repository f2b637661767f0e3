"""Every exception of the package, named for who must act.

::

    SstplbError
    ├── ConfigError            the operator: lists every problem with its file, line and path
    ├── ProtocolError          bytes on a wire are not what the specification says (knows no side)
    │   ├── HeadError          the HTTP-looking opening
    │   ├── PacketError        SSTP framing and messages
    │   ├── BindingError       crypto binding
    │   ├── PrefaceError       the PROXY protocol preface
    │   └── PppError           PPP frames and options inside the tunnel
    ├── TlsError               TLS records, handshakes, certificates (knows no side)
    │   └── CertificateError   a certificate or key file
    ├── CallError              how a call failed; `net/session.py` chooses which
    │   ├── ClientError        the client must act
    │   │   ├── ClientProtocolError, ClientTlsError, ClientTimeoutError, ClientClosedError
    │   │   └── NotSstpError   a visitor that does not speak SSTP
    │   ├── BackendError       the backend's operator must act
    │   │   ├── BackendConnectError, BackendTlsError, BackendTimeoutError, BackendClosedError
    │   │   ├── BackendRefusedError      an HTTP answer other than 200
    │   │   ├── BackendProtocolError     an answer that is no HTTP
    │   │   └── CertificateMismatchError the same-certificate rule
    │   ├── RefusedError       our own decision, before hand-over
    │   │   └── LimitReachedError, NoBackendAvailableError, UnknownTenantError,
    │   │       DrainingError
    │   └── EndedError         our own decision, in the middle of a call
    │       └── IdleTimeoutError, BackendDownError, DrainedError, StoppedError,
    │           KilledError, WorkerDiedError
    ├── WindowsLogError        an exported event log that cannot be read
    ├── OperatorError          what an operator asked for while we run cannot be done
    │   ├── BadRequestError, BadValueError, UnknownThingError
    │   ├── ConflictError, CaptureError
    │   └── UnavailableError
    └── AskError               a command that asks a running balancer did not get what it wants
        └── UnreachableError, NotAdmittedError

What differs between kinds is said by class attributes, never by conditionals elsewhere:

``reason``
    a stable slug for the log, metrics and tests (an instance may narrow it),
``retry``
    whether another backend may be tried (only ever before hand-over),
``http_status``
    what a terminating listener answers the client, or None to close without a word.

Messages say *expected* and *got*, and quote at most 32 bytes of what came over the wire.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

QUOTE_BYTES_MAX = 32


def quote(data: bytes | bytearray | memoryview) -> str:
    """Show bytes from the wire in a message: at most 32 of them, the rest counted."""
    shown = bytes(data[:QUOTE_BYTES_MAX])
    more = len(data) - len(shown)
    return f"{shown!r}" + (f" and {more} bytes more" if more > 0 else "")


class SstplbError(Exception):
    """The root of all errors this package raises on purpose."""

    reason: str = "internal_error"

    def __init__(self, message: str = "", *, reason: str | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration: where it is and what to do about it."""

    message: str
    path: str = ""
    """Where in the document, e.g. ``pools.rras.backends[0].weight``."""
    file: str = ""
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else self.file
        return ": ".join(part for part in (place, self.path, self.message) if part)


class ConfigError(SstplbError):
    """The configuration cannot be used. Lists every problem, not only the first."""

    reason = "config"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ProtocolError(SstplbError):
    """Bytes on a wire are not what the specification says."""

    reason = "protocol_error"


class HeadError(ProtocolError):
    """The head of a request or answer cannot be read."""

    reason = "bad_head"


class PacketError(ProtocolError):
    """An SSTP stream or message is malformed ([MS-SSTP] 2.2)."""

    reason = "bad_packet"


class BindingError(ProtocolError):
    """A crypto binding does not hold ([MS-SSTP] 3.2.5.2)."""

    reason = "bad_binding"


class PrefaceError(ProtocolError):
    """The PROXY protocol preface is malformed or missing."""

    reason = "bad_proxy_preface"


class PppError(ProtocolError):
    """A PPP frame or negotiation is malformed or failed."""

    reason = "ppp_error"


class TlsError(SstplbError):
    """TLS failed; the message is a sentence an operator can act on."""

    reason = "tls_error"


class CertificateError(TlsError):
    """A certificate or key file cannot be used."""

    reason = "bad_certificate"


class CallError(SstplbError):
    """A call failed: the root of all that ends a call other than a plain end of bytes."""

    reason = "call_failed"
    retry: ClassVar[bool] = False
    http_status: ClassVar[int | None] = None


class ClientError(CallError):
    """The call failed on the client's side."""

    reason = "client_error"


class ClientProtocolError(ClientError):
    """The client sent something that cannot be read."""

    reason = "client_protocol_error"
    http_status = 400


class ClientTlsError(ClientError):
    """The TLS handshake with the client failed."""

    reason = "client_tls_error"


class ClientTimeoutError(ClientError):
    """The client did not finish its handshake or head in time."""

    reason = "client_timeout"


class ClientClosedError(ClientError):
    """The client left before hand-over."""

    reason = "client_closed"


class NotSstpError(ClientError):
    """A visitor that does not speak SSTP, and no web pool to send it to."""

    reason = "not_sstp"
    http_status = 404


class BackendError(CallError):
    """The call failed on the backend's side."""

    reason = "backend_error"
    retry = True
    http_status = 503


class BackendConnectError(BackendError):
    """The backend refused the TCP connection or could not be reached."""

    reason = "backend_connect_failed"


class BackendTlsError(BackendError):
    """The TLS handshake with the backend failed, or its certificate was not accepted."""

    reason = "backend_tls_error"

    def __init__(
        self, message: str = "", *, reason: str | None = None, leaf_der: bytes | None = None
    ) -> None:
        """``leaf_der``: the certificate it showed, if it came to that."""
        super().__init__(message, reason=reason)
        self.leaf_der = leaf_der


class CertificateMismatchError(BackendError):
    """The backend shows another certificate than we serve: every crypto binding would fail."""

    reason = "certificate_mismatch"


class BackendTimeoutError(BackendError):
    """The backend did not connect, shake hands or answer in time."""

    reason = "backend_timeout"


class BackendClosedError(BackendError):
    """The backend closed before it answered."""

    reason = "backend_closed"


class BackendProtocolError(BackendError):
    """The backend answered something that is not an HTTP head."""

    reason = "backend_protocol_error"


class BackendRefusedError(BackendError):
    """The backend answered with a status other than 200 (out of ports, service stopped…)."""

    reason = "backend_refused"

    def __init__(self, message: str = "", *, status: int, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.status = status


class RefusedError(CallError):
    """We decided not to take the call."""

    reason = "refused"
    http_status: ClassVar[int | None] = 503


class LimitReachedError(RefusedError):
    """A configured limit is reached; ``reason`` names which."""

    reason = "limit_reached"
    http_status = None


class NoBackendAvailableError(RefusedError):
    """No backend of the pool can take a call."""

    reason = "no_backend_available"

    def __init__(self, message: str = "", passed_over: Iterable[tuple[str, str, str]] = ()) -> None:
        super().__init__(message)
        self.passed_over = tuple(passed_over)
        """Each backend's name, the slug of why not, and what its health says in words."""


class UnknownTenantError(RefusedError):
    """The call names a tenant that has no pool, and the listener says ``refuse``."""

    reason = "unknown_tenant"
    http_status = 404


class DrainingError(RefusedError):
    """The balancer or the listener is draining."""

    reason = "draining"


class EndedError(CallError):
    """We end a call that is running."""

    reason = "ended"


class IdleTimeoutError(EndedError):
    """No byte either way for the idle limit."""

    reason = "idle_timeout"


class BackendDownError(EndedError):
    """Its backend went down, and the pool says ``on_down: close``."""

    reason = "backend_down"


class DrainedError(EndedError):
    """What carried it was drained, and the time for running calls is over."""

    reason = "drained"


class StoppedError(EndedError):
    """The balancer stops, and the time for running calls is over."""

    reason = "stopped"


class WorkerDiedError(EndedError):
    """The process that carried the call is gone."""

    reason = "worker_died"


class KilledError(EndedError):
    """An operator ended the call."""

    reason = "ended_by_operator"


class WindowsLogError(SstplbError):
    """A file is no exported Windows event log, or not one to be trusted."""

    reason = "bad_windows_log"


class OperatorError(SstplbError):
    """What an operator asked for cannot be done; nothing has changed."""

    reason = "bad_request"
    http_status: ClassVar[int] = 400

    def __init__(self, message: str, path: str | None = None, *, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.path = path
        """What it is about, as in the configuration: ``pools.rras.backends.rras1``."""


class BadRequestError(OperatorError):
    """A value makes no sense."""


class BadValueError(OperatorError):
    """A value of the right kind, but not one the configuration could have."""

    reason = "bad_value"
    http_status = 422


class UnknownThingError(OperatorError):
    """There is no such pool, backend, call or entry."""

    reason = "not_found"
    http_status = 404


class ConflictError(OperatorError):
    """It would make sense, but not as things are."""

    reason = "conflict"
    http_status = 409


class CaptureError(ConflictError):
    """A capture cannot begin; the message says why and what to do."""

    reason = "capture_refused"


class UnavailableError(OperatorError):
    """Not now: too many ask, or we are on our way out."""

    reason = "unavailable"
    http_status = 503


class AskError(SstplbError):
    """A command asked a running balancer and did not get what it wants; the message says why."""

    reason = "refused"

    def __init__(
        self,
        message: str = "",
        *,
        reason: str | None = None,
        path: str | None = None,
        problems: Iterable[str] = (),
    ) -> None:
        super().__init__(message, reason=reason)
        self.path = path
        """What it is about, as in the configuration."""
        self.problems = tuple(problems)
        """All that is wrong with a configuration, where one was judged."""


class UnreachableError(AskError):
    """Nobody answers, or somebody else than a balancer."""

    reason = "unreachable"


class NotAdmittedError(AskError):
    """The balancer, or the system before it, lets us not in."""

    reason = "not_admitted"
