"""Lesson 6: re-encrypt. Why the same certificate, what it costs, what inspection sees."""

import json
from typing import Any

from sstplb.account.diagnosis import diagnose
from sstplb.lab.lessons.page import Bar, Bars, Break, Lesson, Listing, Page, Remark, Table
from sstplb.lab.lessons.scene import NAME, USER, Placed, Scene
from sstplb.lab.lessons.wire import Wire
from sstplb.lab.lessons.wording import log_line, ms, short
from sstplb.lab.pki import Issued
from sstplb.lab.process import BalancerProcess
from sstplb.protocol.packet import Packet

WHY = """
Re-encrypt ends the client's TLS at the balancer, and speaks TLS again to the server. Nothing
travels in the clear, the server need not be reconfigured, and still the balancer sees inside: who
calls, how far a call came, why it ended. It is what one takes who must inspect.

The price is the **same-certificate rule**. The client signs the certificate **it** saw, which is
the balancer's; the server compares with **its own**, and cannot be told another. So both must hold
the very same certificate, with its private key. Two certificates for the same name, from the same
CA, are not the same.
"""
PASSWORD = "correct horse battery staple"  # noqa: S105 - of the lesson's only account
CALLS = 3


async def play(scene: Scene, page: Page) -> None:
    """Re-encrypt to a server with the same certificate, and to one with another."""
    served = scene.certificate()
    other = served if scene.is_broken("same-everywhere") else scene.certificate("other")
    accounts = {USER: PASSWORD}
    same = await scene.rras("rras1", served, accounts=accounts)
    odd = await scene.rras("rras2", other, accounts=accounts)
    assert same.https is not None, "it listens"
    behind = await scene.wire(same.https)
    rule_off = {"tls": {"same_certificate": "off"}}
    pools = {
        "same": scene.pool("reencrypt", ("rras1", behind.address), check={"interval": "60s"}),
        "other": scene.pool("reencrypt", *scene.reach("reencrypt", odd)),
        "rule-off": scene.pool("reencrypt", *scene.reach("reencrypt", odd), **rule_off),
    }
    listeners = [scene.listener(name, "reencrypt", served) for name in pools]
    balancer = await scene.balancer("balancer", listeners, pools)
    page.say(
        "Two servers. **rras1** has the balancer's certificate, **rras2** one of its own, for the "
        "same name and from the same CA. Nothing was told to either of them. A wire between the "
        "balancer and rras1 is listened to."
    )
    await _carried(scene, balancer, behind, served, page)
    await _refused(scene, balancer, page)
    await _unruled(scene, balancer, other, page)


# --- the same certificate -----------------------------------------------------------------------


async def _carried(
    scene: Scene, balancer: BalancerProcess, behind: Wire, served: Issued, page: Page
) -> None:
    checks = len(behind.connections)
    address = balancer.addresses["same"]
    placed = [await scene.call(address, 1, password=PASSWORD) for _ in range(CALLS)]
    ended = await balancer.wait_for("call_ended", CALLS, listener="same")
    first, wires = placed[0], behind.connections[checks:]
    page.part("TLS twice")
    hello = Remark(wires[0].opened_s, "sstplb",
                   f"connects, shakes hands as {NAME}'s client, compares certificates")  # fmt: skip
    page.show(scene.sequence("One call, two TLS legs", first, middle="sstplb", brief=True,
                             remarks=(hello,)))  # fmt: skip
    shown = first.report.certificate
    page.claim(
        "With the same certificate on both, the binding holds, and no server was told anything",
        "the call went to its end; the certificate the client saw was compared with the file",
        holds=first.report.ok and shown is not None and shown.sha256 == served.certificate.sha256,
        evidence=first.failed_with or f"SHA-256 {short(served.certificate.sha256)}",
    )
    seen = bytes(wires[0].from_client + wires[0].from_server)
    page.claim(
        "Behind the balancer everything is inside TLS again",
        "the wire to rras1 was searched for the method and for the user's name",
        holds=bool(seen) and b"SSTP_DUPLEX_POST" not in seen and USER.encode() not in seen,
        evidence=f"{len(seen)} bytes on the wire, neither was found",
    )
    _show_inspection(balancer, first, ended[0], page)
    _show_cost(ended, [len(wire.from_server) for wire in wires], served, page)


