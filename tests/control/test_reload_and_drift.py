"""What is changed at run time: shown as drift, saved on request, dropped by a noisy reload."""

import stat
from pathlib import Path

import pytest

from sstplb.config import loader, schema
from sstplb.config.schema import Standing
from sstplb.control import drift
from sstplb.errors import ConfigError, ConflictError
from sstplb.lab.pki import Issued, LabPki
from tests.characters import packets, play, staged
from tests.desk import OperatedStage

RRAS1 = "/pools/rras/backends/rras1"
TEXT = """\
# Ours.
listeners:
  - name: vpn
    address: 0.0.0.0:443   # all of them
    mode: passthrough
    pool: rras
pools:
  rras:
    backends:
      # the old one
      - {name: rras1, address: "10.0.0.11"}
      - name: rras2
        address: 10.0.0.12
        weight: 2  # twice the machine
"""


def changed(config: schema.Config, name: str, **knobs: object) -> schema.Config:
    pool = config.pools["rras"]
    backends = tuple(b.model_copy(update=knobs) if b.name == name else b for b in pool.backends)
    pools = {"rras": pool.model_copy(update={"backends": backends})}
    return config.model_copy(update={"pools": pools})


def test_a_reload_says_which_drift_it_drops(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            async with stage.asking() as ask:
                caller = await stage.opened()
                await ask.post(f"{RRAS1}/weight", json={"weight": 5})
                await ask.post(f"{RRAS1}/standing", json={"standing": "draining"})
                stage.limits["calls_max"] = 77
                stage.write()
                lost = [{"path": "pools.rras.backends.rras1.weight", "file": 1, "running": 5}]
                change = {"path": "limits.calls_max", "from": 20000, "to": 77}
                asked = (await ask.post("/config/check")).json()
                assert asked["drift_lost"] == lost
                assert asked["changes"] == [change]
                assert asked["problems"] == []
                assert stage.balancer.plan.config.limits.calls_max == 20000, "only asked"
                done = (await ask.post("/config/reload")).json()
                assert done == asked
                assert stage.balancer.plan.config.limits.calls_max == 77
                backend = (await ask.get(RRAS1)).json()
                assert (backend["weight"], backend["standing"]) == (1, "draining")
                events = [e["event"] for e in (await ask.get("/events")).json()["events"]]
                assert "drift_dropped" in events
                assert await caller.echo(packets(1404))

    play(story)


def test_a_reload_says_which_tls_engine_new_calls_get(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            async with stage.asking() as ask:
                caller = await stage.opened()
                await ask.post("/config/reload")
                stage.engine = "portable"
                stage.write()
                await ask.post("/config/reload")
                events = (await ask.get("/events")).json()["events"]
                same, other = [e["message"] for e in events if e["event"] == "reloaded"]
                assert "engine" not in same
                assert other.endswith(
                    "TLS engine for new calls: portable (pyOpenSSL), as tls.engine says"
                )
                assert await caller.echo(packets(1404))
                assert await (await stage.opened()).echo(packets(1404))

    play(story)


def test_what_waits_for_a_restart_is_told_until_the_file_says_again_what_runs(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            async with stage.asking() as ask:

                async def reviewed(how: str) -> tuple[list[dict[str, object]], list[str]]:
                    review = (await ask.post(f"/config/{how}")).json()
                    assert review["drift_lost"] == []
                    about = [text for text in review["warnings"] if text.startswith("workers")]
                    return review["changes"], about

                told = "workers: takes effect with a restart or an upgrade (sstplb ctl upgrade); "
                told += "one process carries calls now"
                waits = [{"path": "workers", "from": 1, "to": 3}], [told]
                stage.workers = 3
                stage.write()
                for how in ("check", "reload", "check", "reload"):
                    assert await reviewed(how) == waits, "however often"
                events = (await ask.get("/events")).json()["events"]
                assert [e["message"] for e in events if e["level"] == "warning"].count(told) == 2
                config = (await ask.get("/config")).json()
                assert (config["effective"]["workers"], config["drift"]) == (1, [])

                await ask.post(f"{RRAS1}/weight", json={"weight": 5})
                saved = (await ask.post("/config/save")).json()["saved"]
                assert [difference["path"] for difference in saved] == [
                    "pools.rras.backends.rras1.weight"
                ]
                assert loader.load(stage.file).workers == 3, "saved is what was changed here"
                assert await reviewed("reload") == waits
                stage.workers, stage.backend_settings["rras1"] = 1, {"weight": 5}
                stage.write()
                assert await reviewed("check") == await reviewed("reload") == ([], [])

    play(story)


def test_a_file_that_changes_a_standing_wins(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            async with stage.asking() as ask:
                await ask.post(f"{RRAS1}/standing", json={"standing": "draining"})
                stage.backend_settings["rras1"] = {"standing": "off"}
                stage.write()
                review = (await ask.post("/config/reload")).json()
                assert [d["path"] for d in review["drift_lost"]] == [
                    "pools.rras.backends.rras1.standing"
                ]
                assert (await ask.get(RRAS1)).json()["standing"] == "off"

    play(story)


def test_a_bad_file_is_refused_with_all_that_is_wrong(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            plan = stage.balancer.plan
            stage.limits = {"calls_max": 0, "idle": "1s"}
            stage.write()
            async with stage.asking() as ask:
                asked = (await ask.post("/config/check")).json()
                assert len(asked["problems"]) == 2
                refused = await ask.post("/config/reload")
                assert refused.status_code == 409
                assert refused.json()["problems"] == asked["problems"]
                assert refused.json()["error"]["code"] == "config"
                assert stage.balancer.plan is plan
                stage.file.unlink()
                assert "cannot be read" in (await ask.post("/config/check")).json()["problems"][0]

    play(story)


def test_drift_is_written_back_and_is_none_any_more(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            async with stage.asking() as ask:
                await ask.post(f"{RRAS1}/standing", json={"standing": "off"})
                await ask.post(f"{RRAS1}/calls_max", json={"calls_max": 9})
                given = {"name": "rras3", "address": "127.0.1.3:9", "backup": True}
                await ask.post("/pools/rras/backends", json=given)
                await ask.put("/log/level", json={"level": "debug"})
                saved = (await ask.post("/config/save")).json()["saved"]
                assert len(saved) == 4
                config = (await ask.get("/config")).json()
                assert config["drift"] == []
                backends = loader.load(stage.file).pools["rras"].backends
                assert [b.name for b in backends] == ["rras1", "rras2", "rras3"]
                assert backends[0].standing is Standing.OFF
                assert (backends[0].calls_max, backends[2].backup) == (9, True)
                review = (await ask.post("/config/reload")).json()
                assert (review["changes"], review["drift_lost"]) == ([], [])
                assert (await ask.get(RRAS1)).json()["standing"] == "off"

    play(story)


def test_comments_and_layout_survive_a_save(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(TEXT)
    file.chmod(0o640)
    filed = loader.load(file)
    running = changed(filed, "rras2", weight=7, standing=Standing.DRAINING)
    drift.save(file, filed, running)
    expected = TEXT.replace("weight: 2  # twice the machine", "weight: 7  # twice the machine")
    assert file.read_text() == expected + "        standing: draining\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["a.yaml"], "nothing is left beside it"


def test_a_link_is_followed_rather_than_replaced(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_text(TEXT)
    link = tmp_path / "a.yaml"
    link.symlink_to("real.yaml")
    filed = loader.load(link)
    drift.save(link, filed, changed(filed, "rras1", weight=7))
    assert link.is_symlink()
    assert loader.load(link).pools["rras"].backends[0].weight == 7


@pytest.mark.parametrize("text", [TEXT, "listeners: []\n", "{"])
def test_a_file_that_somebody_edits_is_not_overwritten(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(TEXT)
    filed = loader.load(file)
    edited = text.replace("10.0.0.12", "10.0.0.13")
    file.write_text(edited)
    with pytest.raises((ConflictError, ConfigError)):
        drift.save(file, filed, changed(filed, "rras1", weight=7))
    assert file.read_text() == edited


def test_what_an_edit_cannot_say_is_refused(tmp_path: Path) -> None:
    """Two pools that share their backends through an alias cannot be changed apart."""
    file = tmp_path / "a.yaml"
    shared = (
        TEXT.replace("    backends:\n", "    backends: &all\n") + "  spare:\n    backends: *all\n"
    )
    file.write_text(shared)
    filed = loader.load(file)
    pool = filed.pools["rras"]
    running = filed.model_copy(
        update={"pools": {**filed.pools, **changed(filed, "rras1", weight=7).pools}}
    )
    assert pool is not running.pools["rras"]
    with pytest.raises(ConflictError, match="by hand"):
        drift.save(file, filed, running)
    assert file.read_text() == shared


def test_differences_know_backends_by_name() -> None:
    config = loader.parse(TEXT)
    pool = config.pools["rras"]
    turned = pool.model_copy(update={"backends": pool.backends[::-1]})
    assert drift.differences(config, config.model_copy(update={"pools": {"rras": turned}})) == []
    fewer = pool.model_copy(update={"backends": pool.backends[:1]})
    found = drift.differences(config, config.model_copy(update={"pools": {"rras": fewer}}))
    assert [d.path for d in found] == ["pools.rras.backends.rras2"]
    assert found[0].after is None
