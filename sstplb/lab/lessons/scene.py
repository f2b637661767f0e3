"""What a lesson plays on: certificates, servers, balancers, wires, callers. Loopback only.

Servers and callers run in this process and are listened in on inside TLS; balancers are processes
of their own, started with ``sstplb run`` and a configuration file, as an operator would. Whatever
a lesson starts is stopped when it is over, however it ends.

``is_broken`` is how a lesson is broken on purpose (``--break``): the lesson asks, and makes
something otherwise. Its claims must notice.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sstplb.config.schema import PoolTls, Verify
from sstplb.lab.caller import CallPlan, CallReport, place_call
from sstplb.lab.inspector import Inspector
from sstplb.lab.lessons.journal import Conversation, Journal, arrows
from sstplb.lab.lessons.page import Arrow, Remark, Sequence
from sstplb.lab.lessons.wire import Wire
from sstplb.lab.pki import SERVER_DAYS, Issued, KeyKind, LabPki
from sstplb.lab.process import BalancerProcess, RrasProcess, ScriptProcess
from sstplb.lab.rras import Rras, RrasSettings
from sstplb.net.call import now_s
from sstplb.net.tcp import Address
from sstplb.protocol import mschap
from sstplb.protocol.caller import StepKind
from sstplb.protocol.registry import MessageType
from sstplb.tls.policy import ClientPolicy

NAME = "vpn.example.test"
USER, PASSWORD = "user", "password"
CHECK: Mapping[str, Any] = MappingProxyType(
    {"interval": "200ms", "timeout": "2s", "fall": 2, "rise": 1}
)
"""Faster than anybody would in earnest: a lesson is short."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One call, as its client lived it."""

    began_s: float
    report: CallReport
    heard: Conversation

    @property
    def failed_with(self) -> str:
        """The reason it failed, or nothing."""
        return self.report.failure.reason if self.report.failure is not None else ""

    @property
    def source(self) -> str:
        """Where it came from, as a log shows it."""
        assert self.report.local_address is not None, "it was connected"
        host, port = self.report.local_address
        return f"{host}:{port}"