def _show_inspection(
    balancer: BalancerProcess, placed: Placed, ended: dict[str, Any], page: Page
) -> None:
    page.part("What the balancer sees")
    told = ("user", "computer", "address", "authentication", "authenticated_s", "address_s",
            "correlation_id", "packets_in", "packets_out", "ended_by", "reason")  # fmt: skip
    page.show(Listing("From its log: who called, and how",
                      log_line(ended, *told)))  # fmt: skip
    steps = sorted(dict(ended.get("steps", {})).items(), key=lambda step: float(step[1]))
    details = dict(ended.get("step_details", {}))
    rows = tuple((ms(float(at)), name, str(details.get(name, ""))) for name, at in steps)
    page.show(Table("The call's story, as the balancer followed it", ("after", "step", ""), rows))
    page.say(
        "All of this it read in passing; it changed nothing. What of it is written is decided by "
        "`privacy:` (shown, hashed or hidden). What is never written are challenges, responses and "
        "passwords."
    )
    page.claim(
        "The balancer knows the user, the computer's name and the address inside the tunnel",
        "the log's values were compared with what the caller used and was given",
        holds=ended.get("user") == USER
        and bool(ended.get("computer"))
        and ended.get("address") == placed.report.address,
        evidence=f"{ended.get('user')} at {ended.get('computer')} has {ended.get('address')}",
    )
    secrets = [PASSWORD.encode().hex(), PASSWORD, *_secrets(placed)]
    written = json.dumps(balancer.events) + balancer.said()
    page.claim(
        "It writes no password, no challenge and no response",
        "everything it had logged so far was searched for them, as text and in hexadecimal",
        holds=len(secrets) > 2 and not any(secret in written for secret in secrets),
        evidence=f"{len(written)} characters searched for {len(secrets)} secrets",
    )


def _secrets(placed: Placed) -> list[str]:
    """Return what authenticated, in hexadecimal: the values of challenge and response."""
    frames = [
        said.what.payload for said in placed.heard.sayings
        if isinstance(said.what, Packet) and said.text in ("CHAP Challenge", "CHAP Response")
    ]  # fmt: skip
    # After ff03, protocol, code, identifier, length and value size come 16 bytes or more of value.
    return [frame[9:25].hex() for frame in frames]


def _show_cost(ended: list[dict[str, Any]], sizes: list[int], served: Issued, page: Page) -> None:
    page.part("What it costs")
    first, last = ended[0], ended[-1]
    bars = tuple(
        Bar(name, (("client's TLS", 1000 * float(call["tls_s"])),
                   ("dial, TLS and answer of rras1", 1000 * float(call["reach_s"]))))
        for name, call in (("first call", first), (f"call {CALLS}", last))
    )  # fmt: skip
    method = "tls_s and reach_s of the balancer's log; both ends on this machine"
    page.show(Bars("Time until the 200, by leg", "ms", bars, method))
    leaf = len(served.certificate.leaf_der)
    page.say(
        "Every call needs two handshakes. For the second one the balancer resumes the session it "
        "had with that server, as a browser does: then the server neither signs nor sends its "
        "certificate "
        f"again ({leaf} bytes here; a chain with intermediates has thousands)."
    )
    page.claim(
        "From the second call on, the server does not send its certificate again: TLS is resumed",
        "the server's bytes on the wire of each call were compared with the certificate's size",
        holds=len(sizes) >= CALLS and sizes[0] - sizes[-1] > leaf // 2,
        evidence=f"the server's bytes: {', '.join(map(str, sizes))}; the certificate has {leaf}",
    )
    page.measured(
        "The server's bytes on the wire saved by resuming TLS, each call",
        f"{sizes[0] - sizes[-1]} bytes", "first call less last call, same length inside",
    )  # fmt: skip


