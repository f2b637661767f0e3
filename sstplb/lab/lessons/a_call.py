"""Lesson 1: an SSTP call on the wire.

No balancer yet. One client calls one server, and we listen in at both ends, inside TLS.
"""

from sstplb.lab.lessons import anatomy
from sstplb.lab.lessons.page import Break, Lesson, Page
from sstplb.lab.lessons.scene import Placed, Scene
from sstplb.lab.lessons.wording import ms
from sstplb.protocol.head import RequestHead
from sstplb.protocol.packet import CryptoBinding, Packet, connect_request, parse_message
from sstplb.protocol.registry import AttributeId, MessageType

WHY = """
SSTP is Microsoft's VPN inside HTTPS: to every firewall it looks like a web site on port 443. Under
the TLS lies one strange HTTP request that never ends, and inside it a small packet protocol that
carries PPP, the old protocol of modems; and inside PPP, at last, the user's IP packets.

Whoever balances such calls must know three things about them: what happens in which order, from
which moment on there is no way back, and what the client and the server prove to each other. You
will see all three in one call.
"""


async def play(scene: Scene, page: Page) -> None:
    """Place one call and take it apart."""
    certificate = scene.certificate()
    server = await scene.rras("rras1", certificate)
    assert server.https is not None, "it listens"
    page.say(
        "A simulated RRAS server with a lab certificate, and one caller. The caller does what "
        "Windows does: TLS, the HTTP opening, CALL_CONNECT, PPP with MS-CHAPv2, the crypto "
        "binding, an address, a ping through the tunnel, and a polite end."
    )
    password = "wrong" if scene.is_broken("wrong-password") else "password"
    placed = await scene.call(server.https, password=password)
    page.part("What happened")
    page.show(scene.sequence("One call, from TLS to goodbye", placed))
    page.part("The bytes that matter")
    _show_opening(placed, page)
    await _show_binding(placed, page, certificate.certificate.sha256)
    _show_tunnel(placed, page)


def _show_opening(placed: Placed, page: Page) -> None:
    said = placed.heard
    request, answer = said.head(by_client=True), said.head(by_client=False)
    assert request is not None, "a call begins with its head"
    page.say(
        "**The opening.** The length is the largest number of 64 bits: a body that never ends. "
        "Ordinary HTTP proxies stumble over it."
    )
    page.show(anatomy.head(request.raw, "The client's request"))
    if answer is not None:
        page.show(anatomy.head(answer.raw, "The server's answer"))
    head = request.what
    order = [name for name, _ in head.headers] if isinstance(head, RequestHead) else []
    page.claim(
        "A call opens with the method SSTP_DUPLEX_POST, for one fixed URI, length 2⁶⁴ - 1",
        "the head, as the server heard it, was read by the parser the balancer uses",
        holds=isinstance(head, RequestHead)
        and head.is_sstp
        and head.header("Content-Length") == str(2**64 - 1),
        evidence=f"headers in this order: {', '.join(order)}",
    )
    after = [s for s in said.sayings if not s.is_head and s.by_client]
    answered_s = answer.at_s if answer is not None else float("inf")
    page.claim(
        "Until the server's 200 has come, the client sends nothing more",
        "the times of the answer and of the client's first packet were compared",
        holds=bool(after) and after[0].at_s >= answered_s,
        evidence=f"first packet {ms(after[0].at_s - answered_s)} after the 200"
        if after
        else "none",
    )
    if after:
        page.say(
            "**The first packet.** Fourteen bytes that ask for PPP. Every SSTP packet begins with "
            "these four: version, a bit that says control or data, and a length."
        )
        assert isinstance(after[0].what, Packet), "not a head"
        page.show(anatomy.packet(after[0].what))
    page.claim(
        "The first packet is CALL_CONNECT_REQUEST, 14 bytes, always the same",
        "its bytes were compared with those the protocol room makes",
        holds=bool(after) and after[0].raw == connect_request().encode(),
        evidence=after[0].raw.hex() if after else "nothing came",
    )


