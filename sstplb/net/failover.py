"""Finding the backend that answers: the tries of a call, until hand-over.

A Windows client says nothing between its head and our 200, and whatever another client sends
early waits in its leg. So until the 200 is handed over, a backend that refuses, stalls, shows
the wrong certificate or answers anything but 200 costs the client nothing but time: the next
candidate is asked the same. Afterwards never (invariant 5).

The same-certificate rule is kept here, in three places. Before TLS, of several certificates that
fit, the client is shown the one which its backend accepts (``choose_certificate``). Before a dial,
a backend that is *known* to expect another than this client was shown is no candidate: by its leaf
as the last probe saw it (re-encrypt), by the hash the operator declared or calls have taught us
(offload). After a dial, the leaf it has just shown is compared, for it may have been renewed a
second ago.
"""

from collections.abc import Awaitable, Callable

from sstplb.account.record import PassedOver
from sstplb.balance.same_certificate import mismatch_sentence
from sstplb.config.schema import MismatchPolicy, ProxyVersion
from sstplb.errors import (
    BackendClosedError,
    BackendError,
    BackendProtocolError,
    BackendRefusedError,
    BackendTimeoutError,
    BackendTlsError,
    CallError,
    CertificateMismatchError,
    NoBackendAvailableError,
    ProtocolError,
    TlsError,
)
from sstplb.net.booking import Chosen
from sstplb.net.call import Call, now_s
from sstplb.net.dial import Way, dial
from sstplb.net.insight import tell_certificates
from sstplb.net.leg import RECEIVE_BYTES, Leg
from sstplb.net.opening import deadline
from sstplb.net.service import Route
from sstplb.protocol.head import HeadReader, RequestHead, ResponseHead
from sstplb.protocol.proxy import encode_v1, encode_v2
from sstplb.tls.certificate import leaf_sha256

Attempt = Callable[[str, Leg], Awaitable[None]]
"""What is tried on a freshly dialled leg of that backend; raises BackendError when it fails."""


async def choose_certificate(call: Call, server_name: str | None) -> None:
    """Choose what the client is shown, of the certificates that fit its server name.

    Where only one fits there is nothing to ask. Where several do (a certificate and its renewal),
    it is the one that the backend accepts which will be asked first. Its turn is spent now; a
    visitor that turns out to be no call gives it back.
    """
    policy = call.service.server_policy
    assert policy is not None, "a terminating listener has certificates"
    fitting = policy.fitting(server_name)
    call.served = fitting[0]
    if len(fitting) > 1:
        route = call.service.route_for(server_name)
        by_hash = {served.certificate.sha256: served for served in fitting}
        call.served = by_hash[await call.booking.claim(route.pool, tuple(by_hash))]


async def ask_for_call(call: Call, route: Route, head: RequestHead) -> ResponseHead:
    """Find a backend that answers the opening with 200; return its answer, not yet handed over.

    Raises NoBackendAvailableError when there is no candidate, else the last candidate's error.
    """
    answers: list[ResponseHead] = []

    async def ask(name: str, leg: Leg) -> None:
        await leg.send(head.raw)
        answers.append(await _answer(name, leg, call.service.limits.head_bytes_max))

    await _first_that_can(call, route, ask)
    return answers[-1]


async def connect(call: Call, route: Route, first_bytes: bytes = b"") -> None:
    """Find a backend that takes the connection (passthrough, web pool): no answer is awaited.

    Raises NoBackendAvailableError when there is no candidate, else the last candidate's error.
    """

    async def forward(_name: str, leg: Leg) -> None:
        if first_bytes:
            await leg.send(first_bytes)

    await _first_that_can(call, route, forward)


async def _first_that_can(call: Call, route: Route, attempt: Attempt) -> None:
    """Try candidate after candidate, within the deadlines, until one attempt succeeds."""
    config = route.config
    last: CallError | None = None
    late = BackendTimeoutError(f"no backend answered within {config.total_timeout:g} s in all")
    with deadline(config.total_timeout, late):
        chosen = await _first(call, route)
        for _ in range(config.tries_max):
            if chosen is None:
                break
            try:
                return await _try(call, route, chosen, attempt)
            except CallError as error:
                if not error.retry:
                    raise
                last = error
            chosen = await call.booking.next()
    assert last is not None, "there is a first candidate, and at least one try"
    raise last


async def _first(call: Call, route: Route) -> Chosen | None:
    """Return the best candidate. Raises NoBackendAvailableError; the record says why then."""
    try:
        return await call.booking.first(route.pool, _shown(call, route))
    except NoBackendAvailableError as error:
        call.record.passed_over = tuple(PassedOver(*said) for said in error.passed_over)
        raise


