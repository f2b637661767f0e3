"""Several processes carry, one decides: what is exact stays exact, and nobody dies for another."""

import asyncio
import os
import shutil
import signal
import socket
import ssl
from collections import Counter
from pathlib import Path

import pytest

from sstplb.config.loader import parse
from sstplb.config.schema import Standing
from sstplb.control.plan import prepare
from sstplb.control.workers import Workers
from sstplb.errors import ConfigError, KilledError
from sstplb.lab.pki import Issued, LabPki
from sstplb.protocol.proxy import encode_v1
from tests.characters import ANSWER, LIMIT_S, REQUEST, Client, Stage, packets, play, staged, until
from tests.stories.test_capture import counted


def stage_of(pki: LabPki, served: Issued, mode: str = "offload", count: int = 3) -> Stage:
    stage = Stage(mode, pki.root_path, served, count)
    stage.workers = 2
    return stage


def workers_of(stage: Stage) -> Workers:
    crew = stage.balancer.crew
    assert isinstance(crew, Workers)
    return crew


async def opened(stage: Stage, count: int, source: str = "127.0.0.1") -> list[Client]:
    clients = [await stage.client(source) for _ in range(count)]
    for client in clients:
        assert await client.open() == ANSWER
    return clients


@pytest.mark.parametrize("mode", ["passthrough", "offload", "reencrypt"])
def test_round_robin_is_exact_and_every_call_is_accounted_once(
    mode: str, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(stage_of(pki, served, mode)) as stage:
            clients = await opened(stage, 30)
            await stage.settled(30)
            spread = [backend.calls for backend in stage.balancer.plan.checks["rras"].pool.backends]
            assert spread == [10, 10, 10]
            moved = packets(100_000)
            for client in clients:
                assert await client.echo(moved)
                await client.close()
            await stage.ended(30)
            ledger = stage.balancer.ledger
            assert sorted(record.id for record in ledger.ended) == list(range(1, 31))
            assert {record.outcome for record in ledger.ended} == {"completed"}
            if mode != "passthrough":
                assert {record.bytes_in for record in ledger.ended} == {len(moved)}
                assert all(record.tls_version == "TLSv1.3" for record in ledger.ended)
            assert all(record.phases.relay_s for record in ledger.ended)

    play(story)


def test_affinity_is_one_table(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = stage_of(pki, served)
        stage.pool["affinity"] = {"enabled": True}
        async with staged(stage):
            for source in ("127.0.5.1", "127.0.5.2", "127.0.5.3"):
                await opened(stage, 4, source)
                await stage.settled(len(stage.balancer.calls()))
            where: dict[str, set[str | None]] = {}
            for call in stage.balancer.calls():
                where.setdefault(call.record.client[0], set()).add(call.record.backend)
            assert [len(names) for names in where.values()] == [1, 1, 1]
            assert len(set.union(*where.values())) == 3

    play(story)


def test_limits_hold_for_all_together(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = stage_of(pki, served)
        stage.limits["calls_max"] = 5
        stage.backend_settings["rras1"] = {"calls_max": 1}
        async with staged(stage):
            clients = await opened(stage, 5)
            await stage.settled(5)
            visitor = await stage.visitor()
            assert await visitor.rest() == b""
            assert stage.reasons() == ["refused:calls_max"]
            assert stage.balancer.plan.checks["rras"].pool.backends[0].calls == 1
            await clients[0].close()
            await until(lambda: stage.balancer.admission.calls == 4)
            await opened(stage, 1)

    play(story)


def test_a_worker_that_dies_takes_only_its_own_calls_along(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(stage_of(pki, served)) as stage:
            clients = await opened(stage, 12)
            await stage.settled(12)
            first, second = workers_of(stage).process_ids
            os.kill(first, signal.SIGKILL)
            await stage.ended(6)
            assert stage.reasons() == ["closed:worker_died"] * 6
            assert stage.balancer.admission.calls == 6
            lives = [client for client in clients if not await is_over(client)]
            assert len(lives) == 6
            for client in lives:
                assert await client.echo(packets(50_000))
            await opened(stage, 2)
            await until(lambda: len(workers_of(stage).process_ids) == 2)
            assert second in workers_of(stage).process_ids
            assert first not in workers_of(stage).process_ids
            more = await opened(stage, 8)
            assert all([await client.echo(packets(5_000)) for client in more])

    play(story)


async def is_over(client: Client) -> bool:
    try:
        async with asyncio.timeout(0.05):
            return await client.reader.read(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_while_there_is_no_worker_who_comes_waits(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(stage_of(pki, served)) as stage:
            for process in workers_of(stage).process_ids:
                os.kill(process, signal.SIGKILL)
            await until(lambda: not workers_of(stage).can_carry)
            (client,) = await opened(stage, 1)
            assert await client.echo(packets(5_000))

    play(story)


def test_a_reload_reaches_everybody_or_nobody(
    pki: LabPki, served: Issued, other: Issued, tmp_path: Path
) -> None:
    async def story() -> None:
        async with staged(stage_of(pki, served)) as stage:
            old = await opened(stage, 4)
            plan = stage.balancer.plan
            stage.served = Issued(tmp_path / "none.pem", served.key)
            with pytest.raises(ConfigError):
                await stage.reload()
            assert stage.balancer.plan is plan
            stage.served = other
            await stage.reload()
            context = ssl.create_default_context(cafile=str(pki.root_path))
            context.check_hostname = False
            seen = set()
            for _ in range(4):  # two for each worker
                host, port = stage.balancer.listeners["vpn"].address
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=context, server_hostname="vpn.example.test"
                )
                client = stage._known(Client(reader, writer))
                await client.open()
                seen.add(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            assert seen == {other.certificate.leaf_der}
            for client in old:
                assert await client.echo(packets(20_000)), "running calls keep what they had"

    play(story)


def test_a_certificate_that_changes_while_it_is_read_is_not_adopted(
    pki: LabPki, served: Issued, other: Issued, tmp_path: Path
) -> None:
    async def story() -> None:
        mine = Issued(tmp_path / "mine.pem", tmp_path / "mine.key")
        take(served, mine)
        async with staged(stage_of(pki, mine)) as stage:
            prepared, plan = prepare(parse(stage.document())), stage.balancer.plan
            take(other, mine)
            with pytest.raises(ConfigError, match="changed while it was read"):
                await stage.balancer.reload(prepared)
            assert stage.balancer.plan is plan
            await stage.reload()
            assert stage.balancer.plan is not plan

    play(story)


def take(source: Issued, target: Issued) -> None:
    shutil.copyfile(source.chain, target.chain)
    shutil.copyfile(source.key, target.key)


def test_a_client_resumes_at_any_worker(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(stage_of(pki, served)) as stage:
            host, port = stage.balancer.listeners["vpn"].address
            ports = [await asyncio.to_thread(resume, host, port, pki.root_path) for _ in range(3)]
            assert ports == [[False, True, True, True]] * 3

    play(story)


def resume(host: str, port: int, root: Path) -> list[bool]:
    """Call four times, each time with the session of the call before; say which were resumed."""

    context = ssl.create_default_context(cafile=str(root))
    session, resumed = None, []
    open_calls = []
    for _ in range(4):
        raw = socket.create_connection((host, port), timeout=LIMIT_S)
        tls = context.wrap_socket(raw, server_hostname="vpn.example.test", session=session)
        tls.sendall(REQUEST)
        tls.recv(4096)  # the ticket comes before the answer
        resumed.append(bool(tls.session_reused))
        session = tls.session
        open_calls.append(tls)  # it stays: the next call goes to the other worker
    for tls in open_calls:
        tls.close()
    return resumed


def test_who_a_proxy_names_is_counted(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = stage_of(pki, served, "passthrough")
        stage.listener["proxy_protocol_from"] = ["127.0.0.0/8"]
        stage.limits["calls_max_per_client"] = 1
        async with staged(stage):
            for _ in range(2):
                visitor = await stage.visitor()
                preface = encode_v1(("192.0.2.7", 4711), ("192.0.2.1", 443))
                await visitor.send(preface)
            await stage.ended(1)
            (ended,) = stage.balancer.ledger.ended
            assert (ended.reason, ended.client) == ("client_calls_max", ("192.0.2.7", 4711))

    play(story)


def test_failover_and_health_are_told_across(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = stage_of(pki, served)
        stage.pool["passive"] = {"failures": 2}
        async with staged(stage):
            stage.backends[0].mood = "refuse"
            await opened(stage, 9)
            await stage.settled(9)
            backend = stage.balancer.plan.checks["rras"].pool.backends[0]
            assert backend.health.set_aside_reason.startswith("rras1 answered 503")
            assert stage.backends[0].calls == 2, "set aside after the second"
            tries = [t.reason for c in stage.balancer.calls() for t in c.record.tries if t.reason]
            assert tries == ["backend_refused"] * 2

    play(story)


def test_operators_end_calls_and_backends_wherever_they_are_carried(
    pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = stage_of(pki, served, count=2)
        stage.pool["on_down"] = "close"
        stage.pool["check"] = {"interval": "100ms", "timeout": "1s", "fall": 1}
        async with staged(stage):
            await opened(stage, 6)
            await stage.settled(6)
            victim = stage.balancer.calls()[0]
            stage.balancer.end_calls([victim], KilledError("the operator ended this call"))
            await victim.wait_released()
            assert stage.reasons() == ["closed:ended_by_operator"]
            stage.balancer.plan.checks["rras"].pool.backends[0].standing = Standing.DRAINING
            assert stage.balancer.admission.calls == 5
            await stage.backends[1].stop()
            await stage.ended(4)
            reasons = Counter(stage.reasons())
            assert sum(reasons.values()) == 4
            assert stage.balancer.admission.calls == 2

    play(story)


def test_bytes_and_cpu_are_reported(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(stage_of(pki, served)) as stage:
            (client,) = await opened(stage, 1)
            moved = packets(3_000_000)
            assert await client.echo(moved)
            (call,) = stage.balancer.calls()
            await until(lambda: call.bytes_so_far == (len(moved), len(moved)))
            assert stage.balancer.crew.cpu_s() > 0.1, "Python alone took more to start"

    play(story)


def test_captures_are_made_where_the_calls_are(pki: LabPki, served: Issued, tmp_path: Path) -> None:
    async def story() -> None:
        stage = stage_of(pki, served)
        stage.capture = {"directory": str(tmp_path), "listener": "vpn"}
        async with staged(stage):
            for client in await opened(stage, 2):
                assert await client.echo(packets(5 * 1404))
        assert counted(tmp_path) == [(1, 10), (1, 10)]

    play(story)
