"""The conformance suite: every kind of leg, and the relay between every pair, keeps the rules."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sstplb.config.schema import ListenerTls, PoolTls, Verify
from sstplb.lab.pki import Issued
from sstplb.net.leg import Leg, PlainLeg
from sstplb.net.native_leg import client_leg, server_leg
from sstplb.net.relay import (
    Flow,
    IdleTooLongError,
    LegFailedError,
    Relay,
    RelayLimits,
    Transit,
)
from sstplb.tls import kernel
from sstplb.tls.certificate import load_identity
from sstplb.tls.openssl import OpenSsl, libraries
from sstplb.tls.policy import ClientPolicy, ServerPolicy
from tests.characters import play

KINDS = ["plain", "tls", "native", "newest"]
"""``native`` is the system's OpenSSL, ``newest`` what an operator has who names none."""
LIMITS = RelayLimits(idle_timeout_s=5.0, half_closed_timeout_s=2.0)


@dataclass
class Pair:
    """Two legs that face each other over loopback TCP."""

    near: Leg
    far: Leg


@contextlib.asynccontextmanager
async def facing(kind: str, issued: Issued) -> AsyncIterator[Pair]:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        left = socket.create_connection(listening.getsockname())
        right, _ = listening.accept()
    for sock in (left, right):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    near: Leg = PlainLeg(left, loop)
    far: Leg = PlainLeg(right, loop)
    if kind != "plain":
        openssl = None
        if kind != "tls":
            openssl = OpenSsl() if kind == "native" else libraries()[0]
        if openssl is not None:  # in a kernel that can, its legs keep the rules too
            openssl.offers_kernel = kernel.why_not() is None
        server = ServerPolicy(ListenerTls(), [load_identity(issued.files)], openssl).choose(None)
        assert isinstance(near, PlainLeg)
        assert isinstance(far, PlainLeg)
        client = ClientPolicy(PoolTls(verify=Verify.OFF), openssl).context
        outer, inner = client_leg(near, client, None), server_leg(far, server.context)
        await asyncio.gather(outer.handshake(), inner.handshake())
        near, far = outer, inner
    try:
        yield Pair(near, far)
    finally:
        near.close()
        far.close()
        near.close()


async def everything(leg: Leg) -> bytes:
    got = bytearray()
    while data := await leg.receive(50_000):
        got += data
    return bytes(got)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_come_in_order_under_back_pressure(kind: str, served: Issued) -> None:
    async def story() -> None:
        async with facing(kind, served) as pair:
            payload = os.urandom(5_000_000)

            async def send() -> None:
                at = 0
                while at < len(payload):
                    size = random.Random(at).randint(1, 200_000)
                    await pair.near.send(payload[at : at + size])
                    at += size
                await pair.near.send_end()

            sending = asyncio.create_task(send())
            await asyncio.sleep(0.1)
            assert not sending.done(), "the kernel cannot hold it all: sending waits"
            assert await everything(pair.far) == payload
            await sending

    play(story)


@pytest.mark.parametrize("kind", KINDS)
def test_half_close_in_each_direction(kind: str, served: Issued) -> None:
    async def story() -> None:
        async with facing(kind, served) as pair:
            for first, second in ((pair.near, pair.far), (pair.far, pair.near)):
                await first.send(b"last words")
                if first is pair.near:
                    await first.send_end()
                    assert await everything(second) == b"last words"
                    assert await second.receive(10) == b"", "and then for ever"
            assert await pair.near.receive(100) == b"last words"

    play(story)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reset_is_an_end(kind: str, served: Issued) -> None:
    async def story() -> None:
        async with facing(kind, served) as pair:
            await pair.near.send(b"x")
            assert await pair.far.receive(10) == b"x"
            linger = b"\1\0\0\0\0\0\0\0"
            pair.near.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            pair.near.close()
            assert await pair.far.receive(10) == b""
            with pytest.raises(OSError):  # noqa: PT011 - EPIPE or ECONNRESET, as it comes
                await pair.far.send(bytes(5_000_000))

    play(story)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_put_back_comes_first(kind: str, served: Issued) -> None:
    async def story() -> None:
        async with facing(kind, served) as pair:
            await pair.near.send(b"world")
            await pair.near.send_end()
            data = await pair.far.receive(100)
            pair.far.unread(data)
            pair.far.unread(b"hello ")
            assert await pair.far.receive(3) == b"hel"
            assert await everything(pair.far) == b"lo world"

    play(story)


