"""The characters of the stories: a balancer, backends with moods, clients. Loopback only.

Each has verbs, so that a story reads as what happens: ``await client.open()``,
``backend.mood = "refuse"``. Everything is real but RRAS itself: sockets, TLS, the balancer as
``control/balancer.py`` wires it.
"""

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from sstplb.config.loader import parse
from sstplb.control.balancer import Balancer
from sstplb.control.crew import Here
from sstplb.control.plan import prepare
from sstplb.lab.pki import Issued
from sstplb.net.carrier import Carrier
from sstplb.protocol.head import sstp_request, sstp_response
from sstplb.protocol.packet import data_packet

SERVER_NAME = "vpn.example.test"
CORRELATION_ID = "{0D528CAC-464E-423A-A399-9470E234BC54}"
REQUEST = sstp_request(SERVER_NAME, CORRELATION_ID)
ANSWER = sstp_response("Mon, 21 Feb 2011 05:37:00 GMT")
LIMIT_S = 10.0
"""No wait in a story is longer."""


def packets(size: int) -> bytes:
    """Return about ``size`` random bytes as a valid stream of SSTP data packets."""
    body = os.urandom(1396)
    return b"".join(
        data_packet(number.to_bytes(4, "big") + body) for number in range(max(1, size // 1404))
    )


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody has, for programs that must be told one."""
    with socket.socket() as free:
        free.bind((host, 0))
        port: int = free.getsockname()[1]
        return port


async def until(what: Callable[[], object]) -> None:
    """Wait until ``what()`` is true."""
    async with asyncio.timeout(LIMIT_S):
        while not what():
            await asyncio.sleep(0.01)


def play(story: Callable[[], Awaitable[None]], limit_s: float = 45.0) -> None:
    """Run a story; whatever it leaves behind is a failure."""

    async def whole() -> None:
        async with asyncio.timeout(limit_s):
            await story()
        # What was cancelled or closed gets a moment to end; what is still there then is a leak.
        for _ in range(100):
            rest = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            if not rest:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"tasks left behind: {rest}")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


class FakeBackend:
    """An RRAS as far as its HTTP opening goes; what follows it echoes.

    ``mood``: ``well``, ``refuse`` (503 to calls), ``unwell`` (503 to checks), ``dead`` (503 to
    all), ``silent``, ``reset``, ``garbage`` (no HTTP), ``sink`` (takes, never reads), ``deaf``
    (answers 200, sends nothing).
    """

    def __init__(self, name: str, host: str, issued: Issued | None) -> None:
        self.name, self.host, self.issued = name, host, issued
        self.mood = "well"
        self.calls = 0
        self.open_calls = 0
        self.heads: list[bytes] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        context = None
        if self.issued is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.issued.chain, self.issued.key)
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def renew(self, issued: Issued) -> None:
        """Show another certificate from now on; the address stays."""
        await self.stop()
        self.issued = issued
        await self.start()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for task in list(self._handlers):
                task.cancel()
            await asyncio.gather(*self._handlers, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._converse(reader, writer)
        finally:
            self._handlers.discard(task)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if head.startswith(b"HEAD"):
            dead = self.mood in ("dead", "unwell")
            writer.write(f"HTTP/1.1 {503 if dead else 401} x\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            return
        self.calls += 1
        if self.mood in ("refuse", "dead"):
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        elif self.mood == "garbage":
            writer.write(b"\x00" * 100 + b"\r\n\r\n")
            await writer.drain()
        elif self.mood == "silent":
            await reader.read()
        elif self.mood != "reset":
            await self._talk(reader, writer)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_calls += 1
        try:
            writer.write(ANSWER)
            await writer.drain()
            if self.mood == "sink":
                await asyncio.Event().wait()
            while data := await reader.read(65536):
                if self.mood != "deaf":
                    writer.write(data)
                    await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
                await asyncio.sleep(0.05)
            else:
                writer.close()
                await writer.wait_closed()
        finally:
            self.open_calls -= 1


class Client:
    """A caller, up to its HTTP opening; then plain bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.address: tuple[str, int] = writer.get_extra_info("sockname")[:2]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(LIMIT_S):
            await self.writer.drain()

    async def receive(self, size: int) -> bytes:
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.readexactly(size)

    async def open(self, pipelined: bytes = b"") -> bytes:
        """Send the opening; return the answer's head."""
        await self.send(REQUEST + pipelined)
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def rest(self) -> bytes:
        """Return everything until the end."""
        async with asyncio.timeout(LIMIT_S):
            with contextlib.suppress(ConnectionResetError):
                return await self.reader.read()
            return b""

    async def echo(self, data: bytes) -> bool:
        """Send bytes while reading them back; return whether they came back the same."""
        sending = asyncio.ensure_future(self.send(data))
        try:
            return await self.receive(len(data)) == data
        finally:
            await sending

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        self.writer.transport.abort()


class Stage:
    """A balancer with one listener, its backends, and the certificates they share."""

    def __init__(self, mode: str, pki_root: Path, served: Issued, count: int = 2) -> None:
        self.mode, self.root, self.served = mode, pki_root, served
        over_tls = mode != "offload"
        self.backends = [
            FakeBackend(f"rras{n}", f"127.0.1.{n}", served if over_tls else None)
            for n in range(1, count + 1)
        ]
        self.listener: dict[str, Any] = {}
        self.pool: dict[str, Any] = {}
        self.backend_settings: dict[str, dict[str, Any]] = {}
        self.limits: dict[str, Any] = {}
        self.capture: dict[str, Any] = {}
        self.engine = "auto"
        self.library: str | None = None
        self.workers = 1
        self.more_listeners: list[dict[str, Any]] = []
        self.more_pools: dict[str, Any] = {}
        self._balancer: Balancer | None = None
        self._clients: list[Client] = []

    @property
    def balancer(self) -> Balancer:
        assert self._balancer is not None
        return self._balancer

    @property
    def carrier(self) -> Carrier:
        """What the calls share, where they are carried in this process."""
        crew = self.balancer.crew
        assert isinstance(crew, Here)
        return crew.carrier

    def document(self) -> str:
        """Return the configuration, as YAML (JSON is YAML)."""
        certificates = [{"chain": str(self.served.chain), "key": str(self.served.key)}]
        listener: dict[str, Any] = {
            "name": "vpn", "address": "127.0.0.1:0", "mode": self.mode, "pool": "rras",
        }  # fmt: skip
        if self.mode != "passthrough":
            listener["certificates"] = certificates
        tls = {"ca_file": str(self.root)} if self.mode == "reencrypt" else {}
        pool: dict[str, Any] = {
            "backends": [
                {
                    "name": b.name,
                    "address": f"{b.host}:{b.port}",
                    **self.backend_settings.get(b.name, {}),
                }
                for b in self.backends
            ],
            "affinity": {"enabled": False},
            "check": {"interval": "100ms", "timeout": "1s"},
            **self.pool,
        }
        pool["tls"] = {**tls, **pool.get("tls", {})}
        return json.dumps(
            {
                "listeners": [{**listener, **self.listener}, *self.more_listeners],
                "pools": {"rras": pool, **self.more_pools},
                "limits": self.limits,
                "capture": self.capture,
                "tls": {"engine": self.engine, "library": self.library},
                "workers": self.workers,
            }
        )

    async def start(self) -> None:
        for backend in self.backends:
            await backend.start()
        self._balancer = Balancer(prepare(parse(self.document())))
        await self._balancer.start()

    async def reload(self) -> None:
        await self.balancer.reload(prepare(parse(self.document())))

    async def stop(self) -> None:
        for client in self._clients:
            client.reset()
        if self._balancer is not None:
            await self._balancer.stop(0.0)
            assert not self._balancer.ledger.running, "a record was never closed"
            assert not self._balancer.admission.calls, "a ticket was never given back"
        for backend in self.backends:
            await backend.stop()

    async def client(
        self, source: str = "127.0.0.1", name: str | None = SERVER_NAME, listener: str = "vpn"
    ) -> Client:
        """Connect and shake hands."""
        context = self.context()
        context.check_hostname = name is not None
        host, port = self.balancer.listeners[listener].address
        async with asyncio.timeout(LIMIT_S):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=name or "", local_addr=(source, 0)
            )
        return self._known(Client(reader, writer))

    def context(self) -> ssl.SSLContext:
        """Return what clients believe."""
        return ssl.create_default_context(cafile=str(self.root))

    async def visitor(self, listener: str = "vpn") -> Client:
        """Connect without TLS."""
        host, port = self.balancer.listeners[listener].address
        return self._known(Client(*await asyncio.open_connection(host, port)))

    def _known(self, client: Client) -> Client:
        self._clients.append(client)
        return client

    async def ended(self, count: int = 1) -> None:
        """Wait until that many records are closed."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.balancer.ledger.ended) < count:
                await asyncio.sleep(0.005)

    async def settled(self, count: int) -> None:
        """Wait until that many calls are handed over; in passthrough nobody hears when."""
        async with asyncio.timeout(LIMIT_S):
            while sum(call.backend is not None for call in self.balancer.calls()) < count:
                await asyncio.sleep(0.005)

    def reasons(self) -> list[str]:
        """Return outcome and reason of the calls that ended, in their order."""
        return [f"{r.outcome}:{r.reason}" for r in self.balancer.ledger.ended]


S = TypeVar("S", bound=Stage)


@contextlib.asynccontextmanager
async def staged(stage: S) -> AsyncIterator[S]:
    """Start a stage, and clear it whatever happens."""
    try:
        await stage.start()
        yield stage
    finally:
        await stage.stop()
