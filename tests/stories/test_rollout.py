"""A certificate is renewed server by server while calls come and go, and no call fails."""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sstplb.config.schema import SRA_PATH, PoolTls, Standing, Verify
from sstplb.lab.caller import CallPlan, CallReport, place_call
from sstplb.lab.pki import Issued, LabPki
from sstplb.lab.rras import Fault, Rras, RrasSettings
from sstplb.tls.certificate import now_utc
from sstplb.tls.policy import ClientPolicy
from tests.characters import ANSWER, LIMIT_S, REQUEST, SERVER_NAME, play, staged
from tests.desk import OperatedStage


@pytest.fixture(scope="module")
def old(pki: LabPki) -> Issued:
    """Issue a certificate near its end."""
    return pki.issue("rolled-old", (SERVER_NAME,), not_after=now_utc() + timedelta(days=20))


@pytest.fixture(scope="module")
def new(pki: LabPki) -> Issued:
    """Issue its renewal."""
    return pki.issue("rolled-new", (SERVER_NAME,))


class Farm:
    """Three RRAS servers behind a balancer, an operator, and callers that never stop calling."""

    def __init__(
        self, folder: Path, mode: str, knows: str, pki: LabPki, old: Issued, *, count: int = 3
    ) -> None:
        self.stage = OperatedStage(folder, mode, pki.root_path, old, count=0)
        self.mode, self.knows, self.root, self.old = mode, knows, pki.root_path, old
        self.servers = [Rras(self.settings(n, old)) for n in range(1, count + 1)]
        self.reports: list[CallReport] = []
        self.serve(old)
        # A busy machine is no failing server.
        self.stage.pool["check"] = {"interval": "100ms", "timeout": "5s", "fall": 3}
        if knows == "login":
            self.stage.pool["check"] = {
                "method": "login", "interval": "100ms", "timeout": "5s",
                "username": "user", "password": {"env": "SSTPLB_TEST_LOGIN"},
            }  # fmt: skip

    def settings(self, number: int, issued: Issued) -> RrasSettings:
        place = (f"127.0.7.{number}", 0)
        if self.mode == "offload":
            sha256 = issued.certificate.sha256
            return RrasSettings(name=f"rras{number}", http=place, offload_sha256=sha256)
        return RrasSettings(name=f"rras{number}", https=place, certificate=issued.files)

    def serve(self, *shown: Issued) -> None:
        """Configure what clients may be shown."""
        self.stage.listener["certificates"] = [
            {"chain": str(i.chain), "key": str(i.key)} for i in shown
        ]

    async def reload(self, *shown: Issued) -> None:
        """Have the balancer show these, and keep what was declared at run time."""
        await self.stage.operator.configuration.save()
        document = self.stage.file.read_text()
        self.serve(*shown)
        self.stage.write()
        if self.knows == "declared":
            self.stage.file.write_text(_with_listeners_of(document, self.stage.file.read_text()))
        await self.stage.operator.configuration.reload()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Farm"]:
        for server in self.servers:
            await server.start()
        self.stage.pool["backends"] = [
            {
                "name": server.settings.name,
                "address": "{}:{}".format(*(server.https or server.http or ())),
                **(
                    {"rras_certificate_sha256": self.old.certificate.sha256.hex()}
                    if self.knows == "declared"
                    else {}
                ),
            }
            for server in self.servers
        ]
        try:
            async with staged(self.stage):
                yield self
        finally:
            for server in self.servers:
                await server.stop()

    def backend(self, number: int) -> Any:
        return self.stage.balancer.plan.checks["rras"].pool.backends[number]

    async def call(self, source: str = "127.0.0.1") -> CallReport:
        plan = CallPlan(
            address=self.stage.balancer.listeners["vpn"].address,
            server_name=SERVER_NAME,
            user="user",
            password="password",
            policy=ClientPolicy(PoolTls(verify=Verify.CA, ca_file=self.root)),
            source_host=source,
            data_bytes=30_000,
        )
        report = await place_call(plan)
        self.reports.append(report)
        return report

    @contextlib.asynccontextmanager
    async def constant_calls(self, callers: int) -> AsyncIterator[None]:
        """Call and call again, each caller from its own address."""
        stopping = asyncio.Event()

        async def caller(number: int) -> None:
            while not stopping.is_set():
                await self.call(f"127.0.8.{number}")
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            for number in range(1, callers + 1):
                group.create_task(caller(number), name=f"caller {number}")
            try:
                yield
            finally:
                stopping.set()

    async def switch(self, number: int, issued: Issued) -> None:
        """Do what ``certs rollout`` says, for one backend."""
        desk, name = self.stage.operator, f"rras{number + 1}"
        await desk.orders.set_standing("rras", name, Standing.DRAINING)
        async with asyncio.timeout(LIMIT_S):
            while (seen := desk.sight.backend("rras", name)).calls + seen.dialing:
                await asyncio.sleep(0.01)
        server = self.servers[number]
        fresh = self.settings(number + 1, issued)
        await server.restart(
            replace(
                server.settings,
                certificate=fresh.certificate,
                offload_sha256=fresh.offload_sha256,
            )
        )
        if self.knows == "declared":
            await desk.configuration.declare("rras", name, issued.certificate.sha256.hex())
        await desk.orders.set_standing("rras", name, Standing.ACTIVE)

    def failed(self) -> list[str]:
        """Return what calls failed, in the callers' words and in the balancer's."""
        records = {r.correlation_id: r for r in self.stage.balancer.ledger.ended}
        return [
            f"{report.failure.sentence}: {records.get(report.correlation_id)}"
            for report in self.reports
            if report.failure is not None
        ]

    def seen(self) -> Counter[bytes]:
        """Return how many calls saw which certificate."""
        return Counter(r.certificate.sha256 for r in self.reports if r.certificate is not None)


