"""Finding the backend that answers: the tries of a call, until hand-over.

A Windows client says nothing between its head and our 200, and whatever another client sends
early waits in its leg. So until the 200 is handed over, a backend that refuses, stalls, shows
the wrong certificate or answers anything but 200 costs the client nothing but time: the next
candidate is asked the same. Afterwards never (invariant 5).

The same-certificate rule is kept here, in two places. Before a dial, a backend that is *known* to
expect another certificate than this client was shown is no candidate: by its leaf as the last
probe saw it (re-encrypt), or by the hash the operator declared (offload). After a dial, the leaf
it has just shown is compared, for it may have been renewed a second ago.
"""

from collections.abc import Awaitable, Callable

from sstplb.balance.backend import Backend
from sstplb.config.schema import MismatchPolicy, Mode, ProxyVersion
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
from sstplb.net.call import Call, now_s
from sstplb.net.dial import Way, dial
from sstplb.net.leg import RECEIVE_BYTES, Leg
from sstplb.net.opening import deadline
from sstplb.net.service import Route
from sstplb.protocol.head import HeadReader, RequestHead, ResponseHead
from sstplb.protocol.proxy import encode_v1, encode_v2
from sstplb.tls.certificate import leaf_sha256

Attempt = Callable[[Backend, Leg], Awaitable[None]]
"""What is tried on a freshly dialled leg; raises BackendError when it fails."""


async def ask_for_call(call: Call, route: Route, head: RequestHead) -> ResponseHead:
    """Find a backend that answers the opening with 200; return its answer, not yet handed over.

    Raises NoBackendAvailableError when there is no candidate, else the last candidate's error.
    """
    answers: list[ResponseHead] = []

    async def ask(backend: Backend, leg: Leg) -> None:
        await leg.send(head.raw)
        answers.append(await _answer(backend, leg, call.service.limits.head_bytes_max))

    await _first_that_can(call, route, ask)
    return answers[-1]


async def connect(call: Call, route: Route, first_bytes: bytes = b"") -> None:
    """Find a backend that takes the connection (passthrough, web pool): no answer is awaited.

    Raises NoBackendAvailableError when there is no candidate, else the last candidate's error.
    """

    async def forward(_backend: Backend, leg: Leg) -> None:
        if first_bytes:
            await leg.send(first_bytes)

    await _first_that_can(call, route, forward)


async def _first_that_can(call: Call, route: Route, attempt: Attempt) -> None:
    """Try candidate after candidate, within the deadlines, until one attempt succeeds."""
    config = route.config
    last: CallError | None = None
    found = route.pool.candidates(
        call.client_address[0], now_s(), lambda backend: _objection(call, route, backend)
    )
    late = BackendTimeoutError(f"no backend answered within {config.total_timeout:g} s in all")
    async with deadline(config.total_timeout, late):
        for backend in found.backends[: config.tries_max]:
            try:
                return await _try(call, route, backend, attempt)
            except CallError as error:
                if not error.retry:
                    raise
                last = error
    if last is not None:
        raise last
    why = ", ".join(f"{name} {slug}" for name, slug in found.excluded)
    raise NoBackendAvailableError(f"no backend of pool {route.pool.name} can be used: {why}")


async def _try(call: Call, route: Route, backend: Backend, attempt: Attempt) -> None:
    """Dial one backend and make the attempt; on success it is the call's backend.

    Its place in the pool is taken before the dial, so that ``calls_max`` holds for calls on their
    way too, and given back on every way out but success.
    """
    began, limit = now_s(), route.config.try_timeout
    late = BackendTimeoutError(f"{backend.name} did not answer within {limit:g} s")
    place, leg = route.pool.reserve(backend, call.client_address[0], began), None
    try:
        async with deadline(limit, late):
            leg = await dial(_way(call, route, backend))
            _insist_on_same_certificate(call, route, backend, leg)
            await attempt(backend, leg)
    except BaseException as error:
        if leg is not None:
            leg.close()
        place.release(now_s())
        if isinstance(error, OSError | TlsError):
            error = BackendClosedError(f"{backend.name} closed before it answered: {error}")
        if isinstance(error, BackendError):
            call.tried(backend, now_s() - began, error.reason)
            call.desk.health_changed(backend, backend.health.call_failed(str(error), now_s()))
        raise error from None
    call.tried(backend, now_s() - began)
    call.reached(route, backend, leg, place)


