"""Lesson 10: build a balancer in a hundred lines, from the rooms of this package.

The program is ``examples/hundred_lines.py``, as it stands there: it is read, started as a process
of its own, and put before the same servers and callers as everything else here.
"""

import ast
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from sstplb.lab.lessons.page import Break, Lesson, Listing, Page, Table
from sstplb.lab.lessons.scene import Scene
from sstplb.lab.lessons.wording import ms
from sstplb.lab.process import ScriptProcess
from sstplb.lab.rras import Fault, Rras

WHY = """
You have seen what an SSTP balancer does: it ends TLS or does not, reads one head, asks servers
until one says 200, passes that on, and then gets out of the way of the bytes. How much program is
that?

About a hundred lines, if the hard parts can be taken from a shelf: a parser for heads, a TLS leg, a
pool that knows whose turn it is, a relay. In this package each of them is a room that can be used
alone. Read the program below from top to bottom; its heart is `carry`, the life of one call. Then
change it.
"""
SCRIPT = Path(__file__).parents[3] / "examples" / "hundred_lines.py"
LINES_MAX = 100
ROOMS: Mapping[str, str] = MappingProxyType(
    {
        "protocol": "what goes over the wire",
        "tls": "how it is kept secret",
        "balance": "who should answer",
        "net": "how bytes move",
        "config": "what can be set",
        "errors": "what can go wrong",
    }
)
CLIENTS = 6


async def play(scene: Scene, page: Page) -> None:
    """Read the program, run it, and give it what the other lessons gave the balancer."""
    if not SCRIPT.exists():
        page.claim(
            "The program is here", "its file was looked for", holds=False,
            evidence="examples/ is not part of an installed package: run this in a checkout",
        )  # fmt: skip
        return
    source = SCRIPT.read_text(encoding="utf-8")
    _read(source, page)
    certificate = scene.certificate()
    servers = [await scene.rras(f"rras{n}", certificate) for n in (1, 2, 3)]
    ways = [address for _, address in scene.reach("offload", *servers)]
    if scene.is_broken("one-backend"):
        ways = ways[:1]
    balancer = await scene.script(
        "hundred", SCRIPT, certificate.chain, certificate.key, *(f"{h}:{p}" for h, p in ways)
    )
    await _carry(scene, balancer, servers, page)
    await _fail_over(scene, balancer, servers, page)
    page.measured(
        "CPU of the program for all calls of this lesson", ms(balancer.cpu_s()),
        "its process's own clock (clock_getcpuclockid(3)), its start and imports included",
    )  # fmt: skip


# --- reading it -------------------------------------------------------------------------------


def _read(source: str, page: Page) -> None:
    tree = ast.parse(source)
    lines = [line for line in source.splitlines() if line.strip()]
    page.part("The program")
    page.show(Listing("examples/hundred_lines.py", tuple(source.rstrip().splitlines())))
    rooms = Counter(
        node.module.split(".")[1]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module is not None
        and node.module.startswith("sstplb.")
    )
    rows = tuple((f"`{room}`", ROOMS.get(room, ""), str(rooms[room])) for room in sorted(rooms))
    page.show(Table("What it takes from which room", ("room", "what it is", "modules"), rows))
    page.measured("Lines of the program", f"{len(lines)}", "those that are not empty")
    page.claim(
        "It has a hundred lines at most",
        "the lines of the file that are not empty were counted",
        holds=len(lines) <= LINES_MAX,
        evidence=f"{len(lines)} lines",
    )
    page.claim(
        "It takes what is hard from the lower rooms, and nothing from the balancer itself",
        "its imports were read: none from control or lab",
        holds=bool(rooms) and not {"control", "lab", "cli"} & rooms.keys(),
        evidence=", ".join(sorted(rooms)),
    )


# --- running it ---------------------------------------------------------------------------------


