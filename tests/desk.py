"""One more character for the stories: the operator, who speaks to the balancer over its API."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx

from sstplb.config.loader import load
from sstplb.config.schema import Log
from sstplb.control.admin.side import AdminSide, admin_side
from sstplb.control.balancer import Balancer
from sstplb.control.logs import Logs
from sstplb.control.operator import Operator
from sstplb.control.plan import prepare
from sstplb.lab.pki import Issued
from tests.characters import LIMIT_S, Client, Stage, until
from tests.scrape import Scrape

TOKEN = "0123456789abcdef0123456789abcdef"


class OperatedStage(Stage):
    """A stage whose balancer has a configuration file and an admin side."""

    def __init__(
        self, folder: Path, mode: str, pki_root: Path, served: Issued, count: int = 2
    ) -> None:
        super().__init__(mode, pki_root, served, count)
        self.file = folder / "sstplb.yaml"
        self.socket = folder / "admin.sock"
        self.admin: dict[str, Any] = {"socket": str(self.socket)}
        self._logs = Logs()
        self._operator: Operator | None = None
        self._side: contextlib.AsyncExitStack = contextlib.AsyncExitStack()
        self.doors: AdminSide | None = None

    def document(self) -> str:
        document = json.loads(super().document())
        return json.dumps({**document, "admin": self.admin, "log": {"format": "json"}})

    def write(self) -> None:
        """Write the configuration file as the stage would have it now."""
        self.file.write_text(self.document())

    async def start(self) -> None:
        for backend in self.backends:
            await backend.start()
        self.write()
        self._logs.apply(Log(file=self.file.with_suffix(".log")))
        prepared = prepare(load(self.file))
        self._balancer = Balancer(prepared)
        self._operator = Operator(self._balancer, self.file, self._logs)
        self.doors = await self._side.enter_async_context(admin_side(self._operator, prepared))
        await self._balancer.start()

    @property
    def operator(self) -> Operator:
        assert self._operator is not None
        return self._operator

    async def stop(self) -> None:
        await self._side.aclose()
        await super().stop()
        self._logs.close()

    @contextlib.asynccontextmanager
    async def asking(self, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
        """Speak to the API over the unix socket."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket))
        base = "http://sstplb/api/v1"
        async with httpx.AsyncClient(
            transport=transport, base_url=base, timeout=LIMIT_S, **options
        ) as client:
            yield client

    async def scraped(self, accept: str = "") -> Scrape:
        """Ask for the metrics as Prometheus does."""
        async with self.asking() as ask:
            answer = await ask.get("http://sstplb/metrics", headers={"Accept": accept})
        assert answer.status_code == 200, answer.text
        return Scrape(answer.text)

    async def opened(self, source: str = "127.0.0.1") -> Client:
        """Place a call."""
        client = await self.client(source)
        await client.open()
        return client

    async def until(self, what: Callable[[], object]) -> None:
        """Wait until ``what()`` is true."""
        await until(what)


def address_of(stage: OperatedStage) -> str:
    """Return the address of a stage's TCP door."""
    assert stage.doors is not None
    return next(door.address for door in stage.doors.doors.values() if door.is_tcp)


def token_file(folder: Path, text: str = TOKEN + "\n") -> Path:
    """Write a token as an operator would."""
    path = folder / "token"
    path.write_text(text)
    path.chmod(0o600)
    return path
