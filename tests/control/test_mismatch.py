"""A backend that expects another certificate than clients are shown: told once, alike by all."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from sstplb.control import views
from sstplb.control.ctl import tables
from sstplb.lab.pki import Issued, LabPki
from tests.characters import SERVER_NAME, play, staged
from tests.desk import OperatedStage

MISMATCH = "certificate_mismatch"


def replace(pair: Issued, by: Issued) -> None:
    """Copy another pair over a listener's files, as a renewal would."""
    shutil.copy(by.chain, pair.chain)
    shutil.copy(by.key, pair.key)


def stage_of(folder: Path, pki: LabPki, served: Issued, mode: str, **settings: Any) -> Any:
    """Return a stage with files of its own; offloaded backends declare the certificate."""
    own = Issued(folder / "vpn.pem", folder / "vpn.key")
    replace(own, served)
    stage = OperatedStage(folder, mode, pki.root_path, own)
    stage.pool = {"check": {"interval": "60s", "timeout": "5s"}, **settings}
    if mode == "offload":
        told = {"rras_certificate_sha256": served.certificate.sha256.hex()}
        stage.backend_settings = {"rras1": told, "rras2": told}
    return stage


def said(stage: OperatedStage, event: str = MISMATCH) -> list[dict[str, Any]]:
    return [e for e in stage.operator.events.after(0, 1000) if e["event"] == event]


