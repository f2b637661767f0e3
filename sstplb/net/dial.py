"""Dialling a backend: connect, say on whose behalf (PROXY), shake hands.

One function serves calls and probes alike, so that a probe takes exactly the way a call would.
It knows nothing of deadlines (its caller's business) or of candidates (the pool's).
"""

import asyncio
from dataclasses import dataclass

from sstplb.errors import BackendConnectError, BackendTlsError, TlsError
from sstplb.net import tcp
from sstplb.net.leg import Leg, PlainLeg
from sstplb.net.native_leg import client_leg
from sstplb.tls.policy import ClientPolicy


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach a backend."""

    address: tcp.Address
    policy: ClientPolicy | None = None
    """TLS towards it, or None for plain TCP (offload, and all of passthrough)."""
    server_name: str | None = None
    """SNI to send, and the name its certificate must hold."""
    source_host: str | None = None
    """The address to dial from; by default the one the kernel chooses."""
    transparent: bool = False
    """Whether that is the client's own address rather than one of ours."""
    preface: bytes = b""
    """A PROXY protocol preface, or nothing."""
    keepalive_s: float = 0.0
    resumes: bool = False
    """Whether an earlier TLS session may be resumed. A check never does: it is to see the
    certificate that the backend has now."""


async def dial(way: Way) -> Leg:
    """Return a leg to the backend, ready for the head.

    Raises BackendConnectError or BackendTlsError. Whatever was opened is closed on every other
    way out, cancellation included.
    """
    where = f"{way.address[0]}:{way.address[1]}"
    try:
        sock = await tcp.connect(
            way.address, source_host=way.source_host, transparent=way.transparent
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BackendConnectError(f"cannot connect to {where}: {reason}") from error
    plain = PlainLeg(sock, asyncio.get_running_loop())
    try:
        tcp.tune(sock, way.keepalive_s)
        if way.preface:
            await plain.send(way.preface)
        return plain if way.policy is None else await _secure(plain, way, way.policy)
    except OSError as error:
        plain.close()
        raise BackendConnectError(f"{where} closed the connection: {error.strerror}") from error
    except BaseException:
        plain.close()
        raise


async def _secure(plain: PlainLeg, way: Way, policy: ClientPolicy) -> Leg:
    """Shake hands as a client, and verify who answered."""
    name = way.server_name
    sni = name if name and not tcp.is_address(name) else None
    sessions = policy.sessions if way.resumes else None
    leg = client_leg(plain, policy.context, sni, sessions)
    try:
        await leg.handshake()
        policy.check(leg.info, name)
    except TlsError as error:
        leaf_der = leg.info.peer_leaf_der
        leg.close()
        reason = f"backend_{error.reason}"
        raise BackendTlsError(str(error), reason=reason, leaf_der=leaf_der) from error
    except BaseException:
        leg.close()
        raise
    return leg
