"""A call in each mode: opened, carried byte for byte, accounted once."""

import asyncio
import gc
import ssl
from collections import Counter

import pytest

from sstplb.lab.pki import Issued, LabPki
from sstplb.protocol.packet import connect_request
from tests.characters import ANSWER, REQUEST, Client, Stage, packets, play, staged

EARLY = connect_request().encode() + packets(1404)
MODES = ["passthrough", "offload", "reencrypt"]


@pytest.mark.parametrize("engine", ["native", "portable"])
@pytest.mark.parametrize("mode", MODES)
def test_a_call_is_carried_byte_for_byte(
    mode: str, engine: str, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = Stage(mode, pki.root_path, served)
        stage.engine = engine
        async with staged(stage):
            client = await stage.client()
            assert await client.open() == ANSWER
            payload = packets(3_000_000)
            assert await client.echo(payload)
            await client.close()
            await stage.ended()
            (record,) = stage.balancer.ledger.ended
            backend = next(b for b in stage.backends if b.calls)
            assert REQUEST in backend.heads
            assert record.backend == backend.name
            if mode != "passthrough":
                assert stage.reasons() == ["completed:client_ended"]
                assert record.bytes_in == record.bytes_out == len(payload)
                assert record.packets_in == record.packets_out == len(payload) // 1404
                assert record.tls_version == "TLSv1.3"
                assert record.correlation_id == "{0D528CAC-464E-423A-A399-9470E234BC54}"
            assert record.server_name == "vpn.example.test"

    play(story)


@pytest.mark.parametrize("mode", MODES)
def test_a_call_that_is_over_leaves_nothing_to_the_collector(
    mode: str, pki: LabPki, served: Issued
) -> None:
    """Objects that know each other live until Python looks for cycles, and that costs CPU."""

    async def story() -> None:
        async with staged(Stage(mode, pki.root_path, served)) as stage:
            gc.collect()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                for end in (Client.close, Client.close, Client.reset):
                    client = await stage.client()
                    await client.open()
                    ended = end(client)
                    if ended is not None:
                        await ended
                stranger = await stage.visitor()
                await stranger.send(b"GET / HTTP/1.1\r\n\r\n")
                await stage.ended(4)
                await asyncio.sleep(0.05)
                gc.collect()
                ours = [o for o in gc.garbage if type(o).__module__.startswith("sstplb.net")]
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
            assert not ours

    play(story)


@pytest.mark.parametrize("mode", MODES)
def test_round_robin_is_exact(mode: str, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(Stage(mode, pki.root_path, served, count=3)) as stage:
            for _ in range(9):
                client = await stage.client()
                await client.open()
                await client.close()
            await stage.ended(9)
            assert Counter(r.backend for r in stage.balancer.ledger.ended) == {
                "rras1": 3, "rras2": 3, "rras3": 3,
            }  # fmt: skip

    play(story)


@pytest.mark.parametrize("mode", ["offload", "reencrypt"])
def test_what_a_client_pipelines_waits_for_its_backend(
    mode: str, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(Stage(mode, pki.root_path, served, count=2)) as stage:
            stage.backends[0].mood = stage.backends[1].mood = "refuse"
            stage.backends[1].mood = "well"
            for _ in range(2):  # whoever is first, one of these calls fails over
                client = await stage.client()
                assert await client.open(pipelined=EARLY) == ANSWER
                assert await client.receive(len(EARLY)) == EARLY
                await client.close()

    play(story)


@pytest.mark.parametrize("mode", MODES)
def test_affinity_brings_a_client_back(mode: str, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage(mode, pki.root_path, served, count=3)
        stage.pool["affinity"] = {"enabled": True}
        async with staged(stage):
            for source in ("127.0.2.1", "127.0.2.2", "127.0.2.3") * 3:
                client = await stage.client(source)
                await client.open()
                await client.close()
            await stage.ended(9)
            pairs = Counter((r.client[0], r.backend) for r in stage.balancer.ledger.ended)
            assert sorted(pairs.values()) == [3, 3, 3]
            assert len({backend for _, backend in pairs}) == 3

    play(story)


@pytest.mark.parametrize("mode", MODES)
def test_a_half_close_keeps_the_other_direction_open(
    mode: str, pki: LabPki, served: Issued
) -> None:
    """TLS of the standard library cannot half-close from a client, so the backend's end does."""

    async def story() -> None:
        async with staged(Stage(mode, pki.root_path, served)) as stage:
            client = await stage.client()
            await client.open()
            assert await client.echo(packets(1404))
            for backend in stage.backends:
                await backend.stop()
            assert await client.rest() == b""
            await client.close()
            await stage.ended()
            assert stage.reasons() == ["completed:backend_ended"] or mode != "passthrough"

    play(story)


def test_ipv6_and_ipv4_on_one_listener(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served)
        stage.listener["address"] = "[::]:0"
        async with staged(stage):
            _, port = stage.balancer.listeners["vpn"].address
            for host in ("127.0.0.1", "::1"):
                context = ssl.create_default_context(cafile=str(pki.root_path))
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=context, server_hostname="vpn.example.test"
                )
                writer.write(REQUEST)
                assert await reader.readexactly(len(ANSWER)) == ANSWER
                writer.close()
            await stage.ended(2)
            assert {r.client[0] for r in stage.balancer.ledger.ended} == {"127.0.0.1", "::1"}

    play(story)
