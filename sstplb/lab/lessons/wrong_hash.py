"""Lesson 5: the wrong hash, and how the crypto binding catches a man in the middle.

First an offloaded server that was told another certificate's hash. Then a box in the path that ends
TLS, as companies' inspection and attackers do alike: it passes everything on, and is caught; it
writes the right hash into the packet, and is caught again.
"""

import asyncio
from typing import Any

from sstplb.account.diagnosis import diagnose
from sstplb.lab.lessons import anatomy
from sstplb.lab.lessons.page import Break, Lesson, Listing, Page, Table
from sstplb.lab.lessons.scene import Placed, Scene
from sstplb.lab.lessons.wording import ms, short
from sstplb.lab.pki import Issued
from sstplb.lab.process import BalancerProcess
from sstplb.protocol.packet import CryptoBinding, Packet, parse_message
from sstplb.protocol.registry import ABORT_SENDER_TIMEOUT_S, AttributeId, MessageType

WHY = """
"It connects, then it disconnects." The user sees the spinner, the password is right, for a moment
there is even a connection, and then it is gone. This is the most common complaint about SSTP behind
balancers, and neither the client nor the balancer's usual log says why.

The cause is almost always a hash. The client signs **which certificate it saw**, and the server
compares. A balancer that ends TLS shows the client its own certificate; so the server must have
been told that one. If it was told another, every call ends right after authentication.

Is that only a nuisance? You will also see what it is for: the same comparison catches everybody who
sits in the path and ends TLS there.
"""
WAIT_STEPS = int(100 * (ABORT_SENDER_TIMEOUT_S + 2))


async def play(scene: Scene, page: Page) -> None:
    """Tell a server the wrong hash; then put a man in the middle, twice."""
    served = scene.certificate()
    old = scene.certificate("last-year")
    told = served if scene.is_broken("right-hash") else old
    wrong = await scene.rras("rras1", served, told)
    right = await scene.rras("rras2", served, served)
    pools = {
        "told-last-years": scene.pool("offload", *scene.reach("offload", wrong)),
        "told-ours": scene.pool("offload", *scene.reach("offload", right)),
    }
    listeners = [scene.listener(name, "offload", served) for name in pools]
    balancer = await scene.balancer("balancer", listeners, pools)
    page.say(
        "Two offloaded servers behind one balancer. The certificate was renewed last week; "
        "**rras2** was told the new one's hash, **rras1** was forgotten and still expects last "
        "year's."
    )
    await _refused(scene, balancer, served, old, page)
    await _cured(scene, balancer, page)
    await _middle(scene, balancer, served, page)


# --- the wrong hash -----------------------------------------------------------------------------


