"""The story of a call as its packets tell it: complete, bounded, and without a secret."""

import os
import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sstplb.config.schema import Follow
from sstplb.protocol import packet, ppp
from sstplb.protocol.packet import CryptoBinding, StatusInfo
from sstplb.protocol.ppp import ChapCode, Code, Option, PapCode, PppPacket, Protocol
from sstplb.protocol.ppp_peer import Authentication, ClientEnd, PppPeer, ServerEnd
from sstplb.protocol.registry import AttributeId, Status
from sstplb.protocol.story import (
    FRAMES_MAX,
    MOMENTS_MAX,
    NAME_CHARACTERS_MAX,
    Step,
    Storyteller,
    terminate_reason,
)
from sstplb.protocol.watcher import Watcher, Whose

GUID = "{0D528CAC-464E-423A-A399-9470E234BC54}"
ADDRESS = IPv4Address("10.9.0.2")
PASSWORD = "correct horse battery"
IP = b"\xff\x03\x00\x21\x45\x00"

Said = list[tuple[str, bytes]]


def spoken(
    authentication: Authentication = Authentication.MSCHAPV2, password: str = PASSWORD
) -> Said:
    """Return what two real ends of a PPP link say, and who says it."""
    server = ServerEnd({"alice": PASSWORD}, IPv4Address("10.9.0.1"), ADDRESS, authentication)
    ends = {
        "client": PppPeer(ClientEnd("CORP\\alice", password, "PC7", GUID), os.urandom),
        "backend": PppPeer(server, os.urandom),
    }
    said: Said = []
    waiting = [(side, frame) for side, end in ends.items() for frame in end.start(0.0)]
    while waiting:
        side, frame = waiting.pop(0)
        said.append((side, frame))
        other = "backend" if side == "client" else "client"
        waiting += [(other, answer) for answer in ends[other].receive(frame, 0.0)]
    return said


def told(said: Said) -> Storyteller:
    story = Storyteller()
    for number, (side, frame) in enumerate(said):
        story.take_frame(side, frame, float(number))
    return story


def steps(story: Storyteller) -> list[Step]:
    return [news.step for news in story.take_news()]


@pytest.mark.parametrize("authentication", list(Authentication))
def test_a_whole_opening_is_told(authentication: Authentication) -> None:
    story = told(spoken(authentication))
    assert story.user == "CORP\\alice"
    assert story.computer == "PC7"
    assert story.correlation_id == GUID
    assert story.authentication == authentication.value
    assert story.address == ADDRESS
    assert steps(story) == [
        Step.LCP, Step.LCP_OPEN, Step.AUTHENTICATION, Step.AUTHENTICATED, Step.IPCP, Step.ADDRESS,
    ]  # fmt: skip
    assert story.is_settled
    assert not story.is_told, "no data has come yet"
    for side in ("client", "backend"):
        story.take_frame(side, IP, 99.0)
    assert story.is_told


def forms(frame: bytes) -> list[bytes]:
    """Return a frame in every form RFC 1661 allows: with address and control, or compressed."""
    bare = frame.removeprefix(ppp.ADDRESS_CONTROL)
    short = bare[1:] if bare[0] == 0 and bare[1] & 1 else bare
    return [frame, bare, ppp.ADDRESS_CONTROL + short, short]


@pytest.mark.parametrize("form", range(4))
def test_with_or_without_ff03_and_with_short_protocol_numbers(form: int) -> None:
    said = [*spoken(), ("client", IP), ("backend", IP)]
    story = told([(side, forms(frame)[form]) for side, frame in said])
    assert (story.user, story.address, story.is_told) == ("CORP\\alice", ADDRESS, True)


@pytest.mark.parametrize(
    ("authentication", "detail"),
    [
        (Authentication.MSCHAPV2, "error 691: wrong user name or password"),
        (Authentication.PAP, ""),
    ],
)
def test_a_wrong_password_is_told_with_its_number(
    authentication: Authentication, detail: str
) -> None:
    story = told(spoken(authentication, "wr0ng"))
    news = story.take_news()
    assert (news[-1].step, news[-1].side) == (Step.NOT_AUTHENTICATED, "backend")
    assert news[-1].detail == detail
    assert story.user == "CORP\\alice"


@pytest.mark.parametrize("authentication", list(Authentication))
@pytest.mark.parametrize("password", [PASSWORD, "wr0ng"])
def test_no_secret_is_kept(authentication: Authentication, password: str) -> None:
    said = spoken(authentication, password)
    story = told(said)
    kept = repr([story.user, story.computer, story.authentication, story.take_news()])
    assert password not in kept
    for _, frame in said:
        protocol, information = ppp.parse_frame(frame)
        if protocol == Protocol.CHAP:
            data = ppp.parse_packet(information).data
            if information[0] in (ChapCode.CHALLENGE, ChapCode.RESPONSE):
                value = data[1 : 1 + data[0]]
                assert value.hex() not in kept.lower()
                assert repr(value)[2:-1] not in kept
            else:  # an authenticator, or a challenge to try again
                assert not any(len(w) > 30 and w.decode() in kept for w in data.split())


