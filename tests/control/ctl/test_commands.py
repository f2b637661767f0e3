"""``sstplb ctl`` as it is typed, against a balancer that carries calls."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sstplb.cli import app
from sstplb.lab.pki import Issued, LabPki
from tests.characters import packets, play, staged
from tests.desk import OperatedStage


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def lines(self, *words: str) -> list[str]:
        """Return the lines that hold all these words."""
        return [line for line in self.out.splitlines() if all(word in line for word in words)]


def typed(*arguments: object) -> Said:
    """Type a command."""
    done = CliRunner().invoke(app, ["ctl", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


class TypedStage(OperatedStage):
    """A stage that logs to a file after a reload, too: the runner swaps the standard streams."""

    def document(self) -> str:
        document = json.loads(super().document())
        log = {"format": "json", "file": str(self.file.with_suffix(".log"))}
        return json.dumps({**document, "log": log})


async def ctl(stage: OperatedStage, *arguments: object) -> Said:
    """Type a command beside a balancer."""
    return await asyncio.to_thread(typed, "--socket", stage.socket, *arguments)


@pytest.fixture
def stage(tmp_path: Path, pki: LabPki, served: Issued) -> OperatedStage:
    return TypedStage(tmp_path, "offload", pki.root_path, served)


# --- seeing -----------------------------------------------------------------------------------


def test_status_shows_the_balancer_and_its_json_is_the_api_s(stage: OperatedStage) -> None:
    async def story() -> None:
        stage.backends[1].mood = "dead"
        async with staged(stage):
            caller = await stage.opened()
            await caller.echo(packets(200_000))
            said = await ctl(stage, "status")
            assert said.code == 0
            assert "1 calls running, 1 in all" in said.out
            (row,) = said.lines("vpn", "offload", "accepting")
            assert "1/10000" in row
            (row,) = said.lines("rras/rras1")
            assert row.split()[2:5] == ["active", "up", "1/1000"]
            (row,) = said.lines("rras/rras2")
            assert "down" in row
            assert "expected HTTP 401, got 503" in row
            assert "differ" not in said.out
            await ctl(stage, "drain", "rras2")
            assert "1 value differs from the file" in (await ctl(stage, "status")).out
            seen = (await ctl(stage, "status", "--json")).json
            async with stage.asking() as ask:
                assert set(seen) == set((await ask.get("/overview")).json())

    play(story)


def test_backends_are_listed_by_pool_and_shown_with_their_last_check(stage: OperatedStage) -> None:
    async def story() -> None:
        stage.more_pools = {"other": {"backends": [{"name": "far", "address": "127.0.1.77:9"}]}}
        stage.listener = {"web_pool": "other"}
        async with staged(stage):
            assert len((await ctl(stage, "backends")).lines("/")) == 3
            assert len((await ctl(stage, "backends", "other")).lines("/")) == 1
            listed = (await ctl(stage, "backends", "--json")).json
            assert [pool["name"] for pool in listed] == ["rras", "other"]
            one = await ctl(stage, "backends", "rras1")
            assert "> HEAD /sra_" in one.out
            assert "< HTTP/1.1 401" in one.out
            shown = (await ctl(stage, "backends", "rras/rras1", "--json")).json
            assert (shown["name"], shown["standing"]) == ("rras1", "active")

    play(story)


def test_calls_are_filtered_shown_and_ended(stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            first, second = await stage.opened("127.0.2.1"), await stage.opened("127.0.3.1")
            assert await first.echo(packets(3000))
            said = await ctl(stage, "calls")
            assert [line.split()[0] for line in said.lines("127.0.")] == ["2", "1"]
            assert "2 calls" in said.out
            near = await ctl(stage, "calls", "--client", "127.0.2.0/24", "--backend", "rras1")
            assert len(near.lines("127.0.2.1")) == len(near.lines("127.0.")) == 1
            assert (await ctl(stage, "calls", "--limit", 1)).lines("1 of 2 calls")
            assert (await ctl(stage, "calls", "--json")).json["total"] == 2
            killed = await ctl(stage, "kill", 1)
            assert killed.code == 0
            assert "ended_by_operator" in killed.out
            assert await first.rest() == b""
            assert await second.echo(packets(1404))
            one = await ctl(stage, "call", 1)
            assert "rras1 has the call" in one.out
            assert "tls " in one.out
            assert (await ctl(stage, "call", 1, "--json")).json["reason"] == "ended_by_operator"
            assert "1 of 1" not in (found := await ctl(stage, "calls", "--find", "127.0.3")).out
            assert len(found.lines("127.0.")) == len(found.lines("127.0.3.1")) == 1
            assert "0 calls" in (await ctl(stage, "calls", "--state", "failed")).out
            ended = await ctl(stage, "calls", "--state", "ended")
            assert ended.lines("closed", "ended_by_operator")
            polite = await ctl(stage, "kill", 2, "--polite")
            assert "ended_by_operator" in polite.out
            assert "goodbye: client " in polite.out
            again = await ctl(stage, "kill", 1)
            assert (again.code, again.out) == (1, "")
            assert "call 1 has ended: closed" in again.err
            assert (await ctl(stage, "call", 99)).code == 1
            assert "did you mean rras1" in (await ctl(stage, "calls", "--backend", "rass1")).err

    play(story)


def test_a_rollout_is_shown_and_hashes_are_declared(stage: OperatedStage, served: Issued) -> None:
    async def story() -> None:
        async with staged(stage):
            hashed = served.certificate.sha256.hex().upper()
            said = await ctl(stage, "certs", "rollout")
            assert hashed in said.out
            assert "nobody knows what it accepts: say so (sstplb ctl certs declare" in said.out
            said = await ctl(stage, "certs", "declare", "rras1", served.chain)
            assert served.certificate.sha256.hex() in said.out
            (row,) = (await ctl(stage, "certs", "rollout")).lines("rras1", "declared")
            assert row.split()[3:] == ["newest", "declared", "done"]
            said = await ctl(stage, "certs", "declare", "rras1", "unknown", "--json")
            assert said.json["certificate_source"] == "unknown"
            assert (await ctl(stage, "certs", "declare", "rras1", "12")).code == 2
            done = await asyncio.to_thread(
                CliRunner().invoke, app, ["certs", "rollout", "--socket", str(stage.socket)]
            )
            assert (done.exit_code, hashed in done.stdout) == (0, True)

    play(story)


def test_events_certificates_and_versions_are_shown(stage: OperatedStage, served: Issued) -> None:
    async def story() -> None:
        async with staged(stage):
            hashed = served.certificate.sha256.hex().upper()
            for words in (("certs",), ("certs", "reload")):
                assert hashed in (await ctl(stage, *words)).out
            assert (await ctl(stage, "certs", "--json")).json["listeners"]["vpn"]
            said = await ctl(stage, "events")
            assert said.lines("info", "certificates_reloaded")
            only = await ctl(stage, "events", "--level", "error")
            assert (only.code, only.out.strip()) == (0, "")
            page = (await ctl(stage, "events", "--limit", 1, "--json")).json
            assert [event["event"] for event in page["events"]] == ["certificates_reloaded"]
            assert "the same here" in (await ctl(stage, "version")).out
            assert (await ctl(stage, "log-level", "debug", "--json")).json == {"level": "debug"}
            assert (await ctl(stage, "log-level", "loud")).code == 2

    play(story)


# --- backends ---------------------------------------------------------------------------------


def test_drain_waits_until_the_last_call_has_ended(stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            held = await stage.opened()
            waiting = asyncio.create_task(
                ctl(stage, "drain", "rras1", "--wait", "--timeout", "20s")
            )
            backend = stage.operator.sight.overview().pools[0].backends[0]
            assert backend.name == "rras1"
            await stage.until(lambda: standing(stage, "rras1") == "draining")
            await asyncio.sleep(0.6)
            assert not waiting.done()
            await held.close()
            said = await waiting
            assert said.code == 0
            assert "rras/rras1 is draining, health up, 0/1000 calls" in said.out
            assert "1 calls left" in said.err
            enabled = await ctl(stage, "enable", "rras1", "--json")
            assert enabled.json["standing"] == "active"

    play(story)


def test_drain_says_by_its_exit_code_that_calls_were_left(stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            held = await stage.opened()
            said = await ctl(stage, "drain", "rras1", "--wait", "--timeout", "100ms", "--json")
            assert said.code == 4
            assert said.json["calls"] == 1
            assert await held.echo(packets(1404)), "it was left alone"
            words = ("drain", "rras1", "--timeout", "700ms", "--then-end")
            told = await ctl(stage, *words)
            assert (told.code, "1/1000 calls, ended at " in told.out) == (0, True)
            said = await ctl(stage, *words, "--wait")
            assert said.code == 4
            assert "0/1000 calls" in said.out
            assert stage.reasons() == ["closed:drained"]

    play(story)


def test_drain_stops_waiting_when_it_is_undone_or_cannot_see(stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            await stage.opened()
            waiting = asyncio.create_task(ctl(stage, "drain", "rras1", "--wait"))
            await stage.until(lambda: standing(stage, "rras1") == "draining")
            assert (await ctl(stage, "enable", "rras1")).code == 0
            said = await waiting
            assert said.code == 1
            assert "was made active again" in said.err
            waiting = asyncio.create_task(ctl(stage, "drain", "rras1", "--wait", "--json"))
            await stage.until(lambda: standing(stage, "rras1") == "draining")
            await asyncio.sleep(0.3)
            stage.operator.sight.started_at += 1  # as another process would say
            said = await waiting
            assert said.code == 1
            assert said.json["error"]["code"] == "stale"

    play(story)


def standing(stage: OperatedStage, name: str) -> str:
    return stage.operator.sight.backend("rras", name).standing


def test_off_weight_and_calls_max_are_drift_until_saved(stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            assert "rras/rras2 is off" in (await ctl(stage, "off", "rras2")).out
            assert (await ctl(stage, "weight", "rras1", 3, "--json")).json["weight"] == 3
            assert "0/7 calls" in (await ctl(stage, "calls-max", "rras1", 7)).out
            wrong = await ctl(stage, "weight", "rras1", 0)
            assert (wrong.code, wrong.out) == (1, "")
            assert "pools.rras.backends[0].weight: expected 1 or more, got 0" in wrong.err
            drift = await ctl(stage, "drift")
            (row,) = drift.lines("rras1.weight")
            assert row.split()[1:] == ["1", "3"]
            assert len((await ctl(stage, "drift", "--json")).json) == 3
            review = await ctl(stage, "reload", "--check")
            assert review.lines("rras1.weight", "3", "1")
            assert "ENDS" in review.out
            assert len((await ctl(stage, "save")).lines("pools.rras.backends")) == 3
            assert (await ctl(stage, "save", "--json")).json == {"saved": []}
            assert "what runs is what the file says" in (await ctl(stage, "drift")).out

    play(story)


def test_backends_are_added_and_removed(stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            address = f"127.0.1.2:{stage.backends[1].port}"
            assert (await ctl(stage, "remove", "rras2")).out.startswith("rras/rras2 is removed")
            words = ("add", "rras9", address, "--weight", 2, "--calls-max", 5, "--draining")
            added = await ctl(stage, *words, "--json")
            assert added.code == 0, added.err
            shown = added.json
            assert (shown["weight"], shown["calls_max"], shown["standing"]) == (2, 5, "draining")
            assert shown["health"] == "up", "it was checked at once"
            assert "has a backend rras9 already" in (await ctl(stage, *words)).err
            await ctl(stage, "enable", "rras9")
            await ctl(stage, "drain", "rras1")
            held = await stage.opened()
            assert (await ctl(stage, "remove", "rras/rras9")).code == 1
            await ctl(stage, "drain", "rras9")
            assert (await ctl(stage, "remove", "rras9", "--force")).code == 0
            assert await held.rest() == b""
            assert "no pool other" in (await ctl(stage, "add", "other/x", "10.0.0.9")).err
            wrong = await ctl(stage, "add", "x", "10.0.0.9", "--weight", 0)
            assert (wrong.code, "weight" in wrong.err) == (1, True)
            assert (await ctl(stage, "add", "x", "::1")).code == 2

    play(story)


def test_a_backend_that_calls_set_aside_is_explained_and_brought_back(
    stage: OperatedStage,
) -> None:
    async def story() -> None:
        stage.backends[0].mood = "refuse"
        async with staged(stage):
            for _ in range(6):
                await stage.opened()
            (row,) = (await ctl(stage, "backends")).lines("rras/rras1")
            assert "set aside: rras1 answered 503" in row
            one = await ctl(stage, "backends", "rras1")
            assert one.lines("failures", "3 backend_refused")
            assert one.lines("set aside", "until ")
            assert "health up" in (await ctl(stage, "bring-back", "rras1")).out
            assert not (await ctl(stage, "backends", "rras1", "--json")).json["set_aside"]

    play(story)


def test_check_now_says_how_it_went(stage: OperatedStage) -> None:
    async def story() -> None:
        stage.pool["check"] = {"interval": "1h", "timeout": "1s", "jitter": 0}
        async with staged(stage):
            assert (await ctl(stage, "check-now")).code == 0
            stage.backends[0].mood = "dead"
            said = await ctl(stage, "check-now", "rras1")
            assert said.code == 1
            assert "expected HTTP 401, got 503" in said.out
            said = await ctl(stage, "check-now", "--json")
            assert (said.code, [shown["name"] for shown in said.json]) == (1, ["rras1", "rras2"])
            await ctl(stage, "off", "rras1")
            assert (await ctl(stage, "check-now")).code == 0, "who is off is not asked"
            said = await ctl(stage, "check-now", "rras1", "--json")
            assert (said.code, said.json["error"]["code"]) == (1, "conflict")

    play(story)


def test_names_that_do_not_exist_are_answered_with_those_that_do(stage: OperatedStage) -> None:
    async def story() -> None:
        same = {"name": "rras2", "address": "127.0.1.77:9"}
        stage.more_pools = {"branch": {"backends": [same]}}
        stage.listener = {"web_pool": "branch"}
        async with staged(stage):
            said = await ctl(stage, "drain", "RRAS")
            assert said.code == 1
            assert (
                "there is no backend RRAS; did you mean rras/rras2 or branch/rras2 or rras1?"
                in said.err
            )
            assert "known: rras1, rras/rras2, branch/rras2" in (await ctl(stage, "off", "x")).err
            said = await ctl(stage, "off", "rras2", "--json")
            assert said.json["error"]["code"] == "ambiguous"
            assert "rras/rras2 or branch/rras2" in said.err
            assert "branch/rras2 is off" in (await ctl(stage, "off", "branch/rras2")).out
            assert standing(stage, "rras2") == "active"
            assert "mean vpn?" in (await ctl(stage, "listeners", "drain", "vpm")).err
            assert (
                "which pool? There are rras, branch" in (await ctl(stage, "affinity", "list")).err
            )
            assert "no pool b" in (await ctl(stage, "affinity", "list", "--pool", "b")).err

    play(story)


# --- listeners, affinity, configuration -------------------------------------------------------


def test_listeners_are_listed_closed_and_opened(stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            assert (await ctl(stage, "listeners")).lines("vpn", "accepting")
            assert "vpn is draining" in (await ctl(stage, "listeners", "drain", "vpn")).out
            with pytest.raises(ConnectionRefusedError):
                await stage.client()
            (shown,) = (await ctl(stage, "listeners", "--json")).json
            assert (shown["standing"], shown["deadline_at"]) == ("draining", None)
            words = ("listeners", "drain", "vpn", "--timeout", "1h", "--then-end")
            assert "0 calls running, ended at " in (await ctl(stage, *words)).out
            assert (await ctl(stage, "listeners", "enable", "vpn", "--json")).json["accepting"]
            await stage.opened()

    play(story)


def test_clients_are_pinned_listed_and_forgotten(stage: OperatedStage) -> None:
    async def story() -> None:
        stage.pool["affinity"] = {"enabled": True}
        async with staged(stage):
            said = await ctl(stage, "affinity", "pin", "127.0.2.9", "rras2")
            assert said.out == "127.0.2.9/32 is pinned to rras/rras2\n"
            await stage.opened("127.0.2.9")
            assert stage.backends[1].calls == 1
            assert (await ctl(stage, "affinity", "list")).lines("127.0.2.9/32", "rras2", "pinned")
            listed = (await ctl(stage, "affinity", "list", "--json")).json
            assert listed["entries"][0]["pinned"]
            forgotten = await ctl(stage, "affinity", "forget", "127.0.2.9/32", "--json")
            assert forgotten.json == {"ok": True}
            said = await ctl(stage, "affinity", "forget", "127.0.2.9")
            assert (said.code, said.err) == (1, "error: 127.0.2.9 is not remembered\n")

    play(story)


def test_captures_are_begun_listed_and_ended(stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            assert "capture.directory" in (await ctl(stage, "capture", "list")).out
            refused = await ctl(stage, "capture", "begin", "--listener", "vpn")
            assert (refused.code, "capture.directory" in refused.err) == (1, True)
            stage.capture = {"directory": str(stage.file.parent)}
            stage.write()
            assert (await ctl(stage, "reload")).code == 0
            wrong = await ctl(stage, "capture", "begin", "--listener", "vp")
            assert "did you mean vpn" in wrong.err
            wrong = await ctl(stage, "capture", "begin", "--client", "10.0.0.1/8")
            assert (wrong.code, "did you mean 10.0.0.0/8" in wrong.err) == (1, True)
            caller = await stage.opened()
            words = ("capture", "begin", "--client", "127.0.0.0/8", "--for", "1m", "--size", "1MiB")
            (row,) = (await ctl(stage, *words)).lines(".pcapng")
            assert row.split()[1:] == ["1", "0", *row.split()[3:-2], "client", "127.0.0.0/8"]
            assert await caller.echo(packets(5 * 1404))
            shown = (await ctl(stage, "capture", "list", "--json")).json
            (one,) = shown["running"]
            assert (one["frames"], one["bytes_max"]) == (10, 1 << 20)
            ended = await ctl(stage, "capture", "end")
            assert f"{one['name']} has ended: 10 frames of 1 calls" in ended.out
            assert (await ctl(stage, "capture", "end")).out == "no capture runs\n"
            assert "no capture x" in (await ctl(stage, "capture", "end", "x")).err
            listed = (await ctl(stage, "capture", "list")).out
            assert "0 run, 1 have ended" in listed
            assert "client 127.0.0.0/8; without secrets" in listed
            alone = await asyncio.to_thread(
                CliRunner().invoke, app, ["capture", "list", "--socket", str(stage.socket)]
            )
            assert "0 run, 1 have ended" in alone.stdout

    play(story)


def test_reload_puts_the_file_in_force_or_says_why_not(stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            stage.limits = {"calls_max": 77}
            stage.write()
            for words, value in ((("reload", "--check"), None), (("reload",), 77)):
                said = await ctl(stage, *words)
                assert said.lines("limits.calls_max", "77")
                assert value in (None, stage.operator.configuration.in_force.limits.calls_max)
            assert (await ctl(stage, "reload", "--json")).json["changes"] == []
            stage.file.write_text("listeners: 5\npools: 6\n")
            for words in (("reload", "--check"), ("reload",)):
                said = await ctl(stage, *words, "--json")
                assert said.code == 3
                assert said.json["error"]["code"] == "config"
                assert len(said.json["problems"]) == 2
                assert said.err.count("error: ") == 2
                assert "sstplb.yaml:1: listeners: expected a list" in said.err

    play(story)


def test_stop_is_asked_for_with_its_patience(stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            await stage.opened()
            assert (await ctl(stage, "stop", "--now", "--timeout", "1s")).code == 2
            assert not stage.operator.departure.stopping.is_set()
            assert "1 calls were running" in (await ctl(stage, "stop", "--timeout", "2m")).out
            assert stage.operator.departure.stop_timeout_s == 120
            assert not stage.operator.departure.hurrying.is_set()
            again = await ctl(stage, "stop", "--timeout", "3m")
            assert (again.code, stage.operator.departure.stop_timeout_s) == (1, 120)
            await ctl(stage, "stop", "--now")
            assert stage.operator.departure.hurrying.is_set()

    play(story)


@pytest.mark.parametrize(
    "words",
    [
        ("drain", "rras1", "--timeout", "1s"),
        ("drain", "rras1", "--wait", "--then-end"),
        ("listeners", "drain", "vpn", "--timeout", "1s"),
        ("listeners", "drain", "vpn", "--then-end"),
        ("drain", "rras1", "--wait", "--timeout", "10"),
        ("upgrade", "--timeout", "1s"),
        ("status", "--url", "http://h:1"),
        ("status", "--token-file", "t"),
        ("calls", "--state", "odd"),
        ("capture", "begin"),
        ("capture", "begin", "--call", "1", "--for", "10"),
        ("nonsense",),
    ],
)
def test_a_command_line_that_makes_no_sense_is_exit_code_2(words: tuple[str, ...]) -> None:
    assert typed("--socket", "s", *words).code == 2


def test_every_command_explains_itself() -> None:
    for group in ((), ("listeners",), ("affinity",), ("certs",), ("capture",)):
        assert typed(*group, "--help").code == 0
    said = typed("--help").out
    commands = (
        "status backends calls call drain enable off weight calls-max kill listeners affinity "
        "reload save drift add remove bring-back check-now certs events log-level stop upgrade "
        "version capture"
    )
    for command in commands.split():
        assert command in said
        assert typed(command, "--help").code == 0
    assert "Exit codes: 0 done" in " ".join(said.split())
