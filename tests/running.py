"""A stage whose balancer is a process of its own: for stories about signals, upgrades, services."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from sstplb.config.quantities import parse_endpoint
from sstplb.lab.pki import Issued
from tests.characters import LIMIT_S, Client, Stage

PATIENCE_S = 45.0
"""Several processes start one after the other, on a machine that may be busy."""


class Running(Stage):
    """A stage whose balancer is a process of its own, started as an operator would."""

    def __init__(self, folder: Path, mode: str, root: Path, served: Issued) -> None:
        super().__init__(mode, root, served, count=3)
        self.listener["polite_endings"] = False  # most clients here would not answer
        self.folder = folder
        self.file = folder / "sstplb.yaml"
        self.log = folder / "log.json"
        self._events: dict[str, list[dict[str, Any]]] = {}
        self._read_bytes = 0
        self.more: dict[str, Any] = {}
        self.processes: list[int] = []
        self.launcher: Sequence[str] = ()
        """A command that starts the balancer's."""
        self.environment: dict[str, str] = {}
        self.address = ("", 0)
        self._first: asyncio.subprocess.Process | None = None

    def document(self) -> str:
        document = json.loads(super().document())
        log = {"file": str(self.log), "format": "json"}
        return json.dumps({**document, "log": log, **self.more})

    async def start(self) -> None:
        for backend in self.backends:
            await backend.start()
        await self.run()

    async def run(self) -> None:
        self.file.write_text(self.document())
        self._first = await asyncio.create_subprocess_exec(
            *self.launcher, sys.executable, "-m", "sstplb", "run", str(self.file),
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, **self.environment},
        )  # fmt: skip
        self.processes.append(self._first.pid)
        await self.said("ready", len(self.find("ready")) + 1)
        endpoint = parse_endpoint(self.find("listening")[-1]["address"])
        self.address = endpoint.host, endpoint.port or 0

    async def end(self) -> None:
        """Stop the process that accepts, and wait for all."""
        os.kill(self.processes[-1], signal.SIGTERM)
        assert self._first is not None
        async with asyncio.timeout(PATIENCE_S):
            await self._first.wait()
            while any(is_alive(number) for number in self.processes):
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        for client in self._clients:
            client.reset()
        for number in self.processes:
            if is_alive(number):
                os.kill(number, signal.SIGKILL)
        if self._first is not None:
            await self._first.wait()
        for backend in self.backends:
            await backend.stop()

    def find(self, event: str) -> list[dict[str, Any]]:
        if self.log.exists():
            with self.log.open("rb") as log:
                log.seek(self._read_bytes)
                whole, end, _ = log.read().rpartition(b"\n")  # the last line may be half there
            self._read_bytes += len(whole + end)
            for found in map(json.loads, whole.splitlines()):
                self._events.setdefault(found["event"], []).append(found)
        return list(self._events.get(event, ()))

    async def said(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        async with asyncio.timeout(PATIENCE_S):
            while len(found := self.find(event)) < count:
                await asyncio.sleep(0.02)
        return found

    async def upgrade(self) -> None:
        count = len(self.find("upgraded"))
        os.kill(self.processes[-1], signal.SIGUSR2)
        found = await self.said("upgraded", count + 1)
        self.processes.append(int(found[-1]["message"].split()[1]))

    async def client(self, *_: Any, **__: Any) -> Client:
        context = self.context()
        host, port = self.address
        async with asyncio.timeout(LIMIT_S):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname="vpn.example.test"
            )
        return self._known(Client(reader, writer))


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.asynccontextmanager
async def running(stage: Running) -> AsyncIterator[Running]:
    try:
        await stage.start()
        yield stage
    finally:
        await stage.stop()