@pytest.mark.parametrize("kind", KINDS)
def test_cancelling_a_receive_loses_nothing(kind: str, served: Issued) -> None:
    async def story() -> None:
        async with facing(kind, served) as pair:
            for number in range(20):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await pair.far.receive(100)
                await pair.near.send(b"%d" % number)
                assert await pair.far.receive(100) == b"%d" % number

    play(story)


def transit() -> Transit:
    return Transit(65536)


def flow() -> Flow:
    return Flow(asyncio.get_running_loop().time())


@pytest.mark.parametrize("client_kind", KINDS)
@pytest.mark.parametrize("backend_kind", KINDS)
@pytest.mark.parametrize("size", [1, 1400, 65536, 300_000])
def test_the_relay_carries_both_ways_at_once(
    client_kind: str, backend_kind: str, size: int, served: Issued
) -> None:
    async def story() -> None:
        async with facing(client_kind, served) as left, facing(backend_kind, served) as right:
            count = 3_000_000 // max(size, 3000)
            up, down = os.urandom(size * count), os.urandom(size * count)
            seen = flow()
            pipes = Transit(65536)
            relaying = asyncio.create_task(Relay(left.far, right.near, seen, LIMITS, pipes).run())

            async def send(leg: Leg, payload: bytes) -> None:
                for at in range(0, len(payload), size):
                    await leg.send(payload[at : at + size])
                await leg.send_end()

            results = await asyncio.gather(
                send(left.near, up),
                send(right.far, down),
                everything(right.far),
                everything(left.near),
            )
            assert (results[2], results[3]) == (up, down)
            await relaying
            assert (seen.inward.bytes, seen.outward.bytes) == (len(up), len(down))
            pipes.close()

    play(story)


@pytest.mark.parametrize("kind", KINDS)
def test_the_relay_keeps_the_other_direction_open(kind: str, served: Issued) -> None:
    async def story() -> None:
        async with facing(kind, served) as left, facing(kind, served) as right:
            relaying = asyncio.create_task(
                Relay(left.far, right.near, flow(), LIMITS, transit()).run()
            )
            await left.near.send(b"question")
            await left.near.send_end()
            assert await everything(right.far) == b"question"
            await right.far.send(b"answer")
            await right.far.send_end()
            assert await everything(left.near) == b"answer"
            await relaying

    play(story)


@pytest.mark.parametrize(("half_closed", "limit"), [(False, 0.2), (True, 0.1)])
def test_silence_has_a_limit(half_closed: bool, limit: float, served: Issued) -> None:
    async def story() -> None:
        limits = RelayLimits(0.2, 0.1)
        async with facing("plain", served) as left, facing("plain", served) as right:
            if half_closed:
                await left.near.send_end()
            began = asyncio.get_running_loop().time()
            with pytest.raises(IdleTooLongError, match="no byte either way"):
                await Relay(left.far, right.near, flow(), limits, Transit(65536)).run()
            assert limit * 0.9 <= asyncio.get_running_loop().time() - began < limit + 0.3

    play(story)


@pytest.mark.parametrize("kind", ["tls", "native"])
def test_a_damaged_record_names_its_leg(kind: str, served: Issued) -> None:
    async def story() -> None:
        async with facing(kind, served) as left, facing("plain", served) as right:
            relaying = asyncio.create_task(
                Relay(left.far, right.near, flow(), LIMITS, transit()).run()
            )
            await asyncio.sleep(0.01)
            left.near.sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
            with pytest.raises(LegFailedError) as caught:
                await relaying
            assert caught.value.leg is left.far
            assert caught.value.reason == "damaged_record"

    play(story)


def test_pipes_are_used_again_and_a_dirty_one_never() -> None:
    pipes = Transit(65536)
    first = pipes.borrow()
    pipes.give_back(first, empty=True)
    assert pipes.borrow() == first
    os.write(first[1], b"rest")
    pipes.give_back(first, empty=False)
    second = pipes.borrow()
    with pytest.raises(BlockingIOError):
        os.read(second[0], 10)
    pipes.give_back(second, empty=True)
    pipes.close()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("kind", ["tls", "native"])
def test_many_calls_leave_nothing_behind(kind: str, served: Issued) -> None:
    async def story() -> None:
        before, shared = open_descriptors(), transit()
        for _ in range(250):
            async with facing(kind, served) as left, facing("plain", served) as right:
                relaying = asyncio.create_task(
                    Relay(left.far, right.near, flow(), LIMITS, shared).run()
                )
                await left.near.send(b"x" * 100)
                assert await right.far.receive(100) == b"x" * 100
                left.near.close()
                assert await everything(right.far) == b""
                await right.far.send_end()
                await relaying
        shared.close()
        assert open_descriptors() <= before + 1

    play(story)
