"""Lesson 9: rolling a certificate, server by server, while calls go on.

First the way that suggests itself: renew on the balancer, tell the servers afterwards. Then the
other one: the balancer holds both and shows each client the one that its server accepts.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from sstplb.lab.lessons import anatomy
from sstplb.lab.lessons.page import Bar, Bars, Break, Lesson, Page, Remark, Sequence, Table
from sstplb.lab.lessons.scene import Placed, Scene
from sstplb.lab.pki import Issued
from sstplb.lab.process import BalancerProcess
from sstplb.lab.rras import Rras
from sstplb.net.call import now_s
from sstplb.protocol.packet import Packet
from sstplb.protocol.registry import MessageType

WHY = """
Certificates end: after 397 days, soon after 47. With SSTP every renewal is dangerous, for the new
certificate has a new hash. An offloaded RRAS knows exactly one SHA-256, and to tell it another one
its service must be restarted: all its calls drop. Whoever renews on the balancer first breaks every
call until the last server has been told; whoever tells the servers first breaks them too.

There is a way without a single failed call. The balancer must hold both certificates for a while,
know which of them each server accepts, choose the server **first**, and show the client the
certificate that this server accepts. Then the servers can be switched one by one, each drained
before.
"""
SERVERS = 3
CALLERS = 3
NAIVE_CALLS = 6
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Step:
    """Something the operator did."""

    at_s: float
    text: str
    server: str = "sstplb"


class Operator:
    """Keeps the balancer's file, the servers, and notes what was done when."""

    def __init__(self, balancer: BalancerProcess, servers: list[Rras]) -> None:
        self.balancer, self.servers = balancer, servers
        self.steps: list[Step] = []

    async def serve(self, *certificates: Issued) -> None:
        """Have the balancer hold these."""
        (listener,) = self.balancer.document["listeners"]
        listener["certificates"] = [
            {"chain": str(c.chain), "key": str(c.key)} for c in certificates
        ]
        await self.balancer.reload()
        self._note(f"holds {' and '.join(c.chain.stem for c in certificates)}")

    async def switch(self, server: Rras, issued: Issued, *, drains: bool) -> None:
        """Give one server the other certificate's hash: drain, wait, restart, declare, go on."""
        name = server.settings.name
        if drains:
            await self._stand(name, "draining")
            await self._wait_empty(name)
        told = replace(server.settings, offload_sha256=issued.certificate.sha256)
        await server.restart(told)
        self._note(f"told {issued.chain.stem}, restarted", name)
        for backend in self.balancer.document["pools"]["vpn"]["backends"]:
            if backend["name"] == name:
                backend["rras_certificate_sha256"] = issued.certificate.sha256.hex()
        await self.balancer.reload()
        if drains:
            await self._stand(name, "active")

    async def _stand(self, name: str, standing: str) -> None:
        where = f"/pools/vpn/backends/{name}/standing"
        await self.balancer.ask("POST", where, standing=standing)
        self._note(f"{name}: {standing}")

    async def _wait_empty(self, name: str) -> None:
        where = f"/pools/vpn/backends/{name}"
        for _ in range(int(PATIENCE_S / 0.05)):
            if not (await self.balancer.ask("GET", where))["calls"]:
                return
            await asyncio.sleep(0.05)

    def _note(self, text: str, server: str = "sstplb") -> None:
        self.steps.append(Step(now_s(), text, server))


async def play(scene: Scene, page: Page) -> None:
    """Renew the naive way, then roll."""
    old, new = scene.certificate("old", days=20), scene.certificate("new")
    servers = [await scene.rras(f"rras{n}", old) for n in range(1, SERVERS + 1)]
    operator = Operator(await _start(scene, servers, old), servers)
    page.say(
        f"{SERVERS} offloaded servers behind one balancer. Their certificate, **old**, ends in 20 "
        "days; **new** has just been issued for the same name. The configuration declares which "
        "hash each server was told."
    )
    await _naive(scene, operator, old, new, page)
    await _roll(scene, operator, old, new, page)


