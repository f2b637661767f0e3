"""Where a renewal stands, in words: each step is said when its time has come."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from sstplb.config.schema import Standing
from sstplb.control.admin.shapes import RolloutPage
from sstplb.lab.pki import Issued, LabPki
from sstplb.tls.certificate import now_utc
from tests.characters import SERVER_NAME, play, staged, until
from tests.desk import OperatedStage


@pytest.fixture(scope="module")
def old(pki: LabPki) -> Issued:
    """Issue a certificate near its end."""
    return pki.issue("words-old", (SERVER_NAME,), not_after=now_utc() + timedelta(days=20, hours=1))


@pytest.fixture(scope="module")
def new(pki: LabPki) -> Issued:
    """Issue its renewal, for one name more."""
    return pki.issue("words-new", (SERVER_NAME, "vpn2.example.test"))


def shown(*certificates: Issued) -> list[dict[str, str]]:
    return [{"chain": str(i.chain), "key": str(i.key)} for i in certificates]


async def page_of(stage: OperatedStage) -> dict[str, Any]:
    async with stage.asking() as ask:
        page = (await ask.get("/certificates/rollout")).json()
    TypeAdapter(RolloutPage).validate_python(page)
    (pool,) = page["pools"]
    found: dict[str, Any] = pool
    return found


def steps(pool: dict[str, Any]) -> list[str]:
    return [backend["next_step"] for backend in pool["backends"]]


def test_reencrypt_step_by_step(tmp_path: Path, pki: LabPki, old: Issued, new: Issued) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "reencrypt", pki.root_path, old)
        async with staged(stage):
            pool = await page_of(stage)
            assert pool["done"]
            assert pool["next_step"].startswith("nothing to roll; to renew, list the new")
            stage.listener["certificates"] = shown(old, new)
            stage.write()
            await stage.operator.configuration.reload()
            pool = await page_of(stage)
            assert not pool["done"]
            assert pool["next_step"].startswith("0 of 2 accept the newest")
            by_age = [(c["newest"], c["days_left"], c["accepted_by"]) for c in pool["certificates"]]
            assert by_age[0] == (False, 20, ["rras1", "rras2"])
            assert (by_age[1][0], by_age[1][2]) == (True, [])
            assert [b["source"] for b in pool["backends"]] == ["leaf"] * 2
            assert steps(pool) == [
                "drain it (sstplb ctl drain rras/rras1 --wait)", "later: one at a time",
            ]  # fmt: skip

            client = await stage.client()
            await client.open()
            await stage.operator.orders.set_standing("rras", "rras1", Standing.DRAINING)
            assert steps(await page_of(stage))[0] == "wait until its 1 calls have ended"
            await client.close()
            await stage.ended()
            words = steps(await page_of(stage))[0]
            assert f"SHA-256 {new.certificate.sha256.hex()}" in words
            assert "restart RemoteAccess" in words

            await stage.backends[0].renew(new)
            await stage.operator.orders.check_now("rras", "rras1")
            pool = await page_of(stage)
            assert "make it active again" in steps(pool)[0]
            assert pool["backends"][0]["newest"]
            await stage.operator.orders.set_standing("rras", "rras1", Standing.ACTIVE)
            pool = await page_of(stage)
            assert steps(pool) == ["done", "drain it (sstplb ctl drain rras/rras2 --wait)"]
            assert pool["next_step"].startswith("1 of 2 accept the newest")
            assert pool["certificates"][1]["accepted_by"] == ["rras1"]

    play(story)


def test_a_server_that_is_down_does_not_hold_up_the_others(
    tmp_path: Path, pki: LabPki, old: Issued, new: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "reencrypt", pki.root_path, old, count=2)
        stage.listener["certificates"] = shown(old, new)
        stage.backends[0].issued = new
        async with staged(stage):
            assert steps(await page_of(stage))[0] == "done"
            await stage.backends[0].stop()
            view = stage.operator.sight.backend
            await until(lambda: view("rras", "rras1").health == "down")
            first, second = steps(await page_of(stage))
            assert first.endswith("and is down: a check has to see it")
            assert second == "drain it (sstplb ctl drain rras/rras2 --wait)"

    play(story)


def test_a_backend_made_active_again_is_seen_first(
    tmp_path: Path, pki: LabPki, old: Issued, new: Issued
) -> None:
    """Else calls would be shown the certificate that it had before."""

    async def story() -> None:
        stage = OperatedStage(tmp_path, "reencrypt", pki.root_path, old, count=1)
        stage.listener["certificates"] = shown(old, new)
        stage.pool["check"] = {"interval": "60s", "timeout": "5s"}
        async with staged(stage):
            await stage.operator.orders.set_standing("rras", "rras1", Standing.DRAINING)
            await stage.backends[0].renew(new)
            await stage.operator.orders.set_standing("rras", "rras1", Standing.ACTIVE)
            view = stage.operator.sight.backend("rras", "rras1")
            assert view.certificate_sha256 == new.certificate.sha256.hex()
            assert view.same_certificate
            client = await stage.client()
            assert (await client.open()).startswith(b"HTTP/1.1 200")

    play(story)


def test_offload_says_how_it_knows_and_what_to_run(
    tmp_path: Path, pki: LabPki, old: Issued, new: Issued, other: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, old, count=3)
        stage.listener["certificates"] = shown(old, new)
        told = {"rras_certificate_sha256": old.certificate.sha256.hex()}
        stage.backend_settings = {
            "rras1": told,
            "rras3": {"rras_certificate_sha256": other.certificate.sha256.hex()},
        }
        async with staged(stage):
            pool = await page_of(stage)
            assert [b["source"] for b in pool["backends"]] == ["declared", "unknown", "declared"]
            assert [b["ours"] for b in pool["backends"]] == [True, None, False]
            assert "nobody knows what it accepts" in steps(pool)[1]
            for name in ("rras1", "rras3"):
                await stage.operator.orders.set_standing("rras", name, Standing.DRAINING)
            words = steps(await page_of(stage))
            command = f"Enable-SSTPOffload -CertificateHash {new.certificate.sha256.hex().upper()}"
            assert words[0].startswith(
                f"run there: {command} -Restart; then here: sstplb ctl certs"
            )
            async with stage.asking() as ask:
                path = "/pools/rras/backends/rras1/rras_certificate"
                bad = await ask.post(path, json={"sha256": "12"})
                assert bad.status_code == 422
                colons = ":".join(f"{byte:02X}" for byte in new.certificate.sha256)
                done = (await ask.post(path, json={"sha256": colons})).json()
                assert done["certificate_sha256"] == new.certificate.sha256.hex()
                assert done["certificate_source"] == "declared"
                drift = (await ask.get("/config")).json()["drift"]
                assert [d["path"] for d in drift if "rras1.rras_c" in d["path"]] == [
                    "pools.rras.backends.rras1.rras_certificate_sha256"
                ]
                unsaid = (await ask.post(path, json={"sha256": None})).json()
                assert unsaid["certificate_source"] == "unknown"
            assert words[2] == "later: one at a time"
            words = steps(await page_of(stage))
            assert f"{command} -Restart; a login check learns it" in words[0]

    play(story)
