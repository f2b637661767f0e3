"""Lesson 4: offload, and where the CPU goes.

The same calls go through a balancer in each mode, to a server in a process of its own. The CPU of
both processes is read from /proc before and after; nothing else runs in them.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from sstplb.lab.caller import CallReport, place_calls
from sstplb.lab.lessons.page import Bar, Bars, Break, Lesson, Page, Table
from sstplb.lab.lessons.scene import Scene
from sstplb.lab.lessons.wording import ms
from sstplb.lab.pki import Issued, KeyKind
from sstplb.lab.process import BalancerProcess, RrasProcess
from sstplb.tls.certificate import load_identity

WHY = """
TLS costs CPU twice. **Once per call**, in the handshake, where the server signs with its private
key; most RRAS servers have an RSA key, and RSA is slow at signing. **And per byte**, for every
packet is encrypted here and decrypted there.

Offload takes both from the RRAS server and gives them to the balancer; re-encrypt gives the
balancer the work and relieves the server of nothing. The price of offload is that the server can no
longer know which certificate the client saw: it must be told. That is the next lesson. This one
asks where the CPU goes, and measures it on both sides.
"""
MODES = ("passthrough", "offload", "reencrypt")
ROUNDS = 5
SHORT_CALLS = 5
"""In each round, in each mode."""
SIGNATURES = 50
LARGE_CALLS = 1
LARGE_BYTES = 500_000
METHOD = (
    "CPU time of the balancer's process and of the server's (clock_getcpuclockid(3): user and "
    f"kernel, all threads), before and after; the median of {ROUNDS} rounds, the modes in turn, "
    "after a warm-up. Callers run in a third process and are not counted."
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call cost both sides, in CPU seconds."""

    balancer_s: float
    server_s: float
    calls: int
    ok: int

    def bar(self, name: str) -> Bar:
        """Return it in milliseconds."""
        parts = (("balancer", 1000 * self.balancer_s), ("server", 1000 * self.server_s))
        return Bar(name, parts)


async def play(scene: Scene, page: Page) -> None:
    """Measure both sides in the three modes, for many short calls and a few large ones."""
    certificate = scene.certificate(kind=KeyKind.RSA)
    server = await scene.rras_process("rras1", certificate, certificate)
    balancers = dict(
        zip(MODES, await asyncio.gather(*(_balancer(scene, m, server, certificate) for m in MODES)),
            strict=True)
    )  # fmt: skip
    page.say(
        "One simulated RRAS server in a process of its own, with an RSA certificate of 2048 bits, "
        "and one balancer process for each mode. The same calls go through each of them, one mode "
        "after the other, and both processes' CPU is read before and after."
    )
    _show_signing(certificate, scene.certificate("ec", KeyKind.P256), page)
    await _load(scene, balancers, server, SHORT_CALLS, 1000)  # warm: imports, caches, JITs
    page.part("Many short calls: the handshake")
    short = await _rounds(scene, balancers, server, SHORT_CALLS, 0)
    title = "CPU for each call that connects, pings and hangs up"
    page.show(Bars(title, "ms", tuple(cost.bar(mode) for mode, cost in short.items()), METHOD))
    page.part("A few large calls: the bytes")
    large = await _rounds(scene, balancers, server, LARGE_CALLS, LARGE_BYTES)
    title = f"CPU for each call that sends {LARGE_BYTES / 1e6:g} MB and gets it back"
    page.show(Bars(title, "ms", tuple(cost.bar(mode) for mode, cost in large.items()), METHOD))
    page.say(
        "**Read the server's part with care.** This server is a simulation: its PPP and its echo "
        "are Python and weigh far more per byte than RRAS in the Windows kernel does, so that the "
        "TLS it is spared hardly shows in the large calls. What a real RRAS saves, you must "
        "measure on a real RRAS. **The balancer's part** is the real thing. Its "
        "resumption of TLS sessions with servers, which spares both sides most of the second "
        "handshake, is switched off here, so that every handshake is a whole one."
    )
    page.show(_table(short, large))
    _claim(page, short, large)


