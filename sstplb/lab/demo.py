"""The demonstration: SSTP calls through all three modes, on one machine, in under a minute.

On the stage: three simulated RRAS servers (and one that was told a wrong hash, one with another
certificate), and one balancer *process* per mode, each started exactly as an operator would, with
``sstplb run`` and a configuration file. What the demonstration claims it reads from the
balancers' own JSON logs and from the callers' reports; the CPU of a mode is that of its process.

Every claim is checked. ``--once`` ends with exit status 0 only if all of them hold.
"""

import asyncio
import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.rule import Rule
from rich.table import Table

from sstplb.account.exposition import format_bytes
from sstplb.config.schema import PoolTls, Verify
from sstplb.control.run import ExitCode
from sstplb.lab.caller import CallPlan, CallReport, place_calls
from sstplb.lab.pki import Issued, LabPki
from sstplb.lab.process import BalancerProcess
from sstplb.lab.rras import Fault, Rras, RrasSettings
from sstplb.tls.policy import ClientPolicy

NAME = "vpn.example.test"
MODES = ("passthrough", "offload", "reencrypt")
CLIENTS = 30
CALL_BYTES = 200_000
COLUMNS = 80
"""Of the narrowest terminal that everything fits into."""


@dataclass(slots=True)
class Claim:
    """Something the demonstration says, and whether it really happened."""

    text: str
    holds: bool
    evidence: str


@dataclass(slots=True)
class Facts:
    """Everything that was seen."""

    modes: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)

    def claim(self, text: str, holds: bool, evidence: str) -> None:
        """Note a claim and its evidence."""
        self.claims.append(Claim(text, holds, evidence))

    @property
    def all_hold(self) -> bool:
        """Whether everything claimed happened."""
        return all(claim.holds for claim in self.claims)