def half_way(folder: Path, pki: LabPki, old: Issued, new: Issued, *, count: int = 3) -> Farm:
    """Return a farm whose second server has the new certificate, and the others the old one."""
    farm = Farm(folder, "reencrypt", "leaf", pki, old, count=count)
    farm.serve(old, new)
    farm.servers[1] = Rras(farm.settings(2, new))
    return farm


def _with_listeners_of(backends: str, listeners: str) -> str:
    import json

    import yaml

    kept, wanted = yaml.safe_load(backends), json.loads(listeners)
    return json.dumps({**wanted, "pools": kept["pools"]})


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("mode", "knows"), [("reencrypt", "leaf"), ("offload", "declared"), ("offload", "login")]
)
def test_a_renewal_rolls_server_by_server_and_no_call_fails(
    mode: str, knows: str, workers: int, tmp_path: Path, pki: LabPki, old: Issued, new: Issued,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SSTPLB_TEST_LOGIN", "password")

    async def story() -> None:
        farm = Farm(tmp_path, mode, knows, pki, old)
        farm.stage.workers = workers
        async with farm.running():
            async with farm.constant_calls(4):
                await asyncio.sleep(0.3)
                await farm.reload(old, new)
                for number in range(3):
                    await farm.switch(number, new)
                    before, farm.reports = farm.reports, []
                    async with asyncio.timeout(LIMIT_S):
                        while len(farm.reports) < 12:
                            await asyncio.sleep(0.02)
                    # Calls that began before the switch are among them.
                    assert farm.seen()[new.certificate.sha256]
                    assert number == 2 or farm.seen()[old.certificate.sha256]
                    farm.reports = before + farm.reports
                (pool,) = farm.stage.operator.sight.rollout()
                assert pool.done, pool
                await farm.reload(new)
                await asyncio.sleep(0.3)
            assert farm.failed() == []
            assert len(farm.reports) > 20
            assert all(server.connected_total for server in farm.servers)

    play(story)


def test_the_turns_are_exact_while_certificates_differ(
    tmp_path: Path, pki: LabPki, old: Issued, new: Issued
) -> None:
    """Visitors between the calls spend no turn, whatever certificate they were shown."""

    async def story() -> None:
        farm = half_way(tmp_path, pki, old, new)
        async with farm.running():
            stage = farm.stage
            for number in range(12):
                for _ in range(number % 4):
                    visitor = await stage.client()
                    await visitor.send(f"HEAD {SRA_PATH} HTTP/1.1\r\n\r\n".encode())
                    assert (await visitor.rest()).startswith(b"HTTP/1.1 401")
                gone = await stage.client()
                await gone.close()  # before it said a word
                await stage.ended(len(stage.reasons()))
                await asyncio.sleep(0.02)
                assert (await farm.call()).ok, farm.failed()
            assert [server.connected_total for server in farm.servers] == [4, 4, 4]
            assert farm.seen() == {old.certificate.sha256: 8, new.certificate.sha256: 4}

    play(story)


def test_a_crowd_that_comes_at_once_is_spread_evenly(
    tmp_path: Path, pki: LabPki, old: Issued, new: Issued
) -> None:
    async def story() -> None:
        farm = half_way(tmp_path, pki, old, new)
        async with farm.running():
            await asyncio.gather(*(farm.call() for _ in range(30)))
            assert farm.failed() == []
            assert [server.connected_total for server in farm.servers] == [10, 10, 10]

    play(story)


def test_failover_stays_with_the_certificate_the_client_was_shown(
    tmp_path: Path, pki: LabPki, old: Issued, new: Issued
) -> None:
    async def story() -> None:
        farm = half_way(tmp_path, pki, old, new)
        farm.serve(new, old)
        farm.stage.pool["passive"] = {"failures": 0}
        async with farm.running():
            farm.servers[0].fault = Fault.NO_PORTS
            for _ in range(3):
                await farm.call()
            assert farm.failed() == []
            assert [server.connected_total for server in farm.servers] == [0, 1, 2]
            await farm.stage.ended(3)
            tried = [r.tries for r in farm.stage.balancer.ledger.ended]
            assert [[t.backend for t in tries] for tries in tried] == [
                ["rras1", "rras3"], ["rras2"], ["rras3"],
            ]  # fmt: skip

    play(story)


def test_offload_learns_from_the_calls_of_several_clients(
    tmp_path: Path, pki: LabPki, old: Issued, new: Issued
) -> None:
    """Nobody says what this RRAS was told: two clients fail, and it is known."""

    async def story() -> None:
        farm = Farm(tmp_path, "offload", "nothing", pki, old, count=1)
        farm.serve(old, new)
        async with farm.running():
            assert (await farm.call()).ok
            learnt = farm.backend(0).learnt
            assert learnt.sha256 == old.certificate.sha256
            server = farm.servers[0]
            await server.restart(replace(server.settings, offload_sha256=new.certificate.sha256))
            async with asyncio.timeout(LIMIT_S):
                while not farm.backend(0).health.is_up:
                    await asyncio.sleep(0.02)
            for _ in range(4):
                assert not (await farm.call("127.0.8.1")).ok
            assert learnt.sha256 == old.certificate.sha256, "one client alone is no proof"
            assert not (await farm.call("127.0.8.2")).ok
            async with asyncio.timeout(LIMIT_S):
                while learnt.sha256 is not None:
                    await asyncio.sleep(0.01)
            assert (await farm.call("127.0.8.1")).ok
            assert learnt.sha256 == new.certificate.sha256

    play(story)


def test_a_session_is_resumed_only_under_the_certificate_it_began_with(
    tmp_path: Path, pki: LabPki, old: Issued, new: Issued
) -> None:
    """Else the client would bind to a certificate that its backend does not accept any more."""

    async def story() -> None:
        farm = half_way(tmp_path, pki, old, new, count=2)
        async with farm.running():
            place = farm.stage.balancer.listeners["vpn"].address
            seen = await asyncio.to_thread(_call_resuming, place, pki.root_path, 6)
            assert [resumed for resumed, _ in seen] == [False, False, True, True, True, True]
            ours = [old.certificate.leaf_der, new.certificate.leaf_der]
            assert [leaf for _, leaf in seen] == ours * 3

    play(story)


def _call_resuming(place: tuple[str, int], root: Path, times: int) -> list[tuple[bool, bytes]]:
    """Call by turns with the latest session under each certificate; say what was resumed."""
    import socket

    context = ssl.create_default_context(cafile=str(root))
    sessions: dict[int, ssl.SSLSession | None] = {0: None, 1: None}
    seen = []
    for number in range(times):
        raw = socket.create_connection(place, timeout=LIMIT_S)
        session = sessions[number % 2] or sessions[1 - number % 2]
        with context.wrap_socket(raw, server_hostname=SERVER_NAME, session=session) as tls:
            tls.sendall(REQUEST)
            answer = tls.recv(4096)
            assert answer.startswith(ANSWER[:12])
            seen.append((bool(tls.session_reused), tls.getpeercert(binary_form=True) or b""))
            sessions[number % 2] = tls.session
    return seen
