"""The story of one call.

Read ``session`` and you know what an SSTP balancer does. Each line is a step, in the order in
which a call lives them; each step is a small function further down or in the module it names:

    PROXY preface  net/opening.py         who is really calling?
    ClientHello    net/opening.py         which server name does it want?
    certificate    net/failover.py        of several that fit, the one the first candidate accepts
    TLS            net/opening.py         offload and re-encrypt only
    head           net/opening.py         is it SSTP? if not: a web pool, or a 404
    candidates     net/failover.py        who could answer? affinity first, then the strategy
    dial, answer   net/failover.py        the first backend that says 200
    hand-over      here                   the 200 reaches the client: no way back from now on
    relay          net/relay.py           bytes both ways, until both sides have finished
    goodbye        net/goodbye.py         if it is us who end the call
    account        net/call.py            one record, closed exactly once, on every path

It begins when a connection was accepted (``net/listener.py``) and admitted: may this client call
at all (``balance/admission.py``)? What holds for the whole balancer, limits, turns, health, is
asked of the call's booking (``net/booking.py``), for another process may decide it.

Errors are caught once, at the bottom: they carry their own reason, and what the client may be
told (``errors.py``). In passthrough no TLS ends here and there is no head to read: the bytes of
the ClientHello are simply the first that the backend gets.
"""

import asyncio
import contextlib
from functools import lru_cache
from http import HTTPStatus

from sstplb.account.record import Outcome
from sstplb.config.schema import Follow
from sstplb.errors import (
    BackendError,
    BackendTlsError,
    CallError,
    ClientClosedError,
    ClientError,
    ClientTlsError,
    EndedError,
    IdleTimeoutError,
    NotSstpError,
    RefusedError,
    TlsError,
    quote,
)
from sstplb.net import failover, opening
from sstplb.net.call import Call
from sstplb.net.goodbye import say_goodbye
from sstplb.net.leg import RECEIVE_BYTES
from sstplb.net.relay import IdleTooLongError, LegFailedError, Relay, RelayLimits
from sstplb.protocol.head import RequestHead, ResponseHead, simple_answer
from sstplb.protocol.watcher import BACKEND_LOST, Watcher, may_end_call

LINGER_S = 1.0
"""How long a client that was refused may take to read what it was told."""
LINGER_BYTES_MAX = 1 << 20
"""How much it may still send meanwhile; it is thrown away, so that no reset eats our answer."""


async def session(call: Call) -> None:
    """Carry one call from accept to account."""
    try:
        await opening.take_preface(call)
        hello = await opening.take_hello(call)
        if call.service.listener.mode.terminates_tls:
            await failover.choose_certificate(call, hello.server_name)
            await opening.secure(call)
            head = await opening.take_head(call)
            if not head.is_sstp:
                return await receive_visitor(call, head)
            route = call.service.route_for(hello.server_name, head.tenant_id)
            answer = await failover.ask_for_call(call, route, head)
            await hand_over(call, answer)
            del hello, head, answer  # two KiB that a call would hold for days
        else:
            await failover.connect(call, call.service.route_for(hello.server_name))
            await call.hand_over()
            del hello
        await converse(call)
        call.close(*verdict(call))
    except CallError as error:
        # First the record: whoever cuts us off while we apologise finds it closed.
        call.close(outcome_of(error), error.reason, str(error))
        await apologise(call, error)
    except asyncio.CancelledError:
        if call.ended_by is None:  # not by ``Call.end``: the whole program is going down
            call.close(Outcome.CLOSED, "stopped", "the balancer stopped")
            raise
        call.close(Outcome.CLOSED, call.ended_by.reason, str(call.ended_by))
    except Exception as error:  # noqa: BLE001 - one call's mistake must not be another call's end
        call.desk.internal_error(call, error)
        call.close(Outcome.REFUSED, "internal_error", "a mistake of ours: see the log")
    finally:
        call.let_go()


# --- the steps that are here ------------------------------------------------------------------


async def hand_over(call: Call, answer: ResponseHead) -> None:
    """Give the client its 200, byte for byte as the backend sent it."""
    await call.hand_over()
    try:
        await call.client_leg.send(answer.raw)
    except OSError as error:
        raise ClientClosedError("the client left before its answer came") from error


async def converse(call: Call) -> None:
    """Relay until both sides have finished, looking at SSTP packets where TLS ends here.

    Raises IdleTimeoutError, ClientTlsError or BackendTlsError, or why somebody else ended it.
    """
    call.relay = relay = _relay_for(call)
    call.desk.recorder.consider(call)
    try:
        await relay.begin()
    except IdleTooLongError as error:
        await say_goodbye(call)
        raise IdleTimeoutError(str(error)) from error
    except EndedError:
        await say_goodbye(call)
        raise
    except LegFailedError as error:
        kind = ClientTlsError if error.leg is call.client_leg else BackendTlsError
        raise kind(str(error), reason=f"{kind.reason}_in_call") from error
    finally:
        relay.stop()
        call.relay = None
        call.desk.recorder.leave(call)


