"""Lesson 8: failover before hand-over, nothing after it, and draining a server in peace."""

import asyncio
from typing import Any

from sstplb.lab.lessons import anatomy
from sstplb.lab.lessons.page import Arrow, Break, Lesson, Listing, Page, Remark, Sequence, Table
from sstplb.lab.lessons.scene import Placed, Scene
from sstplb.lab.lessons.wording import log_line, ms
from sstplb.lab.process import BalancerProcess
from sstplb.lab.rras import Fault, Rras
from sstplb.protocol.packet import Packet
from sstplb.protocol.registry import MessageType

WHY = """
The client says nothing between its request and the server's 200. This silence is the balancer's
chance: a server that refuses, stalls or is dead costs the client a little time and nothing else,
for another server can be asked the very same question.

With the 200 the chance is gone for ever. From then on the client has begun a dance with one server;
if that dies, the call dies. So a server that is to be rebooted is **drained** first: it gets no new
calls, and those it has may end in peace.
"""
TRY = "500ms"
DEADLINE_S = 0.3


async def play(scene: Scene, page: Page) -> None:
    """Make servers fail before and after the hand-over, then drain one."""
    certificate = scene.certificate()
    servers = [await scene.rras(f"rras{n}", certificate) for n in (1, 2, 3)]
    pool = scene.pool(
        "offload", *scene.reach("offload", *servers),
        check={"interval": "60s", "timeout": "5s"}, affinity={"enabled": False}, try_timeout=TRY,
    )  # fmt: skip
    if scene.is_broken("one-try"):
        pool["tries_max"] = 1
    listeners = [scene.listener("vpn", "offload", certificate)]
    balancer = await scene.balancer("balancer", listeners, {"vpn": pool})
    page.say(
        "Three servers, an offloading balancer, no affinity. The checks are so slow that they "
        "take no part: whatever the balancer finds out about a server, it finds out from the call "
        "itself."
    )
    await _fail_over(scene, balancer, servers, page)
    await _fail_late(scene, balancer, servers, page)
    await _drain(scene, balancer, servers, page)
    await _end_politely(scene, balancer, servers, page)


# --- before the hand-over ---------------------------------------------------------------------


async def _fail_over(
    scene: Scene, balancer: BalancerProcess, servers: list[Rras], page: Page
) -> None:
    page.part("Before the hand-over: another server, and the client notices nothing")
    servers[0].fault, servers[1].fault = Fault.NO_PORTS, Fault.SILENT
    placed = await scene.call(balancer.addresses["vpn"])
    (ended,) = await balancer.wait_for("call_ended")
    page.show(
        scene.sequence("rras1 has no port left, rras2 says nothing", placed, middle="sstplb",
                       servers=("rras1", "rras2", "rras3"), brief=True)
    )  # fmt: skip
    page.show(Listing("The balancer's log", log_line(ended, "tries", "backend", "reach_s",
                                                     "outcome", "reason")))  # fmt: skip
    answers = [said for said in placed.heard.sayings if said.is_head and not said.by_client]
    page.claim(
        "Two servers failed, and the client saw one answer: the third server's 200",
        "what the client heard was searched for answers; its call went to its end",
        holds=placed.report.ok and [a.text for a in answers] == ["HTTP 200"],
        evidence=f"answers: {', '.join(a.text for a in answers) or 'none'}; "
        f"{placed.failed_with or 'the call went well'}",
    )
    heads = [
        head.raw
        for asked in scene.journal.of(placed.report.correlation_id)
        if (head := asked.head(by_client=True)) is not None
    ]
    page.claim(
        "Each server was asked the same question, byte for byte",
        "the heads that the servers heard were compared with the one the client sent",
        holds=len(heads) == 3 and set(heads) == {placed.heard.sayings[0].raw},
        evidence=f"{len(heads)} heads, {len(set(heads))} kind",
    )
    if placed.report.connect_s is not None:
        page.measured(
            "What the silent server cost this client", ms(float(ended["reach_s"])),
            f"reach_s of the log: dials and answers of all three; try_timeout is {TRY}",
        )  # fmt: skip
    servers[0].fault = servers[1].fault = Fault.NONE


# --- after it ---------------------------------------------------------------------------------