def test_eap_names_its_method_and_the_identity() -> None:
    def eap(side: str, code: int, data: bytes = b"") -> tuple[str, bytes]:
        return side, ppp.encode_frame(Protocol.EAP, PppPacket(code, 1, data).encode())

    story = told(
        [
            eap("backend", 1, b"\x01"),
            eap("client", 2, b"\x01anonymous@corp.example"),
            eap("backend", 1, b"\x19\x20"),
            eap("client", 2, b"\x19\x00secret"),
            eap("backend", 3),
        ]
    )
    assert (story.user, story.authentication) == ("anonymous@corp.example", "PEAP")
    assert steps(story) == [Step.AUTHENTICATION, Step.AUTHENTICATED]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x01\x02\x03\x04\x00<\xcdt" + struct.pack("!I", 742), "RAS error 742"),
        (b"\x01\x02\x03\x04\x00<\xcdt" + struct.pack("!I", 0), ""),
        (b"User request", "User request"),
        (b"\x00\x01\x02", ""),
        (b"", ""),
        (b"x" * 200, "x" * 64),
    ],
)
def test_why_ppp_ended(data: bytes, reason: str) -> None:
    assert terminate_reason(data) == reason


def test_hellos_are_timed_and_one_may_stay_unanswered() -> None:
    story = Storyteller()
    story.take_message("backend", packet.ECHO_REQUEST, 10.0)
    story.take_message("client", packet.ECHO_RESPONSE, 10.25)
    story.take_message("client", packet.ECHO_RESPONSE, 10.5)
    story.take_message("backend", packet.ECHO_REQUEST, 70.0)
    seen = story.hellos["backend"]
    assert (seen.asked, seen.answered, seen.last_s, seen.waiting_since) == (2, 1, 0.25, 70.0)
    assert "client" not in story.hellos


def test_what_is_remembered_is_bounded() -> None:
    story = Storyteller()
    refused = ppp.encode_frame(Protocol.CHAP, PppPacket(ChapCode.FAILURE, 1, b"E=691").encode())
    told_after = []
    for number in range(1, FRAMES_MAX + 1):
        story.take_frame("backend", refused, 0.0)
        told_after += [number] if story.is_told else []
    assert told_after == [FRAMES_MAX]
    assert len(story.take_news()) == MOMENTS_MAX
    data = b"\x31" + bytes(49) + b"\x1b[31m" * 1000
    story = told([("client", ppp.encode_frame(Protocol.CHAP, PppPacket(2, 1, data).encode()))])
    assert len(story.user) == NAME_CHARACTERS_MAX
    assert story.user.isprintable()


@pytest.mark.parametrize(
    ("protocol", "code", "data"),
    [
        (Protocol.PAP, PapCode.REQUEST, b"\x0aalice\x06secret"),
        (Protocol.PAP, PapCode.REQUEST, b"\xffalice\x06secret"),
        (Protocol.PAP, PapCode.REQUEST, b"\x05alice\x03secret"),
        (Protocol.PAP, PapCode.REQUEST, b"\x00\x05alice\x06secret"),
        (Protocol.CHAP, ChapCode.RESPONSE, b"\x00" + b"secret" * 8 + b"alice"),
        (Protocol.CHAP, ChapCode.RESPONSE, b"\x10" + b"secret" * 8 + b"xalice"),
        (Protocol.CHAP, ChapCode.RESPONSE, b"\x31" + b"secret" * 8),
        (Protocol.CHAP, ChapCode.RESPONSE, b""),
    ],
)
def test_a_length_that_lies_makes_no_secret_a_name(protocol: int, code: int, data: bytes) -> None:
    story = told([("client", ppp.encode_frame(protocol, PppPacket(code, 1, data).encode()))])
    assert story.user == ""
    assert "secret" not in repr(story.take_news())
    assert steps(story) == [], "taken already"


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["client", "backend"]), st.binary(max_size=60))))
def test_nothing_a_peer_sends_raises(said: Said) -> None:
    told(said)


@settings(deadline=None)
@given(
    st.sampled_from([p for p in Protocol if p >= 0x8000]),
    st.integers(0, 12),
    st.binary(max_size=40),
)
def test_no_control_packet_raises(protocol: int, code: int, data: bytes) -> None:
    frame = ppp.encode_frame(protocol, PppPacket(code, 1, data).encode())
    told([("client", frame), ("backend", frame), ("client", frame)])