async def _answer(backend: Backend, leg: Leg, size_max: int) -> ResponseHead:
    """Read the head of a backend's answer; what follows it stays in the leg.

    Raises BackendClosedError, BackendProtocolError or, for any status but 200,
    BackendRefusedError.
    """
    reader, head = HeadReader.response(size_max), None
    try:
        while head is None:
            data = await leg.receive(RECEIVE_BYTES)
            if not data:
                raise BackendClosedError(f"{backend.name} closed before it answered")
            head = reader.feed(data)
    except ProtocolError as error:
        raise BackendProtocolError(f"{backend.name} answered no HTTP: {error}") from error
    if head.status != 200:
        answer = f"{head.status} {head.phrase}".rstrip()
        raise BackendRefusedError(f"{backend.name} answered {answer}", status=head.status)
    leg.unread(reader.trailing)
    return head


def _way(call: Call, route: Route, backend: Backend) -> Way:
    """Say how to reach a backend on behalf of this call."""
    config, limits = route.config, call.service.limits
    address = backend.config.address
    assert backend.address is not None, "an unresolved backend is no candidate"
    assert address.port is not None, "the loader fills in the port"
    encode = {ProxyVersion.V1: encode_v1, ProxyVersion.V2: encode_v2}.get(config.proxy_protocol)
    return Way(
        (backend.address, address.port),
        policy=route.policy,
        server_name=route.server_name(backend, call.served.certificate if call.served else None),
        source_host=call.client_address[0] if config.transparent_source else None,
        transparent=config.transparent_source,
        preface=encode(call.client_address, call.local_address) if encode else b"",
        keepalive_s=limits.tcp_keepalive,
        resumes=config.tls.session_resumption,
    )


# --- the same-certificate rule ----------------------------------------------------------------


def could_be_served(call: Call, route: Route) -> bool:
    """Whether a call like this one would find a candidate now; nobody's turn is spent."""
    now = now_s()
    return any(
        backend.unusable_because(now) is None and _objection(call, route, backend) is None
        for backend in route.pool.backends
    )


def _objection(call: Call, route: Route, backend: Backend) -> str | None:
    """Return why a backend will not do for what this client was shown, as a slug."""
    if call.served is None or not route.carries_sstp:
        return None
    if route.config.tls.same_certificate is not MismatchPolicy.REFUSE:
        return None
    expected = _expected_sha256(call.service.listener.mode, backend)
    if expected is None or expected == call.served.certificate.sha256:
        return None
    return CertificateMismatchError.reason


def _expected_sha256(mode: Mode, backend: Backend) -> bytes | None:
    """Return the SHA-256 of the certificate a backend is known to expect, if any."""
    if mode is Mode.OFFLOAD:
        declared = backend.config.rras_certificate_sha256
        return bytes.fromhex(declared) if declared else None
    return backend.leaf_sha256


def _insist_on_same_certificate(call: Call, route: Route, backend: Backend, leg: Leg) -> None:
    """Compare the leaf a backend has just shown. Raises CertificateMismatchError."""
    info = leg.info
    if call.served is None or info is None or not route.carries_sstp:
        return
    der = info.peer_leaf_der
    if der is None:
        raise BackendTlsError(f"{backend.name} showed no certificate")
    backend.leaf_sha256 = leaf_sha256(der)
    ours = call.served.certificate.sha256
    if (
        backend.leaf_sha256 == ours
        or route.config.tls.same_certificate is not MismatchPolicy.REFUSE
    ):
        return
    raise CertificateMismatchError(mismatch_sentence(backend.name, backend.leaf_sha256, ours))


def mismatch_sentence(name: str, theirs: bytes, ours: bytes) -> str:
    """Say what the mismatch is and what to do about it."""
    return (
        f"{name} expects the certificate with SHA-256 {theirs.hex()}, clients are shown "
        f"{ours.hex()}: every call would be torn down after authentication; put the same "
        "certificate on both"
    )