async def _fail_late(
    scene: Scene, balancer: BalancerProcess, servers: list[Rras], page: Page
) -> None:
    page.part("After the hand-over: no way back")
    calling = asyncio.create_task(
        scene.call(balancer.addresses["vpn"], 2, hold_s=10.0), name="call"
    )
    carrier = await _carrier(servers)
    asked = [server.calls_total for server in servers]
    carrier.cut_calls()
    placed = await calling
    ended = (await balancer.wait_for("call_ended", 2))[-1]
    page.say(f"A call is connected; then its server, {carrier.settings.name}, dies.")
    page.show(_end_of(scene, placed, carrier.settings.name, ended))
    more = sum(server.calls_total for server in servers) - sum(asked)
    page.claim(
        "When a server dies after the hand-over its call dies; no other server is asked",
        "the calls that reached any server afterwards were counted",
        holds=not placed.report.ok and more == 0,
        evidence=f"{placed.failed_with or 'the call went on'}; {more} more calls at the servers",
    )


async def _carrier(servers: list[Rras]) -> Rras:
    """Wait until one of them has a connected call, and return it."""
    async with asyncio.timeout(10):
        while True:
            for server in servers:
                if any(call.connected for call in server.calls):
                    return server
            await asyncio.sleep(0.01)


def _end_of(scene: Scene, placed: Placed, name: str, ended: dict[str, Any]) -> Sequence:
    """Draw the call from its hand-over on."""
    died = Remark(scene.journal.when(ended), "sstplb", f"{ended['outcome']}: {ended['reason']}")
    whole = scene.sequence(
        "Connected, and cut", placed, middle="sstplb", servers=(name,), remarks=(died,)
    )
    wanted = ("HTTP 200", "CALL_CONNECTED", "IP,")
    rows = [
        row for row in whole.rows
        if isinstance(row, Remark) or row.text.startswith(wanted)
    ]  # fmt: skip
    return Sequence(whole.title, whole.lifelines, tuple(rows))


# --- in peace -----------------------------------------------------------------------------------


async def _drain(scene: Scene, balancer: BalancerProcess, servers: list[Rras], page: Page) -> None:
    page.part("Drained: running calls stay, new ones go elsewhere")
    address = balancer.addresses["vpn"]
    hang_up = asyncio.Event()
    calling = asyncio.create_task(scene.call(address, 3, hold_s=30.0, until=hang_up), name="call")
    carrier = await _carrier(servers)
    name = carrier.settings.name
    standing = "active" if scene.is_broken("stays-active") else "draining"
    await balancer.ask("POST", f"/pools/vpn/backends/{name}/standing", standing=standing)
    later = [await scene.call(address, 4 + n) for n in range(4)]
    still = sum(call.connected for call in carrier.calls)
    hang_up.set()
    first = await calling
    page.show(_draining(scene, balancer, first, later, name))
    new = [scene.server_of(placed) for placed in later]
    page.show(
        Table("Who carried what", ("call", "carried by", "ended"),
              (("before the drain", name, first.failed_with or "politely, by itself"),
               *((f"new call {n}", where or "nobody", placed.failed_with or "politely, by itself")
                 for n, (where, placed) in enumerate(zip(new, later, strict=True), 1))))
    )  # fmt: skip
    page.claim(
        "A draining server keeps the call it has, until that ends by itself",
        "the call was still connected after the drain, and its caller was asked how it ended",
        holds=still >= 1 and first.report.ok,
        evidence=f"{still} call still connected; {first.failed_with or 'it ended politely'}",
    )
    page.claim(
        "It gets no new call",
        "four calls were placed while it drained, and the servers they reached were looked at",
        holds=name not in new and all(placed.report.ok for placed in later),
        evidence=f"drained: {name}; new calls: {', '.join(w or 'nobody' for w in new)}",
    )


# --- with a deadline ------------------------------------------------------------------------------


