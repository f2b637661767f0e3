"""The opening of a call, on the client's side: preface, ClientHello, TLS, head.

Each step reads under its own deadline and its own bound, and leaves what it did not need in the
leg (``unread``), so that the next step finds it. Nothing a client pipelines is ever lost: it
waits in the leg until there is a backend to give it to.
"""

import asyncio
import sys
from types import TracebackType

from sstplb.errors import (
    CallError,
    ClientClosedError,
    ClientProtocolError,
    ClientTimeoutError,
    ClientTlsError,
    ProtocolError,
    TlsError,
)
from sstplb.net.call import Call
from sstplb.net.leg import RECEIVE_BYTES, Leg, PlainLeg
from sstplb.net.native_leg import server_leg
from sstplb.protocol.head import HeadReader, RequestHead
from sstplb.protocol.proxy import PrefaceReader
from sstplb.tls.hello import ClientHello, HelloReader

TENANT_CHARS_MAX = 128
"""How much of a tenant's id is remembered; a client may write anything there."""


class deadline:  # noqa: N801 - reads as what it is: with deadline(...)
    """Gives the steps within ``seconds``; raises ``late`` when they take longer.

    What ``asyncio.timeout`` does, and as it does it, for a third of the cost: each call has five.
    """

    __slots__ = ("_before", "_is_late", "_late", "_seconds", "_task", "_timer")

    def __init__(self, seconds: float, late: CallError) -> None:
        self._seconds, self._late = seconds, late
        self._is_late = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "steps run in a call's task"
        self._task, self._before = task, task.cancelling()
        self._timer = task.get_loop().call_later(self._seconds, self._expire)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if not self._is_late:
            return
        # Somebody else may have cancelled the call at the same moment: that goes first.
        is_ours = self._task.uncancel() <= self._before
        if is_ours and kind is asyncio.CancelledError:
            raise self._late from None

    def _expire(self) -> None:
        self._is_late = True
        self._task.cancel()


async def take_preface(call: Call) -> None:
    """Learn from a trusted proxy who is really calling, where one stands before us.

    Raises ClientProtocolError, ClientTimeoutError, ClientClosedError or LimitReachedError.
    """
    if not call.service.expects_preface(call.client_address[0]):
        return
    limit = call.service.limits.preface_timeout
    reader = PrefaceReader()
    late = ClientTimeoutError(f"no PROXY preface within {limit:g} s", reason="preface_timeout")
    with deadline(limit, late):
        try:
            while (preface := reader.feed(await _more(call.client_leg, "PROXY preface"))) is None:
                pass
        except ProtocolError as error:
            raise ClientProtocolError(str(error), reason=error.reason) from error
    call.client_leg.unread(reader.trailing)
    await call.is_from(preface.source)
    call.mark("preface")


async def take_hello(call: Call) -> ClientHello:
    """Read the ClientHello and put it back: whoever comes next needs every byte of it.

    Raises ClientTlsError (``not_tls`` for a visitor that speaks something else),
    ClientTimeoutError or ClientClosedError.
    """
    limit = call.service.limits.handshake_timeout
    reader, read = HelloReader(), bytearray()
    late = ClientTimeoutError(f"no ClientHello within {limit:g} s", reason="handshake_timeout")
    with deadline(limit, late):
        try:
            hello = None
            while hello is None:
                chunk = await _more(call.client_leg, "ClientHello")
                read += chunk
                hello = reader.feed(chunk)
        except TlsError as error:
            raise ClientTlsError(str(error), reason=error.reason) from error
    call.client_leg.unread(bytes(read))
    # Interned: most calls ask for the same few names.
    call.record.server_name = hello.server_name and sys.intern(hello.server_name)
    call.record.tls_offered = hello.newest_version
    call.mark("hello")
    return hello


async def secure(call: Call) -> None:
    """End the client's TLS here, with the certificate that was chosen for it.

    Raises ClientTlsError, ClientTimeoutError or ClientClosedError.
    """
    below = call.client_leg
    assert call.served is not None, "the certificate was chosen"
    assert isinstance(below, PlainLeg), "TLS ends once"
    limit = call.service.limits.handshake_timeout
    leg = server_leg(below, call.served.context)
    late = ClientTimeoutError(
        f"TLS handshake not finished within {limit:g} s", reason="handshake_timeout"
    )
    with deadline(limit, late):
        try:
            await leg.handshake()
        except OSError as error:
            raise ClientClosedError("the client left during the TLS handshake") from error
        except TlsError as error:
            raise ClientTlsError(str(error), reason=f"client_{error.reason}") from error
    call.client_leg = leg
    info = leg.info
    call.record.tls_version, call.record.cipher = info.version, info.cipher
    call.mark("tls")


async def take_head(call: Call) -> RequestHead:
    """Read the head of the request; what follows it stays in the leg.

    Raises ClientProtocolError, ClientTimeoutError, ClientClosedError or ClientTlsError.
    """
    limits = call.service.limits
    reader = HeadReader.request(limits.head_bytes_max)
    late = ClientTimeoutError(f"no head within {limits.head_timeout:g} s", reason="head_timeout")
    with deadline(limits.head_timeout, late):
        try:
            head = None
            while head is None:
                head = reader.feed(await _more(call.client_leg, "head"))
        except ProtocolError as error:
            raise ClientProtocolError(str(error), reason=error.reason) from error
        except TlsError as error:
            raise ClientTlsError(str(error), reason=f"client_{error.reason}") from error
    call.client_leg.unread(reader.trailing)
    call.record.correlation_id = head.correlation_id
    call.record.tenant_id = _readable(head.tenant_id)
    call.mark("head")
    return head


def _readable(tenant_id: str | None) -> str | None:
    """Return a tenant's id as it may stand in a log: control characters spelled, its end cut."""
    if tenant_id is None:
        return None
    return (tenant_id if tenant_id.isprintable() else ascii(tenant_id))[:TENANT_CHARS_MAX]


async def _more(leg: Leg, what: str) -> bytes:
    if data := await leg.receive(RECEIVE_BYTES):
        return data
    raise ClientClosedError(f"the client closed before its {what} was complete")
