"""``sstplb top`` against a balancer that carries calls: one frame, and live on a terminal."""

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sstplb.cli import app
from sstplb.control.ctl.api import Api
from sstplb.control.ctl.door import Door
from sstplb.control.top.keys import Sort
from sstplb.control.top.run import Looker
from sstplb.lab.pki import Issued, LabPki
from tests.characters import packets, play, staged
from tests.control.ctl.test_commands import TypedStage

PATIENCE_S = 40.0
"""The command is a process that has to start, on a machine that may be busy."""


@pytest.fixture
def stage(tmp_path: Path, pki: LabPki, served: Issued) -> TypedStage:
    return TypedStage(tmp_path, "offload", pki.root_path, served)


def test_one_frame_is_printed(stage: TypedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "30")

    async def story() -> None:
        async with staged(stage):
            caller = await stage.opened("127.0.2.1")
            await caller.echo(packets(100_000))
            words = ["top", "--once", "--interval", "200ms", "--socket", str(stage.socket)]
            done = await asyncio.to_thread(CliRunner().invoke, app, words)
            assert done.exit_code == 0, done.output
            lines = done.stdout.splitlines()
            assert len(lines) == 29
            assert "1 calls running, 1 in all" in lines[1]
            assert "calls/s" in lines[2]
            assert any("127.0.2.1:" in line and "running" in line for line in lines)
            assert any("rras/rras2" in line for line in lines)

    play(story)


def test_without_a_terminal_or_a_balancer_it_says_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["top", "--socket", str(tmp_path / "s")])
    assert (done.exit_code, "--once prints one frame" in done.stderr) == (2, True)
    done = CliRunner().invoke(app, ["top", "--once", "--socket", str(tmp_path / "s")])
    assert (done.exit_code, "there is no such socket" in done.stderr) == (5, True)


def test_calls_come_in_the_order_that_is_asked_for(stage: TypedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            first, second = await stage.opened("127.0.2.9"), await stage.opened()
            assert await second.echo(packets(50_000))
            await stage.opened()
            with Api(Door("http://sstplb", stage.socket)) as api:
                looker = Looker(api)
                seen = {sort: await asyncio.to_thread(looker.look, sort) for sort in Sort}
                numbers = {sort: [call["id"] for call in seen[sort].calls] for sort in Sort}
                assert numbers[Sort.NEWEST] == [3, 2, 1]
                assert numbers[Sort.LONGEST] == [1, 2, 3]
                assert numbers[Sort.BIGGEST][0] == 2
                found = await asyncio.to_thread(looker.look, Sort.LONGEST, "127.0.2.9")
                assert [call["id"] for call in found.calls] == [1]
                assert found.calls_total == 1
                await first.close()
                await stage.ended()
                await stage.operator.configuration.set_weight("rras", "rras1", 2)
                glance = await asyncio.to_thread(looker.look, Sort.NEWEST)
                names = [event["event"] for event in glance.events]
                assert names[-1] == "backend_changed"
                assert "call_ended" not in names, "calls are listed"
                assert names.count("backend_up") == 2, "what was before is kept"

    play(story)


class Screen:
    """A terminal with ``top`` on it."""

    def __init__(self, columns: int, lines: int) -> None:
        self.ours, self.theirs = pty.openpty()
        self.text = ""
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        self.text = ""
        os.write(self.ours, keys.encode())

    async def shows(self, words: str) -> None:
        """Wait for words that come after the last keys."""
        async with asyncio.timeout(PATIENCE_S):
            while words not in self.text:
                await asyncio.sleep(0.02)
                with contextlib.suppress(BlockingIOError):
                    self.text += os.read(self.ours, 65536).decode(errors="replace")


@pytest.mark.timeout(120)
def test_live_it_drains_after_a_yes_and_leaves_the_terminal_as_it_was(stage: TypedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            screen = Screen(120, 30)
            os.set_blocking(screen.ours, False)
            before = termios.tcgetattr(screen.theirs)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sstplb", "top", "--socket", str(stage.socket),
                "--interval", "100ms",
                stdin=screen.theirs, stdout=screen.theirs, stderr=screen.theirs,
                env={**os.environ, "TERM": "xterm-256color"},
            )  # fmt: skip
            try:
                await screen.shows("q quit")
                screen.type("\x1b[Bd")
                await screen.shows("drain rras/rras1? y / n")
                assert stage.operator.sight.backend("rras", "rras1").standing == "active"
                screen.type("y")
                await screen.shows("rras/rras1 is draining")
                assert stage.operator.sight.backend("rras", "rras1").standing == "draining"
                screen.type("/nobody\r")
                await screen.shows("filter: nobody")
                screen.type("q")
                async with asyncio.timeout(PATIENCE_S):
                    assert await process.wait() == 0
                assert termios.tcgetattr(screen.theirs) == before
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                os.close(screen.ours)
                os.close(screen.theirs)

    play(story, 110)