class Stage:
    """Servers, certificates, balancers; everything the demonstration needs and clears away."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pki = LabPki(directory / "certs")
        self.served = self.pki.issue("vpn", (NAME,))
        self.other = self.pki.issue("other", (NAME,))
        self.servers = [self._rras(n, self.served, self.served) for n in (1, 2, 3)]
        self.told_wrong = self._rras(4, self.served, self.other)
        self.odd_certificate = self._rras(5, self.other, self.served)
        self.policy = ClientPolicy(PoolTls(verify=Verify.CA, ca_file=self.pki.root_path))
        self.balancers: dict[str, BalancerProcess] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Stage"]:
        """Start everything; stop it again, whatever happens."""
        everyone = [*self.servers, self.told_wrong, self.odd_certificate]
        try:
            for server in everyone:
                await server.start()
            self.balancers = {mode: self._balancer(mode) for mode in MODES}
            await asyncio.gather(*(b.start() for b in self.balancers.values()))
            yield self
        finally:
            await asyncio.gather(*(b.stop() for b in self.balancers.values()))
            for server in everyone:
                await server.stop()

    def _rras(self, number: int, shown: Issued, told: Issued) -> Rras:
        host = f"127.77.0.{number}"
        return Rras(
            RrasSettings(
                name=f"rras{number}",
                https=(host, 0),
                http=(host, 0),
                certificate=shown.files,
                offload_sha256=told.certificate.sha256,
            )
        )

    def _balancer(self, mode: str) -> BalancerProcess:
        """Write the configuration of one mode."""
        host = f"127.77.1.{MODES.index(mode) + 1}"
        certificates = [{"chain": str(self.served.chain), "key": str(self.served.key)}]
        check = {"interval": "500ms", "timeout": "400ms", "fall": 2, "rise": 1}
        pools = {"rras": self._pool(self.servers, mode, check)}
        listeners: list[dict[str, Any]] = [
            {"name": mode, "address": f"{host}:0", "mode": mode, "pool": "rras"}
        ]
        if mode == "passthrough":
            # The same servers, watched by a check that only looks at the port.
            tcp = {**check, "method": "tcp"}
            pools["watched-by-tcp"] = self._pool(self.servers, mode, tcp)
            second = {"name": "tcp-checked", "pool": "watched-by-tcp"}
        elif mode == "offload":
            pools["told-wrong"] = self._pool([self.told_wrong], mode, check)
            second = {"name": "wrong-hash", "pool": "told-wrong"}
        else:
            pools["odd"] = self._pool([self.odd_certificate], mode, check)
            second = {"name": "other-certificate", "pool": "odd"}
        listeners.append({**second, "address": f"127.77.2.{MODES.index(mode) + 1}:0", "mode": mode})
        if mode != "passthrough":
            listeners = [{**listener, "certificates": certificates} for listener in listeners]
        return BalancerProcess(mode, self.directory, {"listeners": listeners, "pools": pools})

    def _pool(self, servers: list[Rras], mode: str, check: dict[str, Any]) -> dict[str, Any]:
        backends = []
        for server in servers:
            address = server.http if mode == "offload" else server.https
            assert address is not None, "it listens on both"
            backends.append({"name": server.settings.name, "address": f"{address[0]}:{address[1]}"})
        pool: dict[str, Any] = {"backends": backends, "check": check}
        if mode == "reencrypt":
            pool["tls"] = {"ca_file": str(self.pki.root_path)}
        return pool

    def plan(self, mode: str, client: int, listener: str = "", data_bytes: int = 0) -> CallPlan:
        """Return one call of one client (each has an address of its own)."""
        return CallPlan(
            address=self.balancers[mode].addresses[listener or mode],
            server_name=NAME,
            user="user",
            password="password",  # noqa: S106 - the simulated server's only account
            policy=self.policy,
            source_host=f"127.78.{MODES.index(mode)}.{client + 1}",
            data_bytes=data_bytes,
            timeout_s=10.0,
        )


async def demo(console: Console, *, once: bool, as_json: bool) -> ExitCode:
    """Run the demonstration; return OK only if everything shown happened."""
    screen = Console(quiet=True) if as_json else console
    facts = Facts()
    with tempfile.TemporaryDirectory(prefix="sstplb-demo-") as name:
        stage = Stage(Path(name))
        title = Rule("sstplb: SSTP through three modes")
        screen.print(title, width=min(screen.width, COLUMNS))
        screen.print(
            "Three simulated RRAS servers, one balancer process per mode, and "
            f"{CLIENTS} clients calling each of them.\n"
        )
        async with stage.running():
            await _show_round_robin(screen, stage, facts)
            await _show_affinity(screen, stage, facts)
            await _show_lying_check(screen, stage, facts)
            await _show_wrong_hash(screen, stage, facts)
            await _show_other_certificate(screen, stage, facts)
            show_table(screen, facts)
            if as_json:
                shown = {"modes": facts.modes, "claims": [_claim_facts(c) for c in facts.claims]}
                console.print_json(json.dumps({"ok": facts.all_hold, **shown}))
            if not once:
                await _stay(screen, stage)
    return ExitCode.OK if facts.all_hold else ExitCode.FAILED


# --- the acts ---------------------------------------------------------------------------------


async def _show_round_robin(screen: Console, stage: Stage, facts: Facts) -> None:
    screen.print(f"[b]1. Round robin.[/b] {CLIENTS} clients call each mode, side by side; every")
    screen.print(
        f"   call sends {format_bytes(CALL_BYTES)} through its tunnel and compares what comes back."
    )
    columns = (
        TextColumn("   {task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=screen) as progress:
        bars = {mode: progress.add_task(mode, total=CLIENTS, note="") for mode in MODES}
        await asyncio.gather(*(_crowd(stage, mode, facts, progress, bars[mode]) for mode in MODES))
    for mode in MODES:
        ended = await stage.balancers[mode].wait_for("call_ended", CLIENTS, listener=mode)
        shares = Counter(call["backend"] for call in ended)
        facts.modes[mode]["backends"] = dict(sorted(shares.items()))
        facts.claim(
            f"{mode}: round robin gave each of three servers a third",
            sorted(shares.values()) == [CLIENTS // 3] * 3,
            ", ".join(f"{name} {count}" for name, count in sorted(shares.items())),
        )


async def _crowd(stage: Stage, mode: str, facts: Facts, progress: Progress, bar: TaskID) -> None:
    """Place the calls of one mode, and note what they cost its balancer."""
    balancer = stage.balancers[mode]
    before = balancer.cpu_s()
    plans = [stage.plan(mode, client, data_bytes=CALL_BYTES) for client in range(CLIENTS)]
    reports: list[CallReport] = []
    async for report in place_calls(plans, at_once=8):
        reports.append(report)
        failed = sum(not r.ok for r in reports)
        progress.update(bar, advance=1, note=f"{failed} failed" if failed else "")
    connected = [r for r in reports if r.connect_s is not None]
    echoed = sum(r.echoed_bytes for r in reports)
    ended = await balancer.wait_for("call_ended", CLIENTS, listener=mode)
    facts.modes[mode] = {
        "calls": len(reports),
        "ok": sum(r.ok for r in reports),
        "tls_handshakes_here": {"passthrough": 0, "offload": 1, "reencrypt": 2}[mode] * len(ended),
        "bytes": sum(call["bytes_in"] + call["bytes_out"] for call in ended),
        "cpu_s": round(balancer.cpu_s() - before, 3),
        "connect_ms": round(
            1000 * sorted(r.connect_s or 0 for r in connected)[len(connected) // 2], 1
        )
        if connected
        else None,
    }
    facts.claim(
        f"{mode}: every call was connected, its crypto binding accepted, its data intact",
        all(r.ok for r in reports) and echoed >= CLIENTS * CALL_BYTES,
        f"{sum(r.ok for r in reports)} of {len(reports)} calls, {format_bytes(echoed)} compared",
    )


async def _show_affinity(screen: Console, stage: Stage, facts: Facts) -> None:
    screen.print("\n[b]2. Affinity.[/b] The same clients call again, in the opposite order.")
    for mode in MODES:
        balancer = stage.balancers[mode]
        first = {_host(c): c["backend"] for c in balancer.find("call_ended", listener=mode)}
        plans = [stage.plan(mode, client) for client in reversed(range(CLIENTS))]
        async for _ in place_calls(plans, at_once=8):
            pass
        ended = await balancer.wait_for("call_ended", 2 * CLIENTS, listener=mode)
        again = {_host(c): c["backend"] for c in ended[CLIENTS:]}
        came_back = sum(first[host] == backend for host, backend in again.items())
        screen.print(f"   {mode:<12} {came_back} of {len(again)} came back to their server")
        facts.claim(
            f"{mode}: every client came back to the server it had",
            came_back == CLIENTS,
            f"{came_back} of {CLIENTS}",
        )


async def _show_lying_check(screen: Console, stage: Stage, facts: Facts) -> None:
    screen.print(
        "\n[b]3. A TCP check lies.[/b] The SSTP service of rras2 is stopped; its port stays open."
    )
    stage.servers[1].fault = Fault.STOPPED
    balancer = stage.balancers["passthrough"]
    told = await balancer.wait_for("backend_down", pool="rras", backend="rras2")
    await asyncio.sleep(1.5)  # three more TCP checks get their chance
    believed = not balancer.find("backend_down", pool="watched-by-tcp")
    screen.print(f"   the SSTP check says: [red]{told[0]['message']}[/red]")
    word = "[green]rras2 is up[/green]" if believed else "rras2 is down"
    screen.print(f"   the TCP check says:  {word}")
    results: dict[str, int] = {}
    for listener in ("passthrough", "tcp-checked"):
        plans = [stage.plan("passthrough", 100 + n, listener) for n in range(9)]
        results[listener] = 0
        async for report in place_calls(plans, at_once=3):
            results[listener] += report.ok
    screen.print(
        f"   9 new clients each: {results['passthrough']} connected behind the SSTP check, "
        f"{results['tcp-checked']} behind the TCP check"
    )
    stage.servers[1].fault = Fault.NONE
    await balancer.wait_for("backend_up", 2, pool="rras", backend="rras2")
    screen.print("   the service runs again, and the SSTP check has seen it")
    facts.claim(
        "the SSTP check saw the stopped service, the TCP check did not",
        believed,
        told[0]["message"],
    )
    facts.claim(
        "behind the SSTP check every call was connected, behind the TCP check a third failed",
        results == {"passthrough": 9, "tcp-checked": 6},
        str(results),
    )


async def _show_wrong_hash(screen: Console, stage: Stage, facts: Facts) -> None:
    screen.print("\n[b]4. Connects, then disconnects.[/b] An offloaded RRAS was told a wrong hash.")
    balancer = stage.balancers["offload"]
    (report,) = [
        r async for r in place_calls([stage.plan("offload", 200, "wrong-hash")], at_once=1)
    ]
    ended = (await balancer.wait_for("call_ended", listener="wrong-hash"))[0]
    screen.print(f"   the balancer says: [red]{ended['reason']}[/red]: {ended['detail']}")
    ours = stage.served.certificate.sha256.hex().upper()
    command = f"Enable-SSTPOffload -CertificateHash {ours} -Restart"
    screen.print(f"   the cure, on that server:\n   {command}", soft_wrap=True)
    facts.claim(
        "the refused crypto binding was seen, and named with the certificate's hash",
        report.failure is not None
        and report.failure.reason == "binding_refused"
        and ended["reason"] == "binding_refused"
        and stage.served.certificate.sha256.hex() in ended["detail"],
        ended["detail"],
    )


async def _show_other_certificate(screen: Console, stage: Stage, facts: Facts) -> None:
    screen.print(
        "\n[b]5. The same-certificate rule.[/b] A server behind re-encryption shows another one."
    )
    balancer = stage.balancers["reencrypt"]
    warned = await balancer.wait_for("certificate_mismatch", backend="rras5")
    (report,) = [
        r async for r in place_calls([stage.plan("reencrypt", 200, "other-certificate")], at_once=1)
    ]
    ended = (await balancer.wait_for("call_ended", listener="other-certificate"))[0]
    screen.print(f"   the balancer says: [red]{warned[0]['message']}[/red]", soft_wrap=True)
    screen.print(f"   so the call was refused before it could hurt: {ended['detail']}")
    facts.claim(
        "a server with another certificate got no call",
        report.failure is not None
        and ended["reason"] == "no_backend_available"
        and stage.odd_certificate.calls_total == 0,
        ended["detail"],
    )


# --- what is shown at the end -------------------------------------------------------------------


def show_table(screen: Console, facts: Facts) -> None:
    """Show what was seen; it fits into ``COLUMNS``."""
    screen.print()
    title = "What each mode did, and what it cost its balancer (this run)"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("mode")
    for column in ("calls", "servers", "TLS here", "moved", "CPU", "CPU/call", "connect"):
        table.add_column(column, justify="right")
    for mode in MODES:
        seen = facts.modes[mode]
        table.add_row(
            mode,
            f"{seen['ok']}/{seen['calls']}",
            "/".join(str(count) for count in seen["backends"].values()),
            str(seen["tls_handshakes_here"]),
            format_bytes(seen["bytes"]),
            f"{seen['cpu_s']:.2f} s",
            f"{1000 * seen['cpu_s'] / seen['calls']:.1f} ms",
            f"{seen['connect_ms']} ms",
        )
    screen.print(table)
    screen.print(
        "passthrough counts ciphertext, the others plaintext; TLS costs CPU, once or twice.\n"
    )
    for claim in facts.claims:
        mark = "[green]✓[/green]" if claim.holds else "[red]✗[/red]"
        screen.print(f"{mark} {claim.text}" + ("" if claim.holds else f": {claim.evidence}"))


async def _stay(screen: Console, stage: Stage) -> None:
    """Keep everything running for whoever wants to try it, until Ctrl-C."""
    screen.print("\nEverything keeps running until Ctrl-C. In another terminal, try:\n")
    for mode in MODES:
        host, port = stage.balancers[mode].addresses[mode]
        target = f"{host}:{port} --server-name {NAME} --ca {stage.pki.root_path}"
        screen.print(f"  sstplb call {target}  # {mode}", soft_wrap=True)
    address = stage.servers[0].https
    assert address is not None, "it listens"
    screen.print(f"  sstplb probe {address[0]}:{address[1]} --insecure")
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


def _claim_facts(claim: Claim) -> dict[str, object]:
    return {"claim": claim.text, "holds": claim.holds, "evidence": claim.evidence}


def _host(call: dict[str, Any]) -> str:
    return str(call["client"]).rpartition(":")[0]
