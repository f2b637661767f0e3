"""The end comes last: behind every byte, however full the socket is that it has to go through."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial

import pytest

from sstplb.config.schema import ListenerTls, PoolTls, Verify
from sstplb.lab.pki import Issued
from sstplb.net.goodbye import _close_in_order, _Way
from sstplb.net.leg import PlainLeg, SecureLeg
from sstplb.net.native_leg import client_leg, server_leg
from sstplb.net.relay import Flow, Meter, Relay, RelayLimits, Transit
from sstplb.protocol.boundary import Boundary
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
        self._sock.settimeout(10)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        got = bytearray()
        with context.wrap_socket(self._sock, suppress_ragged_eofs=False) as secured:
            assert self.may_read.wait(10)
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


@contextlib.asynccontextmanager
async def facing(kind: str, served: Issued) -> AsyncIterator[tuple[SecureLeg, SecureLeg]]:
    """A leg that has received a few records, and the one of its peer."""
    openssl, loop = engine(kind), asyncio.get_running_loop()
    near, far = sockets()
    far.setblocking(False)
    client = ClientPolicy(PoolTls(verify=Verify.OFF), openssl)
    leg = server_leg(PlainLeg(near, loop), served_by(openssl, served))
    peer = client_leg(PlainLeg(far, loop), client.context, None)
    try:
        await asyncio.gather(leg.handshake(), peer.handshake())
        sending = asyncio.create_task(peer.send(bytes(3 * RECORD)))
        room, received = memoryview(bytearray(4 * RECORD)), 0
        while received < 3 * RECORD:
            if (count := leg.take(room)) is None:
                await leg.readiness.readable()
            else:
                received += count
        await sending
        yield leg, peer
    finally:
        leg.close()
        peer.close()


async def fill(sock: socket.socket) -> None:
    """Fill a socket behind its engine's back, until TCP takes no more."""
    filling, refusals = bytes(RECORD), 0
    while refusals < 10:  # it takes some more when its timers have fired
        try:
            sock.send(filling)
            refusals = 0
        except BlockingIOError:
            refusals += 1
            await asyncio.sleep(0.05)


async def drained(sock: socket.socket) -> bytes:
    """Read to the end, whatever it is."""
    received = bytearray()
    while data := await asyncio.get_running_loop().sock_recv(sock, RECORD):
        received += data
    return bytes(received)


def ends_in_order(received: bytes) -> bool:
    """Whether the last record is a sealed alert of TLS 1.3: two bytes, their type, the tag."""
    return received[-24:-19] == bytes((0x17, 3, 3, 0, 19))


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_that_finds_no_room_is_said_later(kind: str, served: Issued) -> None:
    async def story() -> None:
        async with facing(kind, served) as (leg, peer):
            await fill(leg.sock)
            assert not leg.end()
            leg.rest()  # the relay may find that it has been silent for long
            assert not leg.end()
            ending = asyncio.create_task(leg.send_end())
            assert ends_in_order(await drained(peer.sock))
            await ending

    play(story)


@pytest.mark.parametrize("kind", KINDS)
def test_to_end_again_loses_nothing_that_is_still_received(kind: str, served: Issued) -> None:
    async def story() -> None:
        async with facing(kind, served) as (leg, peer):
            await leg.send_end()
            assert await peer.receive() == b""
            await peer.send(bytes(50_000))
            await peer.send_end()
            assert leg.end()
            received = 0
            while data := await leg.receive():
                received += len(data)
            assert received == 50_000

    play(story)


@pytest.mark.parametrize("kind", KINDS)
def test_a_goodbye_ends_who_is_full_and_drains_the_other(kind: str, served: Issued) -> None:
    """The relay was interrupted while it waited to tell a full client that its backend ended."""

    async def story() -> None:
        async with facing(kind, served) as (leg, peer):
            near, backend = sockets()
            plain = PlainLeg(near, asyncio.get_running_loop())
            inward = _Way(leg, plain, Meter(), Boundary(None), b"last words")
            outward = _Way(plain, leg, Meter(ended=True), Boundary(None), b"")
            outward.source_is_gone = False  # it has said its end, and speaks once more
            await fill(leg.sock)
            closing = asyncio.create_task(_close_in_order(inward, outward))
            backend.sendall(b"too late")
            assert await asyncio.to_thread(backend.recv, 100) == b"last words"
            await asyncio.sleep(0.2)
            assert ends_in_order(await drained(peer.sock))
            peer.close()
            backend.shutdown(socket.SHUT_WR)
            await closing
            plain.close()
            with backend:
                assert backend.recv(100) == b"", "no reset"

    play(story)


def test_a_call_that_both_sides_have_ended_is_over_though_one_cannot_be_told(
    served: Issued,
) -> None:
    async def story() -> None:
        async with facing("native", served) as (leg, peer):
            near, backend = sockets()
            loop, transit = asyncio.get_running_loop(), Transit(65536)
            plain, flow = PlainLeg(near, loop), Flow(loop.time())
            await fill(leg.sock)
            backend.close()
            limits = RelayLimits(idle_timeout_s=5.0, half_closed_timeout_s=0.3)
            relaying = asyncio.create_task(Relay(leg, plain, flow, limits, transit).run())
            await peer.send_end()
            await relaying  # rather than having been silent for too long
            assert flow.inward.ended
            assert flow.outward.ended
            plain.close()
            transit.close()

    play(story)
