"""Whole SSTP calls, crypto binding and all: our caller, the balancer, a simulated RRAS."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Self

import pytest

from sstplb.config.schema import PoolTls, Verify
from sstplb.lab.caller import CallPlan, CallReport, place_call, place_calls
from sstplb.lab.pki import Issued, LabPki
from sstplb.lab.rras import Fault, Rras, RrasSettings
from sstplb.net.call import now_s
from sstplb.protocol.ppp_peer import Authentication
from sstplb.protocol.registry import HashProtocol
from sstplb.tls.policy import ClientPolicy
from tests.characters import SERVER_NAME, Stage, play, staged


class Lab:
    """A stage whose backends are simulated RRAS servers."""

    def __init__(
        self, mode: str, pki: LabPki, served: Issued, shown: Issued | None = None, **settings: Any
    ) -> None:
        self.stage = Stage(mode, pki.root_path, served, count=0)
        self.pki = pki
        told = settings.pop("told", served)
        self.servers = [
            Rras(
                RrasSettings(
                    name=f"rras{n}",
                    https=None if mode == "offload" else (f"127.0.4.{n}", 0),
                    http=(f"127.0.4.{n}", 0) if mode == "offload" else None,
                    certificate=None if mode == "offload" else (shown or served).files,
                    offload_sha256=told.certificate.sha256 if mode == "offload" else None,
                    **settings,
                )
            )
            for n in (1, 2)
        ]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        for server in self.servers:
            await server.start()
        addresses = [server.https or server.http for server in self.servers]
        self.stage.pool["backends"] = [
            {"name": server.settings.name, "address": f"{address[0]}:{address[1]}"}
            for server, address in zip(self.servers, addresses, strict=True)
            if address is not None
        ]
        try:
            async with staged(self.stage):
                yield self
        finally:
            for server in self.servers:
                await server.stop()

    def plan(self, **changes: Any) -> CallPlan:
        plan = CallPlan(
            address=self.stage.balancer.listeners["vpn"].address,
            server_name=SERVER_NAME,
            user="CORP\\user",
            password="password",
            policy=ClientPolicy(PoolTls(verify=Verify.CA, ca_file=self.pki.root_path)),
        )
        return replace(plan, **changes)

    async def call(self, **changes: Any) -> CallReport:
        return await place_call(self.plan(**changes))


MODES = ["passthrough", "offload", "reencrypt"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("authentication", list(Authentication))
def test_a_whole_call(
    mode: str, authentication: Authentication, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with Lab(mode, pki, served, authentication=authentication).running() as lab:
            report = await lab.call(data_bytes=100_000)
            assert report.ok, report.failure
            assert report.echoed_bytes >= 100_000
            assert report.ping_s is not None
            assert report.address.startswith("10.9.0.")
            await lab.stage.ended()
            record = lab.stage.balancer.ledger.ended[0]
            if mode != "passthrough":
                assert (str(record.outcome), record.reason) == (
                    "completed", "disconnected_by_client",
                )  # fmt: skip
                assert record.correlation_id == report.correlation_id

    play(story)


def test_sha1_binds_too(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with Lab("reencrypt", pki, served).running() as lab:
            assert (await lab.call(hash_protocol=HashProtocol.SHA1)).ok

    play(story)


def test_a_wrong_offload_hash_connects_then_disconnects_and_is_explained(
    pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        async with Lab("offload", pki, served, told=other).running() as lab:
            report = await lab.call()
            assert report.failure is not None
            assert report.failure.reason == "binding_refused"
            async with asyncio.timeout(5):
                while sum(server.refused_bindings for server in lab.servers) != 1:
                    await asyncio.sleep(0.01)
            assert served.certificate.sha256.hex() in report.failure.sentence
            await lab.stage.ended()
            assert lab.stage.reasons() == ["backend_failed:binding_refused"]
            assert served.certificate.sha256.hex() in lab.stage.balancer.ledger.ended[0].detail

    play(story)


def test_refused_bindings_put_a_backend_aside_but_never_the_last(
    pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        lab = Lab("offload", pki, served, told=other)
        lab.stage.pool["passive"] = {"failures": 2, "back_off": "30s"}
        async with lab.running():
            for number in range(7):
                report = await lab.call()
                assert report.failure is not None
                assert report.failure.reason == "binding_refused"
                await lab.stage.ended(number + 1)
            pool = lab.stage.balancer.plan.checks["rras"].pool
            asked = [record.backend for record in lab.stage.balancer.ledger.ended]
            assert asked == ["rras1", "rras2", "rras1", "rras2"] + ["rras1"] * 3
            found = pool.candidates("127.0.0.1", now_s())
            assert found.excluded == (("rras2", "set_aside"),)
            assert found.spared == {"rras1"}
            failures = [backend.failures_total["binding_refused"] for backend in pool.backends]
            assert failures == [5, 2]

    play(story)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("strategy", ["round_robin", "source_hash"])
def test_a_client_that_is_refused_is_not_led_there_again(
    strategy: str, workers: int, pki: LabPki, served: Issued, other: Issued
) -> None:
    """One server was told a wrong hash; the client comes back before its call is over there."""

    async def story() -> None:
        lab = Lab("offload", pki, served)
        lab.stage.workers = workers
        lab.stage.pool.update(strategy=strategy, affinity={"enabled": True})
        wrong = replace(lab.servers[1].settings, offload_sha256=other.certificate.sha256)
        lab.servers[1] = Rras(wrong)
        async with lab.running():
            for n in range(1, 9):
                reports = [await lab.call(source_host=f"127.0.8.{n}") for _ in range(3)]
                assert [report.ok for report in reports][1:] == [True, True]
            await lab.stage.ended(24)
            calls = lab.stage.balancer.ledger.ended
            refused = {record.client[0] for record in calls if record.outcome != "completed"}
            assert refused
            assert {record.backend for record in calls if record.outcome != "completed"} == {
                "rras2"
            }
            table = lab.stage.balancer.plan.checks["rras"].pool.affinity
            assert {known.backend for known in table.remembered(now_s())} == {"rras1"}

    play(story)


@pytest.mark.parametrize("clients", [1, 3])
def test_one_client_alone_cannot_put_a_backend_aside(
    clients: int, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        lab = Lab("offload", pki, served, told=other)
        lab.stage.pool["strategy"] = "source_hash"
        lab.stage.pool["affinity"] = {"enabled": False}
        async with lab.running():
            lab.servers[1].fault = Fault.STOPPED  # all go to the first
            first, second = lab.stage.balancer.plan.checks["rras"].pool.backends
            async with asyncio.timeout(5):
                while second.health.is_up:
                    await asyncio.sleep(0.02)
            for number in range(9):
                await lab.call(source_host=f"127.0.6.{1 + number % clients}")
                await lab.stage.ended(number + 1)
            assert first.health.is_set_aside(now_s()) == (clients > 1)
            assert first.failures_total["binding_refused"] == 9

    play(story)


@pytest.mark.parametrize(
    ("policy", "reason"), [("refuse", "http_status"), ("off", "binding_refused")]
)
def test_reencrypt_with_another_certificate(
    policy: str, reason: str, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        lab = Lab("reencrypt", pki, served, shown=other)
        lab.stage.pool["tls"] = {"same_certificate": policy}
        async with lab.running():
            report = await lab.call()
            assert report.failure is not None
            assert report.failure.reason == reason

    play(story)


def test_an_inspecting_middle_box_is_named(pki: LabPki, served: Issued, other: Issued) -> None:
    async def story() -> None:
        async with Lab("offload", pki, served).running() as lab:
            report = await lab.call(bind_to=other.certificate)
            assert report.failure is not None
            await lab.stage.ended()
            assert lab.stage.reasons() == ["client_failed:client_certificate_hash_mismatch"]

    play(story)


def test_a_wrong_password_is_told_apart(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with Lab("offload", pki, served).running() as lab:
            report = await lab.call(password="wr0ng")
            assert report.failure is not None
            assert report.failure.reason == "authentication_failed"
            assert "wr0ng" not in repr(report)

    play(story)


@pytest.mark.parametrize(
    ("fault", "stays_up"),
    [(Fault.STOPPED, False), (Fault.SILENT, False), (Fault.RESET, False), (Fault.NO_PORTS, True)],
)
def test_the_default_check_tells_what_is_wrong(
    fault: Fault, stays_up: bool, pki: LabPki, served: Issued
) -> None:
    """Out of ports is not down: the check cannot know, the calls fail over."""

    async def story() -> None:
        lab = Lab("reencrypt", pki, served)
        lab.stage.pool["check"] = {"interval": "100ms", "timeout": "1s", "fall": 2}
        async with lab.running():
            lab.servers[0].fault = fault
            backend = lab.stage.balancer.plan.checks["rras"].pool.backends[0]
            async with asyncio.timeout(5):
                while backend.health.is_up != stays_up:
                    await asyncio.sleep(0.02)
            for _ in range(2):
                assert (await lab.call()).ok
            assert lab.servers[1].connected_total == 2

    play(story)


@pytest.mark.parametrize("method", ["https", "sstp", "login", "tcp"])
def test_every_check_finds_a_well_server_well(
    method: str, pki: LabPki, served: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSTPLB_TEST_LOGIN", "password")

    async def story() -> None:
        lab = Lab("reencrypt", pki, served)
        lab.stage.pool["check"] = {
            "method": method, "interval": "10s", "timeout": "3s",
            "username": "user", "password": {"env": "SSTPLB_TEST_LOGIN"},
        }  # fmt: skip
        async with lab.running():
            health = lab.stage.balancer.plan.checks["rras"].pool.backends[0].health
            assert health.is_up, health.reason
            assert health.last_verdict is not None
            assert "password" not in health.last_verdict.transcript

    play(story)


@pytest.mark.parametrize(
    ("method", "finds_it"), [("http", False), ("sstp", False), ("login", True)]
)
def test_only_a_login_check_finds_the_wrong_hash(
    method: str, finds_it: bool, pki: LabPki, served: Issued, other: Issued,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SSTPLB_TEST_LOGIN", "password")

    async def story() -> None:
        lab = Lab("offload", pki, served, told=other)
        lab.stage.pool["check"] = {
            "method": method, "interval": "10s", "timeout": "3s",
            "username": "user", "password": {"env": "SSTPLB_TEST_LOGIN"},
        }  # fmt: skip
        async with lab.running():
            health = lab.stage.balancer.plan.checks["rras"].pool.backends[0].health
            assert health.is_up != finds_it, health.reason

    play(story)


@pytest.mark.parametrize("mode", MODES)
def test_a_crowd(mode: str, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with Lab(mode, pki, served).running() as lab:
            plans = [lab.plan(data_bytes=10_000) for _ in range(40)]
            reports = [report async for report in place_calls(plans, at_once=20)]
            assert [r.failure for r in reports if not r.ok] == []
            await lab.stage.ended(40)
            assert {server.connected_total for server in lab.servers} == {20}

    play(story)