def test_a_malformed_frame_is_a_step_and_no_fault() -> None:
    watcher = Watcher(Follow.OPENING, frozenset())
    watcher.from_client(packet.data_packet(b"\xff\x03\xc0\x21\x01\x01\xff\xff"), 1.0)
    watcher.from_client(packet.data_packet(b"\xff\x03\xc0"), 2.0)
    (news,) = watcher.story.take_news()
    assert (news.step, news.at) == (Step.MALFORMED, 1.0)
    assert watcher.fault is None


# --- through the watcher ------------------------------------------------------------------------


def stream(said: Said, side: str) -> bytes:
    return b"".join(packet.data_packet(frame) for who, frame in said if who == side)


@settings(deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_any_split_tells_the_same_story(sizes: list[int]) -> None:
    said = [*spoken(), ("client", IP + bytes(1300)), ("backend", IP)]
    client, backend = stream(said, "client"), stream(said, "backend")
    whole, split = Watcher(Follow.FULL, frozenset()), Watcher(Follow.FULL, frozenset())
    for watcher in (whole, split):
        watcher.from_backend(backend, 0.0)
    whole.from_client(client, 0.0)
    at = 0
    for size in sizes:
        split.from_client(client[at : at + size], 0.0)
        at += size
    split.from_client(client[at:], 0.0)
    assert whole.story.take_news() == split.story.take_news()
    assert (whole.story.user, whole.story.is_told) == (split.story.user, split.story.is_told)
    assert whole.packets_from_client == split.packets_from_client


def terminate() -> bytes:
    data = b"\x01\x02\x03\x04\x00<\xcdt" + struct.pack("!I", 829)
    request = PppPacket(Code.TERMINATE_REQUEST, 5, data)
    return packet.data_packet(ppp.encode_frame(Protocol.LCP, request.encode()))


@pytest.mark.parametrize("follow", [Follow.OPENING, Follow.FULL])
def test_the_end_of_ppp_is_seen_even_when_frames_are_not_cut_out_any_more(follow: Follow) -> None:
    watcher = Watcher(follow, frozenset())
    watcher.from_client(packet.connect_request().encode(), 0.0)
    watcher.from_backend(packet.connect_ack(bytes(32), 3).encode(), 0.0)
    binding = CryptoBinding(2, bytes(32), bytes(32), bytes(32))
    watcher.from_client(packet.connected(binding).encode(), 0.0)
    data = packet.data_packet(IP + bytes(1300))
    watcher.from_client(data, 0.0)
    watcher.from_backend(data * 20, 0.0)
    assert watcher.story.is_told
    watcher.story.take_news()
    watcher.from_client(terminate(), 7.0)
    watcher.from_client(packet.disconnect().encode(), 8.0)
    assert [(n.step, n.at, n.detail) for n in watcher.story.take_news()] == [
        (Step.PPP_ENDED, 7.0, "RAS error 829"),
        (Step.DISCONNECT, 8.0, ""),
    ]


def test_status_is_told_in_the_specifications_words() -> None:
    story = Storyteller()
    status = StatusInfo(AttributeId.CRYPTO_BINDING, Status.VALUE_NOT_SUPPORTED)
    story.take_message("backend", packet.abort(status), 1.0)
    story.take_message("backend", packet.disconnect(StatusInfo()), 2.0)
    assert [n.detail for n in story.take_news()] == ["CRYPTO_BINDING: VALUE_NOT_SUPPORTED", ""]


@pytest.mark.parametrize(
    ("hash_byte", "whose", "words"),
    [(1, Whose.OURS, ""), (2, Whose.BACKENDS, "backend's own"), (3, Whose.NEITHER, "inspects TLS")],
)
def test_whose_certificate_the_client_saw(hash_byte: int, whose: Whose, words: str) -> None:
    watcher = Watcher(Follow.OPENING, frozenset({b"\1" * 32}), frozenset({b"\2" * 32}))
    seen = CryptoBinding(2, bytes(32), bytes((hash_byte,)) * 32, bytes(32))
    watcher.from_backend(packet.connect_ack(bytes(32), 2).encode(), 0.0)
    watcher.from_client(packet.connected(seen).encode(), 0.0)
    assert watcher.binding is not None
    assert watcher.binding.whose is whose
    assert watcher.binding.is_nonce_echoed
    assert watcher.binding.is_hash_offered
    assert (watcher.fault is None) == (not words)
    assert watcher.fault is None or words in watcher.fault.sentence


def test_options_that_do_not_fit_are_malformed_not_fatal() -> None:
    wrong = PppPacket(Code.CONFIGURE_ACK, 1, b"\x03\x09")
    story = told([("client", ppp.encode_frame(Protocol.LCP, wrong.encode()))])
    assert steps(story) == [Step.MALFORMED]
    good = ppp.encode_options([Option(3, b"\xc0\x23")])
    ack = PppPacket(Code.CONFIGURE_ACK, 1, good)
    story.take_frame("client", ppp.encode_frame(Protocol.LCP, ack.encode()), 1.0)
    assert story.authentication == "PAP"
