"""Lesson 2: why a TCP check lies.

Two pools of the same three servers; one is watched by a TCP check, one by the SSTP check. Then
the SSTP service of one server is stopped. Its port stays open, as http.sys keeps it.
"""

import asyncio
from collections import Counter
from typing import Any

from sstplb.balance.health import apply_preset
from sstplb.config.schema import Check, CheckMethod
from sstplb.lab.caller import CallReport, place_calls
from sstplb.lab.lessons import anatomy
from sstplb.lab.lessons.page import (
    Arrow,
    Break,
    Lesson,
    Line,
    Listing,
    Page,
    Remark,
    Sequence,
    Table,
)
from sstplb.lab.lessons.scene import CHECK, NAME, Scene
from sstplb.lab.lessons.wire import Wire
from sstplb.lab.lessons.wording import ms
from sstplb.lab.process import BalancerProcess
from sstplb.lab.rras import Fault, Rras
from sstplb.net.call import now_s
from sstplb.net.dial import Way
from sstplb.net.probe import probe

WHY = """
A balancer asks its servers again and again whether they are well, and sends calls only to those
that are. The cheapest question is a TCP connect: does somebody listen on port 443? On a Windows
RRAS server the one that listens is **http.sys**, a part of the kernel. It goes on listening when
the SSTP service has died.

So the balancer sends every n-th call to a dead server, with a dashboard full of green lights. This
is the first thing that goes wrong in the field, and it goes wrong with every balancer that is left
at its defaults.
"""
CLIENTS = 9
PATIENCE_S = 3.0


async def play(scene: Scene, page: Page) -> None:
    """Stop a service behind an open port, and watch two checks."""
    certificate = scene.certificate()
    servers = [await scene.rras(f"rras{n}", certificate) for n in (1, 2, 3)]
    victim = servers[1]
    assert victim.https is not None, "it listens"
    wires = {name: await scene.wire(victim.https) for name in ("tcp-checked", "sstp-checked")}
    balancer = await _start(scene, servers, wires)
    page.say(
        "Three servers, and one balancer with two listeners in passthrough mode. Both lead to the "
        "same servers; they differ only in the check. The road from each pool to **rras2** goes "
        "over a wire we listen to."
    )
    page.part("The two questions")
    for method in (CheckMethod.TCP, CheckMethod.HTTPS):
        await _ask(scene, victim, method, page)
    stopped_s = now_s()
    if not scene.is_broken("service-runs"):
        victim.fault = Fault.STOPPED
    found = await _noticed(balancer)
    await asyncio.sleep(3 * 0.2)  # three more chances for the TCP check
    page.part("The service is stopped, its port stays open")
    page.show(_checks(scene, balancer, wires, stopped_s))
    page.say("Asked once more, while the service is stopped:")
    for method in (CheckMethod.TCP, CheckMethod.HTTPS):
        await _ask(scene, victim, method, page)
    _show_answer(scene, stopped_s, page)
    connects = [c for c in wires["tcp-checked"].connections if c.opened_s > stopped_s]
    still_up = not balancer.find("backend_down", pool="tcp-checked")
    page.claim(
        "The TCP check goes on calling the dead server well",
        "its connections were counted on the wire, and the balancer's log searched for a verdict",
        holds=still_up and len(connects) >= 2 and not sum(c.size for c in connects),
        evidence=f"{len(connects)} checks after the stop, {sum(c.size for c in connects)} bytes "
        f"said in them; the log says {'nothing' if still_up else 'down'}",
    )
    took = scene.journal.when(found[0]) - stopped_s if found else None
    page.claim(
        "The SSTP check sees that the service is dead, and says what it got instead of 401",
        "the balancer's log was read",
        holds=bool(found) and "expected HTTP 401" in found[0]["message"],
        evidence=found[0]["message"] if found else "nothing in the log",
    )
    if took is not None:
        page.measured(
            "From the stop to the verdict", ms(took),
            f"the log's time less the stop's; interval {CHECK['interval']}, {CHECK['fall']} bad "
            "checks in a row. At Kemp's defaults (9 s) think of seconds",
        )  # fmt: skip
    await _call(scene, balancer, page)
    victim.fault = Fault.NONE
    found = await _noticed(balancer, "backend_up") if found else []
    page.claim(
        "When the service runs again, its server gets calls again by itself",
        "the balancer's log was read",
        holds=bool(found),
        evidence=found[-1]["message"] if found else "nothing in the log",
    )


async def _start(scene: Scene, servers: list[Rras], wires: dict[str, Wire]) -> BalancerProcess:
    pools = {}
    for name, check in (("tcp-checked", {**CHECK, "method": "tcp"}), ("sstp-checked", dict(CHECK))):
        ways = dict(scene.reach("passthrough", *servers))
        ways["rras2"] = wires[name].address
        pools[name] = scene.pool("passthrough", *ways.items(), check=check)
    listeners = [scene.listener(name, "passthrough") for name in pools]
    return await scene.balancer("two-checks", listeners, pools)


async def _ask(scene: Scene, server: Rras, method: CheckMethod, page: Page) -> None:
    """Make one check by hand, as `sstplb probe` does."""
    assert server.https is not None, "it listens"
    policy = scene.trust if method is CheckMethod.HTTPS else None
    check = apply_preset(Check(method=method))
    result = await probe(Way(server.https, policy, NAME), check)
    word = "well" if result.verdict.good else "not well"
    lines = [*result.verdict.transcript.splitlines(), f"→ {word}: {result.verdict.reason}"]
    page.show(Listing(f"sstplb probe rras2 --method {method}", tuple(lines)))


