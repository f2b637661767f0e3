"""``sstplb explain`` as a user types it, beside a balancer that runs."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from sstplb.lab.pki import Issued, LabPki
from tests.characters import play, staged
from tests.control.test_windows_log import FAILED, GUID
from tests.desk import OperatedStage

SLOW_S = 55.0
"""Every command is a Python of its own."""


async def sstplb(*arguments: str | Path, folder: Path) -> tuple[int, str, str]:
    """Run the command; return exit code, standard output and standard error."""
    environment = {name: value for name, value in os.environ.items() if name != "SSTPLB_CONF"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sstplb", "explain", *map(str, arguments),
        cwd=folder, env={**environment, "COLUMNS": "200", "PYTHONPATH": str(Path.cwd())},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def test_a_call_of_the_running_balancer_and_of_its_log(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        async with staged(stage):
            for backend in stage.backends:
                backend.mood = "refuse"
            client = await stage.client()
            assert b"503" in await client.open()
            await client.close()
            await stage.ended()
            number = str(stage.balancer.ledger.ended[0].id)
            guid = "{0d528cac-464e-423a-a399-9470e234bc54}"
            log = stage.file.with_suffix(".log")
            for wanted, way, where in ((number, "--socket", stage.socket), (guid, "--log", log)):
                code, out, err = await sstplb(wanted, way, where, folder=tmp_path)
                assert (code, err) == (0, "")
                assert "[no_ports]" in out
                assert "rras1 was asked in vain" in out
            code, out, _ = await sstplb(guid, "--json", folder=tmp_path)
            told = json.loads(out)
            assert code == 0, "the configuration in the working directory says where"
            assert [d["cause"] for d in told["diagnoses"]] == ["no_ports"]
            assert told["call"]["call"] == int(number)
            code, out, err = await sstplb("99", folder=tmp_path)
            assert (code, out) == (1, "")
            assert "knows no call 99" in err

    play(story, limit_s=SLOW_S)


def test_windows_events_alone_need_no_balancer(tmp_path: Path) -> None:
    async def story() -> None:
        exported = tmp_path / "client.xml"
        exported.write_text(FAILED)
        code, out, err = await sstplb(GUID, "--events", exported, folder=tmp_path)
        assert (code, err) == (0, "")
        assert "0x800B0109: the client does not trust the root" in out
        code, out, err = await sstplb(GUID, folder=tmp_path)
        assert code == 5
        assert "which balancer?" in err

    play(story)


@pytest.mark.parametrize("with_json", [True, False])
def test_a_file_that_is_no_event_log_is_an_error_in_a_sentence(
    with_json: bool, tmp_path: Path
) -> None:
    async def story() -> None:
        wrong = tmp_path / "client.xml"
        wrong.write_text("<!DOCTYPE a><Events/>")
        flag = ["--json"] if with_json else []
        code, out, err = await sstplb(GUID, "--events", wrong, *flag, folder=tmp_path)
        assert code == 1
        assert "no event log as XML" in err
        if with_json:
            assert json.loads(out)["error"]["code"] == "bad_windows_log"

    play(story)