async def _refused(
    scene: Scene, balancer: BalancerProcess, served: Issued, old: Issued, page: Page
) -> None:
    placed = await scene.call(balancer.addresses["told-last-years"])
    (ended,) = await balancer.wait_for("call_ended", listener="told-last-years")
    page.part("A server that was told the wrong hash")
    title = "Authenticated, bound, and thrown out"
    page.show(scene.sequence(title, placed, middle="sstplb", brief=True))
    bound = placed.heard.find(MessageType.CALL_CONNECTED)
    aborted = placed.heard.find(MessageType.CALL_ABORT)
    page.say(
        "**What the client signed**, and **what the server answered**. Attribute 3 is the crypto "
        "binding, status 4 says: this value is not supported. Nonce, hash and signature all look "
        "the same here; the server does not say which it was."
    )
    for said in (bound, aborted):
        if said is not None and isinstance(said.what, Packet):
            page.show(anatomy.packet(said.what))
    _show_diagnosis(ended, page)
    seen = _certificate_hash(placed)
    rows = (
        ("the client saw", short(seen) if seen else "?"),
        ("the balancer serves", short(served.certificate.sha256)),
        ("rras1 was told", short(old.certificate.sha256)),
    )
    page.show(Table("Three hashes that should be one", ("whose", "SHA-256"), rows))
    page.claim(
        "The call is refused after the password was found right, at the crypto binding",
        "what the client heard was searched for CHAP Success, then for the abort and its status",
        holds=any(said.text == "CHAP Success" for said in placed.heard.sayings)
        and placed.failed_with == "binding_refused",
        evidence=placed.report.failure.sentence if placed.report.failure else "the call went well",
    )
    page.claim(
        "The client signed the hash of the certificate that the balancer serves, which is not the "
        "one the server was told",
        "the hash was cut out of CALL_CONNECTED and compared with both certificate files",
        holds=seen == served.certificate.sha256 and ended["reason"] == "binding_refused",
        evidence=f"signed {short(seen)}" if seen else "nothing was signed",
    )
    causes = [str(found.cause) for found in diagnose(ended)]
    page.claim(
        "The balancer names the cause, and the command that mends it, from its own log line",
        "the diagnosis of `sstplb explain` was made of that line",
        holds=causes == ["wrong_offload_hash"]
        and served.certificate.sha256.hex().upper() in diagnose(ended)[0].remedy,
        evidence=", ".join(causes) or "nothing was found wrong",
    )
    first = next((s for s in placed.heard.sayings if s.text == "HTTP 200"), None)
    if first is not None and aborted is not None:
        page.measured(
            "How long it looked connected", ms(aborted.at_s - first.at_s),
            "from the 200 to the abort, as the client heard them",
        )  # fmt: skip


def _show_diagnosis(ended: dict[str, Any], page: Page) -> None:
    for found in diagnose(ended):
        lines = (found.sentence, *(f"- {fact}" for fact in found.evidence), "", found.remedy)
        lines = (f"$ sstplb explain {ended.get('correlation_id', ended['call'])}", "", *lines)
        page.show(Listing(f"sstplb explain: {found.cause}", lines))


async def _cured(scene: Scene, balancer: BalancerProcess, page: Page) -> None:
    placed = await scene.call(balancer.addresses["told-ours"], 2)
    page.claim(
        "The same client through the same balancer is served well by the server that was told the "
        "right hash",
        "a second call was placed, to its end",
        holds=placed.report.ok,
        evidence=placed.failed_with or f"connected in {ms(placed.report.connect_s or 0)}",
    )


# --- a man in the middle ------------------------------------------------------------------------