def _show_signing(rsa_files: Issued, ec_files: Issued, page: Page) -> None:
    """Measure what one signature costs, for it is what a handshake is about."""
    rsa_key, ec_key = (load_identity(one.files).key for one in (rsa_files, ec_files))
    assert isinstance(rsa_key, rsa.RSAPrivateKey), "as issued"
    assert isinstance(ec_key, ec.EllipticCurvePrivateKey), "as issued"
    text, pss = b"a handshake's transcript", padding.PSS(padding.MGF1(SHA256()), SHA256.digest_size)
    each = [
        _cpu_ms(lambda: rsa_key.sign(text, pss, SHA256())),
        _cpu_ms(lambda: ec_key.sign(text, ec.ECDSA(SHA256()))),
    ]
    bars = (Bar("RSA, 2048 bits", (("one signature", each[0]),)),
            Bar("elliptic curve P-256", (("one signature", each[1]),)))  # fmt: skip
    method = f"CPU time of this process for {SIGNATURES} signatures with each key"
    page.show(Bars("What one signature costs, here", "ms", bars, method))


def _cpu_ms(work: Callable[[], object]) -> float:
    work()
    began = time.process_time()
    for _ in range(SIGNATURES):
        work()
    return 1000 * (time.process_time() - began) / SIGNATURES


async def _balancer(
    scene: Scene, mode: str, server: RrasProcess, certificate: Issued
) -> BalancerProcess:
    kind = "reencrypt" if mode == "offload" and scene.is_broken("no-offload") else mode
    address = server.http if kind == "offload" else server.https
    # One check at the beginning and then none: what is measured are the calls.
    check = {"interval": "60s", "timeout": "5s"}
    tls = {"session_resumption": False} if kind == "reencrypt" else {}
    pools = {mode: scene.pool(kind, ("rras1", address), check=check, tls=tls)}
    listeners = [scene.listener(mode, kind, certificate)]
    return await scene.balancer(mode, listeners, pools)


async def _rounds(
    scene: Scene, balancers: dict[str, BalancerProcess], server: RrasProcess, calls: int, size: int
) -> dict[str, Cost]:
    """Measure in rounds, so that whatever else the machine does falls on every mode alike."""
    rounds = [await _load(scene, balancers, server, calls, size) for _ in range(ROUNDS)]
    costs = {}
    for mode in MODES:
        mine = [found[mode] for found in rounds]
        costs[mode] = Cost(
            median(cost.balancer_s for cost in mine), median(cost.server_s for cost in mine),
            sum(cost.calls for cost in mine), sum(cost.ok for cost in mine),
        )  # fmt: skip
    return costs


async def _load(
    scene: Scene, balancers: dict[str, BalancerProcess], server: RrasProcess, calls: int, size: int
) -> dict[str, Cost]:
    """Place calls through each balancer in turn; return what they cost."""
    costs = {}
    for mode, balancer in balancers.items():
        address = balancer.addresses[mode]
        plans = [scene.plan(address, client=1 + n, data_bytes=size) for n in range(calls)]
        before = balancer.cpu_s(), server.cpu_s()
        ended = len(balancer.find("call_ended"))
        reports: list[CallReport] = [report async for report in place_calls(plans, at_once=4)]
        await balancer.wait_for("call_ended", ended + calls)
        ours, theirs = balancer.cpu_s() - before[0], server.cpu_s() - before[1]
        ok = sum(report.ok for report in reports)
        costs[mode] = Cost(ours / calls, theirs / calls, calls, ok)
    return costs


def _table(short: dict[str, Cost], large: dict[str, Cost]) -> Table:
    moved = 2 * LARGE_BYTES / 1e6
    rows = tuple(
        (
            mode,
            str(handshakes),
            *(f"{1000 * cost:.2f} ms" for cost in (short[mode].balancer_s, short[mode].server_s)),
            *(f"{1000 * cost / moved:.2f} ms"
              for cost in (large[mode].balancer_s, large[mode].server_s)),
        )
        for handshakes, mode in enumerate(MODES)
    )  # fmt: skip
    columns = (
        "mode", "TLS here", "balancer/call", "server/call", "balancer/MB", "server/MB",
    )  # fmt: skip
    return Table("In figures (measured on this run; MB counts both ways)", columns, rows)


