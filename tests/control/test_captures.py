"""Captures as operators begin, see and end them: over the API, by one process and by workers."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from sstplb.control.workers import Workers
from sstplb.lab.pki import Issued, LabPki
from tests.characters import LIMIT_S, packets, play, staged
from tests.control.test_api import error_of
from tests.desk import OperatedStage
from tests.stories.test_capture import counted

ROUNDS = 5
PAYLOAD = packets(ROUNDS * 1404)


def a_stage(folder: Path, pki: LabPki, served: Issued, **capture: Any) -> OperatedStage:
    stage = OperatedStage(folder, "offload", pki.root_path, served)
    stage.capture = {"directory": str(folder), **capture}
    return stage


async def begun(ask: httpx.AsyncClient, **wanted: Any) -> list[dict[str, Any]]:
    answer = await ask.post("/captures", json=wanted)
    assert answer.status_code == 201, answer.text
    found: list[dict[str, Any]] = answer.json()["captures"]
    return found


async def running(ask: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await ask.get("/captures")).json()["running"]
    return found


def test_a_capture_is_begun_seen_and_ended_and_the_log_says_so(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(a_stage(tmp_path, pki, served)) as stage, stage.asking() as ask:
            assert (await ask.get("/captures")).json() == {
                "directory": str(tmp_path), "running": [], "files": [],
            }  # fmt: skip
            (made,) = await begun(ask, client="127.0.0.9", seconds_max=60, bytes_max=65536)
            assert (made["chosen"], made["calls"]) == ("client 127.0.0.9/32", 0)
            assert made["ends_at"] - made["started_at"] == 60
            chosen, other = await stage.opened("127.0.0.9"), await stage.opened()
            assert await chosen.echo(PAYLOAD)
            assert await other.echo(PAYLOAD)
            (seen,) = await running(ask)
            assert (seen["calls"], seen["frames"], seen["bytes_max"]) == (1, 2 * ROUNDS, 65536)
            name = made["name"]
            ended = (await ask.post(f"/captures/{name}/end")).json()
            assert ended["ended_because"] == "the operator ended it"
            error_of(await ask.post(f"/captures/{name}/end"), 404)
            assert await chosen.echo(PAYLOAD), "its call goes on"
            page = (await ask.get("/captures")).json()
            (file,) = page["files"]
            assert (page["running"], file["name"], file["bytes"]) == ([], name, ended["bytes"])
            assert file["about"] == "client 127.0.0.9/32; without secrets"
            events = (await ask.get("/events")).json()["events"]
            said = [(e["event"], e["level"]) for e in events if e["event"].startswith("capture")]
            assert said == [("capture_started", "warning"), ("capture_ended", "warning")]
        assert counted(tmp_path) == [(1, 2 * ROUNDS)]

    play(story)


def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = a_stage(tmp_path, pki, served, seconds_max="1m", bytes_max="1MiB")
        plain = {"name": "plain", "address": "127.0.0.2:0", "mode": "passthrough", "pool": "far"}
        stage.more_listeners = [plain]
        stage.more_pools = {"far": {"backends": [{"name": "far", "address": "127.0.1.77:9"}]}}
        async with staged(stage), stage.asking() as ask:
            client = await stage.opened()
            for status, wanted, words in (
                (409, {}, "say which calls"),
                (404, {"listener": "vnp"}, "known: vpn, plain"),
                (409, {"listener": "plain"}, "passthrough"),
                (404, {"call": 77}, "call 77 is not running"),
                (422, {"client": "10.0.0.1/8"}, "did you mean 10.0.0.0/8"),
                (422, {"listener": "vpn", "seconds_max": 61}, "at most 1m"),
                (422, {"listener": "vpn", "seconds_max": 0}, "greater than 0"),
                (422, {"listener": "vpn", "bytes_max": 2 << 20}, "at most 1MiB"),
                (422, {"listener": "vpn", "bytes_max": 10}, "65536"),
                (422, {"backend": "rras1"}, "backend"),
            ):
                error = error_of(await ask.post("/captures", json=wanted), status)
                assert words in error["message"]
            await client.close()
            await stage.ended()
            error = error_of(await ask.post("/captures", json={"call": 1}), 409)
            assert "has ended" in error["message"]
            assert await running(ask) == []
        assert counted(tmp_path) == []

    play(story)


def test_without_a_directory_nothing_is_ever_recorded(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        async with staged(stage), stage.asking() as ask:
            answer = error_of(await ask.post("/captures", json={"listener": "vpn"}), 409)
            assert answer["code"] == "capture_refused"
            assert "capture.directory" in answer["message"]
            assert (await ask.get("/captures")).json()["directory"] is None

    play(story)


def test_each_worker_records_the_calls_it_carries(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = a_stage(tmp_path, pki, served)
        stage.workers = 2
        async with staged(stage), stage.asking() as ask:
            clients = [await stage.opened(), await stage.opened()]
            made = await begun(ask, listener="vpn")
            assert len(made) == 2
            for client in clients:
                assert await client.echo(PAYLOAD)
            seen = await running(ask)
            assert {state["name"] for state in seen} == {state["name"] for state in made}
            assert [state["frames"] for state in seen] == [2 * ROUNDS, 2 * ROUNDS]
            refused = error_of(await ask.post("/captures", json={"call": 2}), 409)
            assert "being recorded already" in refused["message"]
            for state in made:
                assert (await ask.post(f"/captures/{state['name']}/end")).status_code == 200
            (alone,) = await begun(ask, call=2)
            assert alone["chosen"] == "call 2"
            await clients[1].close()
            await stage.until(lambda: len(stage.balancer.bookings) == 1)
            assert await running(ask) == [], "it ended with its call"

    play(story)


def test_when_one_worker_cannot_none_does(
    tmp_path: Path, pki: LabPki, served: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sstplb.control.workers.DO_MAX_S", 0.5)

    async def story() -> None:
        stage = a_stage(tmp_path, pki, served, files_max=2)
        stage.workers = 2
        async with staged(stage), stage.asking() as ask:
            crew = stage.balancer.crew
            assert isinstance(crew, Workers)
            old = [tmp_path / f"sstplb-{number}.pcapng" for number in (1, 2)]
            for path in old:
                path.touch()
            refused = error_of(await ask.post("/captures", json={"listener": "vpn"}), 409)
            assert "capture.files_max" in refused["message"]
            for path in old:
                path.unlink()
            os.kill(crew.process_ids[0], signal.SIGSTOP)  # it answers nobody any more
            try:
                silent = error_of(await ask.post("/captures", json={"listener": "vpn"}), 503)
                assert "does not answer" in silent["message"]
            finally:
                os.kill(crew.process_ids[0], signal.SIGCONT)
            monkeypatch.undo()
            async with asyncio.timeout(LIMIT_S):
                while await running(ask):
                    await asyncio.sleep(0.02)
        ended = counted(tmp_path)
        assert len(ended) == 2
        assert all(calls == 0 for calls, _ in ended), "the other one ended its own, this one too"

    play(story)