_relay_limits = lru_cache(maxsize=16)(RelayLimits)
"""One object for all calls of a configuration."""


def _relay_for(call: Call) -> Relay:
    limits, backend_leg = call.service.limits, call.backend_leg
    assert backend_leg is not None, "the call has reached a backend"
    watched = _watch(call)
    return Relay(
        call.client_leg,
        backend_leg,
        call.flow,
        _relay_limits(limits.idle_timeout, limits.half_closed_timeout),
        call.desk.transit,
        seen_inward=call.see_inward if watched else None,
        seen_outward=call.see_outward if watched else None,
        glance_outward=may_end_call if watched else None,
    )


def _watch(call: Call) -> bool:
    """Give the call a watcher, if its bytes are to be looked at; return whether they are."""
    listener, served = call.service.listener, call.served
    if served is None or call.is_visit or listener.follow is Follow.OFF:
        call.did_well()  # nothing more will be learnt: that it answered must do
        return False
    call.watcher = Watcher(listener.follow, served.certificate.hashes, call.backend_hashes)
    return True


def verdict(call: Call) -> tuple[Outcome, str, str]:
    """Say how a call went that was relayed to its end, and tell the backend's health."""
    fault = call.watcher.fault if call.watcher is not None else None
    if call.has_lost_backend:
        fault = BACKEND_LOST
    if fault is not None and fault.side == "backend":
        call.did_badly(fault.reason, fault.sentence)
        return Outcome.BACKEND_FAILED, fault.reason, fault.sentence
    if fault is None and call.watcher is not None and call.watcher.was_connected:
        call.did_well()  # a call that ended before that says nothing of its backend
    if fault is not None:
        return Outcome.CLIENT_FAILED, fault.reason, fault.sentence
    if call.watcher is not None and call.watcher.ending is not None:
        return Outcome.COMPLETED, call.watcher.ending.reason, ""
    outcome = Outcome.WEB if call.is_visit else Outcome.COMPLETED
    by_client = call.flow.ended_first is call.flow.inward
    return outcome, "client_ended" if by_client else "backend_ended", ""


async def receive_visitor(call: Call, head: RequestHead) -> None:
    """Serve who does not open a call: another balancer's check, a web site's visitor, a stranger.

    HEAD or GET of the SSTP URI is the check that balancers make of RRAS. Standing in RRAS's place
    we answer as it would, 401, as long as a backend could take a call.
    Raises NotSstpError, UnknownTenantError, or what ``failover.connect`` and ``converse`` raise.
    """
    call.is_visit = True
    if head.is_sra and head.method in ("HEAD", "GET"):
        route = call.service.route_for(call.record.server_name, head.tenant_id)
        ok = await failover.could_be_served(call, route)
        status, phrase = (401, "Unauthorized") if ok else (503, "Service Unavailable")
        await _answer(call, status, phrase)
        call.close(Outcome.WEB, "health_check", f"answered {status}")
        return
    web = call.service.web
    if web is None:
        raise NotSstpError(
            f"not SSTP: {head.method} {quote(head.target.encode())}, and no web_pool"
        )
    await failover.connect(call, web, head.raw)
    await call.hand_over()
    await converse(call)
    call.close(*verdict(call))


# --- when it goes wrong -----------------------------------------------------------------------

_OUTCOMES: tuple[tuple[type[CallError], Outcome], ...] = (
    (NotSstpError, Outcome.WEB),
    (ClientError, Outcome.CLIENT_FAILED),
    (BackendError, Outcome.BACKEND_FAILED),
    (RefusedError, Outcome.REFUSED),
    (CallError, Outcome.CLOSED),
)


def outcome_of(error: CallError) -> Outcome:
    """Return the outcome that a call's error means."""
    return next(outcome for kind, outcome in _OUTCOMES if isinstance(error, kind))


async def apologise(call: Call, error: CallError) -> None:
    """Tell the client what may be told, if it can still be told anything."""
    if error.http_status is not None and call.served is not None and not call.handed_over:
        await _answer(call, error.http_status, HTTPStatus(error.http_status).phrase, error.reason)


async def _answer(call: Call, status: int, phrase: str, text: str = "") -> None:
    """Send a short answer of our own, and let the client read it before the connection goes."""
    leg = call.client_leg
    with contextlib.suppress(TimeoutError, OSError, TlsError):
        async with asyncio.timeout(LINGER_S):
            await leg.send(simple_answer(status, phrase, text))
            await leg.send_end()
            room = LINGER_BYTES_MAX
            while room > 0 and (thrown_away := await leg.receive(RECEIVE_BYTES)):
                room -= len(thrown_away)