# --- another certificate ------------------------------------------------------------------------


async def _refused(scene: Scene, balancer: BalancerProcess, page: Page) -> None:
    placed = await scene.call(balancer.addresses["other"], 4, password=PASSWORD)
    (ended,) = await balancer.wait_for("call_ended", listener="other")
    page.part("Another certificate, and the rule is kept")
    said = [event["message"] for event in balancer.find("certificate_mismatch", pool="other")]
    said = said or [
        event["message"] for event in balancer.find("certificate_mismatch", backend="rras2")
    ]
    page.show(Listing("The balancer's log", (*said[:1], f"{ended['reason']}: {ended['detail']}")
                      if "detail" in ended else (ended["reason"],)))  # fmt: skip
    head = placed.heard.head(by_client=False)
    page.claim(
        "A server with another certificate gets no call: the client is refused before it can hurt",
        "the calls that reached rras2 were counted, and the client's answer was read",
        holds=scene.servers["rras2"].calls_total == 0 and ended["reason"] == "no_backend_available",
        evidence=f"{scene.servers['rras2'].calls_total} calls at rras2; the client got "
        f"{head.text if head is not None else 'nothing'}",
    )


async def _unruled(scene: Scene, balancer: BalancerProcess, other: Issued, page: Page) -> None:
    placed = await scene.call(balancer.addresses["rule-off"], 5, password=PASSWORD)
    (ended,) = await balancer.wait_for("call_ended", listener="rule-off")
    page.part("Another certificate, and the rule is off")
    page.show(scene.sequence("same_certificate: off", placed, middle="sstplb", brief=True))
    for found in diagnose(ended):
        lines = (found.sentence, *(f"- {fact}" for fact in found.evidence), "", found.remedy)
        page.show(Listing(f"sstplb explain: {found.cause}", lines))
    causes = [str(found.cause) for found in diagnose(ended)]
    page.claim(
        "Without the rule the call connects and then disconnects; the balancer can say why, for it "
        "knows both certificates",
        "the rule was switched off; what the client lived and the diagnosis were read",
        holds=placed.failed_with == "binding_refused"
        and causes == ["different_certificate"]
        and other.certificate.sha256.hex() in json.dumps(ended),
        evidence=f"{placed.failed_with or 'the call went well'}; {', '.join(causes) or 'no cause'}",
    )


LESSON = Lesson(
    number=6,
    slug="reencrypt",
    title="Re-encrypt: why the same certificate",
    why=WHY,
    play=play,
    question="Somebody proposes: 'We renew the certificate with the same private key, on the "
    "balancer first and on the servers next week. The key is the same, so the binding will hold.' "
    "What happens in that week? And would passthrough have the same trouble?",
    answer="The binding is about the certificate, not the key: a renewal has another serial "
    "number and other dates, so another hash. In that week every call would be refused at the "
    "binding, or, with the rule kept, get no server at all. The balancer must serve, for each "
    "server, the certificate that this server has: lesson 9 rolls one over, server by server. "
    "Passthrough has no such trouble: each client sees the certificate of the server it ends up "
    "at, whichever that is.",
    proves="Re-encrypt works without telling servers anything if both hold the very same "
    "certificate; with another one calls die at the binding, and the balancer can know "
    "beforehand. It sees who calls, and writes no secret.",
    breaks=(
        Break(
            "same-everywhere",
            "rras2 has the same certificate too",
            "it gets calls like rras1, with the rule and without",
            (
                "A server with another certificate gets no call",
                "Without the rule the call connects and then disconnects",
            ),
        ),
    ),
)