async def _carry(scene: Scene, balancer: ScriptProcess, servers: list[Rras], page: Page) -> None:
    page.part("It carries real calls")
    first = [await scene.call(balancer.address, n) for n in range(1, CLIENTS + 1)]
    again = [await scene.call(balancer.address, n) for n in range(CLIENTS, 0, -1)][::-1]
    page.show(scene.sequence("A call through it", first[0], middle="hundred lines", brief=True))
    went = [scene.server_of(placed) for placed in first]
    came = [scene.server_of(placed) for placed in again]
    columns = ("client", *(str(n) for n in range(1, CLIENTS + 1)))
    page.show(Table("Who carried whom", columns, (("first call", *went), ("again", *came))))
    ok = sum(placed.report.ok for placed in (*first, *again))
    refused = sum(server.refused_bindings for server in servers)
    page.claim(
        "Whole calls go through it: TLS, crypto binding, address, ping, goodbye",
        f"{2 * CLIENTS} calls were placed, each to its end; the servers verified each binding",
        holds=ok == 2 * CLIENTS and refused == 0,
        evidence=f"{ok} of {2 * CLIENTS} calls, {refused} bindings refused",
    )
    page.claim(
        "It gives the servers their turns, and every client its server again",
        "the servers' own notes were read: first calls counted, second calls compared",
        holds=sorted(Counter(went).values()) == [CLIENTS // 3] * 3 and went == came,
        evidence=", ".join(f"{name or 'nobody'} {n}" for name, n in sorted(Counter(went).items())),
    )


async def _fail_over(
    scene: Scene, balancer: ScriptProcess, servers: list[Rras], page: Page
) -> None:
    page.part("It fails over before the hand-over")
    servers[0].fault = Fault.NO_PORTS
    before = servers[0].calls_total
    placed = [await scene.call(balancer.address, 100 + n) for n in range(3)]
    asked = [scene.journal.of(one.report.correlation_id) for one in placed]
    moved = next((n for n, found in enumerate(asked) if len(found) > 1), None)
    if moved is not None:
        page.show(
            scene.sequence("rras1 has no port left", placed[moved], middle="hundred lines",
                           brief=True)
        )  # fmt: skip
    ok = sum(one.report.ok for one in placed)
    page.claim(
        "When a server refuses, another is asked, and the client notices nothing",
        "rras1 was made to refuse; three new clients called; the servers that were asked were read",
        holds=ok == len(placed) and moved is not None and servers[0].calls_total == before,
        evidence=f"{ok} of {len(placed)} calls went well; "
        f"{sum(len(found) > 1 for found in asked)} had to ask twice",
    )
    page.say(
        "What it does not do: look after its servers between calls, limit anybody, reload, drain, "
        "explain, count. That is what the other lines of this package are for."
    )


LESSON = Lesson(
    number=10,
    slug="a-hundred-lines",
    title="Build a balancer in a hundred lines",
    why=WHY,
    play=play,
    question="Make it a re-encrypting balancer. Which lines must change, and which check must you "
    "add so that no call connects and then disconnects? Where would you put a health check, so "
    "that a stopped server is not asked by every first client?",
    answer="The dial gets a TLS policy (`Way(..., policy=ClientPolicy(...))`), and after it the "
    "leaf the server has shown must be compared with the one the client was shown: if they "
    "differ, the next candidate. `net/failover.py` does it in `_insist_on_same_certificate`. A "
    "health check is a task beside `listen` that calls `net/probe.py` for each backend and "
    "reports to `backend.health`; the pool's candidates respect it already.",
    proves="The package's rooms can be used alone: with them a correct SSTP balancer, crypto "
    "binding, affinity and failover included, is a hundred lines.",
    breaks=(
        Break(
            "one-backend",
            "the program is given one server only",
            "there are no turns to give, and nobody else to ask",
            (
                "It gives the servers their turns",
                "When a server refuses, another is asked",
            ),
        ),
    ),
)
