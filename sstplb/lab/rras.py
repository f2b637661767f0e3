"""A simulated RRAS: the server side of SSTP, good enough to be called for real.

It speaks HTTPS with its certificate, plain HTTP (for offload), or both; answers the SSTP URI as
http.sys does (HEAD or GET: 401; other paths: 404; SSTP_DUPLEX_POST: 200 with an empty reason
phrase); runs the whole server side of a call (``rras_call.py``); and makes faults on demand.

What is known of Windows and what is assumed ([A]):

- the 200 is byte for byte Windows' own; the 401's exact headers are not published [A];
- out of ports it answers an HTTP error and closes ([MS-SSTP] 4.1); which one is not said: 503 [A];
- with the service stopped http.sys keeps the port open and answers 503 [A: 404 is seen too];
- an offloaded RRAS accepts exactly the one SHA-256 it was told; one that speaks TLS accepts the
  hashes of its own certificate.

It uses the standard library's TLS, on purpose: what the balancer says of TLS is checked against
another implementation's view.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from enum import StrEnum
from ipaddress import IPv4Network

from sstplb.config.quantities import Endpoint
from sstplb.config.schema import CertificateFiles
from sstplb.errors import HeadError
from sstplb.lab.rras_call import RrasCall, ServerSettings
from sstplb.net.tcp import Address, why_not_listening
from sstplb.protocol.head import HeadReader, RequestHead, build_response, sstp_response
from sstplb.protocol.ppp_peer import Authentication
from sstplb.protocol.registry import HELLO_TIMEOUT_S
from sstplb.tls.certificate import load_certificate, load_identity

HEAD_BYTES_MAX = 16384
SLOW_S = 2.0
NETWORK = IPv4Network("10.9.0.0/16")

Tap = Callable[[Address, bool, bytes], None]
"""Is shown what is said inside TLS: the far end's address, whether it speaks, and its bytes."""


class Fault(StrEnum):
    """What can be made wrong."""

    NONE = "none"
    STOPPED = "stopped"
    """The SSTP service is stopped; http.sys still answers, with 503."""
    SILENT = "silent"
    """The port accepts and nothing ever comes."""
    SLOW = "slow"
    """Every answer takes two seconds."""
    RESET = "reset"
    """Connections are reset once a request has come."""
    NO_PORTS = "no-ports"
    """All SSTP ports are taken."""
    MUTE = "mute"
    """Calls that run get no answer any more, not even to hellos."""


@dataclass(frozen=True, slots=True)
class RrasSettings:
    """What a simulated RRAS is told."""

    name: str = "rras"
    https: Address | None = None
    http: Address | None = None
    certificate: CertificateFiles | None = None
    """Its own certificate; needed for https."""
    offload_sha256: bytes | None = None
    """What Enable-SSTPOffload told it; then its own certificate does not count."""
    accounts: Mapping[str, str] = field(default_factory=lambda: {"user": "password"}, repr=False)
    network: IPv4Network = NETWORK
    """Addresses to hand out; the server has the first."""
    ports_max: int = 128
    """SSTP ports; Windows' default."""
    authentication: Authentication = Authentication.MSCHAPV2
    hello_timeout_s: float = HELLO_TIMEOUT_S
    """Silence before a hello to the client, and again before it is given up."""


