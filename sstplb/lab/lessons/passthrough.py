"""Lesson 3: passthrough, and what the balancer cannot see.

Two wires, one before and one behind the balancer, show that the bytes are the same; and what
those bytes show to somebody without keys.
"""

from typing import Any

from sstplb.lab.lessons import anatomy
from sstplb.lab.lessons.page import Break, Lesson, Listing, Page, Table
from sstplb.lab.lessons.scene import NAME, USER, Placed, Scene
from sstplb.lab.lessons.wire import Connection, Wire
from sstplb.lab.lessons.wording import log_line, short
from sstplb.lab.process import BalancerProcess
from sstplb.protocol.packet import Packet
from sstplb.tls.hello import RECORD_HEADER_BYTES

WHY = """
In passthrough mode the balancer does not end TLS. It picks a server and copies bytes. Nothing has
to be configured on the servers, the crypto binding holds by itself, and the balancer never has a
user's data in its hands. Kemp and F5 recommend it for SSTP, and so do we, unless you need more.

What is the price? A balancer that sees only ciphertext cannot tell a call that works from one that
does not. You will see exactly how much it knows.
"""


async def play(scene: Scene, page: Page) -> None:
    """Place a good call and one that fails; compare what the balancer knows of them."""
    certificate = scene.certificate()
    mode = "offload" if scene.is_broken("terminate") else "passthrough"
    server = await scene.rras("rras1", certificate)
    behind = await scene.wire(dict(scene.reach(mode, server))["rras1"])
    pools = {"vpn": scene.pool(mode, ("rras1", behind.address))}
    listeners = [scene.listener("vpn", mode, certificate)]
    balancer = await scene.balancer("balancer", listeners, pools)
    before = await scene.wire(balancer.addresses["vpn"])
    page.say(
        "One server, one balancer in passthrough mode, and two wires that we listen to: one in "
        "front of the balancer, one behind it. We also listen in on the client and on the server, "
        "inside TLS, to know what was really said."
    )
    checks = len(behind.connections)
    good = await scene.call(before.address, 1)
    (first,) = await balancer.wait_for("call_ended", listener="vpn")
    bad = await scene.call(before.address, 2, password="wrong")  # noqa: S106
    ended = await balancer.wait_for("call_ended", 2, listener="vpn")
    page.part("The call")
    sealed = mode == "passthrough"
    page.show(
        scene.sequence("Drawn double: inside TLS that goes right through", good,
                       middle="sstplb", sealed=sealed)
    )  # fmt: skip
    carried = _carried(behind, before.connections[0], checks)
    _show_wire(before.connections[0], carried, good, page)
    _show_certificate(good, certificate.certificate.sha256, page)
    _show_knowledge(first, page)
    _show_ignorance(first, ended, good, bad, page)
    _measure(before.connections[0], good, balancer, page)


def _carried(behind: Wire, before: Connection, checks: int) -> Connection | None:
    """Return the connection behind the balancer that carried the same bytes; checks are others."""
    for connection in behind.connections[checks:]:
        if connection.from_client == before.from_client:
            return connection
    return None


def _show_wire(before: Connection, carried: Connection | None, good: Placed, page: Page) -> None:
    page.part("The bytes on the wire")
    found = anatomy.records(bytes(before.from_client))
    page.say(
        "**The first thing a client says** is readable: the ClientHello names the server it "
        "wants. It is all a passthrough balancer may choose a pool by."
    )
    page.show(anatomy.record(found[0]))
    last = [said for said in good.heard.sayings if said.by_client][-1]
    size = len(last.raw) + anatomy.SEAL_BYTES
    ends = [r for r in found if len(r) - RECORD_HEADER_BYTES == size]
    page.say(
        "**Everything later** is application data. Below is the record with the last thing the "
        "client said, and what that was, as read inside TLS. Only the size betrays something: it "
        "is "
        f"{anatomy.SEAL_BYTES} bytes more than what is inside."
    )
    page.show(anatomy.record((ends or found)[-1]))
    if isinstance(last.what, Packet):
        page.show(anatomy.packet(last.what, f"What is inside: {last.text}"))
    page.claim(
        "The balancer passes on exactly the bytes it gets, both ways",
        "the streams on the wire before and behind it were compared, byte for byte",
        holds=carried is not None and carried.from_server == before.from_server,
        evidence=f"{len(before.from_client)} and {len(before.from_server)} bytes, the same"
        if carried is not None
        else "no connection behind the balancer carried the client's bytes",
    )
    seen = bytes(before.from_client + before.from_server)
    words = {"the server's name": NAME, "the method": "SSTP_DUPLEX_POST", "the user": USER}
    where = {what: text.encode() in seen for what, text in words.items()}
    page.claim(
        "On the wire the server's name can be read; the SSTP request and the user's name cannot",
        "the bytes of the connection were searched for all three",
        holds=where == {"the server's name": True, "the method": False, "the user": False},
        evidence=", ".join(f"{k}: {'found' if v else 'not found'}" for k, v in where.items()),
    )


