"""The balancer as a service: what the manager hears, and sockets it opened for us."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from sstplb.lab.pki import Issued, LabPki
from tests.characters import ANSWER, LIMIT_S, Client, free_port, packets, play
from tests.control.test_manager import Ear
from tests.running import Running, running


class Managed(Running):
    """A balancer started as systemd would."""

    def __init__(self, folder: Path, mode: str, root: Path, served: Issued) -> None:
        super().__init__(folder, mode, root, served)
        self.ear = Ear(str(folder / "notify"))
        self.environment = {"NOTIFY_SOCKET": self.ear.address}
        self.words: list[str] = []

    async def hears(self, word: str) -> None:
        """Wait for a word, and forget what was said up to it."""
        async with asyncio.timeout(LIMIT_S):
            while word not in self.words:
                self.words += self.ear.heard()
                await asyncio.sleep(0.01)
        del self.words[: self.words.index(word) + 1]

    async def stop(self) -> None:
        await super().stop()
        self.ear.close()


def test_the_manager_follows_start_reload_upgrade_and_stop(
    pki: LabPki, served: Issued, tmp_path: Path
) -> None:
    async def story() -> None:
        stage = Managed(tmp_path, "offload", pki.root_path, served)
        stage.environment["WATCHDOG_USEC"] = "1000000"
        async with running(stage):
            await stage.hears("READY=1")
            await stage.hears("STATUS=1 listeners, 0 calls, 3 of 3 backends usable")
            await stage.hears("WATCHDOG=1")
            os.kill(stage.processes[0], signal.SIGHUP)
            await stage.hears("RELOADING=1")
            await stage.hears("READY=1")
            good = stage.file.read_text()
            stage.file.write_text("listeners: nonsense")
            os.kill(stage.processes[0], signal.SIGHUP)
            await stage.hears("RELOADING=1")
            await stage.hears("READY=1")
            await stage.said("reload_failed")
            stage.words += stage.ear.heard()
            assert any(word.startswith("STATUS=the file is not in force") for word in stage.words)
            stage.file.write_text(good)
            call = await stage.client()
            assert await call.open() == ANSWER
            await stage.upgrade()
            await stage.hears(f"MAINPID={stage.processes[1]}")
            await stage.hears("READY=1")
            await stage.hears("WATCHDOG=1")
            assert await call.echo(packets(5_000)), "the old process still carries it"
            await call.close()
            await stage.end()
            await stage.hears("STOPPING=1")
            await stage.hears("EXTEND_TIMEOUT_USEC=45000000")

    play(story)


def test_who_calls_before_we_run_and_while_we_are_restarted_is_served(
    pki: LabPki, served: Issued, tmp_path: Path
) -> None:
    async def story() -> None:
        stage = Running(tmp_path, "offload", pki.root_path, served)
        port = free_port()
        stage.address = "127.0.0.1", port
        stage.listener["address"] = f"127.0.0.1:{port}"
        # systemd's own tool; the second socket is one that no listener knows.
        listen = ("--listen", f"127.0.0.1:{port}", "--listen", str(tmp_path / "other.sock"))
        stage.launcher = ("systemd-socket-activate", *listen)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(until_connected(stage.client))
            await stage.start()
        try:
            call = first.result()
            assert await call.open() == ANSWER
            (unused,) = stage.find("activation_unused")
            assert "no TCP socket" in unused["message"]
            await stage.upgrade()
            assert await (await stage.client()).open() == ANSWER, "it went on to the new process"
            assert await call.echo(packets(5_000))
        finally:
            await stage.stop()

    play(story)


async def until_connected(connect: Callable[[], Awaitable[Client]]) -> Client:
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                return await connect()
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
