"""``sstplb ctl`` as a process of its own: events followed, an upgrade, a question on a terminal."""

import asyncio
import contextlib
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sstplb.lab.pki import Issued, LabPki
from tests.characters import Client, packets, play
from tests.running import Running, running

PATIENCE_S = 40.0
"""Each command is a process that has to start, on a machine that may be busy."""

pytestmark = pytest.mark.timeout(120)


class Command:
    """A command that stays, and what it writes line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            return (await self.process.stdout.readline()).decode()

    async def event(self, name: str) -> dict[str, Any]:
        """Return the next event of that name."""
        while True:
            found: dict[str, Any] = json.loads(await self.line())
            if found["event"] == name:
                return found


@contextlib.asynccontextmanager
async def command(stage: Running, *words: str, **options: Any) -> AsyncIterator[Command]:
    """Start a command; end it by its id."""
    conf = ("--conf", str(stage.folder / "sstplb.yaml"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sstplb", "ctl", *words, *conf,
        **{"stdout": asyncio.subprocess.PIPE, **options},
    )  # fmt: skip
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Operated(Running):
    """A stage with an admin side, and patience."""

    async def said(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        async with asyncio.timeout(PATIENCE_S):
            while len(found := self.find(event)) < count:
                await asyncio.sleep(0.05)
        return found


def operated(folder: Path, pki: LabPki, served: Issued) -> Running:
    stage = Operated(folder, "offload", pki.root_path, served)
    stage.more = {"admin": {"socket": "admin.sock"}}
    return stage


@contextlib.asynccontextmanager
async def one_call(stage: Running) -> AsyncIterator[tuple[Running, Client]]:
    """Run a stage, with one call that goes through it."""
    async with running(stage):
        client = await stage.client()
        await client.open()
        yield stage, client


def test_events_are_followed_through_an_upgrade(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with running(operated(tmp_path, pki, served)) as stage:
            async with command(stage, "events", "--follow", "--json") as following:
                assert (await following.event("ready"))["id"] > 1, "what was before comes first"
                async with command(stage, "drain", "rras1") as drain:
                    assert "rras/rras1 is draining" in await drain.line()
                assert (await following.event("backend_standing"))["backend"] == "rras1"
                async with command(stage, "upgrade", "--json") as upgrade:
                    assert upgrade.process.stdout is not None
                    answer = json.loads(await upgrade.process.stdout.read())
                    stage.processes.append(answer["process"])
                upgraded = await following.event("upgraded")
                assert upgraded["message"].startswith(f"process {answer['process']} ")
                assert (await following.event("ready"))["id"] < upgraded["id"], "another counts"
                async with command(stage, "enable", "rras1") as enable:
                    assert "is active" in await enable.line()
                await following.event("backend_standing")
                following.process.send_signal(signal.SIGINT)
                async with asyncio.timeout(PATIENCE_S):
                    assert await following.process.wait() == 0
            async with command(stage, "stop", "--now") as stop:
                assert "it stops" in await stop.line()
            await stage.said("stopped")

    play(story, 110)


def test_a_stop_that_takes_long_can_be_hurried_and_nothing_else(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with one_call(operated(tmp_path, pki, served)) as (stage, client):
            async with command(stage, "stop", "--timeout", "2h") as stop:
                assert "1 calls were running" in await stop.line()
            await stage.said("stopping")
            pipe = asyncio.subprocess.PIPE
            for words in (("reload",), ("weight", "rras1", "3"), ("listeners", "enable", "vpn")):
                async with command(stage, *words, stderr=pipe) as refused:
                    _, told = await refused.process.communicate()
                    assert refused.process.returncode == 1
                    assert b"the balancer is stopping" in told
            assert await client.echo(packets(1404)), "its call goes on"
            async with command(stage, "stop", "--now") as stop:
                assert await stop.process.wait() == 0
            assert await client.rest() == b""
            assert (await stage.said("stopped"))[0]["message"] == "1 calls were cut"
            assert not stage.find("internal_error")

    play(story, 110)


def test_a_person_is_asked_before_calls_are_cut(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with one_call(operated(tmp_path, pki, served)) as (stage, client):
            ours, theirs = pty.openpty()
            try:
                for answer, code in ((b"n\n", 1), (b"y\n", 0)):
                    os.write(ours, answer)
                    async with command(stage, "kill", "1", stdin=theirs, stderr=theirs) as kill:
                        async with asyncio.timeout(PATIENCE_S):
                            assert await kill.process.wait() == code
                    assert b"will be cut. Go on?" in os.read(ours, 4096)
                    ended = stage.find("call_ended")
                    assert len(ended) == (code == 0), "only after a yes"
            finally:
                os.close(ours)
                os.close(theirs)
            assert await client.rest() == b""

    play(story, 110)


def test_ctrl_c_ends_the_waiting_and_not_the_draining(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with one_call(operated(tmp_path, pki, served)) as (stage, _):
            pipe = asyncio.subprocess.PIPE
            async with command(stage, "drain", "rras1", "--wait", stderr=pipe) as drain:
                stderr = drain.process.stderr
                assert stderr is not None
                async with asyncio.timeout(PATIENCE_S):
                    assert b"1 calls left" in await stderr.readline()
                    drain.process.send_signal(signal.SIGINT)
                    assert b"stays draining; undo it with" in await stderr.readline()
                    assert await drain.process.wait() == 130
            async with command(stage, "backends", "rras1", "--json") as shown:
                assert shown.process.stdout is not None
                answer = json.loads(await shown.process.stdout.read())
            assert (answer["standing"], answer["calls"]) == ("draining", 1)

    play(story, 110)