class Rras:
    """A running server. ``fault`` may be changed at any time."""

    def __init__(
        self,
        settings: RrasSettings,
        report: Callable[[int, str], None] | None = None,
        tap: Tap | None = None,
    ) -> None:
        self.settings = settings
        self.fault = Fault.NONE
        self.calls: set[RrasCall] = set()
        self.calls_total = 0
        self.connected_total = 0
        self.refused_bindings = 0
        self.last_binding_failure = ""
        """Why it refused the last one, as a slug; on the wire all reasons look the same."""
        self.https: Address | None = None
        """Where it listens, with the real port."""
        self.http: Address | None = None
        self._report = report or (lambda _number, _text: None)
        self._tap = tap
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._address, *self._free = list(settings.network.hosts())[: settings.ports_max + 1]

    async def start(self) -> None:
        """Listen. Raises OSError, or CertificateError."""
        settings = self.settings
        if settings.https is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            assert settings.certificate is not None, "https needs a certificate"
            load_identity(settings.certificate)  # it says what is wrong with which file
            context.load_cert_chain(settings.certificate.chain, settings.certificate.key)
            self.https = await self._listen(settings.https, context)
        if settings.http is not None:
            self.http = await self._listen(settings.http, None)

    async def restart(self, settings: RrasSettings) -> None:
        """Take over other settings, at the same addresses.

        As when RemoteAccess is restarted: all calls drop, and for a moment nobody answers.
        """
        await self.stop()
        self.settings = replace(
            settings,
            https=self.https if settings.https is not None else None,
            http=self.http if settings.http is not None else None,
        )
        await self.start()

    async def stop(self) -> None:
        """Close everything at once."""
        for server in self._servers:
            server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    def cut_calls(self) -> None:
        """End every connection without a word, as a crash would; listening goes on."""
        for task in tuple(self._tasks):
            task.cancel()

    async def _listen(self, address: Address, context: ssl.SSLContext | None) -> Address:
        try:
            server = await asyncio.start_server(
                lambda reader, writer: self._serve(reader, writer, over_tls=context is not None),
                *address,
                ssl=context,
                backlog=1024,
            )
        except OSError as error:
            message = f"cannot listen on {Endpoint(*address)}: {why_not_listening(error)}"
            raise OSError(error.errno, message) from error
        self._servers.append(server)
        host, port = server.sockets[0].getsockname()[:2]
        return host, port

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, over_tls: bool
    ) -> None:
        task = asyncio.current_task()
        assert task is not None, "start_server runs this as a task"
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, ssl.SSLError, asyncio.CancelledError):
                await self._converse(reader, writer, over_tls=over_tls)
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if self.fault is Fault.RESET else writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, over_tls: bool
    ) -> None:
        found = HeadReader.request(HEAD_BYTES_MAX)
        head: RequestHead | None = None
        while head is None:
            data = await self._hear(reader, writer)
            if not data:
                return
            try:
                head = found.feed(data)
            except HeadError:
                self._say(writer, _plain_answer(400, "Bad Request"))
                return
        if self.fault is Fault.SLOW:
            await asyncio.sleep(SLOW_S)
        if self.fault is Fault.SILENT:
            await reader.read()
        elif self.fault is not Fault.RESET:
            await self._answer(head, found.trailing, reader, writer, over_tls=over_tls)

    async def _answer(
        self,
        head: RequestHead,
        trailing: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        over_tls: bool,
    ) -> None:
        if self.fault is Fault.STOPPED:
            self._say(writer, _plain_answer(503, "Service Unavailable"))
        elif not head.is_sra:
            self._say(writer, _plain_answer(404, "Not Found"))
        elif not head.is_sstp:
            self._say(writer, _plain_answer(401, "Unauthorized"))
        elif self.fault is Fault.NO_PORTS or not self._free:
            self._report(0, "no SSTP port is left")
            self._say(writer, _plain_answer(503, "Service Unavailable"))
        else:
            self._say(writer, sstp_response(formatdate(usegmt=True)))
            await self._carry(trailing, reader, writer, over_tls=over_tls)
            return
        await writer.drain()

    async def _carry(
        self,
        data: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        over_tls: bool,
    ) -> None:
        """Run one call until it ends."""
        clock = asyncio.get_running_loop().time
        address = self._free.pop(0)
        server = ServerSettings(
            self.settings.accounts,
            self._address,
            self._hashes(over_tls=over_tls),
            self.settings.authentication,
            hello_timeout_s=self.settings.hello_timeout_s,
        )
        call = RrasCall(server, address, os.urandom, self._report, clock())
        self.calls.add(call)
        self.calls_total += 1
        try:
            out = call.receive(data, clock())
            while True:
                if out:
                    self._say(writer, out)
                    await writer.drain()
                if call.finished:
                    break
                out = b""
                try:
                    async with asyncio.timeout_at(call.wake_at):
                        data = await self._hear(reader, writer)
                except TimeoutError:
                    out = call.wake(clock())
                    if self.fault is Fault.MUTE:
                        out = b""
                    continue
                if not data:
                    break
                if self.fault is Fault.MUTE:
                    continue
                was_connected = call.connected
                out = call.receive(data, clock())
                self.connected_total += call.connected and not was_connected
        finally:
            self.calls.discard(call)
            self.refused_bindings += bool(call.binding_failure)
            self.last_binding_failure = call.binding_failure or self.last_binding_failure
            self._free.append(address)
            if call.user:
                self._report(20275, f"{call.user} disconnected from {address}")

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        data = await reader.read(65536)
        if self._tap is not None and data:
            self._tap(_far_end(writer), True, data)
        return data

    def _say(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self._tap is not None:
            self._tap(_far_end(writer), False, data)
        writer.write(data)

    def _hashes(self, *, over_tls: bool) -> frozenset[bytes]:
        """Return the certificate hashes that count here."""
        told = self.settings.offload_sha256
        if told is not None and not over_tls:
            return frozenset({told})
        if self.settings.certificate is None:
            return frozenset()
        own = load_certificate(self.settings.certificate.chain)
        return frozenset({own.sha256, own.sha1})


def _far_end(writer: asyncio.StreamWriter) -> Address:
    host, port = writer.get_extra_info("peername")[:2]
    return host, port


def _plain_answer(status: int, phrase: str) -> bytes:
    """Return an answer as http.sys gives it [A]."""
    headers = [
        ("Content-Length", "0"),
        ("Server", "Microsoft-HTTPAPI/2.0"),
        ("Date", formatdate(usegmt=True)),
    ]
    return build_response(status, phrase, headers)
