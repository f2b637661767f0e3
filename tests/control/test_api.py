"""The API over its real unix socket, against a balancer that carries calls."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from sstplb.control.admin.shapes import CallShape
from sstplb.control.views import Overview
from sstplb.lab.pki import Issued, LabPki
from tests.characters import packets, play, staged
from tests.desk import OperatedStage

RRAS1 = "/pools/rras/backends/rras1"


def error_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body["error"]) == {"code", "message", "path"}
    error: dict[str, Any] = body["error"]
    return error


def test_the_overview_counts_bytes_of_calls_that_still_run(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            caller, other = await stage.opened(), await stage.opened()
            await caller.echo(packets(5000))
            moved = len(packets(5000))
            await other.close()
            await stage.ended()
            async with stage.asking() as ask:
                seen = (await ask.get("/overview")).json()
                listeners = (await ask.get("/listeners")).json()
                pools = (await ask.get("/pools")).json()
            TypeAdapter(Overview).validate_python(seen)
            assert [shown["name"] for shown in listeners] == ["vpn"]
            assert listeners[0]["bytes_in"] == moved
            assert [backend["name"] for backend in pools[0]["backends"]] == ["rras1", "rras2"]
            assert seen["totals"]["opened"] == 2
            assert seen["totals"]["running"] == 1
            assert seen["totals"]["bytes_in"] == seen["totals"]["bytes_out"] == moved
            assert seen["totals"]["outcomes"]["completed"] == 1
            listener = seen["listeners"][0]
            assert listener["bytes_in"] == moved
            assert listener["accepting"]
            assert listener["certificates"][0]["sha256"] == served.certificate.sha256.hex()
            backend = seen["pools"][0]["backends"][0]
            assert backend["health"] == "up"
            assert backend["unusable_because"] is None
            assert "< HTTP/1.1 401" in backend["last_check"]["transcript"]
            assert seen["cost"]["cpu_s"] > 0
            assert seen["cost"]["cpu_s_per_gb"] is None, "too few bytes to tell"
            assert [mode["mode"] for mode in seen["cost"]["modes"]] == ["offload"]
            ways = {way["backend"]: way for way in seen["ways"]}
            assert [ways[name]["calls"] for name in ("rras1", "rras2")] in ([1, 0], [0, 1])
            assert sum(way["bytes_in"] for way in ways.values()) == moved

    play(story)


def test_same_certificate_is_judged_where_it_can_be(
    tmp_path: Path, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "reencrypt", pki.root_path, served)
        stage.backends[1].issued = other
        async with staged(stage), stage.asking() as ask:
            pools = (await ask.get("/overview")).json()["pools"]
            same = {b["name"]: b["same_certificate"] for b in pools[0]["backends"]}
            assert same == {"rras1": True, "rras2": False}

    play(story)


def test_calls_are_listed_filtered_and_ended(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            first, second = await stage.opened("127.0.2.1"), await stage.opened("127.0.3.1")
            await first.echo(packets(3000))
            async with stage.asking() as ask:
                listed = (await ask.get("/calls")).json()
                assert [c["id"] for c in listed["calls"]] == [2, 1], "the newest first"
                for shown in listed["calls"]:
                    CallShape.model_validate(shown)
                one = (await ask.get("/calls", params={"client": "127.0.2.0/24"})).json()
                assert one["total"] == 1
                assert one["calls"][0]["bytes_in"] == len(packets(3000))
                by_backend = await ask.get("/calls", params={"backend": "rras2", "limit": 1})
                assert by_backend.json()["calls"][0]["client"].startswith("127.0.3.1:")
                ended = (await ask.post("/calls/1/end", json={"how": "now"})).json()
                assert (ended["state"], ended["reason"]) == ("ended", "ended_by_operator")
                assert ended["bytes_in"] == len(packets(3000))
                assert await first.rest() == b""
                assert await second.echo(packets(1404)), "the other call goes on"
                states = [
                    (await ask.get("/calls", params={"state": state})).json()["total"]
                    for state in ("running", "ended", "all")
                ]
                assert states == [1, 1, 2]
                found = [
                    (await ask.get("/calls", params=params)).json()["total"]
                    for params in ({"state": "failed"}, {"text": "BY_OPERATOR"}, {"text": "rras2"})
                ]
                assert found == [0, 1, 1], "ended by the operator is no failure"
                assert error_of(await ask.post("/calls/1/end"), 409)["path"] == "calls.1"
                assert error_of(await ask.get("/calls/99"), 404)["code"] == "not_found"
                error_of(await ask.get("/calls", params={"client": "nobody"}), 400)
                error_of(await ask.get("/calls", params={"state": "odd"}), 422)

    play(story)


def test_a_drained_backend_keeps_its_calls_and_gets_no_new_ones(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            held = await stage.opened()
            async with stage.asking() as ask:
                drained = await ask.post(f"{RRAS1}/standing", json={"standing": "draining"})
                assert drained.json()["unusable_because"] == "draining"
                assert drained.json()["standing_in_file"] == "active"
                before = stage.backends[0].calls
                for _ in range(3):
                    await stage.opened()
                assert stage.backends[0].calls == before
                assert await held.echo(packets(1404))
                drift = (await ask.get("/config")).json()["drift"]
                path = "pools.rras.backends.rras1.standing"
                assert drift == [{"path": path, "file": "active", "running": "draining"}]
                given = {"standing": "draining", "deadline_s": 3600}
                await ask.post(f"{RRAS1}/standing", json=given)
                events = (await ask.get("/events")).json()["events"]
                said = [e["message"] for e in events if e["event"] == "backend_standing"]
                assert said[0] == "rras1 is draining now, was active"
                assert said[1].endswith("; the calls it still has in 3600 s are ended")

    play(story)


def test_a_backend_that_calls_put_aside_says_why_and_can_be_brought_back(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            async with stage.asking() as ask:
                stage.backends[0].mood = "refuse"
                for _ in range(6):
                    client = await stage.client()
                    await client.open()
                aside = (await ask.get(RRAS1)).json()
                assert aside["failures"] == {"backend_refused": 3}
                assert (aside["set_aside"], aside["set_aside_total"]) == (True, 1)
                assert aside["unusable_because"] == "set_aside"
                assert 5 < aside["set_aside_until_at"] - time.time() <= 10
                assert "3 calls failed in a row; no new calls for 10 s" in aside["health_reason"]
                back = (await ask.post(RRAS1 + "/bring_back")).json()
                assert back["usable"]
                assert back["set_aside_until_at"] is None
                events = (await ask.get("/events")).json()["events"]
                told = [e for e in events if e["event"] in ("backend_set_aside", "backend_back")]
                assert [e["event"] for e in told] == ["backend_set_aside", "backend_back"]
                assert "operator" in told[1]["message"]

    play(story)


def test_a_backend_back_from_off_is_checked_before_it_gets_calls(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        stage.pool["check"] = {"interval": "1h", "timeout": "1s", "jitter": 0}
        async with staged(stage), stage.asking() as ask:
            await ask.post(f"{RRAS1}/standing", json={"standing": "off"})
            assert error_of(await ask.post(f"{RRAS1}/check"), 409)["message"].startswith("rras1")
            stage.backends[0].mood = "dead"
            back = (await ask.post(f"{RRAS1}/standing", json={"standing": "active"})).json()
            assert (back["standing"], back["health"]) == ("active", "down")
            assert "expected HTTP 401, got 503" in back["health_reason"]
            stage.backends[0].mood = "well"
            for _ in range(2):
                checked = await ask.post(f"{RRAS1}/check")
            assert checked.json()["usable"], "two good checks in a row"

    play(story)


def test_backends_come_and_go_while_calls_run(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served, count=3)
        async with staged(stage), stage.asking() as ask:
            clients = [await stage.opened() for _ in range(3)]
            rras3 = "/pools/rras/backends/rras3"
            assert "has 1 calls" in error_of(await ask.delete(rras3), 409)["message"]
            forced = await ask.delete(rras3, params={"force": True})
            assert "drain it first" in error_of(forced, 409)["message"]
            await ask.post(f"{rras3}/standing", json={"standing": "draining"})
            assert (await ask.delete(rras3, params={"force": True})).status_code == 200
            assert await clients[2].rest() == b""
            await stage.ended()
            assert stage.reasons() == ["closed:ended_by_operator"]
            error_of(await ask.get(rras3), 404)
            address = f"127.0.1.3:{stage.backends[2].port}"
            given = {"name": "rras9", "address": address, "weight": 2}
            added = await ask.post("/pools/rras/backends", json=given)
            assert added.status_code == 201
            assert added.json()["usable"], "it was checked at once"
            assert added.json()["standing_in_file"] is None
            again = await ask.post("/pools/rras/backends", json=given)
            error_of(again, 409)
            twin = {"name": "twin", "address": address}
            assert (
                "is the address of another"
                in (error_of(await ask.post("/pools/rras/backends", json=twin), 422)["message"])
            )
            error_of(await ask.post("/pools/rras/backends", json={"nmae": "x"}), 422)
            for _ in range(3):
                await stage.opened()
            assert stage.backends[2].calls == 2
            assert [await c.echo(packets(1404)) for c in clients[:2]] == [True, True]

    play(story)


def test_the_last_backend_stays(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served, count=1)
        async with staged(stage), stage.asking() as ask:
            assert "last backend" in error_of(await ask.delete(RRAS1), 409)["message"]

    play(story)


def test_weights_and_limits_count_at_once_and_bad_ones_change_nothing(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        stage.pool["strategy"] = "weighted_round_robin"
        async with staged(stage), stage.asking() as ask:
            assert (await ask.post(f"{RRAS1}/weight", json={"weight": 3})).json()["weight"] == 3
            for _ in range(4):
                await stage.opened()
            assert [b.calls for b in stage.backends] == [3, 1]
            limited = await ask.post(f"{RRAS1}/calls_max", json={"calls_max": 3})
            assert limited.json()["unusable_because"] == "calls_max"
            plan = stage.balancer.plan
            bad = error_of(await ask.post(f"{RRAS1}/weight", json={"weight": 0}), 422)
            assert bad == {
                "code": "bad_value",
                "message": "expected 1 or more, got 0",
                "path": "pools.rras.backends[0].weight",
            }
            error_of(await ask.post(f"{RRAS1}/weight", json={"weight": "heavy"}), 422)
            unknown = await ask.post("/pools/rras/backends/rras7/weight", json={"weight": 1})
            assert "known: rras1, rras2" in error_of(unknown, 404)["message"]
            assert stage.balancer.plan is plan

    play(story)


def test_affinity_is_listed_pinned_and_forgotten(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        stage.pool["affinity"] = {"enabled": True}
        async with staged(stage), stage.asking() as ask:
            await stage.opened("127.0.2.1")
            table = (await ask.get("/pools/rras/affinity")).json()
            assert table["total"] == 1
            assert table["entries"][0] == {
                "client": "127.0.2.1/32", "backend": "rras1", "pinned": False, "expires_in_s": None,
            }  # fmt: skip
            pinned = await ask.put("/pools/rras/affinity/127.0.2.9", json={"backend": "rras2"})
            assert pinned.json()["client"] == "127.0.2.9/32"
            for _ in range(3):
                await stage.opened("127.0.2.9")
            assert stage.backends[1].calls == 3
            assert (await ask.delete("/pools/rras/affinity/127.0.2.9%2F32")).json() == {"ok": True}
            error_of(await ask.delete("/pools/rras/affinity/127.0.2.9"), 404)
            error_of(await ask.delete("/pools/rras/affinity/somebody"), 400)
            no_such = await ask.put("/pools/rras/affinity/127.0.2.9", json={"backend": "rras7"})
            error_of(no_such, 404)
            events = (await ask.get("/events")).json()["events"]
            said = [(e["event"], e["message"]) for e in events if e["event"].startswith("client_")]
            assert said == [
                ("client_pinned", "127.0.2.9/32 goes to rras2"),
                ("client_forgotten", "127.0.2.9/32 goes where the strategy says"),
            ]

    play(story)


def test_followers_see_the_overview_at_once_and_events_as_they_happen(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            seen: list[tuple[str, dict[str, Any]]] = []

            async def follow() -> None:
                async with stage.asking() as ask, ask.stream("GET", "/events/stream") as answer:
                    assert answer.headers["content-type"].startswith("text/event-stream")
                    kind = ""
                    async for line in answer.aiter_lines():
                        if line.startswith("event: "):
                            kind = line.removeprefix("event: ")
                        elif line.startswith("data: "):
                            seen.append((kind, json.loads(line.removeprefix("data: "))))

            following = asyncio.create_task(follow())
            await stage.until(lambda: seen)
            assert seen[0][0] == "overview"
            async with stage.asking() as ask:
                await ask.post(f"{RRAS1}/standing", json={"standing": "draining"})
            await stage.until(lambda: len(seen) > 1)
            kind, event = seen[1]
            assert (kind, event["event"], event["backend"]) == (
                "event",
                "backend_standing",
                "rras1",
            )
            await stage.until(lambda: [kind for kind, _ in seen].count("overview") >= 2)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    play(story)


def test_only_so_many_may_follow_and_closing_ends_them(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        stage.admin["streams_max"] = 1
        async with staged(stage), stage.asking() as ask:
            async with ask.stream("GET", "/events/stream") as first:
                lines = first.aiter_lines()
                assert (await anext(lines)).startswith("event: overview")
                async with stage.asking() as another:
                    error = error_of(await another.get("/events/stream"), 503)
                    assert error["path"] == "admin.streams_max"
                    stage.admin["streams_max"] = 2
                    stage.write()
                    await another.post("/config/reload")
                    async with another.stream("GET", "/events/stream") as second:
                        assert second.status_code == 200, "a reload has raised it"
                assert stage.doors is not None
                await stage.doors.close()
                async for _ in lines:
                    pass
            assert not stage.socket.exists()

    play(story)


def test_the_log_level_changes_while_running(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            async with stage.asking() as ask:
                await ask.put("/log/level", json={"level": "error"})
                last = (await ask.get("/events")).json()["last"]
                await ask.post(f"{RRAS1}/standing", json={"standing": "draining"})
                assert (await ask.get("/events")).json()["last"] == last
                drift = (await ask.get("/config")).json()["drift"]
                assert {"path": "log.level", "file": "info", "running": "error"} in drift
                error_of(await ask.put("/log/level", json={"level": "loud"}), 422)

    play(story)


def test_every_route_is_described_and_the_documentation_needs_nobody_else(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            async with stage.asking() as ask:
                described = (await ask.get("http://sstplb/openapi.json")).json()
                paths = described["paths"]
                assert "/api/v1/pools/{pool}/backends/{name}/standing" in paths
                for operations in paths.values():
                    for operation in operations.values():
                        assert operation["description"]
                        shape = operation["responses"]["422"]["content"]["application/json"]
                        assert shape["schema"] == {"$ref": "#/components/schemas/Failure"}
                for path in ("/docs", "/docs/docs.css", "/docs/docs.js"):
                    page = await ask.get(f"http://sstplb{path}")
                    assert page.status_code == 200
                    assert "http://" not in page.text
                    assert "https://" not in page.text
                    policy = page.headers["content-security-policy"]
                    assert policy.startswith("default-src 'none'; script-src 'self';")
                    assert "unsafe" not in policy
                error_of(await ask.get("/nothing"), 404)
                error_of(await ask.put("/overview"), 405)

    play(story)


@pytest.mark.parametrize("size", [70_000])
def test_large_bodies_and_foreign_pages_are_kept_out(
    size: int, tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            async with stage.asking() as ask:
                error_of(await ask.post("/config/reload", content=b"x" * size), 413)
                foreign = {"Origin": "http://evil.example.test"}
                error_of(await ask.post("/config/reload", headers=foreign), 403)
                own = await ask.post("/config/check", headers={"Origin": "http://sstplb"})
                assert own.status_code == 200

    play(story)
