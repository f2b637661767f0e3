"""Until hand-over a backend's failure costs the client nothing; afterwards it costs the call."""

import asyncio
from typing import Any

import pytest

from sstplb.lab.pki import Issued, LabPki
from tests.characters import ANSWER, Stage, packets, play, staged

MODES = ["passthrough", "offload", "reencrypt"]


def patient(stage: Stage) -> Stage:
    """Checks that never change their mind during the story: only the calls tell."""
    stage.pool.update(
        check={"interval": "1h", "timeout": "1s"},
        passive={"failures": 0},
        try_timeout="300ms",
        total_timeout="5s",
    )
    return stage


@pytest.mark.parametrize("mode", ["offload", "reencrypt"])
@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("refuse", "backend_refused"),
        ("reset", "backend_closed"),
        ("silent", "backend_timeout"),
        ("garbage", "backend_protocol_error"),
    ],
)
def test_the_client_never_notices(
    mode: str, mood: str, reason: str, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(patient(Stage(mode, pki.root_path, served))) as stage:
            stage.backends[0].mood = mood
            for _ in range(2):
                client = await stage.client()
                assert await client.open() == ANSWER
                assert await client.echo(packets(20_000))
                await client.close()
            await stage.ended(2)
            assert stage.reasons() == ["completed:client_ended"] * 2
            tries = [[(t.backend, t.reason) for t in r.tries] for r in stage.balancer.ledger.ended]
            assert [("rras1", reason), ("rras2", "")] in tries

    play(story)


@pytest.mark.parametrize("mode", MODES)
def test_a_dead_backend_is_passed_over(mode: str, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(patient(Stage(mode, pki.root_path, served))) as stage:
            await stage.backends[0].stop()
            for _ in range(4):
                client = await stage.client()
                assert await client.open() == ANSWER
                await client.close()
            await stage.ended(4)
            assert {r.backend for r in stage.balancer.ledger.ended} == {"rras2"}
            reasons = {t.reason for r in stage.balancer.ledger.ended for t in r.tries}
            assert reasons == {"", "backend_connect_failed"}

    play(story)


@pytest.mark.parametrize(
    ("mood", "reason"), [("refuse", "backend_refused"), ("silent", "backend_timeout")]
)
def test_when_nobody_answers_the_client_gets_a_503(
    mood: str, reason: str, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(patient(Stage("offload", pki.root_path, served))) as stage:
            for backend in stage.backends:
                backend.mood = mood
            client = await stage.client()
            answer = await client.open()
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable")
            assert b"Connection: close" in answer
            await client.rest()
            await stage.ended()
            assert stage.reasons() == [f"backend_failed:{reason}"]

    play(story)


def test_all_tries_together_have_a_deadline(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = patient(Stage("offload", pki.root_path, served, count=3))
        stage.pool.update(try_timeout="300ms", total_timeout="500ms")
        async with staged(stage):
            for backend in stage.backends:
                backend.mood = "silent"
            client = await stage.client()
            began = asyncio.get_running_loop().time()
            assert (await client.open()).startswith(b"HTTP/1.1 503")
            assert asyncio.get_running_loop().time() - began < 0.9

    play(story)


def test_a_backend_that_checks_find_dead_gets_no_calls(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(Stage("offload", pki.root_path, served)) as stage:
            stage.backends[0].mood = "dead"
            async with asyncio.timeout(5):
                while stage.balancer.plan.checks["rras"].pool.backends[0].health.is_up:
                    await asyncio.sleep(0.02)
            stage.backends[0].calls = 0
            for _ in range(4):
                client = await stage.client()
                assert await client.open() == ANSWER
                await client.close()
            assert stage.backends[0].calls == 0
            stage.backends[0].mood = "well"
            async with asyncio.timeout(5):
                while not stage.balancer.plan.checks["rras"].pool.backends[0].health.is_up:
                    await asyncio.sleep(0.02)

    play(story)


def test_nobody_up_is_503_in_offload_and_a_close_in_passthrough(
    pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        for mode in ("offload", "passthrough"):
            stage = Stage(mode, pki.root_path, served)
            for backend in stage.backends:
                backend.mood = "dead"
            async with staged(stage):
                if mode == "offload":
                    client = await stage.client()
                    assert (await client.open()).startswith(b"HTTP/1.1 503")
                    await client.rest()
                else:
                    with pytest.raises(ConnectionError):
                        await stage.client()
                await stage.ended()
                assert stage.reasons() == ["refused:no_backend_available"]
                assert "rras1 down" in stage.balancer.ledger.ended[0].detail

    play(story)


def mismatched(stage: Stage, other: Issued, policy: str) -> Stage:
    stage.backends[0].issued = other
    stage.pool["tls"] = {"same_certificate": policy}
    return stage


def test_another_certificate_is_refused_before_it_hurts(
    pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        stage = mismatched(Stage("reencrypt", pki.root_path, served), other, "refuse")
        async with staged(stage):
            for _ in range(4):
                client = await stage.client()
                assert await client.open() == ANSWER
                await client.close()
            await stage.ended(4)
            assert stage.backends[0].calls == 0
            await stage.backends[1].stop()
            stage.backends[1].mood = "dead"
            client = await stage.client()
            assert (await client.open()).startswith(b"HTTP/1.1 503")

    play(story)


def test_a_certificate_changed_since_the_last_check_is_noticed_at_the_dial(
    pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        stage = patient(Stage("reencrypt", pki.root_path, served))
        async with staged(stage):
            await stage.backends[0].renew(other)
            for _ in range(3):
                client = await stage.client()
                assert await client.open() == ANSWER
                await client.close()
            await stage.ended(3)
            reasons = [t.reason for r in stage.balancer.ledger.ended for t in r.tries if t.reason]
            assert reasons == ["certificate_mismatch"], "once; then it is known"
            assert stage.backends[0].calls == 0

    play(story)


@pytest.mark.parametrize("policy", ["warn", "off"])
def test_the_rule_can_be_relaxed(policy: str, pki: LabPki, served: Issued, other: Issued) -> None:
    async def story() -> None:
        stage = mismatched(Stage("reencrypt", pki.root_path, served, count=1), other, policy)
        async with staged(stage):
            client = await stage.client()
            assert await client.open() == ANSWER

    play(story)


@pytest.mark.parametrize(("good", "calls"), [(True, 1), (False, 0)])
def test_an_offload_hash_is_compared_with_ours(
    good: bool, calls: int, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served, count=1)
        told = (served if good else other).certificate.sha256.hex()
        settings: dict[str, Any] = {"rras_certificate_sha256": told}
        stage.backend_settings["rras1"] = settings
        async with staged(stage):
            client = await stage.client()
            assert (await client.open() == ANSWER) == good
            assert stage.backends[0].calls == calls
            if not good:
                await stage.ended()
                assert "certificate_mismatch" in stage.balancer.ledger.ended[0].detail

    play(story)
