"""Reloads and upgrades of a real process, under calls that come all the time: nobody notices."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sstplb.lab.pki import Issued, LabPki
from tests.characters import ANSWER, Client, FakeBackend, packets, play
from tests.running import Running, running

FULL = os.environ.get("SSTPLB_SOAK") == "1"
RELOADS, UPGRADES = (100, 20) if FULL else (9, 3)
RATE = 50
"""New calls a second."""


class Traffic:
    """Calls that come all the time, and some that last; what went wrong with any."""

    def __init__(self, stage: Running) -> None:
        self.stage = stage
        self.failures: list[str] = []
        self.calls = self.rounds = 0
        self.seconds = 0.0
        self._payload = packets(6_000)
        self._stopping = asyncio.Event()

    @contextlib.asynccontextmanager
    async def flowing(self, lasting: int) -> AsyncIterator[None]:
        clients = [await self.stage.client() for _ in range(lasting)]
        for client in clients:
            assert await client.open() == ANSWER
        async with asyncio.TaskGroup() as group:
            group.create_task(self._come())
            for client in clients:
                group.create_task(self._last(client))
            yield
            self._stopping.set()

    async def _come(self) -> None:
        async with asyncio.TaskGroup() as group:
            due = began = time.monotonic()
            while not self._stopping.is_set():
                group.create_task(self._call())
                due += 1 / RATE  # who is late makes up for it
                await asyncio.sleep(due - time.monotonic())
            self.seconds = time.monotonic() - began

    async def _call(self) -> None:
        self.calls += 1
        try:
            client = await self.stage.client()
            if (answer := await client.open()) != ANSWER:
                self.failures.append(f"{answer!r}")
            elif not await client.echo(self._payload):
                self.failures.append("wrong bytes")
            await client.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.failures.append(repr(error))

    async def _last(self, client: Client) -> None:
        while not self._stopping.is_set():
            if not await client.echo(self._payload):
                self.failures.append("a lasting call lost bytes")
            self.rounds += 1
            await asyncio.sleep(0.02)
        await client.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2])
def test_nobody_is_refused_and_no_byte_is_lost(
    workers: int, pki: LabPki, served: Issued, tmp_path: Path
) -> None:
    async def story() -> None:
        stage = Running(tmp_path, "offload", pki.root_path, served)
        stage.workers = workers
        stage.limits |= {"accept_rate_per_client": 1000, "accept_burst_per_client": 1000}
        stage.pool["check"] = {"interval": "1s", "timeout": "1s"}
        traffic = Traffic(stage)
        async with running(stage):
            async with traffic.flowing(5):
                for _ in range(UPGRADES):
                    for _ in range(RELOADS // UPGRADES):
                        count = len(stage.find("reloaded"))
                        os.kill(stage.processes[-1], signal.SIGHUP)
                        await stage.said("reloaded", count + 1)
                    await stage.upgrade()
                await asyncio.sleep(0.5)
            troubles = [stage.find(event) for event in ("backend_down", "backend_set_aside")]
            assert not traffic.failures, (len(traffic.failures), traffic.failures[:5], troubles)
            least = (0.9 if FULL else 0.5) * RATE
            assert traffic.calls > least * traffic.seconds, "calls came all the time"
            assert traffic.rounds > RATE, "the lasting ones went on"
            await stage.end()
            ended = stage.find("call_ended")
            assert len(ended) == traffic.calls + 5
            assert {event["outcome"] for event in ended} == {"completed"}
            assert not stage.find("internal_error")
            rate = traffic.calls / traffic.seconds
            sys.stdout.write(f"{RELOADS} reloads, {UPGRADES} upgrades; {traffic.calls} calls,")
            sys.stdout.write(f" {rate:.1f}/s, and {traffic.rounds} rounds of 5 lasting ones, ")
            sys.stdout.write(f"in {traffic.seconds:.0f} s: none refused or dropped, no byte lost\n")

    play(story, limit_s=500)


def test_an_upgrade_that_fails_changes_nothing(pki: LabPki, served: Issued, tmp_path: Path) -> None:
    async def story() -> None:
        async with running(Running(tmp_path, "offload", pki.root_path, served)) as stage:
            client = await stage.client()
            await client.open()
            (tmp_path / "sstplb.yaml").write_text("listeners: nonsense")
            os.kill(stage.processes[0], signal.SIGUSR2)
            (failed,) = await stage.said("upgrade_failed")
            assert "ended before it was ready" in failed["message"]
            assert await client.echo(packets(5_000))
            late = await stage.client()
            assert await late.open() == ANSWER

    play(story)


def test_checks_that_fail_at_the_moment_of_an_upgrade_count_as_one_each(
    pki: LabPki, served: Issued, tmp_path: Path
) -> None:
    async def story() -> None:
        stage = Running(tmp_path, "offload", pki.root_path, served)
        stage.pool["check"] = {"interval": "1m", "timeout": "1s"}
        async with running(stage):
            for backend in stage.backends:
                backend.mood = "unwell"
            await stage.upgrade()
            assert await (await stage.client()).open() == ANSWER

    play(story)


def test_what_operators_said_and_affinity_outlive_upgrade_and_restart(
    pki: LabPki, served: Issued, tmp_path: Path
) -> None:
    async def story() -> None:
        stage = Running(tmp_path, "offload", pki.root_path, served)
        stage.pool["affinity"] = {"enabled": True}
        stage.limits["stop_timeout"] = "200ms"
        stage.more = {"state_file": str(tmp_path / "state.json")}
        async with running(stage):
            first = await stage.client()
            await first.open()
            (home,) = [backend for backend in stage.backends if backend.calls]
            await stage.upgrade()
            await comes_home(stage, home)
            await first.close()
            await stage.end()
            state = json.loads((tmp_path / "state.json").read_text())
            assert [entry[1] for entry in state["pools"]["rras"]["affinity"]] == [home.name]
            state["pools"]["rras"]["standings"] = {
                home.name: {"filed": "active", "said": "draining"}
            }
            (tmp_path / "state.json").write_text(json.dumps(state))
            await stage.run()
            before = home.calls
            await (await stage.client()).open()
            assert home.calls == before, "it drains, as somebody said before the restart"
            await stage.end()
            (tmp_path / "state.json").write_text("{broken")
            await stage.run()
            assert stage.find("state_damaged")
            assert (tmp_path / "state.json.damaged").read_text() == "{broken"
            assert await (await stage.client()).open() == ANSWER

    play(story)


async def comes_home(stage: Running, home: FakeBackend) -> None:
    for _ in range(4):
        before = home.calls
        await (await stage.client()).open()
        assert home.calls == before + 1
