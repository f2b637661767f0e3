"""Lesson 7: round robin and affinity, and what a NAT does to both."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from sstplb.lab.caller import place_call
from sstplb.lab.lessons.page import Arrow, Bar, Bars, Break, Lesson, Page, Remark, Sequence, Table
from sstplb.lab.lessons.scene import Scene
from sstplb.lab.process import BalancerProcess
from sstplb.lab.rras import Rras
from sstplb.net.call import now_s

WHY = """
**Round robin** gives the servers their turns, one after the other. **Affinity** remembers which
server a client had, and gives it the same one when it comes back within some minutes. Every
balancer has both, and both are easy to get almost right.

Why should an SSTP client get the same server again? One call would not need it. But clients that
lose a call come back at once, while their old call still holds a port, and perhaps a licence and a
route, on the old server; and whoever offers IKEv2 beside SSTP needs UDP 500 and 4500 of a client at
one server. What affinity goes by is the client's address, and that has a price you will see.
"""
CLIENTS = 9


@dataclass(frozen=True, slots=True)
class Visit:
    """One call: who, when, and where it was carried."""

    client: int
    at_s: float
    backend: str


async def play(scene: Scene, page: Page) -> None:
    """Call in order, call again backwards, with and without affinity, and from behind a NAT."""
    certificate = scene.certificate()
    servers = [await scene.rras(f"rras{n}", certificate) for n in (1, 2, 3)]
    balancer = await _start(scene, servers)
    began_s = now_s()
    page.say(
        f"Three servers, {CLIENTS} clients, each with an address of its own, one call at a time. "
        "The balancer has two listeners in passthrough mode; one of them remembers."
    )
    order = list(range(1, CLIENTS + 1))
    first = await _visit(scene, balancer, "remembers", order)
    again = await _visit(scene, balancer, "remembers", order[::-1])
    page.part("Nine clients call, and call again in the opposite order")
    page.show(_drawn(first[:4] + again[-4:], began_s))
    page.show(_grid(first, again))
    shares = Counter(visit.backend for visit in first)
    page.claim(
        "Round robin is exact: of nine first calls each of three servers got three",
        "the backend of each call was read from the balancer's log",
        holds=sorted(shares.values()) == [3, 3, 3],
        evidence=_counted(shares),
    )
    same = sum(_by_client(first)[v.client] == v.backend for v in again)
    page.claim(
        "With affinity every client comes back to the server it had",
        "the same clients called again, in the opposite order",
        holds=same == CLIENTS,
        evidence=f"{same} of {CLIENTS}",
    )
    await _without(scene, balancer, page)
    await _behind_nat(scene, balancer, page)


async def _start(scene: Scene, servers: list[Rras]) -> BalancerProcess:
    ways = scene.reach("passthrough", *servers)
    remembers = not scene.is_broken("no-affinity")
    pools = {
        name: scene.pool("passthrough", *ways, affinity={"enabled": enabled})
        for name, enabled in (("remembers", remembers), ("forgets", False))
    }
    return await scene.balancer(
        "balancer", [scene.listener(name, "passthrough") for name in pools], pools
    )


async def _visit(
    scene: Scene, balancer: BalancerProcess, listener: str, clients: list[int]
) -> list[Visit]:
    """Place one call after the other; return which server each had."""
    visits = []
    for client in clients:
        done = len(balancer.find("call_ended", listener=listener))
        at_s = now_s()
        await place_call(scene.plan(balancer.addresses[listener], client))
        ended: list[dict[str, Any]] = await balancer.wait_for(
            "call_ended", done + 1, listener=listener
        )
        visits.append(Visit(client, at_s, str(ended[-1].get("backend"))))
    return visits


async def _without(scene: Scene, balancer: BalancerProcess, page: Page) -> None:
    order = list(range(1, CLIENTS + 1))
    first = await _visit(scene, balancer, "forgets", order)
    again = await _visit(scene, balancer, "forgets", order[1:] + order[:1])
    same = sum(_by_client(first)[v.client] == v.backend for v in again)
    shares = Counter(visit.backend for visit in (*first, *again))
    page.part("The same without affinity")
    page.show(_grid(first, again))
    page.claim(
        "Without affinity the turns go on: clients that come back in another order get other "
        "servers, and the shares stay exact",
        "the clients called again, the second first and the first last",
        holds=same == 0 and len(set(shares.values())) == 1,
        evidence=f"{same} of {CLIENTS} had their old server; {_counted(shares)}",
    )


async def _behind_nat(scene: Scene, balancer: BalancerProcess, page: Page) -> None:
    nat = 200
    shares = {
        "with affinity": Counter(
            visit.backend for visit in await _visit(scene, balancer, "remembers", [nat] * CLIENTS)
        ),
        "without": Counter(
            visit.backend for visit in await _visit(scene, balancer, "forgets", [nat] * CLIENTS)
        ),
    }
    page.part("Nine clients behind one NAT")
    page.say(
        "A branch office, a hotel, a mobile network: many clients with one address. To affinity "
        "they are one client."
    )
    bars = tuple(
        Bar(how, tuple((name, float(count)) for name, count in sorted(seen.items())))
        for how, seen in shares.items()
    )
    method = "calls in the balancer's log, by backend; nine calls one after the other each time"
    page.show(Bars("Nine calls from one address: who carried them", "calls", bars, method))
    most = max(shares["with affinity"].values())
    page.claim(
        "Affinity sends everybody behind one NAT to one server; without it they are spread evenly",
        "nine calls came from one address through each listener, and their backends were counted",
        holds=most == CLIENTS and sorted(shares["without"].values()) == [3, 3, 3],
        evidence=f"with: {_counted(shares['with affinity'])}; "
        f"without: {_counted(shares['without'])}",
    )
    page.measured(
        "The largest share of one server, nine clients behind a NAT", f"{most} of {CLIENTS}",
        "with affinity; a fair share would be 3",
    )  # fmt: skip


def _drawn(visits: list[Visit], began_s: float) -> Sequence:
    """Draw calls as arrows from the client to the server that carried them."""
    servers = ("rras1", "rras2", "rras3")
    rows: list[Arrow | Remark] = []
    seen: set[int] = set()
    for visit in visits:
        ordinal = "again" if visit.client in seen else "first call"
        seen.add(visit.client)
        text = f"client {visit.client}, {ordinal}"
        rows.append(Arrow(visit.at_s - began_s, "clients", visit.backend, text))
    return Sequence("The first four calls, and the last four of the second round",
                    ("clients", *servers), tuple(rows))  # fmt: skip


def _grid(first: list[Visit], again: list[Visit]) -> Table:
    second = _by_client(again)
    columns = ("client", *(str(visit.client) for visit in first))
    rows = (
        ("first call", *(visit.backend for visit in first)),
        ("again", *(second[visit.client] for visit in first)),
    )
    return Table("Which server each client had", columns, rows)


def _by_client(visits: list[Visit]) -> dict[int, str]:
    return {visit.client: visit.backend for visit in visits}


def _counted(shares: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(shares.items()))


LESSON = Lesson(
    number=7,
    slug="affinity-and-round-robin",
    title="Affinity and round robin",
    why=WHY,
    play=play,
    question="One server of three is rebooted for updates in the night. In the morning all users "
    "call, and affinity still remembers the night's few. Where do the new calls go, and how does "
    "the load come back into balance? What would happen if affinity entries lasted for a week?",
    answer="New clients have no entry: round robin spreads them over all three. While the server "
    "was down its clients were carried elsewhere, and affinity followed them there: they stay "
    "away until their entry ends, minutes after their last call (Kemp keeps 6 minutes, F5 3). "
    "With entries of a week a server would stay almost empty for days after each reboot. Affinity "
    "must live long enough for a client that comes back after a cut, and no longer.",
    proves="Round robin and affinity are exact, not approximate; affinity sees addresses, not "
    "users, and a NAT makes many users one.",
    breaks=(
        Break(
            "no-affinity",
            "the pool that should remember does not",
            "clients that come back in the opposite order get other servers, and a NAT's clients "
            "are spread",
            (
                "With affinity every client comes back",
                "Affinity sends everybody behind one NAT",
            ),
        ),
    ),
)