async def _show_binding(placed: Placed, page: Page, certificate_sha256: bytes) -> None:
    accepted = placed.heard.find(MessageType.CALL_CONNECT_ACK)
    bound = placed.heard.find(MessageType.CALL_CONNECTED)
    if accepted is not None and isinstance(accepted.what, Packet):
        page.say(
            "**The server's challenge.** Its acknowledgement brings a nonce. PPP comes next: LCP, "
            "then MS-CHAPv2, from which both ends derive the same secret key."
        )
        page.show(anatomy.packet(accepted.what))
    binding, offered = None, None
    if bound is not None and isinstance(bound.what, Packet):
        page.say(
            "**The crypto binding.** With that key the client signs a packet that holds the nonce "
            "and **the hash of the certificate it saw**. Remember this one: half of the lessons "
            "are about it."
        )
        page.show(anatomy.packet(bound.what))
        found = parse_message(bound.what.payload).find(AttributeId.CRYPTO_BINDING)
        binding = None if found is None else CryptoBinding.parse(found)
        if accepted is not None and isinstance(accepted.what, Packet):
            offered = parse_message(accepted.what.payload).binding_request
    page.claim(
        "The client proves which certificate it saw: CALL_CONNECTED holds the server's nonce and "
        "the SHA-256 of the server's certificate",
        "both were cut out of the packet and compared with the ACK and with the certificate file",
        holds=binding is not None
        and offered is not None
        and binding.nonce == offered.nonce
        and binding.certificate_hash == certificate_sha256,
        evidence="no CALL_CONNECTED was sent" if binding is None
        else f"hash {binding.certificate_hash.hex()}",
    )  # fmt: skip


def _show_tunnel(placed: Placed, page: Page) -> None:
    said, report = placed.heard, placed.report
    ip = [s for s in said.sayings if s.is_ip]
    bound = said.find(MessageType.CALL_CONNECTED)
    if ip and isinstance(ip[0].what, Packet):
        page.say("**At last, a user's packet**: a ping, inside PPP, inside SSTP, inside TLS.")
        page.show(anatomy.packet(ip[0].what))
        inner, around = anatomy.sizes(ip[0].what)
        page.measured(
            "SSTP and PPP around each IP packet", f"{around} bytes",
            f"counted in the packet above, {inner} bytes of IP; TLS adds its own",
        )  # fmt: skip
    page.claim(
        "No IP packet flows before the binding was sent",
        "the times of CALL_CONNECTED and of the first IP packet were compared",
        holds=bool(ip) and bound is not None and ip[0].at_s >= bound.at_s,
        evidence=f"{len(ip)} IP packets, the first {ms(ip[0].at_s - bound.at_s)} later"
        if ip and bound
        else "no IP packet at all",
    )
    page.claim(
        "The call ends politely: CALL_DISCONNECT is acknowledged",
        "the last two messages of the conversation were looked at",
        holds=report.ok and said.sayings[-1].is_message(MessageType.CALL_DISCONNECT_ACK),
        evidence=report.failure.sentence if report.failure else said.sayings[-1].text,
    )
    if report.connect_s is not None:
        page.measured(
            "From the first packet to an address", ms(report.connect_s),
            "the caller's clock; both ends on this machine, so hardly any network",
        )  # fmt: skip
    flights = [s for n, s in enumerate(said.sayings)
               if n == 0 or s.by_client is not said.sayings[n - 1].by_client]  # fmt: skip
    to_ip = [s for s in flights if s.by_client and (not ip or s.at_s <= ip[0].at_s)]
    page.measured(
        "Round trips inside TLS before the first IP packet", f"{len(to_ip) - 1}",
        "turns in the conversation, as the client heard it; TCP and TLS come on top. On a line "
        "with 50 ms there and back, multiply",
    )  # fmt: skip


LESSON = Lesson(
    number=1,
    slug="a-call-on-the-wire",
    title="An SSTP call on the wire",
    why=WHY,
    play=play,
    question="A balancer finds that the server it chose does not answer. Looking at the diagram: "
    "until when may it quietly ask another server, without the client noticing? What would it have "
    "to keep in order to do so?",
    answer="Until it has passed on the 200. A Windows client says nothing between its request and "
    "the 200, so the request head is all that has to be said again to the next server. After the "
    "200 the client has begun a dance (nonce, keys, address) with one particular server; another "
    "one would know nothing of it. Lesson 8 shows both sides of that moment. (Some clients send "
    "their first packets along with the head. Then these must be kept too.)",
    proves="The order of an SSTP call, byte for byte: opening, CALL_CONNECT, PPP, crypto binding, "
    "data, disconnect; and that the client is silent until it has the 200.",
    breaks=(
        Break(
            "wrong-password",
            "the caller uses a wrong password",
            "MS-CHAPv2 fails, so there is no key, no CALL_CONNECTED and no IP",
            (
                "The client proves which certificate it saw",
                "No IP packet flows before the binding",
                "The call ends politely",
            ),
        ),
    ),
)