class Scene:
    """Everything that is on the stage."""

    def __init__(self, directory: Path, broken: str = "") -> None:
        self.directory = directory
        self.journal = Journal()
        self.pki = LabPki(directory / "certs")
        self.trust = ClientPolicy(PoolTls(verify=Verify.CA, ca_file=self.pki.root_path))
        """What clients believe."""
        self.servers: dict[str, Rras] = {}
        self._broken = broken
        self._stack = contextlib.AsyncExitStack()
        self._hosts = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Scene"]:
        """Stop everything at the end."""
        mschap.hlak("", bytes(24))  # the first use loads its ciphers; no lesson is about that
        async with self._stack:
            yield self

    def is_broken(self, name: str) -> bool:
        """Whether that is made otherwise on purpose."""
        return self._broken == name

    # --- who plays ----------------------------------------------------------------------------

    def certificate(
        self, file: str = "vpn", kind: KeyKind = KeyKind.P256, days: int = SERVER_DAYS
    ) -> Issued:
        """Issue a certificate for the VPN's name."""
        return self.pki.issue(file, (NAME,), kind, days=days)

    async def rras(self, name: str, shown: Issued, told: Issued | None = None, **more: Any) -> Rras:
        """Start a simulated server: HTTPS with ``shown``; HTTP, offloaded, expecting ``told``."""
        host = self._host()
        settings = RrasSettings(
            name=name,
            https=(host, 0),
            http=(host, 0),
            certificate=shown.files,
            offload_sha256=(told or shown).certificate.sha256,
            **more,
        )

        def tap(far_end: Address, speaks: bool, data: bytes) -> None:
            self.journal.at_server(name, far_end).hear(speaks, data)

        server = Rras(settings, tap=tap)
        await server.start()
        self._stack.push_async_callback(server.stop)
        self.servers[name] = server
        return server

    async def rras_process(self, name: str, shown: Issued, told: Issued) -> RrasProcess:
        """Start a simulated server in a process of its own."""
        host = self._host()
        server = RrasProcess(name, self.directory, host, shown.chain, shown.key, told.certificate)
        self._stack.push_async_callback(server.stop)
        await server.start()
        return server

    async def script(self, name: str, script: Path, *arguments: str | Path) -> ScriptProcess:
        """Start a Python program that listens where its first argument says."""
        process = ScriptProcess(name, self.directory, self._host())
        self._stack.push_async_callback(process.stop)
        await process.start(script, *arguments)
        return process

    async def wire(self, target: Address) -> Wire:
        """Start a wire that somebody listens to."""
        wire = Wire(target, self._host())
        await wire.start()
        self._stack.push_async_callback(wire.stop)
        return wire

    async def inspector(
        self, shown: Issued, target: Address, meddle: Callable[[bytes], bytes] | None = None
    ) -> Inspector:
        """Start a box that ends TLS with ``shown`` and speaks TLS again, to ``target``."""
        box = Inspector(shown, target, (self._host(), 0), meddle)
        await box.start()
        self._stack.push_async_callback(box.stop)
        return box

    async def balancer(
        self, name: str, listeners: list[dict[str, Any]], pools: dict[str, Any], **more: Any
    ) -> BalancerProcess:
        """Start a balancer process."""
        process = BalancerProcess(
            name, self.directory, {"listeners": listeners, "pools": pools, **more}
        )
        self._stack.push_async_callback(process.stop)
        await process.start()
        return process

    def listener(
        self, name: str, mode: str, certificate: Issued | None = None, **more: Any
    ) -> dict[str, Any]:
        """Return a listener's configuration; its pool has its own name unless one is given."""
        values: dict[str, Any] = {
            "name": name, "address": f"{self._host()}:0", "mode": mode, "pool": name, **more,
        }  # fmt: skip
        if certificate is not None and mode != "passthrough":
            values["certificates"] = [
                {"chain": str(certificate.chain), "key": str(certificate.key)}
            ]
        return values

    def pool(self, mode: str, *backends: tuple[str, Address], **more: Any) -> dict[str, Any]:
        """Return a pool's configuration for listeners of that mode."""
        pool: dict[str, Any] = {
            "backends": [{"name": name, "address": f"{a[0]}:{a[1]}"} for name, a in backends],
            "check": dict(CHECK),
            **more,
        }
        if mode == "reencrypt":
            pool["tls"] = {"ca_file": str(self.pki.root_path), **more.get("tls", {})}
        return pool

    def reach(self, mode: str, *servers: Rras) -> list[tuple[str, Address]]:
        """Return how a balancer of that mode reaches servers."""
        found = []
        for server in servers:
            address = server.http if mode == "offload" else server.https
            assert address is not None, "it listens on both"
            found.append((server.settings.name, address))
        return found

    # --- what they do --------------------------------------------------------------------------

    def plan(self, address: Address, client: int = 1, **changes: Any) -> CallPlan:
        """Return one call of the client with that number; each has an address of its own."""
        plan = CallPlan(
            address=address, server_name=NAME, user=USER, password=PASSWORD, policy=self.trust,
            source_host=f"127.78.0.{client}", timeout_s=10.0,
        )  # fmt: skip
        return replace(plan, **changes)

    async def call(
        self,
        address: Address,
        client: int = 1,
        *,
        until: asyncio.Event | None = None,
        **changes: Any,
    ) -> Placed:
        """Place a call, from beginning to end; ``until`` ends its ``hold_s``."""
        heard, began = Conversation("client"), now_s()
        plan = self.plan(address, client, **changes)
        return Placed(began, await place_call(plan, tap=heard.hear, until=until), heard)

    def server_of(self, placed: Placed) -> str:
        """Return the server that took a call; empty: none did."""
        took = [
            asked.place
            for asked in self.journal.of(placed.report.correlation_id)
            if asked.find(MessageType.CALL_CONNECT_ACK) is not None
        ]
        return took[-1] if took else ""

    def sequence(
        self,
        title: str,
        placed: Placed,
        *,
        middle: str = "",
        sealed: bool = False,
        servers: tuple[str, ...] = (),
        remarks: tuple[Remark, ...] = (),
        brief: bool = False,
    ) -> Sequence:
        """Draw a call: its TLS, what was said, and ``remarks`` (times on the machine's clock).

        Servers are those that were asked, or those named, which stay on the picture unasked.
        """  # fmt: skip
        theirs = self.journal.of(placed.report.correlation_id)
        names = servers or tuple(dict.fromkeys(c.place for c in theirs))
        rows = arrows(
            placed.heard, theirs, placed.began_s, middle=middle, sealed=sealed,
            reads_heads=not sealed, brief=brief,
        )  # fmt: skip
        first = middle if middle and not sealed else names[0]
        for step in placed.report.steps:
            if step.kind is StepKind.TLS:
                text = f"TLS handshake, {placed.report.tls_version}"
                rows.append(Arrow(step.at - placed.began_s, "client", first, text))
            elif step.kind is StepKind.FAILED:
                rows.append(Remark(step.at - placed.began_s, "client", step.sentence, is_bad=True))
        rows += [replace(r, at_s=r.at_s - placed.began_s) for r in remarks]
        rows.sort(key=lambda row: row.at_s)
        middles = (middle,) if middle else ()
        return Sequence(title, ("client", *middles, *names), tuple(rows))

    def _host(self) -> str:
        self._hosts += 1
        return f"127.77.0.{self._hosts}"
