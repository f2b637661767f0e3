"""Operators close listeners, stop the balancer, and renew certificates without a word."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from sstplb.control.plan import Prepared, load
from sstplb.control.watch import watch_certificates
from sstplb.errors import ConflictError
from sstplb.lab.pki import Issued, LabPki
from tests.characters import ANSWER, LIMIT_S, packets, play, staged
from tests.control.test_api import error_of
from tests.desk import OperatedStage

VPN = "/listeners/vpn/standing"


def copied(issued: Issued, directory: Path) -> Issued:
    """Return a certificate and its key in files of their own, which may be renewed."""
    mine = Issued(directory / "mine.pem", directory / "mine.key")
    shutil.copyfile(issued.chain, mine.chain)
    shutil.copyfile(issued.key, mine.key)
    return mine


def test_a_draining_listener_refuses_new_calls_and_keeps_running_ones(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            old = await stage.opened()
            async with stage.asking() as ask:
                shown = (await ask.post(VPN, json={"standing": "draining"})).json()
                assert (shown["standing"], shown["accepting"], shown["calls"]) == (
                    "draining", False, 1,
                )  # fmt: skip
                with pytest.raises(ConnectionRefusedError):
                    await stage.client()
                assert await old.echo(packets(5000))
                await stage.operator.configuration.reload()
                with pytest.raises(ConnectionRefusedError):
                    await stage.client()
                shown = (await ask.post(VPN, json={"standing": "active"})).json()
                assert shown["accepting"]
                assert await (await stage.client()).open() == ANSWER
                error_of(await ask.post(VPN, json={"standing": "off"}), 422)
                error_of(
                    await ask.post("/listeners/none/standing", json={"standing": "active"}), 404
                )

    play(story)


def test_a_listener_whose_address_was_taken_says_so(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            address = stage.balancer.listeners["vpn"].address
            async with stage.asking() as ask:
                await ask.post(VPN, json={"standing": "draining"})
                thief = await asyncio.start_server(lambda *_: None, *address)
                error = error_of(await ask.post(VPN, json={"standing": "active"}), 409)
                assert "address already in use (ss -ltnp says by whom)" in error["message"]
                thief.close()
                await thief.wait_closed()
                assert (await ask.post(VPN, json={"standing": "active"})).json()["accepting"]

    play(story)


def test_stop_is_passed_on_with_its_patience(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            async with stage.asking() as ask:
                error_of(await ask.post("/stop", json={"timeout_s": -1}), 422)
                kind = {"Content-Type": "application/json"}
                endless = await ask.post("/stop", content='{"timeout_s": Infinity}', headers=kind)
                error_of(endless, 422)
                assert not stage.operator.departure.stopping.is_set()
                assert (await ask.post("/stop", json={"timeout_s": 7})).status_code == 202
                again = error_of(await ask.post("/stop"), 409)
                assert again["message"].startswith("it is stopping already")
                assert not stage.operator.departure.hurrying.is_set()
                assert (await ask.post("/stop", json={"timeout_s": 0})).status_code == 202
            assert stage.operator.departure.stopping.is_set()
            assert stage.operator.departure.hurrying.is_set()
            assert stage.operator.departure.stop_timeout_s == 7

    play(story)


def test_while_it_stops_only_what_needs_no_listener_is_done(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            async with stage.asking() as ask:
                await ask.post("/stop")
                for path, given in (
                    ("/config/reload", None),
                    ("/config/save", None),
                    ("/certificates/reload", None),
                    ("/upgrade", None),
                    (VPN, {"standing": "draining"}),
                    ("/pools/rras/backends/rras1/weight", {"weight": 3}),
                ):
                    error = error_of(await ask.post(path, json=given), 409)
                    assert "is stopping" in error["message"], path
                drained = await ask.post(
                    "/pools/rras/backends/rras1/standing", json={"standing": "draining"}
                )
                assert drained.json()["standing"] == "draining"

    play(story)


def test_a_reload_that_is_overtaken_by_a_stop_opens_nothing(
    tmp_path: Path, pki: LabPki, served: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            loop, departure = asyncio.get_running_loop(), stage.operator.departure

            def load_while_somebody_stops_it(path: Path) -> Prepared:
                asyncio.run_coroutine_threadsafe(departure.stop(None), loop).result(LIMIT_S)
                return load(path)

            monkeypatch.setattr("sstplb.control.plan.load", load_while_somebody_stops_it)
            before = stage.balancer.prepared
            with pytest.raises(ConflictError, match="is stopping"):
                await stage.operator.configuration.reload()
            assert stage.balancer.prepared is before

    play(story)


def test_a_certificate_that_is_renewed_while_it_stops_is_left_alone(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        mine = copied(served, tmp_path)
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, mine)) as stage:
            watch = asyncio.create_task(
                watch_certificates(stage.operator.configuration, look_every_s=0.02)
            )
            await asyncio.sleep(0.1)
            await stage.operator.departure.stop(None)
            os.utime(mine.chain)
            async with asyncio.timeout(LIMIT_S):
                await watch

    play(story)


def test_renewed_certificates_are_read_when_both_files_are_there(
    tmp_path: Path, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        mine = copied(served, tmp_path)
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, mine)) as stage:
            watch = asyncio.create_task(
                watch_certificates(stage.operator.configuration, look_every_s=0.02)
            )
            await asyncio.sleep(0.1)
            shutil.copyfile(other.chain, mine.chain)
            await stage.until(lambda: said(stage, "certificates_failed"))
            assert await (await stage.client()).open() == ANSWER, "the old one is in force"
            shutil.copyfile(other.key, mine.key)
            await stage.until(lambda: said(stage, "certificates_reloaded"))
            assert len(said(stage, "certificates_failed")) == 1
            (shown,) = stage.operator.sight.certificates()["vpn"]
            assert shown.sha256 == other.certificate.sha256.hex()
            watch.cancel()

    play(story)


def said(stage: OperatedStage, event: str) -> list[str]:
    events = stage.operator.events.after(0, 1000)
    return [found["message"] for found in events if found["event"] == event]