async def _noticed(balancer: BalancerProcess, event: str = "backend_down") -> list[dict[str, Any]]:
    """Wait until the SSTP check has changed its mind; empty: it did not."""
    count = len(balancer.find(event, pool="sstp-checked", backend="rras2")) + 1
    try:
        return await balancer.wait_for(
            event, 1 if event == "backend_down" else count, within_s=PATIENCE_S,
            pool="sstp-checked", backend="rras2",
        )  # fmt: skip
    except RuntimeError:
        return []


def _checks(
    scene: Scene, balancer: BalancerProcess, wires: dict[str, Wire], stopped_s: float
) -> Sequence:
    """Draw the first checks after the stop, of both pools."""
    rows: list[Arrow | Remark] = [Remark(0.0, "rras2", "the SSTP service is stopped")]
    until_s = stopped_s + 0.75
    for connection in wires["tcp-checked"].connections:
        at = connection.opened_s
        if stopped_s < at < until_s:
            rows.append(Arrow(at - stopped_s, "tcp check", "rras2", "TCP connect, nothing said"))
            rows.append(Remark(at - stopped_s + 1e-5, "tcp check", "it listens: well"))
    for said in (s for c in scene.journal.servers if c.place == "rras2" for s in c.sayings):
        if stopped_s < said.at_s < until_s and said.is_head:
            way = ("sstp check", "rras2") if said.by_client else ("rras2", "sstp check")
            line = Line.CLEAR if said.by_client else Line.BAD
            rows.append(Arrow(said.at_s - stopped_s, *way, said.text, line))
    for event in balancer.find("backend_down", pool="sstp-checked"):
        at = scene.journal.when(event) - stopped_s
        rows.append(Remark(at, "sstp check", event["message"], is_bad=True))
    rows.sort(key=lambda row: row.at_s)
    title = "What each check asked, and what it heard"
    return Sequence(title, ("tcp check", "sstp check", "rras2"), tuple(rows))


def _show_answer(scene: Scene, stopped_s: float, page: Page) -> None:
    for conversation in (c for c in scene.journal.servers if c.place == "rras2"):
        request, answer = conversation.head(by_client=True), conversation.head(by_client=False)
        if request is not None and answer is not None and request.at_s > stopped_s:
            page.say(
                "**The bytes that matter.** The question is a HEAD of the one URI that only the "
                "SSTP service serves. A healthy server answers 401 (you did not say who you are); "
                "here http.sys answers in its place."
            )
            page.show(anatomy.head(request.raw, "The question"))
            page.show(anatomy.head(answer.raw, "The answer of a server whose SSTP is stopped"))
            return


async def _call(scene: Scene, balancer: BalancerProcess, page: Page) -> None:
    """Place calls through both listeners."""
    failed: Counter[str] = Counter()
    backends: dict[str, Counter[str]] = {}
    for number, name in enumerate(("tcp-checked", "sstp-checked")):
        plans = [scene.plan(balancer.addresses[name], 10 + 20 * number + n) for n in range(CLIENTS)]
        reports: list[CallReport] = [report async for report in place_calls(plans, at_once=3)]
        failed[name] = sum(not report.ok for report in reports)
        ended = await balancer.wait_for("call_ended", CLIENTS, listener=name)
        backends[name] = Counter(str(call.get("backend")) for call in ended)
    page.part("What the users notice")
    rows = tuple(
        (name, str(CLIENTS), str(failed[name]),
         ", ".join(f"{k} {n}" for k, n in sorted(backends[name].items())))
        for name in backends
    )  # fmt: skip
    columns = ("behind the", "calls", "failed", "where they went")
    page.show(Table("Nine new clients through each listener", columns, rows))
    page.claim(
        "Behind the TCP check every third call fails; behind the SSTP check none does",
        f"{CLIENTS} calls were placed through each listener, each to its end",
        holds=failed["tcp-checked"] == CLIENTS // 3 and failed["sstp-checked"] == 0,
        evidence=f"failed: {failed['tcp-checked']} and {failed['sstp-checked']} of {CLIENTS}",
    )


LESSON = Lesson(
    number=2,
    slug="why-a-tcp-check-lies",
    title="Why a TCP check lies",
    why=WHY,
    play=play,
    question="Somebody replaces the TCP check by an HTTP check of the path / and expects any "
    "status below 500. Will it see a stopped SSTP service? And what would a check have to do to "
    "prove that a user can really connect?",
    answer="It will not see it reliably: http.sys, or a web site on the same port, answers for / "
    "whatever the SSTP service does. Ask for the SSTP URI and expect 401. But even a 401 does not "
    "prove that a user can connect: with a wrong certificate hash, or a dead domain controller, "
    "every call fails after the 401 was fine. Only a whole login with a test account proves it: "
    "`method: login`.",
    proves="A port that is open says nothing about the service behind it; the HEAD of the SSTP URI "
    "with 401 does. The difference is every third user.",
    breaks=(
        Break(
            "service-runs",
            "the SSTP service is not stopped at all",
            "there is nothing to notice: both checks say well, and no call fails",
            (
                "The SSTP check sees that the service is dead",
                "Behind the TCP check every third call fails",
                "When the service runs again",
            ),
        ),
    ),
)