async def _start(scene: Scene, servers: list[Rras], old: Issued) -> BalancerProcess:
    pool = scene.pool("offload", *scene.reach("offload", *servers), affinity={"enabled": False})
    for backend in pool["backends"]:
        backend["rras_certificate_sha256"] = old.certificate.sha256.hex()
    listeners = [scene.listener("vpn", "offload", old)]
    return await scene.balancer("balancer", listeners, {"vpn": pool})


async def _naive(scene: Scene, operator: Operator, old: Issued, new: Issued, page: Page) -> None:
    page.part("The way that suggests itself")
    address = operator.balancer.addresses["vpn"]
    await operator.serve(new)
    placed = [await scene.call(address, 1 + n) for n in range(NAIVE_CALLS)]
    await operator.serve(old)
    failed = sum(not one.report.ok for one in placed)
    ended = operator.balancer.find("call_ended")[-1]
    page.say(
        "The new certificate replaces the old one on the balancer; the servers will be told "
        f"later, one after the other. Meanwhile {NAIVE_CALLS} clients call. Then the "
        "old one is put back."
    )
    lived = Counter(one.failed_with or "connected" for one in placed)
    rows = tuple((result, str(count)) for result, count in lived.items())
    page.show(Table("What the clients lived", ("result", "calls"), rows))
    page.claim(
        "With the new certificate on the balancer alone every call fails, until servers are told",
        f"{NAIVE_CALLS} calls were placed in that state",
        holds=failed == NAIVE_CALLS,
        evidence=f"{failed} of {NAIVE_CALLS} failed: {ended.get('reason')}",
    )


async def _roll(scene: Scene, operator: Operator, old: Issued, new: Issued, page: Page) -> None:
    page.part("Rolled, server by server, under constant calls")
    began_s, views = now_s(), []
    async with _constant_calls(scene, operator.balancer) as placed:
        await _more(placed, CALLERS)
        await operator.serve(old, new)
        for server in operator.servers:
            await _more(placed, CALLERS)
            await operator.switch(server, new, drains=not scene.is_broken("no-drain"))
            views.append((server.settings.name, await _rollout(operator.balancer)))
        await _more(placed, 2 * CALLERS)
        await operator.serve(new)
        await _more(placed, CALLERS)
    _draw(operator, placed, began_s, page)
    rows = tuple(
        (f"{name} was switched", *(short_of(view, number) for number in range(SERVERS)),
         "done" if view["done"] else str(view["next_step"]))
        for name, view in views
    )  # fmt: skip
    columns = ("after", *(f"rras{n + 1} accepts" for n in range(SERVERS)), "sstplb says")
    page.show(Table("Where each server stood (`sstplb certs rollout`)", columns, rows))
    _show_bound(placed, old, new, page)
    failed = [one for one in placed if not one.report.ok]
    page.claim(
        "A renewal rolled over three servers, under constant calls, costs no call",
        "callers called all the time, from the first step to the last; every call was counted",
        holds=not failed and len(placed) > SERVERS * CALLERS,
        evidence=f"{len(failed)} of {len(placed)} calls failed"
        + "".join(f"; {one.failed_with}" for one in failed[:3]),
    )
    pairs = Counter((scene.server_of(one), _shown(one)) for one in placed if one.report.ok)
    both = {name for name, _ in pairs if len([n for n, _ in pairs if n == name]) == 2}
    page.claim(
        "Every client was shown the certificate that its server accepts: the old one before the "
        "switch, the new one after it",
        "the certificate each caller saw was paired with the server that carried it",
        holds=len(both) == SERVERS
        and {shown for _, shown in pairs} == {old.certificate.sha256, new.certificate.sha256},
        evidence=f"{len(pairs)} pairs of server and certificate were seen",
    )
    bars = tuple(
        Bar(name, (("old", float(pairs[name, old.certificate.sha256])),
                   ("new", float(pairs[name, new.certificate.sha256]))))
        for name in sorted(server.settings.name for server in operator.servers)
    )  # fmt: skip
    method = "calls that went well, by server and by the certificate their client was shown"
    page.show(Bars("Calls in the course of the rollout", "calls", bars, method))
    page.measured(
        "Calls that failed during the rollout", f"{len(failed)} of {len(placed)}",
        f"{CALLERS} callers, each calling again as soon as its call has ended",
    )  # fmt: skip


