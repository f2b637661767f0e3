"""Reload, drain, stop, kill: what an operator does while calls are running."""

import asyncio
import gc
from collections import Counter

import pytest

from sstplb.errors import ConfigError
from sstplb.lab.pki import Issued, LabPki
from sstplb.tls.openssl import OpenSsl, libraries
from tests.characters import ANSWER, Client, Stage, packets, play, staged

MODES = ["passthrough", "offload", "reencrypt"]
CROWD = 200


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("mode", "engine", "workers"),
    [
        ("passthrough", "auto", 1),
        ("offload", "native", 1),
        ("offload", "portable", 1),
        ("reencrypt", "native", 1),
        ("reencrypt", "portable", 1),
        ("passthrough", "auto", 2),
        ("offload", "native", 2),
        ("reencrypt", "native", 3),
    ],
)
def test_a_crowd_survives_what_happens_around_it(
    mode: str, engine: str, workers: int, pki: LabPki, served: Issued
) -> None:
    """200 calls with data both ways; one backend is killed, one drained, the file reloaded."""

    async def story() -> None:
        stage = Stage(mode, pki.root_path, served, count=4)
        stage.engine, stage.workers = engine, workers
        stage.limits["accept_burst_per_client"] = 1000
        payload = packets(8_000)
        stopping = asyncio.Event()
        corrupted: list[str] = []
        rounds: Counter[int] = Counter()

        async def talk(number: int, client: Client) -> None:
            while not stopping.is_set():
                await client.send(payload)
                back = await client.receive(len(payload))
                if back != payload:
                    corrupted.append(f"call {number}")
                rounds[number] += 1

        async with staged(stage):
            clients = [await stage.client() for _ in range(CROWD)]
            for client in clients:
                assert await client.open() == ANSWER
            await stage.settled(CROWD)
            where = {c.record.client: c.record.backend for c in stage.balancer.calls()}
            assert Counter(where.values()) == {f"rras{n}": CROWD // 4 for n in (1, 2, 3, 4)}
            talks = [asyncio.create_task(talk(n, c)) for n, c in enumerate(clients)]
            await asyncio.sleep(0.2)
            await stage.backends[0].stop()
            stage.backend_settings["rras2"] = {"standing": "draining"}
            for _ in range(5):
                await stage.reload()
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
            stopping.set()
            results = await asyncio.gather(*talks, return_exceptions=True)
            killed = {
                number for number, client in enumerate(clients) if where[client.address] == "rras1"
            }
            ended = {number for number, result in enumerate(results) if result is not None}
            assert not corrupted
            assert ended == killed, "only the killed backend's calls ended"
            assert min(rounds[n] for n in range(CROWD) if n not in killed) >= 2
            drained = stage.balancer.plan.checks["rras"].pool.backends[1]
            assert drained.calls == CROWD // 4, "draining keeps running calls"
            before = stage.backends[1].calls
            late = [await stage.client() for _ in range(4)]
            for client in late:
                assert await client.open() == ANSWER
            assert stage.backends[1].calls == before, "draining takes no new ones"

    play(story)


def test_a_bad_file_changes_nothing(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(Stage("offload", pki.root_path, served)) as stage:
            client = await stage.client()
            await client.open()
            plan = stage.balancer.plan
            stage.pool["strategy"] = "random"
            with pytest.raises(ConfigError, match="round_robin"):
                await stage.reload()
            stage.pool.pop("strategy")
            stage.more_listeners = [
                {
                    "name": "taken", "mode": "passthrough", "pool": "rras",
                    "address": f"127.0.1.1:{stage.backends[0].port}",
                }
            ]  # fmt: skip
            stage.pool["transport"] = "tls"
            with pytest.raises(ConfigError):
                await stage.reload()
            assert stage.balancer.plan is plan
            assert await client.echo(packets(1404))

    play(story)


def test_an_address_that_is_taken_is_named_and_nothing_changes(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage("passthrough", pki.root_path, served)
        async with staged(stage):
            plan = stage.balancer.plan
            port = stage.backends[0].port
            stage.more_listeners = [
                {"name": "b", "mode": "passthrough", "pool": "rras", "address": "127.0.0.3:0"},
                {
                    "name": "c",
                    "mode": "passthrough",
                    "pool": "rras",
                    "address": f"127.0.1.1:{port}",
                },
            ]
            with pytest.raises(ConfigError, match=r"listeners\[2\].*already in use"):
                await stage.reload()
            assert stage.balancer.plan is plan
            assert list(stage.balancer.listeners) == ["vpn"]

    play(story)


def test_a_listener_can_come_and_go_while_calls_run(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage("passthrough", pki.root_path, served)
        async with staged(stage):
            stage.more_listeners = [
                {"name": "second", "mode": "passthrough", "pool": "rras", "address": "127.0.0.2:0"}
            ]
            await stage.reload()
            client = await stage.client(listener="second")
            assert await client.open() == ANSWER
            stage.more_listeners = []
            await stage.reload()
            assert list(stage.balancer.listeners) == ["vpn"]
            assert await client.echo(packets(5000)), "its call goes on"
            await client.close()
            await stage.ended()

    play(story)


def test_a_reload_swaps_the_certificate_for_new_calls_only(
    pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        async with staged(Stage("offload", pki.root_path, served)) as stage:
            old = await stage.client()
            await old.open()
            stage.served = other
            await stage.reload()
            new = await stage.client()
            shown = [
                c.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                for c in (old, new)
            ]
            assert shown == [served.certificate.leaf_der, other.certificate.leaf_der]
            assert await old.echo(packets(1404))

    play(story)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_swaps_the_library_for_new_calls_only(
    workers: int, pki: LabPki, served: Issued
) -> None:
    """Whatever one OpenSSL made, sessions with backends too, never meets the other."""

    async def story() -> None:
        stage = Stage("reencrypt", pki.root_path, served, count=1)
        stage.workers = workers
        running: list[Client] = []
        async with staged(stage):
            for library in [library.name for library in libraries()] * 2:
                stage.library = library
                await stage.reload()
                assert OpenSsl(library).title in stage.balancer.prepared.engine
                for _ in range(4):
                    running.append(await stage.client())
                    await running[-1].open()
                for client in running:
                    assert await client.echo(packets(100_000))
            for client in running[::2]:
                await client.close()
            await stage.ended(len(running) // 2)
            gc.collect()
            assert all([await client.echo(packets(1404)) for client in running[1::2]])

    play(story)


def test_affinity_and_health_outlive_a_reload(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served, count=3)
        stage.pool["affinity"] = {"enabled": True}
        async with staged(stage):
            for _ in range(3):
                client = await stage.client("127.0.2.9")
                await client.open()
                await client.close()
                await stage.reload()
            await stage.ended(3)
            assert len({r.backend for r in stage.balancer.ledger.ended}) == 1

    play(story)


@pytest.mark.parametrize("on_down", ["keep", "close"])
def test_a_backend_that_goes_down_keeps_or_loses_its_calls(
    on_down: str, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served)
        stage.pool["on_down"] = on_down
        async with staged(stage):
            clients = [await stage.client() for _ in range(2)]
            for client in clients:
                await client.open()
            stage.backends[0].mood = "dead"
            async with asyncio.timeout(5):
                while stage.balancer.plan.checks["rras"].pool.backends[0].health.is_up:
                    await asyncio.sleep(0.02)
            if on_down == "close":
                await stage.ended()
                assert stage.reasons() == ["closed:backend_down"]
            else:
                assert [await c.echo(packets(1404)) for c in clients] == [True, True]

    play(story)


@pytest.mark.parametrize("mode", MODES)
def test_stopping_waits_and_then_cuts(mode: str, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(Stage(mode, pki.root_path, served)) as stage:
            polite, rude = await stage.client(), await stage.client()
            await polite.open()
            await rude.open()
            address = stage.balancer.listeners["vpn"].address
            stopping = asyncio.create_task(stage.balancer.stop(0.5))
            await asyncio.sleep(0.05)
            with pytest.raises(ConnectionError):
                await asyncio.open_connection(*address)
            assert await polite.echo(packets(5000)), "running calls go on meanwhile"
            await polite.close()
            assert await stopping == 1
            assert stage.reasons()[-1] == "closed:stopped"

    play(story)


@pytest.mark.parametrize("mode", MODES)
def test_a_client_that_does_not_read_holds_up_nobody(
    mode: str, pki: LabPki, served: Issued
) -> None:
    """Back-pressure: the echo of a client that stops reading waits, whole, until it reads."""

    async def story() -> None:
        async with staged(Stage(mode, pki.root_path, served)) as stage:
            lazy, other = await stage.client(), await stage.client()
            await lazy.open()
            await other.open()
            lazy.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a real transport
            payload = packets(6_000_000)
            sending = asyncio.create_task(lazy.send(payload))
            assert await other.echo(packets(500_000))
            await asyncio.sleep(0.5)
            lazy.writer.transport.resume_reading()  # type: ignore[attr-defined]  # a real transport
            assert await lazy.receive(len(payload)) == payload
            await sending

    play(story)


@pytest.mark.parametrize("mode", MODES)
def test_resets_from_either_side_end_the_call_once(mode: str, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(Stage(mode, pki.root_path, served)) as stage:
            client = await stage.client()
            await client.open()
            client.reset()
            await stage.ended()
            client = await stage.client()
            await client.open()
            for backend in stage.backends:
                await backend.stop()
            await client.rest()
            await stage.ended(2)
            assert all(r.startswith("completed:") for r in stage.reasons())

    play(story)