async def _try(call: Call, route: Route, chosen: Chosen, attempt: Attempt) -> None:
    """Dial one backend and make the attempt; on success it is the call's backend.

    Its place in the pool was taken before the dial, so that ``calls_max`` holds for calls on their
    way too, and is given back on every way out but success.
    """
    name, began, limit = chosen.config.name, now_s(), route.config.try_timeout
    late = BackendTimeoutError(f"{name} did not answer within {limit:g} s")
    leg = None
    try:
        with deadline(limit, late):
            leg = await dial(_way(call, route, chosen))
            _note_certificates(call, route, chosen, leg)
            _insist_on_same_certificate(call, route, name, leg)
            await attempt(name, leg)
    except BaseException as error:
        if leg is not None:
            leg.close()
        if error is late and leg is None and route.policy is None:
            error = BackendTimeoutError(f"{name} did not take the connection within {limit:g} s")
        if isinstance(error, OSError | TlsError):
            error = BackendClosedError(f"{name} closed before it answered: {error}")
        its_fault = error.reason if isinstance(error, BackendError) else None
        if its_fault is not None:
            call.tried(name, now_s() - began, its_fault, str(error))
        call.booking.try_failed(its_fault, str(error))
        raise error from None
    call.tried(name, now_s() - began)
    call.reached(route, name, leg)


async def _answer(name: str, leg: Leg, size_max: int) -> ResponseHead:
    """Read the head of a backend's answer; what follows it stays in the leg.

    Raises BackendClosedError, BackendProtocolError or, for any status but 200,
    BackendRefusedError.
    """
    reader, head = HeadReader.response(size_max), None
    try:
        while head is None:
            data = await leg.receive(RECEIVE_BYTES)
            if not data:
                raise BackendClosedError(f"{name} closed before it answered")
            head = reader.feed(data)
    except ProtocolError as error:
        raise BackendProtocolError(f"{name} answered no HTTP: {error}") from error
    if head.status != 200:
        answer = f"{head.status} {head.phrase}".rstrip()
        raise BackendRefusedError(f"{name} answered {answer}", status=head.status)
    leg.unread(reader.trailing)
    return head


def _way(call: Call, route: Route, chosen: Chosen) -> Way:
    """Say how to reach a backend on behalf of this call."""
    config, limits = route.config, call.service.limits
    address = chosen.config.address
    shown = call.served.certificate if call.served else None
    assert address.port is not None, "the loader fills in the port"
    encode = {ProxyVersion.V1: encode_v1, ProxyVersion.V2: encode_v2}.get(config.proxy_protocol)
    return Way(
        (chosen.host, address.port),
        policy=route.policy,
        server_name=route.server_name(chosen.config, shown),
        source_host=call.client_address[0] if config.transparent_source else None,
        transparent=config.transparent_source,
        preface=encode(call.client_address, call.local_address) if encode else b"",
        keepalive_s=limits.tcp_keepalive,
        resumes=config.tls.session_resumption,
    )


# --- the same-certificate rule ----------------------------------------------------------------


async def could_be_served(call: Call, route: Route) -> bool:
    """Whether a call like this one would find a candidate now; nobody's turn is spent."""
    return await call.booking.could_be_served(route.pool, _shown(call, route))


def _shown(call: Call, route: Route) -> bytes | None:
    """Return the SHA-256 of the certificate that RRAS will hear of from this client, if any."""
    return call.served.certificate.sha256 if call.served and route.carries_sstp else None


def _note_certificates(call: Call, route: Route, chosen: Chosen, leg: Leg) -> None:
    """Note which certificate the client saw, and which one this backend expects."""
    der = leg.info.peer_leaf_der if leg.info is not None else None
    shown = _shown(call, route)
    call.backend_hashes = tell_certificates(call.record, shown, der, chosen.config)


def _insist_on_same_certificate(call: Call, route: Route, name: str, leg: Leg) -> None:
    """Compare the leaf a backend has just shown. Raises CertificateMismatchError."""
    ours, info = _shown(call, route), leg.info
    if ours is None or info is None:
        return
    der = info.peer_leaf_der
    if der is None:
        raise BackendTlsError(f"{name} showed no certificate")
    theirs = leaf_sha256(der)
    call.booking.saw_leaf(theirs)
    if theirs != ours and route.config.tls.same_certificate is MismatchPolicy.REFUSE:
        raise CertificateMismatchError(mismatch_sentence(name, theirs, ours))