def _claim(page: Page, short: dict[str, Cost], large: dict[str, Cost]) -> None:
    everything = (*short.values(), *large.values())
    ok, wanted = sum(c.ok for c in everything), sum(c.calls for c in everything)
    page.claim(
        "Every call went well in every mode, so it is the same work that is compared",
        "each call went to its end, and its data came back the same",
        holds=ok == wanted,
        evidence=f"{ok} of {wanted} calls",
    )
    here, there = short["passthrough"].server_s, short["offload"].server_s
    calls = short["offload"].calls
    page.claim(
        "Offload takes the handshake off the server: it used at least a fifth less CPU than in "
        "passthrough",
        "the server process's CPU for the short calls was compared",
        holds=there < 0.8 * here,
        evidence=f"{ms(here)} a call in passthrough, {ms(there)} with offload, {calls} calls each",
    )
    page.claim(
        "Re-encrypt relieves the server of nothing: with it the server used at least a fifth more "
        "CPU than with offload",
        "the server's CPU for the short calls in re-encrypt was compared with offload's",
        holds=short["reencrypt"].server_s > 1.2 * there,
        evidence=f"{ms(short['reencrypt'].server_s)} and {ms(there)} a call",
    )
    copies, seals = large["passthrough"].balancer_s, large["offload"].balancer_s
    page.claim(
        "The work has moved to the balancer: with offload it used more CPU than in passthrough, "
        "for short calls and for large ones",
        "the balancer processes' CPU was compared, for both kinds of calls",
        holds=seals > copies and short["offload"].balancer_s > short["passthrough"].balancer_s,
        evidence=", ".join(
            f"{kind} {ms(cost['passthrough'].balancer_s)} and {ms(cost['offload'].balancer_s)}"
            for kind, cost in (("short", short), ("large", large))
        ),
    )
    page.measured(
        "CPU of the server saved by offload, each call", ms(here - there),
        f"the difference of two bars, {calls} calls, RSA-2048, simulated server",
    )  # fmt: skip
    moved = 2 * LARGE_BYTES / 1e6
    page.measured(
        "CPU the balancer pays for it, each MB", f"{1000 * (seals - copies) / moved:.2f} ms",
        "the difference of two bars, both ways counted",
    )  # fmt: skip


LESSON = Lesson(
    number=4,
    slug="offload",
    title="Offload: where the CPU goes",
    why=WHY,
    play=play,
    question="Your RRAS servers have 300 users each who call once in the morning and stay all "
    "day, moving a few megabytes a minute. The servers' CPU is at 10 %. What would offload save "
    "you, and what would you have to do for ever after? At what kind of load would you change "
    "your mind?",
    answer="It would save a few milliseconds per user and day for the handshakes, and the "
    "encryption of a trickle: nothing you could see at 10 %. In return you must tell every server "
    "the new certificate's hash at every renewal, and between balancer and servers users' packets "
    "travel in the clear. Handshakes matter when a thousand users call in the same minute (after "
    "a power cut, or when a balancer restarts), bytes when the servers' cores are busy with TLS. "
    "Measure first.",
    proves="TLS is paid by whoever ends it: offload takes the handshake off the server and puts "
    "the bytes on the balancer; re-encrypt relieves the server of nothing. The figures are the "
    "run's; only their order is claimed.",
    breaks=(
        Break(
            "no-offload",
            "the offload listener really re-encrypts",
            "the server does its handshake in every mode, and offload differs in nothing from "
            "re-encrypt",
            (
                "Offload takes the handshake off the server",
                "Re-encrypt relieves the server of nothing",
            ),
        ),
    ),
)