@pytest.mark.parametrize("mode", ["reencrypt", "offload"])
def test_a_certificate_replaced_here_is_told_once_and_every_view_agrees(
    mode: str, tmp_path: Path, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        stage = stage_of(tmp_path, pki, served, mode)
        async with staged(stage):
            configuration = stage.operator.configuration
            assert not said(stage)
            replace(stage.served, other)
            await configuration.reload_certificates()
            warned = said(stage)
            assert [(e["level"], e["backend"]) for e in warned] == [
                ("warning", "rras1"), ("warning", "rras2"),
            ]  # fmt: skip
            assert served.certificate.sha256.hex() in warned[0]["message"]
            assert f"{other.certificate.sha256.hex()}: every call" in warned[0]["message"]
            assert "it gets no calls" in warned[0]["message"]
            client = await stage.client()
            assert (await client.open()).startswith(b"HTTP/1.1 503")
            async with stage.asking() as ask:
                shown = (await ask.get("/pools/rras/backends/rras1")).json()
                rolled = (await ask.get("/certificates/rollout")).json()["pools"][0]["backends"]
            assert (shown["usable"], shown["unusable_because"]) == (False, MISMATCH)
            assert tables.why(shown, 0.0) == "it has another certificate than clients are shown"
            assert not any(backend["usable"] for backend in rolled)
            assert views.in_brief(stage.balancer).endswith("0 of 2 backends usable")
            seen = await stage.scraped()
            assert seen("backend_usable") == 0
            assert seen("backend_unusable", reason=MISMATCH) == seen("backend_unusable") == 2

            await configuration.reload()
            await stage.operator.orders.check_now("rras", "rras1")
            assert said(stage) == warned, "it is no news"

            replace(stage.served, served)
            await configuration.reload_certificates()
            assert [e["backend"] for e in said(stage, "certificate_match")] == ["rras1", "rras2"]
            assert stage.operator.sight.backend("rras", "rras1").usable
            client = await stage.client()
            assert (await client.open()).startswith(b"HTTP/1.1 200")
            replace(stage.served, other)
            await configuration.reload()
            assert len(said(stage)) == 4, "again a change"

    play(story)


@pytest.mark.parametrize(("policy", "warnings"), [("warn", 2), ("off", 0)])
def test_where_the_rule_is_relaxed_backends_stay_usable(
    policy: str, warnings: int, tmp_path: Path, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        tls = {"same_certificate": policy}
        stage = stage_of(tmp_path, pki, served, "reencrypt", tls=tls)
        async with staged(stage):
            replace(stage.served, other)
            await stage.operator.configuration.reload_certificates()
            messages = [event["message"] for event in said(stage)]
            assert len(messages) == warnings
            assert all("calls go there all the same" in message for message in messages)
            view = stage.operator.sight.backend("rras", "rras1")
            assert (view.usable, view.same_certificate) == (True, False)
            client = await stage.client()
            assert (await client.open()).startswith(b"HTTP/1.1 200")

    play(story)


def test_both_sides_renewed_at_once_is_no_mismatch(
    tmp_path: Path, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        stage = stage_of(tmp_path, pki, served, "reencrypt")
        async with staged(stage):
            for backend in stage.backends:
                await backend.renew(other)
            replace(stage.served, other)
            await stage.operator.configuration.reload_certificates()
            assert not said(stage), "they were looked at again first"
            assert stage.operator.sight.backend("rras", "rras1").usable

    play(story)


def test_one_certificate_of_several_or_one_listener_will_do(
    tmp_path: Path, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        stage = stage_of(tmp_path, pki, served, "reencrypt")
        theirs, foreign = (
            {"chain": str(i.chain), "key": str(i.key)} for i in (stage.served, other)
        )
        stage.listener["certificates"] = [foreign, theirs]
        async with staged(stage):
            assert not said(stage)
            assert stage.operator.sight.backend("rras", "rras1").usable
            stage.listener["certificates"] = [theirs]
            stage.more_listeners = [
                {
                    "name": "second", "address": "127.0.0.1:0", "mode": "reencrypt",
                    "pool": "rras", "certificates": [foreign],
                }
            ]  # fmt: skip
            stage.listener["address"] = "127.0.0.2:0"
            stage.write()
            await stage.operator.configuration.reload()
            messages = [event["message"] for event in said(stage)]
            assert len(messages) == 2
            assert all(message.endswith("(it gets no calls from second)") for message in messages)
            assert stage.operator.sight.backend("rras", "rras1").usable, "by the other listener"

    play(story)


def test_what_a_call_saw_first_is_told_too(
    tmp_path: Path, pki: LabPki, served: Issued, other: Issued
) -> None:
    """The check that follows sees nothing new, for the dial has noted it."""

    async def story() -> None:
        stage = stage_of(tmp_path, pki, served, "reencrypt")
        async with staged(stage):
            await stage.backends[0].renew(other)
            for _ in range(2):
                client = await stage.client()
                assert (await client.open()).startswith(b"HTTP/1.1 200")
            assert not stage.operator.sight.backend("rras", "rras1").usable
            await stage.operator.orders.check_now("rras", "rras1")
            assert [event["backend"] for event in said(stage)] == ["rras1"]

    play(story)


@pytest.mark.parametrize("engine", ["native", "portable"])
@pytest.mark.parametrize("fault", ["another name", "untrusted"])
def test_what_a_check_refuses_is_seen_all_the_same(
    fault: str, engine: str, tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    """A backend that died and came back with another certificate."""
    is_untrusted = fault == "untrusted"
    name = SERVER_NAME if is_untrusted else "other.example.test"
    theirs = pki.issue(f"came-back-{is_untrusted}", (name,), self_signed=is_untrusted)

    async def story() -> None:
        stage = stage_of(tmp_path, pki, served, "reencrypt")
        stage.engine = engine
        async with staged(stage):

            async def checked() -> tuple[dict[str, Any], dict[str, Any], float]:
                async with stage.asking() as ask:
                    shown = (await ask.post("/pools/rras/backends/rras1/check")).json()
                    (pool,) = (await ask.get("/certificates/rollout")).json()["pools"]
                seen = await stage.scraped()
                return shown, pool, seen("certificate_backends")

            await stage.backends[0].stop()
            for _ in range(3):
                shown, pool, having = await checked()
            down_since = shown["since_at"]
            assert "refused (3 bad checks in a row)" in shown["health_reason"]
            assert (shown["certificate_source"], shown["same_certificate"]) == ("last_seen", None)
            assert shown["certificate_sha256"] == served.certificate.sha256.hex()
            assert not pool["done"]
            assert pool["certificates"][0]["accepted_by"] == ["rras2"]
            assert "a check has to see it" in pool["backends"][0]["next_step"]
            assert having == 1

            stage.backends[0].issued = theirs
            await stage.backends[0].start()
            for _ in range(2):
                shown, pool, _ = await checked()
            assert "certificate" in shown["health_reason"], "not what took it down"
            assert shown["since_at"] == pytest.approx(down_since, abs=1.0)
            (event,) = said(stage, "backend_still_down")
            assert event["reason"] == shown["health_reason"] == shown["last_check"]["reason"]
            assert (shown["certificate_source"], shown["same_certificate"]) == ("leaf", False)
            assert shown["certificate_sha256"] == theirs.certificate.sha256.hex()
            assert [backend["ours"] for backend in pool["backends"]] == [False, True]
            assert [event["backend"] for event in said(stage)] == ["rras1"]

    play(story)
