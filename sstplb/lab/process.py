"""Programs of ours as processes of their own: a balancer, a server, and what they cost.

Who wants to know what a mode costs must not carry callers and servers in the same process. Each
is started as an operator would start it, with a command and a configuration file; what it says is
read from its log, and its CPU from the process's own clock (clock_getcpuclockid(3): all its
threads, in user and kernel, to the nanosecond; /proc only counts in hundredths of a second).
"""

import asyncio
import json
import os
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from sstplb.config.quantities import parse_endpoint
from sstplb.net.tcp import Address
from sstplb.tls.certificate import Certificate

PATIENCE_S = 15.0
"""How long anything may take to happen."""
_PID_SHIFT, _SCHEDULER_CLOCK = 3, 2
"""How Linux makes a clock's number of a process's: what clock_getcpuclockid(3) computes."""
_LISTENING = re.compile(r"listening: (https?) on (\S+)")


class LabProcess:
    """One program, running."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self._said = directory / f"{name}.out"
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, *arguments: str | Path) -> None:
        """Start a command of ``sstplb``; what it prints is kept."""
        await self.python("-m", "sstplb", *arguments)

    async def python(self, *arguments: str | Path) -> None:
        """Start a Python program; what it prints is kept."""
        with self._said.open("wb") as said:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *map(str, arguments),
                stdin=asyncio.subprocess.DEVNULL, stdout=said, stderr=said,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", "NO_COLOR": "1"},
            )  # fmt: skip

    async def stop(self) -> None:
        """Stop it as an operator would, and make sure that it is gone."""
        if self.is_running and self._process is not None:
            self._process.terminate()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def number(self) -> int:
        """The process's number."""
        assert self._process is not None, "it was started"
        return self._process.pid

    def said(self) -> str:
        """Return what it has printed so far."""
        return self._said.read_text(encoding="utf-8") if self._said.exists() else ""

    def cpu_s(self) -> float:
        """Return the CPU seconds the process has used."""
        return time.clock_gettime((~self.number << _PID_SHIFT) | _SCHEDULER_CLOCK)


class BalancerProcess(LabProcess):
    """One ``sstplb run``, and its log."""

    def __init__(self, name: str, directory: Path, document: dict[str, Any]) -> None:
        super().__init__(name, directory)
        self.addresses: dict[str, Address] = {}
        """Where each listener really listens."""
        self.events: list[dict[str, Any]] = []
        self.document = document
        self._log = directory / f"{name}.log"
        self._conf = directory / f"{name}.yaml"
        self._socket = directory / f"{name}.sock"
        self._read = 0

    async def start(self) -> None:
        """Run it, and wait until it says that it is ready."""
        document = self.document
        document["workers"] = 1  # what this one process uses is what its mode costs
        document["log"] = {"file": str(self._log), "format": "json"}
        document["admin"] = {"socket": str(self._socket)}
        self._write()
        await self.run("run", self._conf)
        await self.wait_for("ready")
        for event in self.find("listening"):
            endpoint = parse_endpoint(event["address"])
            assert endpoint.port is not None, "a listening address has a port"
            self.addresses[event["listener"]] = (endpoint.host, endpoint.port)

    async def reload(self) -> None:
        """Put ``document``, as it is now, in force. Raises httpx.HTTPError when it cannot be."""
        self._write()
        await self.ask("POST", "/config/reload")

    def _write(self) -> None:
        text = yaml.safe_dump(self.document, sort_keys=False)
        self._conf.write_text(text, encoding="utf-8")

    async def ask(self, method: str, path: str, **values: object) -> Any:
        """Ask its API, as the command ``sstplb ctl`` does. Raises httpx.HTTPError."""
        transport = httpx.AsyncHTTPTransport(uds=str(self._socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://sstplb/api/v1") as api:
            answer = await api.request(method, path, json=values or None)
            answer.raise_for_status()
            return answer.json()

    def find(self, event: str, **values: object) -> list[dict[str, Any]]:
        """Return the log's events of that name and with those values, so far."""
        if self._log.exists():
            with self._log.open(encoding="utf-8") as log:
                log.seek(self._read)
                for line in log:
                    if not line.endswith("\n"):
                        break
                    self._read += len(line.encode())
                    self.events.append(json.loads(line))
        return [
            found
            for found in self.events
            if found["event"] == event and values.items() <= found.items()
        ]

    async def wait_for(
        self, event: str, count: int = 1, *, within_s: float = PATIENCE_S, **values: object
    ) -> list[dict[str, Any]]:
        """Wait until the log holds that event; return all of them. Raises RuntimeError."""
        for _ in range(int(within_s / 0.02)):
            found = self.find(event, **values)
            if len(found) >= count:
                return found
            if not self.is_running:
                break
            await asyncio.sleep(0.02)
        raise RuntimeError(
            f"balancer {self.name}: no {event} {values or ''} in its log\n{self.said()[-2000:]}"
        )


class RrasProcess(LabProcess):
    """One ``sstplb rras``: a simulated server with a CPU bill of its own."""

    def __init__(
        self, name: str, directory: Path, host: str, chain: Path, key: Path, told: Certificate
    ) -> None:
        super().__init__(name, directory)
        self.https: Address = (host, 0)
        self.http: Address = (host, 0)
        self._files = (chain, key)
        self._told = told

    async def start(self) -> None:
        """Run it, and wait until it listens. Raises RuntimeError."""
        chain, key = self._files
        where = f"{self.https[0]}:0"
        await self.run(
            "rras", "--https", where, "--http", where, "--cert", chain, "--key", key,
            "--offload-hash", self._told.sha256.hex(), "--ports", "1000",
        )  # fmt: skip
        for _ in range(int(PATIENCE_S / 0.02)):
            found = dict(_LISTENING.findall(self.said()))
            if len(found) == 2:
                self.https, self.http = _address(found["https"]), _address(found["http"])
                return
            if not self.is_running:
                break
            await asyncio.sleep(0.02)
        raise RuntimeError(f"{self.name} does not listen:\n{self.said()[-2000:]}")


class ScriptProcess(LabProcess):
    """A program that is given an address to listen on, as its first argument."""

    def __init__(self, name: str, directory: Path, host: str) -> None:
        super().__init__(name, directory)
        with socket.create_server((host, 0)) as free:  # it wants to be told a port
            self.address: Address = (host, free.getsockname()[1])

    async def start(self, script: Path, *arguments: str | Path) -> None:
        """Run it, and wait until it listens. Raises RuntimeError."""
        host, port = self.address
        await self.python(script, f"{host}:{port}", *arguments)
        for _ in range(int(PATIENCE_S / 0.02)):
            if not self.is_running:
                break
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
        raise RuntimeError(f"{self.name} does not listen:\n{self.said()[-2000:]}")


def _address(text: str) -> Address:
    endpoint = parse_endpoint(text)
    return endpoint.host, endpoint.port or 0