def _show_certificate(good: Placed, sha256: bytes, page: Page) -> None:
    shown = good.report.certificate
    page.claim(
        "The client sees the server's own certificate, so its crypto binding holds, and nothing "
        "had to be configured anywhere",
        "the certificate's SHA-256 was compared with the server's file; the call went to its end",
        holds=good.report.ok and shown is not None and shown.sha256 == sha256,
        evidence="no certificate was seen" if shown is None else f"SHA-256 {short(shown.sha256)}",
    )


def _show_knowledge(first: dict[str, Any], page: Page) -> None:
    page.part("What the balancer knows")
    page.show(Listing("Its log of the good call, every value there is", log_line(first)))
    hidden = ("correlation_id", "tls_version", "packets_in", "user")
    page.claim(
        "Of the call itself the balancer knows nothing: no correlation id, no TLS version, no "
        "packets, no user",
        "its JSON log was searched for these values",
        holds=not any(first.get(name) is not None for name in hidden),
        evidence=", ".join(f"{n}: {first[n]}" for n in hidden if first.get(n) is not None)
        or "none",
    )


def _show_ignorance(
    first: dict[str, Any], ended: list[dict[str, Any]], good: Placed, bad: Placed, page: Page
) -> None:
    second = next(call for call in ended if call["call"] != first["call"])
    said = tuple((str(call["outcome"]), str(call["reason"])) for call in (first, second))
    rows = (
        ("right password", "connected, pinged, hung up", " / ".join(said[0])),
        ("wrong password", bad.failed_with or "connected", " / ".join(said[1])),
    )
    columns = ("caller", "what the caller lived", "what the balancer wrote")
    page.show(Table("Two calls, seen from both sides", columns, rows))
    page.claim(
        "A call that failed looks like one that went well: the balancer calls both completed, and "
        "has nothing to say about either",
        "a call with a wrong password was placed, and both log lines were compared",
        holds=good.report.ok
        and not bad.report.ok
        and said[0][0] == said[1][0] == "completed"
        and not any(call.get("detail") for call in (first, second)),
        evidence=f"{' / '.join(said[0])} and {' / '.join(said[1])}",
    )


def _measure(wire: Connection, good: Placed, balancer: BalancerProcess, page: Page) -> None:
    inside = sum(len(said.raw) for said in good.heard.sayings)
    page.measured(
        "On the wire for each byte of SSTP inside", f"{wire.size / inside:.2f} bytes",
        f"{wire.size} bytes on the wire, {inside} of SSTP; a short call, so handshake and "
        "certificate weigh much",
    )  # fmt: skip
    if sent := [call["duration_s"] for call in balancer.find("call_ended")]:
        page.measured(
            "How long the good call and the bad one lasted",
            f"{sent[0] * 1000:.0f} and {sent[1] * 1000:.0f} ms",
            "duration_s of the balancer's log: durations and sizes are what is left to judge by",
        )


LESSON = Lesson(
    number=3,
    slug="passthrough",
    title="Passthrough: what the balancer cannot see",
    why=WHY,
    play=play,
    question="A user calls: 'It connects, then it disconnects.' Your balancer is in passthrough "
    "mode and its log says `completed` for every call. Which values in that log line can still "
    "help you, and where else would you look?",
    answer="The line has the client's address and port, the time, the server that was chosen, how "
    "long the call lasted and how many bytes went each way: a call of a few kilobytes and half a "
    "second is no VPN session. With time and server you find the call in that server's event log; "
    "on the client, RasClient and RasSstp events carry the correlation id, which the server logs "
    "too. To see more on the balancer itself, TLS must end there: offload or re-encrypt.",
    proves="Passthrough changes no byte and needs no configuration; for that the balancer knows a "
    "name, an address, times and sizes, and cannot tell a failed call from a good one.",
    breaks=(
        Break(
            "terminate",
            "the listener ends TLS (offload) instead of passing it through",
            "the balancer sees all that it should not have seen, and tells the two calls apart by "
            "how they ended",
            (
                "The balancer passes on exactly the bytes",
                "Of the call itself the balancer knows nothing",
            ),
        ),
    ),
)
