"""A probe asks one backend once whether it is well, and says why it thinks so.

The listener on RRAS is the kernel's http.sys: its port stays open, and answers 404 or 503, while
the SSTP service is dead. So the check to make is an HTTP one for the SSTP URI, expecting 401;
``tcp`` exists, and misleads. ``sstp`` goes as far as CALL_CONNECT_ACK, and ``login`` places a
whole call with a test account: the only check that also proves the certificate hash.

A probe takes the way a call would (``net/dial.py``), within one deadline. Its result carries a
transcript, for the operator who asks "why is it down?", and never a password.
"""

import asyncio
import re
from dataclasses import dataclass, field

from sstplb.balance.health import Verdict
from sstplb.config.schema import Check, CheckMethod
from sstplb.errors import BackendError, BackendTlsError, HeadError, TlsError
from sstplb.net.call import now_s
from sstplb.net.caller import Caller, new_correlation_id
from sstplb.net.dial import Way, dial
from sstplb.net.leg import RECEIVE_BYTES, Leg
from sstplb.protocol.caller import CallerSettings
from sstplb.protocol.head import HeadReader, build_request

ANSWER_BYTES_MAX = 4096
"""How much of an answer is looked at, as F5 does (5 KB there)."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What a probe found."""

    verdict: Verdict
    leaf_der: bytes | None = None
    """The certificate the backend showed, where TLS was spoken, accepted or not."""
    seconds: float = 0.0
    failure: str = ""
    """Why a call that was placed failed, as a slug (``binding_refused``); empty: it did not."""


@dataclass(slots=True)
class _Transcript:
    lines: list[str] = field(default_factory=list)

    def sent(self, what: str) -> None:
        self.lines.append(f"> {what}")

    def got(self, what: str) -> None:
        self.lines.append(f"< {what}")

    def note(self, what: str) -> None:
        self.lines.append(f"* {what}")

    def __str__(self) -> str:
        return "\n".join(self.lines)


class _BadAnswerError(Exception):
    """A check's answer is not the one that was hoped for."""

    def __init__(self, message: str, failure: str = "") -> None:
        super().__init__(message)
        self.failure = failure


async def probe(way: Way, check: Check, *, password: str = "", leaf_der: bytes = b"") -> Probed:
    """Ask once. Never raises (but for cancellation): what fails is a bad verdict.

    ``leaf_der`` is the certificate that a ``login`` binds to instead of the one that is seen; in
    plain HTTP none is. ``way.policy`` must be set exactly when the backend speaks TLS.
    """
    began, transcript = now_s(), _Transcript()
    leg: Leg | None = None
    shown: bytes | None = None
    final, failure = False, ""
    try:
        async with asyncio.timeout(check.timeout):
            transcript.note(f"connecting to {way.address[0]} port {way.address[1]}")
            leg = await dial(way)
            transcript.note("connected")
            info = leg.info
            if info is not None:
                shown = info.peer_leaf_der
                transcript.note(f"{info.version}, {info.cipher}")
            reason = await _ask(leg, way, check, password, leaf_der or shown or b"", transcript)
            good = True
    except TimeoutError:
        good, reason = False, f"no answer within {check.timeout:g} s"
    except (_BadAnswerError, BackendError) as error:
        good, final, reason = False, True, str(error)
        failure = getattr(error, "failure", "")
        if isinstance(error, BackendTlsError):
            shown = error.leaf_der
    except (OSError, TlsError) as error:
        good, reason = False, f"the connection broke: {error}"
    finally:
        if leg is not None:
            leg.close()
    transcript.note(reason)
    verdict = Verdict(good, final, reason, str(transcript))
    return Probed(verdict, shown, now_s() - began, failure)


async def _ask(
    leg: Leg, way: Way, check: Check, password: str, leaf_der: bytes, transcript: _Transcript
) -> str:
    """Make the check on a fresh leg; return why it is good. Raises _BadAnswerError: why not."""
    match check.method:
        case CheckMethod.TCP:
            return "the port accepts connections (which http.sys does even when SSTP is dead)"
        case CheckMethod.SSTP | CheckMethod.LOGIN:
            return await _place_call(leg, way, check, password, leaf_der, transcript)
        case _:
            return await _ask_http(leg, way, check, transcript)


async def _ask_http(leg: Leg, way: Way, check: Check, transcript: _Transcript) -> str:
    request = _request(way, check)
    await leg.send(request)
    for line in request.decode("latin-1").rstrip().splitlines():
        transcript.sent(line)
    reader, head, seen = HeadReader.response(ANSWER_BYTES_MAX), None, b""
    while head is None:
        data = await leg.receive(RECEIVE_BYTES)
        if not data:
            raise _BadAnswerError("it closed the connection without an answer")
        seen += data
        try:
            head = reader.feed(data)
        except HeadError as error:
            raise _BadAnswerError(f"its answer is no HTTP: {error}") from error
    for line in head.raw.decode("latin-1").rstrip().splitlines():
        transcript.got(line)
    wanted = ", ".join(check.expect_status)
    if not any(_in_range(head.status, span) for span in check.expect_status):
        raise _BadAnswerError(f"expected HTTP {wanted}, got {head.status} {head.phrase}".rstrip())
    if check.expect_regex is not None:
        pattern = re.compile(check.expect_regex.encode())
        while not pattern.search(seen[:ANSWER_BYTES_MAX]):
            data = b"" if len(seen) >= ANSWER_BYTES_MAX else await leg.receive(RECEIVE_BYTES)
            if not data:
                raise _BadAnswerError(f"the answer does not contain {check.expect_regex!r}")
            seen += data
    return f"HTTP {head.status}, as expected"


def _request(way: Way, check: Check) -> bytes:
    if check.send is not None:
        return check.send.encode("latin-1").decode("unicode_escape").encode("latin-1")
    host = check.host or way.server_name or way.address[0]
    headers = [("Host", f"[{host}]" if ":" in host else host), ("Connection", "close")]
    return build_request(check.http_method, check.path, headers, check.http_version)


def _in_range(status: int, span: str) -> bool:
    first, _, last = span.partition("-")
    return int(first) <= status <= int(last or first)


async def _place_call(
    leg: Leg, way: Way, check: Check, password: str, leaf_der: bytes, transcript: _Transcript
) -> str:
    """Place a call as a client; ``sstp`` hangs up after the ACK, ``login`` goes all the way.

    A login ends with a hello: only a server that accepted the binding answers it.
    """
    is_login = check.method is CheckMethod.LOGIN
    settings = CallerSettings(
        host=check.host or way.server_name or way.address[0],
        correlation_id=new_correlation_id(),
        leaf_der=leaf_der,
        user=check.username or "",
        password=password,
        stops_at_ack=not is_login,
    )
    caller = Caller(leg, settings, on_step=lambda step: transcript.note(step.sentence))
    if await caller.connect() and await caller.hello():
        await caller.hang_up()
    if caller.machine.failure is not None:
        failure = caller.machine.failure
        raise _BadAnswerError(failure.sentence, failure.reason)
    return "a whole call was placed" if is_login else "the call was accepted (CALL_CONNECT_ACK)"