async def _end_politely(
    scene: Scene, balancer: BalancerProcess, servers: list[Rras], page: Page
) -> None:
    page.part("Drained with a deadline: the rest is ended politely")
    page.say(
        "A user who never hangs up would keep a server from being rebooted for ever. So a drain "
        "may have a deadline. What runs then is not cut: where TLS ends at the balancer, it says "
        "CALL_DISCONNECT to both sides, between two packets, as either of them could have done."
    )
    calling = asyncio.create_task(
        scene.call(balancer.addresses["vpn"], 20, hold_s=30.0), name="call"
    )
    name = (await _carrier(servers)).settings.name
    done = len(balancer.find("call_ended"))
    where = f"/pools/vpn/backends/{name}/standing"
    await balancer.ask("POST", where, standing="draining", deadline_s=DEADLINE_S)
    placed = await calling
    ended = (await balancer.wait_for("call_ended", done + 1))[-1]
    page.show(_last_words(scene, placed, name, ended))
    told = ("outcome", "reason", "detail", "client_goodbye", "backend_goodbye")
    page.show(Listing("The balancer's log", log_line(ended, *told)))
    goodbye = placed.heard.find(MessageType.CALL_DISCONNECT)
    if goodbye is not None and isinstance(goodbye.what, Packet):
        page.say("**The bytes that matter**: the only packet a balancer ever says for itself.")
        page.show(anatomy.packet(goodbye.what))
    theirs = scene.journal.of(placed.report.correlation_id)
    heard = [c.find(MessageType.CALL_DISCONNECT) is not None for c in (placed.heard, *theirs)]
    answered = [
        c.find(MessageType.CALL_DISCONNECT_ACK) is not None for c in (placed.heard, *theirs)
    ]
    page.claim(
        "At the deadline both sides hear CALL_DISCONNECT, and both acknowledge it",
        "what the client and the server heard and said was searched for both messages",
        holds=len(heard) == 2 and all(heard) and all(answered),
        evidence=f"disconnect heard: {heard.count(True)} of 2; acknowledged: "
        f"{answered.count(True)} of 2",
    )


def _last_words(scene: Scene, placed: Placed, name: str, ended: dict[str, Any]) -> Sequence:
    """Draw the end of a call that we ended."""
    said = Remark(scene.journal.when(ended), "sstplb", f"{ended['outcome']}: {ended['reason']}")
    whole = scene.sequence(
        f"{name} is drained, the deadline comes", placed, middle="sstplb", servers=(name,),
        remarks=(said,),
    )  # fmt: skip
    rows = [
        row for row in whole.rows
        if isinstance(row, Remark) or row.text.startswith(("IP,", "CALL_DISCONNECT"))
    ]  # fmt: skip
    return Sequence(whole.title, whole.lifelines, tuple(rows))


def _draining(
    scene: Scene, balancer: BalancerProcess, first: Placed, later: list[Placed], name: str
) -> Sequence:
    """Draw each call as one arrow, and the operator's word between them."""
    began_s = first.began_s
    others = [scene.server_of(placed) for placed in later]
    places = ("client", "sstplb", name, *dict.fromkeys(o for o in others if o and o != name))
    rows: list[Arrow | Remark] = [Arrow(0.0, "client", name, "a call, and it stays")]
    rows += [
        Remark(scene.journal.when(event) - began_s, "sstplb", event["message"])
        for event in balancer.find("backend_standing")
    ]
    for number, (where, placed) in enumerate(zip(others, later, strict=True), 1):
        if where:
            at_s = placed.began_s - began_s
            rows.append(Arrow(at_s, "client", where, f"new call {number}"))
    end_s = first.report.steps[-1].at - began_s
    rows.append(Arrow(end_s, "client", name, "CALL_DISCONNECT, when the user hangs up"))
    rows.sort(key=lambda row: row.at_s)
    return Sequence("The operator drains a server", places, tuple(rows))


LESSON = Lesson(
    number=8,
    slug="drain-and-failover",
    title="Drain, and failover before hand-over",
    why=WHY,
    play=play,
    question="In passthrough mode the balancer does not see the 200. How much of this failover is "
    "left there, and why? And what would you tell a manager who wants 'seamless failover' of "
    "running VPN calls?",
    answer="In passthrough only a failed TCP connect can be seen: then another server is asked. A "
    "server that accepts and then says 503 says so inside TLS, and the client gets it. As for "
    "running calls: their keys, their PPP state and their address live in one server's memory. No "
    "balancer can move them; the client must call again (Always On VPN does so by itself), and "
    "what you can do is choose the moment: drain, wait, and end the rest politely.",
    proves="Until the 200 has been passed on, failing servers cost a client only time; afterwards "
    "a call is tied to its server. Draining makes use of that: nothing is cut.",
    breaks=(
        Break(
            "one-try",
            "the pool allows one try only (`tries_max: 1`)",
            "the first server's refusal reaches the client, and nobody else is asked",
            (
                "Two servers failed, and the client saw one answer",
                "Each server was asked the same question",
            ),
        ),
        Break(
            "stays-active",
            "the operator says `active` instead of `draining`",
            "the server goes on getting its turns",
            ("It gets no new call",),
        ),
    ),
)
