"""Interrupting a relay: nothing that was taken is lost, whichever way it was moved."""

import asyncio
import os
import socket

import pytest

from sstplb.errors import StoppedError
from sstplb.net.leg import PlainLeg
from sstplb.net.relay import (
    BUFFER_BYTES_MIN,
    KEPT_MAX,
    Flow,
    IdleTooLongError,
    Relay,
    RelayLimits,
    Seen,
    Transit,
)
from tests.characters import LIMIT_S, play

LIMITS = RelayLimits(idle_timeout_s=5.0, half_closed_timeout_s=2.0)
STREAM = os.urandom(4_000_000)


def pair() -> tuple[socket.socket, socket.socket]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    return ends


def look_at_everything(_chunk: memoryview) -> int:
    return 1 << 30


@pytest.mark.parametrize("seen", [None, look_at_everything], ids=["spliced", "copied"])
def test_what_was_taken_and_not_given_is_left_over(seen: Seen | None) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        (sender, source), (sink, receiver) = pair(), pair()
        legs = PlainLeg(source, loop), PlainLeg(sink, loop)
        flow, transit = Flow(loop.time()), Transit(65536)
        relay = Relay(*legs, flow, LIMITS, transit, seen_inward=seen, seen_outward=seen)
        running = asyncio.create_task(relay.run())
        sending = asyncio.create_task(loop.sock_sendall(sender, STREAM))
        received = bytearray()
        async with asyncio.timeout(LIMIT_S):
            while len(received) < 1_000_000:  # it flows, by then the fast way
                received += await loop.sock_recv(receiver, 65536)
            moved = -1
            while moved != flow.inward.bytes:  # and now it is stuck: nobody reads
                moved = flow.inward.bytes
                await asyncio.sleep(0.1)
            relay.interrupt(StoppedError("enough"))
            relay.interrupt(IdleTooLongError("the first word counts"))
            with pytest.raises(StoppedError):
                await running
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        inward, outward = relay.leftovers
        legs[1].close()
        while data := receiver.recv(65536):
            received += data
        assert bytes(received) + inward == STREAM[: flow.inward.bytes]
        assert inward, "or it proves nothing"
        assert not outward
        legs[0].close()
        transit.close()
        for sock in (sender, receiver):
            sock.close()

    play(story)


def test_many_full_sinks_cost_small_buffers_and_no_byte() -> None:
    """What each of many stalled receivers costs is bounded; later they get everything."""
    size, count = 8 * BUFFER_BYTES_MIN, 2 * KEPT_MAX
    payload, see = STREAM[: 4 * size], look_at_everything

    async def story() -> None:
        loop, transit = asyncio.get_running_loop(), Transit(size)
        calls = []
        for _ in range(count):
            (sender, source), (sink, receiver) = pair(), pair()
            legs = PlainLeg(source, loop), PlainLeg(sink, loop)
            relay = Relay(
                *legs, Flow(loop.time()), LIMITS, transit, seen_inward=see, seen_outward=see
            )
            running = asyncio.create_task(relay.run())
            sending = asyncio.create_task(loop.sock_sendall(sender, payload))
            calls.append((sender, receiver, legs, running, sending))
        await asyncio.sleep(0.3)
        assert len(transit.buffer) == BUFFER_BYTES_MIN
        for sender, receiver, legs, running, sending in calls:
            assert not sending.done(), "its receiver has not read yet"
            received = bytearray()
            while len(received) < len(payload):
                received += await loop.sock_recv(receiver, 1 << 20)
            assert received == payload
            await sending
            sender.close()
            receiver.close()
            await running
            for leg in legs:
                leg.close()
        assert len(transit.buffer) == size
        transit.close()

    play(story)


def test_a_sink_that_is_gone_has_ended_first_and_not_its_source() -> None:
    async def story() -> None:
        loop, transit = asyncio.get_running_loop(), Transit(65536)
        (client, source), (sink, backend) = pair(), pair()
        legs = PlainLeg(source, loop), PlainLeg(sink, loop)
        legs[1].early = b"said before anybody knew that the client is gone"
        client.close()
        flow = Flow(loop.time())
        relay = Relay(*legs, flow, LIMITS, transit)
        running = asyncio.create_task(relay.run())
        async with asyncio.timeout(LIMIT_S):
            while await loop.sock_recv(backend, 100):
                pass
            backend.close()
            await running
        assert flow.ended_first is flow.inward
        for leg in legs:
            leg.close()
        transit.close()

    play(story)
