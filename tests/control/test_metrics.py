"""Metrics of a running balancer: exact, never going down, and cheap to ask for."""

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from sstplb.config.loader import load
from sstplb.control.plan import prepare
from sstplb.control.workers import Workers
from sstplb.errors import ConfigError, ConflictError
from sstplb.lab.pki import Issued, LabPki
from tests.characters import packets, play, staged
from tests.desk import TOKEN, OperatedStage, address_of, token_file

MOVED = len(packets(50_000))


def stage_of(folder: Path, pki: LabPki, served: Issued, workers: int = 1) -> OperatedStage:
    stage = OperatedStage(folder, "offload", pki.root_path, served)
    stage.workers = workers
    return stage


@pytest.mark.parametrize("workers", [1, 2])
def test_calls_and_bytes_are_exact_whoever_carries(
    workers: int, tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(stage_of(tmp_path, pki, served, workers)) as stage:
            first = await stage.scraped()
            assert first("calls_accepted_total", listener="vpn") == 0
            assert first("calls_ended_total") == 0
            clients = [await stage.opened() for _ in range(6)]
            for client in clients:
                assert await client.echo(packets(50_000))
            await stage.settled(6)
            await stage.until(
                lambda: sum(c.bytes_so_far[1] for c in stage.balancer.calls()) == 6 * MOVED
            )
            running = await stage.scraped()
            assert running("calls_running", listener="vpn") == 6
            assert running("call_bytes_total", direction="in") == 6 * MOVED
            assert running("backend_calls_running", backend="rras1") == 3
            for client in clients[:4]:
                await client.close()
            await stage.ended(4)
            after = await stage.scraped()
            assert after("calls_accepted_total") == 6
            assert after("calls_handed_over_total") == 6
            assert after("calls_running") == 2
            assert after("calls_ended_total", outcome="completed", reason="client_ended") == 4
            for backend in ("rras1", "rras2"):
                for direction in ("in", "out"):
                    moved = after("call_bytes_total", backend=backend, direction=direction)
                    assert moved == 3 * MOVED
                assert after("backend_calls_handed_over_total", backend=backend) == 3
            assert after("call_tls_seconds_count") == after("call_opening_seconds_count") == 6
            assert after("call_duration_seconds_count") == 4, "only those that are over"
            assert 0 < after("call_tls_seconds_sum") < after("call_opening_seconds_sum")
            assert after("workers") == after("workers_ready") == workers
            assert after.never_lower_than(running)
            assert running.never_lower_than(first)

    play(story)


def test_nothing_goes_down_when_a_worker_dies(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(stage_of(tmp_path, pki, served, workers=2)) as stage:
            for client in [await stage.opened() for _ in range(4)]:
                assert await client.echo(packets(50_000))
            await stage.until(
                lambda: sum(c.bytes_so_far[0] for c in stage.balancer.calls()) == 4 * MOVED
            )
            before = await stage.scraped()
            assert before("resident_memory_bytes", process="workers") > 1e7
            assert before("open_descriptors", process="workers") > 8
            assert before("cpu_seconds_total", process="workers") > 0.1
            crew = stage.balancer.crew
            assert isinstance(crew, Workers)
            os.kill(crew.process_ids[0], signal.SIGKILL)
            await stage.ended(2)
            after = await stage.scraped()
            assert after.never_lower_than(before)
            assert after("call_bytes_total", direction="out") == 4 * MOVED
            assert after("calls_ended_total", outcome="closed", reason="worker_died") == 2
            assert (after("worker_deaths_total"), after("workers_ready")) == (1, 1)
            await stage.until(lambda: len(crew.process_ids) == 2)
            again = await stage.scraped()
            assert (again("workers"), again("workers_ready")) == (2, 2)
            assert again.never_lower_than(after)

    play(story)


def test_a_failed_try_and_a_refusal_are_counted(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = stage_of(tmp_path, pki, served)
        stage.limits["calls_max"] = 2
        async with staged(stage):
            stage.backends[0].mood = "refuse"
            await stage.opened()
            await stage.opened()
            seen = await stage.scraped()
            assert seen("backend_failures_total", backend="rras1", reason="backend_refused") == 1
            assert seen("backend_failures_total", pool="rras") == 1
            visitor = await stage.visitor()
            assert await visitor.rest() == b""
            seen = await stage.scraped()
            assert seen("admission_refused_total", reason="calls_max") == 1
            assert seen("calls_ended_total", outcome="refused", reason="calls_max") == 1
            assert seen("calls_max") == seen("calls_running") == 2

    play(story)


def test_a_backend_is_told_by_its_standing_health_and_checks(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = stage_of(tmp_path, pki, served)
        stage.pool["check"] = {"interval": "100ms", "timeout": "1s", "fall": 1, "rise": 1}
        stage.backend_settings["rras2"] = {"weight": 3, "calls_max": 7}
        async with staged(stage):
            well = await stage.scraped()
            assert well("backend_up") == well("backend_usable") == 2
            assert well("backend_weight", backend="rras2") == 3
            assert well("backend_calls_max", backend="rras2") == 7
            assert well("backend_checks_total", backend="rras1", verdict="good") >= 1
            assert 0 < well("backend_check_seconds", backend="rras1") < 1
            stage.backends[0].mood = "dead"
            backend = stage.balancer.plan.checks["rras"].pool.backends[0]
            await stage.until(lambda: not backend.health.is_up)
            async with stage.asking() as ask:
                await ask.post("/pools/rras/backends/rras2/standing", json={"standing": "off"})
            ill = await stage.scraped()
            assert ill("backend_usable") == 0
            assert ill("backend_unusable", backend="rras1", reason="down") == 1
            assert ill("backend_unusable", backend="rras2", reason="standing_off") == 1
            assert ill("backend_unusable") == 2, "one reason each"
            assert ill("backend_standing", backend="rras2", standing="off") == 1
            assert ill("backend_flips_total", backend="rras1", kind="down") == 1
            assert ill("backend_checks_total", backend="rras1", verdict="bad") >= 1
            assert ill("config_drift_values") == 1
            assert ill.never_lower_than(well)

    play(story)


def test_reloads_and_upgrades_are_counted_and_a_failed_one_is_seen(
    tmp_path: Path, pki: LabPki, served: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> int:
        raise ConflictError("the new process was not ready within 60 s")

    async def story() -> None:
        async with staged(stage_of(tmp_path, pki, served)) as stage:
            first = await stage.scraped()
            assert first("config_last_reload_ok") == first("certificate_last_reload_ok") == 1
            stage.file.write_text("listeners: nonsense")
            with pytest.raises(ConfigError):
                await stage.operator.configuration.reload()
            seen = await stage.scraped()
            assert seen("config_reloads_total", result="failed") == 1
            assert seen("config_last_reload_ok") == 0
            stage.write()
            await stage.operator.configuration.reload()
            await stage.operator.configuration.reload_certificates()
            monkeypatch.setattr("sstplb.control.departure.hand_over", fails)
            with pytest.raises(ConflictError):
                await stage.operator.departure.upgrade()
            seen = await stage.scraped()
            assert seen("config_reloads_total", result="ok") == 1
            assert seen("config_last_reload_ok") == 1
            assert seen("certificate_reloads_total", result="ok") == 1
            assert seen("upgrades_failed_total") == 1
            assert seen("log_events_total", level="error") >= 2
            when = "config_last_reload_timestamp_seconds"
            assert seen(when) > first(when) >= first("start_timestamp_seconds") - 1

    play(story)


def test_a_reload_that_succeeds_heals_certificates_that_could_not_be_read(
    tmp_path: Path, pki: LabPki, served: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_config: Any) -> None:
        raise ConfigError([])

    async def story() -> None:
        async with staged(stage_of(tmp_path, pki, served)) as stage:
            with monkeypatch.context() as patched:
                patched.setattr("sstplb.control.plan.prepare", unreadable)
                with pytest.raises(ConfigError):
                    await stage.operator.configuration.reload_certificates()
            assert (await stage.scraped())("certificate_last_reload_ok") == 0
            await stage.operator.configuration.reload()
            assert (await stage.scraped())("certificate_last_reload_ok") == 1

    play(story)


def test_certificates_say_when_they_expire_and_who_has_them(
    tmp_path: Path, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "reencrypt", pki.root_path, served)
        stage.backends[1].issued = other
        async with staged(stage):
            seen = await stage.scraped()
            not_after = served.certificate.leaf.not_valid_after_utc.timestamp()
            where = {
                "listener": "vpn",
                "name": "vpn.example.test",
                "sha256": served.certificate.sha256.hex(),
            }
            assert seen("certificate_not_after_timestamp_seconds", **where) == not_after
            assert seen("certificate_backends", **where) == 1
            assert seen("backend_same_certificate", backend="rras1") == 1
            assert seen("backend_same_certificate", backend="rras2") == 0

    play(story)


def test_listeners_that_went_keep_their_counts(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(stage_of(tmp_path, pki, served)) as stage:
            client = await stage.opened()
            await client.echo(packets(50_000))
            before = await stage.scraped()
            stage.listener["name"] = "renamed"
            stage.write()
            await stage.balancer.reload(prepare(load(stage.file)))
            after = await stage.scraped()
            assert after.never_lower_than(before)
            assert after("calls_running", listener="vpn") == 1
            assert after("calls_running", listener="renamed") == 0
            assert not list(after.matching("listener_info", listener="vpn"))

    play(story)


def test_who_asks_for_openmetrics_gets_it(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(stage_of(tmp_path, pki, served)) as stage:
            await stage.opened()
            async with stage.asking() as ask:
                url = "http://sstplb/metrics"
                plain = await ask.get(url)
                assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
                accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
                modern = await ask.get(url, headers={"Accept": accept})
            assert modern.headers["content-type"].startswith("application/openmetrics-text")
            families = text_string_to_metric_families(modern.text)  # type: ignore[no-untyped-call]
            names = {family.name for family in families}
            assert {"sstplb_calls_accepted", "sstplb_call_tls_seconds"} <= names

    play(story)


def test_prometheus_comes_in_by_the_tcp_door_with_the_token(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = stage_of(tmp_path, pki, served)
        stage.admin = {
            "address": "127.0.0.1:0",
            "token_file": str(token_file(tmp_path)),
            "certificates": [{"chain": str(served.chain), "key": str(served.key)}],
        }
        async with staged(stage):
            url = f"https://{address_of(stage)}/metrics"
            async with httpx.AsyncClient(timeout=5, verify=stage.context()) as ask:
                refused = await ask.get(url)
                assert refused.status_code == 401
                assert "Bearer" in refused.headers["www-authenticate"]
                answer = await ask.get(url, headers={"Authorization": f"Bearer {TOKEN}"})
            assert answer.status_code == 200
            assert "sstplb_admin_certificate_not_after_timestamp_seconds{" in answer.text
            assert TOKEN not in answer.text

    play(story)
