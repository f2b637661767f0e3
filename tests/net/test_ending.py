"""The end comes last: behind every byte, however full the socket is that it has to go through."""

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from functools import partial

import pytest

from sstplb.config.schema import ListenerTls, PoolTls, Verify
from sstplb.lab.pki import Issued
from sstplb.net.leg import PlainLeg, SecureLeg
from sstplb.net.native_leg import client_leg, server_leg
from sstplb.net.relay import Flow, Relay, RelayLimits, Transit
from sstplb.tls import kernel
from sstplb.tls.certificate import load_identity
from sstplb.tls.openssl import OpenSsl, libraries
from sstplb.tls.policy import ClientPolicy, Context, ServerPolicy
from tests.characters import play

KINDS = ["tls", "native", "newest"]
LIMITS = RelayLimits(idle_timeout_s=20.0, half_closed_timeout_s=20.0)
RECORD = 16384
SIZES = range(2 * RECORD, 36 * RECORD, RECORD)
"""Some fit into the buffers between the two, some do not, and some fill them to the brim."""


def sockets() -> tuple[socket.socket, socket.socket]:
    """Return two that are connected, with room for some records between them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
    near.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, RECORD)
    return near, far


class LatePeer:
    """A TLS client, not of ours, that reads nothing until it may, and then up to the end."""

    def __init__(self, sock: socket.socket) -> None:
        self.may_read = threading.Event()
        self._sock = sock

    def read(self) -> bytes:
        """Return all. Raises ssl.SSLEOFError when no close_notify said that it was all."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        got = bytearray()
        with context.wrap_socket(self._sock, suppress_ragged_eofs=False) as secured:
            self.may_read.wait()
            while data := secured.recv(RECORD):
                got += data
        return bytes(got)


async def by_hand(leg: SecureLeg, payload: bytes) -> None:
    await leg.send(payload)
    await leg.send_end()


async def by_a_relay(leg: SecureLeg, payload: bytes) -> None:
    """Feed a relay that has the leg for its sink."""
    loop = asyncio.get_running_loop()
    source, feeder = sockets()
    with feeder:
        feeder.setblocking(False)
        plain, flow, transit = PlainLeg(source, loop), Flow(loop.time()), Transit(65536)
        running = asyncio.create_task(Relay(plain, leg, flow, LIMITS, transit).run())
        await loop.sock_sendall(feeder, payload)
        feeder.shutdown(socket.SHUT_WR)
        await running  # until the peer has ended too
        plain.close()
        transit.close()


def engine(kind: str) -> OpenSsl | None:
    """Return what does TLS; in a kernel that can, that does the sending."""
    if kind == "tls":
        return None
    openssl = OpenSsl() if kind == "native" else libraries()[0]
    openssl.offers_kernel = kernel.why_not() is None
    return openssl


def served_by(openssl: OpenSsl | None, issued: Issued) -> Context:
    return ServerPolicy(ListenerTls(), [load_identity(issued.files)], openssl).choose(None).context


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [by_hand, by_a_relay])
def test_every_byte_comes_and_then_the_word_that_it_was_all(
    kind: str, way: Callable[[SecureLeg, bytes], Coroutine[None, None, None]], served: Issued
) -> None:
    context = served_by(engine(kind), served)

    async def story(size: int) -> None:
        near, far = sockets()
        leg = server_leg(PlainLeg(near, asyncio.get_running_loop()), context)
        peer, payload = LatePeer(far), os.urandom(size)
        reading = asyncio.create_task(asyncio.to_thread(peer.read))
        await leg.handshake()
        sending = asyncio.create_task(way(leg, payload))
        await asyncio.wait({sending}, timeout=0.02)
        peer.may_read.set()
        assert await reading == payload
        await sending
        leg.close()

    for size in SIZES:
        play(partial(story, size))


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_that_finds_no_room_is_said_later(kind: str, served: Issued) -> None:
    async def story() -> None:
        openssl, loop = engine(kind), asyncio.get_running_loop()
        near, far = sockets()
        far.setblocking(False)
        below, client = PlainLeg(near, loop), ClientPolicy(PoolTls(verify=Verify.OFF), openssl)
        leg = server_leg(below, served_by(openssl, served))
        peer = client_leg(PlainLeg(far, loop), client.context, None)
        await asyncio.gather(leg.handshake(), peer.handshake())
        filling = bytes(RECORD)
        while below.give(memoryview(filling)):  # behind the engine's back
            pass
        assert not leg.end()
        assert not leg.end()
        ending = asyncio.create_task(leg.send_end())
        received = bytearray()
        while data := await loop.sock_recv(far, RECORD):
            received += data
        await ending
        assert leg.info.version == "TLSv1.3"
        assert received[-24:-19] == bytes((0x17, 3, 3, 0, 19)), "a sealed alert: two bytes"
        leg.close()
        peer.close()

    play(story)