async def _middle(scene: Scene, balancer: BalancerProcess, served: Issued, page: Page) -> None:
    page.part("A man in the middle")
    page.say(
        "Now somebody sits between the client and the balancer, ends TLS with a certificate of "
        "his own that the client trusts (a company's inspection box, or worse), and passes "
        "everything on. He reads the user's name, he could read every packet later. Will he?"
    )
    shown = served if scene.is_broken("same-certificate") else scene.certificate("box")
    there = balancer.addresses["told-ours"]
    meek = await scene.inspector(shown, there)
    first = await scene.call(meek.address, 3)
    ended = (await balancer.wait_for("call_ended", 2, listener="told-ours"))[-1]
    page.show(scene.sequence("He passes on what he hears", first, middle="box", brief=True))
    _show_diagnosis(ended, page)
    page.claim(
        "A box that ends TLS and passes everything on is caught: the client signed the box's "
        "certificate",
        "the hash in CALL_CONNECTED was compared with both certificates",
        holds=_certificate_hash(first) == shown.certificate.sha256 != served.certificate.sha256
        and first.failed_with == "binding_refused",
        evidence=first.failed_with or "the call went well",
    )
    page.claim(
        "The balancer says that something between it and the client inspects TLS",
        "the reason in its log was read",
        holds=ended["reason"] == "client_certificate_hash_mismatch",
        evidence=f"{ended['reason']} {ended.get('detail', '')}".strip(),
    )
    liar = Liar(shown.certificate.sha256, served.certificate.sha256)
    clever = await scene.inspector(shown, there, liar.meddle)
    second = await scene.call(clever.address, 4)
    page.say(
        "So he gets cleverer: he writes the hash of the right certificate into CALL_CONNECTED as "
        "it passes. Now the hash is the one the server wants. But the packet was signed, with a "
        "key that comes from the user's password, which he does not have."
    )
    page.show(scene.sequence("He writes the right hash into it", second, middle="box", brief=True))
    heard = [c.find(MessageType.CALL_CONNECTED)
             for c in scene.journal.of(second.report.correlation_id)]  # fmt: skip
    server = scene.servers["rras2"]
    for _ in range(WAIT_STEPS):  # a server notes why when the call is over: 3 s at most
        if not second.failed_with or server.refused_bindings >= 2:
            break
        await asyncio.sleep(0.01)
    arrived = next((said for said in heard if said is not None), None)
    if arrived is not None and isinstance(arrived.what, Packet):
        page.show(anatomy.packet(arrived.what, "CALL_CONNECTED as it reached the server"))
    page.claim(
        "Writing the right hash into the packet does not help him: the signature no longer fits",
        "the packet the server got was compared with the one the client sent; the server's refusal "
        "was read",
        holds=liar.lies == 1
        and second.failed_with == "binding_refused"
        and server.last_binding_failure == "mac_mismatch",
        evidence=f"{liar.lies} packet changed; {second.failed_with or 'the call went well'}; the "
        f"server: {server.last_binding_failure or 'content'}",
    )


class Liar:
    """Writes another certificate's hash into what a client says."""

    def __init__(self, found: bytes, instead: bytes) -> None:
        self.lies = 0
        self._found, self._instead = found, instead

    def meddle(self, data: bytes) -> bytes:
        """Return what is passed on."""
        self.lies += self._found != self._instead and self._found in data
        return data.replace(self._found, self._instead)


def _certificate_hash(placed: Placed) -> bytes:
    """Return the hash a client signed, or nothing."""
    said = placed.heard.find(MessageType.CALL_CONNECTED)
    if said is None or not isinstance(said.what, Packet):
        return b""
    found = parse_message(said.what.payload).find(AttributeId.CRYPTO_BINDING)
    return b"" if found is None else CryptoBinding.parse(found).certificate_hash


LESSON = Lesson(
    number=5,
    slug="the-wrong-hash",
    title="The wrong hash: connects, then disconnects",
    why=WHY,
    play=play,
    question="The man in the middle who rewrote the hash failed at the signature. What would he "
    "need to forge that, and who besides the client and the server has it? And with PAP instead "
    "of MS-CHAPv2, would the binding still stop him?",
    answer="He needs the HLAK: 32 bytes that MS-CHAPv2 (or EAP) derives on both sides from the "
    "user's password and the challenges. The RADIUS server has them too, and hands them to RRAS; "
    "nobody in the path does. PAP derives no key: the HLAK is 32 zero bytes, which everybody "
    "knows, so that he could sign as well as the client. And he would have read the password "
    "besides. Authentication that makes no keys makes no binding.",
    proves="A wrong hash ends every call right after authentication, and a balancer that ends TLS "
    "can name the cause. The same comparison catches a man in the middle, and the signature keeps "
    "him from lying his way out.",
    breaks=(
        Break(
            "right-hash",
            "the forgotten server was told the right hash after all",
            "its calls go well, and there is nothing to explain",
            (
                "The call is refused after the password",
                "The client signed the hash of the certificate that the balancer serves",
                "The balancer names the cause",
            ),
        ),
        Break(
            "same-certificate",
            "the box has the balancer's own certificate and key",
            "nobody can tell it from the balancer: who holds the private key, is the server",
            (
                "A box that ends TLS and passes everything on",
                "The balancer says that something between",
                "Writing the right hash into the packet",
            ),
        ),
    ),
)