def _show_bound(placed: list[Placed], old: Issued, new: Issued, page: Page) -> None:
    """Show what a client signed before, and what another signed after."""
    page.say(
        "**The bytes that matter** are in CALL_CONNECTED: the hash of the certificate the client "
        "was shown. Each of these two pleased the server it was sent to, and no other:"
    )
    for issued in (old, new):
        for one in placed:
            bound = one.heard.find(MessageType.CALL_CONNECTED)
            if bound is not None and _shown(one) == issued.certificate.sha256:
                assert isinstance(bound.what, Packet), "a message is a packet"
                page.show(anatomy.packet(bound.what, f"CALL_CONNECTED, {issued.chain.stem}"))
                break


@contextlib.asynccontextmanager
async def _constant_calls(scene: Scene, balancer: BalancerProcess) -> AsyncIterator[list[Placed]]:
    """Call and call again; what each call became is in the list."""
    placed: list[Placed] = []
    stopping = asyncio.Event()

    async def caller(number: int) -> None:
        while not stopping.is_set():
            address = balancer.addresses["vpn"]
            placed.append(await scene.call(address, 10 + number, hold_s=0.1))

    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(caller(number), name="constant caller")
        try:
            yield placed
        finally:
            stopping.set()


async def _more(placed: list[Placed], count: int) -> None:
    """Wait until that many more calls have ended."""
    wanted = len(placed) + count
    for _ in range(int(PATIENCE_S / 0.02)):
        if len(placed) >= wanted:
            return
        await asyncio.sleep(0.02)


async def _rollout(balancer: BalancerProcess) -> dict[str, Any]:
    found: list[dict[str, Any]] = (await balancer.ask("GET", "/certificates/rollout"))["pools"]
    return found[0]


def short_of(view: dict[str, Any], number: int) -> str:
    """Say what a backend accepts, as the rollout's view has it."""
    backend = view["backends"][number]
    return "new" if backend["newest"] else "old"


def _shown(placed: Placed) -> bytes:
    shown = placed.report.certificate
    return b"" if shown is None else shown.sha256


def _draw(operator: Operator, placed: list[Placed], began_s: float, page: Page) -> None:
    """Draw the operator's steps, and what was carried between them."""
    rows: list[Remark] = []
    steps = [step for step in operator.steps if step.at_s >= began_s]
    for number, step in enumerate(steps):
        rows.append(Remark(step.at_s - began_s, step.server, step.text))
        until_s = steps[number + 1].at_s if number + 1 < len(steps) else now_s()
        between = [one for one in placed if step.at_s <= one.began_s < until_s]
        failed = sum(not one.report.ok for one in between)
        if between:
            text = f"{len(between)} calls begun, {failed} failed"
            rows.append(Remark(step.at_s - began_s, "callers", text, is_bad=failed > 0))
    names = tuple(server.settings.name for server in operator.servers)
    page.show(Sequence("What the operator did, and what the callers noticed",
                       ("callers", "sstplb", *names), tuple(rows)))  # fmt: skip


LESSON = Lesson(
    number=9,
    slug="rolling-a-certificate",
    title="Rolling a certificate",
    why=WHY,
    play=play,
    question="Why must the balancer choose the server before it shows a certificate, when TLS "
    "comes first and the request later? And which clients could still see a failure during such a "
    "rollout?",
    answer="The client signs the certificate it was shown in the handshake, and that signature "
    "can please one server only. Once the handshake is done, servers that expect the other "
    "certificate are out of question: so the choice must be made before. Failover is narrowed "
    "too: if the chosen server does not answer, only servers that accept the same certificate can "
    "be asked. Clients whose call runs on a server that is restarted without being drained lose "
    "it; and clients that pin the certificate itself, which RasSstp does not.",
    proves="A renewal can be rolled over several offloaded servers under constant calls with no "
    "failed call, while the naive order fails every one.",
    breaks=(
        Break(
            "no-drain",
            "the servers are restarted without being drained first",
            "calls that run there are cut",
            ("A renewal rolled over three servers",),
        ),
    ),
)
